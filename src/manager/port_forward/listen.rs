//! Where connections are taken.

use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use super::{Addresses, Destination, Fault, Local, PortPair, Remote};
use crate::manager::error::Error;
use crate::state::layout::Layout;
use crate::sys::inet;

/// A socket that takes connections.
#[derive(Debug)]
pub struct Listening {
    pub(super) socket: TcpListener,
    pub(super) local: u16,
    pub(super) remote: Remote,
}

/// Listens for all pairs of ports. Each socket is told with its address and the pod's port. Within a tokio runtime.
///
/// # Errors
/// The pod or Service is not there or has no such port: [`Error::NotFound`], [`Error::Forward`]; an address cannot be
/// listened at.
pub fn listen(
    layout: &Layout,
    destination: &Destination,
    pairs: &[PortPair],
    addresses: &[Addresses],
    tell: &mut dyn FnMut(SocketAddr, u16),
) -> Result<Vec<Listening>, Error> {
    // All are looked up before the first is listened at.
    let places = pairs
        .iter()
        .map(|pair| destination.find(layout, &pair.remote));
    let places = places.collect::<Result<Vec<_>, Error>>()?;
    let mut listening = Vec::new();
    for (pair, place) in pairs.iter().zip(places) {
        let mut local = match pair.local {
            Local::Free => 0,
            Local::Port(port) => port,
            Local::Same => place.named,
        };
        for ip in addresses.iter().flat_map(|addresses| addresses.all()) {
            let address = SocketAddr::new(*ip, local);
            let socket = match socket(address) {
                Ok(socket) => socket,
                // A machine without it is as good as any other.
                Err(source) if addresses.contains(&Addresses::Localhost) && is_optional(*ip) => {
                    tracing::debug!(%address, error = %source, "not listened at");
                    continue;
                }
                Err(source) => return Err(Fault::Listen { address, source }.into()),
            };
            // A free port is the same at all addresses.
            let address = socket
                .local_addr()
                .map_err(|source| Fault::Listen { address, source })?;
            local = address.port();
            tell(address, place.port);
            listening.push(Listening {
                socket,
                local,
                remote: pair.remote.clone(),
            });
        }
    }
    Ok(listening)
}

/// Whether an address of `localhost` may be missing.
fn is_optional(ip: IpAddr) -> bool {
    ip == std::net::Ipv6Addr::LOCALHOST
}

fn socket(address: SocketAddr) -> std::io::Result<TcpListener> {
    const BACKLOG: u32 = 1024;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if address.is_ipv6() {
        inet::set_v6_only(&socket)?;
    }
    socket.set_reuseaddr(true)?;
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
