//! Rules of the kernel's packet filter, written without the `nft` program: one batch is one transaction.
//!
//! Names and numbers are those of `linux/netfilter/nf_tables.h`. A value that is compared passes through a register; a
//! rule is a list of expressions, of which each goes on only if it holds.

use std::io;
use std::net::IpAddr;

use netlink_sys::{Socket, protocols};

use super::netlink;

mod conntrack;
mod host;
mod services;

#[cfg(test)]
pub(super) use self::host::tables;
pub(super) use self::host::{forward_policy_drops, masquerade, remove_table};
pub use self::services::{ServiceTable, VirtualAddress, VirtualPort};

/// Tables of both families, IPv4 and IPv6.
const INET: u8 = 1;
const SUBSYSTEM: u16 = 10 << 8;

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const DELETE_RULE: u16 = SUBSYSTEM | 8;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;

/// Registers of 16 bytes.
const FIRST: u32 = 1;
const SECOND: u32 = 2;

/// `NF_INET_LOCAL_OUT` and `NF_INET_POST_ROUTING`.
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;

/// What a chain is hooked into.
#[derive(Clone, Copy, Debug)]
struct Hook {
    r#type: &'static str,
    hook: u32,
    priority: i32,
}

/// With what a table ends, if nobody removes it before.
#[derive(Clone, Copy, Debug)]
enum TableEnd {
    Namespace,
    /// The one that asked for it. Nobody else can change it, a `flush ruleset` neither. Since Linux 5.12.
    Socket,
}

/// Changes that are made together or not at all.
#[derive(Debug)]
struct Batch {
    table: String,
    bytes: Vec<u8>,
    sequence: u32,
    /// Where the last change begins.
    last: usize,
}

impl Batch {
    fn new(table: &str) -> Self {
        let mut batch = Self {
            table: table.to_owned(),
            bytes: Vec::new(),
            sequence: 0,
            last: 0,
        };
        batch.message(BATCH_BEGIN, 0, 0, SUBSYSTEM >> 8, |_| {});
        batch
    }

    fn add_table(&mut self, end: TableEnd) {
        const OWNER: u32 = 2;
        self.change(NEW_TABLE, CREATE | EXCLUSIVE, |attributes| match end {
            TableEnd::Namespace => {}
            TableEnd::Socket => attributes.number(2, OWNER),
        });
    }

    fn delete_table(&mut self) {
        self.change(DELETE_TABLE, 0, |_| {});
    }

