//! The kinds that arguments may name, with kubectl's short names.

/// One kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) kind: &'static str,
    /// Of its `apiVersion`; empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) plural: &'static str,
    short: &'static [&'static str],
    /// Whether `get all` shows it.
    pub(crate) in_all: bool,
}

const fn resource(
    kind: &'static str,
    group: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
) -> Resource {
    Resource {
        kind,
        group,
        plural,
        short,
        in_all: false,
    }
}

const fn shown(resource: Resource) -> Resource {
    Resource {
        in_all: true,
        ..resource
    }
}

/// In the order of `get all`.
pub(crate) static RESOURCES: &[Resource] = &[
    shown(resource("Pod", "", "pods", &["po"])),
    shown(resource("ReplicationController", "", "replicationcontrollers", &["rc"])),
    shown(resource("Service", "", "services", &["svc"])),
    shown(resource("DaemonSet", "apps", "daemonsets", &["ds"])),
    shown(resource("Deployment", "apps", "deployments", &["deploy"])),
    shown(resource("ReplicaSet", "apps", "replicasets", &["rs"])),
    shown(resource("StatefulSet", "apps", "statefulsets", &["sts"])),
    shown(resource("Job", "batch", "jobs", &[])),
    shown(resource("CronJob", "batch", "cronjobs", &["cj"])),
    resource("ConfigMap", "", "configmaps", &["cm"]),
    resource("Secret", "", "secrets", &[]),
    resource("PersistentVolumeClaim", "", "persistentvolumeclaims", &["pvc"]),
    resource("PersistentVolume", "", "persistentvolumes", &["pv"]),
    resource("Namespace", "", "namespaces", &["ns"]),
    resource("ServiceAccount", "", "serviceaccounts", &["sa"]),
];

/// The pods.
pub(crate) fn pods() -> &'static Resource {
    RESOURCES.first().expect("the table begins with it")
}

/// The kind that a text names: `pod`, `po`, `Deployments`, `deployment.apps`, `deploy.v1.apps`.
pub(crate) fn find(text: &str) -> Option<&'static Resource> {
    let text = text.to_ascii_lowercase();
    let (name, group) = match text.split_once('.') {
        Some((name, rest)) => {
            // A version may come before the group.
            let group = rest.strip_prefix("v1.").unwrap_or(rest);
            (name, Some(group))
        }
        None => (text.as_str(), None),
    };
    RESOURCES.iter().find(|resource| {
        let named = resource.plural == name
            || resource.kind.eq_ignore_ascii_case(name)
            || resource.short.contains(&name);
        named && group.is_none_or(|group| group == resource.group)
    })
}

/// `TYPE/NAME`, if that is what a text is.
pub(crate) fn find_typed(text: &str) -> Option<(&'static Resource, &str)> {
    let (kind, name) = text.split_once('/')?;
    if name.is_empty() || name.contains('/') {
        return None;
    }
    Some((find(kind)?, name))
}

/// The known name that a misspelt one is most like.
pub(crate) fn closest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .filter(|(distance, name)| *distance <= name.chars().count().max(text.chars().count()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_kubectls_names() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(find(text).map(|resource| resource.kind), expected, "{text}");
        };
        check("pod", Some("Pod"));
        check("pods", Some("Pod"));
        check("po", Some("Pod"));
        check("Deployment", Some("Deployment"));
        check("deploy", Some("Deployment"));
        check("deployments.apps", Some("Deployment"));
        check("deployment.v1.apps", Some("Deployment"));
        check("job.batch", Some("Job"));
        check("job.apps", None);
        check("pvc", Some("PersistentVolumeClaim"));
        check("web", None);
        check("", None);
    }

    #[test]
    fn a_typed_name_has_one_slash() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = find_typed(text).map(|(resource, name)| (resource.kind, name));
            assert_eq!(found, expected, "{text}");
        };
        check("deploy/web", Some(("Deployment", "web")));
        check("web", None);
        check("manifests/web", None);
        check("pod/", None);
        check("pod/a/b", None);
    }

    #[test]
    fn a_misspelt_name_finds_the_one_that_was_meant() {
        let known = ["web-0", "api-0", "job"];
        assert_eq!(closest("wbe-0", known), Some("web-0"));
        assert_eq!(closest("web", ["webb"]), Some("webb"));
        assert_eq!(closest("database", known), None);
    }
}
