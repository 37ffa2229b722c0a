//! `--publish [IP:]HOST:CTR[/PROTOCOL]`.

use std::net::IpAddr;

use crate::model::plan::Protocol;

/// A port to publish that the manifest does not publish itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// `None` is every address.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

/// Why a text is not a port to publish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPublish {
    #[error("`{0}` is not `[IP:]HOST:CONTAINER[/tcp|udp]`")]
    Form(String),
    #[error("`{0}` is not a port number between 1 and 65535")]
    Port(String),
    #[error("`{0}` is not an IP address")]
    Address(String),
    #[error("`{0}` is not `tcp` or `udp`, the protocols that are published")]
    Protocol(String),
}

impl Publish {
    /// Reads `[IP:]HOST:CONTAINER[/PROTOCOL]`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidPublish> {
        let form = || InvalidPublish::Form(text.to_owned());
        let (ports, protocol) = match text.split_once('/') {
            Some((ports, protocol)) => (ports, parse_protocol(protocol)?),
            None => (text, Protocol::Tcp),
        };
        let (host, container) = ports.rsplit_once(':').ok_or_else(form)?;
        let (host_ip, host) = match host.rsplit_once(':') {
            Some((ip, port)) => (Some(address(ip)?), port),
            None => (None, host),
        };
        Ok(Self {
            host_ip,
            host_port: port(host)?,
            container_port: port(container)?,
            protocol,
        })
    }
}

fn address(text: &str) -> Result<IpAddr, InvalidPublish> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']'),
        None => Some(text).filter(|text| !text.contains(':')),
    };
    bare.and_then(|text| text.parse().ok())
        .ok_or_else(|| InvalidPublish::Address(text.to_owned()))
}

fn port(text: &str) -> Result<u16, InvalidPublish> {
    text.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| InvalidPublish::Port(text.to_owned()))
}

fn parse_protocol(text: &str) -> Result<Protocol, InvalidPublish> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(InvalidPublish::Protocol(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publish_takes_dockers_notation() {
        let check =
            |text: &str, expected: Result<(Option<&str>, u16, u16, Protocol), InvalidPublish>| {
                let expected = expected.map(|(ip, host_port, container_port, protocol)| Publish {
                    host_ip: ip.map(|ip| ip.parse().unwrap()),
                    host_port,
                    container_port,
                    protocol,
                });
                assert_eq!(Publish::parse(text), expected, "{text:?}");
            };
        check("8080:80", Ok((None, 8080, 80, Protocol::Tcp)));
        check(
            "127.0.0.1:8080:80/udp",
            Ok((Some("127.0.0.1"), 8080, 80, Protocol::Udp)),
        );
        check("[::1]:1:2", Ok((Some("::1"), 1, 2, Protocol::Tcp)));
        check("80", Err(InvalidPublish::Form("80".into())));
        check("0:80", Err(InvalidPublish::Port("0".into())));
        check("80:65536", Err(InvalidPublish::Port("65536".into())));
        check("::1:80:80", Err(InvalidPublish::Address("::1".into())));
        check("x:80:80", Err(InvalidPublish::Address("x".into())));
        check("80:80/icmp", Err(InvalidPublish::Protocol("icmp".into())));
        check("80:80/sctp", Err(InvalidPublish::Protocol("sctp".into())));
    }
}