    fn add_chain(&mut self, name: &str, hook: Hook) {
        self.change(NEW_CHAIN, CREATE, |attributes| {
            attributes.text(3, name);
            attributes.nest(4, |nested| {
                nested.number(1, hook.hook);
                nested.number(2, hook.priority.cast_unsigned());
            });
            attributes.text(7, hook.r#type);
        });
    }

    /// Takes all rules out of a chain.
    fn flush_chain(&mut self, name: &str) {
        self.change(DELETE_RULE, 0, |attributes| attributes.text(2, name));
    }

    fn add_rule(&mut self, chain: &str, rule: impl FnOnce(&mut Rule<'_>)) {
        self.change(NEW_RULE, CREATE | APPEND, |attributes| {
            attributes.text(2, chain);
            attributes.nest(4, |nested| rule(&mut Rule(Attributes(nested.0))));
        });
    }

    /// A message about the table.
    fn change(&mut self, r#type: u16, flags: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.last = self.bytes.len();
        let table = self.table.clone();
        self.message(r#type, flags, INET, 0, |attributes| {
            attributes.text(1, &table);
            fill(attributes);
        });
    }

    fn message(
        &mut self,
        r#type: u16,
        flags: u16,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.sequence += 1;
        message(
            &mut self.bytes,
            Header {
                r#type,
                flags: flags | REQUEST,
                sequence: self.sequence,
                family,
                resource,
            },
            fill,
        );
    }

    /// Has the kernel do it, in the thread's network namespace or in that of the socket. After an error, there may be more
    /// to read from the socket.
    fn commit(mut self, socket: &Socket) -> io::Result<()> {
        self.acknowledge_last();
        self.message(BATCH_END, 0, 0, SUBSYSTEM >> 8, |_| {});
        netlink::send(socket, &self.bytes)?;
        loop {
            for message in netlink::split(&netlink::receive(socket)?) {
                match error_code(message) {
                    Some(0) => return Ok(()),
                    Some(code) => return Err(io::Error::from_raw_os_error(-code)),
                    None => {}
                }
            }
        }
    }

    /// What is wrong is told first and in any case. More acknowledgements than one would not fit into the socket's buffer,
    /// once there are many changes.
    fn acknowledge_last(&mut self) {
        let at = self.last + 6;
        let flags = self.bytes.get(at..).and_then(<[u8]>::first_chunk);
        let flags = flags.map_or(0, |bytes| u16::from_ne_bytes(*bytes));
        set(&mut self.bytes, at, &(flags | ACK).to_ne_bytes());
    }
}

/// Opens a socket for the thread's network namespace.
fn open() -> io::Result<Socket> {
    Socket::new(protocols::NETLINK_NETFILTER)
}

/// The code in an answer of type error; 0 acknowledges.
fn error_code(message: &[u8]) -> Option<i32> {
    const ERROR: u16 = 2;
    let r#type = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    let code = i32::from_ne_bytes(*message.get(16..)?.first_chunk()?);
    (r#type == ERROR).then_some(code)
}

#[derive(Debug)]
struct Header {
    r#type: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
}

fn message(bytes: &mut Vec<u8>, header: Header, fill: impl FnOnce(&mut Attributes<'_>)) {
    let start = bytes.len();
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(header.r#type.to_ne_bytes());
    bytes.extend(header.flags.to_ne_bytes());
    bytes.extend(header.sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([header.family, 0]);
    bytes.extend(header.resource.to_be_bytes());
    fill(&mut Attributes(bytes));
    let length = u32::try_from(bytes.len() - start).expect("a message has few rules");
    set(bytes, start, &length.to_ne_bytes());
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// The attributes of a message or of another attribute.
#[derive(Debug)]
struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    fn bytes(&mut self, r#type: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("attributes are small");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(r#type.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// An attribute that consists of others, which are there already.
    fn nested_bytes(&mut self, r#type: u16, value: &[u8]) {
        self.bytes(r#type | NESTED, value);
    }

    fn text(&mut self, r#type: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(r#type, &bytes);
    }

    fn number(&mut self, r#type: u16, value: u32) {
        self.bytes(r#type, &value.to_be_bytes());
    }

    fn nest(&mut self, r#type: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend((r#type | NESTED).to_ne_bytes());
        fill(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).expect("attributes are small");
        set(self.0, start, &length.to_ne_bytes());
    }
}

/// The value of an attribute.
fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    const TYPE_MASK: u16 = 0x3fff;
    let mut rest = bytes;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let r#type = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & TYPE_MASK;
        let value = rest.get(4..length)?;
        if r#type == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// The expressions of a rule.
#[derive(Debug)]
struct Rule<'a>(Attributes<'a>);

/// How a value is compared.
#[derive(Clone, Copy, Debug)]
enum Compare {
    Equal,
    NotEqual,
}

/// Which end of a packet's way.
#[derive(Clone, Copy, Debug)]
enum End {
    Source,
    Destination,
}

/// An address's family, as the packet filter numbers it.
fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

impl Rule<'_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.0.nest(1, |expression| {
            expression.text(1, name);
            expression.nest(2, fill);
        });
    }

    fn compare(&mut self, how: Compare, value: &[u8]) {
        self.expression("cmp", |cmp| {
            cmp.number(1, FIRST);
            cmp.number(
                2,
                match how {
                    Compare::Equal => 0,
                    Compare::NotEqual => 1,
                },
            );
            cmp.nest(3, |data| data.bytes(1, value));
        });
    }

    fn meta(&mut self, key: u32) {
        self.expression("meta", |meta| {
            meta.number(2, key);
            meta.number(1, FIRST);
        });
    }

    /// The packet is of the family of `ip`.
    fn of_family(&mut self, ip: IpAddr) {
        const NFPROTO: u32 = 15;
        self.meta(NFPROTO);
        self.compare(Compare::Equal, &[family(ip)]);
    }

    /// The packet is of this transport protocol.
    fn of_protocol(&mut self, number: u8) {
        const L4PROTO: u32 = 16;
        self.meta(L4PROTO);
        self.compare(Compare::Equal, &[number]);
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        self.expression("payload", |payload| {
            payload.number(1, FIRST);
            payload.number(2, base);
            payload.number(3, offset);
            payload.number(4, length);
        });
    }

    /// One end of the packet is in this subnet.
    fn address(&mut self, end: End, ip: IpAddr, prefix: u8) {
        const NETWORK_HEADER: u32 = 1;
        self.of_family(ip);
        let address = octets(ip);
        let length = u32::try_from(address.len()).expect("at most 16 bytes");
        let offset = match (ip, end) {
            (IpAddr::V4(_), End::Source) => 12,
            (IpAddr::V4(_), End::Destination) => 16,
            (IpAddr::V6(_), End::Source) => 8,
            (IpAddr::V6(_), End::Destination) => 24,
        };
        self.payload(NETWORK_HEADER, offset, length);
        if u32::from(prefix) < length * 8 {
            let mask: Vec<u8> = (0..length)
                .map(|index| {
                    let bits = u32::from(prefix).saturating_sub(index * 8).min(8);
                    u8::try_from(0xff00_u32 >> bits & 0xff).expect("eight bits")
                })
                .collect();
            self.expression("bitwise", |bitwise| {
                bitwise.number(1, FIRST);
                bitwise.number(2, FIRST);
                bitwise.number(3, length);
                bitwise.nest(4, |data| data.bytes(1, &mask));
                bitwise.nest(5, |data| data.bytes(1, &vec![0; mask.len()]));
            });
        }
        self.compare(Compare::Equal, &address);
    }

    /// The packet goes to this port of TCP or UDP.
    fn for_port(&mut self, port: u16) {
        const TRANSPORT_HEADER: u32 = 2;
        self.payload(TRANSPORT_HEADER, 2, 2);
        self.compare(Compare::Equal, &port.to_be_bytes());
    }

    /// The packet leaves by an interface of this name, or does not.
    fn leaves_by(&mut self, how: Compare, name: &str) {
        const OIFNAME: u32 = 7;
        self.meta(OIFNAME);
        let mut value = name.as_bytes().to_vec();
        value.resize(16, 0);
        self.compare(how, &value);
    }

    /// One in `of`, by chance.
    fn by_chance(&mut self, of: u32) {
        const RANDOM: u32 = 1;
        self.expression("numgen", |numgen| {
            numgen.number(1, FIRST);
            numgen.number(2, of);
            numgen.number(3, RANDOM);
        });
        self.compare(Compare::Equal, &0_u32.to_ne_bytes());
    }

    fn load(&mut self, register: u32, value: &[u8]) {
        self.expression("immediate", |immediate| {
            immediate.number(1, register);
            immediate.nest(2, |data| data.bytes(1, value));
        });
    }

    /// The packet, and what follows it, goes to this address and port instead.
    fn redirect(&mut self, ip: IpAddr, port: u16) {
        const DESTINATION: u32 = 1;
        self.load(FIRST, &octets(ip));
        self.load(SECOND, &port.to_be_bytes());
        self.expression("nat", |nat| {
            nat.number(1, DESTINATION);
            nat.number(2, family(ip).into());
            nat.number(3, FIRST);
            nat.number(5, SECOND);
        });
    }

    /// The packet goes out with the address of the interface that it leaves by.
    fn masquerade(&mut self) {
        self.expression("masq", |_| {});
    }

    /// The sender is told at once that nobody is there.
    fn reject(&mut self) {
        const ICMPX: u32 = 2;
        const PORT_UNREACHABLE: u8 = 1;
        self.expression("reject", |reject| {
            reject.number(1, ICMPX);
            reject.bytes(2, &[PORT_UNREACHABLE]);
        });
    }
}
