//! Collects what there is to tell, so that one run tells all of it.

use std::cell::RefCell;

use super::node::At;
use crate::model::diagnostic::{Diagnostic, Severity};

/// More than this nobody reads; the rest is counted.
const MAX_DIAGNOSTICS: usize = 1000;

/// The diagnostics of one run, in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Report {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    diagnostics: Vec<Diagnostic>,
    errors: usize,
    left_out: usize,
}

impl Report {
    pub(super) fn push(&self, diagnostic: Diagnostic) {
        let mut inner = self.inner.borrow_mut();
        if diagnostic.severity == Severity::Error {
            inner.errors += 1;
        }
        // What an alias repeats is one fault.
        if inner.diagnostics.len() >= MAX_DIAGNOSTICS {
            inner.left_out += 1;
        } else if !inner.diagnostics.contains(&diagnostic) {
            inner.diagnostics.push(diagnostic);
        }
    }

    pub(super) fn error(&self, at: At<'_>, message: impl Into<String>) {
        self.push(Diagnostic::error(message).at(at.place()));
    }

    pub(super) fn error_hint(
        &self,
        at: At<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(Diagnostic::error(message).at(at.place()).hint(hint));
    }

    pub(super) fn warning_hint(
        &self,
        at: At<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let warning = Diagnostic::new(Severity::Warning, message);
        self.push(warning.at(at.place()).hint(hint));
    }

    pub(super) fn note(&self, at: At<'_>, message: impl Into<String>) {
        self.push(Diagnostic::note(message).at(at.place()));
    }

    /// How many errors there are so far: who asks before and after some work knows whether it was clean.
    pub(super) fn errors(&self) -> usize {
        self.inner.borrow().errors
    }

    /// All diagnostics, in the order of the files and, within a file, from top to bottom.
    pub(super) fn finish(self, files: &[&str]) -> Vec<Diagnostic> {
        let mut inner = self.inner.into_inner();
        inner
            .diagnostics
            .sort_by_key(|diagnostic| match &diagnostic.place {
                Some(place) => (
                    files.iter().position(|file| *file == place.file),
                    place.line,
                    place.column,
                ),
                None => (Some(usize::MAX), 0, 0),
            });
        if inner.left_out > 0 {
            let message = format!("{} more faults or notes are not shown", inner.left_out);
            let severity = if inner.errors > 0 {
                Severity::Error
            } else {
                Severity::Note
            };
            inner.diagnostics.push(Diagnostic::new(severity, message));
        }
        inner.diagnostics
    }
}
