//! A registry, as far as pulls and pushes need it: the address, who asks, and what went wrong in words. What goes with
//! its requests is got by [`SignIn`], and again when it ends; what passes is tried again ([`tries`]). Requests are made
//! here, and by no client of registries, because of what those leave to chance: where an answer leads on to, what is shown
//! there, how long it takes, and how to go on in the middle of a blob with a new grant.
//!
//! https always, but for registries on loopback that do not speak it, and for those whose TLS is not to be verified.

mod fault;
mod http;
mod onward;
mod push;
mod request;
mod sources;
mod tries;

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use reqwest::header::{ACCEPT, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::Mutex;

use super::auth::{Grant, Login, Scheme, SignIn, Transport};
use super::digest::Digest;
use super::manifest::{self, Descriptor, MOST_MANIFEST_BYTES};
use super::pull::PullOptions;
use super::registries::{Certificates, Endpoint, RegistriesConf};
use crate::model::reference::Reference;

pub use fault::{Error, Fault};
pub use push::Purpose;
pub use tries::{RETRY_WAITS, SILENCE, Then, Trouble};

pub(super) use fault::{fault, refusal};
pub(super) use http::{provide_cryptography, retry_after};
pub(super) use onward::{Http, Server};
pub(super) use request::Sent;
pub(super) use sources::Sources;

use fault::does_not_speak_tls;
use http::{Body, ENOUGH, start_of_range, while_moving};
use onward::Place;
use request::Request;
use tries::{Patience, Tell, Tries};

/// So many times the usual silence may come before an answer: a registry may have to get it from another one first.
const ANSWER: u32 = 3;
/// How often a request is sent with a new grant: what other layers sign in for may have ended as well.
const RENEWALS: u32 = 2;
/// Other places of a layer that are tried.
const MOST_URLS: usize = 8;
/// How much of an answer is read that says no.
const MOST_REFUSAL_BYTES: u64 = 64 << 10;

/// Whether the registry has to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVerify {
    /// But for those that `registries.conf` calls insecure.
    Configured,
    On,
    /// Any certificate is taken, and http where https does not answer.
    Off,
}

