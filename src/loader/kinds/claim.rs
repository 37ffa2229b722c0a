//! PersistentVolumeClaims and PersistentVolumes: what they ask for and offer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::Origin;
use super::super::binding::{Claim, ClaimKey, PersistentVolume, VolumeMode};
use super::super::node::At;
use super::super::object::{check_annotations, check_labels};
use super::super::report::Report;
use super::super::selector::Selector;
use super::volume::{self, beside};
use super::workload::{self, Workload};
use crate::model::names::{Namespace, ObjectKey, PodKey, PodName, VolumeName, check_subdomain};
use crate::model::plan::ClaimStorage;
use crate::model::quantity::Quantity;

const ACCESS_MODES: [&str; 4] = [
    "ReadWriteOnce",
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOncePod",
];

/// What a claim asks for, read from where its `spec` is; `None` if that has faults.
pub(super) fn claim(
    spec: &core::PersistentVolumeClaimSpec,
    at: At<'_>,
    report: &Report,
) -> Option<Claim> {
    let before = report.errors();
    check_mode(spec.volume_mode.as_deref(), at, report);
    let access_modes = access_modes(spec.access_modes.as_deref(), at, report);
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let request = storage(requests, at, "resources.requests", report);
    let class = class(spec.storage_class_name.as_deref(), at, report);
    let selector = spec.selector.clone().unwrap_or_default();
    let requirements = workload::requirements(selector, at.field("selector"), report);
    let claim = Claim {
        volume_name: spec.volume_name.clone().filter(|name| !name.is_empty()),
        class,
        access_modes,
        request: request?,
        mode: mode(spec.volume_mode.as_deref()),
        selector: Selector::new(requirements),
    };
    (report.errors() == before).then_some(claim)
}

/// A recorded claim, which was checked when it was applied.
pub(in super::super) fn recorded_claim(spec: &core::PersistentVolumeClaimSpec) -> Claim {
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    Claim {
        volume_name: spec.volume_name.clone().filter(|name| !name.is_empty()),
        class: spec.storage_class_name.clone().unwrap_or_default(),
        access_modes: spec.access_modes.iter().flatten().cloned().collect(),
        request: quantity(requests).unwrap_or_default(),
        mode: mode(spec.volume_mode.as_deref()),
        // It is not bound anew.
        selector: Selector::default(),
    }
}

/// What a PersistentVolume offers; `None` if it has faults.
pub(super) fn persistent_volume(
    volume: &core::PersistentVolume,
    at: At<'_>,
    report: &Report,
) -> Option<PersistentVolume> {
    let before = report.errors();
    let spec = volume.spec.clone().unwrap_or_default();
    let at = at.key("spec");
    let sources = at
        .entries()
        .filter(|(key, value)| value.exists() && !NO_SOURCES.contains(key));
    let sources: Vec<String> = sources.map(|(key, _)| format!("`{key}`")).collect();
    match sources.as_slice() {
        [_] => {}
        [] => report.error(
            at,
            "a PersistentVolume must have a source such as `hostPath`",
        ),
        several => {
            let message = format!(
                "a PersistentVolume may have only one source, has {}",
                several.join(" and ")
            );
            report.error(at, message);
        }
    }
    check_mode(spec.volume_mode.as_deref(), at, report);
    note_ignored(&spec, at, report);
    access_modes(spec.access_modes.as_deref(), at, report);
    storage(spec.capacity.as_ref(), at, "capacity", report);
    class(spec.storage_class_name.as_deref(), at, report);
    if let Some(source) = &spec.host_path {
        volume::host_path(source, at.key("hostPath"), report);
        if mode(spec.volume_mode.as_deref()) == VolumeMode::Block {
            // A kubelet finds no plugin for it.
            let message = "a `hostPath` volume cannot have `volumeMode: Block`";
            let hint = "name the device as the `path` of a `local` volume";
            report.error_hint(at.key("volumeMode"), message, hint);
        }
    }
    if let Some(source) = &spec.local {
        check_local(&source.path, at.key("local"), report);
        if spec.node_affinity.is_none() {
            report.error(
                at.key("local"),
                "a `local` volume must have a `nodeAffinity`",
            );
        }
    }
    let offered = offered(&volume.metadata, &spec);
    (report.errors() == before).then_some(offered)
}

