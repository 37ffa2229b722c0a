//! A document as a tree in which every node knows its place.
//!
//! Aliases share what they name, so that a tree is never larger in memory than its text; [`Node::weight`] says how
//! large it is when it is walked.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use crate::model::diagnostic::Place;

/// A named text that was read, cut into lines.
#[derive(Debug)]
pub(super) struct File {
    /// As the user named it.
    pub(super) name: String,
    /// Where a relative hostPath starts.
    pub(super) base_dir: std::path::PathBuf,
    lines: Vec<Box<str>>,
}

/// Longer lines are not shown.
const MAX_LINE: usize = 2000;

impl File {
    pub(super) fn new(name: &str, base_dir: std::path::PathBuf, text: &str) -> Self {
        let mut lines = Vec::new();
        let mut rest = text;
        while let Some(end) = rest.find(['\n', '\r']) {
            let (line, tail) = rest.split_at(end);
            lines.push(line.into());
            rest = tail
                .strip_prefix("\r\n")
                .or_else(|| tail.get(1..))
                .unwrap_or_default();
        }
        lines.push(rest.into());
        Self {
            name: name.to_owned(),
            base_dir,
            lines,
        }
    }

    /// The place of a span, ready to be shown.
    pub(super) fn place(&self, span: Span) -> Place {
        let (line, column) = (span.line.max(1) as usize, span.column.max(1) as usize);
        let text = self.lines.get(line - 1).map_or("", AsRef::as_ref);
        let (text, left) = if text.len() > MAX_LINE {
            ("", MAX_LINE)
        } else {
            (text, text.chars().count().saturating_sub(column - 1))
        };
        Place {
            file: self.name.clone(),
            line,
            column,
            width: (span.width as usize).min(left).max(1),
            text: text.to_owned(),
            label: None,
        }
    }
}

/// Where something starts and how much of its line it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// From 1.
    pub(super) line: u32,
    /// From 1, in characters.
    pub(super) column: u32,
    /// In characters; cut at the line's end when it is shown.
    pub(super) width: u32,
}

/// One value of a document.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
    /// How many nodes and KiB of text a walk over this one meets.
    pub(super) weight: usize,
    /// How many levels it has, itself included.
    pub(super) depth: usize,
}

/// What JSON knows.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    String(Rc<str>),
    Seq(Rc<[Node]>),
    Map(Rc<Mapping>),
}

/// A mapping's entries, in the order of the text; keys are unique.
#[derive(Debug)]
pub(super) struct Mapping {
    entries: Vec<Entry>,
    /// Only for large mappings, so that looking up each key of a hostile one stays cheap.
    index: Option<HashMap<Rc<str>, usize>>,
}

impl Mapping {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let positions = entries.iter().enumerate();
        let index = (entries.len() > 32).then(|| {
            positions
                .map(|(position, entry)| (entry.key.clone(), position))
                .collect()
        });
        Self { entries, index }
    }

    fn get(&self, key: &str) -> Option<&Entry> {
        match &self.index {
            Some(index) => index
                .get(key)
                .and_then(|position| self.entries.get(*position)),
            None => self.entries.iter().find(|entry| &*entry.key == key),
        }
    }
}

impl Deref for Mapping {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        &self.entries
    }
}

/// One key of a mapping and what it holds.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Rc<str>,
    pub(super) key_span: Span,
    pub(super) value: Node,
}

impl Node {
    pub(super) fn new(span: Span, value: Value) -> Self {
        let (mut weight, mut depth) = (0_usize, 0);
        let mut add = |node: &Self| {
            weight = weight.saturating_add(node.weight);
            depth = depth.max(node.depth);
        };
        match &value {
            Value::Seq(items) => items.iter().for_each(&mut add),
            Value::Map(entries) => entries.iter().for_each(|entry| add(&entry.value)),
            Value::String(text) => weight = text.len() / 1024,
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
        }
        Self {
            span,
            value,
            weight: weight.saturating_add(1),
            depth: depth + 1,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.get(key),
            _ => None,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The same as a JSON value, for objects that are kept as they are.
    pub(super) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => i64::try_from(*value)
                .map(Json::from)
                .or_else(|_| u64::try_from(*value).map(Json::from))
                .unwrap_or(Json::Null),
            Value::Float(value) => Json::from(*value),
            Value::String(text) => Json::from(&**text),
            Value::Seq(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => Json::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.as_ref().to_owned(), entry.value.to_json()))
                    .collect(),
            ),
        }
    }
}

