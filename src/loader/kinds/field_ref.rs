//! `fieldRef` and `resourceFieldRef`.

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, ResourceFieldSelector};

use super::super::decode::closest;
use super::super::node::At;
use super::super::object::check_qualified;
use super::super::report::Report;
use crate::model::diagnostic::Diagnostic;
use crate::model::plan::{FieldRef, ResourceField};
use crate::model::quantity::Quantity;

/// Where a field is used: variables and files know different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Variable,
    File,
}

const VARIABLE_FIELDS: [(&str, FieldRef); 9] = [
    ("metadata.name", FieldRef::Name),
    ("metadata.namespace", FieldRef::Namespace),
    ("metadata.uid", FieldRef::Uid),
    ("spec.nodeName", FieldRef::NodeName),
    ("spec.serviceAccountName", FieldRef::ServiceAccountName),
    ("status.hostIP", FieldRef::HostIp),
    ("status.hostIPs", FieldRef::HostIps),
    ("status.podIP", FieldRef::PodIp),
    ("status.podIPs", FieldRef::PodIps),
];

const FILE_FIELDS: [(&str, FieldRef); 5] = [
    ("metadata.name", FieldRef::Name),
    ("metadata.namespace", FieldRef::Namespace),
    ("metadata.uid", FieldRef::Uid),
    ("metadata.labels", FieldRef::Labels),
    ("metadata.annotations", FieldRef::Annotations),
];

/// Reads a `fieldRef`.
pub(super) fn field(
    selector: &ObjectFieldSelector,
    usage: Use,
    at: At<'_>,
    report: &Report,
) -> Option<FieldRef> {
    let path = selector.field_path.as_str();
    let place = at.field("fieldPath");
    if selector
        .api_version
        .as_deref()
        .is_some_and(|version| version != "v1")
    {
        report.error(
            at.field("apiVersion"),
            "`apiVersion` of a `fieldRef` must be `v1`",
        );
    }
    if path.is_empty() {
        report.error(at, "a `fieldRef` must have a `fieldPath`");
        return None;
    }
    if let Some((map, rest)) = path.split_once("['") {
        return entry(path, map, rest, place, report);
    }
    let fields: &[(&str, FieldRef)] = match usage {
        Use::Variable => &VARIABLE_FIELDS,
        Use::File => &FILE_FIELDS,
    };
    if let Some((_, field)) = fields.iter().find(|(name, _)| *name == path) {
        return Some(field.clone());
    }
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let what = match usage {
        Use::Variable => "a variable",
        Use::File => "a file",
    };
    let fault = Diagnostic::error(format!("the field `{path}` cannot be the value of {what}"))
        .at(place.place());
    report.push(match closest(path, &names) {
        Some(close) => fault.hint(format!("did you mean `{close}`?")),
        None => fault.hint(format!("fields are {}", names.join(", "))),
    });
    None
}

/// One label or annotation: `metadata.labels['key']`.
fn entry(path: &str, map: &str, rest: &str, place: At<'_>, report: &Report) -> Option<FieldRef> {
    let Some(key) = rest.strip_suffix("']") else {
        report.error(place, format!("`{path}` has no closing `']`"));
        return None;
    };
    let (of, checked) = match map {
        "metadata.labels" => (FieldRef::Label(key.to_owned()), check_qualified(key)),
        "metadata.annotations" => (
            FieldRef::Annotation(key.to_owned()),
            check_qualified(&key.to_lowercase()),
        ),
        _ => {
            report.error(
                place,
                format!("`{map}` has no keys; `metadata.labels` and `metadata.annotations` have"),
            );
            return None;
        }
    };
    if let Err(reason) = checked {
        report.error(place, format!("the key `{key}` {reason}"));
    }
    Some(of)
}

/// What a `resourceFieldRef` asks for.
#[derive(Debug)]
pub(super) enum Amount {
    /// The field and the divisor in milli-units: the machine or a resize may have a say in it.
    Field(ResourceField, u64),
    /// What the manifest says: huge pages, whose default is none.
    Fixed(String),
}

const RESOURCE_FIELDS: [(&str, ResourceField); 6] = [
    ("limits.cpu", ResourceField::LimitsCpu),
    ("limits.memory", ResourceField::LimitsMemory),
    (
        "limits.ephemeral-storage",
        ResourceField::LimitsEphemeralStorage,
    ),
    ("requests.cpu", ResourceField::RequestsCpu),
    ("requests.memory", ResourceField::RequestsMemory),
    (
        "requests.ephemeral-storage",
        ResourceField::RequestsEphemeralStorage,
    ),
];

/// Reads a `resourceFieldRef` to this container.
pub(super) fn resource(
    selector: &ResourceFieldSelector,
    container: &Container,
    at: At<'_>,
    report: &Report,
) -> Option<Amount> {
    let place = at.field("resource");
    let name = selector.resource.as_str();
    let divisor = divisor(selector, at, report);
    if let Some((_, field)) = RESOURCE_FIELDS.iter().find(|(known, _)| *known == name) {
        return Some(Amount::Field(*field, divisor?));
    }
    if let Some((list, resource)) = name.split_once(".hugepages-")
        && !resource.is_empty()
        && matches!(list, "limits" | "requests")
    {
        let resources = container.resources.as_ref();
        let list = match list {
            "limits" => resources.and_then(|resources| resources.limits.as_ref()),
            _ => resources.and_then(|resources| resources.requests.as_ref()),
        };
        let amount = list.and_then(|list| list.get(&format!("hugepages-{resource}")));
        let milli = amount
            .and_then(|amount| Quantity::parse(&amount.0).ok())
            .and_then(|amount| u128::try_from(amount.milli()).ok())
            .unwrap_or(0);
        return Some(Amount::Fixed(milli.div_ceil(divisor?.into()).to_string()));
    }
    let names = RESOURCE_FIELDS.map(|(name, _)| name);
    let fault = Diagnostic::error(format!("there is no resource field `{name}`")).at(place.place());
    report.push(match closest(name, &names) {
        Some(close) => fault.hint(format!("did you mean `{close}`?")),
        None => fault.hint(format!(
            "fields are {}, and the like for `hugepages-2Mi`",
            names.join(", ")
        )),
    });
    None
}

/// The API server takes only these, so that the result is a sensible number.
fn divisor(selector: &ResourceFieldSelector, at: At<'_>, report: &Report) -> Option<u64> {
    let text = selector
        .divisor
        .as_ref()
        .map_or("1", |divisor| divisor.0.as_str());
    let milli = Quantity::parse(text).ok()?.milli();
    if milli == 0 {
        return Some(1000);
    }
    let allowed: &[&str] = if selector.resource.ends_with(".cpu") {
        &["1m", "1"]
    } else {
        &[
            "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
        ]
    };
    let valid = allowed
        .iter()
        .any(|one| Quantity::parse(one).is_ok_and(|one| one.milli() == milli));
    // 1E and 1Ei in milli-units are beyond u64, and so is this quotient for any machine: it is 1 in either case.
    let divisor = valid.then(|| u64::try_from(milli).unwrap_or(u64::MAX));
    if divisor.is_none() {
        let message = format!("the divisor `{text}` must be one of {}", allowed.join(", "));
        report.error(at.field("divisor"), message);
    }
    divisor
}
