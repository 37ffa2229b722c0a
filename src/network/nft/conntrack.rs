//! Conversations of datagrams whose other end is gone. The kernel leads datagrams of one client to one endpoint for as
//! long as they keep coming; if that endpoint is no more, it has to be told.
//!
//! Names and numbers are those of `linux/netfilter/nfnetlink_conntrack.h`.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::{
    ACK, Attributes, DUMP, Header, REQUEST, attribute, error_code, family, message, netlink,
};
use netlink_sys::Socket;

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;

/// An address and port of a Service, and the endpoint that it led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

/// Has the kernel forget the conversations of UDP that go by these.
pub(super) fn forget(socket: &Socket, leads: &[Lead]) -> io::Result<()> {
    for ip in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
        let of_family: Vec<&Lead> = leads
            .iter()
            .filter(|lead| lead.from.is_ipv4() == ip.is_ipv4())
            .collect();
        if of_family.is_empty() {
            continue;
        }
        for original in going_by(socket, ip, &of_family)? {
            delete(socket, ip, &original)?;
        }
    }
    Ok(())
}

/// The original directions of the conversations that go by one of these.
fn going_by(socket: &Socket, ip: IpAddr, leads: &[&Lead]) -> io::Result<Vec<Vec<u8>>> {
    ask(socket, GET, DUMP, ip, |_| {})?;
    let mut found = Vec::new();
    loop {
        for answer in netlink::split(&netlink::receive(socket)?) {
            if is_end(answer)? {
                return Ok(found);
            }
            let body = answer.get(20..).unwrap_or_default();
            let (Some(original), Some(reply)) = (attribute(body, ORIGINAL), attribute(body, REPLY))
            else {
                continue;
            };
            let goes_by = |lead: &&&Lead| {
                tuple_end(original, Which::Destination) == Some(lead.from)
                    && tuple_end(reply, Which::Source) == Some(lead.to)
            };
            if is_udp(original) && leads.iter().any(|lead| goes_by(&lead)) {
                found.push(original.to_vec());
            }
        }
    }
}

fn delete(socket: &Socket, ip: IpAddr, original: &[u8]) -> io::Result<()> {
    ask(socket, DELETE, ACK, ip, |attributes| {
        attributes.nested_bytes(ORIGINAL, original);
    })?;
    for answer in netlink::split(&netlink::receive(socket)?) {
        match error_code(answer) {
            // It has ended meanwhile.
            Some(0 | -2) | None => {}
            Some(code) => return Err(io::Error::from_raw_os_error(-code)),
        }
    }
    Ok(())
}

fn ask(
    socket: &Socket,
    r#type: u16,
    flags: u16,
    ip: IpAddr,
    fill: impl FnOnce(&mut Attributes<'_>),
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let header = Header {
        r#type,
        flags: flags | REQUEST,
        sequence: 1,
        family: family(ip),
        resource: 0,
    };
    message(&mut bytes, header, fill);
    netlink::send(socket, &bytes)
}

/// Whether this ends the answer to a question for all.
fn is_end(answer: &[u8]) -> io::Result<bool> {
    const DONE: u16 = 3;
    if let Some(code) = error_code(answer).filter(|code| *code != 0) {
        return Err(io::Error::from_raw_os_error(-code));
    }
    let r#type = answer.get(4..).and_then(<[u8]>::first_chunk);
    Ok(r#type.is_none_or(|bytes| u16::from_ne_bytes(*bytes) == DONE))
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Source,
    Destination,
}

/// One end of a direction.
fn tuple_end(tuple: &[u8], which: Which) -> Option<SocketAddr> {
    const ADDRESSES: u16 = 1;
    const PROTOCOL: u16 = 2;
    // Of IPv4, of IPv6, and of the port.
    let (v4, v6, port) = match which {
        Which::Source => (1, 3, 2),
        Which::Destination => (2, 4, 3),
    };
    let addresses = attribute(tuple, ADDRESSES)?;
    let ip: IpAddr = match (attribute(addresses, v4), attribute(addresses, v6)) {
        (Some(bytes), _) => (*bytes.first_chunk::<4>()?).into(),
        (None, Some(bytes)) => (*bytes.first_chunk::<16>()?).into(),
        (None, None) => return None,
    };
    let port = attribute(attribute(tuple, PROTOCOL)?, port)?;
    Some(SocketAddr::new(
        ip,
        u16::from_be_bytes(*port.first_chunk()?),
    ))
}

fn is_udp(tuple: &[u8]) -> bool {
    const PROTOCOL: u16 = 2;
    const NUMBER: u16 = 1;
    const UDP: u8 = 17;
    let protocol = attribute(tuple, PROTOCOL);
    let number = protocol.and_then(|protocol| attribute(protocol, NUMBER));
    number.and_then(<[u8]>::first) == Some(&UDP)
}
