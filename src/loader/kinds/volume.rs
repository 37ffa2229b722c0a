//! `volumes` of a pod.

use std::collections::{BTreeSet, HashSet};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1 as core;

use super::super::binding::Binding;
use super::super::decode::closest;
use super::super::node::{At, Value};
use super::super::report::Report;
use super::claim::ephemeral_name;
use super::container::PULL_POLICIES;
use super::pod::{PodScope, choice, one_of};
use super::resources::HUGE_PAGES;
use super::volume_files;
use crate::model::names::VolumeName;
use crate::model::plan::{HostPathType, Medium, Volume, VolumeSource};
use crate::model::quantity::Quantity;
use crate::model::reference::Reference;

/// Makes relative hostPaths absolute: `./data` is beside the manifest.
pub(super) fn resolve_paths(spec: &mut core::PodSpec, base: &Path) {
    for volume in spec.volumes.iter_mut().flatten() {
        if let Some(source) = &mut volume.host_path {
            beside(&mut source.path, base);
        }
    }
}

/// Makes a relative path absolute; an empty one stays.
pub(super) fn beside(path: &mut String, base: &Path) {
    let relative = Path::new(path.as_str());
    let kept = relative
        .components()
        .filter(|component| *component != Component::CurDir);
    // What has `..` is refused when it is read.
    if !path.is_empty()
        && relative.is_relative()
        && let Some(absolute) = base.join(kept.collect::<PathBuf>()).to_str()
    {
        *path = absolute.trim_end_matches('/').to_owned();
    }
}

/// Reads all volumes of a pod.
pub(super) fn convert(pod: &PodScope<'_>, at: At<'_>) -> Vec<Volume> {
    let report = pod.scope.report;
    let mut names = HashSet::new();
    let volumes = pod.spec.volumes.iter().flatten().enumerate();
    volumes
        .filter_map(|(index, volume)| {
            let place = at.index(index);
            let name = name(&volume.name, place, report);
            if !volume.name.is_empty() && !names.insert(volume.name.as_str()) {
                report.error(
                    place.field("name"),
                    format!("the volume name `{}` is used twice", volume.name),
                );
            }
            let source = source(volume, place, pod);
            Some(Volume {
                name: name?,
                source: source?,
            })
        })
        .collect()
}

fn name(name: &str, at: At<'_>, report: &Report) -> Option<VolumeName> {
    if name.is_empty() {
        report.error(at, "a volume must have a `name`");
        return None;
    }
    VolumeName::parse(name)
        .map_err(|error| {
            report.error(
                at.field("name"),
                format!("the volume name `{name}` {error}"),
            );
        })
        .ok()
}

fn source(volume: &core::Volume, at: At<'_>, pod: &PodScope<'_>) -> Option<VolumeSource> {
    let sources: Vec<String> = match at.node.map(|node| &node.value) {
        Some(Value::Map(entries)) => entries
            .iter()
            .filter(|entry| &*entry.key != "name" && !entry.value.is_null())
            .map(|entry| format!("`{}`", entry.key))
            .collect(),
        _ => Vec::new(),
    };
    if sources.len() > 1 {
        let message = format!(
            "volume `{}` may have only one source, has {}",
            volume.name,
            sources.join(" and ")
        );
        pod.scope.report.error(at, message);
        return None;
    }
    if let Some(source) = &volume.empty_dir {
        return empty_dir(source, at.key("emptyDir"), pod);
    }
    if let Some(source) = &volume.host_path {
        let (path, kind) = host_path(source, at.key("hostPath"), pod.scope.report)?;
        return Some(VolumeSource::HostPath { path, kind });
    }
    if let Some(source) = &volume.image {
        return image(source, at.key("image"), pod.scope.report);
    }
    if let Some(source) = &volume.persistent_volume_claim {
        return claim(source, at.key("persistentVolumeClaim"), pod);
    }
    if volume.ephemeral.is_some() {
        return ephemeral(&volume.name, pod);
    }
    // Sources that are left over are refused by the table of unsupported fields.
    volume_files::convert(volume, at, pod)
}

