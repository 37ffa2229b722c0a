//! Colours. Everything is clear without them: callers say what a text *is*, this decides what that looks like.

use std::borrow::Cow;

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Error,
    Warning,
    Note,
    Hint,
    /// Line numbers and the frame around a quoted line.
    Frame,
    /// Where a line of a log comes from; the number tells sources apart.
    Source(usize),
    Good,
    Bad,
    Faint,
}

/// Whether a stream takes escape sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    On,
    Off,
}

/// The colours of log sources: told apart on dark and light backgrounds, none of them the red of errors.
const SOURCES: [&str; 10] = ["36", "33", "32", "35", "34", "96", "93", "92", "95", "94"];

impl Colour {
    /// The text, with the escape sequences of its style if the stream takes them.
    pub(crate) fn paint(self, style: Style, text: &str) -> Cow<'_, str> {
        match self {
            Self::Off => Cow::Borrowed(text),
            Self::On => Cow::Owned(format!("\x1b[{}m{text}\x1b[0m", code(style))),
        }
    }
}

fn code(style: Style) -> &'static str {
    match style {
        Style::Error => "1;31",
        Style::Warning => "1;33",
        Style::Note => "1;36",
        Style::Hint => "1;32",
        Style::Frame => "1;34",
        Style::Source(number) => SOURCES.get(number % SOURCES.len()).unwrap_or(&"0"),
        Style::Good => "32",
        Style::Bad => "31",
        Style::Faint => "2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_only_added_where_it_is_wanted() {
        assert_eq!(Colour::Off.paint(Style::Error, "x"), "x");
        assert_eq!(Colour::On.paint(Style::Error, "x"), "\x1b[1;31mx\x1b[0m");
        assert_eq!(
            Colour::On.paint(Style::Source(10), "x"),
            Colour::On.paint(Style::Source(0), "x")
        );
    }
}
