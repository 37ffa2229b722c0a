//! Scalars by the rules of YAML 1.1 as kubectl's parser (go-yaml v2) applies them: `0644` and `0o644` are octal,
//! `yes`, `on` and `y` are booleans, dates stay strings, `1_000` is a number.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use granit_parser::Tag;

use super::super::node::Value;

/// A scalar's value; never a collection.
#[derive(Debug)]
pub(super) struct Resolved(pub(super) Value);

/// Reads a scalar. Only a plain one, or one with a tag, can be anything but a string.
///
/// # Errors
/// What is wrong with it, as a message.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Resolved, String> {
    let value = match tag {
        Some(tag) => match tag.suffix_in_namespace("tag:yaml.org,2002:") {
            Some(name) => tagged(text, &name)?,
            None => Value::String(text.into()),
        },
        None if plain => resolve_plain(text),
        None => Value::String(text.into()),
    };
    match value {
        Value::Float(number) if !number.is_finite() => Err(format!(
            "`{text}` is not a number that JSON knows; quote it to make it a string"
        )),
        value => Ok(Resolved(value)),
    }
}

fn tagged(text: &str, tag: &str) -> Result<Value, String> {
    let value = match tag {
        "binary" => {
            let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let bytes = BASE64_STANDARD
                .decode(compact)
                .map_err(|_| "`!!binary` is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "`!!binary` is not UTF-8 text")?;
            return Ok(Value::String(text.into()));
        }
        "int" | "float" | "bool" | "null" => resolve_plain(text),
        _ => return Ok(Value::String(text.into())),
    };
    match (tag, value) {
        ("float", Value::Int(number)) => Ok(Value::Int(number)),
        ("int", value @ Value::Int(_))
        | ("float", value @ Value::Float(_))
        | ("bool", value @ Value::Bool(_))
        | ("null", value @ Value::Null) => Ok(value),
        _ => Err(format!("`{text}` is not of the type `!!{tag}`")),
    }
}

/// Reads a plain scalar.
pub(in super::super) fn resolve_plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes().first() {
        Some(b'0'..=b'9' | b'+' | b'-') => {
            let plain = text.replace('_', "");
            integer(&plain).or_else(|| float(&plain))
        }
        Some(b'.') => float(text),
        _ => None,
    };
    number.unwrap_or_else(|| Value::String(text.into()))
}

/// An integer that fits i64 or u64, in Go's notations.
fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match lower.as_deref() {
        Some("0x") => (16, digits.get(2..)?),
        Some("0o") => (8, digits.get(2..)?),
        Some("0b") => (2, digits.get(2..)?),
        Some(_) if digits.starts_with('0') => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -magnitude } else { magnitude };
    let fits =
        i64::try_from(value).is_ok() || (u64::try_from(value).is_ok() && !text.starts_with('+'));
    fits.then_some(Value::Int(value))
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`; Rust's parser takes the same and `inf`, `nan`.
fn float(text: &str) -> Option<Value> {
    let number = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    let value = number.then(|| text.parse::<f64>().ok()).flatten()?;
    // Go refuses what does not fit, and it stays a string.
    value.is_finite().then_some(Value::Float(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_read_as_kubectl_reads_them() {
        let check = |text: &str, expected: &str| {
            assert_eq!(format!("{:?}", resolve_plain(text)), expected, "{text:?}");
        };
        check("0644", "Int(420)");
        check("0o17", "Int(15)");
        check("08", "Float(8.0)");
        check("0x1F", "Int(31)");
        check("-0x10", "Int(-16)");
        check("0b11", "Int(3)");
        check("1_000", "Int(1000)");
        check("+5", "Int(5)");
        check("0", "Int(0)");
        check("-0", "Int(0)");
        check("18446744073709551615", "Int(18446744073709551615)");
        check("18446744073709551616", "Float(1.8446744073709552e19)");
        check("1e3", "Float(1000.0)");
        check("1.", "Float(1.0)");
        check(".5", "Float(0.5)");
        check("1.2.3", "String(\"1.2.3\")");
        check("12:30:45", "String(\"12:30:45\")");
        check("2001-01-01", "String(\"2001-01-01\")");
        check("_1", "String(\"_1\")");
        check("-", "String(\"-\")");
        check("e5", "String(\"e5\")");
        check("1e", "String(\"1e\")");
        check("1e999", "String(\"1e999\")");
        check("yes", "Bool(true)");
        check("y", "Bool(true)");
        check("Off", "Bool(false)");
        check("yEs", "String(\"yEs\")");
        check("~", "Null");
        check("", "Null");
        check(".inf2", "String(\".inf2\")");
        check("100m", "String(\"100m\")");
    }
}
