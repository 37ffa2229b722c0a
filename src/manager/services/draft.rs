//! A Service's addresses and node ports before what is missing is allocated: what the manifest says, and what was
//! recorded of what it leaves open.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Fault, Wanted};
use crate::model::plan::Protocol;

/// `clusterIP` of a Service without an address of its own.
const HEADLESS: &str = "None";
const V4: &str = "IPv4";
pub(super) const V6: &str = "IPv6";
const SINGLE: &str = "SingleStack";
const DUAL: &str = "RequireDualStack";

/// What is chosen of a Service.
#[derive(Debug)]
pub(super) struct Draft {
    /// `clusterIPs`; without those that are still to be allocated.
    pub(super) ips: Vec<String>,
    /// `ipFamilies`; none of an ExternalName.
    pub(super) families: Vec<String>,
    policy: String,
    pub(super) ports: Vec<DraftPort>,
    /// Whether all ports get a node port.
    pub(super) allocates_ports: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct DraftPort {
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) node_port: Option<u16>,
}

impl Draft {
    /// What the manifest says, and what was recorded of what it leaves open.
    pub(super) fn new(wanted: &Wanted<'_>) -> Result<Self, Fault> {
        let nothing = Value::Null;
        let spec = wanted.manifest.get("spec").unwrap_or(&nothing);
        let recorded = wanted.recorded.as_ref();
        let before = recorded
            .and_then(|manifest| manifest.get("spec"))
            .filter(|before| text(before, "type") != "ExternalName")
            .unwrap_or(&nothing);
        let r#type = text(spec, "type");
        let mut draft = Self {
            ips: Vec::new(),
            families: Vec::new(),
            policy: String::new(),
            ports: ports(spec),
            allocates_ports: r#type == "NodePort"
                || r#type == "LoadBalancer"
                    && spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        };
        if r#type != "ExternalName" {
            draft.choose_families(spec, before)?;
        }
        let has_node_ports = |spec| matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
        if has_node_ports(spec) && has_node_ports(before) {
            draft.keep_node_ports(spec, before);
        }
        Ok(draft)
    }

    /// Whether it has no address of its own.
    pub(super) fn is_headless(&self) -> bool {
        self.ips.first().is_some_and(|ip| ip == HEADLESS)
    }

    fn choose_families(&mut self, spec: &Value, before: &Value) -> Result<(), Fault> {
        let old_ips = cluster_ips(before);
        self.ips = cluster_ips(spec);
        if self.ips.is_empty() || old_ips.starts_with(&self.ips) {
            self.ips.clone_from(&old_ips);
        }
        unchanged("clusterIPs", &self.ips, &old_ips)?;
        let selects = spec.get("selector").is_some();
        let policy = [text(spec, "ipFamilyPolicy"), text(before, "ipFamilyPolicy")];
        let policy = policy.into_iter().find(|policy| !policy.is_empty());
        let policy = policy.unwrap_or(if self.is_headless() && !selects {
            DUAL
        } else {
            SINGLE
        });
        policy.clone_into(&mut self.policy);
        let old_families = texts(before, "ipFamilies");
        self.families = texts(spec, "ipFamilies");
        if self.families.is_empty() {
            self.families.clone_from(&old_families);
        }
        // The one that is added or taken away is the second one.
        unchanged("ipFamilies", &self.families, &old_families)?;
        let of_ips = self
            .ips
            .iter()
            .filter_map(|ip| Some(family(ip.parse().ok()?)));
        let missing = of_ips.skip(self.families.len()).map(str::to_owned);
        let missing: Vec<String> = missing.collect();
        self.families.extend(missing);
        if self.families.is_empty() {
            self.families.push(V4.to_owned());
        }
        if self.policy == SINGLE {
            self.ips.truncate(1);
            self.families.truncate(1);
        } else if let [only] = self.families.as_slice() {
            let other = if only == V4 { V6 } else { V4 };
            self.families.push(other.to_owned());
        }
        Ok(())
    }

    /// As the API server: by the port's name, unless the manifest gives the number to another port.
    fn keep_node_ports(&mut self, spec: &Value, before: &Value) {
        let list = |spec: &Value| -> Vec<Value> {
            let ports = spec.get("ports").and_then(Value::as_array);
            ports.cloned().unwrap_or_default()
        };
        let node_port = |port: &Value| port.get("nodePort").and_then(Value::as_u64);
        let node_port = |port: &Value| node_port(port).and_then(|port| u16::try_from(port).ok());
        let (now, before) = (list(spec), list(before));
        let old: HashMap<&str, u16> = before
            .iter()
            .filter_map(|port| Some((text(port, "name"), node_port(port)?)))
            .collect();
        let mut used: BTreeSet<u16> = now.iter().filter_map(node_port).collect();
        for (port, draft) in now.iter().zip(&mut self.ports) {
            if draft.node_port.is_none()
                && let Some(number) = old.get(text(port, "name"))
                && used.insert(*number)
            {
                draft.node_port = Some(*number);
            }
        }
    }

    pub(super) fn into_manifest(self, manifest: &Value) -> Value {
        let mut manifest = manifest.clone();
        let Some(spec) = manifest.get_mut("spec").and_then(Value::as_object_mut) else {
            return manifest;
        };
        let mut put = |name: &str, value: Value| drop(spec.insert(name.to_owned(), value));
        if let Some(first) = self.ips.first() {
            put("clusterIP", json!(first));
            put("clusterIPs", json!(self.ips));
        }
        if !self.families.is_empty() {
            put("ipFamilies", json!(self.families));
            put("ipFamilyPolicy", json!(self.policy));
        }
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        let ports = ports.into_iter().flatten();
        for (port, draft) in ports.filter_map(Value::as_object_mut).zip(self.ports) {
            if let Some(number) = draft.node_port {
                port.insert("nodePort".to_owned(), json!(number));
            }
        }
        manifest
    }
}

/// That what is there stays there.
fn unchanged(field: &'static str, now: &[String], before: &[String]) -> Result<(), Fault> {
    match now
        .iter()
        .zip(before)
        .position(|(now, before)| now != before)
    {
        None => Ok(()),
        Some(index) => Err(Fault::Fixed {
            field,
            index,
            value: now.to_vec(),
        }),
    }
}

pub(super) fn ports(spec: &Value) -> Vec<DraftPort> {
    let ports = spec.get("ports").and_then(Value::as_array);
    let number = |port: &Value, name: &str| port.get(name)?.as_u64()?.try_into().ok();
    let ports = ports.into_iter().flatten().map(|port| DraftPort {
        port: number(port, "port").unwrap_or_default(),
        protocol: match text(port, "protocol") {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
        node_port: number(port, "nodePort"),
    });
    ports.collect()
}

fn cluster_ips(spec: &Value) -> Vec<String> {
    let all = texts(spec, "clusterIPs");
    match text(spec, "clusterIP") {
        "" => all,
        only if all.is_empty() => vec![only.to_owned()],
        _ => all,
    }
}

pub(super) fn family(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => V4,
        IpAddr::V6(_) => V6,
    }
}

pub(super) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    let text = value.get(name).and_then(Value::as_str);
    text.unwrap_or_default()
}

pub(super) fn texts(value: &Value, name: &str) -> Vec<String> {
    let texts = value.get(name).and_then(Value::as_array);
    let texts = texts.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}
