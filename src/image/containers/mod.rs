//! Images that podman, Buildah or CRI-O have on this machine: found by name, and taken over without a registry.
//!
//! ```text
//! storage.conf ─ conf ─▶ stores ─ records ─▶ an image ─ layer by layer ─┬─ hard links   (overlay, one file system)
//!                                                                      └─ tar-split ─ unpack   (anything else)
//! ```
//!
//! Their stores are only read, under the locks that they take themselves. Files are shared as they are: nobody writes
//! files of layers, neither they nor kplay. Their layers are believed to be what their records say, as they believe it;
//! what is copied instead of shared goes through the check of its digest.

mod conf;
mod records;

#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::digest::{self, Digest};
use super::error::Error as ImageError;
use super::layer::{self, Expected};
use super::platform::Platform;
use super::registries::{RegistriesConf, Transport};
use super::store::{NewImage, Store};
use super::unpack::{self, Place, RecipeError, recipe, tar_split};
use crate::model::image::Image;
use crate::model::reference::Reference;
use crate::sys::fs;
use crate::sys::links::{self, Attribute, Shared};
use crate::sys::stop::Stop;

pub use conf::Places;

use records::{Found, Held, Layer, Root, Wanted};

/// Why an image of another engine cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Files(#[from] fs::Error),
    #[error("{path:?} is no configuration of storage: {why}")]
    Conf { path: PathBuf, why: String },
    #[error("the record {path:?} cannot be read")]
    Record {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("the id `{prefix}` fits more than one image, such as {id}")]
    Ambiguous { prefix: String, id: String },
    #[error("the image {id} in {store:?} cannot be used: {why}")]
    Image {
        id: String,
        store: PathBuf,
        why: String,
    },
    #[error("the layer {layer} in {store:?} cannot be copied")]
    Layer {
        layer: String,
        store: PathBuf,
        source: layer::Error,
    },
    #[error("the archive of the layer {layer} in {store:?} cannot be made")]
    Archive {
        layer: String,
        store: PathBuf,
        source: RecipeError,
    },
    #[error("cannot copy a layer")]
    Copy(#[source] io::Error),
    #[error(transparent)]
    Store(Box<ImageError>),
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// An image that was taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub image: Image,
    /// Whose it is: the folder of the store.
    pub from: PathBuf,
}

/// The stores of other engines.
#[derive(Clone, Debug, Default)]
pub struct OtherStores {
    places: Places,
}

impl OtherStores {
    /// Those that these files name, which are read when they are needed.
    #[must_use]
    pub fn new(places: Places) -> Self {
        Self { places }
    }

    fn roots(&self) -> Result<Vec<Root>, Error> {
        let storage = conf::read(&self.places)?;
        let drivers = ["overlay", "vfs"];
        let counts = |driver: &&str| storage.driver.as_ref().is_none_or(|only| only == driver);
        let drivers: Vec<&'static str> = drivers.into_iter().filter(counts).collect();
        let roots = storage.roots.iter().flat_map(|path| {
            drivers.iter().map(|driver| Root {
                path: path.clone(),
                driver,
            })
        });
        Ok(roots.filter(Root::is_there).collect())
    }
}

impl Store {
    /// Takes over the image of this name from another engine's store, if one has it for this machine.
    ///
    /// # Errors
    /// It is there and cannot be taken over, or a store cannot be read.
    pub fn import(
        &self,
        name: &Reference,
        from: &OtherStores,
        policy: &RegistriesConf,
    ) -> Result<Option<Imported>, ImageError> {
        self.import_wanted(Wanted::Name(name), Some(name), from, policy)
    }

    /// The same by the start of an id; the image gets no name.
    ///
    /// # Errors
    /// As [`Self::import`].
    pub fn import_id(
        &self,
        prefix: &str,
        from: &OtherStores,
        policy: &RegistriesConf,
    ) -> Result<Option<Imported>, ImageError> {
        self.import_wanted(Wanted::Id(prefix), None, from, policy)
    }

