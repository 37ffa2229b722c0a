//! Looks up a name as programs do: by the nameservers, search domains and `ndots` of `/etc/resolv.conf`.
//!
//! Prints the answers, one per line: `NAME TTL TYPE VALUE`. Exit codes: 0 there are some; 3 there is no such name;
//! 4 there is, but nothing of this type; 1 no nameserver knows.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::arguments::Arguments;
use super::{Error, out};

pub(super) const USAGE: &str = "[--tcp] [--server IP] [--reverse] NAME [TYPE]";

const NO_SUCH_NAME: u8 = 3;
const NOTHING_OF_THIS_TYPE: u8 = 4;

pub(super) fn run(mut arguments: Arguments) -> Result<u8, Error> {
    let mut transport = Transport::Udp;
    let mut server: Option<IpAddr> = None;
    let mut direction = Direction::Forward;
    while let Some(option) = arguments.option() {
        match &*option {
            "--tcp" => transport = Transport::Tcp,
            "--server" => server = Some(arguments.value("--server")?),
            "--reverse" => direction = Direction::Reverse,
            other => return Err(arguments.unknown(other)),
        }
    }
    let path = Path::new("/etc/resolv.conf");
    let (names, kind) = match direction {
        Direction::Reverse => {
            let address: IpAddr = arguments.next("NAME")?;
            (Candidates::Only(address.into()), RecordType::PTR)
        }
        Direction::Forward => {
            let name: Asked = arguments.next("NAME")?;
            let kind = arguments.next_if_any("TYPE")?;
            (Candidates::Searched(name), kind.unwrap_or(RecordType::A))
        }
    };
    arguments.end()?;
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(Error::file("read", path))?,
    };
    let mut resolver = Resolver::parse(&text);
    resolver.servers = server.map_or(resolver.servers, |server| vec![server]);
    let names = match names {
        Candidates::Only(name) => vec![name],
        Candidates::Searched(name) => resolver.candidates(&name),
    };
    look_up(&resolver, &names, kind, transport)
}

/// Whether a name is looked for, or that of an address.
enum Direction {
    Forward,
    Reverse,
}

#[derive(Clone, Copy)]
enum Transport {
    /// And TCP if the answer does not fit.
    Udp,
    Tcp,
}

enum Candidates {
    Only(Name),
    Searched(Asked),
}

/// A name as a person writes it, and that name.
struct Asked {
    text: String,
    name: Name,
}

impl std::str::FromStr for Asked {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(Self {
            text: text.to_owned(),
            name: absolute(text).ok_or(())?,
        })
    }
}

/// The name from the root, whether or not a dot says so.
fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// What `/etc/resolv.conf` says.
struct Resolver {
    servers: Vec<IpAddr>,
    searches: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Self {
            servers: Vec::new(),
            searches: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver
                    .servers
                    .extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
                Some("search" | "domain") => {
                    resolver.searches = words.map(str::to_owned).collect();
                }
                Some("options") => words.for_each(|word| resolver.set(word)),
                _ => {}
            }
        }
        resolver.servers.truncate(3);
        if resolver.servers.is_empty() {
            resolver.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        resolver
    }

    fn set(&mut self, option: &str) {
        let Some((name, Ok(value))) = option
            .split_once(':')
            .map(|(name, value)| (name, value.parse::<u32>()))
        else {
            return;
        };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// The names to try, one after the other, as glibc does: with few dots the search domains come first.
    fn candidates(&self, asked: &Asked) -> Vec<Name> {
        if asked.text.ends_with('.') {
            return vec![asked.name.clone()];
        }
        let searched = self.searches.iter().filter_map(|domain| {
            let domain = domain.trim_end_matches('.');
            absolute(&format!("{}.{domain}", asked.text))
        });
        let dots = asked.text.matches('.').count();
        if dots >= self.ndots {
            [asked.name.clone()].into_iter().chain(searched).collect()
        } else {
            searched.chain([asked.name.clone()]).collect()
        }
    }

    /// The first answer of a server that can answer.
    fn ask(&self, name: &Name, kind: RecordType, transport: Transport) -> io::Result<Message> {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name.clone(), kind));
        let mut result = Err(io::ErrorKind::NotFound.into());
        for _ in 0..self.attempts {
            for server in &self.servers {
                let server = SocketAddr::new(*server, 53);
                result = ask(server, &query, transport, self.timeout);
                let codes = [ResponseCode::NoError, ResponseCode::NXDomain];
                if let Ok(answer) = &result
                    && codes.contains(&answer.metadata.response_code)
                {
                    return result;
                }
            }
        }
        result
    }
}

