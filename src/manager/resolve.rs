//! From what people call things to what they are: `web-0`, `pod/web-0`, `deploy/web`, `job/x`, plain `web`.

use std::collections::BTreeSet;

use super::error::Error;
use crate::model::names::{Namespace, ObjectKey, PodKey, PodName};
use crate::state::layout::Layout;
use crate::state::pod_dir::{self, Found, PodDir};

/// A kind as `ObjectKey` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub kind: &'static str,
    pub group: &'static str,
    /// kubectl's plural: `deployments`.
    pub plural: &'static str,
    /// kubectl's short names.
    pub short: &'static [&'static str],
}

/// The kinds that kplay knows, in the order in which `get all` shows them.
pub const KINDS: &[Kind] = &[
    kind("Pod", "", "pods", &["po"]),
    kind(
        "ReplicationController",
        "",
        "replicationcontrollers",
        &["rc"],
    ),
    kind("Service", "", "services", &["svc"]),
    kind("DaemonSet", "apps", "daemonsets", &["ds"]),
    kind("Deployment", "apps", "deployments", &["deploy"]),
    kind("ReplicaSet", "apps", "replicasets", &["rs"]),
    kind("StatefulSet", "apps", "statefulsets", &["sts"]),
    kind("CronJob", "batch", "cronjobs", &["cj"]),
    kind("Job", "batch", "jobs", &[]),
    kind("ConfigMap", "", "configmaps", &["cm"]),
    kind("Secret", "", "secrets", &[]),
    kind(
        "PersistentVolumeClaim",
        "",
        "persistentvolumeclaims",
        &["pvc"],
    ),
    kind("PersistentVolume", "", "persistentvolumes", &["pv"]),
    kind("Namespace", "", "namespaces", &["ns"]),
    kind("ServiceAccount", "", "serviceaccounts", &["sa"]),
    kind("EndpointSlice", "discovery.k8s.io", "endpointslices", &[]),
    kind("Endpoints", "", "endpoints", &["ep"]),
];

const fn kind(
    kind: &'static str,
    group: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
) -> Kind {
    Kind {
        kind,
        group,
        plural,
        short,
    }
}

impl Kind {
    /// The kind that `text` names, as kubectl takes it: `deploy`, `deployments`, `Deployment`, `deployment.apps`,
    /// `deployments.v1.apps`.
    #[must_use]
    pub fn parse(text: &str) -> Option<&'static Self> {
        let text = text.to_ascii_lowercase();
        let (name, group) = match text.split_once('.') {
            Some((name, group)) => (name, Some(without_version(group))),
            None => (text.as_str(), None),
        };
        KINDS.iter().find(|kind| {
            let named = kind.plural == name
                || kind.kind.eq_ignore_ascii_case(name)
                || kind.short.contains(&name);
            named && group.is_none_or(|group| group == kind.group)
        })
    }

    /// The object of this kind with this name.
    #[must_use]
    pub fn object(&self, namespace: &Namespace, name: &str) -> ObjectKey {
        ObjectKey {
            kind: self.kind.into(),
            group: self.group.into(),
            namespace: namespace.clone(),
            name: name.into(),
        }
    }
}

fn without_version(group: &str) -> &str {
    match group.split_once('.') {
        Some((version, group)) if version.starts_with('v') => group,
        None if group.starts_with("v1") => "",
        Some(_) | None => group,
    }
}

/// `TYPE/NAME` or `NAME`.
///
/// # Errors
/// [`Error::UnknownKind`].
pub fn parse(text: &str) -> Result<(Option<&'static Kind>, &str), Error> {
    match text.split_once('/') {
        None => Ok((None, text)),
        Some((kind, name)) => match Kind::parse(kind) {
            Some(kind) => Ok((Some(kind), name)),
            None => Err(Error::UnknownKind(kind.to_owned())),
        },
    }
}

