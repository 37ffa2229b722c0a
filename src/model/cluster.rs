//! The pods and Services that can talk to each other, as each pod's executor sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::names::{Namespace, PodKey, PodName};
use super::plan::Protocol;
use super::service::{Service, ServicePort, TargetPort};

/// The domain of all names of pods and Services.
pub const DOMAIN: &str = "cluster.local";

/// What others have to know of a pod in order to talk to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub namespace: Namespace,
    pub name: PodName,
    /// `status.podIPs`: one, or one of each family.
    pub ips: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    /// `spec.hostname`, if the manifest has one.
    pub hostname: Option<String>,
    /// `spec.subdomain`
    pub subdomain: Option<String>,
    /// The ports of its main containers and sidecars.
    pub ports: Vec<PeerPort>,
    pub state: PeerState,
}

/// A port that a pod has declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPort {
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
}

/// Whether a pod takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerState {
    NotReady,
    Ready,
    /// It is being stopped: ready or not, Services do not use it.
    Terminating,
}

impl Peer {
    /// The key of the pod.
    #[must_use]
    pub fn key(&self) -> PodKey {
        PodKey {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// The port of this pod that a port of a Service leads to; none if the pod has none of that name.
    #[must_use]
    pub fn target(&self, port: &ServicePort) -> Option<u16> {
        match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => self
                .ports
                .iter()
                .find(|declared| declared.name == *name && declared.protocol == port.protocol)
                .map(|declared| declared.port),
        }
    }
}

/// All that can talk to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    pub peers: BTreeMap<PodKey, Peer>,
    /// By namespace and name.
    pub services: BTreeMap<(Namespace, String), Service>,
}

impl Cluster {
    /// The pods that a Service selects, ready or not, by name.
    pub fn selected<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Peer> {
        let selects = |peer: &&Peer| {
            let mut selector = service.selector.iter();
            peer.namespace == service.namespace
                && !service.selector.is_empty()
                && selector.all(|(name, value)| peer.labels.get(name) == Some(value))
        };
        self.peers.values().filter(selects)
    }

    /// The pods that a Service leads to.
    pub fn endpoints<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Peer> {
        self.selected(service).filter(|peer| match peer.state {
            PeerState::Ready => true,
            PeerState::NotReady | PeerState::Terminating => service.publish_not_ready_addresses,
        })
    }
}
