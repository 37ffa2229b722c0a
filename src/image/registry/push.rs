//! What a push asks a registry for, and how it differs from a pull.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use oci_client::errors::OciDistributionError;

use super::{Error, Fault, Repository, Sources, address};
use crate::image::digest::Digest;
use crate::image::export::Blob;
use crate::image::manifest::ManifestFormat;

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
    pub(super) fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

/// Bytes that are read from a file at a time.
const PIECE: usize = 128 << 10;

/// Told of bytes that are on their way.
pub(in crate::image) type Sent = Arc<dyn Fn(u64) + Send + Sync>;

impl Sources<'_> {
    /// Whether the repository has a blob.
    pub(in crate::image) async fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        self.ask(async |repository| repository.has_blob(digest).await)
            .await
    }

    /// Makes a blob of another repository of the registry one of this repository too; false if the registry does not.
    pub(in crate::image) async fn mount(&self, from: &str, digest: &Digest) -> Result<bool, Error> {
        self.ask(async |repository| repository.mount(from, digest).await)
            .await
    }

    /// Sends a blob.
    pub(in crate::image) async fn upload(&self, blob: &Blob, sent: &Sent) -> Result<(), Error> {
        self.ask(async |repository| repository.upload(blob, sent).await)
            .await
    }

    /// Sends a manifest, which gets the name that the sources are of.
    pub(in crate::image) async fn put_manifest(
        &self,
        manifest: &[u8],
        format: ManifestFormat,
    ) -> Result<(), Error> {
        self.ask(async |repository| repository.put_manifest(manifest, format).await)
            .await
    }
}

impl Repository {
    async fn has_blob(&self, digest: &Digest) -> Result<bool, Fault> {
        let what = format!("the blob `{digest}`");
        let head = || {
            self.ask(&what, |client| async move {
                let asked = client.blob_exists(&self.name, digest.as_str()).await;
                asked.map_err(with_status)
            })
        };
        match self.retry(head).await {
            Err(Fault::NotFound { .. }) => Ok(false),
            other => other,
        }
    }

    async fn mount(&self, from: &str, digest: &Digest) -> Result<bool, Fault> {
        let registry = address(&self.registry).to_owned();
        let source = oci_client::Reference::with_tag(registry, from.to_owned(), "latest".into());
        let source = &source;
        let mounted = self
            .ask(&format!("the blob `{digest}`"), |client| async move {
                client.mount_blob(&self.name, source, digest.as_str()).await
            })
            .await;
        match mounted {
            Ok(()) => Ok(true),
            // Whatever is wrong, sending it will do, or tell the same.
            Err(fault) => {
                tracing::debug!(%digest, from, ?fault, "the registry does not mount the blob");
                Ok(false)
            }
        }
    }

    async fn upload(&self, blob: &Blob, sent: &Sent) -> Result<(), Fault> {
        let what = format!("the blob `{}`", blob.digest);
        let put = || {
            self.ask(&what, |client| async move {
                let stream = pieces(blob, Arc::clone(sent))?;
                let (digest, size) = (blob.digest.as_str(), Some(blob.size));
                let pushed = client
                    .push_blob_stream(&self.name, stream, digest, size)
                    .await;
                taken(pushed)
            })
        };
        self.retry(put).await
    }

    async fn put_manifest(&self, manifest: &[u8], format: ManifestFormat) -> Result<(), Fault> {
        let what = format!("the repository `{}`", self.reference.repository);
        let put = || {
            self.ask(&what, |client| async move {
                let media_type = http::HeaderValue::from_static(format.media_type());
                let bytes = Bytes::copy_from_slice(manifest);
                let put = client
                    .push_manifest_raw(&self.name, bytes, media_type)
                    .await;
                taken(put)
            })
        };
        self.retry(put).await
    }
}

/// What was stored may be without a place to find it.
fn taken(pushed: Result<String, OciDistributionError>) -> Result<(), OciDistributionError> {
    match pushed {
        Ok(_) | Err(OciDistributionError::RegistryNoLocationError) => Ok(()),
        Err(error) => Err(with_status(error)),
    }
}

/// An answer that comes as a failed request, as the answer that it is.
fn with_status(error: OciDistributionError) -> OciDistributionError {
    let OciDistributionError::RequestError(request) = &error else {
        return error;
    };
    match request.status() {
        Some(status) => OciDistributionError::ServerError {
            code: status.as_u16(),
            url: request.url().map(ToString::to_string).unwrap_or_default(),
            message: String::new(),
        },
        None => error,
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
