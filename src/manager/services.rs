//! Addresses and node ports of Services: chosen when they are applied, kept as long as they are recorded.
//!
//! The records of the Services are the only truth, so deleting one frees what it had. Whoever chooses holds one lock
//! ([`ServicesLock`]) from reading the records until its own are written. What the manifest leaves open stays as it
//! was recorded; where a new address is looked for depends on the Service's name, so that one that has become free is
//! hardly ever given to another Service while pods may still have it in their variables.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use serde_json::{Value, json};

use super::Manager;
use super::apply::{AppliedObject, ApplyInput};
use super::error::Error;
use crate::model::names::ObjectKey;
use crate::model::plan::Protocol;
use crate::model::service::{Service, ServiceAddress};
use crate::state::lock::ServicesLock;
use crate::state::object;

/// From where addresses are allocated.
#[derive(Clone, Copy, Debug)]
pub struct Ranges {
    pub v4: Range,
    pub v6: Range,
}

impl Default for Ranges {
    fn default() -> Self {
        Self {
            v4: Range::new(Ipv4Addr::new(10, 96, 0, 0), 16),
            v6: Range::new(Ipv6Addr::new(0xfd96, 0x6b70, 0x6c61, 0, 0, 0, 0, 0), 112),
        }
    }
}

/// A network: `10.96.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    network: IpAddr,
    prefix: u8,
}

impl Range {
    /// The network of this address.
    pub fn new(network: impl Into<IpAddr>, prefix: u8) -> Self {
        let network = network.into();
        Self { network, prefix }
    }

    /// How many addresses it has; of more than that nobody needs the rest.
    fn len(self) -> u32 {
        let bits = match self.network {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128_u32,
        };
        1 << bits.saturating_sub(self.prefix.into()).min(20)
    }

    fn nth(self, index: u32) -> IpAddr {
        match self.network {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + index).into(),
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + u128::from(index)).into(),
        }
    }

    /// All but the first and the last, which mean the network: first those behind the part that people choose from,
    /// beginning somewhere (as an API server does); then that part.
    fn candidates(self, start: u64) -> impl Iterator<Item = IpAddr> {
        let chosen = (self.len() / 16).clamp(1, 256);
        let count = self.len().saturating_sub(1 + chosen);
        let start = start % u64::from(count.max(1));
        let start = u32::try_from(start).unwrap_or_default();
        let allocated = (start..count).chain(0..start);
        let allocated = allocated.map(move |index| chosen + index);
        allocated.chain(1..chosen).map(move |index| self.nth(index))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// Why a Service cannot be as its manifest says; the API server's words, where it has some.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(
        "is invalid: spec.clusterIPs: Invalid value: {}: failed to allocate IP {ip}: provided IP is already allocated",
        list(.all)
    )]
    AddressTaken {
        ip: IpAddr,
        all: Vec<String>,
        holder: Box<ObjectKey>,
    },
    #[error(
        "is invalid: spec.ports[{index}].nodePort: Invalid value: {port}: provided port is already allocated"
    )]
    PortTaken {
        index: usize,
        port: u16,
        holder: Box<ObjectKey>,
    },
    #[error("is invalid: spec.{field}[{index}]: Invalid value: {}: may not change once set", list(.value))]
    Fixed {
        /// `clusterIPs` or `ipFamilies`.
        field: &'static str,
        index: usize,
        value: Vec<String>,
    },
    #[error("cannot have an address: all of {range} are taken")]
    NoAddress { range: Range },
    #[error("cannot have a node port: all from 30000 to 32767 are taken")]
    NoNodePort,
}

impl Fault {
    /// Whether another manifest would do.
    #[must_use]
    pub fn is_of_manifest(&self) -> bool {
        match self {
            Self::AddressTaken { .. } | Self::PortTaken { .. } | Self::Fixed { .. } => true,
            Self::NoAddress { .. } | Self::NoNodePort => false,
        }
    }
}

/// The Services of an input as they are to be recorded.
#[derive(Debug, Default)]
pub(super) struct Allocated {
    manifests: BTreeMap<ObjectKey, Value>,
    /// Until they are written.
    _lock: Option<ServicesLock>,
}

impl Allocated {
    /// What is to be recorded of an object.
    pub(super) fn manifest(&mut self, object: &AppliedObject) -> Value {
        let allocated = self.manifests.remove(&object.key);
        allocated.unwrap_or_else(|| object.manifest.clone())
    }
}

/// Whether an object is a Service.
pub(super) fn is_service(key: &ObjectKey) -> bool {
    key.kind == "Service" && key.group.is_empty()
}

