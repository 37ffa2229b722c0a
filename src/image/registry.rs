//! A registry, as far as a pull needs it: the address, who asks, and what went wrong in words. Transport and tokens
//! are `oci-client`'s.
//!
//! https always, but for registries on loopback that do not speak it, and for those whose TLS is not to be verified.

use std::io;
use std::net::IpAddr;
use std::sync::Once;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol, LayerDescriptor};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};

use super::digest::Digest;
use super::error::Class;
use super::manifest::{self, Descriptor};
use super::pull::Credentials;
use crate::model::reference::Reference;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a registry may say nothing in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(60);
/// Waits before another try. After each progress they start anew.
const WAITS: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(8),
];

/// Whether the registry has to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVerify {
    On,
    /// Any certificate is taken, and http where https does not answer.
    Off,
}

/// What went wrong with a registry, for which image.
#[derive(Debug, thiserror::Error)]
#[error("cannot pull `{image}`")]
pub struct Error {
    pub image: String,
    pub source: Fault,
}

/// What went wrong with a registry.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the registry `{registry}` does not have {what}")]
    NotFound { registry: String, what: String },
    #[error("the registry `{registry}` refuses access{}", reason(message))]
    Unauthorized { registry: String, message: String },
    #[error("the registry `{registry}` wants fewer requests{}", reason(message))]
    TooManyRequests { registry: String, message: String },
    #[error(
        "the registry `{registry}` answers with status {status}{}",
        reason(message)
    )]
    Status {
        registry: String,
        status: u16,
        message: String,
    },
    #[error("the address of the registry `{registry}` cannot be found")]
    Name {
        registry: String,
        source: OciDistributionError,
    },
    #[error("cannot connect to the registry `{registry}`")]
    Connect {
        registry: String,
        source: OciDistributionError,
    },
    #[error("cannot make a secure connection to the registry `{registry}`")]
    Tls {
        registry: String,
        source: OciDistributionError,
    },
    #[error("the connection to the registry `{registry}` broke")]
    Broken {
        registry: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("what came for {what} is something else")]
    Digest { what: String },
    #[error("{what} has {actual} bytes, and the manifest says {expected}")]
    Size {
        what: String,
        expected: u64,
        actual: u64,
    },
    #[error("what the registry `{registry}` answers cannot be used")]
    Answer {
        registry: String,
        source: OciDistributionError,
    },
    #[error("cannot set up the connection")]
    Client(#[source] OciDistributionError),
}

fn reason(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return String::new();
    }
    let short: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
    format!(": {short}")
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match &self.source {
            Fault::NotFound { .. } => Class::NotFound,
            Fault::Unauthorized { .. } => Class::Unauthorized,
            Fault::TooManyRequests { .. } | Fault::Status { .. } | Fault::Answer { .. } => {
                Class::Registry
            }
            Fault::Name { .. } | Fault::Connect { .. } | Fault::Broken { .. } => Class::Unreachable,
            Fault::Tls { .. } => Class::Tls,
            Fault::Digest { .. } | Fault::Size { .. } => Class::Corrupt,
            Fault::Client(_) => Class::Machine,
        }
    }
}

impl Fault {
    /// Whether trying again may help.
    fn passes(&self) -> bool {
        match self {
            Self::TooManyRequests { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::Name { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::Answer { .. }
            | Self::Client(_) => false,
        }
    }
}

/// A repository of a registry that answers.
pub(super) struct Repository {
    client: Client,
    /// In the words of `oci-client`, with a digest or tag that does not matter.
    name: oci_client::Reference,
    image: String,
    registry: String,
    auth: RegistryAuth,
}

/// A manifest or index, verified.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
}

impl Repository {
    /// Finds out how the registry is spoken to, and signs in.
    pub(super) async fn connect(
        reference: &Reference,
        tls: TlsVerify,
        credentials: Option<&Credentials>,
    ) -> Result<Self, Error> {
        let fail = |source| Error {
            image: reference.to_string(),
            source,
        };
        let secure = Self::signed_in(reference, ClientProtocol::Https, tls, credentials).await;
        let may_be_plain = tls == TlsVerify::Off || is_loopback(&reference.registry);
        match secure {
            Err(fault) if may_be_plain && does_not_speak_tls(&fault) => {
                Self::signed_in(reference, ClientProtocol::Http, tls, credentials)
                    .await
                    .map_err(fail)
            }
            other => other.map_err(fail),
        }
    }

