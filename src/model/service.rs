//! What of a Service matters to pods.

use super::names::Namespace;
use super::plan::Protocol;

/// A Service with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub namespace: Namespace,
    pub name: String,
    /// `clusterIP`, in the manifest's spelling.
    pub cluster_ip: String,
    pub ports: Vec<ServicePort>,
}

/// One entry of a Service's `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: Option<String>,
    pub port: u16,
    pub protocol: Protocol,
}
