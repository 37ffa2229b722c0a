//! Documents to objects: `List`s are opened, kinds are known, metadata is checked.

use std::collections::BTreeMap;

use super::decode::closest;
use super::node::{At, Value};
use super::report::Report;
use crate::model::diagnostic::Diagnostic;
use crate::model::names::{
    InvalidName, Namespace, ObjectKey, check_label, check_service_name, check_subdomain,
};

/// The kinds that kplay reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pod,
    Deployment,
    ReplicaSet,
    ReplicationController,
    DaemonSet,
    StatefulSet,
    Job,
    CronJob,
    ConfigMap,
    Secret,
    PersistentVolumeClaim,
    PersistentVolume,
    Service,
    Namespace,
    ServiceAccount,
}

const KINDS: [(Kind, &str, &str); 15] = [
    (Kind::Pod, "Pod", "v1"),
    (Kind::Deployment, "Deployment", "apps/v1"),
    (Kind::ReplicaSet, "ReplicaSet", "apps/v1"),
    (Kind::ReplicationController, "ReplicationController", "v1"),
    (Kind::DaemonSet, "DaemonSet", "apps/v1"),
    (Kind::StatefulSet, "StatefulSet", "apps/v1"),
    (Kind::Job, "Job", "batch/v1"),
    (Kind::CronJob, "CronJob", "batch/v1"),
    (Kind::ConfigMap, "ConfigMap", "v1"),
    (Kind::Secret, "Secret", "v1"),
    (Kind::PersistentVolumeClaim, "PersistentVolumeClaim", "v1"),
    (Kind::PersistentVolume, "PersistentVolume", "v1"),
    (Kind::Service, "Service", "v1"),
    (Kind::Namespace, "Namespace", "v1"),
    (Kind::ServiceAccount, "ServiceAccount", "v1"),
];

/// The other kinds of the groups above: whatever else claims to be of these groups is a mistake.
const OTHER_KINDS: [(&str, &str); 10] = [
    ("Binding", "v1"),
    ("ComponentStatus", "v1"),
    ("Endpoints", "v1"),
    ("Event", "v1"),
    ("LimitRange", "v1"),
    ("Node", "v1"),
    ("PodTemplate", "v1"),
    ("ResourceQuota", "v1"),
    ("ControllerRevision", "apps/v1"),
    ("List", "v1"),
];

/// A document that says what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a> {
    pub(super) at: At<'a>,
    pub(super) api_version: &'a str,
    pub(super) kind: &'a str,
}

/// What every object has.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    pub(super) key: ObjectKey,
    pub(super) labels: BTreeMap<String, String>,
}

impl Kind {
    /// The kind of a document; `None` for kinds that are not read, and (with a fault) for what is no kind.
    pub(super) fn of(raw: Raw<'_>, report: &Report) -> Option<Self> {
        let known = KINDS.iter().find(|(_, name, _)| *name == raw.kind);
        if let Some((kind, _, version)) = known {
            if raw.api_version == *version {
                return Some(*kind);
            }
            if old_group(raw.api_version) {
                let message = format!(
                    "`{}` of `{}` does not exist any more",
                    raw.kind, raw.api_version
                );
                let hint = format!("use `apiVersion: {version}`");
                report.error_hint(raw.at.field("apiVersion"), message, hint);
            }
            return None;
        }
        let own = ["v1", "apps/v1", "batch/v1"].contains(&raw.api_version);
        if own && !OTHER_KINDS.contains(&(raw.kind, raw.api_version)) {
            let names: Vec<&str> = KINDS.iter().map(|(_, name, _)| *name).collect();
            let fault = format!("there is no kind `{}` in `{}`", raw.kind, raw.api_version);
            let fault = Diagnostic::error(fault).at(raw.at.field("kind").place());
            report.push(match closest(raw.kind, &names) {
                Some(name) => fault.hint(format!("did you mean `{name}`?")),
                None => fault,
            });
        }
        None
    }

    fn check_name(self, name: &str) -> Result<(), InvalidName> {
        match self {
            Self::Service => check_service_name(name),
            Self::Namespace => check_label(name),
            _ => check_subdomain(name),
        }
    }

    /// How long its name may be, so that the names made from it fit.
    fn max_name(self) -> usize {
        match self {
            Self::Job | Self::StatefulSet => 63,
            Self::CronJob => 52,
            Self::Pod => 253,
            Self::Deployment | Self::ReplicaSet | Self::ReplicationController | Self::DaemonSet => {
                251
            }
            _ => 253,
        }
    }
}

/// Groups and versions of the kinds above that Kubernetes had, or that somebody may write by mistake.
fn old_group(api_version: &str) -> bool {
    let (group, _) = api_version.split_once('/').unwrap_or(("", api_version));
    matches!(group, "" | "apps" | "batch" | "extensions" | "core")
}

