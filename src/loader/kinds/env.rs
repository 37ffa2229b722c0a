//! `envFrom` and `env` of a container.
//!
//! What they refer to is found here and now: a missing ConfigMap, Secret or key that is not optional is a fault of the
//! manifests, with its place. A kubelet would start the pod and wait for it (`CreateContainerConfigError`); here nobody
//! but the next `apply` could bring it, and that one also starts the pod.

use k8s_openapi::api::core::v1 as core;

use super::super::node::At;
use super::super::resolve::{Found, Index, Kind};
use super::container::{check_volume_name, relative_path_fault};
use super::field_ref::{self, Amount, Use};
use super::pod::PodScope;
use crate::model::names::{ContainerName, VolumeName};
use crate::model::plan::{EnvValue, EnvVar};

/// A reference to an object or to one of its keys.
struct Wanted<'a> {
    kind: Kind,
    name: &'a str,
    optional: bool,
    at: At<'a>,
}

/// Reads all variables, in the order in which they are set.
pub(super) fn convert(container: &core::Container, at: At<'_>, pod: &PodScope<'_>) -> Vec<EnvVar> {
    let mut variables = Vec::new();
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        from(
            source,
            at.field("envFrom").index(index),
            pod,
            &mut variables,
        );
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let place = at.field("env").index(index);
        check_name(&variable.name, place, place.field("name"), pod);
        if let Some(value) = value(variable, container, place, pod) {
            variables.push(EnvVar {
                name: variable.name.clone(),
                value,
            });
        }
    }
    variables
}

fn from(source: &core::EnvFromSource, at: At<'_>, pod: &PodScope<'_>, variables: &mut Vec<EnvVar>) {
    let report = pod.scope.report;
    let wanted = match (&source.config_map_ref, &source.secret_ref) {
        (Some(map), None) => Wanted {
            kind: Kind::ConfigMap,
            name: &map.name,
            optional: map.optional == Some(true),
            at: at.key("configMapRef"),
        },
        (None, Some(secret)) => Wanted {
            kind: Kind::Secret,
            name: &secret.name,
            optional: secret.optional == Some(true),
            at: at.key("secretRef"),
        },
        (None, None) => {
            return report.error(
                at,
                "an entry of `envFrom` must have `configMapRef` or `secretRef`",
            );
        }
        (Some(_), Some(_)) => {
            return report.error(
                at,
                "an entry of `envFrom` may have only one of `configMapRef` and `secretRef`",
            );
        }
    };
    let prefix = source.prefix.as_deref().unwrap_or_default();
    if !is_variable_name(prefix) {
        let message = format!(
            "`prefix` may have only printable ASCII characters without `=`, is `{}`",
            prefix.escape_debug()
        );
        return report.error(at.field("prefix"), message);
    }
    let Some(data) = find(&wanted, pod) else {
        return;
    };
    for (key, bytes) in &data.values {
        let name = format!("{prefix}{key}");
        if let Some(text) = text(bytes, &name, wanted.at, pod) {
            variables.push(EnvVar {
                name,
                value: EnvValue::Literal(text),
            });
        }
    }
}

fn value(
    variable: &core::EnvVar,
    container: &core::Container,
    at: At<'_>,
    pod: &PodScope<'_>,
) -> Option<EnvValue> {
    let report = pod.scope.report;
    let text = variable.value.as_deref().unwrap_or_default();
    let Some(source) = &variable.value_from else {
        if text.contains('\0') {
            report.error(at.field("value"), "a variable may not have a NUL character");
            return None;
        }
        return Some(EnvValue::Template(text.to_owned()));
    };
    if !text.is_empty() {
        let message = format!(
            "`{}` may have `value` or `valueFrom`, not both",
            variable.name
        );
        report.error(at.key("valueFrom"), message);
        return None;
    }
    referred(variable, source, container, at.key("valueFrom"), pod)
}

fn referred(
    variable: &core::EnvVar,
    source: &core::EnvVarSource,
    container: &core::Container,
    at: At<'_>,
    pod: &PodScope<'_>,
) -> Option<EnvValue> {
    let report = pod.scope.report;
    let sources = [
        source.config_map_key_ref.is_some(),
        source.field_ref.is_some(),
        source.file_key_ref.is_some(),
        source.resource_field_ref.is_some(),
        source.secret_key_ref.is_some(),
    ];
    let sources = sources.into_iter().filter(|there| *there).count();
    if sources != 1 {
        report.error(
            at,
            format!("`valueFrom` must have one source, has {sources}"),
        );
        return None;
    }
    if let Some(selector) = &source.config_map_key_ref {
        let wanted = Wanted {
            kind: Kind::ConfigMap,
            name: &selector.name,
            optional: selector.optional == Some(true),
            at: at.key("configMapKeyRef"),
        };
        return key_value(&wanted, &selector.key, &variable.name, pod);
    }
    if let Some(selector) = &source.secret_key_ref {
        let wanted = Wanted {
            kind: Kind::Secret,
            name: &selector.name,
            optional: selector.optional == Some(true),
            at: at.key("secretKeyRef"),
        };
        return key_value(&wanted, &selector.key, &variable.name, pod);
    }
    if let Some(selector) = &source.field_ref {
        return field_ref::field(selector, Use::Variable, at.key("fieldRef"), report)
            .map(EnvValue::Field);
    }
    if let Some(selector) = &source.file_key_ref {
        return file(selector, at.key("fileKeyRef"), pod);
    }
    let selector = source.resource_field_ref.as_ref()?;
    let at = at.key("resourceFieldRef");
    let name = selector.container_name.as_deref();
    let (container, name) = match name.filter(|name| !name.is_empty()) {
        Some(name) => (self::container(name, at, pod)?, Some(name)),
        None => (container, None),
    };
    Some(
        match field_ref::resource(selector, container, at, report)? {
            Amount::Fixed(text) => EnvValue::Literal(text),
            Amount::Field(resource, divisor_milli) => EnvValue::Resource {
                container: name.and_then(|name| ContainerName::parse(name).ok()),
                resource,
                divisor_milli,
            },
        },
    )
}