fn empty_dir(
    source: &core::EmptyDirVolumeSource,
    at: At<'_>,
    pod: &PodScope<'_>,
) -> Option<VolumeSource> {
    let report = pod.scope.report;
    let medium = source.medium.as_deref().unwrap_or_default();
    let place = at.field("medium");
    let medium = match medium.strip_prefix("HugePages-") {
        Some(size) => huge_pages(size, place, report),
        None => choice(medium, &MEDIA, "medium", place, report),
    };
    let medium = medium.and_then(|medium| requested(medium, pod.spec, place, report));
    let limit = source
        .size_limit
        .as_ref()
        .and_then(|limit| Quantity::parse(&limit.0).ok());
    if limit.is_some_and(Quantity::is_negative) {
        report.error(at.field("sizeLimit"), "`sizeLimit` must not be negative");
    }
    let mode = source.mode.and_then(|mode| {
        let valid = u32::try_from(mode).ok().filter(|mode| *mode <= 0o1777);
        if valid.is_none() {
            let message =
                format!("`mode` must be between 0 and 01777 (1023), is 0{mode:o} ({mode})");
            report.error(at.field("mode"), message);
        }
        valid
    });
    Some(VolumeSource::EmptyDir {
        mode,
        medium: medium?,
        // Zero is no limit, as in the kubelet.
        size_limit: limit
            .and_then(|limit| u64::try_from(limit.value()).ok())
            .filter(|limit| *limit != 0),
    })
}

const MEDIA: [(&str, Medium); 3] = [
    ("", Medium::Disk),
    ("Memory", Medium::Memory),
    ("HugePages", Medium::HugePages(None)),
];

/// `HugePages-2Mi`.
fn huge_pages(size: &str, at: At<'_>, report: &Report) -> Option<Medium> {
    let bytes = Quantity::parse(size).ok().map(Quantity::value);
    let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let bytes = bytes.filter(|bytes| bytes.is_power_of_two());
    if bytes.is_none() {
        let message = format!("`medium` names huge pages of no size: `{size}`");
        report.error_hint(
            at,
            message,
            "write it as `HugePages-2Mi` or `HugePages-1Gi`",
        );
    }
    bytes.map(|bytes| Medium::HugePages(Some(bytes)))
}

/// Huge pages are those that the pod requests, and of their size (`getPageSizeMountOption`).
fn requested(medium: Medium, spec: &core::PodSpec, at: At<'_>, report: &Report) -> Option<Medium> {
    let Medium::HugePages(wanted) = medium else {
        return Some(medium);
    };
    let containers = spec.init_containers.iter().flatten();
    let of_containers = containers.chain(&spec.containers);
    let of_containers = of_containers.filter_map(|container| container.resources.as_ref());
    let all = of_containers.chain(&spec.resources);
    let names = all.flat_map(|resources| resources.requests.iter().flatten());
    let sizes: BTreeSet<u64> = names
        .filter_map(|(name, _)| Quantity::parse(name.strip_prefix(HUGE_PAGES)?).ok())
        .filter_map(|size| u64::try_from(size.value()).ok())
        .collect();
    let mut each = sizes.iter();
    let fault = match (wanted, each.next(), each.next()) {
        (Some(size), _, _) if sizes.contains(&size) => return Some(medium),
        (None, Some(size), None) => return Some(Medium::HugePages(Some(*size))),
        (None, Some(_), Some(_)) => {
            "`medium: HugePages` does not go with requests of huge pages of several sizes"
        }
        (Some(_), _, _) | (None, None, _) => "no container requests huge pages of this medium",
    };
    let hint = "request them with a limit such as `hugepages-2Mi: 64Mi`, and name their size: `HugePages-2Mi`";
    report.error_hint(at, fault, hint);
    None
}

