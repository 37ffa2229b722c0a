//! What kplay makes of a field of a manifest, in words.

use std::fmt;

/// One field of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The type that has it.
    pub of: &'static str,
    pub name: &'static str,
    /// Its own type, such as `[]Container`.
    pub kind: &'static str,
    pub standing: Standing,
    /// Why it is noted or refused, or what else to know of it. May be empty.
    pub remark: &'static str,
    /// What it is for, in a sentence without full stop.
    pub meaning: &'static str,
    /// The tests that show it.
    pub tests: &'static str,
}

/// What kplay does with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Honoured,
    /// "`field` is ignored: why".
    Noted(When),
    /// "`field` is not supported yet: why"; nothing is played.
    Refused(When),
}

/// For which values a field is noted or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// For all; an empty list or mapping is none.
    Set,
    /// For this one.
    If(&'static str),
    /// For all but this one.
    Unless(&'static str),
}

impl Field {
    /// The type whose fields are below this one: its own, or that of its items.
    #[must_use]
    pub fn inner(&self) -> &'static str {
        let kind = self.kind.strip_prefix("map[string]").unwrap_or(self.kind);
        kind.strip_prefix("[]").unwrap_or(kind)
    }

    /// Whether what is below it does not matter, whatever it is.
    #[must_use]
    pub fn is_left_out(&self) -> bool {
        matches!(
            self.standing,
            Standing::Noted(When::Set) | Standing::Refused(When::Set)
        )
    }

    /// What is done with it and why, in a sentence without full stop.
    #[must_use]
    pub fn verdict(&self) -> String {
        match self.remark {
            "" => self.standing.to_string(),
            remark => format!("{}: {remark}", self.standing),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (when, verdict) = match self {
            Self::Honoured => return f.write_str("honoured"),
            Self::Noted(when) => (when, "ignored"),
            Self::Refused(when) => (when, "refused"),
        };
        match when {
            When::Set => f.write_str(verdict),
            When::If(value) => write!(f, "honoured, but `{value}` is {verdict}"),
            When::Unless(value) => write!(f, "`{value}` is honoured, all else is {verdict}"),
        }
    }
}
