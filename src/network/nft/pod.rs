//! The table in a pod's own network namespace: how its containers reach Services.
//!
//! As kube-proxy does it: a connection to a Service's address is sent to one of its endpoints by the kernel, chosen by
//! chance when it begins, and what has no endpoint is refused at once. The pod's own address stays the client's.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_sys::Socket;

use super::conntrack::{self, Lead};
use super::{Batch, End, HOOK_OUTPUT, Hook, open};
use crate::model::plan::Protocol;
use crate::network::subnet::Subnet;
use crate::sys::netns::NetNs;

/// An address that no interface has, or a network of such addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualAddress {
    pub ip: IpAddr,
    /// How many of its bits count.
    pub prefix: u8,
    /// Connections to all other ports are refused.
    pub ports: Vec<VirtualPort>,
}

/// A port of a [`VirtualAddress`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualPort {
    pub protocol: Protocol,
    pub port: u16,
    /// Where connections go; refused if there is none.
    pub backends: Vec<SocketAddr>,
}

/// The table of one pod; it ends with the pod's network namespace.
#[derive(Debug)]
pub struct PodTable {
    made: bool,
    /// Kept from the table's making on: when the kernel sees a socket closed, it waits until what was changed by
    /// anybody is out of use, which takes many milliseconds.
    socket: Option<Socket>,
    addresses: Vec<VirtualAddress>,
}

const TABLE: &str = "kplay";
const NAT: &str = "services";
const FILTER: &str = "no-endpoints";

impl VirtualAddress {
    /// One address.
    #[must_use]
    pub fn new(ip: IpAddr, ports: Vec<VirtualPort>) -> Self {
        let prefix = bits(ip);
        Self { ip, prefix, ports }
    }

    fn is_one(&self) -> bool {
        self.prefix == bits(self.ip)
    }

    /// Whether it is a larger network in which the other one is.
    fn covers(&self, other: &Self) -> bool {
        let subnet = |address: &Self| Subnet {
            address: address.ip,
            prefix: address.prefix,
        };
        self.prefix < other.prefix && subnet(self).overlaps(&subnet(other))
    }
}

fn bits(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl Default for PodTable {
    fn default() -> Self {
        Self::new()
    }
}

impl PodTable {
    /// No table yet: a pod that knows no Service needs none.
    #[must_use]
    pub fn new() -> Self {
        Self {
            made: false,
            socket: None,
            addresses: Vec::new(),
        }
    }

    /// Makes the table say this, in one step. Does nothing if it says so already.
    ///
    /// # Errors
    /// The kernel has no nftables, or no NAT, or refuses; then the table is as it was. Or what clients of UDP had before
    /// cannot be forgotten.
    pub fn set(&mut self, netns: &NetNs, addresses: Vec<VirtualAddress>) -> io::Result<()> {
        if addresses == self.addresses {
            return Ok(());
        }
        let mut batch = Batch::new(TABLE);
        if self.made {
            batch.flush_chain(NAT);
            batch.flush_chain(FILTER);
        } else {
            add_chains(&mut batch);
        }
        // After a failure it may have unread answers.
        let socket = match self.socket.take() {
            Some(socket) => socket,
            // It belongs to the namespace in which it was made, and so does what it asks for.
            None => netns.visit(open)?,
        };
        let networks: Vec<&VirtualAddress> = addresses.iter().filter(|a| !a.is_one()).collect();
        for address in &addresses {
            add_translation(&mut batch, address);
            // Few: all packets come by these rules.
            if !networks.iter().any(|network| network.covers(address)) {
                add_refusal(&mut batch, address);
            }
        }
        batch.commit(&socket)?;
        self.made = true;
        let before = std::mem::replace(&mut self.addresses, addresses);
        let now = leads(&self.addresses);
        let mut gone = leads(&before);
        gone.retain(|lead| !now.contains(lead));
        conntrack::forget(&socket, &gone)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// What it says.
    #[must_use]
    pub fn addresses(&self) -> &[VirtualAddress] {
        &self.addresses
    }
}

/// Where datagrams are led.
fn leads(addresses: &[VirtualAddress]) -> Vec<Lead> {
    let ports = addresses
        .iter()
        .flat_map(|address| address.ports.iter().map(|port| (address.ip, port)));
    ports
        .filter(|(_, port)| port.protocol == Protocol::Udp)
        .flat_map(|(ip, port)| {
            let from = SocketAddr::new(ip, port.port);
            port.backends.iter().map(move |to| Lead { from, to: *to })
        })
        .collect()
}

fn add_chains(batch: &mut Batch) {
    const DESTINATION_NAT: i32 = -100;
    const FILTERING: i32 = 0;
    batch.add_table();
    batch.add_chain(
        NAT,
        Hook {
            r#type: "nat",
            hook: HOOK_OUTPUT,
            priority: DESTINATION_NAT,
        },
    );
    batch.add_chain(
        FILTER,
        Hook {
            r#type: "filter",
            hook: HOOK_OUTPUT,
            priority: FILTERING,
        },
    );
}

fn add_translation(batch: &mut Batch, address: &VirtualAddress) {
    for port in &address.ports {
        let protocol = match port.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        };
        let same_family = |backend: &&SocketAddr| backend.is_ipv4() == address.ip.is_ipv4();
        let backends: Vec<&SocketAddr> = port.backends.iter().filter(same_family).collect();
        for (index, backend) in backends.iter().enumerate() {
            batch.add_rule(NAT, |rule| {
                rule.address(End::Destination, address.ip, address.prefix);
                rule.of_protocol(protocol);
                rule.for_port(port.port);
                let left = backends.len() - index;
                if left > 1 {
                    rule.by_chance(u32::try_from(left).unwrap_or(u32::MAX));
                }
                rule.redirect(backend.ip(), backend.port());
            });
        }
    }
}

fn add_refusal(batch: &mut Batch, address: &VirtualAddress) {
    // What has been redirected does not come by here with this destination.
    batch.add_rule(FILTER, |rule| {
        rule.address(End::Destination, address.ip, address.prefix);
        rule.reject();
    });
}