    fn import_wanted(
        &self,
        wanted: Wanted<'_>,
        name: Option<&Reference>,
        from: &OtherStores,
        policy: &RegistriesConf,
    ) -> Result<Option<Imported>, ImageError> {
        let imported = self.import_first(wanted, name, from, policy);
        imported.map_err(|error| {
            let error = match error {
                Error::Store(error) => *error,
                source => ImageError::Import {
                    image: match wanted {
                        Wanted::Name(name) => name.to_string(),
                        Wanted::Id(prefix) => prefix.to_owned(),
                    },
                    source: Box::new(source),
                },
            };
            self.naming_stop(error)
        })
    }

    fn import_first(
        &self,
        wanted: Wanted<'_>,
        name: Option<&Reference>,
        from: &OtherStores,
        policy: &RegistriesConf,
    ) -> Result<Option<Imported>, Error> {
        for root in from.roots()? {
            let held = self.hold_of(&root)?;
            let Some(found) = root.find(wanted)? else {
                continue;
            };
            // While this waits for another command, the engine is not to wait for it.
            drop(held);
            if found
                .configuration
                .check_platform(&Platform::host())
                .is_err()
            {
                tracing::info!(store = ?root.path, ?wanted, "the image is for another platform");
                continue;
            }
            let checked = policy.check_load(Transport::ContainersStorage, None);
            checked.map_err(|error| Error::Store(Box::new(error.into())))?;
            let image = self.take_over(&root, &found, name)?;
            let from = root.path;
            return Ok(Some(Imported { image, from }));
        }
        Ok(None)
    }

    /// Waits until the engine writes nothing.
    fn hold_of(&self, root: &Root) -> Result<Held, Error> {
        let root = root.clone();
        self.unless(move || root.hold())?
    }

    fn take_over(
        &self,
        root: &Root,
        found: &Found,
        name: Option<&Reference>,
    ) -> Result<Image, Error> {
        self.sweep()?;
        let _hold = self.hold()?;
        let diff_ids = &found.configuration.diff_ids;
        let chain = digest::chain_ids(diff_ids);
        for ((layer, chain_id), diff_id) in found.layers.iter().zip(&chain).zip(diff_ids) {
            if self.has_layer(chain_id) {
                continue;
            }
            let _claim = self.claim_layer(chain_id)?;
            if self.has_layer(chain_id) {
                continue;
            }
            let _held = self.hold_of(root)?;
            if !root.has_layer(&layer.id)? {
                return Err(Error::Image {
                    id: Digest::of(&found.config).hex().to_owned(),
                    store: root.path.clone(),
                    why: "it has just been removed there".to_owned(),
                });
            }
            self.add_layer_of(root, layer, chain_id, diff_id)?;
        }
        let id = Digest::of(&found.config);
        let image = match self.image(&id)? {
            Some(image) => image,
            None => self.add_image(&NewImage {
                config: &found.config,
                configuration: &found.configuration,
                manifest: found.manifest.as_deref(),
                embedded: false,
            })?,
        };
        if let Some(name) = name {
            self.add_names(name, &found.digests, &id)?;
        }
        Ok(image)
    }

    /// The names that a pull would give.
    fn add_names(&self, name: &Reference, digests: &[Digest], id: &Digest) -> Result<(), Error> {
        let by_digest = digests.iter().map(|digest| Reference {
            tag: None,
            digest: Some(digest.to_string()),
            ..name.clone()
        });
        let asked = Some(name.clone()).filter(|name| name.digest.is_none());
        for name in asked.into_iter().chain(by_digest) {
            self.add_reference(&name, id)?;
        }
        Ok(())
    }

    fn add_layer_of(
        &self,
        root: &Root,
        layer: &Layer,
        chain_id: &Digest,
        diff_id: &Digest,
    ) -> Result<(), Error> {
        let shared = match root.driver {
            "overlay" => self.share(root, layer, chain_id)?,
            // Its folders are not of one layer alone.
            _ => false,
        };
        if !shared {
            let copy = |place: &Place<'_>| copy(root, layer, diff_id, place, self.stop());
            self.add_layer(chain_id, copy)?;
        }
        Ok(())
    }