/// Chooses what the Services of an input leave open.
pub(super) fn allocate(manager: &Manager, input: &ApplyInput) -> Result<Allocated, Error> {
    let services = || {
        input
            .objects
            .iter()
            .filter(|object| is_service(&object.key))
    };
    if services().next().is_none() {
        return Ok(Allocated::default());
    }
    let layout = &manager.layout;
    let lock = ServicesLock::take(layout, &manager.interrupt)?;
    let [objects, _] = layout.objects();
    let wanted = services().map(|object| {
        let recorded = object::read(layout, &object.key)?;
        Ok(Wanted {
            key: &object.key,
            manifest: &object.manifest,
            recorded: recorded.map(|record| record.manifest),
        })
    });
    let wanted = wanted.collect::<Result<Vec<_>, Error>>()?;
    let published = input.plans.iter().flat_map(|plan| &plan.containers);
    let published: BTreeSet<u16> = published
        .flat_map(|container| &container.ports)
        .filter_map(|port| port.host_port)
        .collect();
    let in_use = |port, protocol| published.contains(&port) || is_in_use(port, protocol);
    let others = object::readable_services(&objects)?;
    let allocator = Allocator::new(&others, &wanted, manager.service_ranges, &in_use);
    Ok(Allocated {
        manifests: allocator.run(&wanted)?,
        _lock: Some(lock),
    })
}

/// A Service that is applied.
#[derive(Debug)]
struct Wanted<'a> {
    key: &'a ObjectKey,
    manifest: &'a Value,
    recorded: Option<Value>,
}

/// Who has what.
struct Allocator<'a> {
    addresses: HashMap<IpAddr, ObjectKey>,
    /// Whatever their protocol, as for an API server.
    node_ports: HashMap<u16, ObjectKey>,
    ranges: Ranges,
    in_use: &'a dyn Fn(u16, Protocol) -> bool,
}

