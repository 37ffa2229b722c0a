//! The pod's own network, and what this process does in it: a table that leads Services' addresses to their endpoints,
//! and the resolver.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, UdpSocket};

use super::context::{Context, Message};
use super::dns;
use super::error::{Error, system};
use crate::model::cluster::Cluster;
use crate::model::event::EventType;
use crate::model::plan::Protocol;
use crate::model::service::{RANGES, Service, ServiceAddress};
use crate::network::{self, Attachment, PodTable, RESOLVER, VirtualAddress, VirtualPort};
use crate::runtime::sandbox::Sandbox;
use crate::sys::namespace::Namespace;
use crate::sys::netns::NetNs;

/// The port of names.
const DOMAIN: u16 = 53;
/// Where the resolver really listens, so that a container may listen at port 53 of all addresses: far from what
/// programs listen at.
const LISTENING: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53053);

/// The network of a pod that has one of its own.
#[derive(Debug)]
pub(super) struct PodNetwork {
    attachment: Attachment,
    netns: NetNs,
    table: PodTable,
    memory: Memory,
    /// Whether it was told that the table cannot be written.
    has_complained: bool,
    _resolver: dns::Serving,
}

/// What was, and has to count.
#[derive(Debug, Default)]
struct Memory {
    /// Which endpoint the pod keeps to, by a Service's address and port.
    chosen: Chosen,
    /// Whether there has been a Service. Where there never was, the machine's network may have the same addresses.
    has_known_services: bool,
}

type Chosen = BTreeMap<(IpAddr, u16, Protocol), SocketAddr>;

/// Joins the pod to the network, with what it knows of Services.
pub(super) fn join<R>(context: &Context<R>, sandbox: &Sandbox) -> Result<PodNetwork, Error> {
    let netns = NetNs::open(&sandbox.namespace_path(Namespace::Network))?;
    let plan = &context.launch.plan;
    let attachment = network::attach(&context.launch.network, &plan.key().to_string(), &netns)?;
    for limit in attachment.limits() {
        complain(context, limit.clone());
    }
    let mut table = PodTable::new();
    let mut memory = Memory::default();
    let addresses = virtual_addresses(&context.cluster.borrow(), &mut memory);
    let listening = match table.set(&netns, addresses) {
        Ok(()) => LISTENING,
        Err(error) => {
            complain(
                context,
                format!(
                    "Services have no addresses in this pod, and its containers cannot listen at port 53: the kernel refuses \
                     to translate addresses with nftables ({error})"
                ),
            );
            network::add_loopback_address(&netns, RESOLVER.into()).map_err(network::Error::from)?;
            SocketAddr::new(RESOLVER.into(), DOMAIN)
        }
    };
    let sockets = sockets(&netns, listening).map_err(system("listen for the pod's questions"))?;
    Ok(PodNetwork {
        has_complained: listening != LISTENING,
        attachment,
        table,
        memory,
        _resolver: dns::serve(
            sockets,
            std::rc::Rc::clone(&context.cluster),
            plan.namespace.clone(),
        ),
        netns,
    })
}

impl PodNetwork {
    /// The pod's addresses.
    pub(super) fn ips(&self) -> &[IpAddr] {
        self.attachment.ips()
    }

    /// Its namespace.
    pub(super) fn namespace(&self) -> NetNs {
        self.netns.clone()
    }

    /// Gives the addresses back.
    pub(super) fn leave(self) -> Result<(), network::Error> {
        self.attachment.release()
    }
}

/// Has the pod's table say what is known now.
pub(super) fn update<R>(context: &Context<R>) {
    let mut network = context.network.borrow_mut();
    let Some(network) = network.as_mut() else {
        return;
    };
    let addresses = virtual_addresses(&context.cluster.borrow(), &mut network.memory);
    if let Err(error) = network.table.set(&network.netns, addresses)
        && !std::mem::replace(&mut network.has_complained, true)
    {
        complain(
            context,
            format!("Services' addresses in this pod are not up to date: nftables: {error}"),
        );
    }
}

fn complain<R>(context: &Context<R>, message: String) {
    let event = context.event(EventType::Warning, "NetworkLimited", message, None);
    context.send(Message::Event(event));
}

/// The resolver's sockets, in the pod's network.
fn sockets(netns: &NetNs, address: SocketAddr) -> io::Result<dns::Sockets> {
    let (udp, tcp) = netns.visit(|| {
        let udp = std::net::UdpSocket::bind(address)?;
        let tcp = std::net::TcpListener::bind(address)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok((udp, tcp))
    })?;
    Ok(dns::Sockets {
        udp: UdpSocket::from_std(udp)?,
        tcp: TcpListener::from_std(tcp)?,
    })
}

/// All addresses that are not in the network, with those that a Service has had or may get: what is still sent there is
/// refused, and not the machine's network's business.
fn virtual_addresses(cluster: &Cluster, memory: &mut Memory) -> Vec<VirtualAddress> {
    let mut all = addresses(cluster, &mut memory.chosen);
    memory.has_known_services |= !cluster.services.is_empty();
    if memory.has_known_services {
        all.extend(RANGES.map(|(ip, prefix)| VirtualAddress {
            ip,
            prefix,
            ports: Vec::new(),
        }));
    }
    all
}

/// All addresses that lead elsewhere: the resolver's, and those of Services.
fn addresses(cluster: &Cluster, chosen: &mut Chosen) -> Vec<VirtualAddress> {
    let of_resolver = [Protocol::Udp, Protocol::Tcp].map(|protocol| VirtualPort {
        protocol,
        port: DOMAIN,
        backends: vec![LISTENING],
    });
    let mut addresses = vec![VirtualAddress::new(RESOLVER.into(), of_resolver.to_vec())];
    for service in cluster.services.values() {
        let ServiceAddress::Cluster(ips) = &service.address else {
            continue;
        };
        for ip in ips {
            let ports = ports(cluster, service, *ip, chosen);
            addresses.push(VirtualAddress::new(*ip, ports));
        }
    }
    addresses
}

fn ports(
    cluster: &Cluster,
    service: &Service,
    ip: IpAddr,
    chosen: &mut Chosen,
) -> Vec<VirtualPort> {
    let ports = service.ports.iter().map(|port| {
        let mut backends: Vec<SocketAddr> = cluster
            .endpoints(service)
            .filter_map(|peer| {
                let target = peer.target(port)?;
                let mut ips = peer.ips.iter();
                let same_family = ips.find(|of_peer| of_peer.is_ipv4() == ip.is_ipv4())?;
                Some(SocketAddr::new(*same_family, target))
            })
            .collect();
        if service.affinity_seconds.is_some() {
            keep_to_one(&mut backends, chosen, (ip, port.port, port.protocol));
        }
        VirtualPort {
            protocol: port.protocol,
            port: port.port,
            backends,
        }
    });
    ports.collect()
}

/// `sessionAffinity: ClientIP`: the pod is one client, so it keeps to one endpoint as long as that is there.
fn keep_to_one(backends: &mut Vec<SocketAddr>, chosen: &mut Chosen, port: (IpAddr, u16, Protocol)) {
    let kept = chosen.get(&port).copied();
    let one = kept
        .filter(|kept| backends.contains(kept))
        .or_else(|| backends.get(by_chance(backends.len())).copied());
    match one {
        Some(one) => {
            chosen.insert(port, one);
            *backends = vec![one];
        }
        None => {
            chosen.remove(&port);
        }
    }
}

/// A number below `count`.
fn by_chance(count: usize) -> usize {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(count);
    usize::try_from(random % (count.max(1) as u64)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