/// What a PersistentVolume without faults offers.
pub(in super::super) fn recorded_volume(volume: &core::PersistentVolume) -> PersistentVolume {
    offered(&volume.metadata, &volume.spec.clone().unwrap_or_default())
}

fn offered(metadata: &ObjectMeta, spec: &core::PersistentVolumeSpec) -> PersistentVolume {
    PersistentVolume {
        class: spec.storage_class_name.clone().unwrap_or_default(),
        access_modes: spec.access_modes.iter().flatten().cloned().collect(),
        capacity: quantity(spec.capacity.as_ref()).unwrap_or_default(),
        mode: mode(spec.volume_mode.as_deref()),
        claim: spec.claim_ref.as_ref().and_then(claim_key),
        labels: metadata.labels.clone().unwrap_or_default(),
        storage: storage_of(spec),
    }
}

fn storage_of(spec: &core::PersistentVolumeSpec) -> Option<ClaimStorage> {
    match (
        &spec.host_path,
        &spec.local,
        mode(spec.volume_mode.as_deref()),
    ) {
        // Which has a fault.
        (Some(_), _, VolumeMode::Block) | (None, None, _) => None,
        (Some(source), _, VolumeMode::Filesystem) => {
            volume::host_path_type(source).map(|kind| ClaimStorage::HostPath {
                path: PathBuf::from(&source.path),
                kind,
            })
        }
        (None, Some(source), VolumeMode::Filesystem) => Some(ClaimStorage::LocalPath {
            path: PathBuf::from(&source.path),
        }),
        (None, Some(source), VolumeMode::Block) => Some(ClaimStorage::Device {
            path: PathBuf::from(&source.path),
        }),
    }
}

fn mode(mode: Option<&str>) -> VolumeMode {
    match mode {
        Some("Block") => VolumeMode::Block,
        _ => VolumeMode::Filesystem,
    }
}

fn claim_key(reference: &core::ObjectReference) -> Option<ClaimKey> {
    let namespace = Namespace::parse(reference.namespace.as_deref()?).ok()?;
    Some((namespace, reference.name.clone()?))
}

/// Makes the relative `hostPath` of a PersistentVolume absolute: it is beside the manifest, as a pod's.
pub(super) fn resolve_path(volume: &mut core::PersistentVolume, base: &Path) {
    let spec = volume.spec.as_mut();
    if let Some(source) = spec.and_then(|spec| spec.host_path.as_mut()) {
        beside(&mut source.path, base);
    }
}

/// A claim that is made for a pod: by a StatefulSet's template, or for an ephemeral volume.
#[derive(Debug)]
pub(in super::super) struct Made<'a> {
    pub(in super::super) at: At<'a>,
    /// `None` if the template has faults.
    pub(in super::super) claim: Option<Claim>,
    pub(in super::super) object: core::PersistentVolumeClaim,
    pub(in super::super) origin: Origin,
}

/// The name of the claim that a template makes for a pod.
pub(super) fn made_name(template: &str, pod: &str) -> String {
    format!("{template}-{pod}")
}

/// The claims of a StatefulSet's pod, as its controller makes them (`stateful_set_utils.go:getPersistentVolumeClaims`).
pub(in super::super) fn made<'a>(
    workload: &Workload,
    key: &ObjectKey,
    at: At<'a>,
    report: &Report,
) -> Vec<Made<'a>> {
    let at = at.path("spec.volumeClaimTemplates");
    let mut names = BTreeSet::new();
    let mut claims = Vec::new();
    for (index, template) in workload.claims.iter().enumerate() {
        let place = at.index(index);
        let name = template.metadata.name.as_deref().unwrap_or_default();
        if let Err(error) = VolumeName::parse(name) {
            let message = format!("the name `{name}` of a claim template {error}");
            report.error(place.path("metadata.name"), message);
            continue;
        }
        if !names.insert(name) {
            let message = format!("the claim template `{name}` is there twice");
            report.error(place.path("metadata.name"), message);
            continue;
        }
        let spec = template.spec.clone().unwrap_or_default();
        let claim = claim(&spec, place.key("spec"), report);
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        let selector = workload.selector.clone().unwrap_or_default();
        labels.extend(selector.match_labels.unwrap_or_default());
        let object = core::PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(made_name(name, &workload.pod_name(&key.name))),
                namespace: Some(key.namespace.as_str().to_owned()),
                labels: (!labels.is_empty()).then_some(labels),
                annotations: template.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
            status: None,
        };
        claims.push(Made {
            at: place,
            claim,
            object,
            origin: Origin::Template,
        });
    }
    claims
}

