//! Events to trees.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use granit_parser::{Event, ScalarStyle, Span as Marks, Tag};

use super::super::node::{self, Entry, File, Node, Span, Value};
use super::super::report::Report;
use super::scalar::{self, Resolved};
use super::substitute::Substitution;
use super::{ESCAPED_QUOTE, Fault, MAX_DEPTH, MAX_EXPANSION, TEMPLATE_HINT, number};
use crate::model::diagnostic::Diagnostic;

/// Puts the events of one file together.
pub(super) struct Builder<'a> {
    file: &'a File,
    substitution: Option<&'a Substitution>,
    report: &'a Report,
    /// Lines of the file before the text that is being read.
    pub(super) lines_before: u32,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    expanded: usize,
    pub(super) documents: Vec<Node>,
}

/// A collection that has not ended.
struct Frame {
    span: Span,
    anchor: usize,
    content: Content,
}

enum Content {
    Seq(Vec<Node>),
    Map(Mapping),
}

#[derive(Default)]
struct Mapping {
    entries: Vec<Entry>,
    keys: HashMap<Rc<str>, u32>,
    /// The key whose value comes next.
    key: Option<(Key, Span)>,
    /// What `<<` brings, in order of precedence.
    merged: Vec<Entry>,
}

enum Key {
    Name(Rc<str>),
    Merge,
    /// Was reported; its value is dropped.
    Invalid,
}

/// A finished value, as a key needs to know it.
struct Finished {
    node: Node,
    merge_key: bool,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        file: &'a File,
        substitution: Option<&'a Substitution>,
        report: &'a Report,
    ) -> Self {
        Self {
            file,
            substitution,
            report,
            lines_before: 0,
            frames: Vec::new(),
            anchors: HashMap::new(),
            expanded: 0,
            documents: Vec::new(),
        }
    }

    /// Forgets what is unfinished; the next text starts `lines` lines after the last one did.
    pub(super) fn restart(&mut self, lines: u32) {
        self.frames.clear();
        self.anchors.clear();
        self.lines_before = self.lines_before.saturating_add(lines);
    }

    pub(super) fn on_event(&mut self, event: Event<'_>, marks: Marks) -> Result<(), Fault> {
        let span = self.span(marks);
        match event {
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(text, style, anchor, tag.as_deref(), span)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.start(span, anchor, Content::Seq(Vec::new()))
            }
            Event::MappingStart(_, anchor, _) => {
                self.start(span, anchor, Content::Map(Mapping::default()))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            // Starts and ends of what has no value, and what the parser tells only when asked: comments and the like.
            _ => Ok(()),
        }
    }

    fn span(&self, marks: Marks) -> Span {
        let width = if marks.start.line() == marks.end.line() {
            marks.end.col().saturating_sub(marks.start.col())
        } else {
            usize::MAX
        };
        Span {
            line: number(marks.start.line()).saturating_add(self.lines_before),
            column: number(marks.start.col()).saturating_add(1),
            width: number(width.max(1)),
        }
    }

    fn start(&mut self, span: Span, anchor: usize, content: Content) -> Result<(), Fault> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        let span = Span { width: 1, ..span };
        self.frames.push(Frame {
            span,
            anchor,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let Some(frame) = self.frames.pop() else {
            return Ok(());
        };
        let mut span = frame.span;
        let value = match frame.content {
            Content::Seq(items) => Value::Seq(items.into()),
            Content::Map(mapping) => {
                if let Some(first) = mapping
                    .entries
                    .first()
                    .filter(|entry| entry.key_span.line == span.line)
                {
                    span = first.key_span;
                }
                Value::Map(mapping.finish())
            }
        };
        self.finish(Node::new(span, value), frame.anchor, false)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Fault> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(fault("the alias names what contains it", span));
        };
        self.expanded = self.expanded.saturating_add(node.weight);
        if self.expanded > MAX_EXPANSION {
            return Err(fault("the aliases of this file expand to too much", span));
        }
        if self.frames.len() + node.depth > MAX_DEPTH {
            return Err(too_deep(span));
        }
        self.finish(node, 0, false)
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<(), Fault> {
        let text = restored(&text, style);
        let text = self.substituted(&text, span);
        let plain = style == ScalarStyle::Plain;
        let merge_key = plain && text == "<<";
        let value = match scalar::resolve(&text, plain, tag) {
            Ok(Resolved(value)) => value,
            Err(reason) => {
                self.report
                    .push(Diagnostic::error(reason).at(self.file.place(span)));
                Value::Null
            }
        };
        self.finish(Node::new(span, value), anchor, merge_key)
    }

    /// `${NAME}` in values, when that was asked for. Keys are left alone.
    fn substituted<'t>(&self, text: &'t str, span: Span) -> Cow<'t, str> {
        let is_key = matches!(
            self.frames.last(),
            Some(Frame {
                content: Content::Map(Mapping { key: None, .. }),
                ..
            })
        );
        match self.substitution {
            Some(substitution) if !is_key => substitution.apply(text).unwrap_or_else(|error| {
                let fault = Diagnostic::error(error.to_string()).at(self.file.place(span));
                self.report.push(fault.hint(
                    "define it with `--env` or `--env-file`, or write `$${…}` for the text itself",
                ));
                Cow::Borrowed(text)
            }),
            _ => Cow::Borrowed(text),
        }
    }

    fn finish(&mut self, node: Node, anchor: usize, merge_key: bool) -> Result<(), Fault> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let (file, report) = (self.file, self.report);
        match self.frames.last_mut().map(|frame| &mut frame.content) {
            None if node.is_null() => {}
            None => self.documents.push(node),
            Some(Content::Seq(items)) => items.push(node),
            Some(Content::Map(mapping)) => {
                if let Err(fault) = mapping.push(Finished { node, merge_key }) {
                    report.push(fault.diagnostic(file));
                }
            }
        }
        Ok(())
    }
}

