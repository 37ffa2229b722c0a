//! The bridge that pods of one run folder share: the machine's end of it is their gateway.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::Error;
use super::firewall;
use super::netlink::{IfThere, Refused, Request, Route};
use super::nft;
use super::subnet::{self, Subnet};
use crate::sys::netns::NetNs;
use crate::sys::{fs, identity};

/// The offset of the gateway's address in its subnet.
const GATEWAY: u16 = 1;
/// What links have if the machine has no way out.
const USUAL_MTU: u32 = 1500;

/// A bridge as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bridge {
    pub(super) name: String,
    /// Its hardware address: tells it from another network's bridge of the same name.
    hardware_address: Vec<u8>,
    /// IPv4, and IPv6 where the machine has it.
    pub(super) subnets: Vec<Subnet>,
    /// Bytes of the largest packet.
    mtu: u32,
    /// What pods cannot do, and why.
    pub(super) limits: Vec<String>,
}

impl Bridge {
    /// Chooses a name and subnets that nobody has, those of `before` if they are still free. To be called with the lock
    /// of the network namespace, so that two do not choose the same, which is held until the bridge is made. The subnet
    /// overlaps with none of `taken` either.
    pub(super) fn choose(before: Option<&Self>, taken: &[Subnet]) -> Result<Self, Error> {
        let mut route = Route::open().map_err(Refused::at("open a netlink socket"))?;
        let links = links(&mut route)?;
        let mut routes = Routes::read(&mut route)?;
        routes.taken.extend(taken);
        let kept = before.and_then(|bridge| bridge.subnets.first());
        let ipv4 = kept
            .copied()
            .filter(|subnet| routes.is_free(subnet))
            .or_else(|| subnet::candidates().find(|subnet| routes.is_free(subnet)))
            .ok_or(Error::NoSubnet)?;
        let random = identity::random_bytes().map_err(Refused::at("get random numbers"))?;
        let [a, b, c, d, e, f, g, h, i, j, k, ..] = random;
        let ipv6 = before.and_then(|bridge| bridge.subnets.get(1)).copied();
        let ipv6 = ipv6.unwrap_or_else(|| Subnet {
            // A unique local one (RFC 4193).
            address: Ipv6Addr::from([0xfd, a, b, c, d, e, f, g, 0, 0, 0, 0, 0, 0, 0, 0]).into(),
            prefix: 64,
        });
        let name = (0..)
            .map(|number| format!("kplay{number}"))
            .find(|name| !links.iter().any(|link| link.name == *name))
            .unwrap_or_default();
        let mtu = routes
            .uplink
            .and_then(|index| links.iter().find(|link| link.index == index))
            .map_or(USUAL_MTU, |link| link.mtu);
        Ok(Self {
            name,
            hardware_address: vec![0x0a, 0x58, h, i, j, k],
            subnets: vec![ipv4, ipv6],
            mtu,
            limits: Vec::new(),
        })
    }

    /// Makes what was chosen; without IPv6 where the machine has none. On an error, nothing is left.
    pub(super) fn make(mut self) -> Result<Self, Error> {
        if let Err(error) = self.set_up() {
            if let Err(error) = self.remove() {
                tracing::error!(%error, "cannot remove a bridge that was made in vain");
            }
            return Err(error.into());
        }
        Ok(self)
    }

