//! Files that variables are read from (`fileKeyRef`; `kubelet/util/env/env_util.go`). Pure.
//!
//! ```text
//! # a comment
//! NAME='everything, also # and new lines, up to the next quote' # a comment
//! ```
//!
//! It is what a POSIX shell would also read, but only this form: one that reads more would promise what others break.

/// A file has at most this many bytes.
pub const LARGEST: u64 = 64 * 1024;

/// What is wrong with a file, and in which line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("invalid environment variable format at line {0}: missing '='")]
    NoEquals(usize),
    #[error("invalid environment variable format at line {0}: empty variable name")]
    NoName(usize),
    #[error(
        "invalid environment variable format at line {0}: whitespace before '=' is not allowed"
    )]
    Whitespace(usize),
    #[error(
        "invalid environment variable format at line {0}: value must be enclosed in single quotes"
    )]
    NoQuote(usize),
    #[error(
        "invalid environment variable format at line {0}: unexpected content after closing quote"
    )]
    AfterQuote(usize),
    #[error("invalid environment variable format starting at line {0}: unclosed single quote")]
    Unclosed(usize),
}

const BLANK: [char; 2] = [' ', '\t'];

/// The value of a variable; the first one of that name counts, and an empty one is none. What follows it is not looked
/// at.
///
/// # Errors
/// The file is not of this form, up to there.
pub fn value(text: &str, key: &str) -> Result<Option<String>, Fault> {
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start_matches(BLANK);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once('=').ok_or(Fault::NoEquals(number))?;
        match name.trim_end_matches(BLANK) {
            "" => return Err(Fault::NoName(number)),
            trimmed if trimmed != name => return Err(Fault::Whitespace(number)),
            _ => {}
        }
        // As in a shell: `NAME= 'x'` is an empty variable.
        if rest.starts_with(BLANK) {
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let mut rest = rest.strip_prefix('\'').ok_or(Fault::NoQuote(number))?;
        let mut value = String::new();
        let mut last = number;
        let after = loop {
            if let Some((end, after)) = rest.split_once('\'') {
                value += end;
                break after;
            }
            value += rest;
            value.push('\n');
            (last, rest) = lines.next().ok_or(Fault::Unclosed(number))?;
        };
        let after = after.trim_start_matches(BLANK);
        if !after.is_empty() && !after.starts_with('#') {
            return Err(Fault::AfterQuote(last));
        }
        if name == key {
            return Ok(Some(value).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_is_between_the_quotes() {
        let text = "# comment\n\n  \t\n\tA='1'\nB='two # words = $A \\n' # comment\nC=''\nD= 'x'\nE='a\n\n# b\r\nc'\n\
                    F='1'#x\nA='2'\nä-1.x='ü'\nG='no line end'";
        let check = |key: &str, expected: Option<&str>| {
            assert_eq!(value(text, key), Ok(expected.map(str::to_owned)), "{key}");
        };
        check("A", Some("1"));
        check("B", Some("two # words = $A \\n"));
        // An empty value is none.
        check("C", None);
        check("D", None);
        check("E", Some("a\n\n# b\nc"));
        check("F", Some("1"));
        check("ä-1.x", Some("ü"));
        check("G", Some("no line end"));
        check("H", None);
        assert_eq!(value("", "A"), Ok(None));
    }

    #[test]
    fn other_forms_are_refused_up_to_the_key() {
        let check = |text: &str, fault: Fault| {
            assert_eq!(value(text, "KEY"), Err(fault.clone()), "{text:?}");
            let behind = format!("KEY='x'\n{text}");
            assert_eq!(value(&behind, "KEY"), Ok(Some("x".into())), "{text:?}");
            assert!(value(&format!("A='x\ny'\n{text}\nKEY='x'"), "KEY").is_err());
        };
        check("A", Fault::NoEquals(1));
        check("\n='x'", Fault::NoName(2));
        check("A ='x'", Fault::Whitespace(1));
        check("A=x", Fault::NoQuote(1));
        check("A=", Fault::NoQuote(1));
        check("A=\"x\"", Fault::NoQuote(1));
        check("export A='x'y", Fault::AfterQuote(1));
        check("A='x\ny'z", Fault::AfterQuote(2));
        check("\nA='x\ny", Fault::Unclosed(2));
    }
}
