//! Volumes that are files: ConfigMaps, Secrets, the downward API, and several of them projected into one.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;

use super::super::node::At;
use super::super::report::Report;
use super::super::resolve::{Found, Index, Kind};
use super::container::relative_path_fault;
use super::env::container;
use super::field_ref::{self, Amount, Use};
use super::pod::PodScope;
use crate::model::names::ContainerName;
use crate::model::plan::{FileContent, Medium, Volume, VolumeFile, VolumeSource};

/// What a cluster has in every namespace: who signs for its API server. Pods that were read from a cluster mount it next
/// to their token.
const ROOT_CA: &str = "kube-root-ca.crt";

/// An object whose keys become files.
struct Object<'a> {
    kind: Kind,
    name: &'a str,
    /// Where `name` is in the document.
    name_field: &'static str,
    items: &'a [core::KeyToPath],
    optional: bool,
    at: At<'a>,
}

/// The files of one volume, as they are collected.
struct Files<'a> {
    pod: &'a PodScope<'a>,
    mode: u32,
    files: Vec<VolumeFile>,
    /// Where in `files` a path is.
    positions: HashMap<PathBuf, usize>,
    /// The paths that items of a projected volume ask for: no two may ask for one.
    asked: Option<HashSet<PathBuf>>,
}

/// Reads a volume of files; `None` if it is another one.
pub(super) fn convert(
    volume: &core::Volume,
    at: At<'_>,
    pod: &PodScope<'_>,
) -> Option<VolumeSource> {
    if let Some(source) = &volume.config_map {
        let at = at.key("configMap");
        let mut files = Files::new(source.default_mode, at, pod);
        files.add_object(&Object {
            kind: Kind::ConfigMap,
            name: &source.name,
            name_field: "name",
            items: source.items.as_deref().unwrap_or_default(),
            optional: source.optional == Some(true),
            at,
        });
        return Some(files.finish(Medium::Disk));
    }
    if let Some(source) = &volume.secret {
        let at = at.key("secret");
        let mut files = Files::new(source.default_mode, at, pod);
        files.add_object(&Object {
            kind: Kind::Secret,
            name: source.secret_name.as_deref().unwrap_or_default(),
            name_field: "secretName",
            items: source.items.as_deref().unwrap_or_default(),
            optional: source.optional == Some(true),
            at,
        });
        return Some(files.finish(Medium::Memory));
    }
    if let Some(source) = &volume.downward_api {
        let at = at.key("downwardAPI");
        let mut files = Files::new(source.default_mode, at, pod);
        files.add_downward(source.items.as_deref().unwrap_or_default(), at);
        return Some(files.finish(Medium::Memory));
    }
    let source = volume.projected.as_ref()?;
    let at = at.key("projected");
    let mut files = Files::new(source.default_mode, at, pod);
    files.asked = Some(HashSet::new());
    for (index, source) in source.sources.iter().flatten().enumerate() {
        files.add_projection(source, at.field("sources").index(index));
    }
    Some(files.finish(Medium::Memory))
}

/// Warns of a `subPath` that is no file of the volume: a kubelet, and kplay as well, makes an empty folder there, which
/// is hardly what is meant.
pub(super) fn check_sub_paths(
    container: &core::Container,
    volumes: &[Volume],
    at: At<'_>,
    report: &Report,
) {
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let Some(path) = mount.sub_path.as_deref().filter(|path| !path.is_empty()) else {
            continue;
        };
        let mut all = volumes.iter();
        let volume = all.find(|volume| volume.name.as_str() == mount.name);
        let Some(VolumeSource::Files { files, .. }) = volume.map(|volume| &volume.source) else {
            continue;
        };
        // Names with `..` in front are the volume's own, as `..data`.
        let is_own = path.starts_with("..");
        let path = Path::new(path);
        if is_own || files.iter().any(|file| file.path.starts_with(path)) {
            continue;
        }
        let message = format!(
            "the volume `{}` has no file `{}`: an empty folder is mounted",
            mount.name,
            path.display()
        );
        let names = files.iter().take(10);
        let names: Vec<String> = names
            .map(|file| format!("`{}`", file.path.display()))
            .collect();
        let hint = match names.is_empty() {
            true => "the volume is empty".to_owned(),
            false => format!("its files are {}", names.join(", ")),
        };
        report.warning_hint(at.index(index).field("subPath"), message, hint);
    }
}

