//! Addresses and node ports of Services: chosen when they are applied, kept as long as they are recorded.
//!
//! The records of the Services are the only truth, so deleting one frees what it had. Whoever chooses holds one lock
//! ([`ServicesLock`]) from reading the records until its own are written. What the manifest leaves open stays as it
//! was recorded; where a new address is looked for depends on the Service's name, so that one that has become free is
//! hardly ever given to another Service while pods may still have it in their variables.

mod draft;
mod range;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use serde_json::{Value, json};

pub use self::range::{Range, Ranges};

use self::draft::{Draft, DraftPort, V6};
use super::Manager;
use super::apply::{AppliedObject, ApplyInput};
use super::error::Error;
use crate::model::names::ObjectKey;
use crate::model::plan::Protocol;
use crate::model::service::{Service, ServiceAddress};
use crate::state::lock::ServicesLock;
use crate::state::object;
use crate::sys::listeners::{self, Sharing, Transport};

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
        for family in draft.families.iter().skip(draft.ips.len()) {
            if draft.is_headless() {
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

/// Where to begin to look for what a Service gets.
fn start(key: &ObjectKey, port: u16) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&key.namespace, &key.name, port).hash(&mut hasher);
    hasher.finish()
}

/// As the API server shows it.
fn list(values: &[String]) -> Value {
    json!(values)
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
    let transport = match protocol {
        Protocol::Udp => Transport::Udp,
        Protocol::Tcp | Protocol::Sctp => Transport::Tcp,
    };
    listeners::is_in_use(None, port, transport, Sharing::Exclusive)
}

#[cfg(test)]
mod tests;
