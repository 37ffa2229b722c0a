//! Reads requests, with bounds on everything.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use super::Next;
use super::wire::Wire;

/// The longest head: request line and headers, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// The longest body, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// The first byte of a client that speaks TLS, which would wait for an answer before it sends the end of a line.
const TLS_HANDSHAKE: u8 = 22;

/// How long a request may take to arrive once it has begun.
const MAX_TIME: Duration = Duration::from_secs(20);

/// How long a connection may rest between requests.
const MAX_REST: Duration = Duration::from_secs(75);

/// A request that cannot be answered as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) status: u16,
    pub(super) why: &'static str,
}

const fn bad(status: u16, why: &'static str) -> Bad {
    Bad { status, why }
}

/// A whole request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// As it was sent: path and query.
    pub(super) target: String,
    minor_version: u8,
    /// In the order of the request; names as they were sent.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The first header of this name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the client wants the connection to go on.
    pub(super) fn next(&self) -> Next {
        let connection = self
            .header("connection")
            .unwrap_or_default()
            .to_ascii_lowercase();
        let has = |word| connection.split(',').any(|part| part.trim() == word);
        match self.minor_version {
            0 if has("keep-alive") => Next::KeepAlive,
            0 => Next::Close,
            _ if has("close") => Next::Close,
            _ => Next::KeepAlive,
        }
    }

    /// The path, with `%XX` decoded; `None` if that is not valid.
    pub(super) fn path(&self) -> Option<String> {
        // A proxy's form, with the whole address, is allowed to be sent to any server.
        let target = match self.target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
            None => &self.target,
        };
        let path = target.split(['?', '#']).next().unwrap_or_default();
        percent_decode(path)
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|path| !path.contains('\0'))
}

/// A connection, read request by request.
pub(super) struct Connection<'a> {
    stream: &'a Wire,
    /// What was read and not used yet.
    buffer: Vec<u8>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(stream: &'a Wire) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Reads the next request; `None` if the client has gone or rests too long.
    pub(super) fn next(&mut self) -> Result<Option<Request>, Bad> {
        let mut deadline = Instant::now() + MAX_REST;
        if !self.buffer.is_empty() {
            deadline = Instant::now() + MAX_TIME;
        }
        let end = loop {
            // Empty lines before a request are to be passed over.
            let blank = self
                .buffer
                .iter()
                .take_while(|byte| matches!(byte, b'\r' | b'\n'))
                .count();
            self.buffer.drain(..blank);
            if self.buffer.first() == Some(&TLS_HANDSHAKE) {
                return Err(bad(400, "this is TLS"));
            }
            if let Some(end) = head_end(&self.buffer) {
                break end;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(bad(431, "the headers are too long"));
            }
            let begins = self.buffer.is_empty();
            match self.fill(deadline) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(bad(400, "the request has no end")),
                Ok(_) if begins => deadline = Instant::now() + MAX_TIME,
                Ok(_) => {}
                Err(_) if self.buffer.is_empty() => return Ok(None),
                Err(_) => return Err(bad(408, "the request took too long")),
            }
        };
        if end > MAX_HEAD {
            return Err(bad(431, "the headers are too long"));
        }
        let mut request = parse_head(&self.buffer[..end])?;
        self.buffer.drain(..end);
        request.body = self.body(&request, deadline)?;
        Ok(Some(request))
    }

    fn body(&mut self, request: &Request, deadline: Instant) -> Result<Vec<u8>, Bad> {
        if request.header("transfer-encoding").is_some() {
            return Err(bad(411, "send a Content-Length"));
        }
        let len = content_length(request)?;
        let continues = request
            .header("expect")
            .is_some_and(|e| e.eq_ignore_ascii_case("100-continue"));
        if continues && self.buffer.len() < len {
            // If it does not get there, the body does not get here, which is seen next.
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok();
        }
        while self.buffer.len() < len {
            match self.fill(deadline) {
                Ok(0) => return Err(bad(400, "the body is too short")),
                Ok(_) => {}
                Err(_) => return Err(bad(408, "the request took too long")),
            }
        }
        Ok(self.buffer.drain(..len).collect())
    }

    /// Reads some more before the deadline; 0 is the end.
    fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        let mut part = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut part) {
                Ok(len) => {
                    self.buffer.extend_from_slice(&part[..len]);
                    return Ok(len);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Returns when the client closes the connection.
    pub(super) fn wait_for_close(&mut self) {
        let mut part = [0; 4096];
        if self.stream.set_read_timeout(None).is_err() {
            return;
        }
        while let Ok(1..) = self.stream.read(&mut part) {}
    }
}

/// Where the head ends, its empty line included. Lines may end with a bare `\n`.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' {
            if matches!(&bytes[line..at], b"" | b"\r") {
                return Some(at + 1);
            }
            line = at + 1;
        }
    }
    None
}

