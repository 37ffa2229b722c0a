//! Tells which of a document's fields are not honoured: nothing is dropped in silence. Which these are, and why, is in
//! the table ([`fields`]).

use super::fields;
use super::node::{At, Node, Value};
use super::object::Kind;
use super::report::Report;
use crate::model::diagnostic::{Diagnostic, Severity};
use crate::model::field::{Field, Standing, When};

/// Tells what is noted and refused of an object, or of a part of it: `kind` is its type's name.
pub(super) fn fields(kind: &str, at: At<'_>, report: &Report) {
    // Unknown fields are told where they are decoded.
    let known = at
        .entries()
        .filter_map(|(name, at)| Some((fields::find(kind, name)?, at)));
    for (field, at) in known {
        if !tell(&field, at, report) {
            let inner = field.inner();
            match field.kind.starts_with("[]") {
                true => at.items().for_each(|item| fields(inner, item, report)),
                false => fields(inner, at, report),
            }
        }
    }
}

/// What is said of an object that has no effect; `None` for those that need none.
pub(super) fn object(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Namespace => Some("is recorded only: namespaces need not be made"),
        _ => None,
    }
}

/// What is said of an object whose kind is not read.
pub(super) fn unread(kind: &str) -> &'static str {
    match kind {
        "Endpoints" | "EndpointSlice" => {
            "is not played: a Service leads to the pods of its selector"
        }
        "LimitRange" => "is not played: its defaults and bounds hold for no pod",
        _ => "is not played on one machine",
    }
}

/// Whether there was something to tell of a field, so that what is below it does not matter.
fn tell(field: &Field, at: At<'_>, report: &Report) -> bool {
    let Field { name, remark, .. } = field;
    let (severity, when, verdict) = match field.standing {
        Standing::Honoured => return false,
        Standing::Noted(when) => (Severity::Note, when, "is ignored"),
        Standing::Refused(when) => (Severity::Error, when, "is not supported yet"),
    };
    if !at.node.is_some_and(|node| holds(node, when)) {
        return false;
    }
    let shown = match (when, at.node.map(|node| &node.value)) {
        (When::If(_) | When::Unless(_), Some(Value::String(text))) => format!("{name}: {text}"),
        (When::If(_) | When::Unless(_), Some(Value::Bool(value))) => format!("{name}: {value}"),
        (When::If(_) | When::Unless(_), Some(Value::Int(value))) => format!("{name}: {value}"),
        _ => (*name).to_owned(),
    };
    let message = format!("`{shown}` {verdict}: {remark}");
    report.push(Diagnostic::new(severity, message).at(at.place()));
    true
}

fn holds(node: &Node, when: When) -> bool {
    let is = |text: &str| match &node.value {
        Value::String(value) => **value == *text,
        Value::Bool(value) => value.to_string() == text,
        Value::Int(value) => value.to_string() == text,
        _ => false,
    };
    match (&node.value, when) {
        (Value::Null, _) => false,
        (Value::String(text), When::Set | When::Unless(_)) if text.is_empty() => false,
        (Value::Seq(items), When::Set) => !items.is_empty(),
        (Value::Map(entries), When::Set) => !entries.is_empty(),
        (_, When::Set) => true,
        (_, When::If(text)) => is(text),
        (_, When::Unless(text)) => !is(text),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::node::File;
    use super::super::yaml;
    use super::*;

    /// What is told of a document.
    fn told(kind: &str, text: &str) -> Vec<(Severity, String)> {
        let file = File::new("t", PathBuf::new(), text);
        let report = Report::default();
        let nodes = yaml::parse(&file, text, None, &report);
        fields(kind, At::root(&file, &nodes[0]), &report);
        let told = report.finish(&[]).into_iter();
        told.map(|told| (told.severity, told.message)).collect()
    }

    /// Every field that can be met below a type, each with the text of a document up to it: `{spec: {volumes: [{`.
    fn paths(kind: &str, before: &str, found: &mut Vec<(String, &'static Field)>) {
        for field in fields::of(kind) {
            let text = format!("{before}{{{}: ", field.name);
            found.push((text.clone(), field));
            match field.kind.starts_with("[]") {
                _ if field.is_left_out() => {}
                true => paths(field.inner(), &format!("{text}["), found),
                false => paths(field.inner(), &text, found),
            }
        }
    }

    /// A document that ends with a value.
    fn document(before: &str, value: &str) -> String {
        let close = |c| match c {
            '{' => Some('}'),
            '[' => Some(']'),
            _ => None,
        };
        let end: String = before.chars().rev().filter_map(close).collect();
        format!("{before}{value}{end}")
    }

    #[test]
    fn every_line_speaks() {
        let kinds = [
            "Pod",
            "StatefulSet",
            "Deployment",
            "DaemonSet",
            "CronJob",
            "Service",
        ];
        let all = kinds.into_iter().flat_map(|kind| {
            let mut found = Vec::new();
            paths(kind, "", &mut found);
            found
                .into_iter()
                .map(move |(before, field)| (kind, before, field))
        });
        let mut met = 0;
        for (kind, before, field) in all {
            let (severity, when) = match field.standing {
                Standing::Honoured => continue,
                Standing::Noted(when) => (Severity::Note, when),
                Standing::Refused(when) => (Severity::Error, when),
            };
            met += 1;
            let (value, other) = match when {
                When::Set => ("[something]", "[]"),
                When::If(value) => (value, "another"),
                When::Unless(value) => ("another", value),
            };
            let told = |value| told(kind, &document(&before, value));
            let message = match when {
                When::Set => format!("`{}` ", field.name),
                When::If(_) | When::Unless(_) => format!("`{}: {value}` ", field.name),
            };
            let [(spoken, text)] = &told(value)[..] else {
                panic!("{before}: {:?}", told(value));
            };
            assert_eq!(*spoken, severity, "{before}");
            assert!(text.starts_with(&message), "{before}: {text}");
            assert!(text.ends_with(field.remark), "{before}: {text}");
            assert_eq!(told(other), [], "{before}");
            assert_eq!(told("null"), [], "{before}");
        }
        assert!(met > 100, "only {met} lines were met");
    }
}
