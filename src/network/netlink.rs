//! Conversations with the kernel: requests that are answered before the next line runs. No other program is needed.
//!
//! A socket talks about the network namespace in which it was made.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols};

use crate::sys::buffer;

/// Bytes that one answer takes at most: the kernel makes none larger for a reader with such a buffer.
const BUFFER: usize = 32 * 1024;

/// A request, and what it says when it fails.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) step: &'static str,
    pub(super) message: RouteNetlinkMessage,
    pub(super) if_there: IfThere,
}

/// What becomes of something that is to be made and is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfThere {
    Fail,
    /// It is changed, not made.
    Change,
}

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub struct Refused {
    pub step: &'static str,
    pub source: io::Error,
}

impl Refused {
    pub(super) fn at(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self { step, source }
    }

    /// Whether what was to be removed or asked for is not there.
    pub(super) fn is_missing(&self) -> bool {
        const ENODEV: i32 = 19;
        self.source.kind() == io::ErrorKind::NotFound || self.source.raw_os_error() == Some(ENODEV)
    }
}

/// A socket for links, addresses and routes.
#[derive(Debug)]
pub(super) struct Route {
    socket: Socket,
    sequence: u32,
}

impl Route {
    /// Opens one for the thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: Socket::new(protocols::NETLINK_ROUTE)?,
            sequence: 0,
        })
    }

    /// Makes requests at once, of which each sees what those before it did. All are made even if one fails; the first
    /// failure is returned.
    pub(super) fn request(&mut self, requests: Vec<Request>) -> Result<(), Refused> {
        let first = self.sequence + 1;
        let mut steps = Vec::with_capacity(requests.len());
        let mut bytes = Vec::new();
        for request in requests {
            steps.push(request.step);
            let flags = match request.if_there {
                IfThere::Fail => NLM_F_CREATE | NLM_F_EXCL,
                IfThere::Change => 0,
            };
            self.append(&mut bytes, request.message, NLM_F_ACK | flags);
        }
        let of_all = steps.first().copied().unwrap_or("ask the kernel");
        send(&self.socket, &bytes).map_err(Refused::at(of_all))?;
        let mut result = Ok(());
        let mut unanswered = steps.len();
        while unanswered > 0 {
            let answers = receive(&self.socket).map_err(Refused::at(of_all))?;
            for answer in messages(&answers) {
                let answer = answer.map_err(Refused::at(of_all))?;
                let NetlinkPayload::Error(error) = answer.payload else {
                    continue;
                };
                unanswered -= 1;
                let index = answer.header.sequence_number.wrapping_sub(first);
                let step = steps.get(index as usize).copied().unwrap_or(of_all);
                if error.code.is_some() && result.is_ok() {
                    result = Err(Refused {
                        step,
                        source: error.to_io(),
                    });
                }
            }
        }
        result
    }

    /// Asks for all things of a kind.
    pub(super) fn dump(
        &mut self,
        what: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(what, NLM_F_DUMP, Until::Done)
    }

    /// Asks for one thing.
    pub(super) fn get(
        &mut self,
        what: RouteNetlinkMessage,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        Ok(self.ask(what, 0, Until::First)?.pop())
    }

    fn ask(
        &mut self,
        what: RouteNetlinkMessage,
        flags: u16,
        until: Until,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, what, flags);
        send(&self.socket, &bytes)?;
        let mut found = Vec::new();
        loop {
            for answer in messages(&receive(&self.socket)?) {
                match answer?.payload {
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    _ => {}
                }
            }
            if until == Until::First {
                return Ok(found);
            }
        }
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence += 1;
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        if let Some(place) = bytes.get_mut(start..start + message.buffer_len()) {
            message.serialize(place);
        }
    }
}

/// When an answer is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    First,
    Done,
}

/// Sends to the kernel.
pub(super) fn send(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    /// What fits into the buffer that sockets have by themselves.
    const USUAL: usize = 100 * 1024;
    if bytes.len() > USUAL {
        buffer::send_at_once(socket, bytes.len())?;
    }
    let kernel = SocketAddr::new(0, 0);
    socket.send_to(bytes, &kernel, 0).map(|_| ())
}

/// Receives what comes next: one or several messages.
pub(super) fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        match socket.recv(&mut buffer, 0) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(|_| buffer),
        }
    }
}

/// Throws away what has come and nobody has read.
pub(super) fn discard(socket: &Socket) -> io::Result<()> {
    socket.set_non_blocking(true)?;
    let mut buffer = Vec::with_capacity(BUFFER);
    let emptied = loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    socket.set_non_blocking(false)?;
    emptied
}

/// Cuts what was received into messages, each with its header.
pub(super) fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let message = rest
            .get(..length)
            .filter(|message| message.len() >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Bytes of a message's header.
const HEADER: usize = 16;

type Answer = NetlinkMessage<RouteNetlinkMessage>;

fn messages(bytes: &[u8]) -> impl Iterator<Item = io::Result<Answer>> {
    split(bytes).map(|message| {
        Answer::deserialize(message)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("netlink: {e}")))
    })
}
