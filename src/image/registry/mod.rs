//! A registry, as far as a pull needs it: the address, who asks, and what went wrong in words. Transport and tokens
//! are `oci-client`'s.
//!
//! https always, but for registries on loopback that do not speak it, and for those whose TLS is not to be verified.

mod fault;
mod sources;

use std::io;
use std::net::IpAddr;
use std::sync::Once;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use oci_client::client::{
    BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol, LayerDescriptor,
};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};

use super::digest::Digest;
use super::manifest::{self, Descriptor};
use super::pull::{Credentials, PullOptions};
use super::registries::{Certificates, Endpoint};
use crate::model::reference::Reference;

pub use fault::{Error, Fault};

pub(super) use sources::Sources;

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
    /// But for those that `registries.conf` calls insecure.
    Configured,
    On,
    /// Any certificate is taken, and http where https does not answer.
    Off,
}

/// A repository of a registry that answers.
pub(super) struct Repository {
    client: Client,
    /// With a tag or digest that does not matter.
    reference: Reference,
    /// The same in the words of `oci-client`.
    name: oci_client::Reference,
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
    async fn connect(
        endpoint: &Endpoint,
        options: &PullOptions,
        waits: &'static [Duration],
    ) -> Result<Self, Fault> {
        let registry = &endpoint.reference.registry;
        let verify = match options.tls_verify {
            TlsVerify::Configured => !endpoint.insecure,
            TlsVerify::On => true,
            TlsVerify::Off => false,
        };
        let certificates = options.registries.certificates(registry);
        let certificates = certificates.map_err(|source| Fault::Certificates {
            registry: registry.clone(),
            source,
        })?;
        // Each registry is believed by its own certificates: one client for each.
        let over = async |protocol| {
            let client = client(protocol, verify, &certificates)?;
            Self::signed_in(client, endpoint, options, waits).await
        };
        match over(ClientProtocol::Https).await {
            Err(fault) if (!verify || is_loopback(registry)) && does_not_speak_tls(&fault) => {
                over(ClientProtocol::Http).await
            }
            other => other,
        }
    }

    async fn signed_in(
        client: Client,
        endpoint: &Endpoint,
        options: &PullOptions,
        waits: &'static [Duration],
    ) -> Result<Self, Fault> {
        let auth = match &options.credentials {
            // A mirror is somebody else.
            Some(Credentials { username, password }) if !endpoint.mirror => {
                RegistryAuth::Basic(username.clone(), password.clone())
            }
            Some(_) | None => RegistryAuth::Anonymous,
        };
        let repository = Self {
            client,
            name: name(&endpoint.reference),
            registry: endpoint.reference.registry.clone(),
            reference: endpoint.reference.clone(),
            auth,
            waits,
        };
        let mut waits = waits.iter();
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
        let get = || async {
            let pulled = self
                .client
                .pull_manifest_raw(&wanted_name, &self.auth, manifest::ACCEPTED)
                .await;
            pulled.map_err(|e| self.fault(e, &what))
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

fn client(
    protocol: ClientProtocol,
    verify: bool,
    certificates: &Certificates,
) -> Result<Client, Fault> {
    static PROVIDER: Once = Once::new();
    // Fails only if there is a provider already, and then all is well.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let authorities = certificates.0.iter().map(|pem| Certificate {
        encoding: CertificateEncoding::Pem,
        data: pem.clone(),
    });
    let config = ClientConfig {
        protocol,
        accept_invalid_certificates: !verify,
        extra_root_certificates: authorities.collect(),
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
