//! A registry, as far as pulls and pushes need it: the address, who asks, and what went wrong in words. Transport is
//! `oci-client`'s; what goes with its requests is got by [`SignIn`], and again when it ends.
//!
//! https always, but for registries on loopback that do not speak it, and for those whose TLS is not to be verified.

mod fault;
mod push;
mod sources;

use std::io;
use std::net::IpAddr;
use std::sync::Once;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use oci_client::Client;
use oci_client::client::{
    BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol, LayerDescriptor,
};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::{RegistryOperation, RegistryToken, RegistryTokenType};
use reqwest::Url;
use tokio::sync::Mutex;

use super::auth::{Grant, Login, Scheme, SignIn, Transport};
use super::digest::Digest;
use super::manifest::{self, Descriptor};
use super::pull::PullOptions;
use super::registries::{Certificates, Endpoint, RegistriesConf};
use crate::model::reference::Reference;

pub use fault::{Error, Fault};

pub(super) use fault::{envelope_message, fault};
pub use push::Purpose;

pub(super) use push::Sent;
pub(super) use sources::Sources;

use fault::does_not_speak_tls;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a registry may say nothing in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(60);
/// How often a request is sent with a new grant: what other layers sign in for may have ended as well.
const RENEWALS: u32 = 2;
/// The usual waits before another try of what may pass: 12 seconds together.
pub const RETRY_WAITS: &[Duration] = &[
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(8),
];

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
    /// The same in the words of `oci-client`.
    name: oci_client::Reference,
    registry: String,
    purpose: Purpose,
    sign_in: SignIn,
    transport: Transport,
    /// Held while it is renewed, so that of layers that come at the same time one does it.
    session: Mutex<Session>,
    /// Before another try. After each progress they start anew.
    waits: &'static [Duration],
}

/// Requests with a grant, as long as that is good.
#[derive(Clone)]
struct Session {
    client: Client,
    until: Option<Instant>,
    /// Which of this repository's sessions it is.
    number: u64,
    /// Whether a grant that is refused may have ended, rather than never been enough.
    worked: bool,
}

/// A manifest or index, verified.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
}

