//! What several Services of a run want and only one can have.

use std::collections::HashMap;
use std::net::IpAddr;

use super::super::node::{At, Value};
use super::super::object::Kind;
use super::super::report::Report;
use super::Read;
use crate::model::names::ObjectKey;

/// Tells of addresses and node ports that two Services are given.
pub(super) fn check(read: &[Read<'_>], report: &Report) {
    let mut addresses: HashMap<IpAddr, &ObjectKey> = HashMap::new();
    let mut node_ports: HashMap<i128, &ObjectKey> = HashMap::new();
    let services = read
        .iter()
        .filter(|object| object.kind == Some(Kind::Service));
    for object in services {
        let (key, spec) = (&object.metadata.key, object.raw.at.field("spec"));
        for at in cluster_ips(spec) {
            let ip = at.node.and_then(|node| node.as_str()?.parse().ok());
            if let Some(ip) = ip {
                let holder = addresses.entry(ip).or_insert(key);
                tell(holder, key, &format!("the address {ip}"), at, report);
            }
        }
        for at in spec
            .field("ports")
            .items()
            .map(|port| port.field("nodePort"))
        {
            if let Some(Value::Int(number @ 1..)) = at.node.map(|node| &node.value) {
                let holder = node_ports.entry(*number).or_insert(key);
                tell(holder, key, &format!("the node port {number}"), at, report);
            }
        }
    }
}

fn tell(holder: &ObjectKey, key: &ObjectKey, what: &str, at: At<'_>, report: &Report) {
    if holder != key {
        let message = format!(
            "{what} is that of `{holder}` in namespace `{}`",
            holder.namespace
        );
        report.error(at, message);
    }
}

/// `clusterIPs`, which begin with `clusterIP`, or that alone.
fn cluster_ips(spec: At<'_>) -> Vec<At<'_>> {
    let all: Vec<At<'_>> = spec.field("clusterIPs").items().collect();
    match all.is_empty() {
        true => vec![spec.field("clusterIP")],
        false => all,
    }
}
