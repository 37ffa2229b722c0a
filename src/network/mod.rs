//! The pod's network: a bridge on the machine, a link from it into each pod, addresses, the packet filter's rules, and
//! the files that say all this inside the pod. Everything is asked of the kernel directly; no other program runs, but for
//! who is not root, whose bridge is in a network of its own, the one that connects it to the world.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

use crate::sys::fs;

mod attach;
mod bridge;
pub mod files;
mod firewall;
mod home;
mod lease;
mod netlink;
mod nft;
mod route;
mod subnet;
#[cfg(test)]
mod tests;
pub mod trial;
mod way_out;

pub use self::attach::{Attachment, Expected, attach, expect, sweep, sweep_unless_busy};
pub use self::bridge::add_loopback_address;
pub use self::nft::{ServiceTable, VirtualAddress, VirtualPort};
pub use self::route::has_route_to;

/// Where a pod with a network of its own reaches its resolver, at port 53. Link-local: each pod's is its own. The
/// address of Kubernetes' own resolver of this kind, NodeLocal DNSCache, so that what is written for it fits.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);

/// Why a pod has no network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kernel(#[from] netlink::Refused),
    #[error(transparent)]
    File(#[from] fs::Error),
    #[error("the record of the network in {path:?} is not readable")]
    Record {
        path: std::path::PathBuf,
        source: serde_json::Error,
    },
    #[error("cannot use the network of your pods")]
    Home(#[source] std::io::Error),
    #[error("cannot wait for who changes the network")]
    Lock(#[source] std::io::Error),
    #[error("all private IPv4 ranges are routed somewhere already")]
    NoSubnet,
    #[error("all {0} addresses of the bridge are taken")]
    NoAddress(usize),
}