impl Repository {
    /// Finds out how the registry is spoken to, and signs in.
    async fn connect(
        endpoint: &Endpoint,
        login: Option<&Login>,
        options: &PullOptions,
        purpose: Purpose,
        waits: &'static [Duration],
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
            Self::signed_in(&endpoint.reference, transport, login, purpose, waits).await
        };
        with_or_without_tls(registry, transport, by).await
    }

    async fn signed_in(
        reference: &Reference,
        transport: Transport,
        login: Option<&Login>,
        purpose: Purpose,
        waits: &'static [Duration],
    ) -> Result<Self, Fault> {
        let registry = &reference.registry;
        let (login, own) = (login.cloned(), transport.clone());
        let sign_in = SignIn::new(registry, address(registry), login, own)?;
        let name = name(reference);
        let mut tries = waits.iter();
        let session = loop {
            match Session::new(&sign_in, &transport, &name, purpose, 0).await {
                Err(fault) if fault.passes() => match tries.next() {
                    Some(wait) => tokio::time::sleep(*wait).await,
                    None => return Err(fault),
                },
                other => break other?,
            }
        };
        Ok(Self {
            reference: reference.clone(),
            name,
            registry: registry.clone(),
            purpose,
            sign_in,
            transport,
            session: Mutex::new(session),
            waits,
        })
    }

    /// Asks with a grant that is good, and again with a new one if it turns out to have ended.
    async fn ask<T, F>(&self, what: &str, request: impl Fn(Client) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, OciDistributionError>>,
    {
        let mut session = self.session(None).await?;
        let mut renewals = if session.worked { RENEWALS } else { 0 };
        loop {
            match request(session.client.clone()).await {
                Ok(answer) => {
                    self.session.lock().await.worked = true;
                    return Ok(answer);
                }
                Err(error) => {
                    let fault = self.fault(error, what);
                    if !matches!(fault, Fault::Unauthorized { .. }) || renewals == 0 {
                        return Err(fault);
                    }
                }
            }
            tracing::debug!(registry = self.registry, "the registry wants a new sign-in");
            renewals -= 1;
            session = self.session(Some(session.number)).await?;
        }
    }

    /// A session that is not at its end, and is not the one that was refused.
    async fn session(&self, refused: Option<u64>) -> Result<Session, Fault> {
        let mut session = self.session.lock().await;
        let has_ended = session.until.is_some_and(|until| until <= Instant::now());
        if has_ended || refused == Some(session.number) {
            let (number, worked) = (session.number + 1, session.worked);
            let (sign_in, transport) = (&self.sign_in, &self.transport);
            let new = Session::new(sign_in, transport, &self.name, self.purpose, number).await?;
            *session = Session { worked, ..new };
        }
        Ok(session.clone())
    }

    /// The manifest or index of a digest, or else of the tag or digest that the repository was connected for.
    async fn manifest(&self, digest: Option<&Digest>) -> Result<Fetched, Fault> {
        let mut wanted = self.reference.clone();
        if let Some(digest) = digest {
            wanted.digest = Some(digest.to_string());
        }
        let wanted_name = name(&wanted);
        let what = match (&wanted.digest, &wanted.tag) {
            (Some(digest), _) => format!("the manifest `{digest}` of `{}`", wanted.repository),
            (None, tag) => format!(
                "`{}:{}`",
                wanted.repository,
                tag.as_deref().unwrap_or("latest")
            ),
        };
        let get = || {
            self.ask(&what, |client| {
                let wanted_name = &wanted_name;
                async move {
                    // What is sent was decided when the client was made.
                    let auth = &RegistryAuth::Anonymous;
                    client
                        .pull_manifest_raw(wanted_name, auth, manifest::ACCEPTED)
                        .await
                }
            })
        };
        let (bytes, _) = self.retry(get).await?;
        let digest = Digest::of(&bytes);
        if wanted
            .digest
            .as_ref()
            .is_some_and(|wanted| *wanted != digest.as_str())
        {
            return Err(Fault::Digest { what });
        }
        let bytes = bytes.to_vec();
        Ok(Fetched { bytes, digest })
    }

    /// A small blob, verified.
    async fn small_blob(&self, blob: &Descriptor, most: u64) -> Result<Vec<u8>, Fault> {
        let get = || async {
            let mut bytes = Vec::new();
            let mut stream = self.open_blob(&blob.digest, 0).await?;
            while let Some(chunk) = stream.next().await {
                bytes.extend_from_slice(chunk.map_err(|e| self.broken(e))?.as_ref());
                // One byte more than is right is enough to know.
                if bytes.len() as u64 > most.min(blob.size) {
                    break;
                }
            }
            Ok(bytes)
        };
        let bytes = self.retry(get).await?;
        let what = format!("the configuration `{}`", blob.digest);
        let actual = bytes.len() as u64;
        if actual != blob.size {
            let expected = blob.size;
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

    /// Gives a blob's bytes after the first `received` to `take`, in order, each once, whatever happens to connections.
    /// They are not verified. Ends early without an error when `take` says so, or when the registry has no more.
    async fn blob<T, F>(
        &self,
        blob: &Descriptor,
        received: &mut u64,
        take: &mut T,
    ) -> Result<(), Fault>
    where
        T: FnMut(Chunk) -> F,
        F: Future<Output = Taken>,
    {
        let mut waits = self.waits.iter();
        loop {
            let start = *received;
            let fault = match self.blob_from(blob, received, take).await {
                Ok(Taken::Stop) => return Ok(()),
                Ok(Taken::More) if *received >= blob.size => return Ok(()),
                // It ended, but not where it should: as a broken connection does that has no length.
                Ok(Taken::More) => None,
                Err(fault) if fault.passes() => Some(fault),
                Err(fault) => return Err(fault),
            };
            if *received > start {
                waits = self.waits.iter();
            }
            match (waits.next(), fault) {
                (Some(wait), fault) => {
                    tracing::debug!(digest = %blob.digest, %received, ?fault, "blob is asked for again");
                    tokio::time::sleep(*wait).await;
                }
                (None, Some(fault)) => return Err(fault),
                (None, None) => return Ok(()),
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
        T: FnMut(Chunk) -> F,
        F: Future<Output = Taken>,
    {
        let mut stream = self.open_blob(&blob.digest, *received).await?;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| self.broken(e))?;
            *received += chunk.as_ref().len() as u64;
            if let Taken::Stop = take(chunk).await {
                return Ok(Taken::Stop);
            }
        }
        Ok(Taken::More)
    }

    async fn open_blob(&self, digest: &Digest, from: u64) -> Result<ChunkStream, Fault> {
        let request = |client: Client| async move {
            let layer = LayerDescriptor {
                digest: digest.as_str(),
                urls: &None,
            };
            client
                .pull_blob_stream_partial(&self.name, &layer, from, None)
                .await
        };
        match self.ask(&format!("the blob `{digest}`"), request).await? {
            BlobResponse::Partial(sized) => {
                Ok(sized.stream.map(|chunk| chunk.map(Chunk::new)).boxed())
            }
            // The registry does not do ranges: what is known already is left out.
            BlobResponse::Full(sized) => {
                let mut skip = from;
                let rest = sized.stream.map(move |chunk| {
                    chunk.map(|bytes| {
                        let known = skip.min(bytes.as_ref().len() as u64);
                        skip -= known;
                        Chunk {
                            skip: known as usize,
                            ..Chunk::new(bytes)
                        }
                    })
                });
                Ok(rest.boxed())
            }
        }
    }

    async fn retry<T, F>(&self, get: impl Fn() -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut waits = self.waits.iter();
        loop {
            match get().await {
                Err(fault) if fault.passes() => match waits.next() {
                    Some(wait) => tokio::time::sleep(*wait).await,
                    None => return Err(fault),
                },
                other => return other,
            }
        }
    }

    fn broken(&self, source: io::Error) -> Fault {
        Fault::Broken {
            registry: self.registry.clone(),
            source: source.into(),
        }
    }

    fn fault(&self, error: OciDistributionError, what: &str) -> Fault {
        let mut fault = fault(error, &self.registry, what);
        if let Fault::Unauthorized { asked_as, .. } = &mut fault {
            *asked_as = self.sign_in.asked_as();
        }
        let base = base(&self.transport, self.name.resolve_registry());
        let proxy = base.and_then(|base| self.transport.proxies.of(&base).cloned());
        fault.through(proxy.as_ref(), &self.registry)
    }
}

impl Session {
    async fn new(
        sign_in: &SignIn,
        transport: &Transport,
        name: &oci_client::Reference,
        purpose: Purpose,
        number: u64,
    ) -> Result<Self, Fault> {
        let scope = format!("repository:{}:{}", name.repository(), purpose.actions());
        let (auth, until) = match sign_in.sign_in(Some(&scope)).await? {
            Grant::Nothing => (None, None),
            Grant::Basic { username, password } => {
                let token = RegistryTokenType::Basic(username, password);
                (Some((token, RegistryAuth::Anonymous)), None)
            }
            Grant::Bearer { token, until } => {
                // Also as what tokens are made from: a token that looks broken is not taken by the store of tokens.
                let auth = RegistryAuth::Bearer(token.clone());
                let token = RegistryTokenType::Bearer(RegistryToken::Token { token });
                (Some((token, auth)), until)
            }
        };
        // A new one each time: what a client knows cannot be taken from it.
        let client = client(transport, name.resolve_registry())?;
        if let Some((token, auth)) = auth {
            client
                .store_auth_if_needed(name.resolve_registry(), &auth)
                .await;
            for operation in [RegistryOperation::Pull, RegistryOperation::Push] {
                client.tokens.insert(name, operation, token.clone()).await;
            }
        }
        Ok(Self {
            client,
            until,
            number,
            worked: false,
        })
    }
}

/// Whether more is wanted.
pub(super) enum Taken {
    More,
    Stop,
}

/// Bytes as they came.
pub(super) struct Chunk {
    bytes: Box<dyn AsRef<[u8]> + Send>,
    skip: usize,
}

impl Chunk {
    fn new(bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        Self {
            bytes: Box::new(bytes),
            skip: 0,
        }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &(*self.bytes).as_ref()[self.skip..]
    }
}

type ChunkStream = BoxStream<'static, io::Result<Chunk>>;

/// Makes the cryptography known that TLS is done with.
pub(super) fn provide_cryptography() {
    static PROVIDER: Once = Once::new();
    // Fails only if there is a provider already, and then all is well.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

fn client(transport: &Transport, host: &str) -> Result<Client, Fault> {
    provide_cryptography();
    let base = base(transport, host);
    let proxies = base.map(|base| transport.proxies.for_client_of(&base));
    let (https_proxy, http_proxy, no_proxy) = match proxies {
        Some(proxies) => (proxies.https, proxies.http, Some(proxies.direct)),
        None => (None, None, None),
    };
    let authorities = transport.certificates.0.iter().map(|pem| Certificate {
        encoding: CertificateEncoding::Pem,
        data: pem.clone(),
    });
    let config = ClientConfig {
        protocol: match transport.scheme {
            Scheme::Https => ClientProtocol::Https,
            Scheme::Http => ClientProtocol::Http,
        },
        accept_invalid_certificates: !transport.verify,
        extra_root_certificates: authorities.collect(),
        connect_timeout: Some(CONNECT),
        read_timeout: Some(SILENCE),
        user_agent: concat!("kplay/", env!("CARGO_PKG_VERSION")),
        https_proxy,
        http_proxy,
        no_proxy,
        // Blobs that are pushed are whole files: one request for each.
        use_monolithic_push: true,
        // Whether a token has ended is known here.
        default_token_expiration_secs: 24 * 60 * 60,
        ..ClientConfig::default()
    };
    // Not `Client::new`: it would go on with another configuration.
    Client::try_from(config).map_err(Fault::Client)
}

fn base(transport: &Transport, host: &str) -> Option<Url> {
    Url::parse(&format!("{}://{host}/", transport.scheme.as_str())).ok()
}

/// Where the requests for a registry go.
pub(super) fn address(registry: &str) -> &str {
    match registry {
        "docker.io" => "index.docker.io",
        other => other,
    }
}

fn name(reference: &Reference) -> oci_client::Reference {
    let Reference {
        registry,
        repository,
        tag,
        digest,
    } = reference.clone();
    match digest {
        Some(digest) => oci_client::Reference::with_digest(registry, repository, digest),
        None => {
            let tag = tag.unwrap_or_else(|| "latest".into());
            oci_client::Reference::with_tag(registry, repository, tag)
        }
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
