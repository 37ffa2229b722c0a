//! The pod's resolver: answers from what is known of the cluster's pods and Services, and passes everything else on to
//! the machine's nameservers.
//!
//! ```text
//! pod ─ UDP, TCP ─▶ listen ─▶ message ─▶ answer ─▶ zone ─▶ `Cluster`
//!                      │                    │
//!                      └────── relay ◀──────┘ not of `cluster.local`
//!                                └─▶ nameservers of the machine
//! ```
//!
//! It listens inside the pod's network namespace and asks from the machine's, where a stub on 127.0.0.53 can be
//! reached. It keeps no answers: those of the cluster are at hand, for the others the machine's resolver has a cache.
//! Names in the pod's `/etc/hosts` never come here.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::Name;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use crate::model::cluster::Cluster;
use crate::model::names::Namespace;

mod answer;
mod listen;
mod message;
mod nameservers;
mod relay;
mod zone;

use answer::Answer;
use message::{Received, Transport};
use relay::{Failure, Upstream};
use zone::View;

/// The sockets at which the pod asks, made in its network namespace.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
}

impl Sockets {
    /// Sockets of any namespace, for this thread's event loop.
    pub(super) fn new(
        (udp, tcp): (std::net::UdpSocket, std::net::TcpListener),
    ) -> std::io::Result<Self> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self {
            udp: UdpSocket::from_std(udp)?,
            tcp: TcpListener::from_std(tcp)?,
        })
    }
}

/// The resolver of a pod, at work. Dropping it ends it, with all that is under way.
#[derive(Debug)]
pub(super) struct Serving {
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Serving {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Serves a pod of this namespace, which asks at `address`. What is in `cluster` at the time of a query counts. To be
/// called within a `LocalSet`.
pub(super) fn serve(
    sockets: Sockets,
    cluster: Rc<RefCell<Cluster>>,
    namespace: Namespace,
    address: IpAddr,
) -> Serving {
    serve_by(
        sockets,
        Resolver {
            cluster,
            namespace,
            address,
            upstream: Upstream::of_machine(),
        },
    )
}

fn serve_by(sockets: Sockets, resolver: Resolver) -> Serving {
    let resolver = Rc::new(resolver);
    let datagrams = listen::datagrams(sockets.udp, Rc::clone(&resolver));
    let connections = listen::connections(sockets.tcp, resolver);
    Serving {
        tasks: [
            tokio::task::spawn_local(datagrams),
            tokio::task::spawn_local(connections),
        ],
    }
}

/// Who knows the answers.
#[derive(Debug)]
struct Resolver {
    cluster: Rc<RefCell<Cluster>>,
    namespace: Namespace,
    /// Its own.
    address: IpAddr,
    upstream: Upstream,
}

impl Resolver {
    /// The answer to what a client sent; nothing if it is no query.
    async fn resolve(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let query = match message::read(bytes) {
            Received::Query(query) => query,
            Received::Faulty(answer) => return message::write(&answer, u16::MAX),
            Received::Noise => return None,
        };
        let room = transport.room(&query);
        let message = match self.answer(&query) {
            Answer::Local(message) => message,
            Answer::Alias { known, target } => {
                self.complete(&query, known, target, transport).await
            }
            Answer::Relay => match self.upstream.ask(bytes, transport, room).await {
                Ok(answer) => return Some(answer),
                Err(failure) => message::refusal(&query, code_of(failure)),
            },
        };
        message::write(&message, room)
    }

    fn answer(&self, query: &Message) -> Answer {
        let view = View {
            cluster: &self.cluster.borrow(),
            namespace: &self.namespace,
            resolver: self.address,
            // No counter: clients ask for A and AAAA in turn, and would always find the same pod first.
            turn: message::random_number().into(),
        };
        answer::answer(query, &view)
    }

    /// Adds what the machine's nameservers know of a name that one of the cluster stands for.
    async fn complete(
        &self,
        query: &Message,
        mut known: Message,
        target: Name,
        transport: Transport,
    ) -> Message {
        let room = transport.room(query);
        let found = match self.look_up(query, target, transport, room).await {
            Ok(found) => found,
            Err(failure) => return message::refusal(query, code_of(failure)),
        };
        match found.metadata.response_code {
            // The alias is there, whatever it stands for.
            ResponseCode::NoError | ResponseCode::NXDomain => {
                known.metadata.truncation |= found.metadata.truncation;
                known.add_answers(found.answers);
                known
            }
            _ => message::refusal(query, ResponseCode::ServFail),
        }
    }

    async fn look_up(
        &self,
        query: &Message,
        target: Name,
        transport: Transport,
        room: u16,
    ) -> Result<Message, Failure> {
        let kind = query.queries.first().map(Query::query_type);
        let mut asked = Message::query();
        asked.metadata.recursion_desired = true;
        asked.add_query(Query::query(target, kind.ok_or(Failure::NoAnswer)?));
        if query.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(room);
            asked.set_edns(edns);
        }
        let bytes = asked.to_vec().map_err(|_| Failure::NoAnswer)?;
        let answer = self.upstream.ask(&bytes, transport, room).await?;
        Message::from_vec(&answer).map_err(|error| {
            tracing::debug!(%error, "an answer that cannot be read");
            Failure::NoAnswer
        })
    }
}

/// What a client is told of a failure: to ask another server, or to ask again later.
fn code_of(failure: Failure) -> ResponseCode {
    match failure {
        Failure::Busy => ResponseCode::Refused,
        Failure::NoAnswer => ResponseCode::ServFail,
    }
}

#[cfg(test)]
mod tests;
