//! The ports of this machine that an `apply` will listen at.
//!
//! Whether somebody has them is found out before anything is pulled or stopped. Two commands at once may both find
//! a port free: the executors' own attempts stay the last word.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::Manager;
use super::apply::ApplyInput;
use super::error::Error;
use super::launch;
use super::services::is_service;
use crate::model::names::{ObjectKey, PodKey};
use crate::model::plan::{ContainerPort, PodPlan, Protocol};
use crate::model::service::{Exposure, Service};
use crate::state::object;
use crate::state::pod_dir::{self, Found};
use crate::sys::inet;
use crate::sys::listeners::{self, Program, Sharing, Transport};

/// A port that cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot publish {user}: port {port} of {} {why}", ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))]
pub struct Taken {
    pub user: User,
    pub port: u16,
    pub ip: Option<IpAddr>,
    pub why: Why,
}

/// Who listens at a port of the machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    Pod(PodKey),
    Service(ObjectKey),
}

/// Why a port cannot be had.
#[derive(Debug, PartialEq, Eq)]
pub enum Why {
    /// The same pod has it already.
    Twice,
    Ours(User),
    Foreign(Option<Program>),
    /// Ports below this one are root's.
    Roots {
        first: u16,
    },
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "the pod `{key}`"),
            Self::Service(key) => write!(f, "the Service `{}/{}`", key.namespace, key.name),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice => f.write_str("is published twice"),
            Self::Ours(user) => write!(f, "is in use by {user}"),
            Self::Roots { first } => write!(f, "is root's, as all ports below {first} are"),
            Self::Foreign(None) => f.write_str("is in use by another program"),
            Self::Foreign(Some(Program { pid, name })) => {
                write!(f, "is in use by another program: {name}, process {pid}")
            }
        }
    }
}

/// Finds out whether the ports of what is applied can be had, as far as that can be known now.
///
/// # Errors
/// [`Error::Port`] for each that cannot.
pub(super) fn check(manager: &Manager, input: &ApplyInput) -> Result<(), Error> {
    let services = input
        .objects
        .iter()
        .filter(|object| is_service(&object.key))
        .filter_map(|object| object::service_of(&object.key, &object.manifest));
    let services: Vec<Service> = services.collect();
    let pods = input.plans.iter().flat_map(of_pod);
    let wanted: Vec<Claim<'_>> = pods.chain(services.iter().flat_map(of_service)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let recorded = Recorded::read(manager)?;
    let applied: BTreeSet<User> = input
        .plans
        .iter()
        .map(|plan| User::Pod(plan.key()))
        .chain(services.iter().map(service_user))
        .collect();
    let pods = recorded.pods.iter().flat_map(of_pod);
    let held = pods.chain(recorded.services.iter().flat_map(of_service));
    // What is applied gives its ports back before it takes them again.
    let (own, others): (Vec<Claim<'_>>, Vec<Claim<'_>>) =
        held.partition(|claim| applied.contains(&claim.user));
    let first = inet::first_port();
    let mut errors = Vec::new();
    for (index, claim) in wanted.iter().enumerate() {
        let earlier = wanted.iter().take(index);
        let mut rivals = others
            .iter()
            .chain(earlier)
            .filter(|other| other.meets(claim));
        let is_ours = || own.iter().any(|own| own.meets(claim));
        let why = match rivals.clone().find(|other| !other.bears(claim)) {
            Some(other) if other.user == claim.user => Some(Why::Twice),
            Some(other) => Some(Why::Ours(other.user.clone())),
            None if claim.is_roots(first) => Some(Why::Roots { first }),
            None if rivals.next().is_some() || is_ours() => None,
            None => claim.foreign(&recorded),
        };
        errors.extend(why.map(|why| {
            Error::Port(Box::new(Taken {
                user: claim.user.clone(),
                port: claim.port,
                ip: claim.ip,
                why,
            }))
        }));
    }
    Error::all(errors)
}

/// What runs, or is recorded.
struct Recorded {
    pods: Vec<PodPlan>,
    services: Vec<Service>,
}

impl Recorded {
    fn read(manager: &Manager) -> Result<Self, Error> {
        let layout = &manager.layout;
        let mut pods = Vec::new();
        for found in pod_dir::list(layout)? {
            let Found::Pod(dir) = found else { continue };
            if dir.has_executor()?
                && let Some(launch) = launch::read_launch(&dir)?
            {
                pods.push(launch.plan);
            }
        }
        let [objects, _] = layout.objects();
        let services = object::readable_services(&objects)?;
        Ok(Self { pods, services })
    }
}

