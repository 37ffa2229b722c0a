//! What a pod with the machine's network has in it besides the machine's own: Services' addresses and, if it asks for
//! them with `ClusterFirstWithHostNet`, the cluster's names. As on a node of a cluster, Services' addresses are there for
//! the machine's own programs, too, as long as such a pod lives; nothing else changes for them.
//!
//! ```text
//! program ─ 10.96.3.7:80 ──────▶ the pod's table ─▶ an endpoint
//! pod ─ 127.64.0.0 + PID, 53 ──▶ the pod's table ─▶ the resolver, at a port of that address that is free
//! ```
//!
//! All of it ends with this process, however that ends: the kernel removes a table whose owner is gone.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use super::context::Context;
use super::dns;
use super::error::Error;
use super::pod_network::{complain, sockets};
use super::service_addresses::{Scope, ServiceAddresses, resolver_address};
use crate::model::plan::DnsPolicy;
use crate::model::service::RANGES;
use crate::network::{self, ServiceTable};
use crate::sys::netns::NetNs;

/// What a pod has in the machine's network.
#[derive(Debug)]
pub(super) struct MachineNetwork {
    services: ServiceAddresses,
    resolver: Result<Resolver, NoResolver>,
    /// Whether it was told that the machine has no way to Services.
    has_told_of_routes: bool,
}

#[derive(Debug)]
struct Resolver {
    address: IpAddr,
    _serving: dns::Serving,
}

/// Why there is no resolver.
#[derive(Debug)]
enum NoResolver {
    /// Nobody has asked for one.
    NotAsked,
    Refused(io::Error),
}

/// Gives the pod what it has in the machine's network.
pub(super) fn join<R>(context: &Context<R>) -> Result<MachineNetwork, Error> {
    let netns = NetNs::open(Path::new("/proc/thread-self/ns/net"))?;
    // The pod's own, so that whoever lists the tables finds out whose it is.
    let name = format!("kplay-services-{}", context.launch.uid);
    let table = ServiceTable::of_machine(name);
    let mut services = ServiceAddresses::new(netns, table, Scope::Machine);
    let resolver = match context.launch.plan.dns.policy {
        DnsPolicy::ClusterFirstWithHostNet => {
            serve(context, &mut services).map_err(NoResolver::Refused)
        }
        DnsPolicy::ClusterFirst | DnsPolicy::Default | DnsPolicy::None => Err(NoResolver::NotAsked),
    };
    let mut network = MachineNetwork {
        services,
        resolver,
        has_told_of_routes: false,
    };
    network.update(context);
    Ok(network)
}

/// Listens for the pod's questions.
fn serve<R>(context: &Context<R>, services: &mut ServiceAddresses) -> io::Result<Resolver> {
    let address = own_address(std::process::id());
    let sockets = dns::Sockets::new(sockets(SocketAddr::new(address, 0))?)?;
    let (udp, tcp) = (sockets.udp.local_addr()?, sockets.tcp.local_addr()?);
    let asked_at = resolver_address(address, udp, tcp);
    services.set_resolver(&context.cluster.borrow(), asked_at)?;
    let cluster = Rc::clone(&context.cluster);
    let namespace = context.launch.plan.namespace.clone();
    Ok(Resolver {
        address,
        _serving: dns::serve(sockets, cluster, namespace, address),
    })
}

/// An address of loopback that no other process has: from the quarter of them that begins with 127.64, by the process's
/// number, which has at most 22 bits.
fn own_address(pid: u32) -> IpAddr {
    const FIRST: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 0);
    const MASK: u32 = (1 << 22) - 1;
    Ipv4Addr::from_bits(FIRST.to_bits() | pid & MASK).into()
}

impl MachineNetwork {
    /// Where the pod's resolver is asked, if it has one.
    pub(super) fn resolver(&self) -> Option<IpAddr> {
        self.resolver.as_ref().ok().map(|resolver| resolver.address)
    }

    /// Why the pod has none although it asks for one.
    pub(super) fn refusal(&self) -> Option<&io::Error> {
        match &self.resolver {
            Err(NoResolver::Refused(error)) => Some(error),
            Err(NoResolver::NotAsked) | Ok(_) => None,
        }
    }

    fn update<R>(&mut self, context: &Context<R>) {
        self.services.update(context);
        let unreachable = |ip: &IpAddr| matches!(network::has_route_to(*ip), Ok(false));
        if !self.has_told_of_routes
            && let Some(ip) = self.services.examples().find(unreachable)
        {
            self.has_told_of_routes = true;
            let ranges = RANGES.iter();
            let range = ranges.clone().find(|(of, _)| of.is_ipv4() == ip.is_ipv4());
            let (range, prefix) = range.copied().unwrap_or((ip, 32));
            complain(
                context,
                format!(
                    "Services' addresses such as {ip} cannot be reached from the machine's network, which this pod has: there is \
                     no route, not even a default one; make one with `ip route add {range}/{prefix} dev lo`"
                ),
            );
        }
    }
}

/// Has the table say what is known now.
pub(super) fn update<R>(context: &Context<R>) {
    if let Some(network) = context.machine_network.borrow_mut().as_mut() {
        network.update(context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_has_an_address_of_its_own() {
        let check = |pid, expected: &str| assert_eq!(own_address(pid).to_string(), expected);
        check(1, "127.64.0.1");
        check(65_536, "127.65.0.0");
        check((1 << 22) - 1, "127.127.255.255");
    }
}
