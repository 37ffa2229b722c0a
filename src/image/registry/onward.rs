//! Where a registry's answers lead: to itself, to the server that gives its tokens, to others that it sends on to.
//!
//! ```text
//! request ─ the registry itself: grant, client certificate ─▶ answer
//!                └─ redirection ─▶ another server: neither of them; never one that only this machine can reach
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use hickory_resolver::TokioResolver;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Identity, Response, Url};

use super::http::builder;
use super::request::Request;
use super::{Fault, is_loopback};
use crate::image::auth::{Scheme, Transport};
use crate::image::registries::CertsError;

/// How often a request is sent on.
const MOST_REDIRECTIONS: u32 = 10;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Error {
    Request(reqwest::Error),
    /// The registry sends on to where nothing is asked.
    Sent {
        to: String,
        why: Refusal,
    },
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(error)
    }
}

/// Where something is asked for.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The registry itself.
    Own(Url),
    /// Another server, by the registry's word.
    Elsewhere(String),
}

/// Why a place that a registry names is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("which is no address")]
    NoAddress,
    #[error("which is neither https nor http")]
    Scheme,
    #[error("which has no TLS")]
    Plain,
    #[error("which only this machine can reach")]
    Local,
    #[error("which is one too often")]
    TooOften,
}

/// A server that a registry names, and how it is asked.
#[derive(Debug)]
pub(in crate::image) struct Server<'a> {
    pub(in crate::image) url: Url,
    pub(in crate::image) client: &'a Client,
}

/// The connections to a registry. None takes a request to another server by itself: that would take a secret along.
#[derive(Debug)]
pub(in crate::image) struct Http {
    base: Url,
    transport: Transport,
    own: Client,
    /// With the client certificate too, for its token server.
    tokens: OnceLock<Client>,
    others: OnceLock<Client>,
}

impl Http {
    pub(in crate::image) fn new(
        registry: &str,
        base: Url,
        transport: &Transport,
    ) -> Result<Self, Fault> {
        let made = client(transport).and_then(|own| identify(own, transport)?.build());
        let own = made.map_err(|source| match &transport.certificates.client {
            None => Fault::Client(source),
            Some(client) => Fault::Certificates {
                registry: registry.to_owned(),
                source: CertsError::Pair {
                    certificate: client.path.clone(),
                    source,
                },
            },
        })?;
        Ok(Self {
            base,
            transport: transport.clone(),
            own,
            tokens: OnceLock::new(),
            others: OnceLock::new(),
        })
    }

    /// For requests that go nowhere but to the registry.
    pub(in crate::image) fn client(&self) -> &Client {
        &self.own
    }

    /// The server that gives tokens for the registry, by its own word.
    pub(in crate::image) fn token_server(
        &self,
        registry: &str,
        realm: &str,
    ) -> Result<Server<'_>, Fault> {
        let refused = |why| Fault::Sent {
            registry: registry.to_owned(),
            to: shown(realm),
            why,
        };
        let url = Url::parse(realm).map_err(|_| refused(Refusal::NoAddress))?;
        // What may go there without TLS is decided by what is sent.
        check_place(&self.base, &url, true).map_err(refused)?;
        let client = if url.origin() == self.base.origin() {
            &self.own
        } else if let Some(client) = self.tokens.get() {
            client
        } else {
            let made = client(&self.transport)
                .and_then(|tokens| self.guarded(identify(tokens, &self.transport)?).build());
            let made = made.map_err(Fault::Client)?;
            self.tokens.get_or_init(|| made)
        };
        Ok(Server { url, client })
    }

    /// Asks, and goes where the answer leads. The grant is for the registry alone.
    pub(super) async fn ask(
        &self,
        place: &Place,
        request: &Request<'_>,
        grant: Option<&HeaderValue>,
    ) -> Result<Response, Error> {
        let (mut url, mut client, mut grant) = match place {
            Place::Own(url) => (url.clone(), &self.own, grant),
            Place::Elsewhere(text) => (
                self.elsewhere(Url::parse(text), text)?,
                self.others()?,
                None,
            ),
        };
        for _ in 0..MOST_REDIRECTIONS {
            let mut sent = request.to(client, url.clone());
            if let Some(grant) = grant {
                sent = sent.header(AUTHORIZATION, grant.clone());
            }
            let answer = sent.send().await?;
            if !request.is_sent_on(answer.status().as_u16()) {
                return Ok(answer);
            }
            let next = location(&answer);
            let next = next.ok_or_else(|| Error::Sent {
                to: "a place".into(),
                why: Refusal::NoAddress,
            })?;
            url = self.elsewhere(answer.url().join(&next), &next)?;
            if url.origin() == self.base.origin() {
                client = &self.own;
            } else {
                // What went elsewhere and comes back is not shown the grant again.
                (client, grant) = (self.others()?, None);
            }
        }
        Err(Error::Sent {
            to: shown(url.as_str()),
            why: Refusal::TooOften,
        })
    }

    /// A place that the registry names, if it may be asked.
    fn elsewhere(&self, url: Result<Url, url::ParseError>, text: &str) -> Result<Url, Error> {
        let may_be_plain = self.transport.scheme == Scheme::Http || !self.transport.verify;
        let checked = url.map_err(|_| Refusal::NoAddress);
        let checked = checked.and_then(|url| {
            check_place(&self.base, &url, may_be_plain)?;
            Ok(url)
        });
        checked.map_err(|why| Error::Sent {
            to: shown(text),
            why,
        })
    }

    fn others(&self) -> reqwest::Result<&Client> {
        if let Some(client) = self.others.get() {
            return Ok(client);
        }
        let client = self.guarded(client(&self.transport)?).build()?;
        Ok(self.others.get_or_init(|| client))
    }

    /// Names may lead to this machine only if the registry is there itself.
    fn guarded(&self, builder: ClientBuilder) -> ClientBuilder {
        match is_local_name(&self.base) {
            true => builder,
            false => builder.dns_resolver(Arc::new(Public::default())),
        }
    }
}

