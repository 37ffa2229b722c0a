//! What of a Service matters to pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::names::Namespace;
use super::plan::Protocol;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub namespace: Namespace,
    pub name: String,
    pub address: ServiceAddress,
    /// The labels of its pods; empty if it selects none by itself.
    pub selector: BTreeMap<String, String>,
    pub ports: Vec<ServicePort>,
    /// With `sessionAffinity: ClientIP`, for how many seconds after its last connection a client keeps its pod.
    pub affinity_seconds: Option<u32>,
    /// `publishNotReadyAddresses`: whether pods count before they are ready, and while they end.
    pub publish_not_ready_addresses: bool,
    pub exposure: Exposure,
}

impl Service {
    /// Its namespace and name.
    #[must_use]
    pub fn key(&self) -> (Namespace, String) {
        (self.namespace.clone(), self.name.clone())
    }
}

/// By which address pods reach a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAddress {
    /// `clusterIPs`: one, or one of each family.
    Cluster(Vec<IpAddr>),
    /// `clusterIP: None`: those of its pods.
    Headless,
    /// `type: ExternalName`: another name.
    External(String),
}

/// Where the machine itself listens for a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// `ClusterIP`: nowhere.
    Cluster,
    /// `NodePort`: at each port's `nodePort`.
    NodePort,
    /// `LoadBalancer`: at each port itself, and at its `nodePort` if it has one.
    LoadBalancer,
}

/// One entry of a Service's `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: Option<String>,
    pub port: u16,
    pub protocol: Protocol,
    pub target: TargetPort,
    pub node_port: Option<u16>,
}

/// `targetPort`: which port of a pod is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    /// That of the pod's port with this name and the same protocol.
    Name(String),
}