fn look_up(
    resolver: &Resolver,
    names: &[Name],
    kind: RecordType,
    transport: Transport,
) -> Result<u8, Error> {
    let mut code = NO_SUCH_NAME;
    for name in names {
        let answer = resolver
            .ask(name, kind, transport)
            .map_err(|e| Error::System("ask a nameserver", e))?;
        match answer.metadata.response_code {
            ResponseCode::NoError if answer.answers.is_empty() => code = NOTHING_OF_THIS_TYPE,
            ResponseCode::NoError => return print(&answer),
            ResponseCode::NXDomain => {}
            other => {
                let said = io::Error::other(format!("it says {other}"));
                return Err(Error::System("look up the name", said));
            }
        }
    }
    Ok(code)
}

fn print(answer: &Message) -> Result<u8, Error> {
    out(|out| {
        answer.answers.iter().try_for_each(|record| {
            let (name, kind) = (&record.name, record.record_type());
            writeln!(out, "{name} {} {kind} {}", record.ttl, record.data)
        })
    })
}

fn ask(
    server: SocketAddr,
    query: &Message,
    transport: Transport,
    timeout: Duration,
) -> io::Result<Message> {
    let bytes = query.to_vec().map_err(io::Error::other)?;
    match transport {
        Transport::Udp => match by_udp(server, query, &bytes, timeout)? {
            answer if answer.metadata.truncation => by_tcp(server, query, &bytes, timeout),
            answer => Ok(answer),
        },
        Transport::Tcp => by_tcp(server, query, &bytes, timeout),
    }
}

fn by_udp(
    server: SocketAddr,
    query: &Message,
    bytes: &[u8],
    timeout: Duration,
) -> io::Result<Message> {
    let any = match server {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.send(bytes)?;
    let end = Instant::now() + timeout;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        if let Some(answer) = answer_to(query, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

fn by_tcp(
    server: SocketAddr,
    query: &Message,
    bytes: &[u8],
    timeout: Duration,
) -> io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    answer_to(query, &answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn answer_to(query: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let answers = answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == query.metadata.id
        && answer.queries == query.queries;
    answers.then_some(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn candidates(resolv_conf: &str, name: &str) -> Vec<String> {
        let asked = name.parse().unwrap();
        let names = Resolver::parse(resolv_conf).candidates(&asked);
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_searched_as_programs_search_them() {
        let pod = "search a.svc.test svc.test.\nnameserver 1.1.1.1\noptions ndots:2 edns0\n";
        assert_eq!(
            candidates(pod, "db"),
            ["db.a.svc.test.", "db.svc.test.", "db."]
        );
        assert_eq!(
            candidates(pod, "db.b"),
            ["db.b.a.svc.test.", "db.b.svc.test.", "db.b."]
        );
        assert_eq!(
            candidates(pod, "www.db.b"),
            ["www.db.b.", "www.db.b.a.svc.test.", "www.db.b.svc.test."]
        );
        assert_eq!(candidates(pod, "db."), ["db."]);
        assert_eq!(candidates("", "db"), ["db."]);
        assert_eq!(
            candidates("search x\n", "_http._tcp.db"),
            ["_http._tcp.db.", "_http._tcp.db.x."]
        );
    }

    #[test]
    fn what_was_cut_off_is_asked_again_by_tcp() {
        // Both at one port.
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let server = tcp.local_addr().unwrap();
        let answer = |query: &[u8], truncation| {
            let query = Message::from_vec(query).unwrap();
            let mut answer = query.into_response();
            answer.metadata.truncation = truncation;
            answer.to_vec().unwrap()
        };
        let serve = std::thread::spawn(move || {
            let mut query = [0; 512];
            let (length, client) = udp.recv_from(&mut query).unwrap();
            udp.send_to(b"noise", client).unwrap();
            udp.send_to(&answer(&query[..length], true), client)
                .unwrap();
            let (mut stream, _) = tcp.accept().unwrap();
            stream.read_exact(&mut query[..2 + length]).unwrap();
            let answer = answer(&query[2..2 + length], false);
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], &answer].concat()).unwrap();
        });
        let mut query = Message::query();
        query.add_query(Query::query(absolute("db.test").unwrap(), RecordType::A));
        let answer = ask(server, &query, Transport::Udp, Duration::from_secs(20)).unwrap();
        assert!(!answer.metadata.truncation);
        serve.join().unwrap();
    }

    #[test]
    fn what_the_file_says() {
        let text = "nameserver 1.1.1.1\nnameserver x\nnameserver ::1\noptions timeout:1 attempts:9 ndots:99 rotate\n";
        let resolver = Resolver::parse(text);
        assert_eq!(
            resolver.servers,
            ["1.1.1.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        assert_eq!(resolver.timeout, Duration::from_secs(1));
        assert_eq!((resolver.attempts, resolver.ndots), (5, 15));
        assert_eq!(Resolver::parse("").servers, [Ipv4Addr::LOCALHOST]);
    }
}