    async fn signed_in(
        reference: &Reference,
        protocol: ClientProtocol,
        tls: TlsVerify,
        credentials: Option<&Credentials>,
    ) -> Result<Self, Fault> {
        let auth = match credentials {
            Some(Credentials { username, password }) => {
                RegistryAuth::Basic(username.clone(), password.clone())
            }
            None => RegistryAuth::Anonymous,
        };
        let repository = Self {
            client: client(protocol, tls)?,
            name: name(reference),
            image: reference.to_string(),
            registry: reference.registry.clone(),
            auth,
        };
        let mut waits = WAITS.iter();
        loop {
            match repository.sign_in().await {
                Err(fault) if fault.passes() => match waits.next() {
                    Some(wait) => tokio::time::sleep(*wait).await,
                    None => return Err(fault),
                },
                other => return other.map(|()| repository),
            }
        }
    }

    /// Gets a token, if the registry wants one; a new one if there is one already.
    async fn sign_in(&self) -> Result<(), Fault> {
        let signed_in = self
            .client
            .auth(&self.name, &self.auth, RegistryOperation::Pull)
            .await;
        match signed_in {
            Ok(_) => Ok(()),
            Err(OciDistributionError::AuthenticationFailure(message)) => Err(Fault::Unauthorized {
                registry: self.registry.clone(),
                message: envelope_message(&message),
            }),
            Err(e) => Err(self.fault(e, "the image")),
        }
    }

    /// The manifest or index of a tag or digest.
    pub(super) async fn manifest(&self, wanted: &Reference) -> Result<Fetched, Error> {
        let wanted_name = name(wanted);
        let what = match (&wanted.digest, &wanted.tag) {
            (Some(digest), _) => format!("the manifest `{digest}` of `{}`", wanted.repository),
            (None, tag) => format!(
                "`{}:{}`",
                wanted.repository,
                tag.as_deref().unwrap_or("latest")
            ),
        };
        let get = || async {
            let pulled = self
                .client
                .pull_manifest_raw(&wanted_name, &self.auth, manifest::ACCEPTED)
                .await;
            pulled.map_err(|e| self.fault(e, &what))
        };
        let (bytes, _) = self.retry(get).await.map_err(|fault| self.fail(fault))?;
        let digest = Digest::of(&bytes);
        if wanted
            .digest
            .as_ref()
            .is_some_and(|wanted| *wanted != digest.as_str())
        {
            return Err(self.fail(Fault::Digest { what }));
        }
        let bytes = bytes.to_vec();
        Ok(Fetched { bytes, digest })
    }

    /// A small blob, verified.
    pub(super) async fn small_blob(&self, blob: &Descriptor, most: u64) -> Result<Vec<u8>, Error> {
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
        let bytes = self.retry(get).await.map_err(|fault| self.fail(fault))?;
        let what = format!("the configuration `{}`", blob.digest);
        let actual = bytes.len() as u64;
        if actual != blob.size {
            let expected = blob.size;
            return Err(self.fail(Fault::Size {
                what,
                expected,
                actual,
            }));
        }
        if Digest::of(&bytes) != blob.digest {
            return Err(self.fail(Fault::Digest { what }));
        }
        Ok(bytes)
    }

