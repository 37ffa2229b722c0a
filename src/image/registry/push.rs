//! What a push asks a registry for, by `oci-client`, and how it differs from a pull.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use oci_client::Client;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::{RegistryOperation, RegistryToken, RegistryTokenType};
use reqwest::header::HeaderValue;

use super::fault::upload_fault;
use super::http::CONNECT;
use super::tries::{Tell, Tries};
use super::{ANSWER, Error, Fault, RENEWALS, Repository, Session, Sources};
use crate::image::auth::{Grant, Scheme};
use crate::image::digest::Digest;
use crate::image::export::Blob;
use crate::image::manifest::ManifestFormat;
use crate::model::reference::Reference;

/// What is done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Pull,
    Push,
}

impl Purpose {
    /// As the infinitive.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }

    /// What is asked for in words of token servers.
    pub(super) fn scope(self, repository: &str) -> String {
        let actions = match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        };
        format!("repository:{repository}:{actions}")
    }
}

/// Bytes that are read from a file at a time.
const PIECE: usize = 128 << 10;

/// Told of bytes that are on their way.
pub(in crate::image) type Sent = Arc<dyn Fn(u64) + Send + Sync>;

impl Sources<'_> {
    /// Whether the repository has a blob.
    pub(in crate::image) async fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        self.ask(async |repository| repository.has_blob(digest, self.tell).await)
            .await
    }

    /// Makes a blob of another repository of the registry one of this repository too; false if the registry does not.
    pub(in crate::image) async fn mount(&self, from: &str, digest: &Digest) -> Result<bool, Error> {
        self.ask(async |repository| repository.mount(from, digest).await)
            .await
    }

    /// Sends a blob.
    pub(in crate::image) async fn upload(&self, blob: &Blob, sent: &Sent) -> Result<(), Error> {
        self.ask(async |repository| repository.upload(blob, sent, self.tell).await)
            .await
    }

    /// Sends a manifest, which gets the name that the sources are of.
    pub(in crate::image) async fn put_manifest(
        &self,
        manifest: &[u8],
        format: ManifestFormat,
    ) -> Result<(), Error> {
        self.ask(async |repository| repository.put_manifest(manifest, format, self.tell).await)
            .await
    }
}

impl Repository {
    async fn has_blob(&self, digest: &Digest, tell: Tell<'_>) -> Result<bool, Fault> {
        let what = format!("the blob `{digest}`");
        let head = async |client: &Client| client.blob_exists(&self.name(), digest.as_str()).await;
        match self.send(&what, tell, head).await {
            Err(Fault::NotFound { .. }) => Ok(false),
            other => other,
        }
    }

    async fn mount(&self, from: &str, digest: &Digest) -> Result<bool, Fault> {
        let registry = self.reference.registry.clone();
        let source = oci_client::Reference::with_tag(registry, from.to_owned(), "latest".into());
        let what = format!("the blob `{digest}`");
        let mounted = async {
            let session = self.session_with(from).await?;
            let make = || self.client(&session.grant);
            let client = session.uploads.get_or_try_init(make).await?;
            let name = self.name();
            let mounted = client.mount_blob(&name, &source, digest.as_str());
            let registry = &self.reference.registry;
            mounted
                .await
                .map_err(|error| upload_fault(error, registry, &what))
        };
        match mounted.await {
            Ok(()) => Ok(true),
            // Whatever is wrong, sending it will do, or tell the same.
            Err(fault) => {
                tracing::debug!(%digest, from, ?fault, "the registry does not mount the blob");
                Ok(false)
            }
        }
    }

