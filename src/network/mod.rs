//! Files and sockets of the pod's network.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

pub mod files;

/// Where a pod with a network of its own reaches its resolver, at port 53. Link-local: each pod's is its own. The
/// address of Kubernetes' own resolver of this kind, NodeLocal DNSCache, so that what is written for it fits.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);
