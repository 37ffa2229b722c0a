//! A registry, as far as a pull needs it: the address, who asks, and what went wrong in words. Transport and tokens
//! are `oci-client`'s.
//!
//! https always, but for registries on loopback that do not speak it, and for those whose TLS is not to be verified.

mod fault;

use std::io;
use std::net::IpAddr;
use std::sync::Once;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol, LayerDescriptor};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};

use super::digest::Digest;
use super::manifest::{self, Descriptor};
use super::pull::{Credentials, PullOptions};
use crate::model::reference::Reference;

pub use fault::{Error, Fault};

use fault::{does_not_speak_tls, envelope_message, fault};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a registry may say nothing in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(60);
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
    On,
    /// Any certificate is taken, and http where https does not answer.
    Off,
}

/// A repository of a registry that answers.
pub(super) struct Repository {
    client: Client,
    /// In the words of `oci-client`, with a digest or tag that does not matter.
    name: oci_client::Reference,
    image: String,
    registry: String,
    auth: RegistryAuth,
    /// Before another try. After each progress they start anew.
    waits: &'static [Duration],
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
        options: &PullOptions,
    ) -> Result<Self, Error> {
        let fail = |source| Error {
            image: reference.to_string(),
            source,
        };
        let secure = Self::signed_in(reference, ClientProtocol::Https, options).await;
        let may_be_plain = options.tls_verify == TlsVerify::Off || is_loopback(&reference.registry);
        match secure {
            Err(fault) if may_be_plain && does_not_speak_tls(&fault) => {
                Self::signed_in(reference, ClientProtocol::Http, options)
                    .await
                    .map_err(fail)
            }
            other => other.map_err(fail),
        }
    }

    async fn signed_in(
        reference: &Reference,
        protocol: ClientProtocol,
        options: &PullOptions,
    ) -> Result<Self, Fault> {
        let auth = match &options.credentials {
            Some(Credentials { username, password }) => {
                RegistryAuth::Basic(username.clone(), password.clone())
            }
            None => RegistryAuth::Anonymous,
        };
        let repository = Self {
            client: client(protocol, options.tls_verify)?,
            name: name(reference),
            image: reference.to_string(),
            registry: reference.registry.clone(),
            auth,
            waits: options.waits,
        };
        let mut waits = options.waits.iter();
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
        let mut waits = self.waits.iter();
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
                waits = self.waits.iter();
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