impl fmt::Display for Value {
    /// What it is, for "must be a string, is …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "the boolean {value}"),
            Self::Int(value) => write!(f, "the number {value}"),
            Self::Float(value) => write!(f, "the number {value}"),
            Self::String(_) => f.write_str("a string"),
            Self::Seq(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a mapping"),
        }
    }
}

/// A position in a document, present or not: knows the nearest place to report either way.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) file: &'a File,
    pub(super) node: Option<&'a Node>,
    place: Span,
}

impl<'a> At<'a> {
    pub(super) fn root(file: &'a File, node: &'a Node) -> Self {
        Self {
            file,
            node: Some(node),
            place: node.span,
        }
    }

    /// A field of a mapping. Its place is a scalar's own, else its key's; one that is missing has its parent's.
    pub(super) fn field(self, key: &str) -> Self {
        match self.node.and_then(|node| node.get(key)) {
            Some(entry) => self.entry(entry),
            None => Self { node: None, ..self },
        }
    }

    pub(super) fn entry(self, entry: &'a Entry) -> Self {
        let scalar = !matches!(
            entry.value.value,
            Value::Null | Value::Seq(_) | Value::Map(_)
        );
        Self {
            node: Some(&entry.value),
            place: if scalar {
                entry.value.span
            } else {
                entry.key_span
            },
            ..self
        }
    }

    /// The key of a field, for faults of the field as a whole.
    pub(super) fn key(self, key: &str) -> Self {
        match self.node.and_then(|node| node.get(key)) {
            Some(entry) => Self {
                place: entry.key_span,
                ..self.entry(entry)
            },
            None => Self { node: None, ..self },
        }
    }

    /// A list's item.
    pub(super) fn index(self, index: usize) -> Self {
        match self.node.map(|node| &node.value) {
            Some(Value::Seq(items)) => items
                .get(index)
                .map_or(Self { node: None, ..self }, |node| self.item(node)),
            _ => Self { node: None, ..self },
        }
    }

    pub(super) fn item(self, node: &'a Node) -> Self {
        Self {
            node: Some(node),
            place: node.span,
            ..self
        }
    }

    /// Fields of fields: `spec.template`.
    pub(super) fn path(self, path: &str) -> Self {
        path.split('.').fold(self, Self::field)
    }

    /// The items of a list, or nothing.
    pub(super) fn items(self) -> impl Iterator<Item = Self> {
        let items: &'a [Node] = match self.node.map(|node| &node.value) {
            Some(Value::Seq(items)) => items,
            _ => &[],
        };
        items.iter().map(move |node| self.item(node))
    }

    /// The fields of a mapping, each at its key, or nothing.
    pub(super) fn entries(self) -> impl Iterator<Item = (&'a str, Self)> {
        let entries: &'a [Entry] = match self.node.map(|node| &node.value) {
            Some(Value::Map(entries)) => entries,
            _ => &[],
        };
        entries.iter().map(move |entry| {
            let at = Self {
                node: Some(&entry.value),
                place: entry.key_span,
                ..self
            };
            (&*entry.key, at)
        })
    }

    /// Its value instead of its key.
    pub(super) fn value(self) -> Self {
        Self {
            place: self.node.map_or(self.place, |node| node.span),
            ..self
        }
    }

    /// Whether there is something that is not null.
    pub(super) fn exists(self) -> bool {
        self.node.is_some_and(|node| !node.is_null())
    }

    pub(super) fn place(self) -> Place {
        self.file.place(self.place)
    }
}
