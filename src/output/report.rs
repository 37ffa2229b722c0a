//! What a command did, one line each, and the lines of logs.

use super::style::{Colour, Style};
use crate::model::names::ObjectKey;

/// What a command did to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Created,
    Configured,
    Unchanged,
    Deleted,
    ForceDeleted,
    /// `wait`.
    ConditionMet,
}

/// Whether it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reality {
    Done,
    /// `--dry-run`: it would be done.
    Dry,
}

/// kubectl's line: `pod/web-0 created`, `configmap/c unchanged (dry run)`.
pub(crate) fn deed(object: &ObjectKey, deed: Deed, reality: Reality) -> String {
    let suffix = match reality {
        Reality::Done => "",
        Reality::Dry => " (dry run)",
    };
    match deed {
        Deed::Created => format!("{object} created{suffix}"),
        Deed::Configured => format!("{object} configured{suffix}"),
        Deed::Unchanged => format!("{object} unchanged{suffix}"),
        Deed::Deleted => format!("{} \"{}\" deleted{suffix}", typed(object), object.name),
        Deed::ForceDeleted => {
            format!(
                "{} \"{}\" force deleted{suffix}",
                typed(object),
                object.name
            )
        }
        Deed::ConditionMet => format!("{object} condition met{suffix}"),
    }
}

/// `deployment.apps`.
fn typed(object: &ObjectKey) -> String {
    let name = object.to_string();
    name.split_once('/')
        .map_or(name.as_str(), |(kind, _)| kind)
        .to_owned()
}

/// The prefix of a container's log lines: `[pod/web-0/web] `, in a colour of its own.
pub(crate) fn log_prefix(pod: &str, container: &str, source: usize, colour: Colour) -> String {
    let text = format!("[pod/{pod}/{container}]");
    format!("{} ", colour.paint(Style::Source(source), &text))
}

/// A list that goes on: `a`, `b`, `c`.
pub(crate) fn listed<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = items.into_iter().map(|item| format!("`{item}`")).collect();
    quoted.join(", ")
}

/// A list as people write it: `a`, `b` and `c`.
pub(crate) fn joined<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = items.into_iter().map(|item| format!("`{item}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::Namespace;

    #[test]
    fn deeds_read_as_kubectl_writes_them() {
        let check = |kind: &str, group: &str, what: Deed, reality: Reality, expected: &str| {
            let object = ObjectKey {
                kind: kind.into(),
                group: group.into(),
                namespace: Namespace::default(),
                name: "x".into(),
            };
            assert_eq!(deed(&object, what, reality), expected);
        };
        check("Pod", "", Deed::Created, Reality::Done, "pod/x created");
        check(
            "Deployment",
            "apps",
            Deed::Configured,
            Reality::Done,
            "deployment.apps/x configured",
        );
        check(
            "ConfigMap",
            "",
            Deed::Unchanged,
            Reality::Dry,
            "configmap/x unchanged (dry run)",
        );
        check(
            "Deployment",
            "apps",
            Deed::Deleted,
            Reality::Done,
            "deployment.apps \"x\" deleted",
        );
        check(
            "Pod",
            "",
            Deed::ConditionMet,
            Reality::Done,
            "pod/x condition met",
        );
    }

    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(joined([]), "");
        assert_eq!(joined(["a"]), "`a`");
        assert_eq!(joined(["a", "b", "c"]), "`a`, `b` and `c`");
    }
}
