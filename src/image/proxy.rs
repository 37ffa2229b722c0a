//! Proxies: which one leads to a server, as the environment says.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, each in capitals or not. What is on this machine (`localhost`,
//! 127.0.0.1) is asked directly, as by podman. An entry of `NO_PROXY` is `*`, a domain (it and all below it), `.domain` or
//! `*.domain`, an address, or a network (`10.0.0.0/8`); all but networks may have a port.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

/// The proxies of a run.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    https: Option<Result<Proxy, InvalidProxy>>,
    http: Option<Result<Proxy, InvalidProxy>>,
    direct: Vec<Entry>,
}

/// A proxy, and the variable that names it.
#[derive(Clone)]
pub(super) struct Proxy {
    /// May have a password.
    pub(super) url: Url,
    variable: &'static str,
}

/// Why a variable is of no use. The message has no password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the variable {variable} does not name a proxy that kplay can use: it has to be `http://HOST:PORT` or `https://HOST:PORT`"
)]
pub struct InvalidProxy {
    pub variable: &'static str,
}

/// Who is asked directly.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    All,
    Domain { name: String, port: Option<u16> },
    Address { address: IpAddr, port: Option<u16> },
    Network { address: IpAddr, bits: u32 },
}

impl Proxies {
    /// What the environment says. That a variable is of no use is a fault only where it is used.
    pub fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&'static str; 4]| {
            let mut all = names.into_iter().filter_map(|name| {
                let value = variable(name)?;
                (!value.trim().is_empty()).then_some((name, value))
            });
            all.next()
        };
        let proxy = |capitals, small| {
            let found = first([capitals, small, "ALL_PROXY", "all_proxy"]);
            found.map(|(variable, value)| Proxy::parse(variable, value.trim()))
        };
        let none = first(["NO_PROXY", "no_proxy", "NO_PROXY", "no_proxy"]);
        let none = none.map(|(_, list)| list).unwrap_or_default();
        Self {
            https: proxy("HTTPS_PROXY", "https_proxy"),
            http: proxy("HTTP_PROXY", "http_proxy"),
            direct: none.split([',', ' ']).filter_map(Entry::parse).collect(),
        }
    }

    /// The proxy that leads to a server, if there is one of use.
    pub(super) fn of(&self, url: &Url) -> Option<&Proxy> {
        self.check(url).ok()?
    }

    /// The proxy that leads to a server.
    ///
    /// # Errors
    /// There should be one, but it is of no use.
    pub(super) fn check(&self, url: &Url) -> Result<Option<&Proxy>, InvalidProxy> {
        match self.on_the_way(url) {
            Some(proxy) => proxy.as_ref().map(Some).map_err(Clone::clone),
            None => Ok(None),
        }
    }

    fn on_the_way(&self, url: &Url) -> Option<&Result<Proxy, InvalidProxy>> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref()?,
            "http" => self.http.as_ref()?,
            _ => return None,
        };
        let host = url.host_str()?.trim_matches(['[', ']']);
        let port = url.port_or_known_default()?;
        let is_direct = is_here(host) || self.direct.iter().any(|entry| entry.matches(host, port));
        (!is_direct).then_some(proxy)
    }
}

impl Proxy {
    fn parse(variable: &'static str, text: &str) -> Result<Self, InvalidProxy> {
        let whole = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let url = Url::parse(&whole).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or(InvalidProxy { variable })?;
        Ok(Self { url, variable })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host) = (self.url.scheme(), self.url.host_str().unwrap_or_default());
        write!(f, "`{scheme}://{host}")?;
        if let Some(port) = self.url.port() {
            write!(f, ":{port}")?;
        }
        write!(f, "` of {}", self.variable)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whether a host is this machine, by its name alone.
fn is_here(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        match text.as_str() {
            "" => return None,
            "*" => return Some(Self::All),
            _ => {}
        }
        if let Some((address, bits)) = text.split_once('/') {
            let (address, bits) = (address.parse().ok()?, bits.parse().ok()?);
            return Some(Self::Network { address, bits });
        }
        // `[::1]:80`, `::1`, `example.com:80`.
        let bare = text.trim_start_matches('[');
        if let Ok(address) = bare.trim_end_matches(']').parse() {
            return Some(Self::Address {
                address,
                port: None,
            });
        }
        let (name, port) = match bare.rsplit_once(':') {
            Some((name, port)) => (name.trim_end_matches(']'), Some(port.parse().ok()?)),
            None => (bare, None),
        };
        if let Ok(address) = name.parse() {
            return Some(Self::Address { address, port });
        }
        let name = name.trim_start_matches('*').trim_matches('.').to_owned();
        (!name.is_empty()).then_some(Self::Domain { name, port })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        let fits = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Self::All => true,
            Self::Domain { name, port } => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                let above = host.strip_suffix(name.as_str());
                fits(port) && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
            Self::Address { address, port } => fits(port) && host.parse() == Ok(*address),
            Self::Network { address, bits } => host
                .parse()
                .is_ok_and(|host| is_within(host, *address, *bits)),
        }
    }
}