    /// A session that may read another repository of the registry, too.
    async fn session_with(&self, from: &str) -> Result<Session, Fault> {
        let own = self.session(None).await?;
        if !matches!(own.grant, Grant::Bearer { .. }) {
            return Ok(own);
        }
        let mut mounts = self.mounts.lock().await;
        if let Some(session) = mounts.get(from).filter(|session| !session.has_ended()) {
            return Ok(session.clone());
        }
        let scopes = [
            self.purpose.scope(&self.reference.repository),
            Purpose::Pull.scope(from),
        ];
        let session = match Session::new(&self.sign_in, &scopes, own.number).await {
            Ok(session) => session,
            // It may do all the same with what is there.
            Err(fault) => {
                tracing::debug!(from, ?fault, "no token for another repository");
                own
            }
        };
        mounts.insert(from.to_owned(), session.clone());
        Ok(session)
    }

    async fn upload(&self, blob: &Blob, sent: &Sent, tell: Tell<'_>) -> Result<(), Fault> {
        let what = format!("the blob `{}`", blob.digest);
        let put = async |client: &Client| {
            let stream = pieces(blob, Arc::clone(sent))?;
            let (name, digest) = (self.name(), blob.digest.as_str());
            let pushed = client.push_blob_stream(&name, stream, digest, Some(blob.size));
            taken(pushed.await)
        };
        self.send(&what, tell, put).await
    }

    async fn put_manifest(
        &self,
        manifest: &[u8],
        format: ManifestFormat,
        tell: Tell<'_>,
    ) -> Result<(), Fault> {
        let what = format!("the repository `{}`", self.reference.repository);
        let put = async |client: &Client| {
            let media_type = HeaderValue::from_static(format.media_type());
            let bytes = Bytes::copy_from_slice(manifest);
            let name = self.name();
            taken(client.push_manifest_raw(&name, bytes, media_type).await)
        };
        self.send(&what, tell, put).await
    }

    /// Sends what is to be sent, again if what is wrong may pass.
    async fn send<T>(
        &self,
        what: &str,
        tell: Tell<'_>,
        request: impl AsyncFn(&Client) -> Result<T, OciDistributionError>,
    ) -> Result<T, Fault> {
        let mut tries = Tries::new(self.patience, tell);
        loop {
            match self.send_once(what, &request).await {
                Err(fault) if self.passes(&fault) => tries.wait(fault).await?,
                other => return other,
            }
        }
    }

    /// Sends with a grant that is good, and again with a new one if it turns out to have ended.
    async fn send_once<T>(
        &self,
        what: &str,
        request: &impl AsyncFn(&Client) -> Result<T, OciDistributionError>,
    ) -> Result<T, Fault> {
        let mut session = self.session(None).await?;
        let mut renewals = if self.worked.get() { RENEWALS } else { 0 };
        loop {
            let make = || self.client(&session.grant);
            let error = match request(session.uploads.get_or_try_init(make).await?).await {
                Ok(done) => {
                    self.worked.set(true);
                    return Ok(done);
                }
                Err(error) => error,
            };
            let registry = &self.reference.registry;
            let mut fault = upload_fault(error, registry, what);
            if let Fault::Unauthorized { asked_as, .. } = &mut fault {
                *asked_as = self.sign_in.asked_as();
            }
            if !matches!(fault, Fault::Unauthorized { .. }) || renewals == 0 {
                return Err(fault.through(self.transport.proxies.of(&self.base), registry));
            }
            renewals -= 1;
            session = self.session(Some(session.number)).await?;
        }
    }

    /// The repository in the words of `oci-client`.
    fn name(&self) -> oci_client::Reference {
        let Reference {
            registry,
            repository,
            tag,
            digest,
        } = &self.reference;
        let (registry, repository) = (registry.clone(), repository.clone());
        match digest {
            Some(digest) => {
                oci_client::Reference::with_digest(registry, repository, digest.clone())
            }
            None => {
                let tag = tag.as_deref().unwrap_or("latest").to_owned();
                oci_client::Reference::with_tag(registry, repository, tag)
            }
        }
    }