    fn set_up(&mut self) -> Result<(), Refused> {
        let mut route = Route::open().map_err(Refused::at("open a netlink socket"))?;
        let mut link = up(named(&self.name));
        link.attributes.extend([
            LinkAttribute::Address(self.hardware_address.clone()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ]);
        route.request(vec![make(
            "make the bridge",
            RouteNetlinkMessage::NewLink(link),
        )])?;
        let index = find(&mut route, &self.name)?.map_or(0, |link| link.index);
        let gateway = |subnet: Subnet| {
            let message = address(index, subnet.at(GATEWAY), subnet.prefix);
            make("give the bridge its address", message)
        };
        let [ipv4, ipv6] = self.subnets[..] else {
            return Ok(());
        };
        route.request(vec![gateway(ipv4)])?;
        if let Err(error) = route.request(vec![gateway(ipv6)]) {
            tracing::debug!(error = %error.source, "no IPv6");
            self.subnets.truncate(1);
        }
        self.open_way_out();
        Ok(())
    }

    /// What pods need in order to reach more than each other and the machine. They run without it.
    fn open_way_out(&mut self) {
        if let Err(error) = nft::masquerade(&self.name, &self.subnets) {
            self.limits.push(format!(
                "pods reach each other and this machine only: the kernel refuses to masquerade for them with nftables ({error})"
            ));
        }
        let forwarding = Path::new("/proc/sys/net/ipv4/ip_forward");
        let is_on = fs::read(forwarding).is_ok_and(|value| value.starts_with(b"1"));
        if !is_on && let Err(error) = fs::write_setting(forwarding, b"1") {
            self.limits.push(format!(
                "pods reach each other and this machine only: {error} ({}); allow it with `sysctl -w net.ipv4.ip_forward=1`",
                error.kind()
            ));
        }
        self.limits.extend(firewall::limits(&self.name));
    }

    /// Its hardware address, in the usual notation.
    #[cfg(test)]
    pub(super) fn hardware_address(&self) -> String {
        let bytes = self.hardware_address.iter();
        bytes
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(":")
    }

    /// Whether it is still there.
    pub(super) fn exists(&self) -> Result<bool, Refused> {
        let mut route = Route::open().map_err(Refused::at("open a netlink socket"))?;
        let found = find(&mut route, &self.name)?;
        Ok(found.is_some_and(|link| link.hardware_address == self.hardware_address))
    }

    /// Removes it with its rules, also those of one that somebody else has removed; fine if all is gone. To be called with
    /// the lock of the network namespace, so that the name does not become another one's meanwhile.
    pub(super) fn remove(&self) -> Result<(), Refused> {
        let mut route = Route::open().map_err(Refused::at("open a netlink socket"))?;
        let found = find(&mut route, &self.name)?;
        if found.is_some_and(|link| link.hardware_address != self.hardware_address) {
            return Ok(());
        }
        let remove_table = || {
            // A kernel without nftables has no rules either.
            if let Err(error) = nft::remove_table(&self.name) {
                tracing::debug!(%error, "no table to remove");
            }
        };
        // The kernel waits for grace periods in both, of which each may take tens of milliseconds.
        std::thread::scope(|scope| {
            let removal = std::thread::Builder::new().spawn_scoped(scope, remove_table);
            let result = remove_link(&mut route, &self.name);
            if removal.is_err() {
                remove_table();
            }
            result
        })
    }

    /// Removes the link of the pod at this offset, and the bridge if no other pod is linked to it. With the lock of the
    /// network namespace.
    pub(super) fn leave(&self, offset: u16) -> Result<(), Refused> {
        let mut route = Route::open().map_err(Refused::at("open a netlink socket"))?;
        let found = find(&mut route, &self.name)?;
        let own = found.filter(|link| link.hardware_address == self.hardware_address);
        let Some(own) = own else { return Ok(()) };
        remove_link(&mut route, &self.link_name(offset))?;
        let links = links(&mut route)?;
        match links.iter().any(|link| link.bridge == Some(own.index)) {
            true => Ok(()),
            false => self.remove(),
        }
    }

    /// Links a pod's network namespace to the bridge, with the addresses at this offset. On an error, nothing is left.
    pub(super) fn connect(&self, netns: &NetNs, offset: u16) -> Result<Vec<IpAddr>, Refused> {
        let open = |result: io::Result<Route>| result.map_err(Refused::at("open a netlink socket"));
        let mut route = open(Route::open())?;
        let bridge = find(&mut route, &self.name)?.map_or(0, |link| link.index);
        let outside = self.link_name(offset);
        let ips: Vec<IpAddr> = self
            .subnets
            .iter()
            .map(|subnet| subnet.at(offset))
            .collect();
        let mut inside = named("eth0");
        inside.attributes.extend([
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::Address(hardware_address(&ips)),
            LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()),
        ]);
        let mut link = up(named(&outside));
        link.attributes.extend([
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::Controller(bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inside))),
            ]),
        ]);
        let link = || {
            make(
                "make the pod's link",
                RouteNetlinkMessage::NewLink(link.clone()),
            )
        };
        if let Err(error) = route.request(vec![link()]) {
            if error.source.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            // The kernel has not cleaned up yet after the pod that had it before.
            remove_link(&mut route, &outside)?;
            route.request(vec![link()])?;
        }
        let mut within = open(netns.visit(Route::open))?;
        if let Err(error) = self.configure(&mut within, &ips) {
            remove_link(&mut route, &outside)?;
            return Err(error);
        }
        Ok(ips)
    }

    /// Gives a pod's end of its link addresses, and the ways out.
    fn configure(&self, route: &mut Route, ips: &[IpAddr]) -> Result<(), Refused> {
        let index = find(route, "eth0")?.map_or(0, |link| link.index);
        // It cannot be made so: a link whose other end is not made yet stays down.
        let mut requests = vec![Request {
            step: "set the pod's link up",
            message: RouteNetlinkMessage::SetLink(up(named("eth0"))),
            if_there: IfThere::Change,
        }];
        for (subnet, ip) in self.subnets.iter().zip(ips) {
            requests.push(make(
                "give the pod its address",
                address(index, *ip, subnet.prefix),
            ));
            requests.push(make(
                "give the pod a way out",
                default_route(index, subnet.at(GATEWAY)),
            ));
        }
        route.request(requests)
    }

    /// The machine's end of a pod's link.
    fn link_name(&self, offset: u16) -> String {
        format!("{}-{offset}", self.name)
    }

    /// How many pods it can have.
    pub(super) fn capacity(&self) -> u16 {
        let bits = self.subnets.first().map_or(0, |subnet| 32 - subnet.prefix);
        // Neither the subnet's own address nor the gateway's nor that for all.
        (1 << bits) - 3
    }
}