/// A port that somebody listens at.
struct Claim<'a> {
    user: User,
    protocol: Protocol,
    /// All addresses if there is none.
    ip: Option<IpAddr>,
    port: u16,
    subject: Subject<'a>,
}

#[derive(Clone, Copy)]
enum Subject<'a> {
    HostPort(&'a PodPlan),
    NodePort(&'a Service),
    Balanced(&'a Service),
}

fn of_pod(plan: &PodPlan) -> impl Iterator<Item = Claim<'_>> {
    let containers = plan.containers.iter();
    let ports = containers.flat_map(|container| &container.ports);
    // On the machine's network its programs listen themselves, or do not.
    let ports = ports.filter(|_| !plan.host_network);
    ports.filter_map(|port| {
        Some(Claim {
            user: User::Pod(plan.key()),
            protocol: port.protocol,
            ip: port.host_ip,
            port: port.host_port?,
            subject: Subject::HostPort(plan),
        })
    })
}

fn declared(plan: &PodPlan) -> impl Iterator<Item = &ContainerPort> {
    plan.all_containers().flat_map(|container| &container.ports)
}

fn of_service(service: &Service) -> impl Iterator<Item = Claim<'_>> {
    let of_port = move |port: u16, protocol, subject| Claim {
        user: service_user(service),
        protocol,
        ip: None,
        port,
        subject,
    };
    service.ports.iter().flat_map(move |port| {
        let (node, balanced) = match service.exposure {
            Exposure::Cluster => (None, None),
            Exposure::NodePort => (port.node_port, None),
            Exposure::LoadBalancer => (port.node_port, Some(port.port)),
        };
        let node = node.map(|number| (number, Subject::NodePort(service)));
        let balanced = balanced.map(|number| (number, Subject::Balanced(service)));
        let all = node.into_iter().chain(balanced);
        all.map(move |(number, subject)| of_port(number, port.protocol, subject))
    })
}

fn service_user(service: &Service) -> User {
    User::Service(ObjectKey {
        kind: "Service".into(),
        group: String::new(),
        namespace: service.namespace.clone(),
        name: service.name.clone(),
    })
}

impl Claim<'_> {
    /// Whether both have to do with one port of one address.
    fn meets(&self, other: &Self) -> bool {
        let all = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
        self.protocol == other.protocol
            && self.port == other.port
            && (all(self.ip) || all(other.ip) || self.ip == other.ip)
    }

    /// Whether two that meet do not hinder each other.
    fn bears(&self, other: &Self) -> bool {
        match (self.subject, other.subject) {
            (Subject::HostPort(_), Subject::HostPort(_)) => false,
            // Who has a node port is decided where they are allocated.
            (Subject::NodePort(_), Subject::NodePort(_)) => true,
            // It is the pod's in both cases.
            (Subject::HostPort(pod), Subject::NodePort(service) | Subject::Balanced(service))
            | (Subject::NodePort(service) | Subject::Balanced(service), Subject::HostPort(pod)) => {
                selects(service, pod)
            }
            (Subject::NodePort(_) | Subject::Balanced(_), Subject::Balanced(_))
            | (Subject::Balanced(_), Subject::NodePort(_)) => self.user == other.user,
        }
    }

    /// Whether the pod cannot have it. That a Service has no port of the machine is told by its pods: others reach it.
    fn is_roots(&self, first: u16) -> bool {
        match self.subject {
            Subject::HostPort(_) => self.port < first,
            Subject::NodePort(_) | Subject::Balanced(_) => false,
        }
    }

    /// Whether somebody who is not known to publish the port listens at it.
    fn foreign(&self, recorded: &Recorded) -> Option<Why> {
        let transport = match self.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            Protocol::Sctp => return None,
        };
        let sharing = match self.subject {
            Subject::HostPort(_) => Sharing::Exclusive,
            Subject::NodePort(_) | Subject::Balanced(_) => Sharing::Shared,
        };
        if !listeners::is_in_use(self.ip, self.port, transport, sharing) {
            return None;
        }
        let on_machine = recorded.pods.iter().filter(|plan| plan.host_network);
        let mut with_port = on_machine.filter(|plan| {
            let is_same = |port: &ContainerPort| {
                port.container_port == self.port && port.protocol == self.protocol
            };
            declared(plan).any(is_same)
        });
        Some(match with_port.next() {
            Some(plan) => Why::Ours(User::Pod(plan.key())),
            None => Why::Foreign(listeners::program(self.ip, self.port, transport)),
        })
    }
}

fn selects(service: &Service, pod: &PodPlan) -> bool {
    let mut wanted = service.selector.iter();
    service.namespace == pod.namespace
        && !service.selector.is_empty()
        && wanted.all(|(name, value)| pod.labels.get(name) == Some(value))
}

#[cfg(test)]
mod tests;
