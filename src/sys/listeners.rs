//! Who listens at the ports of this machine.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// What is listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// Whether others may listen at the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Exclusive,
    /// With all of this user's that say so (`SO_REUSEPORT`).
    Shared,
}

/// A program that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub pid: u32,
    pub name: String,
}

/// Whether somebody's socket keeps one from listening at a port of an address, or of all IPv4 and IPv6 addresses. What
/// else may be in the way does not count.
#[must_use]
pub fn is_in_use(ip: Option<IpAddr>, port: u16, transport: Transport, sharing: Sharing) -> bool {
    let all = [
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    ];
    let ips = ip.as_ref().map_or(&all[..], std::slice::from_ref);
    ips.iter().any(|ip| {
        let bound = bind(SocketAddr::new(*ip, port), transport, sharing);
        bound == Err(rustix::io::Errno::ADDRINUSE)
    })
}

/// Binds a socket that neither listens nor lives: nobody can connect to it.
fn bind(address: SocketAddr, transport: Transport, sharing: Sharing) -> rustix::io::Result<()> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let r#type = match transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, r#type, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        // IPv4 is asked for by itself, so that it counts where there is no IPv6.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if transport == Transport::Tcp {
        // Only those that listen are in the way.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    sockopt::set_socket_reuseport(&socket, sharing == Sharing::Shared)?;
    rustix::net::bind(&socket, &address)
}

/// The program that has a port, if it can be found: other users' are seen by root only.
#[must_use]
pub fn program(ip: Option<IpAddr>, port: u16, transport: Transport) -> Option<Program> {
    let tables = match transport {
        Transport::Tcp => ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"],
        Transport::Udp => ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"],
    };
    let lines = tables.iter().flat_map(|table| lines(Path::new(table)));
    let entries = lines.filter_map(|line| entry(&line, transport));
    let overlaps = |there: IpAddr| {
        there.is_unspecified() || ip.is_none_or(|ip| ip.is_unspecified() || ip == there)
    };
    let links: Vec<String> = entries
        .filter(|(address, _)| address.port() == port && overlaps(address.ip()))
        .map(|(_, inode)| format!("socket:[{inode}]"))
        .collect();
    if links.is_empty() {
        return None;
    }
    std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .find_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let has = |fd: std::fs::DirEntry| {
                std::fs::read_link(fd.path())
                    .is_ok_and(|link| links.iter().any(|wanted| link == Path::new(wanted)))
            };
            let mut fds = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
            fds.any(has).then(|| {
                let name = std::fs::read_to_string(process.path().join("comm"));
                Program {
                    pid,
                    name: name.unwrap_or_default().trim_end().to_owned(),
                }
            })
        })
}

fn lines(table: &Path) -> Vec<String> {
    let file = std::fs::File::open(table);
    file.map(|file| BufReader::new(file).lines().map_while(Result::ok).collect())
        .unwrap_or_default()
}

/// The address and the inode of a socket that takes connections or datagrams from anybody.
fn entry(line: &str, transport: Transport) -> Option<(SocketAddr, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let state = match transport {
        Transport::Tcp => "0A",
        Transport::Udp => "07",
    };
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (*fields.get(3)? == state).then_some(())?;
    let inode = fields.get(9)?;
    Some((SocketAddr::new(address(ip)?, port), (*inode).to_owned()))
}

/// Words of 32 bits as the kernel has them in memory.
fn address(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for at in (0..text.len()).step_by(8) {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::sys::netns::NetNs;
    use crate::sys::testing::eventually;

    fn check(address: &str, transport: Transport, port: u16, expected: bool) {
        let ip = (!address.is_empty()).then(|| address.parse().expect("an address"));
        let found = || is_in_use(ip, port, transport, Sharing::Exclusive);
        let own = || program(ip, port, transport).is_some_and(|one| one.pid == std::process::id());
        let what = format!("{address:?} {transport:?} {expected}");
        eventually(&what, || found() == expected && own() == expected);
    }

    /// Where no other test listens. Not without root.
    fn alone(test: fn()) {
        if rustix::process::geteuid().is_root() {
            let namespace = NetNs::fresh();
            namespace
                .visit(|| {
                    test();
                    Ok(())
                })
                .expect("the namespace can be entered");
        }
    }

    #[test]
    fn who_listens_is_in_the_way_and_is_found() {
        alone(streams);
    }

    #[test]
    fn datagrams_and_ipv6() {
        alone(other_sockets);
    }

    fn streams() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let port = address.port();
        check("", Transport::Tcp, port, true);
        check("127.0.0.1", Transport::Tcp, port, true);
        check("0.0.0.0", Transport::Tcp, port, true);
        check("127.0.0.2", Transport::Tcp, port, false);
        check("127.0.0.1", Transport::Udp, port, false);
        assert!(is_in_use(None, port, Transport::Tcp, Sharing::Shared));
        // What is left of connections is not.
        let client = TcpStream::connect(address).expect("connected");
        let server = listener.accept().expect("accepted").0;
        drop(listener);
        check("", Transport::Tcp, port, false);
        drop((server, client));
        check("", Transport::Tcp, port, false);
    }

    fn other_sockets() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();
        check("", Transport::Udp, port, true);
        check("127.0.0.1", Transport::Udp, port, true);
        if let Ok(listener) = TcpListener::bind("[::1]:0") {
            let port = listener.local_addr().expect("an address").port();
            check("", Transport::Tcp, port, true);
            check("::1", Transport::Tcp, port, true);
            check("127.0.0.1", Transport::Tcp, port, false);
        }
    }

    #[test]
    fn addresses_of_the_kernels_tables() {
        assert_eq!(address("00000000"), Some(Ipv4Addr::UNSPECIFIED.into()));
        let local = u32::from_ne_bytes([127, 0, 0, 1]);
        assert_eq!(
            address(&format!("{local:08X}")),
            Some(Ipv4Addr::LOCALHOST.into())
        );
        assert_eq!(address(&"0".repeat(32)), Some(Ipv6Addr::UNSPECIFIED.into()));
        assert_eq!(address("0"), None);
    }
}
