//! The places of an image, its mirrors and its own registry, which stand in for each other: where one fails, the next is
//! asked, and keeps being asked. Digests make sure that it is the same image.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::{Chunk, Error, Fault, Fetched, Repository, Taken};
use crate::image::digest::Digest;
use crate::image::manifest::Descriptor;
use crate::image::pull::PullOptions;
use crate::image::registries::Endpoint;
use crate::model::cause::chain;
use crate::model::reference::Reference;

/// Where an image is pulled from.
pub(in super::super) struct Sources<'a> {
    image: &'a Reference,
    options: &'a PullOptions,
    places: Vec<Place>,
    /// The place to ask first; those before it have failed.
    current: Cell<usize>,
}

struct Place {
    endpoint: Endpoint,
    /// Connected when it is first needed.
    repository: OnceCell<Repository>,
    /// Why it is not asked any more.
    fault: RefCell<Option<Fault>>,
}

/// Which places the bytes of a blob came from.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Origin {
    first: usize,
    last: usize,
}

impl<'a> Sources<'a> {
    /// The places of an image, of which there is at least one.
    pub(in super::super) fn new(
        image: &'a Reference,
        endpoints: Vec<Endpoint>,
        options: &'a PullOptions,
    ) -> Self {
        let place = |endpoint| Place {
            endpoint,
            repository: OnceCell::new(),
            fault: RefCell::default(),
        };
        Self {
            image,
            options,
            places: endpoints.into_iter().map(place).collect(),
            current: Cell::new(0),
        }
    }

    /// The manifest or index of a digest, or else of the image.
    pub(in super::super) async fn manifest(
        &self,
        digest: Option<&Digest>,
    ) -> Result<Fetched, Error> {
        self.ask(async |repository| repository.manifest(digest).await)
            .await
    }

    /// A small blob, verified.
    pub(in super::super) async fn small_blob(
        &self,
        blob: &Descriptor,
        most: u64,
    ) -> Result<Vec<u8>, Error> {
        self.ask(async |repository| repository.small_blob(blob, most).await)
            .await
    }

    /// Gives a blob's bytes to `take`, in order, each once, whatever happens to connections and places. They are not
    /// verified. Ends early without an error when `take` says so, or when the registry has no more.
    pub(in super::super) async fn blob<T, F>(
        &self,
        blob: &Descriptor,
        mut take: T,
    ) -> Result<Origin, Error>
    where
        T: FnMut(Chunk) -> F,
        F: Future<Output = Taken>,
    {
        let (mut received, mut first) = (0, None);
        let mut at = self.current.get();
        loop {
            let before = received;
            let asked = match self.repository(at).await {
                Ok(repository) => repository.blob(blob, &mut received, &mut take).await,
                Err(fault) => Err(fault),
            };
            if received > before {
                first = first.or(Some(at));
            }
            match asked {
                Ok(()) => {
                    let first = first.unwrap_or(at);
                    return Ok(Origin { first, last: at });
                }
                Err(fault) => at = self.next(at, fault)?,
            }
        }
    }

    /// Takes note that a blob's bytes were wrong. Whether it may be asked for again.
    pub(in super::super) fn wrong(&self, origin: Origin, blob: &Descriptor) -> bool {
        if origin.first < origin.last {
            // The last place may have been right, and is asked for all of it.
            return true;
        }
        let what = format!("the blob `{}`", blob.digest);
        self.next(origin.last, Fault::Digest { what }).is_ok()
    }

    async fn ask<T>(&self, get: impl AsyncFn(&Repository) -> Result<T, Fault>) -> Result<T, Error> {
        let mut at = self.current.get();
        loop {
            let asked = match self.repository(at).await {
                Ok(repository) => get(repository).await,
                Err(fault) => Err(fault),
            };
            match asked {
                Ok(got) => return Ok(got),
                Err(fault) => at = self.next(at, fault)?,
            }
        }
    }

    async fn repository(&self, at: usize) -> Result<&Repository, Fault> {
        let place = &self.places[at];
        let connect = || Repository::connect(&place.endpoint, self.options, self.waits(at));
        place.repository.get_or_try_init(connect).await
    }

    /// Where there is somebody else to ask, waiting is short.
    fn waits(&self, at: usize) -> &'static [Duration] {
        let waits = self.options.waits;
        match waits.get(..1) {
            Some(short) if at + 1 < self.places.len() => short,
            _ => waits,
        }
    }

    /// The place after one that failed; without one, why there is no more.
    fn next(&self, at: usize, fault: Fault) -> Result<usize, Error> {
        let fail = |source| Error {
            image: self.image.to_string(),
            source,
        };
        let place = |place: &Place| {
            let Reference {
                registry,
                repository,
                ..
            } = &place.endpoint.reference;
            format!("{registry}/{repository}")
        };
        if at + 1 < self.places.len() {
            let from = place(&self.places[at]);
            tracing::warn!(image = %self.image, from, fault = chain(&fault), "the next place is asked");
            self.places[at].fault.replace(Some(fault));
            let current = self.current.get().max(at + 1);
            self.current.set(current);
            return Ok(current);
        }
        let mut faults: Vec<(String, Fault)> = self.places[..at]
            .iter()
            .filter_map(|failed| Some((place(failed), failed.fault.take()?)))
            .collect();
        if faults.is_empty() {
            return Err(fail(fault));
        }
        faults.push((place(&self.places[at]), fault));
        Err(fail(Fault::Everywhere(faults)))
    }
}