impl TlsVerify {
    /// Whether that goes for a registry that may be called insecure.
    pub(super) fn holds(self, insecure: bool) -> bool {
        match self {
            Self::Configured => !insecure,
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// A repository of a registry that answers.
pub(super) struct Repository {
    /// With a tag or digest that does not matter.
    reference: Reference,
    /// `https://HOST/v2/REPOSITORY/`.
    base: Url,
    purpose: Purpose,
    sign_in: SignIn,
    transport: Transport,
    /// Held while it is renewed, so that of layers that come at the same time one does it.
    session: Mutex<Session>,
    /// Those for what reads another repository of the registry too, by its name.
    mounts: Mutex<HashMap<String, Session>>,
    /// Whether it has given something: then what is refused may have ended, rather than never been enough, and what
    /// does not answer was there.
    worked: Cell<bool>,
    patience: Patience,
    silence: Duration,
}

/// What requests are allowed with, as long as that is good.
#[derive(Clone)]
struct Session {
    authorization: Option<HeaderValue>,
    /// Whether it is good only for what was asked for.
    is_of_scopes: bool,
    until: Option<Instant>,
    /// Which of this repository's sessions it is.
    number: u64,
}

/// A manifest or index, verified.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
}

/// Whether more is wanted.
pub(super) enum Taken {
    More,
    Stop,
}

impl Repository {
    /// Finds out how the registry is spoken to, and signs in.
    async fn connect(
        endpoint: &Endpoint,
        login: Option<&Login>,
        options: &PullOptions,
        purpose: Purpose,
        patience: Patience,
        tell: Tell<'_>,
    ) -> Result<Self, Fault> {
        let registry = &endpoint.reference.registry;
        let transport = Transport {
            scheme: Scheme::Https,
            verify: options.tls_verify.holds(endpoint.insecure),
            // Each registry is believed by its own.
            certificates: certificates(&options.registries, registry)?,
            proxies: options.proxies.clone(),
        };
        let by = async |transport| {
            let (reference, silence) = (&endpoint.reference, options.silence);
            let sign_in = Self::signed_in(
                reference, transport, login, purpose, patience, silence, tell,
            );
            sign_in.await
        };
        let mut tries = Tries::new(patience.with_strangers(), tell);
        loop {
            match with_or_without_tls(registry, transport.clone(), by).await {
                Err(fault) if fault.is_of_connecting() => tries.wait(fault).await?,
                other => return other,
            }
        }
    }

    async fn signed_in(
        reference: &Reference,
        transport: Transport,
        login: Option<&Login>,
        purpose: Purpose,
        patience: Patience,
        silence: Duration,
        tell: Tell<'_>,
    ) -> Result<Self, Fault> {
        let (registry, repository) = (&reference.registry, &reference.repository);
        let host = address(registry);
        let sign_in = SignIn::new(registry, host, login.cloned(), transport.clone())?;
        let text = format!("{}://{host}/v2/{repository}/", transport.scheme.as_str());
        let base = Url::parse(&text).map_err(|_| Fault::Answer {
            registry: registry.clone(),
            why: "its name makes no address",
        })?;
        let mut tries = Tries::new(patience, tell);
        let session = loop {
            match Session::new(&sign_in, &[purpose.scope(repository)], 0).await {
                Err(fault) if fault.passes() => tries.wait(fault).await?,
                other => break other?,
            }
        };
        Ok(Self {
            reference: reference.clone(),
            base,
            purpose,
            sign_in,
            transport,
            session: Mutex::new(session),
            mounts: Mutex::default(),
            worked: Cell::new(false),
            patience,
            silence,
        })
    }

    /// The manifest or index of a digest, or else of the tag or digest that the repository was connected for.
    async fn manifest(&self, digest: Option<&Digest>, tell: Tell<'_>) -> Result<Fetched, Fault> {
        let Reference {
            repository,
            tag,
            digest: own,
            ..
        } = &self.reference;
        let wanted = digest.map(Digest::as_str).or(own.as_deref());
        let (name, what) = match wanted {
            Some(digest) => (digest, format!("the manifest `{digest}` of `{repository}`")),
            None => {
                let tag = tag.as_deref().unwrap_or("latest");
                (tag, format!("`{repository}:{tag}`"))
            }
        };
        let path = format!("manifests/{name}");
        let request = Request::get().header(ACCEPT, &manifest::ACCEPTED.join(", "));
        let most = MOST_MANIFEST_BYTES;
        let bytes = self.fetch(&path, &request, &what, most, tell).await?;
        if bytes.len() as u64 > most {
            return Err(Fault::TooBig { what, most });
        }
        let digest = Digest::of(&bytes);
        if wanted.is_some_and(|wanted| wanted != digest.as_str()) {
            return Err(Fault::Digest { what });
        }
        Ok(Fetched { bytes, digest })
    }

    /// The digest of what the repository was connected for, by the registry's word; nothing if it does not say.
    async fn digest(&self, tell: Tell<'_>) -> Result<Option<Digest>, Fault> {
        let tag = self.reference.tag.as_deref().unwrap_or("latest");
        let what = format!("`{}:{tag}`", self.reference.repository);
        let place = self.place(&format!("manifests/{tag}"))?;
        let request = Request::new(Method::HEAD);
        let request = request.header(ACCEPT, &manifest::ACCEPTED.join(", "));
        let mut tries = Tries::new(self.patience, tell);
        loop {
            match self.ask_place(&place, &request, &what).await {
                Err(fault) if self.passes(&fault) => tries.wait(fault).await?,
                // Not all answer such a question; what is wrong shows with the next one.
                Err(Fault::NotFound { .. } | Fault::Status { .. }) => return Ok(None),
                Err(fault) => return Err(fault),
                Ok(answer) => {
                    let digest = answer.headers().get("Docker-Content-Digest");
                    let digest =
                        digest.and_then(|digest| Digest::parse(digest.to_str().ok()?).ok());
                    return Ok(digest);
                }
            }
        }
    }

    /// A small blob, verified.
    async fn small_blob(
        &self,
        blob: &Descriptor,
        most: u64,
        tell: Tell<'_>,
    ) -> Result<Vec<u8>, Fault> {
        let what = format!("the configuration `{}`", blob.digest);
        let path = format!("blobs/{}", blob.digest);
        let most = most.min(blob.size);
        let request = Request::get();
        let bytes = self.fetch(&path, &request, &what, most, tell).await?;
        let (expected, actual) = (blob.size, bytes.len() as u64);
        if actual > expected {
            return Err(Fault::Long { what, expected });
        }
        if actual != expected {
            return Err(Fault::Size {
                what,
                expected,
                actual,
            });
        }
        if Digest::of(&bytes) != blob.digest {
            return Err(Fault::Digest { what });
        }
        Ok(bytes)
    }

    /// All of a small answer, or a little more than `most` bytes.
    async fn fetch(
        &self,
        path: &str,
        request: &Request<'_>,
        what: &str,
        most: u64,
        tell: Tell<'_>,
    ) -> Result<Vec<u8>, Fault> {
        let place = self.place(path)?;
        let fetch = async || {
            let answer = self.ask_place(&place, request, what).await?;
            self.body(answer).read(most).await
        };
        self.again(tell, fetch).await
    }

    /// Asks, and again if what is wrong may pass.
    async fn again<T>(
        &self,
        tell: Tell<'_>,
        ask: impl AsyncFn() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut tries = Tries::new(self.patience, tell);
        loop {
            match ask().await {
                Err(fault) if self.passes(&fault) => tries.wait(fault).await?,
                other => return other,
            }
        }
    }

    /// Gives a blob's bytes after the first `received` to `take`, in order, each once, whatever happens to connections.
    /// They are not verified, but as many as there should be, unless `take` ends it early.
    async fn blob<T, F>(
        &self,
        blob: &Descriptor,
        received: &mut u64,
        take: &mut T,
        tell: Tell<'_>,
    ) -> Result<(), Fault>
    where
        T: FnMut(Bytes) -> F,
        F: Future<Output = Taken>,
    {
        let short = |actual| Fault::Short {
            what: format!("the blob `{}`", blob.digest),
            expected: blob.size,
            actual,
        };
        let mut tries = Tries::new(self.patience, tell);
        loop {
            let start = *received;
            let fault = match self.blob_from(blob, received, take).await {
                Ok(Taken::Stop) => return Ok(()),
                // What goes on is not what the manifest says, although its beginning may be.
                Err(fault @ Fault::Long { .. }) => return Err(fault),
                // All is there, however the connection ended.
                Ok(Taken::More) | Err(_) if *received == blob.size => return Ok(()),
                // As a broken connection does that has no length.
                Ok(Taken::More) => short(*received),
                // It has no more, and will not have.
                Err(Fault::Status { status: 416, .. }) if start > 0 => return Err(short(start)),
                Err(fault) => fault,
            };
            if *received - start >= ENOUGH as u64 {
                tries.progressed();
            }
            match self.passes(&fault) {
                true => tries.wait(fault).await?,
                false => return Err(fault),
            }
        }
    }

    async fn blob_from<T, F>(
        &self,
        blob: &Descriptor,
        received: &mut u64,
        take: &mut T,
    ) -> Result<Taken, Fault>
    where
        T: FnMut(Bytes) -> F,
        F: Future<Output = Taken>,
    {
        let from = *received;
        let what = format!("the blob `{}`", blob.digest);
        let place = self.place(&format!("blobs/{}", blob.digest))?;
        let request = match from {
            0 => Request::get(),
            _ => Request::get().header(RANGE, &format!("bytes={from}-")),
        };
        let mut answer = self.ask_place(&place, &request, &what).await;
        for url in blob.urls.iter().take(MOST_URLS) {
            if !matches!(
                answer,
                Err(Fault::NotFound { .. } | Fault::Elsewhere { .. })
            ) {
                break;
            }
            // A layer that may not be given on: its owner gives it.
            let place = Place::Elsewhere(url.clone());
            let asked = self.ask_place(&place, &request, &what);
            answer = asked.await.map_err(|source| Fault::Elsewhere {
                to: onward::shown(url),
                source: Box::new(source),
            });
        }
        let answer = answer?;
        // A registry that does not do ranges sends what is known already, which is left out.
        let start = match answer.status() {
            StatusCode::PARTIAL_CONTENT => start_of_range(answer.headers()).unwrap_or(from),
            _ => 0,
        };
        let mut known = from.checked_sub(start).ok_or_else(|| Fault::Answer {
            registry: self.reference.registry.clone(),
            why: "it leaves out a part of a blob",
        })?;
        let mut body = self.body(answer);
        while let Some(mut bytes) = body.next().await? {
            let skipped = known.min(bytes.len() as u64);
            drop(bytes.split_to(skipped as usize));
            known -= skipped;
            if *received + bytes.len() as u64 > blob.size {
                let expected = blob.size;
                return Err(Fault::Long { what, expected });
            }
            *received += bytes.len() as u64;
            if let Taken::Stop = take(bytes).await {
                return Ok(Taken::Stop);
            }
        }
        Ok(Taken::More)
    }

    /// What is beneath the repository.
    fn place(&self, path: &str) -> Result<Place, Fault> {
        self.url(path).map(Place::Own)
    }

    fn url(&self, path: &str) -> Result<Url, Fault> {
        self.base.join(path).map_err(|_| Fault::Answer {
            registry: self.reference.registry.clone(),
            why: "its name makes no address",
        })
    }

    /// Asks with a grant that is good, and again with a new one if it turns out to have ended.
    async fn ask_place(
        &self,
        place: &Place,
        request: &Request<'_>,
        what: &str,
    ) -> Result<Response, Fault> {
        let mut session = self.session(None).await?;
        let own = matches!(place, Place::Own(_));
        let mut renewals = if own && self.worked.get() {
            RENEWALS
        } else {
            0
        };
        loop {
            let answer = self.answer(place, request, &session).await?;
            if answer.status().is_success() {
                self.worked.set(true);
                return Ok(answer);
            }
            // 403 is no grant that has ended.
            let may_have_ended = answer.status() == StatusCode::UNAUTHORIZED;
            let fault = self.refusal(answer, what).await;
            if !may_have_ended || renewals == 0 {
                return Err(fault);
            }
            let registry = &self.reference.registry;
            tracing::debug!(registry, "the registry wants a new sign-in");
            renewals -= 1;
            session = self.session(Some(session.number)).await?;
        }
    }

    /// What is said to a request, whatever it is. The time that its content takes to go out is not the registry's.
    async fn answer(
        &self,
        place: &Place,
        request: &Request<'_>,
        session: &Session,
    ) -> Result<Response, Fault> {
        let time = self.silence * ANSWER;
        let http = self.sign_in.http();
        let asked = http.ask(place, request, session.authorization.as_ref());
        match while_moving(time, || request.moved(), asked).await {
            Some(answer) => answer.map_err(|error| self.fault(error)),
            None => Err(Fault::Silent {
                registry: self.reference.registry.clone(),
                time,
            }),
        }
    }

    /// A session that is not at its end, and is not the one that was refused.
    async fn session(&self, refused: Option<u64>) -> Result<Session, Fault> {
        let mut session = self.session.lock().await;
        if session.has_ended() || refused == Some(session.number) {
            let scope = self.purpose.scope(&self.reference.repository);
            *session = Session::new(&self.sign_in, &[scope], session.number + 1).await?;
        }
        Ok(session.clone())
    }

    /// Whether trying again may help.
    fn passes(&self, fault: &Fault) -> bool {
        fault.passes() || (self.worked.get() && fault.is_of_the_way())
    }

    fn body(&self, answer: Response) -> Body<'_> {
        Body::new(answer, &self.reference.registry, self.silence)
    }

    async fn refusal(&self, answer: Response, what: &str) -> Fault {
        let (status, wait) = (answer.status(), retry_after(answer.headers()));
        // What was said is good to know, but no more.
        let text = self.body(answer).read(MOST_REFUSAL_BYTES).await;
        let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
        let registry = &self.reference.registry;
        let mut fault = refusal(status, wait, &text, registry, what);
        if let Fault::Unauthorized { asked_as, .. } = &mut fault {
            *asked_as = self.sign_in.asked_as();
        }
        fault.through(self.transport.proxies.of(&self.base), registry)
    }

    fn fault(&self, error: onward::Error) -> Fault {
        let registry = &self.reference.registry;
        let error = match error {
            onward::Error::Request(error) => error,
            onward::Error::Sent { to, why } => {
                let registry = registry.clone();
                return Fault::Sent { registry, to, why };
            }
        };
        fault(error, registry).through(self.transport.proxies.of(&self.base), registry)
    }
}

impl Session {
    async fn new(sign_in: &SignIn, scopes: &[String], number: u64) -> Result<Self, Fault> {
        let grant = sign_in.sign_in(scopes).await?;
        let is_of_scopes = matches!(grant, Grant::Bearer { .. });
        let (text, until) = match grant {
            Grant::Nothing => (None, None),
            Grant::Basic { username, password } => {
                let pair = BASE64_STANDARD.encode(format!("{username}:{password}"));
                (Some(format!("Basic {pair}")), None)
            }
            Grant::Bearer { token, until } => (Some(format!("Bearer {token}")), until),
        };
        let authorization = text.map(|text| sign_in.header(&text)).transpose()?;
        Ok(Self {
            authorization,
            is_of_scopes,
            until,
            number,
        })
    }

    fn has_ended(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }
}

/// Where the requests for a registry go.
pub(super) fn address(registry: &str) -> &str {
    match registry {
        // As Docker and podman ask it: where it says that blobs are to be sent has that name.
        "docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// What `certs.d` has for a registry.
pub(super) fn certificates(conf: &RegistriesConf, registry: &str) -> Result<Certificates, Fault> {
    let certificates = conf.certificates(registry);
    certificates.map_err(|source| Fault::Certificates {
        registry: registry.to_owned(),
        source,
    })
}

/// Speaks to a registry over https, or else over http if it may: what is sent to this machine passes no wire.
pub(super) async fn with_or_without_tls<T>(
    registry: &str,
    https: Transport,
    speak: impl AsyncFn(Transport) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let may_be_plain = !https.verify || is_loopback(registry);
    let http = Transport {
        scheme: Scheme::Http,
        ..https.clone()
    };
    match speak(https).await {
        Err(fault) if may_be_plain && does_not_speak_tls(&fault) => speak(http).await,
        other => other,
    }
}

/// Whether a registry is on this machine, by its name alone.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, _)) if !registry.ends_with(']') => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
