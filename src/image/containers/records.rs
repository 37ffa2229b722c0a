//! The records of containers/storage, as far as they are needed to find an image and its layers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Error;
use crate::image::digest::Digest;
use crate::image::manifest::{Configuration, Document};
use crate::model::reference::Reference;
use crate::sys::fs::{self, RecordLock};

/// A store of one storage driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) path: PathBuf,
    pub(super) driver: &'static str,
}

/// An image of another engine.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) config: Vec<u8>,
    pub(super) configuration: Configuration,
    pub(super) manifest: Option<Vec<u8>>,
    /// Digests of its manifest and, if it came by one, its index.
    pub(super) digests: Vec<Digest>,
    /// Their ids, lowest first.
    pub(super) layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) id: String,
    /// Bytes of its archive.
    pub(super) size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ImageRecord {
    id: String,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    layer: String,
    #[serde(default)]
    big_data_names: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LayerRecord {
    id: String,
    #[serde(default)]
    parent: String,
    diff_digest: Option<String>,
    #[serde(default)]
    diff_size: u64,
    #[serde(default)]
    flags: Option<serde_json::Map<String, serde_json::Value>>,
}

/// As long as it is held, the engine removes no image and no layer, and adds none.
#[derive(Debug)]
pub(super) struct Held {
    _layers: Option<RecordLock>,
    _images: Option<RecordLock>,
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    Name(&'a Reference),
    /// The start of an id.
    Id(&'a str),
}

impl Root {
    /// Whether there may be images of this driver.
    pub(super) fn is_there(&self) -> bool {
        self.images().join("images.json").is_file()
    }

    /// Waits until the engine writes nothing. The locks are `fcntl`'s, and taken in the order in which the engine does.
    pub(super) fn hold(&self) -> Result<Held, Error> {
        Ok(Held {
            _layers: fs::lock_record_to_read(&self.layers().join("layers.lock"))?,
            _images: fs::lock_record_to_read(&self.images().join("images.lock"))?,
        })
    }

    /// An image; the caller holds the store.
    pub(super) fn find(&self, wanted: Wanted<'_>) -> Result<Option<Found>, Error> {
        let images: Vec<ImageRecord> = read(&self.images().join("images.json"))?;
        let mut fitting = images.iter().filter(|image| image.is(wanted));
        match (fitting.next(), wanted) {
            (None, _) => Ok(None),
            (Some(image), Wanted::Id(prefix)) if fitting.next().is_some() => {
                Err(Error::Ambiguous {
                    prefix: prefix.to_owned(),
                    id: image.id.clone(),
                })
            }
            (Some(image), _) => self.found(image).map(Some),
        }
    }

    /// The folder of a layer's files.
    pub(super) fn files(&self, layer: &str) -> PathBuf {
        match self.driver {
            "vfs" => self.path.join("vfs/dir").join(layer),
            driver => self.path.join(driver).join(layer).join("diff"),
        }
    }

    /// The record of a layer's archive.
    pub(super) fn split(&self, layer: &str) -> PathBuf {
        self.layers().join(format!("{layer}.tar-split.gz"))
    }

    /// Whether a layer is there, and whole.
    pub(super) fn has_layer(&self, id: &str) -> Result<bool, Error> {
        let layers: Vec<LayerRecord> = read(&self.layers().join("layers.json"))?;
        Ok(layers.iter().any(|layer| layer.id == id) && self.files(id).is_dir())
    }

    fn found(&self, image: &ImageRecord) -> Result<Found, Error> {
        let unusable = |why: &str| Error::Image {
            id: image.id.clone(),
            store: self.path.clone(),
            why: why.to_owned(),
        };
        let folder = self.images().join(&image.id);
        let id = Digest::parse(&format!("sha256:{}", image.id));
        let id = id.map_err(|_| unusable("its id is no digest"))?;
        let config = fs::read(&folder.join(file_name(id.as_str())))?;
        if Digest::of(&config) != id {
            return Err(unusable("its configuration is not what its id says"));
        }
        let configuration = Configuration::parse(&config);
        let configuration = configuration.map_err(|e| unusable(&e.to_string()))?;
        let layers = self.chain(&image.layer, &configuration, &unusable)?;
        let manifest = fs::read_if_there(&folder.join("manifest"))?;
        let manifest = manifest.filter(|bytes| match Document::parse(bytes) {
            Ok(Document::Image(manifest)) => manifest.config.digest == id,
            Ok(Document::Index(_)) | Err(_) => false,
        });
        let mut digests: Vec<Digest> = image.digests().collect();
        digests.extend(manifest.as_ref().map(|bytes| Digest::of(bytes)));
        digests.sort();
        digests.dedup();
        Ok(Found {
            config,
            configuration,
            manifest,
            digests,
            layers,
        })
    }

    /// The layers from the lowest to `top`, which have to be those that the configuration says.
    fn chain(
        &self,
        top: &str,
        configuration: &Configuration,
        unusable: &dyn Fn(&str) -> Error,
    ) -> Result<Vec<Layer>, Error> {
        let records: Vec<LayerRecord> = read(&self.layers().join("layers.json"))?;
        let by_id: HashMap<&str, &LayerRecord> = records
            .iter()
            .map(|layer| (layer.id.as_str(), layer))
            .collect();
        let mut layers = Vec::new();
        let mut id = top;
        for diff_id in configuration.diff_ids.iter().rev() {
            let layer = by_id.get(id).ok_or_else(|| unusable("it lacks a layer"))?;
            if layer.diff_digest.as_deref() != Some(diff_id.as_str()) {
                return Err(unusable("its layers are not those of its configuration"));
            }
            let incomplete = layer
                .flags
                .as_ref()
                .and_then(|flags| flags.get("incomplete"));
            if incomplete.is_some_and(|flag| flag != false) {
                return Err(unusable("a layer of it is not complete"));
            }
            layers.push(Layer {
                id: layer.id.clone(),
                size: layer.diff_size,
            });
            id = &layer.parent;
        }
        if !id.is_empty() {
            return Err(unusable("it has more layers than its configuration says"));
        }
        layers.reverse();
        Ok(layers)
    }

    fn images(&self) -> PathBuf {
        self.path.join(format!("{}-images", self.driver))
    }

    fn layers(&self) -> PathBuf {
        self.path.join(format!("{}-layers", self.driver))
    }
}

impl ImageRecord {
    fn is(&self, wanted: Wanted<'_>) -> bool {
        let mut names = self.names.iter().flatten();
        match wanted {
            Wanted::Id(prefix) => self.id.starts_with(prefix),
            Wanted::Name(reference) => match &reference.digest {
                None => {
                    let name = reference.to_string();
                    names.any(|own| *own == name)
                }
                Some(digest) => {
                    let repository = format!("{}/{}", reference.registry, reference.repository);
                    let of_it = |name: &String| {
                        let rest = name.strip_prefix(&repository);
                        rest.is_some_and(|rest| rest.starts_with([':', '@']))
                    };
                    names.any(of_it) && self.digests().any(|own| own.as_str() == digest)
                }
            },
        }
    }

    fn digests(&self) -> impl Iterator<Item = Digest> {
        let named = self.big_data_names.iter().flatten();
        let named = named.filter_map(|name| name.strip_prefix("manifest-"));
        let all = self.digest.as_deref().into_iter().chain(named);
        all.filter_map(|text| Digest::parse(text).ok())
    }
}

/// The file of a piece of data: its name, or if that has other letters, `=` and BASE64 of it.
fn file_name(key: &str) -> String {
    let engine = base64::engine::general_purpose::STANDARD;
    format!("={}", engine.encode(key))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = fs::read(path)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Record {
        path: path.to_owned(),
        source,
    })
}
