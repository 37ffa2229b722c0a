//! `${NAME}` in values: opt-in, so that the `${…}` of shell scripts in manifests is left alone by default.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// What `${NAME}` stands for. `${NAME:-text}` has a default, `$${NAME}` is the text `${NAME}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Substitution(BTreeMap<String, String>);

/// Why a text could not be substituted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Error {
    #[error("the variable `{0}` is not defined")]
    Undefined(String),
    #[error("`${{` has no closing brace")]
    Open,
    #[error("`${{{0}}}` names no variable")]
    Name(String),
}

impl Substitution {
    /// Substitutes these variables and no others.
    #[must_use]
    pub fn new(variables: BTreeMap<String, String>) -> Self {
        Self(variables)
    }

    pub(in super::super) fn apply<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Error> {
        if !text.contains("${") {
            return Ok(Cow::Borrowed(text));
        }
        let mut output = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, tail) = rest.split_at(start);
            let inner = tail.strip_prefix("${").unwrap_or_default();
            if let Some(escaped) = before.strip_suffix('$') {
                output.push_str(escaped);
                output.push_str("${");
                rest = inner;
                continue;
            }
            output.push_str(before);
            let (expression, after) = inner.split_once('}').ok_or(Error::Open)?;
            output.push_str(self.value(expression)?);
            rest = after;
        }
        output.push_str(rest);
        Ok(Cow::Owned(output))
    }

    fn value<'t>(&'t self, expression: &'t str) -> Result<&'t str, Error> {
        let (name, default) = match expression.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (expression, None),
        };
        let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !valid {
            return Err(Error::Name(expression.to_owned()));
        }
        let value = self.0.get(name).map(String::as_str);
        match default {
            Some(default) => Ok(value.filter(|value| !value.is_empty()).unwrap_or(default)),
            None => value.ok_or_else(|| Error::Undefined(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced() {
        let variables =
            [("A", "x"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let substitution = Substitution::new(variables.into());
        let check = |text: &str, expected: Result<&str, Error>| {
            let actual = substitution.apply(text);
            assert_eq!(
                actual.as_deref(),
                expected.as_ref().map(|text| *text),
                "{text:?}"
            );
        };
        check("plain $A $(A)", Ok("plain $A $(A)"));
        check("${A}${A}b", Ok("xxb"));
        check("$${A}", Ok("${A}"));
        check("${B:-d e}", Ok("d e"));
        check("${EMPTY}", Ok(""));
        check("${EMPTY:-d}", Ok("d"));
        check("${B}", Err(Error::Undefined("B".into())));
        check("${A", Err(Error::Open));
        check("${A b}", Err(Error::Name("A b".into())));
    }
}
