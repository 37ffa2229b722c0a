//! Ways of the machine's packets.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Route;

/// Whether the machine knows where to send what goes to this address.
///
/// # Errors
/// The kernel does not say.
pub fn has_route_to(ip: IpAddr) -> io::Result<bool> {
    let mut message = RouteMessage::default();
    (
        message.header.address_family,
        message.header.destination_prefix_length,
    ) = match ip {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.attributes = vec![RouteAttribute::Destination(ip.into())];
    match Route::open()?.get(RouteNetlinkMessage::GetRoute(message)) {
        Ok(_) => Ok(true),
        Err(e) if is_unreachable(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
    )
}
