//! Asks a web server for a page, by HTTP/1.0 without TLS.
//!
//! Exit codes: 0 here it is; 3 the server says that something is wrong (its words are printed nevertheless); 1 there was no
//! answer.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::arguments::Arguments;
use super::{Error, out};

pub(super) const USAGE: &str = "[--timeout SECONDS] URL";

/// How long an answer may take if nobody says otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is taken.
const LONGEST: u64 = 16 * 1024 * 1024;

const REFUSED: u8 = 3;

pub(super) fn run(mut arguments: Arguments) -> Result<u8, Error> {
    let mut timeout = PATIENCE;
    while let Some(option) = arguments.option() {
        match &*option {
            "--timeout" => timeout = arguments.value::<Seconds>("--timeout")?.0,
            other => return Err(arguments.unknown(other)),
        }
    }
    let url: Url = arguments.next("URL")?;
    arguments.end()?;
    let page = fetch(&url, timeout).map_err(|e| Error::System("fetch the page", e))?;
    out(|out| out.write_all(&page.body))?;
    Ok(if page.is_good() { 0 } else { REFUSED })
}

/// A time that is not 0, which sockets take for none.
struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let seconds = text.parse().map_err(|_| ())?;
        let time = Duration::try_from_secs_f64(seconds).map_err(|_| ())?;
        (!time.is_zero()).then_some(Self(time)).ok_or(())
    }
}

/// `http://HOST[:PORT][/PATH]`; the scheme may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// As it goes into the request: an IPv6 address has its brackets.
    host: String,
    port: u16,
    path: String,
}

impl FromStr for Url {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // A line of its own would be a header of its own.
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(());
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let after_host = authority.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match authority.get(after_host..).and_then(|rest| rest.rfind(':')) {
            Some(at) => {
                let (host, port) = authority.split_at(after_host + at);
                (host, port.trim_start_matches(':').parse().map_err(|_| ())?)
            }
            None => (authority, 80),
        };
        if host.is_empty() || (host.contains(':') && !host.starts_with('[')) {
            return Err(());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path)
    }
}

/// What a server answered.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Page {
    pub(super) fn is_good(&self) -> bool {
        self.status < 400
    }
}

/// Asks each address of the host until one takes the connection. `timeout` is for all together.
pub(super) fn fetch(url: &Url, timeout: Duration) -> io::Result<Page> {
    let end = Instant::now() + timeout;
    let left = || match end.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let host = url.host.trim_matches(['[', ']']);
    let mut connected = Err(io::ErrorKind::NotFound.into());
    for address in (host, url.port).to_socket_addrs()? {
        connected = TcpStream::connect_timeout(&address, left()?);
        if connected.is_ok() {
            break;
        }
    }
    let mut stream = connected?;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}:{}\r\nAccept: text/plain\r\n\r\n",
        url.path, url.host, url.port
    );
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.len() as u64 <= LONGEST {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return page(&answer),
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

fn page(answer: &[u8]) -> io::Result<Page> {
    let incomplete = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let end = b"\r\n\r\n";
    let head = answer.windows(end.len()).position(|bytes| bytes == end);
    let head = head.ok_or_else(incomplete)?;
    let (head, body) = answer.split_at(head + end.len());
    let head = String::from_utf8_lossy(head);
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok())
        .ok_or_else(|| io::Error::other("this is no web server"))?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        value.trim().parse::<usize>().ok().filter(|_| is_length)
    });
    match length {
        Some(length) if body.len() < length => Err(incomplete()),
        Some(_) | None => Ok(Page {
            status,
            body: body.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expected: &str| {
            let url = text.parse::<Url>().map(|url| url.to_string());
            assert_eq!(url.unwrap_or_default(), expected, "{text}");
        };
        check("http://db", "http://db:80/");
        check("db:8080", "http://db:8080/");
        check("db/a/b?c=d:e", "http://db:80/a/b?c=d:e");
        check("http://[fd00::1]:81/x", "http://[fd00::1]:81/x");
        check("http://[fd00::1]", "http://[fd00::1]:80/");
        check("fd00::1", "");
        check("http://", "");
        check("db:x", "");
        check("https://db", "");
        check("db/a b", "");
        check("db/\r\nX: y", "");
    }

    #[test]
    fn answers() {
        let check = |answer: &str, expected: Option<(u16, &str)>| {
            let page = page(answer.as_bytes()).ok();
            let page = page.map(|page| (page.status, String::from_utf8(page.body).unwrap()));
            let expected = expected.map(|(status, body)| (status, body.to_owned()));
            assert_eq!(page, expected, "{answer}");
        };
        check("HTTP/1.1 200 OK\r\n\r\nhello", Some((200, "hello")));
        check(
            "HTTP/1.0 404\r\ncontent-length: 2\r\n\r\nno",
            Some((404, "no")),
        );
        check("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", None);
        check("HTTP/1.1 200 OK\r\n", None);
        check("SSH-2.0-x\r\n\r\n", None);
    }
}
