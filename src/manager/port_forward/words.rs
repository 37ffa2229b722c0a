//! How ports and addresses are written: `8080:80`, `:http`, `localhost`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// `[LOCAL:]REMOTE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPair {
    pub local: Local,
    pub remote: Remote,
}

/// A port of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// The same number as the remote one.
    Same,
    /// `:REMOTE`, or 0.
    Free,
    Port(u16),
}

/// A port of a pod or of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    Number(u16),
    Name(String),
}

impl FromStr for PortPair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (local, remote) = match text.split_once(':') {
            None => (Local::Same, text),
            Some(("" | "0", remote)) => (Local::Free, remote),
            Some((local, remote)) => (Local::Port(number(local)?), remote),
        };
        Ok(Self {
            local,
            remote: remote.parse()?,
        })
    }
}

impl FromStr for Remote {
    type Err = String;

    /// What has a letter is a name, as names of ports must.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if text.chars().any(|c| c.is_ascii_alphabetic()) && text.chars().all(is_name) {
            Ok(Self::Name(text.to_owned()))
        } else {
            number(text).map(Self::Number)
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}

fn number(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|port| *port != 0);
    number.ok_or_else(|| format!("`{text}` is not a port: they are from 1 to 65535"))
}

/// An address to listen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// 127.0.0.1 and, where there is IPv6, ::1.
    Localhost,
    One(IpAddr),
}

impl Addresses {
    pub(super) fn all(&self) -> &[IpAddr] {
        const LOCALHOST: &[IpAddr] = &[
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        match self {
            Self::Localhost => LOCALHOST,
            Self::One(ip) => std::slice::from_ref(ip),
        }
    }
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "localhost" => Ok(Self::Localhost),
            _ => text
                .parse()
                .map(Self::One)
                .map_err(|_| format!("`{text}` is not an address: it is an IP or `localhost`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_ports() {
        let check = |text: &str, local, remote| {
            assert_eq!(text.parse(), Ok(PortPair { local, remote }), "{text}");
        };
        let http = || Remote::Name("http".into());
        check("80", Local::Same, Remote::Number(80));
        check("8080:80", Local::Port(8080), Remote::Number(80));
        check(":80", Local::Free, Remote::Number(80));
        check("0:80", Local::Free, Remote::Number(80));
        check("http", Local::Same, http());
        check("8080:http", Local::Port(8080), http());
        for wrong in [
            "", ":", "0", "80:", "80:0", "x:80", "65536", "1:2:3", "-80", "a.b",
        ] {
            assert!(wrong.parse::<PortPair>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses() {
        let all = |text: &str| {
            let addresses = text.parse::<Addresses>().expect(text);
            let ips = addresses.all().iter().map(ToString::to_string);
            ips.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(all("localhost"), "127.0.0.1 ::1");
        assert_eq!(all("0.0.0.0"), "0.0.0.0");
        assert_eq!(all("::"), "::");
        assert!("example.com".parse::<Addresses>().is_err());
    }
}