impl<'a> Files<'a> {
    fn new(default_mode: Option<i32>, at: At<'_>, pod: &'a PodScope<'a>) -> Self {
        let mut files = Self {
            pod,
            mode: 0o644,
            files: Vec::new(),
            positions: HashMap::new(),
            asked: None,
        };
        files.mode = files.mode(default_mode, at.field("defaultMode"));
        files
    }

    fn finish(self, medium: Medium) -> VolumeSource {
        VolumeSource::Files {
            files: self.files,
            medium,
        }
    }

    /// Permission bits, or the volume's own.
    fn mode(&self, mode: Option<i32>, at: At<'_>) -> u32 {
        let Some(mode) = mode else {
            return self.mode;
        };
        match u32::try_from(mode).ok().filter(|mode| *mode <= 0o777) {
            Some(mode) => mode,
            None => {
                let message =
                    format!("a file mode must be between 0 and 0777 (511), is 0{mode:o} ({mode})");
                self.pod.scope.report.error(at, message);
                self.mode
            }
        }
    }

    fn add_projection(&mut self, source: &core::VolumeProjection, at: At<'_>) {
        let report = self.pod.scope.report;
        let count = at.entries().filter(|(_, value)| value.exists()).count();
        if count != 1 {
            report.error(
                at,
                format!("a projected source must have one source, has {count}"),
            );
            return;
        }
        if let Some(source) = &source.config_map {
            self.add_object(&Object {
                kind: Kind::ConfigMap,
                name: &source.name,
                name_field: "name",
                items: source.items.as_deref().unwrap_or_default(),
                optional: source.optional == Some(true),
                at: at.key("configMap"),
            });
        }
        if let Some(source) = &source.secret {
            self.add_object(&Object {
                kind: Kind::Secret,
                name: &source.name,
                name_field: "name",
                items: source.items.as_deref().unwrap_or_default(),
                optional: source.optional == Some(true),
                at: at.key("secret"),
            });
        }
        if let Some(source) = &source.downward_api {
            self.add_downward(
                source.items.as_deref().unwrap_or_default(),
                at.key("downwardAPI"),
            );
        }
        if let Some(source) = &source.service_account_token {
            self.check_token(source, at.key("serviceAccountToken"));
        }
    }

    /// A token is left out, which the table of fields says; the rules of the API server hold for it.
    fn check_token(&mut self, source: &core::ServiceAccountTokenProjection, at: At<'_>) {
        self.path(&source.path, at);
        if source.expiration_seconds.is_some_and(|time| time < 600) {
            let message = "`expirationSeconds` must be at least 600";
            let place = at.field("expirationSeconds");
            self.pod.scope.report.error(place, message);
        }
    }

    fn add_object(&mut self, object: &Object<'_>) {
        let (scope, at) = (self.pod.scope, object.at);
        let namespace = &scope.key.namespace;
        if object.name.is_empty() {
            scope.report.error(
                at,
                format!(
                    "the {} must have a `{}`",
                    object.kind.as_str(),
                    object.name_field
                ),
            );
            return;
        }
        let found = scope.index.find(object.kind, namespace, object.name);
        let place = at.field(object.name_field);
        let is_root_ca = object.kind == Kind::ConfigMap && object.name == ROOT_CA;
        if matches!(found, Found::Missing) && !object.optional && is_root_ca {
            let message = format!("the ConfigMap `{ROOT_CA}` is left out: there is no API server");
            scope.report.note(place, message);
        } else if matches!(found, Found::Missing) && !object.optional {
            scope
                .index
                .report_missing(scope.report, place, object.kind, namespace, object.name);
        }
        let data = match found {
            Found::Data(data) => Some(data),
            Found::Faulty | Found::Missing => None,
        };
        for (index, item) in object.items.iter().enumerate() {
            let place = at.field("items").index(index);
            let mode = self.mode(item.mode, place.field("mode"));
            let path = self.path(&item.path, place);
            if item.key.is_empty() {
                scope.report.error(place, "an item must have a `key`");
                continue;
            }
            match (data, data.and_then(|data| data.file(&item.key)), path) {
                (_, Some(bytes), Some(path)) => self.copy(path, mode, bytes, place),
                (Some(data), None, _) if !object.optional => {
                    let place = place.field("key");
                    Index::report_missing_key(
                        scope.report,
                        place,
                        object.kind,
                        object.name,
                        &item.key,
                        data,
                    );
                }
                _ => {}
            }
        }
        if object.items.is_empty() {
            for (key, bytes) in data.iter().flat_map(|data| data.files()) {
                self.copy(key.into(), self.mode, bytes, at);
            }
        }
    }

