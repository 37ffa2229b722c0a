//! `resources` of a container: amounts that are accounted for, and the rules between them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::super::decode::closest;
use super::super::node::At;
use super::super::report::Report;
use crate::model::diagnostic::Diagnostic;
use crate::model::plan::{ResourceAmounts, Resources};
use crate::model::quantity::Quantity;

const KNOWN: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Reads requests and limits. Requests that are missing were taken from the limits already.
pub(super) fn convert(resources: &ResourceRequirements, at: At<'_>, report: &Report) -> Resources {
    let empty = BTreeMap::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    for (name, request) in requests {
        let limit = limits
            .get(name)
            .and_then(|limit| Quantity::parse(&limit.0).ok());
        let parsed = Quantity::parse(&request.0).ok();
        if let (Some(limit), Some(parsed), true) =
            (limit, parsed, at.field("requests").field(name).exists())
            && parsed > limit
        {
            let limit = &limits.get(name).map_or("", |limit| limit.0.as_str());
            let message = format!(
                "the request for {name} (`{}`) is more than its limit (`{limit}`)",
                request.0
            );
            report.error(at.field("requests").field(name), message);
        }
    }
    Resources {
        limits: amounts(limits, at.field("limits"), report),
        requests: amounts(requests, at.field("requests"), report),
    }
}

fn amounts(texts: &BTreeMap<String, Text>, at: At<'_>, report: &Report) -> ResourceAmounts {
    let mut amounts = ResourceAmounts::default();
    for (name, text) in texts {
        let place = at.field(name);
        let Ok(quantity) = Quantity::parse(&text.0) else {
            continue; // Was reported where it was read.
        };
        if quantity.is_negative() {
            report.error(
                place,
                format!("{name} must not be negative, is `{}`", text.0),
            );
            continue;
        }
        let bytes = u64::try_from(quantity.value()).ok();
        match name.as_str() {
            "cpu" => amounts.cpu_milli = u64::try_from(quantity.milli()).ok(),
            "memory" => amounts.memory = bytes,
            "ephemeral-storage" => amounts.ephemeral_storage = bytes,
            // A request that came from its limit has no place of its own and is told there.
            _ if !place.exists() => {}
            name if name.starts_with("hugepages-") || name.contains('/') => {
                report.note(
                    at.key(name),
                    format!(
                        "`{name}` is ignored: kplay accounts for cpu, memory and ephemeral-storage"
                    ),
                );
            }
            name => {
                let fault = Diagnostic::error(format!("there is no resource `{name}`"))
                    .at(at.key(name).place());
                report.push(match closest(name, &KNOWN) {
                    Some(known) => fault.hint(format!("did you mean `{known}`?")),
                    None => fault.hint("resources are `cpu`, `memory` and `ephemeral-storage`"),
                });
            }
        }
    }
    amounts
}
