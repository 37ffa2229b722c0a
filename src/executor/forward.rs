//! Published ports: listens on the host and connects from inside the pod's network namespace.
//!
//! In user space, so that it is the same for root and rootless, works for 127.0.0.1 and ::1, and needs no firewall
//! rules. The price is that the pod sees its own address as the client's. All runs on the executor's one thread.
//!
//! A connection at rest costs two sockets and one small task, no buffer: bytes go through a buffer on the stack,
//! and only what the other end does not take at once is kept. SCTP is not published.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::model::plan::Protocol;
use crate::sys::inet;
use crate::sys::netns::NetNs;
use crate::sys::relay;

mod datagram;
#[cfg(test)]
mod tests;

/// Why a port cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("port {} of {} is in use", address.port(), address.ip())]
    InUse {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("{} is not an address of this machine", address.ip())]
    NoSuchAddress {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("may not listen on port {} of {}", address.port(), address.ip())]
    NotAllowed {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot listen on port {} of {}", address.port(), address.ip())]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot publish port {port}: {} is not supported", protocol_name(*protocol))]
    Unsupported { port: u16, protocol: Protocol },
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// One port to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Publication {
    pub protocol: Protocol,
    /// The host's address to listen on; all of them, IPv4 and IPv6, if there is none.
    pub host_ip: Option<IpAddr>,
    /// 0 takes any free port.
    pub host_port: u16,
    /// The pod's port to connect to.
    pub container_port: u16,
    pub sharing: Sharing,
}

/// Whether others may listen on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing {
    Exclusive,
    /// All who say so; the kernel spreads connections over them.
    Shared,
}

/// Ports that are taken; whoever connects waits until [`Bound::serve`].
#[derive(Debug)]
pub struct Bound(Vec<(Listener, u16)>);

#[derive(Debug)]
enum Listener {
    Stream(TcpListener),
    Datagram(UdpSocket),
}

impl Listener {
    /// A published port has one or two of them.
    fn bind(publication: &Publication) -> Result<Vec<Self>, Error> {
        match publication.protocol {
            Protocol::Tcp => Ok(vec![Self::Stream(listen(publication)?)]),
            Protocol::Udp => {
                let sockets = datagram::bind(publication)?;
                Ok(sockets.into_iter().map(Self::Datagram).collect())
            }
            protocol @ Protocol::Sctp => Err(Error::Unsupported {
                port: publication.host_port,
                protocol,
            }),
        }
    }

    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Stream(listener) => listener.local_addr(),
            Self::Datagram(socket) => socket.local_addr(),
        }
    }
}

impl Bound {
    /// Takes all ports, or none of them. To be called within a tokio runtime.
    ///
    /// # Errors
    /// One of them cannot be had.
    pub fn bind(publications: &[Publication]) -> Result<Self, Error> {
        let mut listeners = Vec::new();
        for publication in publications {
            let bound = Listener::bind(publication)?.into_iter();
            listeners.extend(bound.map(|listener| (listener, publication.container_port)));
        }
        Ok(Self(listeners))
    }

    /// The host's addresses that are listened on, in the order of the publications. For UDP without an address
    /// these are two, of IPv4 and of IPv6.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.0
            .iter()
            .map(|(listener, _)| listener.address())
            .collect()
    }

    /// Starts to forward to the pod, from inside its network namespace. A server that listens at only one of its
    /// addresses is found; datagrams go to the first.
    #[must_use]
    pub fn serve(self, netns: NetNs, pod_ips: &[IpAddr]) -> Forwarder {
        let datagram_sockets = self.0.iter();
        let datagram_sockets = datagram_sockets
            .filter(|(listener, _)| matches!(listener, Listener::Datagram(_)))
            .count();
        let limits = Limits::new(inet::open_files_limit(), datagram_sockets);
        self.serve_within(netns, pod_ips, limits)
    }

    fn serve_within(self, netns: NetNs, pod_ips: &[IpAddr], limits: Limits) -> Forwarder {
        let pod = Arc::new(Pod {
            netns,
            ips: pod_ips.to_vec(),
            connections: Arc::new(Semaphore::new(limits.connections)),
        });
        let start = |(listener, port)| {
            let pod = Arc::clone(&pod);
            match listener {
                Listener::Stream(listener) => Some(tokio::spawn(accept(listener, port, pod))),
                Listener::Datagram(socket) => {
                    let target = SocketAddr::new(*pod.ips.first()?, port);
                    let limits = limits.datagrams;
                    Some(tokio::spawn(datagram::forward(socket, target, pod, limits)))
                }
            }
        };
        Forwarder {
            listeners: self.0.into_iter().filter_map(start).collect(),
        }
    }
}

/// The ports of a pod, being forwarded. Dropping it stops listening as [`Forwarder::shutdown`] does, a little later.
#[derive(Debug)]
pub struct Forwarder {
    listeners: Vec<JoinHandle<()>>,
}

