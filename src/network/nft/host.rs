//! The machine's own table: pods that talk to the world do it with the machine's address.

use std::io;

use super::{
    ACK, Batch, Compare, DUMP, End, GET_CHAIN, HOOK_POSTROUTING, Header, Hook, INET, REQUEST,
    TableEnd, attribute, message, netlink, open,
};
use crate::network::subnet::Subnet;

/// Masks what leaves these subnets by another way than the bridge. The table has the bridge's name.
///
/// # Errors
/// The kernel has no nftables, or no NAT.
pub(in crate::network) fn masquerade(bridge: &str, subnets: &[Subnet]) -> io::Result<()> {
    let socket = open()?;
    match table(bridge, subnets).commit(&socket) {
        // Left behind by a network of the same name, with other rules.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_table(bridge)?;
            table(bridge, subnets).commit(&open()?)
        }
        other => other,
    }
}

fn table(bridge: &str, subnets: &[Subnet]) -> Batch {
    const SOURCE_NAT: i32 = 100;
    let chain = "postrouting";
    let mut batch = Batch::new(bridge);
    batch.add_table(TableEnd::Namespace);
    batch.add_chain(
        chain,
        Hook {
            r#type: "nat",
            hook: HOOK_POSTROUTING,
            priority: SOURCE_NAT,
        },
    );
    for subnet in subnets {
        batch.add_rule(chain, |rule| {
            rule.address(End::Source, subnet.address, subnet.prefix);
            rule.leaves_by(Compare::NotEqual, bridge);
            rule.masquerade();
        });
    }
    batch
}

/// Removes the table of a bridge; fine if there is none.
///
/// # Errors
/// The kernel refuses.
pub(in crate::network) fn remove_table(bridge: &str) -> io::Result<()> {
    let mut batch = Batch::new(bridge);
    batch.delete_table();
    match batch.commit(&open()?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The names of the chains that drop what the machine forwards unless a rule of them says otherwise, as `table chain`:
/// with such a firewall, packets of pods do not get through.
///
/// # Errors
/// The kernel has no nftables.
pub(in crate::network) fn forward_policy_drops() -> io::Result<Vec<String>> {
    let chains = all(GET_CHAIN)?;
    Ok(chains
        .iter()
        .filter_map(|message| dropping_chain(message))
        .collect())
}

/// All tables, or all chains, of the thread's network namespace.
fn all(question: u16) -> io::Result<Vec<Vec<u8>>> {
    const ANY_FAMILY: u8 = 0;
    let mut bytes = Vec::new();
    message(
        &mut bytes,
        Header {
            r#type: question,
            flags: REQUEST | DUMP | ACK,
            sequence: 1,
            family: ANY_FAMILY,
            resource: 0,
        },
        |_| {},
    );
    let socket = open()?;
    netlink::send(&socket, &bytes)?;
    let mut found = Vec::new();
    loop {
        for message in netlink::split(&netlink::receive(&socket)?) {
            const DONE: u16 = 3;
            const ERROR: u16 = 2;
            let r#type = message.get(4..).and_then(<[u8]>::first_chunk);
            match r#type.map(|bytes| u16::from_ne_bytes(*bytes)) {
                Some(DONE) => return Ok(found),
                Some(ERROR) => {
                    let code = super::error_code(message).unwrap_or_default();
                    return match code {
                        0 => Ok(found),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => found.push(message.to_vec()),
            }
        }
    }
}

/// The names of all tables.
#[cfg(test)]
pub(in crate::network) fn tables() -> io::Result<Vec<String>> {
    const GET_TABLE: u16 = super::SUBSYSTEM | 1;
    let name = |table: &Vec<u8>| Some(text(attribute(table.get(20..)?, 1)?));
    Ok(all(GET_TABLE)?.iter().filter_map(name).collect())
}

/// The chain of this message, if it is hooked into forwarding and drops by itself.
fn dropping_chain(message: &[u8]) -> Option<String> {
    const FORWARD: u32 = 2;
    const DROP: u32 = 0;
    let family = *message.get(16)?;
    if ![INET, 2, 10].contains(&family) {
        return None;
    }
    let body = message.get(20..)?;
    let hook = attribute(body, 4)?;
    let hooked = number(attribute(hook, 1)?)?;
    let policy = number(attribute(body, 5)?)?;
    let name = format!(
        "{} {}",
        text(attribute(body, 1)?),
        text(attribute(body, 3)?)
    );
    (hooked == FORWARD && policy == DROP).then_some(name)
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches('\0').to_owned()
}