fn is_within(host: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (host, network, width) = match (host, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let shift = width - bits.min(width);
    let part = |address: u128| address.checked_shr(shift).unwrap_or(0);
    bits <= width && part(host) == part(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::new(|wanted| {
            let mut all = variables.iter();
            let (_, value) = all.find(|(name, _)| *name == wanted)?;
            Some((*value).to_owned())
        })
    }

    fn shown(variables: &[(&str, &str)], url: &str) -> String {
        let proxies = proxies(variables);
        let url = Url::parse(url).expect("a URL");
        proxies.of(&url).map_or("direct".into(), Proxy::to_string)
    }

    #[test]
    fn the_variables_have_their_order() {
        let check = |variables: &[(&str, &str)], url: &str, expected: &str| {
            assert_eq!(shown(variables, url), expected, "{variables:?} {url}");
        };
        let (tls, plain) = ("https://a.example.com/v2/", "http://a.example.com/v2/");
        check(&[], tls, "direct");
        check(&[("HTTPS_PROXY", "")], tls, "direct");
        check(
            &[("HTTPS_PROXY", "http://p:3128")],
            tls,
            "`http://p:3128` of HTTPS_PROXY",
        );
        check(&[("HTTPS_PROXY", "http://p:3128")], plain, "direct");
        check(
            &[("https_proxy", "p:3128")],
            tls,
            "`http://p:3128` of https_proxy",
        );
        check(
            &[("HTTPS_PROXY", ""), ("https_proxy", "https://q")],
            tls,
            "`https://q` of https_proxy",
        );
        check(
            &[
                ("HTTPS_PROXY", "http://a"),
                ("https_proxy", "http://b"),
                ("ALL_PROXY", "http://c"),
            ],
            tls,
            "`http://a` of HTTPS_PROXY",
        );
        check(
            &[("ALL_PROXY", "http://c")],
            plain,
            "`http://c` of ALL_PROXY",
        );
        check(&[("all_proxy", "http://c")], tls, "`http://c` of all_proxy");
        check(
            &[("http_proxy", "http://d")],
            plain,
            "`http://d` of http_proxy",
        );
        check(
            &[("ALL_PROXY", "http://c")],
            "https://localhost:5000",
            "direct",
        );
        check(
            &[("ALL_PROXY", "http://c")],
            "http://127.1.2.3:5000",
            "direct",
        );
        check(&[("ALL_PROXY", "http://c")], "http://[::1]:5000", "direct");
    }

    #[test]
    fn who_is_asked_directly() {
        let check = |list: &str, host: &str, expected: bool| {
            for name in ["NO_PROXY", "no_proxy"] {
                let variables = [("ALL_PROXY", "http://p"), (name, list)];
                let found = shown(&variables, &format!("https://{host}/")) == "direct";
                assert_eq!(found, expected, "{list} {host}");
            }
        };
        check("example.com", "example.com", true);
        check("example.com", "a.b.example.com:5000", true);
        check("example.com", "notexample.com", false);
        check(".example.com", "a.example.com", true);
        check("*.example.com", "a.example.com", true);
        check("*.example.com", "example.org", false);
        check("EXAMPLE.com", "Example.COM", true);
        check("other, example.com", "example.com", true);
        check("other example.com", "example.com", true);
        check("example.com:5000", "example.com:5000", true);
        check("example.com:5000", "example.com", false);
        check("example.com:443", "example.com", true);
        check("*", "example.com", true);
        check("10.0.0.0/8", "10.1.2.3", true);
        check("10.0.0.0/8", "11.1.2.3", false);
        check("0.0.0.0/0", "11.1.2.3", true);
        check("10.0.0.0/33", "10.0.0.0", false);
        check("192.0.2.1", "192.0.2.1:5000", true);
        check("192.0.2.1:80", "192.0.2.1", false);
        check("2001:db8::/32", "[2001:db8::1]", true);
        check("2001:db8::1", "[2001:db8::1]:5000", true);
        check("[2001:db8::1]:5000", "[2001:db8::1]:5000", true);
        check("[2001:db8::1]:5000", "[2001:db8::1]", false);
        check(",, ,", "example.com", false);
    }

    #[test]
    fn no_password_is_shown() {
        let variables = [("HTTPS_PROXY", "http://user:secret@p:1")];
        let text = format!(
            "{:?} {}",
            proxies(&variables),
            shown(&variables, "https://a")
        );
        assert!(!text.contains("secret") && !text.contains("user"), "{text}");
        for unusable in [
            "socks5://u:secret@p",
            "ftp://p",
            "http://",
            "http://u:secret@",
        ] {
            let proxies = proxies(&[("all_proxy", unusable)]);
            let url = Url::parse("https://a").expect("a URL");
            let error = proxies.check(&url).expect_err(unusable);
            assert!(error.to_string().contains("all_proxy"), "{error}");
            assert!(!format!("{error:?} {error}").contains("secret"), "{error}");
        }
    }
}