impl<'a> Allocator<'a> {
    /// With what the Services have that are not applied now.
    fn new(
        recorded: &[Service],
        wanted: &[Wanted<'_>],
        ranges: Ranges,
        in_use: &'a dyn Fn(u16, Protocol) -> bool,
    ) -> Self {
        let mut allocator = Self {
            addresses: HashMap::new(),
            node_ports: HashMap::new(),
            ranges,
            in_use,
        };
        let applied: BTreeSet<&ObjectKey> = wanted.iter().map(|wanted| wanted.key).collect();
        for service in recorded {
            let key = key_of(service);
            if applied.contains(&key) {
                continue;
            }
            if let ServiceAddress::Cluster(ips) = &service.address {
                let ips = ips.iter().map(|ip| (*ip, key.clone()));
                allocator.addresses.extend(ips);
            }
            let ports = service.ports.iter().filter_map(|port| port.node_port);
            let ports = ports.map(|port| (port, key.clone()));
            allocator.node_ports.extend(ports);
        }
        allocator
    }

    /// What is given and kept first, so that it is not allocated to another one of these.
    fn run(mut self, wanted: &[Wanted<'_>]) -> Result<BTreeMap<ObjectKey, Value>, Error> {
        let mut errors = Vec::new();
        let mut drafts = Vec::new();
        for wanted in wanted {
            let draft = Draft::new(wanted);
            match draft.and_then(|draft| self.reserve(wanted.key, &draft).map(|()| draft)) {
                Ok(draft) => drafts.push((wanted, draft)),
                Err(fault) => errors.push(error(wanted.key, fault)),
            }
        }
        Error::all(errors)?;
        let mut manifests = BTreeMap::new();
        for (wanted, mut draft) in drafts {
            self.complete(wanted.key, &mut draft)
                .map_err(|fault| error(wanted.key, fault))?;
            manifests.insert(wanted.key.clone(), draft.into_manifest(wanted.manifest));
        }
        Ok(manifests)
    }

    fn reserve(&mut self, key: &ObjectKey, draft: &Draft) -> Result<(), Fault> {
        for ip in draft.ips.iter().filter_map(|ip| ip.parse().ok()) {
            let holder = self.addresses.entry(ip).or_insert_with(|| key.clone());
            if holder != key {
                return Err(Fault::AddressTaken {
                    ip,
                    all: draft.ips.clone(),
                    holder: Box::new(holder.clone()),
                });
            }
        }
        for (index, port) in draft.ports.iter().enumerate() {
            let Some(port) = port.node_port else { continue };
            let holder = self.node_ports.entry(port).or_insert_with(|| key.clone());
            if holder != key {
                return Err(Fault::PortTaken {
                    index,
                    port,
                    holder: Box::new(holder.clone()),
                });
            }
        }
        Ok(())
    }

    fn complete(&mut self, key: &ObjectKey, draft: &mut Draft) -> Result<(), Fault> {
        let headless = draft.ips.first().is_some_and(|ip| ip == HEADLESS);
        for family in draft.families.iter().skip(draft.ips.len()) {
            if headless {
                break;
            }
            let range = match family.as_str() {
                V6 => self.ranges.v6,
                _ => self.ranges.v4,
            };
            let mut candidates = range.candidates(start(key, 0));
            let ip = candidates.find(|ip| !self.addresses.contains_key(ip));
            let ip = ip.ok_or(Fault::NoAddress { range })?;
            self.addresses.insert(ip, key.clone());
            draft.ips.push(ip.to_string());
        }
        let open = |port: &&mut DraftPort| port.node_port.is_none();
        while draft.allocates_ports
            && let Some(port) = draft.ports.iter_mut().find(open).map(|port| *port)
        {
            let number = self.node_port(key, &draft.ports, port)?;
            self.node_ports.insert(number, key.clone());
            if let Some(port) = draft.ports.iter_mut().find(open) {
                port.node_port = Some(number);
            }
        }
        Ok(())
    }

    /// That of the same port with another protocol, if there is one; else one that nobody has.
    fn node_port(&self, key: &ObjectKey, all: &[DraftPort], port: DraftPort) -> Result<u16, Fault> {
        let is_own = |number: &u16| {
            let mut same = all.iter().filter(|other| other.protocol == port.protocol);
            same.any(|other| other.node_port == Some(*number))
        };
        let twins = all.iter().filter(|other| other.port == port.port);
        let mut twins = twins.filter_map(|twin| twin.node_port);
        if let Some(number) = twins.find(|number| !is_own(number)) {
            return Ok(number);
        }
        let count = u64::from(LAST_NODE_PORT - FIRST_NODE_PORT) + 1;
        let start = start(key, port.port) % count;
        let numbers = (start..count).chain(0..start);
        let mut numbers = numbers.filter_map(|n| Some(FIRST_NODE_PORT + u16::try_from(n).ok()?));
        let free = |number: &u16| {
            !self.node_ports.contains_key(number) && !(self.in_use)(*number, port.protocol)
        };
        numbers.find(free).ok_or(Fault::NoNodePort)
    }
}

const FIRST_NODE_PORT: u16 = 30_000;
const LAST_NODE_PORT: u16 = 32_767;

/// `clusterIP` of a Service without an address of its own.
const HEADLESS: &str = "None";
const V4: &str = "IPv4";
const V6: &str = "IPv6";
const SINGLE: &str = "SingleStack";
const DUAL: &str = "RequireDualStack";

/// What is chosen of a Service.
#[derive(Debug)]
struct Draft {
    /// `clusterIPs`; without those that are still to be allocated.
    ips: Vec<String>,
    /// `ipFamilies`; none of an ExternalName.
    families: Vec<String>,
    policy: String,
    ports: Vec<DraftPort>,
    /// Whether all ports get a node port.
    allocates_ports: bool,
}

#[derive(Clone, Copy, Debug)]
struct DraftPort {
    port: u16,
    protocol: Protocol,
    node_port: Option<u16>,
}

impl Draft {
    /// What the manifest says, and what was recorded of what it leaves open.
    fn new(wanted: &Wanted<'_>) -> Result<Self, Fault> {
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

    fn choose_families(&mut self, spec: &Value, before: &Value) -> Result<(), Fault> {
        let old_ips = cluster_ips(before);
        self.ips = cluster_ips(spec);
        if self.ips.is_empty() || old_ips.starts_with(&self.ips) {
            self.ips.clone_from(&old_ips);
        }
        unchanged("clusterIPs", &self.ips, &old_ips)?;
        let headless = self.ips.first().is_some_and(|ip| ip == HEADLESS);
        let selects = spec.get("selector").is_some();
        let policy = [text(spec, "ipFamilyPolicy"), text(before, "ipFamilyPolicy")];
        let policy = policy.into_iter().find(|policy| !policy.is_empty());
        let policy = policy.unwrap_or(if headless && !selects { DUAL } else { SINGLE });
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

    fn into_manifest(self, manifest: &Value) -> Value {
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

fn ports(spec: &Value) -> Vec<DraftPort> {
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

fn family(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => V4,
        IpAddr::V6(_) => V6,
    }
}

/// As the API server shows it.
fn list(values: &[String]) -> Value {
    json!(values)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    let text = value.get(name).and_then(Value::as_str);
    text.unwrap_or_default()
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    let texts = value.get(name).and_then(Value::as_array);
    let texts = texts.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Where to begin to look for what a Service gets.
fn start(key: &ObjectKey, port: u16) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&key.namespace, &key.name, port).hash(&mut hasher);
    hasher.finish()
}

fn key_of(service: &Service) -> ObjectKey {
    ObjectKey {
        kind: "Service".into(),
        group: String::new(),
        namespace: service.namespace.clone(),
        name: service.name.clone(),
    }
}

fn error(service: &ObjectKey, fault: Fault) -> Error {
    Error::Service {
        service: service.clone(),
        fault: Box::new(fault),
    }
}

/// Whether somebody on this machine listens on a port at this moment.
fn is_in_use(port: u16, protocol: Protocol) -> bool {
    let all: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    all.into_iter().any(|ip| {
        let bound = match protocol {
            Protocol::Udp => UdpSocket::bind((ip, port)).map(drop),
            Protocol::Tcp | Protocol::Sctp => TcpListener::bind((ip, port)).map(drop),
        };
        // Whatever else is wrong here (no IPv6), it does not say that.
        bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    })
}

#[cfg(test)]
mod tests;
