//! One host socket of a published UDP port.
//!
//! The first datagram of a client opens a session: a socket inside the pod's network namespace that is connected to
//! the target, so that what comes back on it is for this client. Nobody says when a session is over: it ends when
//! nothing went either way for a while, or when it is the one that rested longest and a new one needs its place.
//!
//! As everywhere with UDP, what cannot be delivered is lost, and nobody is told. A pod where nobody listens is no
//! fault: its server may start later.
//!
//! A session at rest costs one socket and no buffer. All sessions live in the task of their host socket, and end
//! with it.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use futures_util::stream::FuturesUnordered;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::{Error, Pod, Publication, Sharing, cannot_listen};
use crate::sys::datagram::{self, Local};
use crate::sys::inet;

/// The longest datagram, in bytes, and a bit.
const BUFFER: usize = 64 * 1024;

/// After so many datagrams in a row the other tasks of the thread get their turn.
const TURN: usize = 8;

/// How long to leave the kernel alone when it has no more memory.
const PAUSE: Duration = Duration::from_millis(100);

/// When sessions end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// The most at a time, at least 1.
    pub(super) sessions: usize,
    /// After so long without a datagram in either direction; up to a thirtieth later.
    pub(super) idle: Duration,
}

/// One socket; two, for IPv4 and for IPv6, if the publication has no address.
pub(super) fn bind(publication: &Publication) -> Result<Vec<UdpSocket>, Error> {
    let (port, sharing) = (publication.host_port, publication.sharing);
    if let Some(ip) = publication.host_ip {
        let address = SocketAddr::new(ip, port);
        return Ok(vec![bind_on(address, sharing)?]);
    }
    let all_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let v4 = bind_on(all_v4, sharing)?;
    let same_port = v4
        .local_addr()
        .map_err(|e| cannot_listen(all_v4, e))?
        .port();
    let all_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, same_port));
    match bind_on(all_v6, sharing) {
        Ok(v6) => Ok(vec![v4, v6]),
        Err(Error::Listen { source, .. } | Error::NoSuchAddress { source, .. })
            if inet::is_without_ipv6(&source) =>
        {
            Ok(vec![v4])
        }
        Err(e) => Err(e),
    }
}

fn bind_on(address: SocketAddr, sharing: Sharing) -> Result<UdpSocket, Error> {
    let bind = match sharing {
        Sharing::Exclusive => datagram::bind,
        Sharing::Shared => datagram::bind_shared,
    };
    bind(address)
        .and_then(UdpSocket::from_std)
        .map_err(|e| cannot_listen(address, e))
}

