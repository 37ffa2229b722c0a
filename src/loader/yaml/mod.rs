//! Text to trees: YAML as kubectl reads it, and JSON.
//!
//! The events come from a YAML 1.2 parser; plain scalars are resolved by the rules of YAML 1.1 ([`scalar`]), keys
//! become strings and must be unique, `<<` merges. A syntax error ends its document, not the file: reading goes on at
//! the next `---`. Depth and what aliases expand to are bounded.

mod build;
mod json;
pub(super) mod scalar;
mod substitute;

use std::borrow::Cow;

use granit_parser::{Parser, ScanError};

pub use substitute::Substitution;

use self::build::Builder;
use super::node::{File, Node, Span};
use super::report::Report;
use crate::model::diagnostic::Diagnostic;

/// Levels of nesting. Kubernetes' own types need about 20.
pub(super) const MAX_DEPTH: usize = 100;
/// Nodes (and KiB of text) that aliases may add to one file.
const MAX_EXPANSION: usize = 200_000;
/// Stands for the backslash of `\'`, which YAML 1.1 parsers accept between double quotes. A noncharacter.
const ESCAPED_QUOTE: char = '\u{fdd0}';

/// For `{{ … }}`, which is a mapping whose key is a mapping, or no YAML at all.
const TEMPLATE_HINT: &str = "what has `{{` is a template: play what `helm template` prints";

/// Reads all documents of a text; empty ones are left out. Faults go to `report`.
pub(super) fn parse(
    file: &File,
    text: &str,
    substitution: Option<&Substitution>,
    report: &Report,
) -> Vec<Node> {
    if let Some(span) = forbidden_character(text) {
        report.push(
            Diagnostic::error(
                "the file has a control character, which neither YAML nor JSON allows",
            )
            .at(file.place(span)),
        );
        return Vec::new();
    }
    if text.trim_start().starts_with(['{', '[']) {
        match json::parse(text, substitution) {
            Ok(documents) => return documents,
            Err(fault) if file.name.ends_with(".json") => {
                report.push(Diagnostic::error(fault.message).at(file.place(fault.span)));
                return Vec::new();
            }
            // YAML's flow style looks the same from here.
            Err(_) => {}
        }
    }
    let text = marked(text);
    let mut builder = Builder::new(file, substitution, report);
    let mut rest = text.as_ref();
    while let Err(fault) = read(rest, &mut builder) {
        let line = fault.span.line;
        report.push(fault.diagnostic(file));
        let Some((skipped, tail)) = next_document(rest, line.saturating_sub(builder.lines_before))
        else {
            break;
        };
        builder.restart(skipped);
        rest = tail;
    }
    builder.documents
}

/// The text with a mark for the backslash of each `\'`. One that is itself escaped escapes nothing: `\\'`.
fn marked(text: &str) -> Cow<'_, str> {
    if !text.contains("\\'") {
        return Cow::Borrowed(text);
    }
    let mut marked = String::with_capacity(text.len() + 64);
    let (mut escapes, mut rest) = (false, text.chars().peekable());
    while let Some(c) = rest.next() {
        escapes = c == '\\' && !escapes;
        let is_mark = escapes && rest.peek() == Some(&'\'');
        marked.push(if is_mark { ESCAPED_QUOTE } else { c });
    }
    Cow::Owned(marked)
}

/// Why a document could not be read.
struct Fault {
    message: String,
    hint: Option<&'static str>,
    span: Span,
}

impl Fault {
    fn diagnostic(self, file: &File) -> Diagnostic {
        let diagnostic = Diagnostic::error(self.message).at(file.place(self.span));
        match self.hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        }
    }
}

fn read(text: &str, builder: &mut Builder<'_>) -> Result<(), Fault> {
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| syntax(&error, text, builder.lines_before))?;
        builder.on_event(event, span)?;
    }
    Ok(())
}

fn syntax(error: &ScanError, text: &str, lines_before: u32) -> Fault {
    let mark = error.marker();
    let info = error.info();
    let line = text.lines().nth(mark.line().saturating_sub(1));
    let is_template = line.is_some_and(|line| line.contains("{{"));
    let has_tab = info.contains("tab");
    Fault {
        message: format!("not valid YAML: {info}"),
        hint: match is_template {
            true => Some(TEMPLATE_HINT),
            false => has_tab.then_some("YAML is indented with spaces"),
        },
        span: Span {
            line: number(mark.line()).saturating_add(lines_before),
            column: number(mark.col()).saturating_add(1),
            width: 1,
        },
    }
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The text from the first `---` after a line (from 1) on, and how many lines are before it.
fn next_document(text: &str, after: u32) -> Option<(u32, &str)> {
    let mut line = 1_u32;
    let mut rest = text;
    while let Some(end) = rest.find(['\n', '\r']) {
        let (_, tail) = rest.split_at(end);
        rest = tail.strip_prefix("\r\n").or_else(|| tail.get(1..))?;
        line = line.saturating_add(1);
        if line >= after && rest.starts_with("---") {
            return Some((line - 1, rest));
        }
    }
    None
}

/// Control characters except tab and line ends. The scanner would take NUL for the end of the text.
fn forbidden_character(text: &str) -> Option<Span> {
    let forbidden = |c: char| {
        (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || c == '\u{7f}' || c == ESCAPED_QUOTE
    };
    let (mut line, mut column, mut previous) = (1_u32, 1_u32, ' ');
    for c in text.chars() {
        if forbidden(c) {
            return Some(Span {
                line,
                column,
                width: 1,
            });
        }
        if c == '\n' && previous == '\r' {
            // One line end, counted at its first character.
        } else if matches!(c, '\n' | '\r') {
            (line, column) = (line.saturating_add(1), 1);
        } else {
            column = column.saturating_add(1);
        }
        previous = c;
    }
    None
}

#[cfg(test)]
mod tests;
