//! `ports` of a container.

use std::collections::HashSet;

use k8s_openapi::api::core::v1 as core;

use super::super::node::At;
use super::super::report::Report;
use super::host::address;
use super::pod::choice;
use crate::model::plan::{ContainerPort, Protocol};

/// Reads the ports of one container.
pub(super) fn convert(
    ports: &[core::ContainerPort],
    host_network: bool,
    at: At<'_>,
    report: &Report,
) -> Vec<ContainerPort> {
    let mut names = HashSet::new();
    let mut published = HashSet::new();
    let mut converted = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let place = at.index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            check_name(name, place.field("name"), report);
            if !names.insert(name) {
                report.error(
                    place.field("name"),
                    format!("the port name `{name}` is used twice"),
                );
            }
        }
        let Some(one) = one(port, host_network, place, report) else {
            continue;
        };
        let key = (one.host_port, one.protocol, one.host_ip);
        if one.host_port.is_some() && !published.insert(key) {
            let place = place.field("hostPort");
            report.error(
                place,
                format!(
                    "port {} of the machine is published twice",
                    one.host_port.unwrap_or(0)
                ),
            );
        }
        converted.push(one);
    }
    converted
}

fn one(
    port: &core::ContainerPort,
    host_network: bool,
    at: At<'_>,
    report: &Report,
) -> Option<ContainerPort> {
    let container_port = number(port.container_port, "containerPort", at, report);
    // The API server reads 0 as "none".
    let written = port.host_port.filter(|_| at.field("hostPort").exists());
    let host_port = match written.or(container_port.and(port.host_port)).unwrap_or(0) {
        0 => None,
        port => Some(number(port, "hostPort", at, report)?),
    };
    let protocols = [
        ("TCP", Protocol::Tcp),
        ("UDP", Protocol::Udp),
        ("SCTP", Protocol::Sctp),
    ];
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let protocol = choice(
        protocol,
        &protocols,
        "protocol",
        at.field("protocol"),
        report,
    );
    let host_ip = match port.host_ip.as_deref().filter(|ip| !ip.is_empty()) {
        Some(ip) => Some(address(ip, "`hostIP`", at.field("hostIP"), report)?),
        None => None,
    };
    let container_port = container_port?;
    if host_network && host_port.is_some_and(|port| port != container_port) {
        let message = "with `hostNetwork` a `hostPort` must be the same as its `containerPort`";
        report.error(at.field("hostPort"), message);
    }
    if !host_network && host_port.is_some() && protocol == Some(Protocol::Sctp) {
        let message = "`hostPort` is for TCP and UDP only: SCTP is not published";
        report.error(at.field("hostPort"), message);
    }
    Some(ContainerPort {
        name: port.name.clone().filter(|name| !name.is_empty()),
        container_port,
        host_port,
        host_ip,
        protocol: protocol?,
    })
}

fn number(value: i32, field: &str, at: At<'_>, report: &Report) -> Option<u16> {
    let number = u16::try_from(value).ok().filter(|port| *port != 0);
    if number.is_none() {
        let place = if at.field(field).exists() {
            at.field(field)
        } else {
            at
        };
        let message = if at.field(field).exists() {
            format!("`{field}` must be between 1 and 65535, is {value}")
        } else {
            format!("`{field}` is missing")
        };
        report.error(place, message);
    }
    number
}

/// IANA service names: at most 15 of `[a-z0-9-]`, at least one letter, no `-` at the ends or twice.
pub(super) fn check_name(name: &str, at: At<'_>, report: &Report) {
    let bytes = name.as_bytes();
    let valid = bytes.len() <= 15
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes.iter().any(u8::is_ascii_lowercase)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if !valid {
        let message = format!(
            "the port name `{name}` must be at most 15 lower case letters, digits or `-`, with a letter"
        );
        report.error(at, message);
    }
}

/// As a manifest has it.
pub(super) fn to_json(port: &ContainerPort) -> serde_json::Value {
    let protocol = match port.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    let port = core::ContainerPort {
        container_port: port.container_port.into(),
        host_ip: port.host_ip.map(|ip| ip.to_string()),
        host_port: port.host_port.map(i32::from),
        name: port.name.clone(),
        protocol: Some(protocol.to_owned()),
    };
    // Numbers and texts always have a JSON form.
    serde_json::to_value(port).unwrap_or_default()
}