fn identify(builder: ClientBuilder, transport: &Transport) -> reqwest::Result<ClientBuilder> {
    Ok(match &transport.certificates.client {
        Some(client) => builder.identity(Identity::from_pem(&client.pem())?),
        None => builder,
    })
}

/// A client that takes a request to no other server by itself.
fn client(transport: &Transport) -> reqwest::Result<ClientBuilder> {
    let within_server = Policy::custom(|attempt| {
        let previous = attempt.previous();
        let stays = previous
            .last()
            .is_some_and(|last| last.origin() == attempt.url().origin());
        match stays && previous.len() < 5 {
            true => attempt.follow(),
            false => attempt.stop(),
        }
    });
    Ok(builder(transport)?.redirect(within_server))
}

/// Where an answer sends on to.
fn location(answer: &Response) -> Option<String> {
    let place = answer.headers().get(LOCATION)?;
    place.to_str().ok().map(str::to_owned)
}

/// Whether a registry may send on to a place.
fn check_place(base: &Url, place: &Url, may_be_plain: bool) -> Result<(), Refusal> {
    match place.scheme() {
        "https" => {}
        "http" if may_be_plain => {}
        "http" => return Err(Refusal::Plain),
        _ => return Err(Refusal::Scheme),
    }
    if is_local_name(place) && !is_local_name(base) {
        return Err(Refusal::Local);
    }
    Ok(())
}

/// Whether an address's host is this machine or a neighbour on its wire, by name alone.
fn is_local_name(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    is_loopback(host) || host.ends_with(".localhost") || bare.parse().is_ok_and(is_local)
}

/// Addresses that mean something else on every machine: who is sent there asks servers that trust this machine, such
/// as a cloud's for its own secrets (169.254.169.254).
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_local(IpAddr::V4(v4)),
            None => {
                // Amazon's metadata have an address of their own.
                const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || v6.is_unicast_link_local()
                    || v6 == METADATA
            }
        },
    }
}

/// Looks names up, and leaves out what [`is_local`] of their addresses.
#[derive(Clone, Debug, Default)]
struct Public(Arc<OnceLock<TokioResolver>>);

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let resolver = match resolver.0.get() {
                Some(resolver) => resolver,
                None => {
                    let made = TokioResolver::builder_tokio()?.build()?;
                    resolver.0.get_or_init(|| made)
                }
            };
            let found = resolver.lookup_ip(name.as_str()).await?;
            let public: Vec<SocketAddr> = found
                .iter()
                .filter(|address| !is_local(*address))
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            if public.is_empty() {
                return Err(Refusal::Local.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// A place for a message: without what may be secret in it.
pub(super) fn shown(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let text = text.get(..end).unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_sends_on_to_public_places_only() {
        let check = |base: &str, place: &str, may_be_plain: bool, expected: Result<(), Refusal>| {
            let url = |text| Url::parse(text).expect("an address");
            let found = check_place(&url(base), &url(place), may_be_plain);
            assert_eq!(found, expected, "{base} to {place}");
        };
        let local = Err(Refusal::Local);
        let registry = "https://registry.example.com/";
        check(
            registry,
            "https://storage.example.com/x?signature=1",
            false,
            Ok(()),
        );
        check(registry, "https://10.0.0.7/x", false, Ok(()));
        check(
            registry,
            "http://storage.example.com/x",
            false,
            Err(Refusal::Plain),
        );
        check(registry, "http://storage.example.com/x", true, Ok(()));
        check(
            registry,
            "ftp://storage.example.com/x",
            true,
            Err(Refusal::Scheme),
        );
        check(registry, "file:///etc/passwd", true, Err(Refusal::Scheme));
        for place in [
            "169.254.169.254",
            "127.0.0.1:8080",
            "127.9.9.9",
            // Other spellings of the same.
            "2130706433",
            "0x7f.1",
            "0.0.0.0",
            "255.255.255.255",
            "localhost",
            "LOCALHOST",
            "app.localhost",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "[fd00:ec2::254]",
        ] {
            check(registry, &format!("https://{place}/"), false, local);
        }
        // Who is on this machine may know others there.
        check(
            "http://127.0.0.1:5000/",
            "http://127.0.0.1:9000/x",
            true,
            Ok(()),
        );
        check(
            "https://localhost/",
            "https://127.0.0.1:9000/x",
            false,
            Ok(()),
        );
    }

    #[test]
    fn a_name_that_leads_to_this_machine_leads_nowhere() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let name: Name = "localhost".parse().expect("a name");
        let found = runtime.block_on(Public::default().resolve(name));
        let error = found.err().expect("no address is left");
        assert_eq!(error.downcast_ref(), Some(&Refusal::Local), "{error}");
    }

    #[test]
    fn a_message_has_no_signature_of_an_address() {
        assert_eq!(shown("https://a/b?X-Amz-Signature=1#c"), "https://a/b");
        assert_eq!(shown("https://a/\r\nb"), "https://a/b");
    }
}