fn image(source: &core::ImageVolumeSource, at: At<'_>, report: &Report) -> Option<VolumeSource> {
    let image = source.reference.as_deref().unwrap_or_default();
    if image.is_empty() {
        report.error(at, "an `image` volume must have a `reference`");
        return None;
    }
    let reference = Reference::parse(image).map_err(|error| {
        let message = format!("the image `{image}` cannot be used: {error}");
        report.error(at.field("reference"), message);
    });
    let policy = source.pull_policy.as_deref().unwrap_or_default();
    let place = at.field("pullPolicy");
    let pull_policy = choice(policy, &PULL_POLICIES, "pullPolicy", place, report);
    Some(VolumeSource::Image {
        image: image.to_owned(),
        reference: reference.ok()?,
        pull_policy: pull_policy?,
    })
}

fn claim(
    source: &core::PersistentVolumeClaimVolumeSource,
    at: At<'_>,
    pod: &PodScope<'_>,
) -> Option<VolumeSource> {
    let (scope, name) = (pod.scope, source.claim_name.as_str());
    if name.is_empty() {
        let message = "a `persistentVolumeClaim` must have a `claimName`";
        scope.report.error(at, message);
        return None;
    }
    let namespace = &scope.key.namespace;
    let place = at.field("claimName");
    match scope.index.claims.get(namespace, name) {
        Some(Binding::Bound(_, storage)) => Some(VolumeSource::Claim {
            name: name.to_owned(),
            storage: storage.clone(),
            read_only: source.read_only == Some(true),
        }),
        Some(Binding::Faulty) => None,
        Some(Binding::Lost(fault)) => {
            scope.report.error(place, fault);
            None
        }
        None => {
            let message = format!(
                "the PersistentVolumeClaim `{name}` does not exist in namespace `{namespace}`"
            );
            let hint = match closest(name, &scope.index.claims.names(namespace)) {
                Some(close) => format!("did you mean `{close}`?"),
                None => "add the PersistentVolumeClaim to the files".to_owned(),
            };
            scope.report.error_hint(place, message, hint);
            None
        }
    }
}

/// The claim that was made for the volume; its faults are told of its template.
fn ephemeral(name: &str, pod: &PodScope<'_>) -> Option<VolumeSource> {
    let name = ephemeral_name(&pod.name, name);
    let claims = &pod.scope.index.claims;
    match claims.get(&pod.scope.key.namespace, &name)? {
        Binding::Bound(_, storage) => Some(VolumeSource::Claim {
            name,
            storage: storage.clone(),
            read_only: false,
        }),
        Binding::Faulty | Binding::Lost(_) => None,
    }
}

/// Checks a hostPath.
pub(super) fn host_path(
    source: &core::HostPathVolumeSource,
    at: At<'_>,
    report: &Report,
) -> Option<(PathBuf, HostPathType)> {
    let place = at.field("path");
    if source.path.is_empty() {
        report.error(at, "a `hostPath` must have a `path`");
        return None;
    }
    if source.path.contains('\0') {
        report.error(place, "`path` must not have a NUL character");
    }
    if source.path.split('/').any(|part| part == "..") {
        report.error(place, "`path` of a `hostPath` must not have `..`");
    }
    let kind = source.type_.as_deref().unwrap_or_default();
    let kind = choice(kind, &HOST_PATH_TYPES, "type", at.field("type"), report)?;
    Some((source.path.clone().into(), kind))
}

/// The type of a hostPath that was checked.
pub(super) fn host_path_type(source: &core::HostPathVolumeSource) -> Option<HostPathType> {
    one_of(
        source.type_.as_deref().unwrap_or_default(),
        &HOST_PATH_TYPES,
    )
}

const HOST_PATH_TYPES: [(&str, HostPathType); 8] = [
    ("", HostPathType::Unset),
    ("DirectoryOrCreate", HostPathType::DirectoryOrCreate),
    ("Directory", HostPathType::Directory),
    ("FileOrCreate", HostPathType::FileOrCreate),
    ("File", HostPathType::File),
    ("Socket", HostPathType::Socket),
    ("CharDevice", HostPathType::CharDevice),
    ("BlockDevice", HostPathType::BlockDevice),
];
