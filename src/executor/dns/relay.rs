//! Asks the machine's nameservers what the cluster does not know. Bytes go through as they are; only the number of
//! the query is another one, so that nobody but the server that was asked can answer it.
//!
//! A server that has not answered for a while is not given up: the next one is asked too, and the first good answer
//! counts. One that says that it cannot help is passed over at once; if none can, that is the answer.
//!
//! ```text
//! 0 s: first server   2 s: second   4 s: third, or the first again   6 s: given up
//! ```

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time;

use super::message::{self, Transport};
use super::nameservers::Nameservers;
use crate::sys::{datagram, inet};

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("too many queries wait for an answer")]
    Busy,
    #[error("no nameserver of the machine answered")]
    NoAnswer,
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For one server, before the next one is asked too.
    pub(super) next: Duration,
    /// For all of them. A client that has asked twice has given up then.
    pub(super) all: Duration,
}

/// The way to the machine's nameservers.
#[derive(Debug)]
pub(super) struct Upstream {
    nameservers: Nameservers,
    patience: Patience,
    /// One permit per query that waits.
    places: Semaphore,
}

impl Upstream {
    /// Those of the machine on which this process runs.
    pub(super) fn of_machine() -> Self {
        /// A query that waits takes a socket per server. Most of the open files are for published ports.
        const MOST: u64 = 1000;
        let most = (inet::open_files_limit() / 16).clamp(16, MOST);
        let patience = Patience {
            next: Duration::from_secs(2),
            all: Duration::from_secs(6),
        };
        let nameservers = Nameservers::new(PathBuf::from("/etc/resolv.conf"), 53);
        Self::new(nameservers, patience, usize::try_from(most).unwrap_or(16))
    }

    pub(super) fn new(nameservers: Nameservers, patience: Patience, most: usize) -> Self {
        Self {
            nameservers,
            patience,
            places: Semaphore::new(most),
        }
    }

    /// The answer to a query, as the server gave it.
    pub(super) async fn ask(
        &self,
        query: &[u8],
        transport: Transport,
        room: u16,
    ) -> Result<Vec<u8>, Failure> {
        let _place = self.places.try_acquire().map_err(|_| Failure::Busy)?;
        let query = Relayed {
            query,
            transport,
            room,
        };
        let servers = self.nameservers.current();
        let answer = time::timeout(self.patience.all, self.ask_all(&query, &servers)).await;
        answer.ok().flatten().ok_or(Failure::NoAnswer)
    }

    async fn ask_all(&self, query: &Relayed<'_>, servers: &[SocketAddr]) -> Option<Vec<u8>> {
        /// A datagram may be lost once.
        const ROUNDS: usize = 2;
        let mut waiting = FuturesUnordered::new();
        let mut no_help = None;
        for _ in 0..ROUNDS {
            for &server in servers {
                waiting.push(query.ask(server));
                let answered = first_good(&mut waiting, &mut no_help);
                if let Ok(Some(answer)) = time::timeout(self.patience.next, answered).await {
                    return Some(answer);
                }
            }
            // All have answered: asking again would not help.
            if waiting.is_empty() && no_help.is_some() {
                return no_help;
            }
        }
        first_good(&mut waiting, &mut no_help).await.or(no_help)
    }
}

/// The first answer with which something can be done; nothing when no server is left of which one could come.
async fn first_good<F>(
    waiting: &mut FuturesUnordered<F>,
    no_help: &mut Option<Vec<u8>>,
) -> Option<Vec<u8>>
where
    F: Future<Output = io::Result<Vec<u8>>>,
{
    while let Some(answered) = waiting.next().await {
        match answered {
            Ok(answer) if is_help(&answer) => return Some(answer),
            Ok(answer) => *no_help = Some(answer),
            Err(error) => tracing::debug!(%error, "a nameserver cannot be asked"),
        }
    }
    None
}

/// Whether another server would not know better: as for glibc.
fn is_help(answer: &[u8]) -> bool {
    let code = message::code(answer);
    ![
        ResponseCode::ServFail,
        ResponseCode::NotImp,
        ResponseCode::Refused,
    ]
    .iter()
    .any(|no_help| no_help.low() == code)
}

/// One query of a client.
#[derive(Clone, Copy)]
struct Relayed<'a> {
    query: &'a [u8],
    transport: Transport,
    /// How long the answer may be, in bytes.
    room: u16,
}

impl Relayed<'_> {
    /// Asks one server, and does not stop waiting.
    async fn ask(self, server: SocketAddr) -> io::Result<Vec<u8>> {
        let mut query = self.query.to_vec();
        let number = query
            .first_chunk_mut::<2>()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let of_client = std::mem::replace(number, message::random_number().to_be_bytes());
        let mut answer = match self.transport {
            Transport::Udp => by_udp(server, &query, self.room).await?,
            Transport::Tcp => by_tcp(server, &query).await?,
        };
        if let Some(number) = answer.first_chunk_mut() {
            *number = of_client;
        }
        Ok(answer)
    }
}

/// By a socket of its own: its port is another random number that an answer must have, and the kernel takes nothing
/// that does not come from the server.
async fn by_udp(server: SocketAddr, query: &[u8], room: u16) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::from_std(datagram::connect(server)?)?;
    socket.send(query).await?;
    loop {
        // That nobody listens there is an error, and nothing to read.
        let news = Interest::READABLE | Interest::ERROR;
        let answer = socket.async_io(news, || receive(&socket, room)).await?;
        if message::answers(&answer, query) {
            return Ok(answer);
        }
        tracing::debug!(%server, "an answer to another question");
    }
}

fn receive(socket: &UdpSocket, room: u16) -> io::Result<Vec<u8>> {
    /// What servers send to clients that did not say what they take, and should not.
    const LEAST: u16 = 4096;
    let mut answer = vec![0; usize::from(room.max(LEAST))];
    let received = datagram::receive(socket, &mut answer)?;
    answer.truncate(received.len);
    answer.shrink_to_fit();
    Ok(answer)
}

async fn by_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(query)).await?;
    let length = stream.read_u16().await?;
    let mut answer = Vec::new();
    (&mut stream)
        .take(u64::from(length))
        .read_to_end(&mut answer)
        .await?;
    if answer.len() < usize::from(length) || !message::answers(&answer, query) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(answer)
}

/// A message with its length before it, as it goes over TCP.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(2 + message.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend(message.iter().take(usize::from(length)));
    bytes
}
