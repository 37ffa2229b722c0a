//! Writes answers.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use super::Next;
use super::wire::Wire;

/// An answer.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    content_type: &'static str,
    body: Body,
    /// One more header.
    header: Option<(&'static str, String)>,
}

#[derive(Debug)]
enum Body {
    Bytes(Vec<u8>),
    /// As many bytes of a file.
    File(File, u64),
    /// None, though there would be as many bytes.
    Omitted(u64),
}

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const JSON: &str = "application/json";

impl Response {
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type,
            body: Body::Bytes(body.into()),
            header: None,
        }
    }

    pub(super) fn text(status: u16, text: &str) -> Self {
        Self::new(status, TEXT, text)
    }

    pub(super) fn file(content_type: &'static str, file: File, len: u64) -> Self {
        Self {
            status: 200,
            content_type,
            body: Body::File(file, len),
            header: None,
        }
    }

    /// The refusal of a method, with those that are allowed.
    pub(super) fn only(allow: &'static str) -> Self {
        Self {
            header: Some(("Allow", allow.to_owned())),
            ..Self::text(405, &format!("only {allow}\n"))
        }
    }

    /// Sends the client elsewhere.
    pub(super) fn redirect(location: String) -> Self {
        Self {
            header: Some(("Location", location)),
            ..Self::text(302, "look there\n")
        }
    }

    /// The answer to HEAD.
    pub(super) fn without_body(self) -> Self {
        let len = self.len();
        Self {
            body: Body::Omitted(len),
            ..self
        }
    }

    fn len(&self) -> u64 {
        match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File(_, len) | Body::Omitted(len) => *len,
        }
    }

    pub(super) fn write_to(self, mut stream: &Wire, next: Next) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let (len, has_body) = (self.len(), !matches!(self.status, 204 | 304));
        if has_body {
            head.push_str(&format!(
                "Content-Type: {}\r\nContent-Length: {len}\r\nX-Content-Type-Options: nosniff\r\n",
                self.content_type
            ));
        }
        if let Some((name, value)) = self.header {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if next == Next::Close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("Cache-Control: no-store\r\n\r\n");
        let mut head = head.into_bytes();
        match self.body {
            Body::Bytes(bytes) if has_body => {
                head.extend(bytes);
                stream.write_all(&head)?;
            }
            Body::File(file, len) => {
                stream.write_all(&head)?;
                match io::copy(&mut file.take(len), &mut stream)? {
                    sent if sent == len => {}
                    // The client waits for more, and sees that it does not come.
                    _ => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            Body::Bytes(_) | Body::Omitted(_) => stream.write_all(&head)?,
        }
        stream.flush()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        418 => "I'm a teapot",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        // The words have no meaning in HTTP.
        _ => "Other",
    }
}
