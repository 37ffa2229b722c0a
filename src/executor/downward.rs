//! The downward API: what a pod can learn about itself (`fieldpath/fieldpath.go`, `api/v1/resource/helpers.go`).

use std::collections::BTreeMap;

use super::context::Context;
use crate::model::names::ContainerName;
use crate::model::plan::{ContainerPlan, EnvValue, FieldRef, FileContent, ResourceField};
use crate::spec::resources;

/// The bytes of a volume's file.
pub(super) fn file<R>(context: &Context<R>, content: &FileContent) -> Vec<u8> {
    match content {
        FileContent::Bytes(bytes) => bytes.clone(),
        FileContent::Field(field) => self::field(context, field).into_bytes(),
        FileContent::Resource {
            container,
            resource,
            divisor_milli,
        } => resource_of(context, container, *resource, *divisor_milli).into_bytes(),
    }
}

/// The value of a variable that is not text.
pub(super) fn variable<R>(
    context: &Context<R>,
    container: &ContainerPlan,
    value: &EnvValue,
) -> String {
    match value {
        EnvValue::Template(text) | EnvValue::Literal(text) => text.clone(),
        EnvValue::Field(field) => self::field(context, field),
        EnvValue::Resource {
            container: other,
            resource,
            divisor_milli,
        } => {
            let name = other.as_ref().unwrap_or(&container.name);
            resource_of(context, name, *resource, *divisor_milli)
        }
    }
}

fn field<R>(context: &Context<R>, field: &FieldRef) -> String {
    let launch = context.current();
    let plan = &launch.plan;
    let host_ip = || {
        context
            .facts
            .host_ip
            .map_or_else(String::new, |ip| ip.to_string())
    };
    // The pod is reachable where its ports are forwarded to.
    let pod_ip = || {
        if plan.host_network {
            host_ip()
        } else {
            "127.0.0.1".to_owned()
        }
    };
    let find =
        |map: &BTreeMap<String, String>, key: &str| map.get(key).cloned().unwrap_or_default();
    match field {
        FieldRef::Name => plan.name.to_string(),
        FieldRef::Namespace => plan.namespace.to_string(),
        FieldRef::Uid => context.launch.uid.clone(),
        FieldRef::Labels => lines(&plan.labels),
        FieldRef::Label(key) => find(&plan.labels, key),
        FieldRef::Annotations => lines(&plan.annotations),
        FieldRef::Annotation(key) => find(&plan.annotations, key),
        FieldRef::NodeName => context.launch.node_name.clone(),
        FieldRef::ServiceAccountName => plan.service_account.clone(),
        FieldRef::HostIp | FieldRef::HostIps => host_ip(),
        FieldRef::PodIp | FieldRef::PodIps => pod_ip(),
    }
}

/// `key="value"` lines, sorted, without an end of line (`FormatMap`).
fn lines(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}={}", go_quoted(value)))
        .collect();
    lines.join("\n")
}

/// Go's `%q`.
fn go_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\u{b}' => quoted.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                quoted.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A limit that is not set is what the machine has.
fn resource_of<R>(
    context: &Context<R>,
    container: &ContainerName,
    resource: ResourceField,
    divisor_milli: u64,
) -> String {
    let launch = context.current();
    let plan = &launch.plan;
    let found = plan.all_containers().find(|c| c.name == *container);
    let resources = found
        .map(|container| container.resources)
        .unwrap_or_default();
    let bytes = |amount: Option<u64>, default: u64| u128::from(amount.unwrap_or(default)) * 1000;
    let facts = &context.facts;
    let amount_milli = match resource {
        ResourceField::LimitsCpu => {
            u128::from(resources.limits.cpu_milli.unwrap_or(facts.cpus * 1000))
        }
        ResourceField::LimitsMemory => bytes(resources.limits.memory, facts.memory),
        ResourceField::LimitsEphemeralStorage => bytes(resources.limits.ephemeral_storage, 0),
        ResourceField::RequestsCpu => u128::from(resources.requests.cpu_milli.unwrap_or_default()),
        ResourceField::RequestsMemory => bytes(resources.requests.memory, 0),
        ResourceField::RequestsEphemeralStorage => bytes(resources.requests.ephemeral_storage, 0),
    };
    resources::field_value(amount_milli, divisor_milli).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_lines_of_quoted_values() {
        let map = BTreeMap::from([
            ("b".to_owned(), "x \"y\"\n".to_owned()),
            ("a".to_owned(), "ä\\".to_owned()),
        ]);
        assert_eq!(lines(&map), "a=\"ä\\\\\"\nb=\"x \\\"y\\\"\\n\"");
        assert_eq!(lines(&BTreeMap::new()), "");
    }
}
