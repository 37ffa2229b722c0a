//! A fault or a note with its place in a manifest.

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is ignored, and the user should know.
    Note,
    /// Something is probably wrong, but it runs.
    Warning,
    /// Nothing of this run is played.
    Error,
}

/// One thing to tell about a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Lower case, no full stop, names in backticks.
    pub message: String,
    pub place: Option<Place>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A fault without a place yet.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message)
    }

    /// Something that is ignored, without a place yet.
    #[must_use]
    pub fn note(message: impl Into<String>) -> Self {
        Self::new(Severity::Note, message)
    }

    /// A diagnostic without place and hint.
    #[must_use]
    pub fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self {
            severity,
            message: message.into(),
            place: None,
            hint: None,
        }
    }

    /// The same, at a place.
    #[must_use]
    pub fn at(self, place: Place) -> Self {
        Self {
            place: Some(place),
            ..self
        }
    }

    /// The same, with a remedy.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// Where in a manifest, with the line itself, so that nobody has to read the file again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the user named it; `-` is standard input.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// How many characters to underline, at least 1.
    pub width: usize,
    /// The whole line, without its end. Empty if the line is too long to be shown.
    pub text: String,
    /// Said beside the underline: "defined here: `a`, `b`".
    pub label: Option<String>,
}