/// The hardware address of a pod's interface: from its address, as the bridge plugin of CNI makes it.
fn hardware_address(ips: &[IpAddr]) -> Vec<u8> {
    let octets = match ips.first() {
        Some(IpAddr::V4(ip)) => ip.octets(),
        _ => [0; 4],
    };
    [0x0a, 0x58].into_iter().chain(octets).collect()
}

/// Gives the loopback interface of a network namespace one more address.
///
/// # Errors
/// The kernel refuses.
pub fn add_loopback_address(netns: &NetNs, ip: IpAddr) -> Result<(), Refused> {
    const LOOPBACK: u32 = 1;
    let prefix = if ip.is_ipv4() { 32 } else { 128 };
    let route = netns.visit(Route::open);
    let mut route = route.map_err(Refused::at("open a netlink socket"))?;
    let address = address(LOOPBACK, ip, prefix);
    route.request(vec![make(
        "give the loopback interface an address",
        address,
    )])
}

fn make(step: &'static str, message: RouteNetlinkMessage) -> Request {
    Request {
        step,
        message,
        if_there: IfThere::Fail,
    }
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn up(mut link: LinkMessage) -> LinkMessage {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn address_family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// An address for an interface. Nobody is asked whether somebody has it: that takes seconds.
fn address(index: u32, ip: IpAddr, prefix: u8) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = address_family(ip);
    message.header.prefix_len = prefix;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Address(ip), AddressAttribute::Local(ip)];
    RouteNetlinkMessage::NewAddress(message)
}

fn default_route(index: u32, gateway: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: address_family(gateway),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Gateway(gateway.into()),
        RouteAttribute::Oif(index),
    ];
    RouteNetlinkMessage::NewRoute(message)
}

/// What matters of an interface.
#[derive(Clone, Debug, Default)]
struct Link {
    index: u32,
    name: String,
    mtu: u32,
    hardware_address: Vec<u8>,
    /// The number of the bridge that it is linked to.
    bridge: Option<u32>,
}

impl Link {
    fn read(message: RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewLink(message) = message else {
            return None;
        };
        let mut link = Self {
            index: message.header.index,
            ..Self::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(address) => link.hardware_address = address,
                LinkAttribute::Controller(index) => link.bridge = Some(index),
                _ => {}
            }
        }
        Some(link)
    }
}

fn links(route: &mut Route) -> Result<Vec<Link>, Refused> {
    let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let found = route.dump(all).map_err(Refused::at("list the links"))?;
    Ok(found.into_iter().filter_map(Link::read).collect())
}

/// The interface of this name, if there is one.
fn find(route: &mut Route, name: &str) -> Result<Option<Link>, Refused> {
    match route.get(RouteNetlinkMessage::GetLink(named(name))) {
        Ok(found) => Ok(found.and_then(Link::read)),
        Err(error) => {
            let refused = Refused::at("look for a link")(error);
            if refused.is_missing() {
                Ok(None)
            } else {
                Err(refused)
            }
        }
    }
}

/// Removes an interface; fine if it is gone.
fn remove_link(route: &mut Route, name: &str) -> Result<(), Refused> {
    let removal = Request {
        step: "remove a link",
        message: RouteNetlinkMessage::DelLink(named(name)),
        if_there: IfThere::Change,
    };
    match route.request(vec![removal]) {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    }
}

/// The subnets that the network of this thread knows where to send.
pub(super) fn routed() -> Result<Vec<Subnet>, Refused> {
    let mut route = Route::open().map_err(Refused::at("open a netlink socket"))?;
    let routes = Routes::read(&mut route)?;
    // The way to the world is the way to them all.
    Ok(routes
        .taken
        .into_iter()
        .filter(|subnet| subnet.prefix > 0)
        .collect())
}

/// Where the machine sends packets.
#[derive(Debug, Default)]
struct Routes {
    taken: Vec<Subnet>,
    /// The interface that leads to the world.
    uplink: Option<u32>,
}

impl Routes {
    fn read(route: &mut Route) -> Result<Self, Refused> {
        let mut all = RouteMessage::default();
        all.header.address_family = AddressFamily::Inet;
        let all = RouteNetlinkMessage::GetRoute(all);
        let mut routes = Self::default();
        for message in route.dump(all).map_err(Refused::at("list the routes"))? {
            let RouteNetlinkMessage::NewRoute(message) = message else {
                continue;
            };
            let prefix = message.header.destination_prefix_length;
            for attribute in message.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                        let address = ip.into();
                        routes.taken.push(Subnet { address, prefix });
                    }
                    RouteAttribute::Oif(index) if prefix == 0 => {
                        routes.uplink.get_or_insert(index);
                    }
                    _ => {}
                }
            }
        }
        Ok(routes)
    }

    fn is_free(&self, subnet: &Subnet) -> bool {
        !self.taken.iter().any(|taken| taken.overlaps(subnet))
    }
}
