//! The sockets at which the pod asks.
//!
//! Each has one task, in which all that is under way lives and with which it ends. At rest a task waits for its
//! socket: no timer, no buffer. What a client sends is read into the stack.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::ReadHalf;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time;

use super::Resolver;
use super::message::{HEADER, LONGEST_QUERY, Transport};
use super::relay::framed;

/// How many connections are served at a time; the others wait in the kernel until one rests for too long.
const MOST_CONNECTIONS: usize = 64;
/// How many queries of one connection are looked into at a time; the others wait in the kernel.
const MOST_OF_CONNECTION: usize = 32;
/// How long a connection may rest, or not take its answers.
const IDLE: Duration = Duration::from_secs(10);
/// How long to leave the kernel alone when it has no more descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers datagrams. Ends only by being dropped.
pub(super) async fn datagrams(socket: UdpSocket, resolver: Rc<Resolver>) {
    let mut answering = FuturesUnordered::new();
    let mut is_failing = false;
    loop {
        // What is known goes out before more is taken in, so that `answering` holds little but what waits for others.
        tokio::select! {
            biased;
            Some(()) = answering.next() => {}
            ready = socket.readable() => match ready.and_then(|()| receive(&socket)) {
                Ok((query, client)) => {
                    is_failing = false;
                    answering.push(answer(&socket, &resolver, query, client));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "cannot take queries, trying again");
                    }
                    time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn answer(socket: &UdpSocket, resolver: &Resolver, query: Vec<u8>, client: SocketAddr) {
    if let Some(answer) = resolver.resolve(&query, Transport::Udp).await
        && let Err(error) = socket.send_to(&answer, client).await
    {
        tracing::debug!(%error, %client, "an answer is lost");
    }
}

/// What is too long is cut off, and no query any more.
fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; LONGEST_QUERY];
    let (length, client) = socket.try_recv_from(&mut buffer)?;
    let query = buffer.get(..length).unwrap_or_default();
    Ok((query.to_vec(), client))
}

/// Serves connections. Ends only by being dropped.
pub(super) async fn connections(listener: TcpListener, resolver: Rc<Resolver>) {
    let mut open = FuturesUnordered::new();
    let mut is_failing = false;
    loop {
        tokio::select! {
            biased;
            Some(()) = open.next() => {}
            accepted = listener.accept(), if open.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, client)) => {
                    is_failing = false;
                    open.push(serve(stream, &resolver, client));
                }
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "cannot take connections, trying again");
                    }
                    time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, resolver: &Resolver, client: SocketAddr) {
    if let Err(error) = converse(stream, resolver).await {
        tracing::debug!(%error, %client, "a connection failed");
    }
}

/// Answers what comes over one connection, each query when its answer is there, until the client has no more or rests
/// for too long.
async fn converse(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    let (input, mut output) = stream.split();
    let mut received = Vec::new();
    let mut answering = FuturesUnordered::new();
    let mut has_more = true;
    loop {
        while answering.len() < MOST_OF_CONNECTION
            && let Some(query) = next_query(&mut received)?
        {
            answering.push(async move { resolver.resolve(&query, Transport::Tcp).await });
        }
        if !has_more && answering.is_empty() {
            return Ok(());
        }
        tokio::select! {
            biased;
            Some(answer) = answering.next() => if let Some(answer) = answer {
                let answer = framed(&answer);
                time::timeout(IDLE, output.write_all(&answer)).await??;
            },
            ready = time::timeout(IDLE, input.readable()),
                if has_more && answering.len() < MOST_OF_CONNECTION =>
            {
                has_more = match ready {
                    Ok(ready) => ready.and_then(|()| take(&input, &mut received))?,
                    Err(_) => false,
                };
            }
        }
    }
}

/// Takes what is there; whether there can be more.
fn take(input: &ReadHalf<'_>, received: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; LONGEST_QUERY];
    match input.try_read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(length) => {
            received.extend_from_slice(buffer.get(..length).unwrap_or_default());
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

/// Takes the next query out of what was received, if it is complete. Nobody has queries longer than those that are
/// read, or shorter than a header: such a client speaks something else.
fn next_query(received: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some(length) = received.first_chunk() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if !(HEADER..=LONGEST_QUERY).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let Some(query) = received.get(2..2 + length) else {
        return Ok(None);
    };
    let query = query.to_vec();
    received.drain(..2 + length);
    if received.is_empty() {
        // At rest a connection has no buffer.
        received.shrink_to_fit();
    }
    Ok(Some(query))
}
