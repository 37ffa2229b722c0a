//! What an argument `POD` means: a pod's name, `TYPE/NAME` (of a Service too), or a workload's bare name.

use std::collections::BTreeMap;

use super::error::Error;
use super::get;
use super::inventory::{Inventory, Object, Pod};
use super::logs::names;
use super::resource;
use super::session::Session;
use crate::manager::resolve::Kind;
use crate::output::object::string;
use crate::output::pods::condition_is_true;
use crate::output::report;

/// What pods are named by, beside Services.
const WITH_PODS: [&str; 8] = [
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Job",
    "Pod",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
];

/// The pods that a text means: at least one.
///
/// # Errors
/// There is none, or several workloads of that name.
pub(crate) fn pods<'a>(inventory: &'a Inventory, text: &str) -> Result<Vec<&'a Pod>, Error> {
    let (kind, name) = match text.split_once('/') {
        None => (None, text),
        Some(_) => {
            let (kind, name) = resource::find_typed(text).ok_or_else(|| {
                Error::usage(format!(
                    "`{text}` is not TYPE/NAME with a type that kplay knows"
                ))
            })?;
            (Some(kind), name)
        }
    };
    if let Some(kind) = kind.filter(|kind| kind.kind == "Service") {
        return selected(inventory, kind, name);
    }
    if let Some(kind) = kind.filter(|kind| !WITH_PODS.contains(&kind.kind)) {
        let word = kind.kind.to_ascii_lowercase();
        return Err(Error::usage(format!(
            "a {} has no pods; `kplay get {word}/{name} -o yaml` shows what it has",
            kind.kind
        )));
    }
    let named = |pod: &&Pod| pod.key.name.as_str() == name;
    let is_pod = kind.is_none_or(|kind| kind == resource::pods());
    if let Some(pod) = inventory.pods.iter().find(named).filter(|_| is_pod) {
        return Ok(vec![pod]);
    }
    let owned = |pod: &&Pod| {
        let owner = &pod.view.record.owner;
        owner.name == name && kind.is_none_or(|kind| kind.kind == owner.kind)
    };
    let found: Vec<&Pod> = inventory.pods.iter().filter(owned).collect();
    let mut owners: Vec<String> = found
        .iter()
        .map(|pod| pod.view.record.owner.to_string())
        .collect();
    owners.dedup();
    match (found.is_empty(), owners.as_slice()) {
        (false, [_]) => Ok(found),
        (false, several) => Err(Error::usage(format!(
            "`{name}` is more than one object: name it as {}",
            report::joined(several.iter().map(String::as_str))
        ))),
        (true, _) => {
            if let Some(owner) = without_pods(inventory, kind, name) {
                let key = &owner.key;
                let word = key.kind.to_ascii_lowercase();
                return Err(Error::NotFound {
                    message: format!("{key} has no pod"),
                    hint: format!("`kplay get {word}/{name} -o yaml` shows what became of it"),
                });
            }
            let kind = kind.unwrap_or(resource::pods());
            let known: Vec<&str> = inventory
                .pods
                .iter()
                .filter(|pod| kind == resource::pods() || pod.view.record.owner.kind == kind.kind)
                .map(|pod| {
                    if kind == resource::pods() {
                        pod.key.name.as_str()
                    } else {
                        pod.view.record.owner.name.as_str()
                    }
                })
                .collect();
            Err(get::not_found(kind, name, &known))
        }
    }
}

/// What could have pods, is named so, and has none.
pub(crate) fn without_pods<'a>(
    inventory: &'a Inventory,
    kind: Option<&Kind>,
    name: &str,
) -> Option<&'a Object> {
    inventory.objects.iter().find(|object| {
        let key = &object.key;
        key.name == name
            && WITH_PODS.contains(&&*key.kind)
            && kind.is_none_or(|kind| kind.kind == key.kind && kind.group == key.group)
            && !inventory
                .pods
                .iter()
                .any(|pod| pod.view.record.owner == *key)
    })
}