    /// A client that has this grant. What it knows cannot be taken from it, so that each has one.
    async fn client(&self, grant: &Grant) -> Result<Client, Fault> {
        let registry = &self.reference.registry;
        let certificates = &self.transport.certificates;
        if let Some(client) = &certificates.client {
            return Err(Fault::ClientCertificate {
                registry: registry.clone(),
                path: client.path.clone(),
            });
        }
        let authorities = certificates.authorities.iter().map(|pem| Certificate {
            encoding: CertificateEncoding::Pem,
            data: pem.clone(),
        });
        let proxy = self.transport.proxies.of(&self.base);
        let proxy = proxy.map(|proxy| proxy.url.to_string());
        // One that is told of no proxy would look into the environment itself: it is told of one for nobody.
        let no_proxy = proxy.is_none().then(|| "*,0.0.0.0/0,::/0".to_owned());
        let proxy = Some(proxy.unwrap_or_else(|| "http://localhost".to_owned()));
        let config = ClientConfig {
            protocol: match self.transport.scheme {
                Scheme::Https => ClientProtocol::Https,
                Scheme::Http => ClientProtocol::Http,
            },
            accept_invalid_certificates: !self.transport.verify,
            extra_root_certificates: authorities.collect(),
            connect_timeout: Some(CONNECT),
            read_timeout: Some(self.silence * ANSWER),
            user_agent: concat!("kplay/", env!("CARGO_PKG_VERSION")),
            https_proxy: proxy.clone(),
            http_proxy: proxy,
            no_proxy,
            // Blobs are whole files: one request for each.
            use_monolithic_push: true,
            // Whether a token has ended is known here.
            default_token_expiration_secs: 24 * 60 * 60,
            ..ClientConfig::default()
        };
        // Not `Client::new`: it would go on with another configuration.
        let client = Client::try_from(config);
        let what = format!("the repository `{}`", self.reference.repository);
        let client = client.map_err(|error| upload_fault(error, registry, &what))?;
        let (token, auth) = match grant {
            Grant::Nothing => return Ok(client),
            Grant::Basic { username, password } => (
                RegistryTokenType::Basic(username.clone(), password.clone()),
                RegistryAuth::Anonymous,
            ),
            // Also as what tokens are made from: a token that looks broken is not taken by the store of tokens.
            Grant::Bearer { token, .. } => (
                RegistryTokenType::Bearer(RegistryToken::Token {
                    token: token.clone(),
                }),
                RegistryAuth::Bearer(token.clone()),
            ),
        };
        let name = self.name();
        client
            .store_auth_if_needed(name.resolve_registry(), &auth)
            .await;
        for operation in [RegistryOperation::Pull, RegistryOperation::Push] {
            client.tokens.insert(&name, operation, token.clone()).await;
        }
        Ok(client)
    }
}

/// What was stored may be without a place to find it.
fn taken(pushed: Result<String, OciDistributionError>) -> Result<(), OciDistributionError> {
    match pushed {
        Ok(_) | Err(OciDistributionError::RegistryNoLocationError) => Ok(()),
        Err(error) => Err(error),
    }
}

type Pieces = Result<Bytes, OciDistributionError>;

/// A file's bytes from its start. Reading is from the page cache, which the file was written to just now.
fn pieces(
    blob: &Blob,
    sent: Sent,
) -> Result<impl Stream<Item = Pieces> + Send + 'static, OciDistributionError> {
    let mut file = blob
        .file
        .try_clone()
        .map_err(OciDistributionError::IoError)?;
    file.rewind().map_err(OciDistributionError::IoError)?;
    Ok(futures_util::stream::unfold(
        (file, sent),
        |(mut file, sent)| async move {
            let piece = read_piece(&mut file).transpose()?;
            if let Ok(piece) = &piece {
                sent(piece.len() as u64);
            }
            Some((piece.map_err(OciDistributionError::IoError), (file, sent)))
        },
    ))
}

fn read_piece(file: &mut File) -> io::Result<Option<Bytes>> {
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(length) => {
                piece.truncate(length);
                return Ok(Some(piece.into()));
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
