//! `envFrom` and `env` of a container.

use k8s_openapi::api::core::v1 as core;

use super::super::node::At;
use super::super::resolve::{Found, Index, Kind};
use super::field_ref::{self, Use};
use super::pod::PodScope;
use crate::model::names::ContainerName;
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
        if let Some(value) = value(variable, place, pod) {
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
    let Some(data) = find(&wanted, pod) else {
        return;
    };
    let prefix = source.prefix.as_deref().unwrap_or_default();
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

fn value(variable: &core::EnvVar, at: At<'_>, pod: &PodScope<'_>) -> Option<EnvValue> {
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
    referred(variable, source, at.key("valueFrom"), pod)
}

fn referred(
    variable: &core::EnvVar,
    source: &core::EnvVarSource,
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
    // A `fileKeyRef` is refused by the table of unsupported fields.
    let selector = source.resource_field_ref.as_ref()?;
    let at = at.key("resourceFieldRef");
    let (resource, divisor_milli) = field_ref::resource(selector, at, report)?;
    let name = selector
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty());
    let container = match name {
        Some(name) => Some(container_name(name, at, pod)?),
        None => None,
    };
    Some(EnvValue::Resource {
        container,
        resource,
        divisor_milli,
    })
}

/// A container of this pod.
pub(super) fn container_name(name: &str, at: At<'_>, pod: &PodScope<'_>) -> Option<ContainerName> {
    if !pod.containers.contains(name) {
        let message = format!("there is no container `{name}` in this pod");
        pod.scope.report.error(at.field("containerName"), message);
        return None;
    }
    ContainerName::parse(name).ok()
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
    } else if !name
        .bytes()
        .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
    {
        let message = format!(
            "the variable name `{}` may have only printable ASCII characters without `=`",
            name.escape_debug()
        );
        report.error(name_at, message);
    }
}
