//! Faults of manifests, with the line and what is wrong in it underlined.
//!
//! ```text
//! error: container `web` mounts volume `conf`, which the pod does not define
//!   --> web.yaml:14:17
//!    14 |         - name: conf
//!       |                 ^^^^ defined here: `config`, `data`
//! hint: rename the mount, or add `conf` under `spec.volumes`
//! ```
//!
//! Notes are one line each, since a healthy manifest may have many.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::style::{Colour, Style};
use super::{Ui, Verbosity, say};
use crate::model::diagnostic::{Diagnostic, Place, Severity};

impl Ui {
    /// Tells all diagnostics, worst last so that a terminal still shows it, and a summary if some are errors.
    pub(crate) fn diagnostics(&self, diagnostics: &[Diagnostic]) {
        let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
        sorted.sort_by_key(|diagnostic| diagnostic.severity);
        for diagnostic in sorted {
            if diagnostic.severity == Severity::Error || self.verbosity > Verbosity::Quiet {
                say(&render(diagnostic, self.err, self.width));
            }
        }
        if let Some(summary) = summary(diagnostics) {
            say(&format!("{summary}\n"));
        }
    }
}

/// `2 errors`, with the warnings if there are any; nothing without errors.
fn summary(diagnostics: &[Diagnostic]) -> Option<String> {
    let count = |severity| {
        diagnostics
            .iter()
            .filter(|d| d.severity == severity)
            .count()
    };
    let plural = |number: usize, word: &str| match number {
        1 => format!("1 {word}"),
        number => format!("{number} {word}s"),
    };
    match (count(Severity::Error), count(Severity::Warning)) {
        (0, _) => None,
        (errors, 0) => Some(plural(errors, "error")),
        (errors, warnings) => Some(format!(
            "{}, {}",
            plural(errors, "error"),
            plural(warnings, "warning")
        )),
    }
}

/// The lines of one diagnostic. `width` is where very long source lines are clipped.
pub(crate) fn render(diagnostic: &Diagnostic, colour: Colour, width: usize) -> String {
    let (label, style) = match diagnostic.severity {
        Severity::Error => ("error", Style::Error),
        Severity::Warning => ("warning", Style::Warning),
        Severity::Note => return note(diagnostic, colour),
    };
    let mut text = format!("{}: {}\n", colour.paint(style, label), diagnostic.message);
    if let Some(place) = &diagnostic.place {
        quote(&mut text, place, style, colour, width);
    }
    if let Some(hint) = &diagnostic.hint {
        text.push_str(&format!("{}: {hint}\n", colour.paint(Style::Hint, "hint")));
    }
    text
}

fn note(diagnostic: &Diagnostic, colour: Colour) -> String {
    let mut text = format!("{}: ", colour.paint(Style::Note, "note"));
    if let Some(Place {
        file, line, column, ..
    }) = &diagnostic.place
    {
        text.push_str(&format!("{file}:{line}:{column}: "));
    }
    text.push_str(&diagnostic.message);
    if let Some(hint) = &diagnostic.hint {
        text.push_str(&format!("; {hint}"));
    }
    text.push('\n');
    text
}

/// The width of the line numbers' column in the usual case.
const GUTTER: usize = 5;

fn quote(text: &mut String, place: &Place, style: Style, colour: Colour, width: usize) {
    let number = place.line.to_string();
    let gutter = number.len().max(GUTTER);
    let excerpt = Excerpt::new(place, width.saturating_sub(gutter + 3).max(20));
    let frame = |text: &str| colour.paint(Style::Frame, text).into_owned();
    let arrow = frame(&format!("{:>1$}", "-->", gutter));
    let bar = frame(&format!("{:gutter$} |", ""));
    let numbered = frame(&format!("{number:>gutter$} |"));
    let underline = colour.paint(style, &excerpt.underline).into_owned();
    let label = match &place.label {
        Some(label) => format!(" {}", colour.paint(style, label)),
        None => String::new(),
    };
    // A `String` takes every write.
    write!(
        text,
        "{arrow} {}:{}:{}\n{numbered} {}\n{bar} {}{underline}{label}\n",
        place.file, place.line, place.column, excerpt.line, excerpt.indent,
    )
    .ok();
}

/// The part of a line that is shown, and the spaces and carets below it.
struct Excerpt {
    line: String,
    indent: String,
    underline: String,
}

/// Stands for what was clipped; one column wide.
const ELLIPSIS: char = '…';
/// How many columns of context stay before the span in a clipped line.
const CONTEXT: usize = 20;

impl Excerpt {
    fn new(place: &Place, width: usize) -> Self {
        let (before, span, after) = split(place);
        let (mut before, mut span, mut after) = (shown(before), shown(span), shown(after));
        if before.width() + span.width() + after.width() > width {
            if before.width() > CONTEXT {
                before = format!("{ELLIPSIS}{}", last_columns(&before, CONTEXT - 1));
            }
            let room = width.saturating_sub(before.width());
            span = clipped(&span, room);
            after = clipped(&after, room.saturating_sub(span.width()));
        }
        Self {
            indent: " ".repeat(before.width()),
            underline: "^".repeat(span.width().max(1)),
            line: format!("{before}{span}{after}").trim_end().to_owned(),
        }
    }
}

