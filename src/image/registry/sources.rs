//! The places of an image: of one that is pushed, its registry; of one that is pulled, its mirrors and its own registry,
//! which stand in for each other: where one fails, the next is asked, and keeps being asked. Digests make sure that it
//! is the same image. Each gets its own credentials only.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::tries::{Patience, Tell, Then, Trouble};
use super::{Error, Fault, Fetched, Purpose, Repository, Taken};
use crate::image::auth::{self, Login};
use crate::image::digest::Digest;
use crate::image::manifest::Descriptor;
use crate::image::pull::PullOptions;
use crate::image::registries::Endpoint;
use crate::model::cause::chain;
use crate::model::reference::Reference;

/// Where an image is pulled from.
pub(in super::super) struct Sources<'a> {
    image: &'a Reference,
    /// `credential-helpers`.
    helpers: &'a [String],
    options: &'a PullOptions,
    purpose: Purpose,
    pub(super) tell: Tell<'a>,
    places: Vec<Place>,
    /// The place to ask first; those before it have failed.
    current: Cell<usize>,
}

struct Place {
    endpoint: Endpoint,
    /// All as whom it can be asked, of whom there is at least one; known when it is first needed.
    askers: OnceCell<Vec<Asker>>,
    /// As whom it is asked first; those before were refused.
    asker: Cell<usize>,
    /// Why it is not asked any more.
    fault: RefCell<Option<Fault>>,
}

struct Asker {
    login: Option<Login>,
    /// Connected when it is first needed.
    repository: OnceCell<Repository>,
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
        helpers: &'a [String],
        options: &'a PullOptions,
        purpose: Purpose,
        tell: Tell<'a>,
    ) -> Self {
        let place = |endpoint| Place {
            endpoint,
            askers: OnceCell::new(),
            asker: Cell::new(0),
            fault: RefCell::default(),
        };
        Self {
            image,
            helpers,
            options,
            purpose,
            tell,
            places: endpoints.into_iter().map(place).collect(),
            current: Cell::new(0),
        }
    }

    /// The digest that the image has now, if its registry says so without giving it.
    pub(in super::super) async fn digest(&self) -> Result<Option<Digest>, Error> {
        self.ask(async |repository| repository.digest(self.tell).await)
            .await
    }

    /// The manifest or index of a digest, or else of the image.
    pub(in super::super) async fn manifest(
        &self,
        digest: Option<&Digest>,
    ) -> Result<Fetched, Error> {
        self.ask(async |repository| repository.manifest(digest, self.tell).await)
            .await
    }

    /// A small blob, verified.
    pub(in super::super) async fn small_blob(
        &self,
        blob: &Descriptor,
        most: u64,
    ) -> Result<Vec<u8>, Error> {
        self.ask(async |repository| repository.small_blob(blob, most, self.tell).await)
            .await
    }

    /// Gives a blob's bytes to `take`, in order, each once, whatever happens to connections and places. They are not
    /// verified. Ends early without an error when `take` says so.
    pub(in super::super) async fn blob<T, F>(
        &self,
        blob: &Descriptor,
        mut take: T,
    ) -> Result<Origin, Error>
    where
        T: FnMut(Bytes) -> F,
        F: Future<Output = Taken>,
    {
        let (mut received, mut first) = (0, None);
        let mut at = self.current.get();
        loop {
            let before = received;
            let get = async |repository: &Repository| {
                let (received, take) = (&mut received, &mut take);
                repository.blob(blob, received, take, self.tell).await
            };
            let asked = self.ask_place(at, get).await;
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

    pub(super) async fn ask<T>(
        &self,
        get: impl AsyncFn(&Repository) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let mut at = self.current.get();
        loop {
            match self.ask_place(at, &get).await {
                Ok(got) => return Ok(got),
                Err(fault) => at = self.next(at, fault)?,
            }
        }
    }

    /// Asks one place with all credentials that there are for it, until those of one are enough.
    async fn ask_place<T>(
        &self,
        at: usize,
        mut get: impl AsyncFnMut(&Repository) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let place = &self.places[at];
        let find = || self.askers(&place.endpoint);
        let askers = place.askers.get_or_try_init(find).await?;
        let mut number = place.asker.get();
        loop {
            let Asker { login, repository } = &askers[number];
            let connect = || {
                let (login, patience) = (login.as_ref(), self.patience(at));
                let (options, purpose) = (self.options, self.purpose);
                Repository::connect(
                    &place.endpoint,
                    login,
                    options,
                    purpose,
                    patience,
                    self.tell,
                )
            };
            let asked = match repository.get_or_try_init(connect).await {
                Ok(repository) => get(repository).await,
                Err(fault) => Err(fault),
            };
            match asked {
                Err(Fault::Unauthorized { .. }) if number + 1 < askers.len() => {
                    number = place.asker.get().max(number + 1);
                    place.asker.set(number);
                }
                other => return other,
            }
        }
    }

    /// As whom a place is asked: what is kept for its own server, or nobody.
    async fn askers(&self, endpoint: &Endpoint) -> Result<Vec<Asker>, Fault> {
        let mut keychain = self.options.keychain.clone();
        if endpoint.mirror {
            // What was given is for the image's own registry.
            keychain.given = None;
        }
        let (helpers, reference) = (self.helpers.to_vec(), endpoint.reference.clone());
        // A helper may take its time.
        let find = move || keychain.find(&reference.registry, &reference.repository, &helpers);
        let found = tokio::task::spawn_blocking(find).await;
        let found = found.unwrap_or_else(|e| Err(auth::Error::Thread(e.into())));
        let found = found.map_err(Fault::Credentials)?.into_iter().map(Some);
        let mut logins: Vec<Option<Login>> = found.collect();
        if logins.is_empty() {
            logins.push(None);
        }
        let asker = |login| Asker {
            login,
            repository: OnceCell::new(),
        };
        Ok(logins.into_iter().map(asker).collect())
    }

    /// Where there is somebody else to ask, waiting is short.
    fn patience(&self, at: usize) -> Patience {
        match at + 1 < self.places.len() {
            true => Patience::with_one_of_several(self.options.waits),
            false => Patience::with_the_last(self.options.waits),
        }
    }

    /// The place after one that failed; without one, why there is no more.
    fn next(&self, at: usize, fault: Fault) -> Result<usize, Error> {
        let fail = |source| Error {
            purpose: self.purpose,
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
            (self.tell)(Trouble {
                fault: format!("`{from}`: {}", chain(&fault)),
                then: Then::Elsewhere,
            });
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
