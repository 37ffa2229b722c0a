//! Services: what pods learn from them.

use std::collections::HashSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use super::super::node::At;
use super::super::report::Report;
use crate::model::names::check_label;

/// Checks address and ports as the API server does.
pub(super) fn check(service: &Service, at: At<'_>, report: &Report) {
    let (spec, at) = (service.spec.clone().unwrap_or_default(), at.key("spec"));
    let external = spec.type_.as_deref() == Some("ExternalName");
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    if !ip.is_empty() && ip != "None" && ip.parse::<IpAddr>().is_err() {
        let message = format!("`clusterIP` must be an IP address or `None`, is `{ip}`");
        report.error(at.field("clusterIP"), message);
    }
    let ports = spec.ports.unwrap_or_default();
    if ports.is_empty() && ip != "None" && !external {
        let hint = "without a port it must have `clusterIP: None` or `type: ExternalName`";
        report.error_hint(at, "a Service must have at least one of `ports`", hint);
    }
    let mut names = HashSet::new();
    let mut numbers = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let place = at.field("ports").index(index);
        if !(1..=65535).contains(&port.port) {
            let message = format!("`port` must be between 1 and 65535, is {}", port.port);
            report.error(place.field("port"), message);
        }
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            if ports.len() > 1 {
                let message = "each of several ports must have a `name`";
                report.error(place, message);
            }
        } else if let Err(error) = check_label(name) {
            report.error(
                place.field("name"),
                format!("the port name `{name}` {error}"),
            );
        } else if !names.insert(name) {
            report.error(
                place.field("name"),
                format!("the port name `{name}` is already used"),
            );
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            let message =
                format!("`protocol` must be one of `TCP`, `UDP`, `SCTP`, is `{protocol}`");
            report.error(place.field("protocol"), message);
        }
        if !numbers.insert((port.port, protocol)) {
            let message = format!("port {} ({protocol}) is there twice", port.port);
            report.error(place.field("port"), message);
        }
    }
}