    /// Gives a blob's bytes to `take`, in order, each once, whatever happens to connections. They are not verified.
    /// Ends early without an error when `take` says so, or when the registry has no more.
    pub(super) async fn blob<T, F>(&self, blob: &Descriptor, mut take: T) -> Result<(), Error>
    where
        T: FnMut(Chunk) -> F,
        F: Future<Output = Taken>,
    {
        let mut received = 0_u64;
        let mut waits = WAITS.iter();
        loop {
            let start = received;
            let fault = match self.blob_from(blob, &mut received, &mut take).await {
                Ok(Taken::Stop) => return Ok(()),
                Ok(Taken::More) if received >= blob.size => return Ok(()),
                // It ended, but not where it should: as a broken connection does that has no length.
                Ok(Taken::More) => None,
                Err(fault) if fault.passes() => Some(fault),
                Err(fault) => return Err(self.fail(fault)),
            };
            if received > start {
                waits = WAITS.iter();
            }
            match (waits.next(), fault) {
                (Some(wait), fault) => {
                    tracing::debug!(digest = %blob.digest, received, ?fault, "blob is asked for again");
                    tokio::time::sleep(*wait).await;
                }
                (None, Some(fault)) => return Err(self.fail(fault)),
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
        let layer = LayerDescriptor {
            digest: digest.as_str(),
            urls: &None,
        };
        let mut response = self
            .client
            .pull_blob_stream_partial(&self.name, &layer, from, None)
            .await;
        if matches!(
            response,
            Err(OciDistributionError::UnauthorizedError { .. })
        ) {
            // The token may have expired during a long pull.
            self.sign_in().await?;
            response = self
                .client
                .pull_blob_stream_partial(&self.name, &layer, from, None)
                .await;
        }
        let what = || format!("the blob `{digest}`");
        match response.map_err(|e| self.fault(e, &what()))? {
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
        let mut waits = WAITS.iter();
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

    fn fail(&self, source: Fault) -> Error {
        Error {
            image: self.image.clone(),
            source,
        }
    }

    fn broken(&self, source: io::Error) -> Fault {
        Fault::Broken {
            registry: self.registry.clone(),
            source: source.into(),
        }
    }

    fn fault(&self, error: OciDistributionError, what: &str) -> Fault {
        fault(error, &self.registry, what)
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

fn client(protocol: ClientProtocol, tls: TlsVerify) -> Result<Client, Fault> {
    static PROVIDER: Once = Once::new();
    // Fails only if there is a provider already, and then all is well.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let config = ClientConfig {
        protocol,
        accept_invalid_certificates: tls == TlsVerify::Off,
        connect_timeout: Some(CONNECT),
        read_timeout: Some(SILENCE),
        user_agent: concat!("kplay/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    // Not `Client::new`: it would go on with another configuration.
    Client::try_from(config).map_err(Fault::Client)
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

/// Whether https got no answer, or one that is no TLS at all. A certificate that is not trusted is an answer.
fn does_not_speak_tls(fault: &Fault) -> bool {
    match fault {
        Fault::Connect { .. } | Fault::Broken { .. } => true,
        Fault::Tls { source, .. } => !matches!(
            tls_error(source),
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
        ),
        _ => false,
    }
}

fn fault(error: OciDistributionError, registry: &str, what: &str) -> Fault {
    use OciDistributionError as E;
    let (registry, what) = (registry.to_owned(), what.to_owned());
    match error {
        E::UnauthorizedError { .. } => Fault::Unauthorized {
            registry,
            message: String::new(),
        },
        E::ImageManifestNotFoundError(_) => Fault::NotFound { registry, what },
        E::ServerError { code: 404, .. } => Fault::NotFound { registry, what },
        E::ServerError {
            code: 401 | 403,
            message,
            ..
        } => Fault::Unauthorized { registry, message },
        E::ServerError {
            code: 429, message, ..
        } => Fault::TooManyRequests { registry, message },
        E::ServerError { code, message, .. } => Fault::Status {
            registry,
            status: code,
            message: envelope_message(&message),
        },
        E::RegistryError { envelope, .. } => {
            let first = envelope.errors.into_iter().next();
            let message = first
                .as_ref()
                .map(|e| e.message.clone())
                .unwrap_or_default();
            match first.map(|e| e.code) {
                Some(
                    OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::NotFound
                    | OciErrorCode::BlobUnknown
                    | OciErrorCode::ManifestBlobUnknown,
                ) => Fault::NotFound { registry, what },
                Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => {
                    Fault::Unauthorized { registry, message }
                }
                Some(OciErrorCode::Toomanyrequests) => Fault::TooManyRequests { registry, message },
                _ => Fault::Status {
                    registry,
                    status: 400,
                    message,
                },
            }
        }
        E::DigestError(oci_client::errors::DigestError::VerificationError { .. }) => {
            Fault::Digest { what }
        }
        E::RequestError(_) => request_fault(error, registry),
        E::IoError(e) => Fault::Broken {
            registry,
            source: e.into(),
        },
        source => Fault::Answer { registry, source },
    }
}

/// Sorts what `reqwest` reports; its own types are not named here, so the causes are looked at.
fn request_fault(source: OciDistributionError, registry: String) -> Fault {
    if tls_error(&source).is_some() {
        return Fault::Tls { registry, source };
    }
    let texts: Vec<String> = causes(&source).map(ToString::to_string).collect();
    let connecting = texts
        .iter()
        .any(|text| text.contains("client error (Connect)"));
    if connecting && texts.iter().any(|text| text.contains("dns error")) {
        return Fault::Name { registry, source };
    }
    // A handshake that the other side ends is one with something that does not speak TLS.
    if connecting && texts.iter().any(|text| text.contains("tls handshake eof")) {
        return Fault::Tls { registry, source };
    }
    if connecting {
        return Fault::Connect { registry, source };
    }
    Fault::Broken {
        registry,
        source: source.into(),
    }
}

fn tls_error(error: &OciDistributionError) -> Option<&rustls::Error> {
    causes(error).find_map(|cause| {
        let within = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        cause
            .downcast_ref::<rustls::Error>()
            .or_else(|| within?.downcast_ref())
    })
}

fn causes<'a>(
    error: &'a OciDistributionError,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    // The error itself is transparent: its source is the cause of its cause.
    let first: &'a (dyn std::error::Error + 'static) = match error {
        OciDistributionError::RequestError(e) => e,
        other => other,
    };
    std::iter::successors(Some(first), |cause| (*cause).source())
}

/// The message of a registry's answer in JSON, or the answer.
fn envelope_message(body: &str) -> String {
    let message = serde_json::from_str::<serde_json::Value>(body)
        .ok()
        .and_then(|json| Some(json.pointer("/errors/0/message")?.as_str()?.to_owned()));
    message.unwrap_or_else(|| body.to_owned())
}
