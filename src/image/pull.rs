//! Pulls an image: manifest, configuration, and the layers that are missing, several at a time, the largest first.
//!
//! The caller's runtime only receives bytes; each layer is inflated and written by two threads of its own, and what
//! waits between them is bounded. Who unpacks a layer holds its lock in the store: two pulls that want the same do it
//! once, and when one is killed the other takes over.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::auth::Keychain;
use super::digest::{self, Digest};
use super::error::{Class, Error};
use super::layer;
use super::manifest::{self, Configuration, Descriptor, Document, MOST_CONFIG_BYTES, Manifest};
use super::platform::Platform;
use super::proxy::Proxies;
use super::registries::RegistriesConf;
use super::registry::{Fetched, Purpose, Sources, Taken, TlsVerify, Trouble};
use super::store::{Hold, NewImage, Store};
use crate::model::cause::chain;
use crate::model::image::Image;
use crate::model::reference::{ImageName, Reference};
use crate::sys::fs;
use crate::sys::fs::Lock;

/// Pieces of a layer that wait to be inflated, each of up to 400 KiB as the network gave it.
const WAITING_CHUNKS: usize = 8;
/// Indexes within indexes that are followed.
const MOST_NESTED: usize = 2;

/// How to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    pub platform: Platform,
    pub tls_verify: TlsVerify,
    /// Where names lead to.
    pub registries: Arc<RegistriesConf>,
    /// Where credentials are looked for.
    pub keychain: Keychain,
    pub proxies: Proxies,
    /// How long to wait before each further try when the registry fails or a connection breaks; usually
    /// [`RETRY_WAITS`](super::RETRY_WAITS). They start anew when bytes came in between.
    pub waits: &'static [Duration],
    /// How long a registry may say nothing in the middle of an answer; usually [`SILENCE`](super::SILENCE).
    pub silence: Duration,
    /// Shared by all pulls of a command.
    pub slots: Slots,
}

/// How many layers come at a time.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Semaphore>);

impl Slots {
    /// Enough to keep two processors busy while some layers wait for the network.
    pub const USUAL: usize = 4;

    /// Slots for so many layers.
    #[must_use]
    pub fn new(layers: usize) -> Self {
        Self(Arc::new(Semaphore::new(layers)))
    }

    async fn take(&self) -> Result<OwnedSemaphorePermit, Error> {
        let taken = Arc::clone(&self.0).acquire_owned().await;
        taken.map_err(|e| Error::Worker(io::Error::other(e)))
    }
}

/// What a pull has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullProgress {
    /// It is known what the image is.
    Resolved {
        layers: usize,
        missing: usize,
        /// Compressed bytes of those that are missing.
        bytes: u64,
        /// Compressed bytes of all of it.
        size: u64,
    },
    /// Another pull is at this layer.
    Waiting { layer: String },
    /// A layer of so many compressed bytes is asked for.
    Started { layer: String, bytes: u64 },
    /// So many bytes more came of this layer.
    Received { layer: String, bytes: u64 },
    /// A layer is there, by this pull or by another one at the same time.
    LayerDone { layer: String },
    /// Something went wrong, and is tried again.
    Trouble(Trouble),
}

/// Pulls an image into the store, where it replaces what had the name. Layers that are there are not fetched again. A
/// short name is stored as what it was completed to.
///
/// Runs on any tokio runtime with time and network.
///
/// # Errors
/// Why not; the store then has nothing new but layers that are whole.
pub async fn pull(
    store: &Store,
    image: &ImageName,
    options: &PullOptions,
    progress: &dyn Fn(PullProgress),
) -> Result<Image, Error> {
    let mut names = options.registries.names(image)?;
    if names.len() > 1 {
        for name in &names {
            // What was found once is brought up to date, as by podman, and not looked for elsewhere.
            if store.find(name)?.is_some() {
                names = vec![name.clone()];
                break;
            }
        }
    }
    let mut failed = Vec::new();
    for name in &names {
        match pull_named(store, name, options, progress).await {
            Err(error) if names.len() > 1 && error.is_of_name() => {
                tracing::info!(image = %name, error = chain(&error), "the next registry is searched");
                failed.push(error);
            }
            other => return other,
        }
    }
    let name = image.short().unwrap_or_default().to_owned();
    Err(Error::Nowhere { name, failed })
}