/// The Service of this name.
///
/// # Errors
/// There is none.
pub(crate) fn service<'a>(
    inventory: &'a Inventory,
    kind: &Kind,
    name: &str,
) -> Result<&'a Object, Error> {
    let services = || {
        let objects = inventory.objects.iter();
        objects.filter(|object| object.key.kind == kind.kind && object.key.group == kind.group)
    };
    let found = services().find(|service| service.key.name == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = services().map(|one| one.key.name.as_str()).collect();
        get::not_found(kind, name, &known)
    })
}

/// The pods that a Service selects: those that are ready first, and those that end last.
fn selected<'a>(inventory: &'a Inventory, kind: &Kind, name: &str) -> Result<Vec<&'a Pod>, Error> {
    let service = service(inventory, kind, name)?;
    let selector = service.json.pointer("/spec/selector");
    let selector: BTreeMap<String, String> = selector
        .and_then(|selector| serde_json::from_value(selector.clone()).ok())
        .unwrap_or_default();
    if selector.is_empty() {
        return Err(Error::Refused(format!(
            "the Service `{name}` has no selector, so it has no pods"
        )));
    }
    let is_selected = |pod: &&Pod| {
        let labels = &pod.view.record.labels;
        let mut wanted = selector.iter();
        pod.key.namespace == service.key.namespace
            && wanted.all(|(name, value)| labels.get(name) == Some(value))
    };
    let mut pods: Vec<&Pod> = inventory.pods.iter().filter(is_selected).collect();
    if pods.is_empty() {
        return Err(Error::NotFound {
            message: format!("no pod has the labels that the Service `{name}` selects"),
            hint: format!("`kplay describe service {name}` says which"),
        });
    }
    pods.sort_by_key(|pod| {
        let ready = condition_is_true(&pod.view.status, "Ready");
        (pod.view.deleting.is_some(), !ready)
    });
    Ok(pods)
}

/// The one pod that a text means; of a workload with several its first, which is told.
///
/// # Errors
/// As [`pods`].
pub(crate) fn one_pod<'a>(
    inventory: &'a Inventory,
    text: &str,
    session: &Session,
) -> Result<&'a Pod, Error> {
    let found = pods(inventory, text)?;
    let first = found.first().copied();
    if let (Some(first), 2..) = (first, found.len()) {
        let (count, name) = (found.len(), &first.key.name);
        session
            .ui
            .talk(&format!("Found {count} pods, using pod/{name}"));
    }
    Ok(first.expect("`pods` returns at least one"))
}

/// The names of a pod's containers: init containers first, as they start.
pub(crate) fn containers(pod: &Pod) -> Vec<&str> {
    let manifest = &pod.view.record.manifest;
    let mut all = names(manifest, "/spec/initContainers");
    all.extend(names(manifest, "/spec/containers"));
    all
}

/// The container that is named; the pod's default one if none is, which is told if it was a choice.
///
/// # Errors
/// The pod has no such container.
pub(crate) fn container<'a>(
    pod: &'a Pod,
    named: Option<&str>,
    session: &Session,
) -> Result<&'a str, Error> {
    let all = containers(pod);
    let find = |name: &str| all.iter().find(|container| **container == name).copied();
    if let Some(name) = named {
        return find(name).ok_or_else(|| Error::NotFound {
            message: format!("the pod `{}` has no container `{name}`", pod.key.name),
            hint: format!("it has {}", report::joined(all.iter().copied())),
        });
    }
    let manifest = &pod.view.record.manifest;
    let annotation = "/metadata/annotations/kubectl.kubernetes.io~1default-container";
    if let Some(container) = find(string(manifest, annotation)) {
        return Ok(container);
    }
    let main = names(manifest, "/spec/containers");
    let first = main.first().copied().unwrap_or_default();
    if all.len() > 1 {
        let init = names(manifest, "/spec/initContainers");
        let init = init.iter().map(|name| format!("{name} (init)"));
        let others: Vec<String> = main
            .iter()
            .map(|name| (*name).to_owned())
            .chain(init)
            .collect();
        session.ui.talk(&format!(
            "Defaulted container \"{first}\" out of: {}",
            others.join(", ")
        ));
    }
    Ok(first)
}