/// Forwards what comes to `host`, and the answers. Ends only by being dropped.
pub(super) async fn forward(host: UdpSocket, target: SocketAddr, pod: Arc<Pod>, limits: Limits) {
    let mut sessions = Sessions::new(target, pod, limits);
    let mut answering = FuturesUnordered::new();
    let mut is_failing = false;
    loop {
        tokio::select! {
            ready = host.readable() => {
                let taken = ready.and_then(|()| sessions.take(&host));
                for (client, session, registration) in sessions.opened.drain(..) {
                    let start = sessions.start;
                    let answers = answers(&host, client, session, start);
                    answering.push(Abortable::new(answers, registration));
                }
                match taken {
                    Ok(Taken::All) => is_failing = false,
                    Ok(Taken::Turn) => tokio::task::yield_now().await,
                    Err(error) => {
                        if !std::mem::replace(&mut is_failing, true) {
                            tracing::warn!(%error, %target, "cannot take datagrams, trying again");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            Some(ended) = answering.next() => {
                // One that was aborted is no longer in the table.
                if let Ok((client, error)) = ended {
                    tracing::debug!(from = %client.address, %target, %error, "a session failed");
                    sessions.table.remove(&client);
                }
            }
            () = tokio::time::sleep_until(sessions.sweep), if !sessions.table.is_empty() => {
                sessions.end_idle();
            }
        }
    }
}

/// Who has a session. A client that asks two of the host's addresses has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client {
    address: SocketAddr,
    /// Where it asked, and expects answers from.
    asked: Option<Local>,
}

#[derive(Debug)]
struct Session {
    socket: UdpSocket,
    /// When the last datagram went either way, in nanoseconds since the start of the forwarder.
    used: AtomicU64,
}

impl Session {
    fn touch(&self, start: Instant) {
        self.used.store(nanoseconds(start), Ordering::Relaxed);
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Does not ask tokio whether the socket is writable: it is not known yet when the first datagram is sent.
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match datagram::send_to_peer(&self.socket, bytes) {
            // That was the answer to an earlier datagram, and this one has not been sent.
            Err(e) if is_from_network(&e) => datagram::send_to_peer(&self.socket, bytes),
            other => other,
        }
    }
}

/// A session's place in the table; without it the session ends.
#[derive(Debug)]
struct Place {
    session: Arc<Session>,
    answers: AbortHandle,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

#[derive(Debug)]
struct Sessions {
    target: SocketAddr,
    pod: Arc<Pod>,
    limits: Limits,
    start: Instant,
    table: HashMap<Client, Place>,
    /// When to look for idle ones next.
    sweep: Instant,
    /// Those of which nobody passes on the answers yet.
    opened: Vec<(Client, Arc<Session>, AbortRegistration)>,
    is_failing: bool,
}

/// What was there.
enum Taken {
    All,
    /// A lot, and there may be more.
    Turn,
}

impl Sessions {
    fn new(target: SocketAddr, pod: Arc<Pod>, limits: Limits) -> Self {
        let start = Instant::now();
        Self {
            target,
            pod,
            limits,
            start,
            table: HashMap::new(),
            sweep: start,
            opened: Vec::new(),
            is_failing: false,
        }
    }

    /// Passes on what clients sent, without waiting, through a buffer that exists only meanwhile.
    fn take(&mut self, host: &UdpSocket) -> io::Result<Taken> {
        let mut buffer = [0; BUFFER];
        for _ in 0..TURN {
            let receive = || datagram::receive(host, &mut buffer);
            let received = match host.try_io(Interest::READABLE, receive) {
                Ok(received) => received,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Taken::All),
                Err(e) => return Err(e),
            };
            let client = Client {
                address: received.from,
                asked: received.to,
            };
            if let Err(error) = self.send(client, &buffer[..received.len]) {
                tracing::debug!(from = %client.address, target = %self.target, %error, "a datagram is lost");
            }
        }
        Ok(Taken::Turn)
    }

    fn send(&mut self, client: Client, bytes: &[u8]) -> io::Result<()> {
        if let Some(place) = self.table.get(&client) {
            place.session.touch(self.start);
            return place.session.send(bytes);
        }
        match self.open(client) {
            Ok(session) => {
                self.is_failing = false;
                session.send(bytes)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, target = %self.target, "cannot take clients, datagrams are lost");
                }
                Err(error)
            }
        }
    }

    fn open(&mut self, client: Client) -> io::Result<Arc<Session>> {
        let target = self.target;
        // A socket belongs to the namespace in which it was made.
        let socket = self.pod.netns.visit(|| datagram::connect(target))?;
        let session = Arc::new(Session {
            socket: UdpSocket::from_std(socket)?,
            used: AtomicU64::new(nanoseconds(self.start)),
        });
        if self.table.len() >= self.limits.sessions {
            self.end_longest_unused();
        }
        if self.table.is_empty() {
            self.sweep = Instant::now() + self.limits.idle;
        }
        let (answers, registration) = AbortHandle::new_pair();
        let place = Place {
            session: Arc::clone(&session),
            answers,
        };
        self.table.insert(client, place);
        self.opened
            .push((client, Arc::clone(&session), registration));
        Ok(session)
    }

    fn end_longest_unused(&mut self) {
        let by_use = self.table.iter().min_by_key(|(_, p)| p.session.used());
        if let Some(client) = by_use.map(|(client, _)| *client) {
            self.table.remove(&client);
        }
    }

    fn end_idle(&mut self) {
        let (start, idle, now) = (self.start, self.limits.idle, Instant::now());
        let end = |place: &Place| start + Duration::from_nanos(place.session.used()) + idle;
        self.table.retain(|_, place| end(place) > now);
        let next = self.table.values().map(end).min().unwrap_or(now);
        // Not for each one of many on its own.
        self.sweep = next.max(now + idle / 30);
    }
}

fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Passes on what the pod sends to one client, until the session's socket fails.
async fn answers(
    host: &UdpSocket,
    client: Client,
    session: Arc<Session>,
    start: Instant,
) -> (Client, io::Error) {
    loop {
        let answered = match session.socket.readable().await {
            Ok(()) => answer(host, client, &session, start),
            Err(e) => Err(e),
        };
        match answered {
            Ok(Answered::All) => {}
            Ok(Answered::Turn) => tokio::task::yield_now().await,
            Ok(Answered::Full(rest)) => {
                let send = || datagram::send(host, &rest, client.asked, client.address);
                if let Err(error) = host.async_io(Interest::WRITABLE, send).await {
                    tracing::debug!(to = %client.address, %error, "an answer is lost");
                }
            }
            Err(e) => return (client, e),
        }
    }
}

enum Answered {
    /// All that was there.
    All,
    /// A lot, and there may be more.
    Turn,
    /// Until the host's socket took no more; this datagram is left.
    Full(Vec<u8>),
}

/// Passes on answers without waiting, through a buffer that exists only meanwhile.
fn answer(
    host: &UdpSocket,
    client: Client,
    session: &Session,
    start: Instant,
) -> io::Result<Answered> {
    let mut buffer = [0; BUFFER];
    for _ in 0..TURN {
        let bytes = match session.socket.try_recv(&mut buffer) {
            Ok(len) => &buffer[..len],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Answered::All),
            // Nobody listens in the pod, perhaps not yet.
            Err(e) if is_from_network(&e) => continue,
            Err(e) => return Err(e),
        };
        session.touch(start);
        let send = || datagram::send(host, bytes, client.asked, client.address);
        match host.try_io(Interest::WRITABLE, send) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Answered::Full(bytes.to_vec()));
            }
            // The client's network is gone, or a firewall's business.
            Err(error) => tracing::debug!(to = %client.address, %error, "an answer is lost"),
        }
    }
    Ok(Answered::Turn)
}

/// Whether an error is what the network (ICMP) said about an earlier datagram.
fn is_from_network(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}
