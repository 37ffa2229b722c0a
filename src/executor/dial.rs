//! Connections of probes and lifecycle hooks, and the kubelet's words for those that fail.
//!
//! Who names no host means the pod, and is connected inside the pod's network namespace. A host that is named is
//! connected from the machine, as a kubelet does.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;

use futures_util::future::{Either, select};
use hickory_resolver::TokioResolver;
use tokio::net::{TcpSocket, TcpStream};

use super::context::Context;
use super::pod_network::PodNetwork;
use crate::sys::fs;
use crate::sys::netns::NetNs;

/// The ways to a pod. Holds its network namespace.
#[derive(Debug)]
pub(super) struct Network {
    /// None if the pod is in the machine's.
    pod: Option<NetNs>,
    /// `status.podIP`, the pod's address for those who name no host: what listens on 127.0.0.1 only is not reached, as
    /// on a kubelet.
    ip: IpAddr,
}

impl Network {
    /// The network of a pod.
    pub(super) fn of<R>(context: &Context<R>) -> Result<Self, fs::Error> {
        let network = context.network.borrow();
        let pod = network.as_ref().map(PodNetwork::namespace);
        if pod.is_none() && !context.launch.plan.host_network {
            let gone = io::Error::from(io::ErrorKind::NotFound);
            return Err(fs::Error::new("enter", "the pod's network", gone));
        }
        drop(network);
        // A machine without a way out has no address but this.
        let ip = context.pod_ips().first().copied();
        Ok(Self {
            pod,
            ip: ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        })
    }

    #[cfg(test)]
    pub(super) fn new(pod: Option<NetNs>) -> Self {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self { pod, ip }
    }

    /// How a host is called in addresses and messages.
    pub(super) fn name(&self, host: Option<&str>) -> String {
        host.map_or_else(|| self.ip.to_string(), str::to_owned)
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub(super) fn host_and_port(&self, host: Option<&str>, port: u16) -> String {
        let name = self.name(host);
        if name.contains(':') {
            format!("[{name}]:{port}")
        } else {
            format!("{name}:{port}")
        }
    }

    /// Connects to the pod as its containers do by the name `localhost`. If nobody is there, the error is that of IPv4.
    pub(super) async fn connect_within(&self, port: u16) -> Result<TcpStream, Error> {
        let to = |ip| connect(SocketAddr::new(ip, port), self.pod.as_ref());
        match to(Ipv4Addr::LOCALHOST.into()).await {
            Ok(stream) => Ok(stream),
            Err(error) => to(Ipv6Addr::LOCALHOST.into()).await.map_err(|_| error),
        }
    }

    /// Connects to a host, or to the pod.
    pub(super) async fn connect(&self, host: Option<&str>, port: u16) -> Result<TcpStream, Error> {
        let Some(host) = host else {
            let address = SocketAddr::new(self.ip, port);
            return connect(address, self.pod.as_ref()).await;
        };
        let mut result = Err(Error::lookup(host, "no such host"));
        for ip in addresses(host).await? {
            result = connect(SocketAddr::new(ip, port), None).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

/// Makes an exchange over a connection that does its work when it is polled.
pub(super) async fn drive<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    match select(pin!(exchange), pin!(connection)).await {
        Either::Left((outcome, _)) => outcome,
        // What it has read when it ends is still to be taken from it.
        Either::Right((_, exchange)) => exchange.await,
    }
}

async fn connect(address: SocketAddr, namespace: Option<&NetNs>) -> Result<TcpStream, Error> {
    let make = || match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    // A socket belongs to the namespace in which it was made, wherever it is connected from.
    let socket = match namespace {
        Some(namespace) => namespace.visit(make),
        None => make(),
    };
    let socket = socket.map_err(|source| Error::Socket { address, source })?;
    socket
        .connect(address)
        .await
        .map_err(|source| Error::Connect { address, source })
}

/// The addresses of a host. Without threads, which the system's own resolver would need.
async fn addresses(host: &str) -> Result<Vec<IpAddr>, Error> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    let failed = |error: hickory_resolver::net::NetError| {
        if error.is_no_records_found() {
            Error::lookup(host, "no such host")
        } else {
            Error::lookup(host, &error.to_string())
        }
    };
    let resolver = TokioResolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(failed)?;
    let found = resolver.lookup_ip(host).await.map_err(failed)?;
    Ok(found.iter().collect())
}

/// Why there is no connection, as Go says it: users know these texts from the events of a kubelet.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("dial tcp: lookup {host}: {reason}")]
    Lookup { host: String, reason: String },
    #[error("dial tcp {address}: socket: {}", Words(source))]
    Socket {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("dial tcp {address}: connect: {}", Words(source))]
    Connect {
        address: SocketAddr,
        source: io::Error,
    },
}

impl Error {
    fn lookup(host: &str, reason: &str) -> Self {
        Self::Lookup {
            host: host.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// An error of the kernel as Go prints it: the C library's words in lower case.
pub(super) struct Words<'a>(pub(super) &'a io::Error);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let words = text.split(" (os error ").next().unwrap_or_default();
        f.write_str(&words.to_lowercase())
    }
}
