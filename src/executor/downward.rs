//! The downward API: what a pod can learn about itself (`fieldpath/fieldpath.go`, `api/v1/resource/helpers.go`).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use super::context::Context;
use super::error::StartFailure;
use crate::model::names::{ContainerName, Namespace};
use crate::model::plan::{ContainerPlan, EnvValue, FieldRef, FileContent, ResourceField};
use crate::protocol::Launch;
use crate::spec::{env_file, resources, service_links};
use crate::state::object;
use crate::sys::fs;

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

/// The value of a variable that is not text; `None` leaves it unset.
pub(super) fn variable<R>(
    context: &Context<R>,
    container: &ContainerPlan,
    value: &EnvValue,
) -> Result<Option<String>, StartFailure> {
    Ok(Some(match value {
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
        EnvValue::File {
            volume,
            path,
            key,
            optional,
        } => {
            let volume = context.volumes.borrow().get(volume).cloned();
            return match of_file(&volume.unwrap_or_default(), path, key) {
                Ok(value) => Ok(Some(value)),
                Err(NoValue::NotThere(_)) if *optional => Ok(None),
                Err(NoValue::NotThere(why) | NoValue::Faulty(why)) => {
                    Err(StartFailure::Config(why))
                }
            };
        }
    }))
}

/// Why a file has no value for a variable, in a kubelet's words.
enum NoValue {
    /// The file or the key is missing, as it may be if it is optional. (The API says so; a kubelet of today demands the
    /// file even then.)
    NotThere(String),
    Faulty(String),
}

fn of_file(volume: &Path, path: &Path, key: &str) -> Result<String, NoValue> {
    let faulty =
        |why: &dyn std::fmt::Display| format!("couldn't parse env file: {}: {why}", path.display());
    // No link leads out of the volume.
    let bytes =
        fs::read_in_root(volume, path, env_file::LARGEST).map_err(|error| match error.kind() {
            ErrorKind::NotFound => NoValue::NotThere(faulty(&"no such file")),
            _ => NoValue::Faulty(faulty(&error)),
        })?;
    let text = String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| NoValue::Faulty(faulty(&"it is not text")))?;
    let value = env_file::value(&text, key).map_err(|fault| NoValue::Faulty(faulty(&fault)))?;
    value.ok_or_else(|| {
        let file = volume.join(path);
        NoValue::NotThere(format!(
            "environment variable key {key:?} not found in file {file:?}"
        ))
    })
}

/// The variables of the Services that there are at this moment.
pub(super) fn services<R>(context: &Context<R>) -> Result<Vec<(String, String)>, StartFailure> {
    let Launch { objects, plan, .. } = &*context.launch;
    let master = Namespace::default();
    let mut services = object::services(objects, &plan.namespace)?;
    if plan.namespace != master {
        services.extend(object::services(objects, &master)?);
    }
    Ok(service_links::variables(
        &services,
        &plan.namespace,
        plan.service_links,
    ))
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
    let pod_ips = || context.pod_ips().into_iter().map(|ip| ip.to_string());
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
        FieldRef::PodIp => pod_ips().next().unwrap_or_default(),
        FieldRef::PodIps => pod_ips().collect::<Vec<_>>().join(","),
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
            c if is_printable(c) => quoted.push(c),
            c if (c as u32) < 0x10000 => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether Go takes a character for a printable one (`unicode.IsPrint`), by Rust's table, which is about the same: what
/// is not printable is escaped. Alone, what goes with the character before it would be, too.
fn is_printable(c: char) -> bool {
    c.is_ascii() || String::from_iter(['a', c]).escape_debug().nth(2).is_none()
}

/// A limit that is not set is the pod's as a whole, or else what the machine has.
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
    let facts = &context.facts;
    let (limits, requests) = (resources.limits, resources.requests);
    let pods = plan.resources.unwrap_or_default().limits;
    // A limit of nothing is no limit.
    let first = |amounts: [Option<u64>; 2], machine: u64| {
        let mut amounts = amounts.into_iter().flatten();
        amounts.find(|amount| *amount > 0).unwrap_or(machine)
    };
    let (amount, unit) = match resource {
        ResourceField::LimitsCpu => {
            let cpu = [limits.cpu_milli, pods.cpu_milli];
            (first(cpu, facts.cpus * 1000), 1)
        }
        ResourceField::LimitsMemory => (first([limits.memory, pods.memory], facts.memory), 1000),
        ResourceField::LimitsEphemeralStorage => {
            (first([limits.ephemeral_storage, None], facts.storage), 1000)
        }
        ResourceField::RequestsCpu => (requests.cpu_milli.unwrap_or(0), 1),
        ResourceField::RequestsMemory => (requests.memory.unwrap_or(0), 1000),
        ResourceField::RequestsEphemeralStorage => (requests.ephemeral_storage.unwrap_or(0), 1000),
    };
    let amount_milli = u128::from(amount) * unit;
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

    #[test]
    fn quotes_are_gos() {
        let check = |text: &str, expected: &str| {
            assert_eq!(go_quoted(text), format!("\"{expected}\""), "{text:?}");
        };
        check("it's ~ 1 = 1", "it's ~ 1 = 1");
        check("\t\r\u{7}\u{8}\u{b}\u{c}", "\\t\\r\\a\\b\\v\\f");
        check("\0\u{1b}\u{7f}\u{85}", "\\x00\\x1b\\x7f\\u0085");
        // Spaces but the usual one, and what has no shape.
        check(
            "\u{a0}\u{200b}\u{feff}\u{e0001}",
            "\\u00a0\\u200b\\ufeff\\U000e0001",
        );
        // Letters, accents of their own, other signs.
        check("ä e\u{301} 語 \u{1f600}", "ä e\u{301} 語 \u{1f600}");
    }
}
