//! Where a request goes.

use std::fmt::Write as _;

use url::Url;

use super::super::dial::Network;
use super::Cause;
use crate::model::plan::{HttpGet, Transport};

/// One URL, cut into what is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) transport: Transport,
    /// As it is compared.
    pub(super) host: String,
    pub(super) port: u16,
    /// As the header `Host` has it.
    pub(super) authority: String,
    /// Path and query.
    pub(super) target: String,
    /// Whether the redirect that led here named the host.
    pub(super) is_absolute: bool,
}

impl Place {
    /// Where the first request goes.
    pub(super) fn of(network: &Network, request: &HttpGet) -> Self {
        let host = request.host.as_deref();
        Self {
            transport: request.transport,
            host: network.name(host).to_ascii_lowercase(),
            port: request.port,
            authority: network.host_and_port(host, request.port),
            target: target(&request.path),
            is_absolute: true,
        }
    }

    pub(super) fn url(&self) -> String {
        let scheme = match self.transport {
            Transport::Plain => "http",
            Transport::Tls => "https",
        };
        format!("{scheme}://{}{}", self.authority, self.target)
    }

    /// Where the header `Location` of a response from here leads.
    pub(super) fn join(&self, location: &str) -> Result<Self, Cause> {
        let invalid = |e: &dyn std::fmt::Display| {
            Cause::Other(format!("failed to parse Location header {location:?}: {e}"))
        };
        let base = Url::parse(&self.url()).map_err(|e| invalid(&e))?;
        let url = base.join(location).map_err(|e| invalid(&e))?;
        let transport = match url.scheme() {
            "http" => Transport::Plain,
            "https" => Transport::Tls,
            other => {
                let text = format!("unsupported protocol scheme \"{other}\"");
                return Err(Cause::Other(text));
            }
        };
        let host = url.host_str().unwrap_or_default();
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let is_absolute = Url::parse(location).is_ok() || location.starts_with("//");
        Ok(Self {
            transport,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
            // A relative one stays at a port that the URL would not show.
            authority: if is_absolute {
                authority
            } else {
                self.authority.clone()
            },
            target: url[url::Position::BeforePath..url::Position::AfterQuery].to_owned(),
            is_absolute,
        })
    }
}

/// The path of a manifest as it is sent: what may not stand in a request line is escaped, a fragment is not sent.
fn target(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let mut target = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    let bytes = path.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let is_escape =
            |rest: &[u8]| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit);
        let is_allowed = match byte {
            b'%' => is_escape(&bytes[at + 1..]),
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
            byte => byte.is_ascii_graphic(),
        };
        if is_allowed {
            target.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            write!(target, "%{byte:02X}").ok();
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_request_targets() {
        for (path, expected) in [
            ("/", "/"),
            ("", "/"),
            ("healthz", "/healthz"),
            ("/a/../b", "/a/../b"),
            ("/a?b=c&d=[1]#e", "/a?b=c&d=[1]"),
            ("/a b/ä", "/a%20b/%C3%A4"),
            ("/100%/%2f%2", "/100%25/%2f%252"),
        ] {
            assert_eq!(target(path), expected, "{path}");
        }
    }

    #[test]
    fn redirects() {
        let request = HttpGet {
            transport: Transport::Plain,
            host: Some("Example.com".into()),
            port: 80,
            path: "/a/b?c".into(),
            headers: Vec::new(),
        };
        let place = Place::of(&Network::new(None), &request);
        assert_eq!(place.url(), "http://Example.com:80/a/b?c");
        for (location, url, host, port) in [
            ("/x", "http://Example.com:80/x", "example.com", 80),
            ("y?z", "http://Example.com:80/a/y?z", "example.com", 80),
            ("//example.com/x", "http://example.com/x", "example.com", 80),
            (
                "https://EXAMPLE.com/x",
                "https://example.com/x",
                "example.com",
                443,
            ),
            (
                "http://example.com:81/",
                "http://example.com:81/",
                "example.com",
                81,
            ),
            ("http://[::1]:81/", "http://[::1]:81/", "::1", 81),
        ] {
            let next = place.join(location).expect("a place");
            assert_eq!(
                (next.url().as_str(), next.host.as_str(), next.port),
                (url, host, port)
            );
        }
        for (location, fault) in [
            ("ftp://example.com/", "unsupported protocol scheme \"ftp\""),
            ("http://[", "failed to parse Location header \"http://[\""),
        ] {
            let error = place.join(location).expect_err("no place").to_string();
            assert!(error.starts_with(fault), "{error}");
        }
    }
}