/// Finds the objects of a document: itself, or what is in it if it is a list.
pub(super) fn flatten<'a>(at: At<'a>, report: &Report, objects: &mut Vec<Raw<'a>>) {
    let Some(Value::Map(_)) = at.node.map(|node| &node.value) else {
        report.error(
            at,
            "a manifest must be a mapping with `apiVersion`, `kind` and `metadata`",
        );
        return;
    };
    let before = report.errors();
    let api_version = required_text(at, "apiVersion", report);
    let kind = required_text(at, "kind", report);
    let (Some(api_version), Some(kind)) = (api_version, kind) else {
        debug_assert!(report.errors() > before);
        return;
    };
    let items = at.field("items");
    if kind.ends_with("List") && matches!(items.node.map(|node| &node.value), Some(Value::Seq(_))) {
        items
            .items()
            .for_each(|item| flatten(item, report, objects));
    } else if kind == "List" {
        report.error(at.key("items"), "a `List` must have a list of `items`");
    } else {
        objects.push(Raw {
            at,
            api_version,
            kind,
        });
    }
}

fn required_text<'a>(at: At<'a>, field: &str, report: &Report) -> Option<&'a str> {
    let value = at.field(field);
    match value.node.map(|node| &node.value) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        None | Some(Value::Null | Value::String(_)) => {
            report.error(at.key(field), format!("`{field}` is missing"));
            None
        }
        Some(other) => {
            report.error(value, format!("`{field}` must be a string, is {other}"));
            None
        }
    }
}

/// Reads and checks the metadata; `None` if the object has no usable name.
pub(super) fn metadata(
    raw: Raw<'_>,
    kind: Option<Kind>,
    default: &Namespace,
    report: &Report,
) -> Option<Metadata> {
    let at = raw.at.key("metadata");
    let name = name(at, kind, report)?;
    let namespaced = !matches!(kind, Some(Kind::Namespace | Kind::PersistentVolume));
    let namespace_at = at.field("namespace");
    let namespace = match namespace_at.node.and_then(|node| node.as_str()) {
        Some(text) if namespaced && !text.is_empty() => match Namespace::parse(text) {
            Ok(namespace) => namespace,
            Err(error) => {
                report.error(namespace_at, format!("the namespace `{text}` {error}"));
                return None;
            }
        },
        _ => default.clone(),
    };
    let labels = at.field("labels").entries();
    let labels =
        labels.filter_map(|(key, value)| Some((key.to_owned(), value.node?.as_str()?.to_owned())));
    let group = raw
        .api_version
        .split_once('/')
        .map_or("", |(group, _)| group);
    Some(Metadata {
        key: ObjectKey {
            kind: raw.kind.to_owned(),
            group: group.to_owned(),
            namespace,
            name: name.to_owned(),
        },
        labels: labels.collect(),
    })
}

fn name<'a>(at: At<'a>, kind: Option<Kind>, report: &Report) -> Option<&'a str> {
    let name_at = at.field("name");
    let name = match name_at.node.map(|node| &node.value) {
        Some(Value::String(name)) if !name.is_empty() => name,
        None | Some(Value::Null | Value::String(_)) => {
            let fault = Diagnostic::error("`metadata.name` is missing").at(at.place());
            report.push(if at.field("generateName").exists() {
                fault.hint(
                    "`generateName` is not supported: what is played twice must keep its name",
                )
            } else {
                fault
            });
            return None;
        }
        // The typed read says what is wrong with it.
        Some(_) if kind.is_some() => return None,
        Some(other) => {
            report.error(name_at, format!("`name` must be a string, is {other}"));
            return None;
        }
    };
    // Names of kinds that are not read follow rules that are not known.
    let Some(kind) = kind else {
        return Some(name);
    };
    let checked = kind.check_name(name).and_then(|()| match name.len() {
        actual if actual > kind.max_name() => Err(InvalidName::TooLong {
            max: kind.max_name(),
            actual,
        }),
        _ => Ok(()),
    });
    match checked {
        Ok(()) => Some(name),
        Err(error) => {
            report.error(name_at, format!("the name `{name}` {error}"));
            None
        }
    }
}

/// Checks a mapping of labels.
pub(super) fn check_labels(at: At<'_>, report: &Report) {
    for (key, value) in at.entries() {
        if let Err(reason) = check_qualified(key) {
            report.error(value, format!("the label key `{key}` {reason}"));
        }
        let text = value
            .node
            .and_then(|node| node.as_str())
            .unwrap_or_default();
        if let Err(reason) = check_label_value(text) {
            report.error(
                value.value(),
                format!("the value of label `{key}` {reason}"),
            );
        }
    }
}

/// Checks a mapping of annotations.
pub(super) fn check_annotations(at: At<'_>, report: &Report) {
    for (key, value) in at.entries() {
        // As the API server: upper case does not matter here.
        if let Err(reason) = check_qualified(&key.to_lowercase()) {
            report.error(value, format!("the annotation key `{key}` {reason}"));
        }
    }
}

/// A label's or annotation's key: `[prefix/]name`.
pub(super) fn check_qualified(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            check_subdomain(prefix).map_err(|error| format!("has a prefix that {error}"))?;
            name
        }
        None => key,
    };
    match check_label_value(name) {
        Ok(()) if name.is_empty() => Err("must have a name".to_owned()),
        answer => answer,
    }
}

fn check_label_value(text: &str) -> Result<(), String> {
    let alphanumeric = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    if bytes.len() > 63 {
        return Err(format!(
            "must be no more than 63 characters, is {}",
            bytes.len()
        ));
    }
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if alphanumeric(bytes.first()) && alphanumeric(bytes.last()) && bytes.iter().all(inner) {
        Ok(())
    } else {
        Err("must consist of letters, digits, `-`, `_` or `.`, and start and end with a letter or digit".to_owned())
    }
}
