//! Pushes an image: the layers that the registry does not have, three at a time, the configuration, and the manifest last.
//!
//! A layer that the registry has as the blob that it came as is not packed at all: it stays that blob, also when
//! another repository of the registry has it. If all are so, the manifest stays the same to the byte.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::digest::Digest;
use super::error::Error;
use super::export::{Blob, Export, LayerCompression, exporting};
use super::manifest::{Descriptor, ManifestFormat, layer_type, translated};
use super::pull::PullOptions;
use super::records::LayerRecord;
use super::registry::{Purpose, Sent, Sources, Trouble};
use super::store::{Store, Temporary};
use crate::model::reference::Reference;
use crate::sys::beneath;
use crate::sys::stop::Stopped;

/// Layers at a time: while one is sent, others are compressed.
const LAYERS_AT_ONCE: usize = 3;

/// What is pushed.
#[derive(Clone, Copy, Debug)]
pub struct PushHow {
    /// The kind of the manifest; that of the image where nothing is said.
    pub format: Option<ManifestFormat>,
    pub compression: LayerCompression,
}

/// What a push has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushProgress {
    /// So many bytes more have to be sent.
    Packed { bytes: u64 },
    /// So many bytes more are on their way.
    Sent { bytes: u64 },
}

/// Pushes the image with this id, and returns the digest of the manifest that the registry has.
///
/// # Errors
/// The image is not there, cannot be made again, or the registry does not take it. Blobs that it took may stay.
pub async fn push(
    store: &Store,
    id: &str,
    to: &Reference,
    options: &PullOptions,
    how: &PushHow,
    progress: impl Fn(PushProgress) + Send + Sync + 'static,
) -> Result<Digest, Error> {
    let id = Digest::parse(id).map_err(|_| Error::NotStored(id.to_owned()))?;
    store.sweep()?;
    let _hold = store.hold()?;
    let endpoint = options.registries.push_endpoint(to)?;
    let helpers = options.registries.credential_helpers()?;
    let export = store.export(&id)?;
    let own = export.original.as_ref().map(|original| original.format);
    // An image without a manifest is one of `docker save`.
    let format = how.format.or(own).unwrap_or(ManifestFormat::Docker);
    // The log has it.
    let tell = |_: Trouble| {};
    let push = Push {
        store,
        to,
        sources: Sources::new(to, vec![endpoint], helpers, options, Purpose::Push, &tell),
        spools: Arc::new(store.temporary()?),
        elsewhere: elsewhere(store, &id, to)?,
        export: &export,
        format,
        compression: match format {
            ManifestFormat::Oci => how.compression,
            ManifestFormat::Docker => LayerCompression::Gzip,
        },
        progress: Arc::new(progress),
        next: AtomicU64::new(0),
    };
    let pushed = tokio::select! {
        pushed = push.run() => pushed,
        stopped = store.stop().wanted() => Err(stopped.map_or_else(Error::Worker, |()| Stopped.into())),
    };
    pushed.map_err(|error| store.naming_stop(error))
}

/// Other repositories of the same registry that the image has names in.
fn elsewhere(store: &Store, id: &Digest, to: &Reference) -> Result<Vec<String>, Error> {
    let mut found: Vec<String> = store
        .references()?
        .into_iter()
        .filter(|record| record.image == *id && record.reference.registry == to.registry)
        .map(|record| record.reference.repository)
        .filter(|repository| *repository != to.repository)
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

struct Push<'a> {
    store: &'a Store,
    to: &'a Reference,
    sources: Sources<'a>,
    /// Who packs a layer keeps it, also when nobody waits for that any more.
    spools: Arc<Temporary>,
    elsewhere: Vec<String>,
    export: &'a Export,
    format: ManifestFormat,
    compression: LayerCompression,
    progress: Arc<dyn Fn(PushProgress) + Send + Sync>,
    next: AtomicU64,
}

/// A layer that the registry has now.
struct Layer {
    described: Value,
    /// Whether it is the blob that the image came with.
    original: bool,
}

impl Push<'_> {
    async fn run(&self) -> Result<Digest, Error> {
        let numbers = 0..self.export.record.layers.len();
        let layers = numbers.map(|number| self.layer(number));
        let mut layers = futures_util::stream::iter(layers).buffered(LAYERS_AT_ONCE);
        let mut done = Vec::new();
        while let Some(layer) = layers.next().await {
            done.push(layer?);
        }
        self.config().await?;
        let manifest = match &self.export.original {
            Some(original)
                if original.format == self.format && done.iter().all(|layer| layer.original) =>
            {
                original.bytes.clone()
            }
            _ => {
                let layers = done.into_iter().map(|layer| layer.described);
                self.format.manifest(self.export, layers.collect())
            }
        };
        self.sources.put_manifest(&manifest, self.format).await?;
        Ok(Digest::of(&manifest))
    }

    async fn layer(&self, number: usize) -> Result<Layer, Error> {
        let layer = &self.export.record.layers[number];
        let original = self.export.original.as_ref();
        let original = original.and_then(|original| original.manifest.layers.get(number));
        if let Some(blob) = original
            && let Some(media_type) = translated(self.format, &blob.media_type)
            && self.is_there(blob).await?
        {
            return Ok(Layer {
                described: described(media_type, &blob.digest, blob.size),
                original: true,
            });
        }
        let blob = self.pack(layer).await?;
        let media_type = layer_type(self.format, self.compression);
        let described = described(media_type, &blob.digest, blob.size);
        if !self.sources.has_blob(&blob.digest).await? {
            self.send(&blob).await?;
        }
        Ok(Layer {
            described,
            original: false,
        })
    }

    /// Whether the repository has a blob, now or already.
    async fn is_there(&self, blob: &Descriptor) -> Result<bool, Error> {
        if self.sources.has_blob(&blob.digest).await? {
            return Ok(true);
        }
        for from in &self.elsewhere {
            if self.sources.mount(from, &blob.digest).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn pack(&self, layer: &LayerRecord) -> Result<Blob, Error> {
        let (store, layer) = (self.store.clone(), layer.clone());
        let (path, compression) = (self.spool(), self.compression);
        let spools = Arc::clone(&self.spools);
        let pack = move || {
            let packed = store.pack(&layer, compression, &path);
            drop(spools);
            packed
        };
        let packed = tokio::task::spawn_blocking(pack).await;
        packed.map_err(|e| Error::Worker(e.into()))?
    }

    async fn config(&self) -> Result<(), Error> {
        let (config, digest) = (&self.export.config, &self.export.record.id);
        if self.sources.has_blob(digest).await? {
            return Ok(());
        }
        let path = self.spool();
        let file = spooled(&path, config)
            .map_err(|source| exporting(&self.to.to_string())(super::ExportError::Write(source)))?;
        let blob = Blob {
            file: Arc::new(file),
            digest: digest.clone(),
            size: config.len() as u64,
        };
        self.send(&blob).await
    }

    async fn send(&self, blob: &Blob) -> Result<(), Error> {
        (self.progress)(PushProgress::Packed { bytes: blob.size });
        let progress = Arc::clone(&self.progress);
        let sent: Sent = Arc::new(move |bytes| progress(PushProgress::Sent { bytes }));
        Ok(self.sources.upload(blob, &sent).await?)
    }

    fn spool(&self) -> std::path::PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.spools.path().join(number.to_string())
    }
}

fn spooled(path: &Path, bytes: &[u8]) -> std::io::Result<std::fs::File> {
    use std::io::Write as _;
    let mut file = beneath::make_spool(path).map_err(std::io::Error::other)?;
    file.write_all(bytes)?;
    Ok(file)
}

fn described(media_type: &str, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}
