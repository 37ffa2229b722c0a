//! Pages of `describe`: lines of `key: value`, the values in one column.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Lines of `key: value`, indented by two spaces per level.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    /// Where the values of the first level start.
    values: usize,
}

impl Page {
    /// A page whose longest key leaves two spaces before its value.
    pub(super) fn new(values: usize) -> Self {
        Self {
            text: String::new(),
            values,
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Adds text that is laid out already.
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn field(&mut self, level: usize, key: &str, value: &str) {
        let indent = level * 2;
        let width = self.values.saturating_sub(indent).max(key.len() + 2);
        let value = value.replace('\n', " ");
        let line = format!("{:indent$}{:width$}{value}", "", format!("{key}:"));
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    pub(super) fn title(&mut self, level: usize, text: &str) {
        writeln!(self.text, "{:1$}{text}:", "", level * 2).ok();
    }

    /// Text whose further lines are indented as its first.
    pub(super) fn item(&mut self, level: usize, text: &str) {
        for line in text.split('\n') {
            let line = format!("{:1$}{line}", "", level * 2);
            writeln!(self.text, "{}", line.trim_end()).ok();
        }
    }

    /// A list below its title; `<none>` if it is empty.
    pub(super) fn items(&mut self, level: usize, key: &str, items: &[String]) {
        if items.is_empty() {
            self.field(level, key, "<none>");
            return;
        }
        self.title(level, key);
        for item in items {
            self.item(level + 1, item);
        }
    }

    /// A map, one entry per line, all values in one column.
    pub(super) fn map(&mut self, key: &str, map: Option<&Map<String, Value>>) {
        let mut lines = map
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
        self.field(0, key, &lines.next().unwrap_or_else(|| "<none>".to_owned()));
        for line in lines {
            self.item(self.values / 2, &line);
        }
    }
}
