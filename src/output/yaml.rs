//! YAML that kubectl and kplay read back as what it was.
//!
//! serde_yaml writes YAML 1.2, in which `yes`, `0644` and `1:20` are texts; for the YAML 1.1 of Kubernetes they are a
//! boolean and numbers. Such texts get marks around them, which become quotes in the written document.

use serde_json::{Map, Value};

use super::{Error, object};

const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';

/// The YAML of an object, with a line end.
///
/// # Errors
/// It cannot be written.
pub(crate) fn text(object: &Value) -> Result<String, Error> {
    let marked = marked(object);
    let text = serde_yaml::to_string(&marked).map_err(Error::Yaml)?;
    if has_marks(object) {
        // Private characters of the document's own: JSON is YAML, too, and needs no marks.
        return object::json(object);
    }
    Ok(text.replace([OPEN, CLOSE], "'"))
}

fn marked(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(mark(text)),
        Value::Array(items) => Value::Array(items.iter().map(marked).collect()),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (mark(key), marked(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn mark(text: &str) -> String {
    if differs(text) {
        format!("{OPEN}{text}{CLOSE}")
    } else {
        text.to_owned()
    }
}

fn has_marks(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains([OPEN, CLOSE]),
        Value::Array(items) => items.iter().any(has_marks),
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| key.contains([OPEN, CLOSE]) || has_marks(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether YAML 1.1 takes a plain text for something else and YAML 1.2 may not.
fn differs(text: &str) -> bool {
    const WORDS: [&str; 11] = [
        "y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "<<",
    ];
    if WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        return true;
    }
    let number = text.strip_prefix(['+', '-']).unwrap_or(text);
    number.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && (is_integer(number) || is_float(number) || is_sexagesimal(number) || is_date(number))
}

fn digits(text: &str, base: u32) -> bool {
    !text.is_empty() && text.chars().all(|c| c == '_' || c.is_digit(base))
}

fn is_integer(text: &str) -> bool {
    let based = |prefix: &str, base| text.strip_prefix(prefix).is_some_and(|t| digits(t, base));
    digits(text, 10) || based("0x", 16) || based("0o", 8) || based("0b", 2)
}

fn is_float(text: &str) -> bool {
    let bare = text.replace('_', "");
    let special = matches!(bare.to_ascii_lowercase().as_str(), ".inf" | ".nan");
    special || bare.parse::<f64>().is_ok()
}

/// `1:20:30`, a number of base 60.
fn is_sexagesimal(text: &str) -> bool {
    text.contains(':')
        && text
            .split(':')
            .all(|part| digits(part.split('.').next().unwrap_or_default(), 10))
}

/// `2026-01-01`, also with a time behind it.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let year = parts.next().is_some_and(|p| p.len() == 4 && digits(p, 10));
    let month = parts.next().is_some_and(|p| p.len() <= 2 && digits(p, 10));
    year && month
        && parts
            .next()
            .is_some_and(|day| day.starts_with(|c: char| c.is_ascii_digit()))
        // A space, and serde_yaml chooses the quotes itself.
        && !text.contains([' ', '\'', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_stays_a_text_for_kubernetes() {
        let check = |value: &str, expected: &str| {
            let written = text(&json!({ "a": value })).expect("writes");
            assert_eq!(written, format!("a: {expected}\n"), "{value:?}");
        };
        for quoted in [
            "yes",
            "On",
            "n",
            "~",
            "null",
            "true",
            "0644",
            "0o644",
            "0x1f",
            "12",
            "1_000",
            "1.5",
            "1e3",
            ".inf",
            "1:20",
            "190:20:30",
            "2026-01-01",
            "-1",
            "+12",
            "<<",
            "2026-01-01T00:00:00Z",
        ] {
            check(quoted, &format!("'{quoted}'"));
        }
        for plain in [
            "web",
            "10.0.0.2",
            "1.2.3",
            "500m",
            "1Gi",
            "127.0.0.1:5000/a",
            "none",
            "e3",
            "a-1",
        ] {
            check(plain, plain);
        }
        check("", "''");
        check("# x", "'# x'");
        check("a: b", "'a: b'");
    }

    #[test]
    fn keys_and_deeper_values_are_quoted_too() {
        assert_eq!(
            text(&json!({ "on": [{ "y": "no" }], "n": "a\nb\n" })).expect("writes"),
            "'on':\n- 'y': 'no'\n'n': |\n  a\n  b\n"
        );
    }

    #[test]
    fn marks_of_the_documents_own_make_it_json() {
        let written = text(&json!({ "a": "\u{e000}" })).expect("writes");
        assert_eq!(written, "{\n    \"a\": \"\u{e000}\"\n}\n");
    }
}