    /// Shares the files of a layer by hard links, if that is possible.
    fn share(&self, root: &Root, layer: &Layer, chain_id: &Digest) -> Result<bool, Error> {
        let shared = self.add_layer(chain_id, |place| {
            let files = root.files(&layer.id);
            match links::share(&files, place.folder, &attribute, self.stop())? {
                Shared::Whole => {}
                Shared::Impossible => return Err(NotShared::Impossible),
                Shared::Refused(name) => {
                    tracing::info!(layer = layer.id, name, "the layer's files are not shared");
                    return Err(NotShared::Impossible);
                }
            }
            let path = root.split(&layer.id);
            // Without it the image runs, and cannot be pushed.
            if let (Some(beside), Some(split)) = (place.beside, fs::read_if_there(&path)?) {
                fs::replace(&beside.join(tar_split::FILE), 0o600, &split)?;
                root.set_root(layer, place)?;
            }
            Ok(layer.size)
        });
        match shared {
            Ok(()) => Ok(true),
            Err(NotShared::Impossible) => Ok(false),
            Err(NotShared::Failed(error)) => Err(error),
        }
    }
}

impl Root {
    /// What the archive says of the layer's folder itself, which their folder does not have.
    fn set_root(&self, layer: &Layer, place: &Place<'_>) -> Result<(), Error> {
        let beginning = recipe::beginning(&self.split(&layer.id), &self.files(&layer.id));
        let beginning = beginning.map_err(|source| Error::Archive {
            layer: layer.id.clone(),
            store: self.path.clone(),
            source,
        })?;
        let set = std::thread::scope(|scope| {
            let setting = scope.spawn(|| unpack::set_root(&beginning, place));
            match setting.join() {
                Ok(set) => set,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        set.map_err(|source| Error::Layer {
            layer: layer.id.clone(),
            store: self.path.clone(),
            source: source.into(),
        })
    }
}

/// Why files are not shared.
enum NotShared {
    Impossible,
    Failed(Error),
}

impl From<fs::Error> for NotShared {
    fn from(error: fs::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Error> for NotShared {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ImageError> for NotShared {
    fn from(error: ImageError) -> Self {
        Self::Failed(error.into())
    }
}

/// What overlayfs makes of a folder's attribute, or fuse-overlayfs: marks of layers that are not plain ones.
fn attribute(name: &[u8]) -> Attribute {
    match name {
        b"trusted.overlay.opaque" | b"user.overlay.opaque" => Attribute::Keep,
        b"user.containers.override_stat" | b"user.fuseoverlayfs.opaque" => Attribute::Refuse,
        b"trusted.overlay.redirect" | b"user.overlay.redirect" => Attribute::Refuse,
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => {
            Attribute::Keep
        }
        _ if name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") => Attribute::Keep,
        _ => Attribute::Drop,
    }
}

/// Makes the layer's archive of its files, and unpacks it as one that was pulled.
fn copy(
    root: &Root,
    layer: &Layer,
    diff_id: &Digest,
    place: &Place<'_>,
    stop: &Stop,
) -> Result<u64, Error> {
    let (reader, writer) = io::pipe().map_err(Error::Copy)?;
    let (split, files) = (root.split(&layer.id), root.files(&layer.id));
    std::thread::scope(|scope| {
        let baking = scope.spawn(move || bake(&split, &files, writer));
        let expected = Expected {
            blob: None,
            diff_id: diff_id.clone(),
            most_bytes: None,
        };
        let reader = io::BufReader::with_capacity(1 << 17, stop.reader(reader));
        let unpacked = layer::unpack_verified(reader, &expected, place);
        let baked = match baking.join() {
            Ok(baked) => baked,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let (id, store) = (layer.id.clone(), root.path.clone());
        match (baked, unpacked) {
            // A reader that has gone has an error of its own to tell.
            (Err(source), _) if !matches!(source, RecipeError::Write(_)) => Err(Error::Archive {
                layer: id,
                store,
                source,
            }),
            (_, Err(source)) => Err(Error::Layer {
                layer: id,
                store,
                source,
            }),
            (Err(source), Ok(_)) => Err(Error::Archive {
                layer: id,
                store,
                source,
            }),
            (Ok(()), Ok(size)) => Ok(size),
        }
    })
}

fn bake(split: &Path, files: &Path, writer: io::PipeWriter) -> Result<(), RecipeError> {
    let mut out = io::BufWriter::with_capacity(1 << 16, writer);
    recipe::bake_other(split, files, &mut out)?;
    out.flush().map_err(RecipeError::Write)
}
