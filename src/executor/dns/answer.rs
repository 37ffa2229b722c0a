//! What is answered to a query from what is known of the cluster. Pure.

use std::collections::HashSet;
use std::net::IpAddr;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::message;
use super::zone::{self, Entry, Host, View};

/// How long an answer may be kept, in seconds, "there is no such name" included. Short: pods come and go.
const TTL: u32 = 5;
/// Of the DNS specification.
const VERSION: &str = "1.1.0";
/// How many names may stand for one another, so that a circle of them ends.
const MOST_ALIASES: usize = 8;

/// What becomes of a query.
#[derive(Debug)]
pub(super) enum Answer {
    Local(Message),
    /// A name of the cluster stands for one elsewhere. This is to be completed with what is known of `target` there.
    Alias {
        known: Message,
        target: Name,
    },
    /// The cluster has nothing to do with it.
    Relay,
}

/// What is answered to a query.
pub(super) fn answer(query: &Message, view: &View<'_>) -> Answer {
    let Some(question) = query.queries.first() else {
        return Answer::Local(message::refusal(query, ResponseCode::FormErr));
    };
    let is_transfer = matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR);
    if question.query_class() != DNSClass::IN || is_transfer {
        return Answer::Local(message::refusal(query, ResponseCode::Refused));
    }
    let mut reply = message::reply(query);
    reply.metadata.authoritative = true;
    if let Some(labels) = zone::labels(question.name()) {
        return in_cluster(question, labels, view, reply);
    }
    let names = match zone::reversed(question.name()) {
        Some(address) => view.names_of(address),
        None => Vec::new(),
    };
    if names.is_empty() {
        return Answer::Relay;
    }
    match question.query_type() {
        RecordType::PTR | RecordType::ANY => {
            let name = question.name();
            let records = names
                .into_iter()
                .map(|of| record(name, RData::PTR(PTR(of))));
            reply.add_answers(records);
        }
        _ => deny(&mut reply, ResponseCode::NoError),
    }
    Answer::Local(reply)
}

fn in_cluster(
    question: &Query,
    mut labels: Vec<String>,
    view: &View<'_>,
    mut reply: Message,
) -> Answer {
    let asked = question.query_type();
    let mut owner = question.name().clone();
    for _ in 0..MOST_ALIASES {
        match view.entry(&labels) {
            None if reply.answers.is_empty() => {
                deny(&mut reply, ResponseCode::NXDomain);
                return Answer::Local(reply);
            }
            None => break,
            Some(Entry::Alias(target)) => {
                let follow = match asked {
                    RecordType::A | RecordType::AAAA => true,
                    RecordType::CNAME | RecordType::ANY => false,
                    _ => break,
                };
                reply.add_answer(record(&owner, RData::CNAME(CNAME(target.clone()))));
                if !follow {
                    return Answer::Local(reply);
                }
                match zone::labels(&target) {
                    Some(next) => labels = next,
                    None => {
                        return Answer::Alias {
                            known: reply,
                            target,
                        };
                    }
                }
                owner = target;
            }
            Some(Entry::Apex) => {
                add_apex(&mut reply, &owner, asked, view.resolver);
                return complete(reply, Vec::new());
            }
            Some(Entry::Parent) => return complete(reply, Vec::new()),
            Some(Entry::Version) => {
                let text = RData::TXT(TXT::new(vec![VERSION.to_owned()]));
                let wanted = matches!(asked, RecordType::TXT | RecordType::ANY);
                let records = wanted.then(|| record(&owner, text));
                return complete(reply, records.into_iter().collect());
            }
            Some(Entry::Hosts(hosts)) => {
                let records = match asked {
                    RecordType::SRV => {
                        reply.add_additionals(addresses_of_all(&hosts));
                        services(&owner, &hosts)
                    }
                    _ => addresses(&owner, &hosts, asked),
                };
                return complete(reply, records);
            }
        }
    }
    // Names that stand for nothing, or for one another.
    complete(reply, Vec::new())
}

/// Adds what was asked for; without any, that there is nothing of this type.
fn complete(mut reply: Message, records: Vec<Record>) -> Answer {
    let only_aliases = |record: &Record| record.record_type() == RecordType::CNAME;
    if records.is_empty() && reply.answers.iter().all(only_aliases) {
        reply.answers.clear();
        deny(&mut reply, ResponseCode::NoError);
    } else {
        reply.add_answers(records);
    }
    Answer::Local(reply)
}

/// Says that there is no such name, or nothing of the type at it, and for how long that is known.
fn deny(reply: &mut Message, code: ResponseCode) {
    reply.metadata.response_code = code;
    reply.authorities.extend(start_of_authority());
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), TTL, data)
}

fn start_of_authority() -> Option<Record> {
    let domain = zone::name_of(&[])?;
    let server = zone::name_of(&["ns", "dns"])?;
    let mailbox = zone::name_of(&["hostmaster"])?;
    let (serial, refresh, retry, expire) = (1, 7200, 1800, 86400);
    let data = SOA::new(server, mailbox, serial, refresh, retry, expire, TTL);
    Some(record(&domain, RData::SOA(data)))
}

fn add_apex(reply: &mut Message, owner: &Name, asked: RecordType, resolver: IpAddr) {
    if matches!(asked, RecordType::SOA | RecordType::ANY) {
        reply.answers.extend(start_of_authority());
    }
    if matches!(asked, RecordType::NS | RecordType::ANY)
        && let Some(server) = zone::name_of(&["ns", "dns"])
    {
        reply.add_additional(record(&server, address_data(resolver)));
        reply.add_answer(record(owner, RData::NS(NS(server))));
    }
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    }
}

/// The addresses of the family that was asked for, each once.
fn addresses(owner: &Name, hosts: &[Host], asked: RecordType) -> Vec<Record> {
    let mut seen = HashSet::new();
    let addresses = hosts.iter().map(|host| host.address);
    let wanted = addresses.filter(|address| match asked {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    });
    let once = wanted.filter(|address| seen.insert(*address));
    once.map(|address| record(owner, address_data(address)))
        .collect()
}

fn addresses_of_all(hosts: &[Host]) -> Vec<Record> {
    let mut seen = HashSet::new();
    let with_port = hosts.iter().filter(|host| host.port.is_some());
    let once = with_port.filter(|host| seen.insert((&host.name, host.address)));
    once.map(|host| record(&host.name, address_data(host.address)))
        .collect()
}

/// Ports and the names at which they are, each once, with equal weights.
fn services(owner: &Name, hosts: &[Host]) -> Vec<Record> {
    let mut seen = HashSet::new();
    let share = 100_usize.checked_div(hosts.len()).unwrap_or_default();
    let weight = u16::try_from(share.max(1)).unwrap_or(1);
    let with_port = hosts
        .iter()
        .filter_map(|host| host.port.map(|port| (port, &host.name)));
    let once = with_port.filter(|target| seen.insert(*target));
    once.map(|(port, name)| record(owner, RData::SRV(SRV::new(0, weight, port, name.clone()))))
        .collect()
}

#[cfg(test)]
mod tests;
