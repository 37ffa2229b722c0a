//! How the pod's processes reach Services by their addresses: a table in their network namespace that leads to the
//! endpoints there are at the moment.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::context::Context;
use super::pod_network;
use crate::model::cluster::Cluster;
use crate::model::plan::Protocol;
use crate::model::service::{RANGES, Service, ServiceAddress};
use crate::network::{ServiceTable, VirtualAddress, VirtualPort};
use crate::sys::identity;
use crate::sys::netns::NetNs;

/// The port of names.
pub(super) const DOMAIN: u16 = 53;

/// The addresses that lead elsewhere, in one network namespace.
#[derive(Debug)]
pub(super) struct ServiceAddresses {
    netns: NetNs,
    table: ServiceTable,
    scope: Scope,
    /// Where the resolver is asked, if it is asked here.
    resolver: Option<VirtualAddress>,
    memory: Memory,
    /// Whether it was told that the table cannot be written.
    has_complained: bool,
}

/// Whose business what is sent to an address is that Services may have and none has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// In a pod's own network nobody else's: it is refused.
    Pod,
    /// The machine's network may have the same addresses.
    Machine,
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

impl ServiceAddresses {
    /// Nothing yet.
    pub(super) fn new(netns: NetNs, table: ServiceTable, scope: Scope) -> Self {
        Self {
            netns,
            table,
            scope,
            resolver: None,
            memory: Memory::default(),
            has_complained: false,
        }
    }

    /// Has the table say what is known now, and where the resolver is asked from now on.
    pub(super) fn set_resolver(
        &mut self,
        cluster: &Cluster,
        resolver: VirtualAddress,
    ) -> io::Result<()> {
        self.resolver = Some(resolver);
        let set = self.set(cluster);
        if set.is_err() {
            self.resolver = None;
        }
        set
    }

    /// Has the table say what is known now.
    pub(super) fn set(&mut self, cluster: &Cluster) -> io::Result<()> {
        let mut addresses: Vec<VirtualAddress> = self.resolver.iter().cloned().collect();
        addresses.extend(virtual_addresses(cluster, &mut self.memory, self.scope));
        self.table.set(&self.netns, addresses)
    }

    /// The same; what fails is told, once.
    pub(super) fn update<R>(&mut self, context: &Context<R>) {
        let set = self.set(&context.cluster.borrow());
        if let Err(error) = set
            && !std::mem::replace(&mut self.has_complained, true)
        {
            let message = match self.scope {
                Scope::Pod => {
                    format!("Services' addresses in this pod are not up to date: nftables: {error}")
                }
                Scope::Machine => format!(
                    "Services' addresses in the machine's network, which this pod has, are not there or not up to date: {} \
                     ({error})",
                    what_is_refused(
                        &error,
                        identity::kernel_version(&identity::kernel_release())
                    )
                ),
            };
            pod_network::complain(context, message);
        }
    }

    /// It was told by the caller that the table cannot be written.
    pub(super) fn complain_no_more(&mut self) {
        self.has_complained = true;
    }

    /// The namespace.
    pub(super) fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// An address of a Service in each family.
    pub(super) fn examples(&self) -> impl Iterator<Item = IpAddr> {
        let of = |v4: bool| {
            let mut ips = self.table.addresses().iter().map(|address| address.ip);
            ips.find(|ip| ip.is_ipv4() == v4 && !ip.is_loopback())
        };
        [of(true), of(false)].into_iter().flatten()
    }
}

/// Has the resolver, which listens there, be asked at this address.
pub(super) fn resolver_address(ip: IpAddr, udp: SocketAddr, tcp: SocketAddr) -> VirtualAddress {
    let ports =
        [(Protocol::Udp, udp), (Protocol::Tcp, tcp)].map(|(protocol, listening)| VirtualPort {
            protocol,
            port: DOMAIN,
            backends: vec![listening],
        });
    VirtualAddress::new(ip, ports.to_vec())
}

/// What keeps a kernel of this version from making a table of the machine's, as far as its error says.
fn what_is_refused(error: &io::Error, kernel: (u32, u32)) -> &'static str {
    use io::ErrorKind as K;
    match error.kind() {
        // No chain or no expression of the kind, nor a module with it.
        K::NotFound => {
            "the kernel's nftables translate no addresses, without the modules nft_chain_nat and nft_nat"
        }
        // No such flag of a table.
        K::InvalidInput | K::Unsupported if kernel < (5, 12) => {
            "the kernel refuses a table of nftables that ends with this pod, as there is since Linux 5.12"
        }
        K::Unsupported => "the kernel has no nftables for IP, as with CONFIG_NF_TABLES_INET",
        _ => "the kernel refuses a table of nftables",
    }
}

/// All addresses of Services; in a pod's own network with those that one has had or may get.
fn virtual_addresses(cluster: &Cluster, memory: &mut Memory, scope: Scope) -> Vec<VirtualAddress> {
    let mut all = addresses(cluster, &mut memory.chosen);
    memory.has_known_services |= !cluster.services.is_empty();
    if memory.has_known_services && scope == Scope::Pod {
        all.extend(RANGES.map(|(ip, prefix)| VirtualAddress {
            ip,
            prefix,
            ports: Vec::new(),
        }));
    }
    all
}

/// The addresses of Services.
fn addresses(cluster: &Cluster, chosen: &mut Chosen) -> Vec<VirtualAddress> {
    let mut addresses = Vec::new();
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
