//! Which fields are not honoured, as a table: nothing is dropped in silence.
//!
//! What is in neither table is honoured, checked, or has no meaning at run time (names, labels).

mod rows;

use Verdict::{Ignored, Refused};
use When::{Is, Not, Set};
pub(super) use rows::{CONTAINER, POD, VOLUME};
use rows::{CRON_JOB, DAEMON_SET, DEPLOYMENT, JOB, REPLICA_SET, STATEFUL_SET};

use super::node::{At, Node, Value};
use super::object::Kind;
use super::report::Report;
use crate::model::diagnostic::{Diagnostic, Severity};

/// What is told about a field that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// "`field` is ignored: why".
    Ignored,
    /// "`field` is not supported yet: why"; nothing is played.
    Refused,
}

/// When a field counts as set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// It has a value; an empty list or mapping is none.
    Set,
    /// It is this.
    Is(&'static str),
    /// It is anything but this.
    Not(&'static str),
}

/// One row: the field's path (`[]` is every item), when it counts, what is told, and why.
pub(super) type Row = (&'static str, When, Verdict, &'static str);

/// Tells what is ignored or refused of a controller's own fields.
pub(super) fn controller(kind: Kind, at: At<'_>, report: &Report) {
    let rows = match kind {
        Kind::Deployment => DEPLOYMENT,
        Kind::ReplicaSet | Kind::ReplicationController => REPLICA_SET,
        Kind::DaemonSet => DAEMON_SET,
        Kind::StatefulSet => STATEFUL_SET,
        Kind::Job => return rows_of(JOB, at.field("spec"), report),
        Kind::CronJob => {
            rows_of(CRON_JOB, at, report);
            return rows_of(JOB, at.path("spec.jobTemplate.spec"), report);
        }
        _ => return,
    };
    rows_of(rows, at, report);
}

/// Tells what is ignored or refused of a pod's `spec`.
pub(super) fn pod(spec: At<'_>, report: &Report) {
    rows_of(POD, spec, report);
    for list in ["initContainers", "containers"] {
        for container in spec.field(list).items() {
            rows_of(CONTAINER, container, report);
        }
    }
    for volume in spec.field("volumes").items() {
        rows_of(VOLUME, volume, report);
        for source in volume.path("projected.sources").items() {
            rows_of(VOLUME, source, report);
        }
    }
}

/// What is said of an object that has no effect; `None` for those that need none.
pub(super) fn object(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Service => Some("is recorded, but Services are not reachable yet"),
        Kind::PersistentVolumeClaim | Kind::PersistentVolume => {
            Some("is recorded, but claims are not supported yet")
        }
        Kind::ServiceAccount => Some("is recorded only: there is no API server"),
        Kind::Namespace => Some("is recorded only: namespaces need not be made"),
        _ => None,
    }
}

fn rows_of(rows: &[Row], at: At<'_>, report: &Report) {
    for (path, when, verdict, why) in rows {
        apply(at, path, *when, *verdict, why, report);
    }
}

fn apply(at: At<'_>, path: &str, when: When, verdict: Verdict, why: &str, report: &Report) {
    if let Some((list, rest)) = path.split_once("[].") {
        for item in at.path(list).items() {
            apply(item, rest, when, verdict, why, report);
        }
        return;
    }
    let (parent, name) = match path.rsplit_once('.') {
        Some((parent, name)) => (at.path(parent), name),
        None => (at, path),
    };
    let field = parent.key(name);
    if !field.node.is_some_and(|node| holds(node, when)) {
        return;
    }
    let shown = match (when, field.node.map(|node| &node.value)) {
        (Is(_) | Not(_), Some(Value::String(text))) => format!("`{name}: {text}`"),
        (Is(_) | Not(_), Some(Value::Bool(value))) => format!("`{name}: {value}`"),
        (Is(_) | Not(_), Some(Value::Int(value))) => format!("`{name}: {value}`"),
        _ => format!("`{name}`"),
    };
    let (severity, mut message) = match verdict {
        Ignored => (Severity::Note, format!("{shown} is ignored")),
        Refused => (Severity::Error, format!("{shown} is not supported yet")),
    };
    if !why.is_empty() {
        message.push_str(": ");
        message.push_str(why);
    }
    report.push(Diagnostic::new(severity, message).at(field.place()));
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
        (Value::String(text), Set | Not(_)) if text.is_empty() => false,
        (Value::Seq(items), Set) => !items.is_empty(),
        (Value::Map(entries), Set) => !entries.is_empty(),
        (_, Set) => true,
        (_, Is(text)) => is(text),
        (_, Not(text)) => !is(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::decode;
    use super::super::node::File;
    use super::super::yaml;
    use super::*;
    use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core};

    /// `a[].b.c` under a prefix, as a document in which the field is null.
    fn document(prefix: &str, path: &str) -> String {
        let whole = [prefix, path].join("");
        whole
            .split('.')
            .rev()
            .fold("null".to_owned(), |inner, part| {
                match part.strip_suffix("[]") {
                    Some(list) => format!("{{{list}: [{inner}]}}"),
                    None => format!("{{{part}: {inner}}}"),
                }
            })
    }

    fn check<T: serde::de::DeserializeOwned>(rows: &[Row], prefix: &str) {
        for (path, ..) in rows {
            let text = document(prefix, path);
            let file = File::new("t", std::path::PathBuf::new(), &text);
            let report = Report::default();
            let nodes = yaml::parse(&file, &text, None, &report);
            let _object: Option<T> = decode(At::root(&file, &nodes[0]), &report);
            assert_eq!(report.finish(&[]), [], "{path}");
        }
    }

    #[test]
    fn every_path_is_a_field_of_kubernetes() {
        check::<core::PodTemplateSpec>(POD, "spec.");
        check::<core::PodTemplateSpec>(CONTAINER, "spec.containers[].");
        let (projected, volumes) = VOLUME.split_at(VOLUME.len() - 3);
        check::<core::PodTemplateSpec>(projected, "spec.volumes[].");
        check::<core::PodTemplateSpec>(volumes, "spec.volumes[].projected.sources[].");
        let without_spec = |rows: &[Row]| -> Vec<Row> {
            let strip = |path: &'static str| path.strip_prefix("spec.").unwrap();
            rows.iter()
                .map(|(path, when, verdict, why)| (strip(path), *when, *verdict, *why))
                .collect()
        };
        check::<apps::DeploymentSpec>(&without_spec(DEPLOYMENT), "");
        check::<apps::ReplicaSetSpec>(&without_spec(REPLICA_SET), "");
        check::<apps::DaemonSetSpec>(&without_spec(DAEMON_SET), "");
        check::<apps::StatefulSetSpec>(&without_spec(STATEFUL_SET), "");
        check::<batch::JobSpec>(JOB, "");
        check::<batch::CronJobSpec>(&without_spec(CRON_JOB), "");
    }
}
