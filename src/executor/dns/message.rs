//! DNS messages as bytes: which of them are answered at all, and how much of an answer fits.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};

/// The longest query that is read, in bytes. Real ones have at most a few hundred.
pub(super) const LONGEST_QUERY: usize = 4096;
/// What every message begins with, in bytes.
pub(super) const HEADER: usize = 12;
/// The longest datagram, in bytes.
const LONGEST_DATAGRAM: u16 = u16::MAX - 20 - 8;
/// What this resolver would take in one datagram: what passes everywhere.
const DATAGRAM: u16 = 1232;

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    /// How long an answer to this query may be, in bytes.
    pub(super) fn room(self, query: &Message) -> u16 {
        match self {
            Self::Udp => query.max_payload().min(LONGEST_DATAGRAM),
            Self::Tcp => u16::MAX,
        }
    }
}

/// What came in.
#[derive(Debug)]
pub(super) enum Received {
    /// One question of class and version that are to be looked at.
    Query(Box<Message>),
    /// A query that cannot be answered, and what to say.
    Faulty(Box<Message>),
    /// No query. To answer an answer would let two resolvers talk for ever.
    Noise,
}

/// Reads what came in.
pub(super) fn read(bytes: &[u8]) -> Received {
    let Some([id_high, id_low, flags, _, questions_high, questions_low]) = bytes.first_chunk()
    else {
        return Received::Noise;
    };
    if bytes.len() < HEADER || flags & 0x80 != 0 {
        return Received::Noise;
    }
    let id = u16::from_be_bytes([*id_high, *id_low]);
    let op_code = OpCode::from_u8((flags >> 3) & 0x0f);
    let fault = |code| {
        let mut message = Message::error_msg(id, op_code, code);
        message.metadata.recursion_desired = flags & 1 != 0;
        Received::Faulty(Box::new(message))
    };
    if op_code != OpCode::Query {
        return fault(ResponseCode::NotImp);
    }
    if [*questions_high, *questions_low] != [0, 1] {
        return fault(ResponseCode::FormErr);
    }
    match Message::from_vec(bytes) {
        Ok(query) if query.metadata.message_type != MessageType::Query => Received::Noise,
        Ok(query) if query.version() > 0 => {
            Received::Faulty(Box::new(refusal(&query, ResponseCode::BADVERS)))
        }
        Ok(query) => Received::Query(Box::new(query)),
        Err(error) => {
            tracing::debug!(%error, "a query that cannot be read");
            fault(ResponseCode::FormErr)
        }
    }
}

/// An answer to `query` that says nothing yet.
pub(super) fn reply(query: &Message) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata = Metadata::response_from_request(&query.metadata);
    message.metadata.recursion_available = true;
    message.queries.clone_from(&query.queries);
    message.edns = query.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    message
}

/// An answer to `query` that is no more than this code.
pub(super) fn refusal(query: &Message, code: ResponseCode) -> Message {
    let mut message = reply(query);
    message.metadata.response_code = code;
    message
}

/// The bytes of an answer; nothing if it cannot be written, which a message made of what was read never is.
///
/// If not all fits, what only helps is left out first, then as many of the answers as need be: the client sees that
/// it was truncated, and asks again by TCP if it can.
pub(super) fn write(message: &Message, room: u16) -> Option<Vec<u8>> {
    let room = usize::from(room);
    let whole = encode(message)?;
    if whole.len() <= room {
        return Some(whole);
    }
    let mut short = message.clone();
    short.metadata.truncation = true;
    short.additionals.clear();
    let with = |count: usize| {
        let mut message = short.clone();
        message.answers.truncate(count);
        encode(&message).filter(|bytes| bytes.len() <= room)
    };
    // The first number of answers that does not fit, found by halving.
    let (mut fits, mut too_many) = (0, short.answers.len() + 1);
    while too_many - fits > 1 {
        let middle = usize::midpoint(fits, too_many);
        match with(middle) {
            Some(_) => fits = middle,
            None => too_many = middle,
        }
    }
    with(fits)
}

fn encode(message: &Message) -> Option<Vec<u8>> {
    let bytes = message.to_vec();
    bytes
        .inspect_err(|error| tracing::warn!(%error, "cannot write an answer"))
        .ok()
}

/// What nobody can guess.
pub(super) fn random_number() -> u16 {
    Message::query().metadata.id
}

/// The bytes of the one question of a message: name, type and class. Nothing if it has another number of them.
pub(super) fn question(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            // A pointer: a first name has nothing to point to.
            length if length > 63 => return None,
            length => at += 1 + usize::from(length),
        }
    }
    message.get(HEADER..at + 1 + 4)
}

/// Whether `answer` answers `query`: the same number, the same question. Answers of servers that did not understand
/// the question may come without it.
pub(super) fn answers(answer: &[u8], query: &[u8]) -> bool {
    if answer.len() < HEADER || answer[..2] != query[..2] || answer[2] & 0x80 == 0 {
        return false;
    }
    let Some(asked) = question(query) else {
        return false;
    };
    match question(answer) {
        Some(answered) => {
            // A name's length bytes are no letters; type and class may look like some.
            let (name, kind) = asked.split_at(asked.len() - 4);
            answered.len() == asked.len()
                && answered[..name.len()].eq_ignore_ascii_case(name)
                && answered[name.len()..] == *kind
        }
        None => answer[4..6] == [0, 0] && code(answer) != ResponseCode::NoError.low(),
    }
}

/// The response code of a message, without what EDNS adds to it.
pub(super) fn code(message: &[u8]) -> u8 {
    message.get(3).map_or(0, |flags| flags & 0x0f)
}

#[cfg(test)]
mod tests;
