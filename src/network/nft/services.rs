//! The table in a network namespace that says how the programs in there reach Services.
//!
//! As kube-proxy does it: a connection to a Service's address is sent to one of its endpoints by the kernel, chosen by
//! chance when it begins, and what has no endpoint is refused at once. The client's own address stays what it is.
//!
//! Refused is what is led to a port of loopback that nobody can have: the kernel itself answers that nobody listens. A
//! rule that rejects what leaves would not do. A sender of datagrams would be told that it may not send, which is what
//! programs on a node of a cluster see, but not those in its pods; connections that are led to loopback by the machine's
//! routes would wait in vain; and the kernel answers only so many in a second. Such a rule is there for other protocols.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_sys::Socket;

use super::conntrack::{self, Lead};
use super::{Batch, End, HOOK_OUTPUT, Hook, TableEnd, netlink, open};
use crate::model::plan::Protocol;
use crate::network::subnet::Subnet;
use crate::sys::netns::NetNs;

/// An address that no interface has, or a network of such addresses; or one of loopback, of which other ports than these
/// are what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualAddress {
    pub ip: IpAddr,
    /// How many of its bits count.
    pub prefix: u8,
    /// To all other ports connections are refused.
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

/// The table of one network namespace.
#[derive(Debug)]
pub struct ServiceTable {
    place: Place,
    made: bool,
    /// Kept from the table's making on: when the kernel sees a socket closed, it waits until what was changed by
    /// anybody is out of use, which takes many milliseconds. And a table of the machine's ends with it.
    socket: Option<Socket>,
    addresses: Vec<VirtualAddress>,
}

/// Whose namespace it is.
#[derive(Debug)]
enum Place {
    /// A pod's, with which the table ends.
    Pod,
    /// The machine's, in which this process has a table of this name, as long as there is something to say in it.
    Machine(String),
}

const POD_TABLE: &str = "kplay";
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

impl ServiceTable {
    /// That of a pod with a network of its own. No table yet: a pod that knows no Service needs none.
    #[must_use]
    pub fn of_pod() -> Self {
        Self::new(Place::Pod)
    }

    /// One of the machine's, for what its own programs send. It has this name, is nobody else's to change, and ends with
    /// this process, however that ends. There may be several that say the same.
    #[must_use]
    pub fn of_machine(name: String) -> Self {
        Self::new(Place::Machine(name))
    }

    fn new(place: Place) -> Self {
        Self {
            place,
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
        let socket = match &mut self.socket {
            Some(socket) => {
                netlink::discard(socket)?;
                socket
            }
            // It belongs to the namespace in which it was made, and so does what it asks for.
            none @ None => none.insert(netns.visit(open)?),
        };
        let is_needed = matches!(self.place, Place::Pod) || !addresses.is_empty();
        if is_needed {
            let committed = batch(&self.place, self.made, &addresses).commit(socket);
            if committed.is_err() && !self.made {
                self.socket = None;
                return committed;
            }
            committed?;
        }
        let is_first = !std::mem::replace(&mut self.made, true);
        let before = std::mem::replace(&mut self.addresses, addresses);
        let forgotten = match (&self.place, is_first) {
            // Nobody has sent anything yet.
            (Place::Pod, true) => Ok(()),
            (Place::Pod, false) | (Place::Machine(_), _) => {
                conntrack::forget(socket, &stale(&before, &self.addresses))
            }
        };
        if !is_needed {
            self.made = false;
            self.socket = None;
        }
        forgotten
    }

    /// What it says.
    #[must_use]
    pub fn addresses(&self) -> &[VirtualAddress] {
        &self.addresses
    }
}

/// The ways of datagrams that are not the right ones any more.
fn stale(before: &[VirtualAddress], now: &[VirtualAddress]) -> Vec<Lead> {
    let (mut gone, leads) = (leads(before), leads(now));
    // What had no endpoint, or no rule at all, and has one now. A resolver's address nobody had before.
    let begun = leads.iter().map(|lead| lead.from);
    let begun = begun.filter(|from| !from.ip().is_loopback());
    let begun = begun.filter(|from| !gone.iter().any(|lead| lead.from == *from));
    let begun = begun.flat_map(|from| [nobody(from.ip()), from].map(|to| Lead { from, to }));
    let begun: Vec<Lead> = begun.collect();
    gone.retain(|lead| !leads.contains(lead));
    gone.extend(begun);
    gone
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

/// Where nobody can listen, and the kernel says so.
fn nobody(of_family: IpAddr) -> SocketAddr {
    let loopback = match of_family {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(loopback, 0)
}

/// What has the table say this.
fn batch(place: &Place, made: bool, addresses: &[VirtualAddress]) -> Batch {
    let (name, end) = match place {
        Place::Pod => (POD_TABLE, TableEnd::Namespace),
        Place::Machine(name) => (name.as_str(), TableEnd::Socket),
    };
    let mut batch = Batch::new(name);
    if made {
        batch.flush_chain(NAT);
        batch.flush_chain(FILTER);
    } else {
        batch.add_table(end);
        add_chains(&mut batch);
    }
    for address in addresses {
        add_translation(&mut batch, address);
    }
    let networks: Vec<&VirtualAddress> = addresses.iter().filter(|a| !a.is_one()).collect();
    // Few: all packets come by these rules.
    let to_refuse = addresses.iter().filter(|address| {
        !address.ip.is_loopback() && !networks.iter().any(|network| network.covers(address))
    });
    for address in to_refuse {
        add_refusal(&mut batch, address);
    }
    batch
}

fn add_chains(batch: &mut Batch) {
    const DESTINATION_NAT: i32 = -100;
    const FILTERING: i32 = 0;
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
        let protocol = number(port.protocol);
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

/// To be called when all translations are there.
fn add_refusal(batch: &mut Batch, address: &VirtualAddress) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        batch.add_rule(NAT, |rule| {
            rule.address(End::Destination, address.ip, address.prefix);
            rule.of_protocol(number(protocol));
            let nobody = nobody(address.ip);
            rule.redirect(nobody.ip(), nobody.port());
        });
    }
    // What has been redirected does not come by here with this destination.
    batch.add_rule(FILTER, |rule| {
        rule.address(End::Destination, address.ip, address.prefix);
        rule.reject();
    });
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}