/// A variable in a file, which somebody is to write before the container starts.
fn file(selector: &core::FileKeySelector, at: At<'_>, pod: &PodScope<'_>) -> Option<EnvValue> {
    let report = pod.scope.report;
    let before = report.errors();
    let fields = [
        ("volumeName", &selector.volume_name),
        ("path", &selector.path),
        ("key", &selector.key),
    ];
    for (field, value) in fields {
        if value.is_empty() {
            report.error(at, format!("the reference must have a `{field}`"));
        }
    }
    if let Some(reason) = relative_path_fault(&selector.path) {
        report.error(at.field("path"), format!("`path` {reason}"));
    } else if selector.path.starts_with("..") {
        report.error(at.field("path"), "`path` must not start with `..`");
    }
    if !is_variable_name(&selector.key) {
        let message = format!(
            "the key `{}` may have only printable ASCII characters without `=`",
            selector.key.escape_debug()
        );
        report.error(at.field("key"), message);
    }
    let name = selector.volume_name.as_str();
    let mut volumes = pod.spec.volumes.iter().flatten();
    let volume = volumes.find(|volume| volume.name == name);
    match volume {
        _ if name.is_empty() => {}
        None => check_volume_name(name, at, at.field("volumeName"), pod),
        Some(volume) if volume.empty_dir.is_some() => {}
        Some(_) => report.error_hint(
            at.field("volumeName"),
            format!("the volume `{name}` is no `emptyDir`"),
            "variables are read from files of `emptyDir` volumes; use `configMapKeyRef` or `secretKeyRef` for others",
        ),
    }
    if report.errors() > before {
        return None;
    }
    Some(EnvValue::File {
        volume: VolumeName::parse(name).ok()?,
        path: selector.path.clone().into(),
        key: selector.key.clone(),
        optional: selector.optional == Some(true),
    })
}

/// A container of this pod.
pub(super) fn container<'p>(
    name: &str,
    at: At<'_>,
    pod: &PodScope<'p>,
) -> Option<&'p core::Container> {
    let found = pod.containers.get(name).copied();
    if found.is_none() {
        let message = format!("there is no container `{name}` in this pod");
        pod.scope.report.error(at.field("containerName"), message);
    }
    found
}

fn key_value(
    wanted: &Wanted<'_>,
    key: &str,
    variable: &str,
    pod: &PodScope<'_>,
) -> Option<EnvValue> {
    if key.is_empty() {
        pod.scope
            .report
            .error(wanted.at, "the reference must have a `key`");
        return None;
    }
    let data = find(wanted, pod)?;
    match data.values.get(key) {
        Some(bytes) => text(bytes, variable, wanted.at.field("key"), pod).map(EnvValue::Literal),
        None => {
            if !wanted.optional {
                let at = wanted.at.field("key");
                Index::report_missing_key(
                    pod.scope.report,
                    at,
                    wanted.kind,
                    wanted.name,
                    key,
                    data,
                );
            }
            None
        }
    }
}

fn find<'p>(wanted: &Wanted<'_>, pod: &PodScope<'p>) -> Option<&'p super::super::resolve::Data> {
    let (report, namespace) = (pod.scope.report, &pod.scope.key.namespace);
    if wanted.name.is_empty() {
        report.error(wanted.at, "the reference must have a `name`");
        return None;
    }
    match pod.scope.index.find(wanted.kind, namespace, wanted.name) {
        Found::Data(data) => Some(data),
        Found::Faulty => None,
        Found::Missing => {
            if !wanted.optional {
                let at = wanted.at.field("name");
                pod.scope
                    .index
                    .report_missing(report, at, wanted.kind, namespace, wanted.name);
            }
            None
        }
    }
}

fn text(bytes: &[u8], variable: &str, at: At<'_>, pod: &PodScope<'_>) -> Option<String> {
    let scope = pod.scope;
    if !scope.index.may_copy(bytes, at, scope.report) {
        return None;
    }
    let text = String::from_utf8(bytes.to_vec())
        .ok()
        .filter(|text| !text.contains('\0'));
    if text.is_none() {
        let message = format!("the value for `{variable}` is not text, so it cannot be a variable");
        pod.scope
            .report
            .error_hint(at, message, "mount it as a file");
    }
    text
}

fn check_name(name: &str, at: At<'_>, name_at: At<'_>, pod: &PodScope<'_>) {
    let report = pod.scope.report;
    if name.is_empty() {
        report.error(at, "a variable must have a `name`");
    } else if !is_variable_name(name) {
        let message = format!(
            "the variable name `{}` may have only printable ASCII characters without `=`",
            name.escape_debug()
        );
        report.error(name_at, message);
    }
}

/// What Kubernetes takes since it does not insist on C identifiers.
fn is_variable_name(name: &str) -> bool {
    name.bytes()
        .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}
