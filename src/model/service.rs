//! What of a Service matters to pods.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

    /// Whether addresses of this family are the Service's, or those of its pods that count for it.
    #[must_use]
    pub fn has_family_of(&self, ip: IpAddr) -> bool {
        match &self.address {
            ServiceAddress::Cluster(ips) => ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4()),
            ServiceAddress::Headless(families) => match families {
                Families::V4 => ip.is_ipv4(),
                Families::V6 => ip.is_ipv6(),
                Families::Both => true,
            },
            ServiceAddress::External(_) => false,
        }
    }
}

/// By which address pods reach a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAddress {
    /// `clusterIPs`: one, or one of each family.
    Cluster(Vec<IpAddr>),
    /// `clusterIP: None`: those of its pods.
    Headless(Families),
    /// `type: ExternalName`: another name.
    External(String),
}

/// `ipFamilies`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    V4,
    V6,
    Both,
}

/// The networks from which Services have their addresses, each with the bits that all of these share.
pub const RANGES: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), 16),
    (
        IpAddr::V6(Ipv6Addr::new(0xfd96, 0x6b70, 0x6c61, 0, 0, 0, 0, 0)),
        112,
    ),
];

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
