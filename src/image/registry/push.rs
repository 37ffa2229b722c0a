//! What a push asks a registry for, and how it differs from a pull: `HEAD` tells what it has; a blob is begun with `POST`,
//! which answers where it is to be `PUT`; the manifest comes last.

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};

use super::onward::Place;
use super::request::{Request, Sent};
use super::tries::Tell;
use super::{Error, Fault, Repository, Session, Sources};
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
    pub(super) fn scope(self, repository: &str) -> String {
        let actions = match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        };
        format!("repository:{repository}:{actions}")
    }
}

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
        let place = self.place(&format!("blobs/{digest}"))?;
        let request = Request::new(Method::HEAD);
        let ask = async || self.ask_place(&place, &request, &what).await;
        match self.again(tell, ask).await {
            Ok(_) => Ok(true),
            Err(Fault::NotFound { .. }) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    async fn mount(&self, from: &str, digest: &Digest) -> Result<bool, Fault> {
        let mounted = async {
            let session = self.session_with(from).await?;
            let mut url = self.uploads()?;
            url.query_pairs_mut()
                .append_pair("mount", digest.as_str())
                .append_pair("from", from);
            let answer = self.answer(&Place::Own(url), &begin(), &session).await?;
            match answer.status() {
                StatusCode::CREATED => Ok(true),
                // It waits for the blob itself, which is not at hand.
                StatusCode::ACCEPTED => {
                    let place = self.place_of(self.led_to(&answer)?);
                    let request = Request::new(Method::DELETE);
                    self.answer(&place, &request, &session).await?;
                    Ok(false)
                }
                _ => {
                    let what = format!("the blob `{digest}`");
                    Err(self.refusal(answer, &what).await)
                }
            }
        };
        // Whatever is wrong, sending it will do, or tell the same.
        Ok(mounted.await.unwrap_or_else(|fault| {
            tracing::debug!(%digest, from, ?fault, "the registry does not mount the blob");
            false
        }))
    }

    /// A session that may read another repository of the registry, too.
    async fn session_with(&self, from: &str) -> Result<Session, Fault> {
        let own = self.session(None).await?;
        if !own.is_of_scopes {
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
        let begun = Place::Own(self.uploads()?);
        let put = Request::new(Method::PUT).header(CONTENT_TYPE, "application/octet-stream");
        let put = put.with_blob(blob, sent);
        let upload = async || {
            let answer = self.ask_place(&begun, &begin(), &what).await?;
            let mut url = self.led_to(&answer)?;
            let digest = blob.digest.as_str();
            url.query_pairs_mut().append_pair("digest", digest);
            let place = self.place_of(url);
            self.ask_place(&place, &put, &what).await.map(drop)
        };
        self.again(tell, upload).await
    }

    async fn put_manifest(
        &self,
        manifest: &[u8],
        format: ManifestFormat,
        tell: Tell<'_>,
    ) -> Result<(), Fault> {
        let what = format!("the repository `{}`", self.reference.repository);
        let tag = self.reference.tag.as_deref().unwrap_or("latest");
        let place = self.place(&format!("manifests/{tag}"))?;
        let put = Request::new(Method::PUT).header(CONTENT_TYPE, format.media_type());
        let put = put.with_bytes(manifest);
        let put = async || self.ask_place(&place, &put, &what).await.map(drop);
        self.again(tell, put).await
    }

    /// Where blobs are begun.
    fn uploads(&self) -> Result<Url, Fault> {
        self.url("blobs/uploads/")
    }

    /// Where what an answer began goes on. That may be at another server, which is not shown the grant then.
    fn led_to(&self, answer: &Response) -> Result<Url, Fault> {
        let place = answer.headers().get(LOCATION);
        let place = place.and_then(|place| answer.url().join(place.to_str().ok()?).ok());
        place.ok_or_else(|| Fault::Answer {
            registry: self.reference.registry.clone(),
            why: "it does not say where a blob is to be sent",
        })
    }

    fn place_of(&self, url: Url) -> Place {
        match url.origin() == self.base.origin() {
            true => Place::Own(url),
            false => Place::Elsewhere(url.into()),
        }
    }
}

/// Begins a blob. Some registries want to be told that nothing of it comes yet.
fn begin() -> Request<'static> {
    Request::new(Method::POST).header(CONTENT_LENGTH, "0")
}
