//! Datagram sockets (UDP) that know at which of the machine's addresses they were asked, and answer from there.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

/// One of the machine's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    ip: IpAddr,
    /// The index of its interface, where the address alone does not tell; otherwise 0, and routing decides.
    interface: u32,
}

/// What is known of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// In bytes.
    pub len: usize,
    pub from: SocketAddr,
    /// The address that was asked, or the machine's own one behind it if that was a broadcast address.
    pub to: Option<Local>,
}

/// A socket for [`receive`] and [`send`] that does not block. For IPv6 only, if it is for IPv6.
///
/// # Errors
/// The address cannot be had.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    bind_socket(socket(address)?, address)
}

/// As [`bind`], at an address that others may share: the kernel spreads those who ask over them.
///
/// # Errors
/// The address cannot be had.
pub fn bind_shared(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address)?;
    rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
    bind_socket(socket, address)
}

fn bind_socket(socket: OwnedFd, address: SocketAddr) -> io::Result<UdpSocket> {
    match address {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        SocketAddr::V6(_) => {
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket.into())
}

/// A socket that does not block and talks with nobody but `target`. Unlike one that is bound first, it never
/// gets what others send.
///
/// # Errors
/// The target cannot be reached from here.
pub fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(target)?;
    rustix::net::connect(&socket, &target)?;
    Ok(socket.into())
}

/// Takes one datagram; what does not fit into the buffer is lost.
///
/// # Errors
/// `WouldBlock`; what the kernel says.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut content = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_fd().as_raw_fd(),
        &mut content,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let from = message.address.as_ref().and_then(socket_address);
    Ok(Received {
        len: message.bytes,
        from: from.ok_or(io::ErrorKind::InvalidData)?,
        to: message.cmsgs()?.find_map(|control| local(&control)),
    })
}

/// Sends one datagram, from one of the machine's addresses if it is given.
///
/// # Errors
/// `WouldBlock`; `from` is no longer an address of the machine; what else the kernel says.
pub fn send(
    socket: impl AsFd,
    bytes: &[u8],
    from: Option<Local>,
    to: SocketAddr,
) -> io::Result<()> {
    let (v4, v6);
    let control = match from.map(|from| (from.ip, from.interface)) {
        Some((IpAddr::V4(ip), _)) => {
            v4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(ip.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            Some(ControlMessage::Ipv4PacketInfo(&v4))
        }
        Some((IpAddr::V6(ip), interface)) => {
            v6 = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                ipi6_ifindex: interface,
            };
            Some(ControlMessage::Ipv6PacketInfo(&v6))
        }
        None => None,
    };
    sendmsg(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(bytes)],
        control.as_slice(),
        MsgFlags::empty(),
        Some(&SockaddrStorage::from(to)),
    )?;
    Ok(())
}

/// Sends one datagram on a socket that is connected.
///
/// # Errors
/// `WouldBlock`; what became of an earlier datagram, in which case this one is not sent; what else the kernel says.
pub fn send_to_peer(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    rustix::net::send(socket, bytes, SendFlags::empty())?;
    Ok(())
}

fn socket(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::DGRAM, flags, None)
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| {
        let v6 = address.as_sockaddr_in6()?;
        Some(SocketAddr::V6((*v6).into()))
    })
}

fn local(control: &ControlMessageOwned) -> Option<Local> {
    match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Local {
            // Never a broadcast or multicast address, unlike `ipi_addr`.
            ip: IpAddr::V4(info.ipi_spec_dst.s_addr.to_ne_bytes().into()),
            interface: 0,
        }),
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let ip = std::net::Ipv6Addr::from(info.ipi6_addr.s6_addr);
            let interface = if ip.is_unicast_link_local() {
                info.ipi6_ifindex
            } else {
                0
            };
            // Nothing can be sent from a multicast address.
            (!ip.is_multicast()).then_some(Local {
                ip: IpAddr::V6(ip),
                interface,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_from_where_was_asked() {
        let check = |wildcard: &str, asked: &str| {
            let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 0);
            let Ok(client) = UdpSocket::bind(at(asked)) else {
                // A machine without IPv6.
                return;
            };
            let server = bind(at(wildcard)).unwrap();
            let nothing = receive(&server, &mut [0; 8]).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock, "{asked}");
            let asked =
                SocketAddr::new(asked.parse().unwrap(), server.local_addr().unwrap().port());
            client.send_to(b"hello", asked).unwrap();
            let mut buffer = [0; 8];
            // Loopback delivers before `send_to` returns.
            let received = receive(&server, &mut buffer).unwrap();
            assert_eq!(&buffer[..received.len], b"hello");
            assert_eq!(received.from, client.local_addr().unwrap());
            assert_eq!(received.to.unwrap().ip, asked.ip());
            send(&server, b"", received.to, received.from).unwrap();
            assert_eq!(client.recv_from(&mut buffer).unwrap(), (0, asked));
        };
        check("0.0.0.0", "127.0.0.1");
        check("0.0.0.0", "127.0.0.2");
        check("127.0.0.3", "127.0.0.3");
        check("::", "::1");
        check("::1", "::1");
    }
}