    fn add_downward(&mut self, items: &[core::DownwardAPIVolumeFile], at: At<'_>) {
        let report = self.pod.scope.report;
        for (index, item) in items.iter().enumerate() {
            let place = at.field("items").index(index);
            let mode = self.mode(item.mode, place.field("mode"));
            let path = self.path(&item.path, place);
            let content = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), None) => {
                    field_ref::field(field, Use::File, place.key("fieldRef"), report)
                        .map(FileContent::Field)
                }
                (None, Some(resource)) => self.resource(resource, place.key("resourceFieldRef")),
                _ => {
                    report.error(
                        place,
                        "an item must have either `fieldRef` or `resourceFieldRef`",
                    );
                    None
                }
            };
            if let (Some(path), Some(content)) = (path, content) {
                self.push(path, mode, content);
            }
        }
    }

    fn resource(&self, selector: &core::ResourceFieldSelector, at: At<'_>) -> Option<FileContent> {
        let report = self.pod.scope.report;
        let Some(name) = selector
            .container_name
            .as_deref()
            .filter(|name| !name.is_empty())
        else {
            report.error(
                at,
                "a `resourceFieldRef` of a volume must have a `containerName`",
            );
            return None;
        };
        let container = container(name, at, self.pod)?;
        Some(
            match field_ref::resource(selector, container, at, report)? {
                Amount::Fixed(text) => FileContent::Bytes(text.into_bytes()),
                Amount::Field(resource, divisor_milli) => FileContent::Resource {
                    container: ContainerName::parse(name).ok()?,
                    resource,
                    divisor_milli,
                },
            },
        )
    }

    fn path(&mut self, path: &str, at: At<'_>) -> Option<PathBuf> {
        let report = self.pod.scope.report;
        if path.is_empty() {
            report.error(at, "an item must have a `path`");
            return None;
        }
        let dots = path.starts_with("..").then_some("must not start with `..`");
        if let Some(reason) = relative_path_fault(path).or(dots) {
            report.error(at.field("path"), format!("the path `{path}` {reason}"));
            return None;
        }
        let path = PathBuf::from(path);
        let mut asked = self.asked.iter_mut();
        if !asked.all(|asked| asked.insert(path.clone())) {
            let message = format!("another item has the path `{}` as well", path.display());
            report.error(at.field("path"), message);
            return None;
        }
        Some(path)
    }

    /// Adds a file with the bytes of an object.
    fn copy(&mut self, path: PathBuf, mode: u32, bytes: &[u8], at: At<'_>) {
        let scope = self.pod.scope;
        if scope.index.may_copy(bytes, at, scope.report) {
            self.push(path, mode, FileContent::Bytes(bytes.to_vec()));
        }
    }

    /// A later file of the same path wins, as in a kubelet.
    fn push(&mut self, path: PathBuf, mode: u32, content: FileContent) {
        let position = *self
            .positions
            .entry(path.clone())
            .or_insert(self.files.len());
        let file = VolumeFile {
            path,
            mode,
            content,
        };
        match self.files.get_mut(position) {
            Some(other) => *other = file,
            None => self.files.push(file),
        }
    }
}
