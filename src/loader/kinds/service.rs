//! Services: the API server's defaults and validation. Addresses and node ports that a manifest leaves open are
//! allocated when it is applied.

use std::collections::HashSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ClientIPConfig, Service, ServicePort, ServiceSpec, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::node::At;
use super::super::object;
use super::super::report::Report;
use super::pod::choice;
use super::ports;
use crate::model::names::{check_label, check_subdomain};

/// `clusterIP` of a Service without an address of its own.
const HEADLESS: &str = "None";

/// How a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

const TYPES: [(&str, Type); 4] = [
    ("ClusterIP", Type::ClusterIp),
    ("NodePort", Type::NodePort),
    ("LoadBalancer", Type::LoadBalancer),
    ("ExternalName", Type::ExternalName),
];

const PROTOCOLS: [(&str, ()); 3] = [("TCP", ()), ("UDP", ()), ("SCTP", ())];
const POLICIES: [(&str, ()); 2] = [("Cluster", ()), ("Local", ())];
const FAMILIES: [(&str, Family); 2] = [("IPv4", Family::V4), ("IPv6", Family::V6)];
const FAMILY_POLICIES: [(&str, Stack); 3] = [
    ("SingleStack", Stack::Single),
    ("PreferDualStack", Stack::Dual),
    ("RequireDualStack", Stack::Dual),
];
const DISTRIBUTIONS: [(&str, ()); 3] = [
    ("PreferClose", ()),
    ("PreferSameZone", ()),
    ("PreferSameNode", ()),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    Single,
    Dual,
}

/// Fills in what the API server fills in, and drops what it drops.
pub(super) fn apply_defaults(service: &mut Service) {
    service.status = None;
    let spec = service.spec.get_or_insert_default();
    default(&mut spec.type_, "ClusterIP");
    default(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_deref() {
        Some("ClientIP") => {
            let config = spec.session_affinity_config.get_or_insert_default();
            let client = config.client_ip.get_or_insert_default();
            client.timeout_seconds.get_or_insert(10_800);
        }
        Some("None") => spec.session_affinity_config = None,
        _ => {}
    }
    for port in spec.ports.iter_mut().flatten() {
        default(&mut port.protocol, "TCP");
        let open = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::String(name)) => name.is_empty(),
            Some(IntOrString::Int(_)) => false,
        };
        if open {
            port.target_port = Some(IntOrString::Int(port.port));
        }
        port.node_port = port.node_port.filter(|port| *port != 0);
    }
    if is_exposed(spec) {
        default(&mut spec.external_traffic_policy, "Cluster");
    }
    if spec.type_.as_deref() != Some("ExternalName") {
        default(&mut spec.internal_traffic_policy, "Cluster");
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    let given = |text: &mut Option<String>| text.take().filter(|text| !text.is_empty());
    spec.cluster_ip = given(&mut spec.cluster_ip);
    spec.external_traffic_policy = given(&mut spec.external_traffic_policy);
    spec.cluster_ips = spec.cluster_ips.take().filter(|ips| !ips.is_empty());
    spec.ip_families = spec.ip_families.take().filter(|all| !all.is_empty());
    if let (Some(ip), None) = (&spec.cluster_ip, &spec.cluster_ips) {
        spec.cluster_ips = Some(vec![ip.clone()]);
    }
}

fn default(field: &mut Option<String>, value: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(value.to_owned());
    }
}

/// Whether it is reached from outside the cluster.
fn is_exposed(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort" | "LoadBalancer") => true,
        Some("ClusterIP") => spec.external_ips.iter().flatten().next().is_some(),
        _ => false,
    }
}

