//! Pulls an image: manifest, configuration, and the layers that are missing, three at a time, the largest first.
//!
//! The caller's runtime only receives bytes; each layer is inflated and written by two threads of its own.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::auth::Keychain;
use super::digest::{self, Digest};
use super::error::{Class, Error};
use super::layer;
use super::manifest::{self, Configuration, Descriptor, Document, MOST_CONFIG_BYTES, Manifest};
use super::platform::Platform;
use super::proxy::Proxies;
use super::registries::RegistriesConf;
use super::registry::{Chunk, Fetched, Purpose, Sources, Taken, TlsVerify};
use super::store::{Hold, NewImage, Store};
use crate::model::cause::chain;
use crate::model::image::Image;
use crate::model::reference::{ImageName, Reference};

/// Layers at a time: enough to keep two processors busy while one layer waits for the network.
const LAYERS_AT_ONCE: usize = 3;
/// Pieces of a layer that wait to be inflated, each some KiB as the network gave it.
const WAITING_CHUNKS: usize = 64;
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
}

/// What a pull has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullProgress {
    /// It is known what the image is: how many layers it has, how many are missing, and their compressed bytes.
    Resolved {
        layers: usize,
        missing: usize,
        bytes: u64,
    },
    /// So many bytes more came of this layer.
    Received { layer: String, bytes: u64 },
    /// A layer is there, by this pull or by another one at the same time.
    LayerDone { layer: String },
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
    store.sweep()?;
    let pull = Pull {
        store,
        reference,
        options,
        progress,
        sources: Sources::new(reference, endpoints, helpers, options, Purpose::Pull),
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
        (self.progress)(PullProgress::Resolved {
            layers: manifest.layers.len(),
            missing: missing.len(),
            bytes: missing
                .iter()
                .map(|layer| layer.blob.size)
                .fold(0, u64::saturating_add),
        });
        let fetches = missing.iter().map(|layer| self.fetch_layer(layer));
        let mut fetches = futures_util::stream::iter(fetches).buffer_unordered(LAYERS_AT_ONCE);
        while let Some(fetched) = fetches.next().await {
            // The first error ends the others: what they receive goes nowhere.
            fetched?;
        }
        Ok(())
    }

    async fn fetch_layer(&self, layer: &Wanted) -> Result<(), Error> {
        loop {
            let (store, chain_id) = (self.store.clone(), layer.chain_id.clone());
            // Another process may be at it; then this waits for the other, and finds the layer.
            let claim = tokio::task::spawn_blocking(move || store.claim_layer(&chain_id));
            let claim = claim.await.map_err(|e| Error::Worker(e.into()))??;
            if self.store.has_layer(&layer.chain_id) {
                break;
            }
            let (send, receive) = mpsc::channel(WAITING_CHUNKS);
            let unpacked = self.unpack(layer, claim, receive);
            let take = |chunk: Chunk| {
                let bytes = chunk.as_ref().len() as u64;
                let digest = layer.blob.digest.to_string();
                (self.progress)(PullProgress::Received {
                    layer: digest,
                    bytes,
                });
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
        (self.progress)(PullProgress::LayerDone {
            layer: layer.blob.digest.to_string(),
        });
        Ok(())
    }

    /// Starts unpacking what comes through the channel.
    fn unpack(
        &self,
        layer: &Wanted,
        claim: crate::sys::fs::Lock,
        receive: mpsc::Receiver<Chunk>,
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
                chunk: None,
                at: 0,
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
    receive: mpsc::Receiver<Chunk>,
    chunk: Option<Chunk>,
    at: usize,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(chunk) = &self.chunk {
                let bytes = &chunk.as_ref()[self.at..];
                if !bytes.is_empty() {
                    let length = bytes.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&bytes[..length]);
                    self.at += length;
                    return Ok(length);
                }
            }
            self.chunk = self.receive.blocking_recv();
            self.at = 0;
            if self.chunk.is_none() {
                return Ok(0);
            }
        }
    }
}
