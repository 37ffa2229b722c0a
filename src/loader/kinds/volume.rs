//! `volumes` of a pod.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1 as core;

use super::super::node::{At, Value};
use super::super::report::Report;
use super::pod::{PodScope, choice};
use super::volume_files;
use crate::model::names::VolumeName;
use crate::model::plan::{HostPathType, Medium, Volume, VolumeSource};
use crate::model::quantity::Quantity;

/// Makes relative hostPaths absolute: `./data` is beside the manifest.
pub(super) fn resolve_paths(spec: &mut core::PodSpec, base: &Path) {
    for volume in spec.volumes.iter_mut().flatten() {
        let Some(host_path) = volume
            .host_path
            .as_mut()
            .filter(|source| !source.path.is_empty())
        else {
            continue;
        };
        let path = Path::new(&host_path.path);
        let kept = path
            .components()
            .filter(|component| *component != Component::CurDir);
        // What has `..` is refused when it is read.
        if path.is_relative()
            && let Some(path) = base.join(kept.collect::<PathBuf>()).to_str()
        {
            path.trim_end_matches('/').clone_into(&mut host_path.path);
        }
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
        return empty_dir(source, at.key("emptyDir"), pod.scope.report);
    }
    if let Some(source) = &volume.host_path {
        return host_path(source, at.key("hostPath"), pod.scope.report);
    }
    // Sources that are left over are refused by the table of unsupported fields.
    volume_files::convert(volume, at, pod)
}

fn empty_dir(
    source: &core::EmptyDirVolumeSource,
    at: At<'_>,
    report: &Report,
) -> Option<VolumeSource> {
    let medium = source.medium.as_deref().unwrap_or_default();
    let media = [("", Medium::Disk), ("Memory", Medium::Memory)];
    if medium.starts_with("HugePages") {
        report.error(
            at.field("medium"),
            format!("the medium `{medium}` is not supported yet"),
        );
        return None;
    }
    let medium = choice(medium, &media, "medium", at.field("medium"), report);
    let limit = source
        .size_limit
        .as_ref()
        .and_then(|limit| Quantity::parse(&limit.0).ok());
    if limit.is_some_and(Quantity::is_negative) {
        report.error(at.field("sizeLimit"), "`sizeLimit` must not be negative");
    }
    Some(VolumeSource::EmptyDir {
        medium: medium?,
        // Zero is no limit, as in the kubelet.
        size_limit: limit
            .and_then(|limit| u64::try_from(limit.value()).ok())
            .filter(|limit| *limit != 0),
    })
}

fn host_path(
    source: &core::HostPathVolumeSource,
    at: At<'_>,
    report: &Report,
) -> Option<VolumeSource> {
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
    let kinds = [
        ("", HostPathType::Unset),
        ("DirectoryOrCreate", HostPathType::DirectoryOrCreate),
        ("Directory", HostPathType::Directory),
        ("FileOrCreate", HostPathType::FileOrCreate),
        ("File", HostPathType::File),
        ("Socket", HostPathType::Socket),
        ("CharDevice", HostPathType::CharDevice),
        ("BlockDevice", HostPathType::BlockDevice),
    ];
    let kind = source.type_.as_deref().unwrap_or_default();
    let kind = choice(kind, &kinds, "type", at.field("type"), report)?;
    Some(VolumeSource::HostPath {
        path: source.path.clone().into(),
        kind,
    })
}