/// The pods that `text` means: a pod by its name, or all pods of a workload. Sorted.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Ambiguous`] if a bare name is that of several workloads; [`Error::UnknownKind`].
pub fn pods(layout: &Layout, namespace: &Namespace, text: &str) -> Result<Vec<PodKey>, Error> {
    let (kind, name) = parse(text)?;
    let not_found = |kind: Option<&Kind>| Error::NotFound {
        kind: kind.map_or("pods".into(), full_plural),
        name: name.into(),
    };
    if kind.is_none_or(|kind| kind.kind == "Pod") {
        // By its folder, so that a pod with a corrupt record is found too.
        if let Ok(pod) = PodName::parse(name) {
            let key = PodKey {
                namespace: namespace.clone(),
                name: pod,
            };
            if PodDir::new(layout, &key).exists() {
                return Ok(vec![key]);
            }
        }
        if kind.is_some() {
            return Err(not_found(kind));
        }
    }
    let owned = owned(layout, |owner| {
        owner.namespace == *namespace
            && owner.name == name
            && kind.is_none_or(|kind| owner.kind == kind.kind && owner.group == kind.group)
    })?;
    let owners: BTreeSet<&ObjectKey> = owned.iter().map(|(owner, _)| owner).collect();
    match owners.len() {
        0 => Err(not_found(kind)),
        1 => Ok(owned.into_iter().map(|(_, key)| key).collect()),
        _ => Err(Error::Ambiguous {
            name: name.into(),
            candidates: owners.into_iter().map(ToString::to_string).collect(),
        }),
    }
}

/// One pod: the first of those that `text` means, as kubectl's `logs deploy/web` takes it.
///
/// # Errors
/// As [`pods`].
pub fn pod(layout: &Layout, namespace: &Namespace, text: &str) -> Result<PodKey, Error> {
    let mut pods = pods(layout, namespace, text)?;
    Ok(pods.remove(0))
}

/// The pods whose owner is wanted, with the owner. Pods with unreadable records have none that is known.
pub(super) fn owned(
    layout: &Layout,
    wanted: impl Fn(&ObjectKey) -> bool,
) -> Result<Vec<(ObjectKey, PodKey)>, Error> {
    let mut owned = Vec::new();
    for found in pod_dir::list(layout)? {
        let Found::Pod(dir) = found else { continue };
        if let Ok(Some(record)) = dir.record()
            && wanted(&record.owner)
        {
            owned.push((record.owner, dir.key().clone()));
        }
    }
    Ok(owned)
}

/// kubectl's name in messages: `deployments.apps`.
pub(super) fn full_plural(kind: &Kind) -> String {
    if kind.group.is_empty() {
        kind.plural.into()
    } else {
        format!("{}.{}", kind.plural, kind.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::lock::Locks;
    use crate::state::testing::{Scratch, key, object_key, record};

    #[test]
    fn kinds_are_named_as_for_kubectl() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Kind::parse(text).map(|kind| kind.kind), expected, "{text}");
        };
        check("po", Some("Pod"));
        check("Deployment", Some("Deployment"));
        check("deployments.apps", Some("Deployment"));
        check("deployments.v1.apps", Some("Deployment"));
        check("deployment.batch", None);
        check("job.batch", Some("Job"));
        check("pods.v1", Some("Pod"));
        check("cm", Some("ConfigMap"));
        check("endpointslices.discovery.k8s.io", Some("EndpointSlice"));
        check("ep", Some("Endpoints"));
        check("ingress", None);
    }

    #[test]
    fn names_lead_to_pods() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let add = |name: &str, owner: ObjectKey| {
            let locks = Locks::try_pod(&layout, &key(name)).unwrap().unwrap();
            let mut record = record(name);
            record.owner = owner;
            locks.pod(&key(name)).unwrap().create(&record).unwrap();
        };
        add("web-0", object_key("Deployment", "apps", "web"));
        add("twice-0", object_key("Deployment", "apps", "twice"));
        add("twice-job", object_key("Job", "batch", "twice"));
        add("bare", object_key("Pod", "", "bare"));
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = pods(&layout, &Namespace::default(), text);
            let found = found.map(|keys| keys[0].name.to_string());
            let found = found.map_err(|error| error.to_string());
            assert_eq!(
                found,
                expected.map(Into::into).map_err(Into::into),
                "{text}"
            );
        };
        check("web-0", Ok("web-0"));
        check("pod/web-0", Ok("web-0"));
        check("deploy/web", Ok("web-0"));
        check("deployment.apps/web", Ok("web-0"));
        check("web", Ok("web-0"));
        check("bare", Ok("bare"));
        check("po/bare", Ok("bare"));
        check("job/twice", Ok("twice-job"));
        check(
            "twice",
            Err("`twice` is more than one object: deployment.apps/twice, job.batch/twice"),
        );
        check("job/web", Err("jobs.batch \"web\" not found"));
        check("nobody", Err("pods \"nobody\" not found"));
        check("pod/web", Err("pods \"web\" not found"));
        check("x/web", Err("the kind `x` is not known"));
        check("../etc", Err("the kind `..` is not known"));
    }
}
