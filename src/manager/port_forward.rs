//! Ports of this machine that lead to ports of a pod: `port-forward`.
//!
//! The pod is looked up anew for every connection, so that one which comes back under its name is used, and of several
//! one that is ready. Its executor connects to its loopback and hands the connection over; bytes are copied here. UDP
//! is not forwarded.

mod listen;
mod lookup;
mod words;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpListener, TcpStream};

use super::client;
use super::error::Error;
use crate::model::names::{Namespace, PodKey};
use crate::state::layout::Layout;
use crate::sys::{inet, relay};

pub use listen::{Listening, listen};
pub use lookup::{Destination, Place};
pub use words::{Addresses, Local, PortPair, Remote};

/// Why ports cannot be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// `of` is kubectl's: `Pod 'web'`, `Service 'web'`.
    #[error("{of} does not have a port {port}")]
    NoPort { of: String, port: Remote },
    #[error("UDP is not forwarded: port {port} of {of} has no other protocol")]
    Udp { of: String, port: Remote },
    #[error("the Service `{0}` has no selector, so it has no pods")]
    NoSelector(String),
    #[error("no pod has the labels that the Service `{0}` selects")]
    NoPods(String),
    #[error("cannot listen at {address}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
}

/// What happens to connections.
#[derive(Debug)]
pub enum Notice {
    Accepted {
        local: u16,
    },
    Ended {
        from: SocketAddr,
        pod: PodKey,
        port: u16,
        after: Duration,
        /// None if both ends closed.
        fault: Option<std::io::Error>,
    },
    /// It did not reach the pod, and was reset.
    Refused {
        local: u16,
        error: Error,
    },
    /// No connection can be taken at the moment.
    Exhausted(std::io::Error),
}

/// Forwards until it is dropped.
pub async fn serve(
    layout: &Layout,
    destination: &Destination,
    listening: Vec<Listening>,
    notify: &dyn Fn(Notice),
) {
    inet::raise_open_files_limit();
    let all = listening.into_iter();
    let mut all: FuturesUnordered<_> = all
        .map(|one| async move {
            let Listening {
                socket,
                local,
                remote,
            } = one;
            let ways = Ways {
                layout,
                destination,
                local,
                remote,
                notify,
            };
            ways.accept(&socket).await;
        })
        .collect();
    while all.next().await.is_some() {}
}

/// From one port to the pod.
struct Ways<'a> {
    layout: &'a Layout,
    destination: &'a Destination,
    local: u16,
    remote: Remote,
    notify: &'a dyn Fn(Notice),
}

impl Ways<'_> {
    async fn accept(&self, socket: &TcpListener) {
        /// How long to leave the kernel alone when it has no more descriptors or memory.
        const PAUSE: Duration = Duration::from_millis(100);
        let mut connections = FuturesUnordered::new();
        let mut is_failing = false;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                Some(()) = connections.next() => continue,
            };
            match accepted {
                Ok((client, from)) => {
                    is_failing = false;
                    connections.push(self.forward(client, from));
                }
                // The client went away before it was taken.
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        (self.notify)(Notice::Exhausted(error));
                    }
                    let pause = tokio::time::sleep(PAUSE);
                    tokio::pin!(pause);
                    // What goes on gives back what is lacking.
                    loop {
                        tokio::select! {
                            () = &mut pause => break,
                            Some(()) = connections.next() => {}
                        }
                    }
                }
            }
        }
    }

    async fn forward(&self, mut client: TcpStream, from: SocketAddr) {
        let local = self.local;
        (self.notify)(Notice::Accepted { local });
        let start = Instant::now();
        let (place, mut server) = match self.connect().await {
            Ok(found) => found,
            Err(error) => {
                reset(&client);
                return (self.notify)(Notice::Refused { local, error });
            }
        };
        let relayed = async {
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            relay::relay(&mut client, &mut server).await
        };
        let fault = relayed.await.err();
        if fault.is_some() {
            reset(&client);
            reset(&server);
        }
        (self.notify)(Notice::Ended {
            from,
            pod: place.pod.key().clone(),
            port: place.port,
            after: start.elapsed(),
            fault,
        });
    }

    async fn connect(&self) -> Result<(Place, TcpStream), Error> {
        let place = self.destination.find(self.layout, &self.remote)?;
        let server = client::connect(&place.pod, place.port).await?;
        Ok((place, server))
    }
}

/// The other end sees a failure, and not a connection that was closed.
fn reset(stream: &TcpStream) {
    // One that is gone needs no reset.
    stream.set_zero_linger().ok();
}

impl Destination {
    /// What `POD`, `TYPE/NAME` and `svc/NAME` mean.
    ///
    /// # Errors
    /// [`Error::UnknownKind`].
    pub fn parse(namespace: &Namespace, text: &str) -> Result<Self, Error> {
        let (kind, name) = super::resolve::parse(text)?;
        Ok(if kind.is_some_and(|kind| kind.kind == "Service") {
            Self::Service(namespace.clone(), name.to_owned())
        } else {
            Self::Pods(namespace.clone(), text.to_owned())
        })
    }
}