impl Forwarder {
    /// Gives the ports back. Connections go on until one of their ends closes them; sessions of datagrams end.
    pub async fn shutdown(mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
        for listener in self.listeners.drain(..) {
            // It ends because it was aborted, which is no news.
            listener.await.ok();
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
    }
}

/// Where connections go.
#[derive(Debug)]
struct Pod {
    netns: NetNs,
    ips: Vec<IpAddr>,
    /// One permit per connection.
    connections: Arc<Semaphore>,
}

/// How much may go on at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    /// Of all ports together.
    connections: usize,
    /// Of each socket for datagrams.
    datagrams: datagram::Limits,
}

impl Limits {
    /// A quarter of the open files remains for what else the executor has to do, and a quarter is for sessions of
    /// datagrams if there can be any. A connection takes two sockets, a session one.
    fn new(open_files: u64, datagram_sockets: usize) -> Self {
        /// To find the one to end, all sessions of a socket are looked at.
        const MOST_SESSIONS: usize = 1024;
        const IDLE: Duration = Duration::from_secs(30);
        let quarter = open_files / 4;
        let for_sessions = if datagram_sockets == 0 { 0 } else { quarter };
        let connections = (open_files - quarter - for_sessions) / 2;
        let sessions = usize::try_from(for_sessions).unwrap_or(usize::MAX);
        Self {
            connections: usize::try_from(connections)
                .unwrap_or(usize::MAX)
                .clamp(1, Semaphore::MAX_PERMITS),
            datagrams: datagram::Limits {
                sessions: (sessions / datagram_sockets.max(1)).clamp(1, MOST_SESSIONS),
                idle: IDLE,
            },
        }
    }
}

fn listen(publication: &Publication) -> Result<TcpListener, Error> {
    let port = publication.host_port;
    let Some(ip) = publication.host_ip else {
        return listen_everywhere(port, publication.sharing);
    };
    let address = SocketAddr::new(ip, port);
    listen_on(address, address, publication.sharing)
}

/// One socket for IPv6 and IPv4; on a machine without IPv6, for IPv4.
fn listen_everywhere(port: u16, sharing: Sharing) -> Result<TcpListener, Error> {
    let all_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match listen_on(all, all_v4, sharing) {
        Err(Error::Listen { source, .. } | Error::NoSuchAddress { source, .. })
            if inet::is_without_ipv6(&source) =>
        {
            listen_on(all_v4, all_v4, sharing)
        }
        other => other,
    }
}

/// Listens on `address`; an error names `named`.
fn listen_on(
    address: SocketAddr,
    named: SocketAddr,
    sharing: Sharing,
) -> Result<TcpListener, Error> {
    const BACKLOG: u32 = 4096;
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            inet::set_dual_stack(&socket)?;
        }
        // A port whose last connections the kernel still remembers is free nevertheless.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(sharing == Sharing::Shared)?;
        // Handed down to the connections: clients that vanish do not keep their sockets for ever.
        socket.set_keepalive(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|e| cannot_listen(named, e))
}

fn cannot_listen(address: SocketAddr, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::AddrInUse => Error::InUse { address, source },
        io::ErrorKind::AddrNotAvailable => Error::NoSuchAddress { address, source },
        io::ErrorKind::PermissionDenied => Error::NotAllowed { address, source },
        _ => Error::Listen { address, source },
    }
}

/// Takes connections as long as there are permits; the others wait in the kernel.
async fn accept(listener: TcpListener, port: u16, pod: Arc<Pod>) {
    /// How long to leave the kernel alone when it has no more descriptors or memory.
    const PAUSE: Duration = Duration::from_millis(100);
    let mut is_failing = false;
    loop {
        let Ok(permit) = Arc::clone(&pod.connections).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, from)) => {
                is_failing = false;
                let pod = Arc::clone(&pod);
                tokio::spawn(async move {
                    if let Err(error) = forward(client, port, &pod).await {
                        tracing::debug!(%from, port, %error, "a forwarded connection failed");
                    }
                    drop(permit);
                });
            }
            // The client went away before it was taken.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, port, "cannot take connections, trying again");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Forwards one connection. The client sees a failure as a reset: a service that is not there, and one that died,
/// must not look like one that closed.
async fn forward(mut client: TcpStream, port: u16, pod: &Pod) -> io::Result<()> {
    let mut server = match connect(port, pod).await {
        Ok(server) => server,
        Err(e) => {
            client.set_zero_linger()?;
            return Err(e);
        }
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let relayed = relay::relay(&mut client, &mut server).await;
    if relayed.is_err() {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    relayed
}

/// Connects to the first of the pod's addresses at which somebody listens.
async fn connect(port: u16, pod: &Pod) -> io::Result<TcpStream> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for ip in &pod.ips {
        let target = SocketAddr::new(*ip, port);
        // A socket belongs to the namespace in which it was made, wherever it is connected from.
        let socket = pod.netns.visit(|| match target {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        })?;
        match socket.connect(target).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused = error,
            other => return other,
        }
    }
    Err(refused)
}