/// The line before, in and after the span; columns count characters.
fn split(place: &Place) -> (&str, &str, &str) {
    let at = |characters: usize, text: &str| {
        text.char_indices()
            .nth(characters)
            .map_or(text.len(), |(offset, _)| offset)
    };
    let text = place.text.as_str();
    let (before, rest) = text.split_at(at(place.column.saturating_sub(1), text));
    let (span, after) = rest.split_at(at(place.width, rest));
    (before, span, after)
}

/// Tabs as four spaces; other control characters, which could drive the terminal, as their pictures.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => shown.push_str("    "),
            '\x7f' => shown.push('␡'),
            control @ '\0'..='\x1f' => {
                shown.extend(char::from_u32(0x2400 + u32::from(control)));
            }
            other if other.width().is_none() => shown.push('\u{fffd}'),
            other => shown.push(other),
        }
    }
    shown
}

fn last_columns(text: &str, columns: usize) -> String {
    let mut left = columns;
    let kept: Vec<char> = text
        .chars()
        .rev()
        .take_while(|c| {
            let width = c.width().unwrap_or(0);
            let fits = width <= left;
            left = left.saturating_sub(width);
            fits
        })
        .collect();
    kept.into_iter().rev().collect()
}

/// The first columns of a text, with an ellipsis if there was more.
fn clipped(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let mut kept: String = text
        .chars()
        .take_while(|c| {
            let width = c.width().unwrap_or(0);
            let fits = width <= left;
            left = if fits { left - width } else { 0 };
            fits
        })
        .collect();
    if columns > 0 {
        kept.push(ELLIPSIS);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, column: usize, width: usize, label: Option<&str>) -> Place {
        Place {
            file: "web.yaml".into(),
            line: 14,
            column,
            width,
            text: text.into(),
            label: label.map(str::to_owned),
        }
    }

    fn check(place: Place, expected: &str) {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            message: "m".into(),
            place: Some(place),
            hint: None,
        };
        let rendered = render(&diagnostic, Colour::Off, 60);
        let quoted = rendered.split_once('\n').expect("has a first line").1;
        assert_eq!(quoted, expected, "\n{rendered}");
    }

    #[test]
    fn an_error_shows_its_line_and_what_to_do() {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            message: "container `web` mounts volume `conf`, which the pod does not define".into(),
            place: Some(place(
                "        - name: conf",
                17,
                4,
                Some("defined here: `config`, `data`"),
            )),
            hint: Some("rename the mount, or add `conf` under `spec.volumes`".into()),
        };
        assert_eq!(
            render(&diagnostic, Colour::Off, 80),
            "\
error: container `web` mounts volume `conf`, which the pod does not define
  --> web.yaml:14:17
   14 |         - name: conf
      |                 ^^^^ defined here: `config`, `data`
hint: rename the mount, or add `conf` under `spec.volumes`
"
        );
    }

    #[test]
    fn tabs_and_wide_characters_keep_the_carets_below_the_span() {
        check(
            place("\ta: 日本 x", 8, 1, None),
            "  --> web.yaml:14:8\n   14 |     a: 日本 x\n      |             ^\n",
        );
        check(
            place("日本: x", 1, 2, Some("here")),
            "  --> web.yaml:14:1\n   14 | 日本: x\n      | ^^^^ here\n",
        );
    }

    #[test]
    fn a_span_behind_the_end_of_its_line_is_one_caret() {
        check(
            place("a:", 4, 3, None),
            "  --> web.yaml:14:4\n   14 | a:\n      |   ^\n",
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        check(
            place("a: \x1b[2J", 4, 4, None),
            "  --> web.yaml:14:4\n   14 | a: ␛[2J\n      |    ^^^^\n",
        );
    }

    #[test]
    fn a_long_line_is_clipped_around_the_span() {
        let long = format!("{}BAD{}", "x".repeat(100), "y".repeat(100));
        check(
            place(&long, 101, 3, None),
            &format!(
                "  --> web.yaml:14:101\n   14 | …{}BAD{}…\n      | {}^^^\n",
                "x".repeat(19),
                "y".repeat(28),
                " ".repeat(20)
            ),
        );
    }

    #[test]
    fn a_note_is_one_line() {
        let diagnostic = Diagnostic {
            severity: Severity::Note,
            message: "`replicas` is ignored".into(),
            place: Some(place("replicas: 3", 1, 8, None)),
            hint: None,
        };
        assert_eq!(
            render(&diagnostic, Colour::Off, 80),
            "note: web.yaml:14:1: `replicas` is ignored\n"
        );
    }

    #[test]
    fn the_summary_counts() {
        let of = |severity| Diagnostic {
            severity,
            message: "m".into(),
            place: None,
            hint: None,
        };
        let check = |severities: &[Severity], expected: Option<&str>| {
            let all: Vec<_> = severities.iter().copied().map(of).collect();
            assert_eq!(summary(&all).as_deref(), expected);
        };
        check(&[Severity::Note, Severity::Warning], None);
        check(&[Severity::Error], Some("1 error"));
        check(
            &[Severity::Error, Severity::Error, Severity::Warning],
            Some("2 errors, 1 warning"),
        );
    }
}