/// Pulls the image of a whole name.
async fn pull_named(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    progress: &dyn Fn(PullProgress),
) -> Result<Image, Error> {
    if reference.registry == "kplay.local" {
        return Err(Error::NotEmbedded(reference.to_string()));
    }
    let endpoints = options.registries.endpoints(reference)?;
    let helpers = options.registries.credential_helpers()?;
    let tell = |trouble| progress(PullProgress::Trouble(trouble));
    let pull = Pull {
        store,
        reference,
        options,
        progress,
        sources: Sources::new(reference, endpoints, helpers, options, Purpose::Pull, &tell),
        hold: Arc::new(store.hold()?),
        workers: RefCell::default(),
    };
    let pulled = pull.run().await;
    // Those of a failed pull still remove what they wrote.
    for worker in pull.workers.take() {
        worker.await.map_err(|e| Error::Worker(e.into()))?;
    }
    pulled.map_err(|error| error.naming_no_space(store.dir()))
}

struct Pull<'a> {
    store: &'a Store,
    reference: &'a Reference,
    options: &'a PullOptions,
    progress: &'a dyn Fn(PullProgress),
    sources: Sources<'a>,
    hold: Arc<Hold>,
    workers: RefCell<Vec<JoinHandle<()>>>,
}

/// A layer that the store may not have.
struct Wanted {
    blob: Descriptor,
    diff_id: Digest,
    chain_id: Digest,
}