impl Mapping {
    fn push(&mut self, finished: Finished) -> Result<(), Fault> {
        let node = finished.node;
        match self.key.take() {
            None => {
                let (key, answer) = match key(&node) {
                    _ if finished.merge_key => (Key::Merge, Ok(())),
                    Ok(key) => (Key::Name(key), Ok(())),
                    Err(fault) => (Key::Invalid, Err(fault)),
                };
                self.key = Some((key, node.span));
                answer
            }
            Some((Key::Invalid, _)) => Ok(()),
            Some((Key::Merge, span)) => self.merge(&node, span),
            Some((Key::Name(key), key_span)) => {
                if let Some(line) = self.keys.get(&key) {
                    return Err(fault(
                        &format!("the key `{key}` is already set in line {line}"),
                        key_span,
                    ));
                }
                self.keys.insert(key.clone(), key_span.line);
                self.entries.push(Entry {
                    key,
                    key_span,
                    value: node,
                });
                Ok(())
            }
        }
    }

    fn merge(&mut self, node: &Node, span: Span) -> Result<(), Fault> {
        let error = || fault("`<<` takes a mapping or a list of mappings", span);
        match &node.value {
            Value::Map(entries) => self.merged.extend(entries.iter().cloned()),
            Value::Seq(items) => {
                for item in items.iter() {
                    let Value::Map(entries) = &item.value else {
                        return Err(error());
                    };
                    self.merged.extend(entries.iter().cloned());
                }
            }
            _ => return Err(error()),
        }
        Ok(())
    }

    /// What is written wins over what is merged.
    fn finish(self) -> Rc<node::Mapping> {
        let mut entries = self.entries;
        let mut keys: HashSet<Rc<str>> = self.keys.into_keys().collect();
        entries.extend(
            self.merged
                .into_iter()
                .filter(|entry| keys.insert(entry.key.clone())),
        );
        Rc::new(node::Mapping::new(entries))
    }
}

/// A key as JSON has it.
fn key(node: &Node) -> Result<Rc<str>, Fault> {
    match &node.value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string().into()),
        Value::Int(value) => Ok(value.to_string().into()),
        Value::Float(value) => Ok(value.to_string().into()),
        Value::Null | Value::Seq(_) | Value::Map(_) => Err(Fault {
            hint: matches!(node.value, Value::Map(_)).then_some(TEMPLATE_HINT),
            ..fault(
                &format!("a key must be a string, is {}", node.value),
                node.span,
            )
        }),
    }
}

/// Undoes what `parse` did to `\'`.
fn restored<'t>(text: &'t str, style: ScalarStyle) -> Cow<'t, str> {
    if !text.contains(ESCAPED_QUOTE) {
        Cow::Borrowed(text)
    } else if style == ScalarStyle::DoubleQuoted {
        Cow::Owned(text.replace(ESCAPED_QUOTE, ""))
    } else {
        Cow::Owned(text.replace(ESCAPED_QUOTE, "\\"))
    }
}

fn fault(message: &str, span: Span) -> Fault {
    Fault {
        message: message.to_owned(),
        hint: None,
        span,
    }
}

fn too_deep(span: Span) -> Fault {
    fault(&format!("nested deeper than {MAX_DEPTH} levels"), span)
}