/// The name of the claim of an ephemeral volume (`component-helpers/storage/ephemeral`).
pub(super) fn ephemeral_name(pod: &str, volume: &str) -> String {
    format!("{pod}-{volume}")
}

/// The claims of a pod's ephemeral volumes.
pub(in super::super) fn ephemeral<'a>(
    workload: &Workload,
    key: &ObjectKey,
    at: At<'a>,
    report: &Report,
) -> Vec<Made<'a>> {
    let pod = workload.pod_name(&key.name);
    // A fault of another place.
    let Ok(name) = PodName::parse(&pod) else {
        return Vec::new();
    };
    let owner = PodKey {
        namespace: key.namespace.clone(),
        name,
    };
    let volumes = workload.spec_at(at).field("volumes");
    let is_template = |name: &str| {
        let mut templates = workload.claims.iter();
        templates.any(|template| template.metadata.name.as_deref() == Some(name))
    };
    let mut claims = Vec::new();
    for (index, volume) in workload.spec.volumes.iter().flatten().enumerate() {
        let Some(source) = &volume.ephemeral else {
            continue;
        };
        // Its name is checked where all volumes are; a template's claim takes its place.
        if VolumeName::parse(&volume.name).is_err() || is_template(&volume.name) {
            continue;
        }
        let at = volumes.index(index).key("ephemeral");
        let Some(template) = &source.volume_claim_template else {
            report.error(
                at,
                "an `ephemeral` volume must have a `volumeClaimTemplate`",
            );
            continue;
        };
        let place = at.key("volumeClaimTemplate");
        check_template(place, report);
        let name = ephemeral_name(&pod, &volume.name);
        if let Err(error) = check_subdomain(&name) {
            let message = format!("the name `{name}` of the volume's claim {error}");
            report.error(volumes.index(index).field("name"), message);
            continue;
        }
        let metadata = template.metadata.clone().unwrap_or_default();
        let object = core::PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(key.namespace.as_str().to_owned()),
                labels: metadata.labels,
                annotations: metadata.annotations,
                ..ObjectMeta::default()
            },
            spec: Some(template.spec.clone()),
            status: None,
        };
        claims.push(Made {
            at: place,
            claim: claim(&template.spec, place.key("spec"), report),
            object,
            origin: Origin::Volume(owner.clone()),
        });
    }
    claims
}

/// A template has no identity of its own (`ValidatePersistentVolumeClaimTemplate`).
fn check_template(at: At<'_>, report: &Report) {
    let metadata = at.field("metadata");
    let others = metadata
        .entries()
        .filter(|(key, value)| value.exists() && !["labels", "annotations"].contains(key));
    for (key, place) in others {
        let message = format!("`{key}` cannot be set for an ephemeral volume claim");
        report.error(place, message);
    }
    check_labels(metadata.field("labels"), report);
    check_annotations(metadata.field("annotations"), report);
}

/// Gives a StatefulSet's pod a volume for each claim, in the place of one of the same name.
pub(super) fn add_volumes(spec: &mut core::PodSpec, workload: &Workload, set: &str) {
    if workload.claims.is_empty() {
        return;
    }
    let volumes = spec.volumes.get_or_insert_default();
    for template in &workload.claims {
        let name = template.metadata.name.clone().unwrap_or_default();
        // A fault, which is told of the template.
        if VolumeName::parse(&name).is_err() {
            continue;
        }
        let claim = core::PersistentVolumeClaimVolumeSource {
            claim_name: made_name(&name, &workload.pod_name(set)),
            read_only: None,
        };
        let volume = core::Volume {
            name,
            persistent_volume_claim: Some(claim),
            ..core::Volume::default()
        };
        match volumes.iter_mut().find(|other| other.name == volume.name) {
            Some(other) => *other = volume,
            None => volumes.push(volume),
        }
    }
}