/// Checks a Service with its defaults as the API server does (`ValidateService`).
pub(super) fn check(service: &Service, at: At<'_>, report: &Report) {
    let Some(spec) = &service.spec else { return };
    let at = at.key("spec");
    let text = spec.type_.as_deref().unwrap_or_default();
    let Some(r#type) = choice(text, &TYPES, "type", at.field("type"), report) else {
        return;
    };
    let headless = spec.cluster_ip.as_deref() == Some(HEADLESS);
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !headless && r#type != Type::ExternalName {
        let hint = "without a port it must have `clusterIP: None` or `type: ExternalName`";
        report.error_hint(at, "a Service must have at least one of `ports`", hint);
    }
    match r#type {
        Type::ExternalName => check_external_name(spec, at, report),
        Type::ClusterIp | Type::NodePort | Type::LoadBalancer => {
            if headless && r#type != Type::ClusterIp {
                let message = format!("`clusterIP` may not be `None` with `type: {text}`");
                report.error(at.field("clusterIP"), message);
            }
            check_addresses(spec, at, report);
        }
    }
    check_ports(ports, r#type, at.field("ports"), report);
    object::check_labels(at.field("selector"), report);
    check_affinity(spec, at, report);
    check_outside(spec, r#type, at, report);
}

fn check_external_name(spec: &ServiceSpec, at: At<'_>, report: &Report) {
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let at = at.field(field);
        let is_empty = at.node.and_then(|node| node.as_str()) == Some("");
        if at.exists() && !is_empty && !(field == "clusterIPs" && spec.cluster_ips.is_none()) {
            report.error(
                at,
                format!("`{field}` may not be set with `type: ExternalName`"),
            );
        }
    }
    let name = spec.external_name.as_deref().unwrap_or_default();
    // A dot at the end says that it is complete.
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        report.error(
            at.field("externalName"),
            "with `type: ExternalName` a Service must have an `externalName`",
        );
    } else if let Err(error) = check_subdomain(name) {
        report.error(at.field("externalName"), format!("`{name}` {error}"));
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`, by themselves and with each other.
fn check_addresses(spec: &ServiceSpec, at: At<'_>, report: &Report) {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let list = at.field("clusterIPs");
    match (&spec.cluster_ip, ips.first()) {
        (None, Some(_)) => report.error(
            list,
            "`clusterIPs` must be empty when there is no `clusterIP`",
        ),
        (Some(ip), Some(first)) if ip != first => {
            let message = format!("`clusterIPs` must begin with `clusterIP`, which is `{ip}`");
            report.error(list, message);
        }
        _ => {}
    }
    if ips.len() > 2 {
        report.error(list, "`clusterIPs` may have no more than 2 addresses");
    }
    let mut of_ips = Vec::new();
    for (index, ip) in ips.iter().enumerate() {
        // The only address may have been written as `clusterIP`.
        let place = match list.exists() {
            true => list.index(index),
            false => at.field("clusterIP"),
        };
        if ip == HEADLESS {
            if ips.len() > 1 {
                report.error(place, "`None` must be the only one of `clusterIPs`");
            }
            continue;
        }
        match ip.parse::<IpAddr>() {
            Ok(ip) => {
                if let Some(fault) = unusable(ip) {
                    report.error(place, format!("a Service's address may not be {fault}"));
                }
                of_ips.push((family(ip), place));
            }
            Err(_) => {
                let message = format!("`clusterIP` must be an IP address or `None`, is `{ip}`");
                report.error(place, message);
            }
        }
    }
    let families = check_families(spec, at, report);
    if let [(one, _), (other, place)] = of_ips.as_slice()
        && one == other
    {
        report.error(
            *place,
            "`clusterIPs` must be one IPv4 and one IPv6 address, when there are two",
        );
    }
    for ((of_ip, place), (family, name)) in of_ips.iter().zip(&families) {
        if of_ip != family {
            let message = format!("the address is not {name}, which `ipFamilies` says it is");
            report.error(*place, message);
        }
    }
    let policy = spec.ip_family_policy.as_deref().unwrap_or_default();
    let stack = match policy {
        "" if spec.selector.is_none() && spec.cluster_ip.as_deref() == Some(HEADLESS) => {
            Some(Stack::Dual)
        }
        "" => Some(Stack::Single),
        text => choice(
            text,
            &FAMILY_POLICIES,
            "ipFamilyPolicy",
            at.field("ipFamilyPolicy"),
            report,
        ),
    };
    if stack == Some(Stack::Single) && (ips.len() == 2 || families.len() == 2) {
        report.error(
            at.field("ipFamilyPolicy"),
            "`ipFamilyPolicy` must be `RequireDualStack` or `PreferDualStack` when there are several addresses or families",
        );
    }
}

fn check_families<'s>(
    spec: &'s ServiceSpec,
    at: At<'_>,
    report: &Report,
) -> Vec<(Family, &'s str)> {
    let at = at.field("ipFamilies");
    let mut families = Vec::new();
    for (index, name) in spec.ip_families.iter().flatten().enumerate() {
        let place = at.index(index);
        let Some(family) = choice(name, &FAMILIES, "ipFamilies", place, report) else {
            continue;
        };
        if families.iter().any(|(other, _)| *other == family) {
            report.error(place, format!("`{name}` is there twice"));
        } else {
            families.push((family, name.as_str()));
        }
    }
    families
}

fn family(ip: IpAddr) -> Family {
    match ip {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// What an address is that nobody can be reached by.
fn unusable(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        Some("the unspecified address")
    } else if ip.is_loopback() {
        Some("in the loopback range")
    } else if link_local {
        Some("in the link-local range")
    } else if ip.is_multicast() {
        Some("in the multicast range")
    } else {
        None
    }
}

/// Where node ports are.
const NODE_PORTS: std::ops::RangeInclusive<i32> = 30_000..=32_767;

fn check_ports(ports: &[ServicePort], r#type: Type, at: At<'_>, report: &Report) {
    let mut names = HashSet::new();
    let mut numbers = HashSet::new();
    let mut node_ports = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let place = at.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            if ports.len() > 1 {
                report.error(place, "each of several ports must have a `name`");
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
        check_number(port.port, "port", place, report);
        match &port.target_port {
            // It is the port, about which all is said.
            Some(IntOrString::Int(_)) if !place.field("targetPort").exists() => {}
            Some(IntOrString::Int(number)) => check_number(*number, "targetPort", place, report),
            Some(IntOrString::String(name)) => {
                ports::check_name(name, place.field("targetPort"), report);
            }
            None => {}
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        let at = place.field("protocol");
        choice(protocol, &PROTOCOLS, "protocol", at, report);
        if !numbers.insert((port.port, protocol)) {
            let message = format!("port {} ({protocol}) is there twice", port.port);
            report.error(place.field("port"), message);
        }
        if let Some(protocol) = port.app_protocol.as_deref()
            && let Err(reason) = object::check_qualified(protocol)
        {
            report.error(
                place.field("appProtocol"),
                format!("`appProtocol` {reason}"),
            );
        }
        let Some(node_port) = port.node_port else {
            continue;
        };
        let at = place.field("nodePort");
        if matches!(r#type, Type::ClusterIp | Type::ExternalName) {
            let message = "`nodePort` needs `type: NodePort` or `type: LoadBalancer`";
            report.error(at, message);
        } else if !NODE_PORTS.contains(&node_port) {
            let message = format!("`nodePort` must be between 30000 and 32767, is {node_port}");
            report.error(at, message);
        } else if !node_ports.insert((node_port, protocol)) {
            let message = format!("the node port {node_port} ({protocol}) is there twice");
            report.error(at, message);
        }
    }
}

fn check_number(number: i32, field: &str, at: At<'_>, report: &Report) {
    if !(1..=65535).contains(&number) {
        let message = format!("`{field}` must be between 1 and 65535, is {number}");
        report.error(at.field(field), message);
    }
}

/// A day.
const LONGEST_AFFINITY: i32 = 86_400;

fn check_affinity(spec: &ServiceSpec, at: At<'_>, report: &Report) {
    let affinity = spec.session_affinity.as_deref().unwrap_or_default();
    let values = [("ClientIP", ()), ("None", ())];
    let place = at.field("sessionAffinity");
    choice(affinity, &values, "sessionAffinity", place, report);
    let Some(SessionAffinityConfig {
        client_ip: Some(ClientIPConfig {
            timeout_seconds: Some(timeout),
        }),
    }) = spec.session_affinity_config
    else {
        return;
    };
    if !(1..=LONGEST_AFFINITY).contains(&timeout) {
        let place = at.path("sessionAffinityConfig.clientIP.timeoutSeconds");
        let message = format!("`timeoutSeconds` must be between 1 and 86400, is {timeout}");
        report.error(place, message);
    }
}

/// What concerns those who come from outside, and which pods traffic goes to.
fn check_outside(spec: &ServiceSpec, r#type: Type, at: At<'_>, report: &Report) {
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        let place = at.field("externalIPs").index(index);
        match ip.parse() {
            Ok(ip) => {
                if let Some(fault) = unusable(ip) {
                    report.error(place, format!("an external address may not be {fault}"));
                }
            }
            Err(_) => report.error(
                place,
                format!("`externalIPs` must be IP addresses, one is `{ip}`"),
            ),
        }
    }
    for (index, range) in spec
        .load_balancer_source_ranges
        .iter()
        .flatten()
        .enumerate()
    {
        // As the API server, which lets spaces stand around it.
        if !is_range(range.trim()) {
            let place = at.field("loadBalancerSourceRanges").index(index);
            let message = format!("`{range}` is no range of addresses such as `10.0.0.0/8`");
            report.error(place, message);
        }
    }
    let balanced = [
        "allocateLoadBalancerNodePorts",
        "loadBalancerClass",
        "loadBalancerSourceRanges",
    ];
    for field in balanced.map(|field| (field, at.field(field))) {
        if let (field, at) = field
            && r#type != Type::LoadBalancer
            && at.exists()
        {
            report.error(at, format!("`{field}` needs `type: LoadBalancer`"));
        }
    }
    let check = |value: &Option<String>, field: &str, values: &[(&str, ())]| {
        if let Some(value) = value {
            choice(value, values, field, at.field(field), report);
        }
    };
    if is_exposed(spec) {
        let policy = &spec.external_traffic_policy;
        check(policy, "externalTrafficPolicy", &POLICIES);
    } else if spec.external_traffic_policy.is_some() {
        report.error(
            at.field("externalTrafficPolicy"),
            "`externalTrafficPolicy` needs `type: NodePort` or `type: LoadBalancer`",
        );
    }
    let policy = &spec.internal_traffic_policy;
    check(policy, "internalTrafficPolicy", &POLICIES);
    let distribution = &spec.traffic_distribution;
    check(distribution, "trafficDistribution", &DISTRIBUTIONS);
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    match spec.health_check_node_port.unwrap_or(0) {
        0 => {}
        number if r#type == Type::LoadBalancer && local => {
            check_number(number, "healthCheckNodePort", at, report);
        }
        _ => report.error(
            at.field("healthCheckNodePort"),
            "`healthCheckNodePort` needs `type: LoadBalancer` and `externalTrafficPolicy: Local`",
        ),
    }
}

/// `10.0.0.0/8`, `fd00::/8`.
fn is_range(text: &str) -> bool {
    let Some((ip, length)) = text.split_once('/') else {
        return false;
    };
    let longest = match ip.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= longest)
}