fn parse_head(head: &[u8]) -> Result<Request, Bad> {
    let head = std::str::from_utf8(head).map_err(|_| bad(400, "the headers are no text"))?;
    let mut lines = head.lines().take_while(|line| !line.is_empty());
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let &[method, target, version] = &first[..] else {
        return Err(bad(400, "this is no HTTP request"));
    };
    let minor_version = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        other if other.starts_with("HTTP/") => {
            return Err(bad(505, "only HTTP/1.0 and 1.1 are spoken here"));
        }
        _ => return Err(bad(400, "this is no HTTP request")),
    };
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(bad(400, "this is no method"));
    }
    if target.is_empty() || target.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(bad(400, "this is no path"));
    }
    Ok(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        minor_version,
        headers: lines.map(parse_header).collect::<Result<_, _>>()?,
        body: Vec::new(),
    })
}

fn parse_header(line: &str) -> Result<(String, String), Bad> {
    let (name, value) = line.split_once(':').ok_or(bad(400, "this is no header"))?;
    // Also refuses a space before the colon and folded lines, which others might read otherwise.
    let is_name = |byte: u8| byte.is_ascii_graphic();
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err(bad(400, "this is no header"));
    }
    if value
        .bytes()
        .any(|byte| byte.is_ascii_control() && byte != b'\t')
    {
        return Err(bad(400, "this is no header"));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

fn content_length(request: &Request) -> Result<usize, Bad> {
    let is_length = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("content-length");
    let mut lengths = request
        .headers
        .iter()
        .filter(is_length)
        .map(|(_, value)| value);
    let Some(text) = lengths.next() else {
        return Ok(0);
    };
    if lengths.any(|other| other != text)
        || text.is_empty()
        || !text.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(bad(400, "this is no Content-Length"));
    }
    match text.parse() {
        Ok(len) if len <= MAX_BODY => Ok(len),
        // Digits that are no number are too many.
        Ok(_) | Err(_) => Err(bad(413, "the body is too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let ok = |head: &str| parse_head(head.as_bytes()).expect(head);
        let request = ok("GET /a?b HTTP/1.1\r\nHost: x\r\nX-Empty:\r\nx-two: 1 2 \r\n\r\n");
        assert_eq!((&*request.method, &*request.target), ("GET", "/a?b"));
        assert_eq!(request.header("HOST"), Some("x"));
        assert_eq!(request.header("X-Two"), Some("1 2"));
        assert_eq!(request.header("x-empty"), Some(""));
        assert_eq!(ok("GET / HTTP/1.0\n\n").next(), Next::Close);
        assert_eq!(
            ok("GET / HTTP/1.0\nconnection: Keep-Alive\n\n").next(),
            Next::KeepAlive
        );
        assert_eq!(
            ok("GET / HTTP/1.1\nConnection: x, close\n\n").next(),
            Next::Close
        );
        let wrong = |head: &str, status| {
            let error = parse_head(head.as_bytes()).expect_err(head);
            assert_eq!(error.status, status, "{head}");
        };
        for head in [
            "",
            "GET\n",
            "GET /\n",
            "GET / \n",
            "GET  / HTTP/1.1\n",
            "G\u{e9}T / HTTP/1.1\n",
            " / HTTP/1.1\n",
        ] {
            wrong(head, 400);
        }
        for header in [
            "nonsense",
            ": x",
            "a b: c",
            "a : c",
            " folded: x",
            "a: b\0c",
        ] {
            wrong(&format!("GET / HTTP/1.1\n{header}\n\n"), 400);
        }
        wrong("GET / HTTP/2.0\n\n", 505);
        assert!(parse_head(b"GET /\xff HTTP/1.1\n\n").is_err());
    }

    #[test]
    fn ends_of_heads() {
        for (bytes, expected) in [
            ("", None),
            ("GET", None),
            ("a\r\n", None),
            ("a\r\n\r\n", Some(5)),
            ("a\r\n\r\nbody", Some(5)),
            ("a\n\n", Some(3)),
            ("a\nb\n\r\nc\n\n", Some(6)),
        ] {
            assert_eq!(head_end(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn paths() {
        let path = |target: &str| {
            parse_head(format!("GET {target} HTTP/1.1\n\n").as_bytes())
                .ok()?
                .path()
        };
        for (target, expected) in [
            ("/", Some("/")),
            ("/a%20b?c=%zz", Some("/a b")),
            ("/%C3%A9", Some("/é")),
            ("http://host:1/x", Some("/x")),
            ("http://host", Some("/")),
            ("/%", None),
            ("/%2", None),
            ("/%+1", None),
            ("/%ff", None),
            ("/%00", None),
        ] {
            assert_eq!(path(target).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn lengths() {
        let length = |headers: &str| {
            let head = format!("POST / HTTP/1.1\n{headers}\n");
            content_length(&parse_head(head.as_bytes()).expect("a request")).map_err(|e| e.status)
        };
        assert_eq!(length(""), Ok(0));
        assert_eq!(length("Content-Length: 5\n"), Ok(5));
        assert_eq!(length("Content-Length: 5\nContent-Length: 5\n"), Ok(5));
        assert_eq!(length("Content-Length: 5\nContent-Length: 6\n"), Err(400));
        assert_eq!(length("Content-Length: -1\n"), Err(400));
        assert_eq!(length("Content-Length: +1\n"), Err(400));
        assert_eq!(length("Content-Length: 1048577\n"), Err(413));
        assert_eq!(
            length("Content-Length: 99999999999999999999999\n"),
            Err(413)
        );
    }
}