/// The fields of a PersistentVolume's `spec` that are no sources.
const NO_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn check_mode(mode: Option<&str>, at: At<'_>, report: &Report) {
    let mode = mode.unwrap_or_default();
    if !["", "Filesystem", "Block"].contains(&mode) {
        let message = format!("`volumeMode` must be `Filesystem` or `Block`, is `{mode}`");
        report.error(at.field("volumeMode"), message);
    }
}

/// Tells what is not done with a PersistentVolume, which is in no table.
fn note_ignored(spec: &core::PersistentVolumeSpec, at: At<'_>, report: &Report) {
    let reclaimed = spec.persistent_volume_reclaim_policy.as_deref();
    let notes = [
        (
            "mountOptions",
            spec.mount_options
                .as_ref()
                .is_some_and(|options| !options.is_empty()),
            "its path is mounted already",
        ),
        (
            "persistentVolumeReclaimPolicy",
            !matches!(reclaimed, None | Some("Retain")),
            "nothing empties a path of this machine",
        ),
        (
            "volumeAttributesClassName",
            spec.volume_attributes_class_name.is_some(),
            "a path has no such attributes",
        ),
    ];
    for (field, _, why) in notes.into_iter().filter(|(_, set, _)| *set) {
        report.note(at.key(field), format!("`{field}` is ignored: {why}"));
    }
}

fn access_modes(modes: Option<&[String]>, at: At<'_>, report: &Report) -> BTreeSet<String> {
    let modes = modes.unwrap_or_default();
    let place = at.key("accessModes");
    if modes.is_empty() {
        report.error_hint(
            place,
            "`accessModes` is missing or empty",
            "add `accessModes: [ReadWriteOnce]`",
        );
    }
    for (index, mode) in modes.iter().enumerate() {
        if !ACCESS_MODES.contains(&mode.as_str()) {
            let known: Vec<String> = ACCESS_MODES
                .iter()
                .map(|mode| format!("`{mode}`"))
                .collect();
            let message = format!("`{mode}` is no access mode: there are {}", known.join(", "));
            report.error(place.index(index), message);
        }
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        report.error(place, "`ReadWriteOncePod` excludes all other access modes");
    }
    modes.iter().cloned().collect()
}

fn storage(
    amounts: Option<&BTreeMap<String, resource::Quantity>>,
    at: At<'_>,
    field: &str,
    report: &Report,
) -> Option<Quantity> {
    let at = at.path(field);
    let Some(amount) = amounts.and_then(|amounts| amounts.get("storage")) else {
        report.error_hint(
            at,
            format!("`{field}.storage` is missing"),
            "say how much: `storage: 1Gi`",
        );
        return None;
    };
    // The typed read has told what is no quantity.
    let amount = Quantity::parse(&amount.0).ok()?;
    if amount <= Quantity::default() {
        report.error(at.field("storage"), "`storage` must be greater than zero");
    }
    Some(amount)
}

fn quantity(amounts: Option<&BTreeMap<String, resource::Quantity>>) -> Option<Quantity> {
    Quantity::parse(&amounts?.get("storage")?.0).ok()
}

fn class(class: Option<&str>, at: At<'_>, report: &Report) -> String {
    let class = class.unwrap_or_default();
    if let Some(error) = (!class.is_empty())
        .then(|| check_subdomain(class).err())
        .flatten()
    {
        report.error(
            at.field("storageClassName"),
            format!("the storage class `{class}` {error}"),
        );
    }
    class.to_owned()
}

fn check_local(path: &str, at: At<'_>, report: &Report) {
    if path.is_empty() {
        report.error(at, "a `local` volume must have a `path`");
    } else if !path.starts_with('/') || path.contains('\0') {
        report.error(
            at.field("path"),
            "`path` of a `local` volume must be absolute",
        );
    } else if path.split('/').any(|part| part == "..") {
        report.error(
            at.field("path"),
            "`path` of a `local` volume must not have `..`",
        );
    }
}