impl Pull<'_> {
    async fn run(&self) -> Result<Image, Error> {
        if let Some(image) = self.unchanged().await? {
            return Ok(image);
        }
        let (digests, fetched, manifest) = self.resolve().await?;
        let config = self
            .sources
            .small_blob(&manifest.config, MOST_CONFIG_BYTES)
            .await?;
        let configuration = Configuration::parse(&config).map_err(|e| self.unusable(e))?;
        configuration
            .check_layers(manifest.layers.len())
            .map_err(|e| self.unusable(e))?;
        configuration
            .check_platform(&self.options.platform)
            .map_err(|e| self.unusable(e))?;
        self.fetch_layers(&manifest, &configuration).await?;
        let image = match self.store.image(&manifest.config.digest)? {
            Some(image) => image,
            None => self.store.add_image(&NewImage {
                config: &config,
                configuration: &configuration,
                manifest: Some(&fetched.bytes),
                embedded: false,
            })?,
        };
        for name in self.names(digests) {
            self.store.add_reference(&name, &manifest.config.digest)?;
        }
        Ok(image)
    }

    /// The image that is there, if the name still means it: then nothing is transferred.
    async fn unchanged(&self) -> Result<Option<Image>, Error> {
        if self.reference.digest.is_some() || self.store.find(self.reference)?.is_none() {
            return Ok(None);
        }
        let Some(digest) = self.sources.digest().await? else {
            return Ok(None);
        };
        let by_digest = Reference {
            tag: None,
            digest: Some(digest.to_string()),
            ..self.reference.clone()
        };
        let Some(image) = self.store.find(&by_digest)? else {
            return Ok(None);
        };
        let id = Digest::parse(&image.id).map_err(|_| Error::NotStored(image.id.clone()))?;
        let Platform {
            os,
            architecture,
            variant,
        } = &self.options.platform;
        // Of an index, that for another platform may be there.
        let fits = self.store.record(&id)?.is_some_and(|record| {
            let own = record.platform;
            own.os == *os
                && own.architecture == *architecture
                && (variant.is_empty() || own.variant == *variant)
        });
        if !fits {
            return Ok(None);
        }
        (self.progress)(PullProgress::Resolved {
            layers: image.layers.len(),
            missing: 0,
            bytes: 0,
            size: self.size(&id)?,
        });
        self.store.add_reference(self.reference, &id)?;
        Ok(Some(image))
    }

    /// How many bytes a stored image had on its way, as its manifest says.
    fn size(&self, id: &Digest) -> Result<u64, Error> {
        let path = self.store.image_path(id).join("manifest.json");
        let bytes = fs::read_if_there(&path)?.unwrap_or_default();
        let Ok(Document::Image(manifest)) = Document::parse(&bytes) else {
            return Ok(0);
        };
        let layers = manifest.layers.iter().map(|layer| layer.size);
        Ok(layers.fold(manifest.config.size, u64::saturating_add))
    }

    /// Follows indexes to the image for the platform. Returns the digests on the way as well.
    async fn resolve(&self) -> Result<(Vec<Digest>, Fetched, Manifest), Error> {
        let mut wanted = None;
        let mut digests = Vec::new();
        loop {
            let fetched = self.sources.manifest(wanted.as_ref()).await?;
            digests.push(fetched.digest.clone());
            match Document::parse(&fetched.bytes).map_err(|e| self.unusable(e))? {
                Document::Image(manifest) => return Ok((digests, fetched, manifest)),
                Document::Index(_) if digests.len() > MOST_NESTED => {
                    return Err(self.unusable(manifest::Error::Nested));
                }
                Document::Index(entries) => {
                    let entry = manifest::choose(&entries, &self.options.platform);
                    let entry = entry.map_err(|e| self.unusable(e))?;
                    wanted = Some(entry.descriptor.digest.clone());
                }
            }
        }
    }

    /// The names that the image gets: the one asked for, and the repository with each digest.
    fn names(&self, digests: Vec<Digest>) -> Vec<Reference> {
        let by_digest = digests.into_iter().map(|digest| Reference {
            tag: None,
            digest: Some(digest.to_string()),
            ..self.reference.clone()
        });
        let asked = Some(self.reference.clone()).filter(|reference| reference.digest.is_none());
        asked.into_iter().chain(by_digest).collect()
    }

    async fn fetch_layers(
        &self,
        manifest: &Manifest,
        configuration: &Configuration,
    ) -> Result<(), Error> {
        let chain_ids = digest::chain_ids(&configuration.diff_ids);
        let all = manifest
            .layers
            .iter()
            .zip(&configuration.diff_ids)
            .zip(chain_ids);
        let mut missing: BTreeMap<Digest, Wanted> = BTreeMap::new();
        for ((blob, diff_id), chain_id) in all {
            if !self.store.has_layer(&chain_id) {
                let (blob, diff_id) = (blob.clone(), diff_id.clone());
                missing.insert(
                    chain_id.clone(),
                    Wanted {
                        blob,
                        diff_id,
                        chain_id,
                    },
                );
            }
        }
        let mut missing: Vec<Wanted> = missing.into_values().collect();
        missing.sort_by_key(|layer| std::cmp::Reverse(layer.blob.size));
        self.check_space(&missing)?;
        let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
        (self.progress)(PullProgress::Resolved {
            layers: manifest.layers.len(),
            missing: missing.len(),
            bytes: sum(&mut missing.iter().map(|layer| layer.blob.size)),
            size: sum(&mut manifest.layers.iter().map(|layer| layer.size))
                .saturating_add(manifest.config.size),
        });
        // Slots are given in the order in which they are asked for.
        let fetches = missing.iter().map(|layer| self.fetch_layer(layer));
        let mut fetches: FuturesUnordered<_> = fetches.collect();
        while let Some(fetched) = fetches.next().await {
            // The first error ends the others: what they receive goes nowhere.
            fetched?;
        }
        Ok(())
    }

    /// Checks that the disk could hold at least what comes: who claims more than that is not waited for.
    fn check_space(&self, missing: &[Wanted]) -> Result<(), Error> {
        let sizes = missing.iter().map(|layer| layer.blob.size);
        let wanted = sizes.fold(0, u64::saturating_add);
        if wanted <= fs::free_bytes(self.store.dir())? {
            return Ok(());
        }
        Err(Error::NoSpace {
            dir: self.store.dir().to_owned(),
            source: format!("the layers of `{}` have {wanted} bytes", self.reference).into(),
        })
    }

    async fn fetch_layer(&self, layer: &Wanted) -> Result<(), Error> {
        let digest = layer.blob.digest.to_string();
        let received = |bytes: u64| PullProgress::Received {
            layer: digest.clone(),
            bytes,
        };
        loop {
            let (claim, _slot) = self.turn(layer).await?;
            if self.store.has_layer(&layer.chain_id) {
                break;
            }
            (self.progress)(PullProgress::Started {
                layer: digest.clone(),
                bytes: layer.blob.size,
            });
            let (send, receive) = mpsc::channel(WAITING_CHUNKS);
            let unpacked = self.unpack(layer, claim, receive);
            let take = |chunk: Bytes| {
                (self.progress)(received(chunk.len() as u64));
                let send = &send;
                async move {
                    match send.send(chunk).await {
                        Ok(()) => Taken::More,
                        // The unpacking failed, and says why.
                        Err(_) => Taken::Stop,
                    }
                }
            };
            let received = self.sources.blob(&layer.blob, take).await;
            drop(send);
            let unpacked = unpacked
                .await
                .map_err(|e| Error::Worker(io::Error::other(e)))?;
            // Without all bytes, unpacking fails too.
            let origin = received?;
            match unpacked {
                Ok(()) => break,
                Err(error) => {
                    let again =
                        error.class() == Class::Corrupt && self.sources.wrong(origin, &layer.blob);
                    if !again {
                        return Err(error);
                    }
                }
            }
        }
        (self.progress)(PullProgress::LayerDone { layer: digest });
        Ok(())
    }

    /// The right to unpack a layer, and a slot to do it in. The layer may be there by then.
    ///
    /// Who waits for another pull has no slot, and who has one never waits for another pull.
    async fn turn(&self, layer: &Wanted) -> Result<(Lock, OwnedSemaphorePermit), Error> {
        let slot = self.options.slots.take().await?;
        if let Some(claim) = self.store.try_claim_layer(&layer.chain_id)? {
            return Ok((claim, slot));
        }
        drop(slot);
        (self.progress)(PullProgress::Waiting {
            layer: layer.blob.digest.to_string(),
        });
        let (done, claimed) = oneshot::channel();
        let (store, chain_id) = (self.store.clone(), layer.chain_id.clone());
        // Not one of the runtime's threads: those are waited for, also when this pull is given up.
        std::thread::Builder::new()
            .name("claim".into())
            .spawn(move || done.send(store.claim_layer(&chain_id)).ok())
            .map_err(Error::Worker)?;
        let claim = claimed
            .await
            .map_err(|e| Error::Worker(io::Error::other(e)))??;
        Ok((claim, self.options.slots.take().await?))
    }

    /// Starts unpacking what comes through the channel.
    fn unpack(
        &self,
        layer: &Wanted,
        claim: Lock,
        receive: mpsc::Receiver<Bytes>,
    ) -> oneshot::Receiver<Result<(), Error>> {
        let (done, unpacked) = oneshot::channel();
        let (store, hold) = (self.store.clone(), Arc::clone(&self.hold));
        let (image, blob, chain_id) = (
            self.reference.to_string(),
            layer.blob.clone(),
            layer.chain_id.clone(),
        );
        let expected = layer::Expected {
            blob: Some((blob.digest.clone(), blob.size)),
            diff_id: layer.diff_id.clone(),
            most_bytes: None,
        };
        let worker = tokio::task::spawn_blocking(move || {
            let (_claim, _hold) = (claim, hold);
            let reader = ChunkReader {
                receive,
                chunk: Bytes::new(),
            };
            let added = store.add_layer(&chain_id, |place| {
                layer::unpack_verified(reader, &expected, place).map_err(|source| Error::Layer {
                    image,
                    layer: blob.digest,
                    source,
                })
            });
            // Nobody waits if another layer failed first.
            done.send(added).ok();
        });
        self.workers.borrow_mut().push(worker);
        unpacked
    }

    fn unusable(&self, source: manifest::Error) -> Error {
        let image = self.reference.to_string();
        Error::Manifest { image, source }
    }
}

/// Reads in a thread what the runtime receives.
struct ChunkReader {
    receive: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let length = bytes.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.receive.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, bytes: usize) {
        self.chunk.advance(bytes);
    }
}
