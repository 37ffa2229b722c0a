//! The store on disk.
//!
//! ```text
//! lock                    flock: shared to use, exclusive to remove
//! layers/CHAIN/diff/      an unpacked layer;  layer.json beside it, and what its archive was (`unpack::recipe`)
//! images/ID/              config.json and manifest.json verbatim, record.json
//! references/HASH.json    name → image; HASH is of the name
//! busy/CHAIN              flock: somebody unpacks this layer
//! tmp/                    what is being made; then renamed to its place
//! toolbox.json
//! ```
//!
//! A folder in its place is whole: it was renamed there after its digests were checked. A process that dies leaves
//! folders in `tmp`, of which the next one finds that nobody has them locked, and layers and images that nothing names,
//! which go with the next removal.

#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::digest::Digest;
use super::error::Error;
use super::manifest::Configuration;
use super::platform::Platform;
use super::records::{self, ImageRecord, LayerRecord, ReferenceRecord, UnpackedRecord, VERSION};
use super::unpack::{Marks, Place};
use crate::model::image::Image;
use crate::model::reference::Reference;
use crate::sys::beneath;
use crate::sys::fs::{self, Lock, LockMode};
use crate::sys::stop::Stop;

/// The folder that images live in. Several processes may use it at once.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    stop: Stop,
}

/// As long as it is held, no image or layer goes. To be held from finding an image until a pod is recorded to use it.
#[derive(Debug)]
pub struct Hold {
    _lock: Lock,
}

/// An image as `image ls` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// `sha256:…`.
    pub id: String,
    /// All names, tags before digests; empty if there is none any more.
    pub references: Vec<Reference>,
    /// RFC 3339, as the image says.
    pub created: Option<String>,
    pub platform: Platform,
    /// Bytes of all its layers, uncompressed, also of those that it shares.
    pub size: u64,
    /// Digests of the layers as they are uncompressed, lowest first.
    pub layers: Vec<String>,
}

impl Store {
    /// Opens the store, which is made if there is none.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let store = Self {
            dir: dir.to_owned(),
            stop: Stop::default(),
        };
        // Only root may look into layers: they have setuid programs and devices.
        for folder in ["", "layers", "images", "references", "busy", "tmp"] {
            fs::create_dir_all(&dir.join(folder), 0o700)?;
        }
        if let Err(error) = store.sweep() {
            // It is in nobody's way, and the next one tries again.
            tracing::warn!(%error, "cannot remove what a process left that died");
        }
        Ok(store)
    }

    /// The same store, of which loads, imports, saves and pushes, and what waits for other processes, are given up when
    /// this says so.
    #[must_use]
    pub fn heeding(self, stop: Stop) -> Self {
        Self { stop, ..self }
    }

    /// Keeps others from removing images. Must not be held by a thread that removes some: it would wait for itself.
    ///
    /// # Errors
    /// The lock cannot be taken.
    pub fn hold(&self) -> Result<Hold, Error> {
        let lock = self.lock(self.lock_path(), LockMode::Shared)?;
        Ok(Hold { _lock: lock })
    }

    /// Keeps everybody else from using the store, for who removes all of it.
    ///
    /// # Errors
    /// The lock cannot be taken.
    pub fn alone(&self) -> Result<Hold, Error> {
        let lock = self.lock(self.lock_path(), LockMode::Exclusive)?;
        Ok(Hold { _lock: lock })
    }

    /// The image of this name, by digest if the reference has one, else by tag. An image of which a layer is missing
    /// counts as missing.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn find(&self, reference: &Reference) -> Result<Option<Image>, Error> {
        let Some(record) = records::read::<ReferenceRecord>(&self.reference_path(reference))?
        else {
            return Ok(None);
        };
        self.image(&record.image)
    }

    /// The image whose id starts with `prefix`, with or without `sha256:`. At least one digit.
    ///
    /// # Errors
    /// More than one image has such an id; the store cannot be read.
    pub fn find_id(&self, prefix: &str) -> Result<Option<Image>, Error> {
        match self.id(prefix)? {
            Some(id) => self.image(&id),
            None => Ok(None),
        }
    }

    /// All images, by their first name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self) -> Result<Vec<StoredImage>, Error> {
        let _hold = self.hold()?;
        let references = self.references()?;
        let mut images = Vec::new();
        for id in self.ids()? {
            let Some(record) = self.record(&id)? else {
                continue;
            };
            let mut named: Vec<Reference> = references
                .iter()
                .filter(|reference| reference.image == id)
                .map(|reference| reference.reference.clone())
                .collect();
            named.sort_by_key(|reference| (reference.digest.is_some(), reference.to_string()));
            images.push(StoredImage {
                id: id.to_string(),
                references: named,
                created: record.created,
                platform: record.platform,
                size: record.layers.iter().map(|layer| layer.size).sum(),
                layers: record
                    .layers
                    .iter()
                    .map(|layer| layer.diff_id.to_string())
                    .collect(),
            });
        }
        images.sort_by_cached_key(|image| {
            (
                image.references.is_empty(),
                image.references.first().map(Reference::to_string),
            )
        });
        Ok(images)
    }

    /// The image's configuration, byte for byte.
    ///
    /// # Errors
    /// There is no such image; it cannot be read.
    pub fn configuration(&self, id: &str) -> Result<Vec<u8>, Error> {
        let known = Digest::parse(id).map_err(|_| Error::NotStored(id.to_owned()))?;
        let bytes = fs::read_if_there(&self.image_path(&known).join("config.json"))?;
        bytes.ok_or_else(|| Error::NotStored(id.to_owned()))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Removes what processes left that died in the middle.
    pub(super) fn sweep(&self) -> Result<(), Error> {
        let temporary = self.dir.join("tmp");
        for name in fs::list(&temporary)? {
            let path = temporary.join(name);
            if let Some(_lock) = fs::try_lock_existing(&path, LockMode::Exclusive)? {
                beneath::remove_all(&path)?;
            }
        }
        Ok(())
    }

    /// Empties `tmp`; the caller has the lock alone.
    pub(super) fn empty_temporary(&self) -> Result<(), Error> {
        let temporary = self.dir.join("tmp");
        for name in fs::list(&temporary)? {
            beneath::remove_all(&temporary.join(name))?;
        }
        Ok(())
    }

    /// A new folder in `tmp`, which goes when it is dropped unless it was put in its place.
    pub(super) fn temporary(&self) -> Result<Temporary, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", std::process::id());
            let path = self.dir.join("tmp").join(name);
            match beneath::make_folder_at(&path, 0o700) {
                Ok(true) => {}
                // Another process may have had this pid, or have it in another pid namespace.
                Ok(false) => continue,
                // One has taken it for something that was left, before it had its mode.
                Err(e) if e.kind() == ErrorKind::NotFound && self.dir.join("tmp").is_dir() => {
                    continue;
                }
                Err(e) => return Err(e.into()),
            }
            // Else another process has just taken it for something that was left, and removes it.
            if let Some(lock) = fs::try_lock_existing(&path, LockMode::Exclusive)? {
                return Ok(Temporary { path, _lock: lock });
            }
        }
    }

    /// Whether a layer is there.
    pub(super) fn has_layer(&self, chain_id: &Digest) -> bool {
        self.diff_path(chain_id).is_dir()
    }

    /// Takes the right to unpack a layer, if nobody has it. The layer may be there already.
    pub(super) fn try_claim_layer(&self, chain_id: &Digest) -> Result<Option<Lock>, Error> {
        Ok(fs::try_lock(
            &self.dir.join("busy").join(chain_id.hex()),
            LockMode::Exclusive,
        )?)
    }

    /// Takes the right to unpack a layer, and waits for who has it. The layer may be there afterwards.
    pub(super) fn claim_layer(&self, chain_id: &Digest) -> Result<Lock, Error> {
        let path = self.dir.join("busy").join(chain_id.hex());
        self.lock(path, LockMode::Exclusive)
    }

    fn lock(&self, path: PathBuf, mode: LockMode) -> Result<Lock, Error> {
        match fs::try_lock(&path, mode)? {
            Some(lock) => Ok(lock),
            None => Ok(self.unless(move || fs::lock(&path, mode))??),
        }
    }

    /// What tells that work is to be given up.
    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Does what may wait for other processes.
    pub(super) fn unless<T: Send + 'static>(
        &self,
        wait: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.stop
            .unless(wait)
            .map_err(|error| self.naming_stop(Error::Worker(error)))
    }

    /// Names work that was given up as such.
    pub(super) fn naming_stop(&self, error: Error) -> Error {
        self.stopped_or(error.naming_no_space(&self.dir))
    }

    /// The same, where it is not the store that is written to.
    pub(super) fn stopped_or(&self, error: Error) -> Error {
        self.stop.check().map_or_else(Error::Stopped, |()| error)
    }

    /// Makes a layer with `fill`, which is given what to fill and returns the layer's size.
    pub(super) fn add_layer<E>(
        &self,
        chain_id: &Digest,
        fill: impl FnOnce(&Place<'_>) -> Result<u64, E>,
    ) -> Result<(), E>
    where
        E: From<Error>,
    {
        let temporary = self.temporary()?;
        let diff = temporary.path.join("diff");
        beneath::make_folder_at(&diff, 0o755).map_err(Error::from)?;
        let size = fill(&Place {
            folder: &diff,
            beside: Some(&temporary.path),
            marks: Marks::of_this_process(),
        })?;
        let version = VERSION;
        records::write(
            &temporary.path.join("layer.json"),
            &UnpackedRecord { version, size },
        )?;
        temporary.put(&self.layer_path(chain_id))?;
        Ok(())
    }

    /// Records an image whose layers are all there.
    pub(super) fn add_image(&self, new: &NewImage<'_>) -> Result<Image, Error> {
        let id = Digest::of(new.config);
        let chain = crate::image::digest::chain_ids(&new.configuration.diff_ids);
        let mut layers = Vec::with_capacity(chain.len());
        for (chain_id, diff_id) in chain.iter().zip(&new.configuration.diff_ids) {
            let path = self.layer_path(chain_id).join("layer.json");
            let unpacked = records::read::<UnpackedRecord>(&path)?;
            layers.push(LayerRecord {
                chain_id: chain_id.clone(),
                diff_id: diff_id.clone(),
                size: unpacked.map_or(0, |record| record.size),
            });
        }
        let record = ImageRecord {
            version: VERSION,
            id: id.clone(),
            layers,
            config: new.configuration.config.clone(),
            created: new.configuration.created.clone(),
            platform: new.configuration.platform.clone(),
            embedded: new.embedded,
        };
        let temporary = self.temporary()?;
        fs::replace(&temporary.path.join("config.json"), 0o600, new.config)?;
        if let Some(manifest) = new.manifest {
            fs::replace(&temporary.path.join("manifest.json"), 0o600, manifest)?;
        }
        records::write(&temporary.path.join("record.json"), &record)?;
        temporary.put(&self.image_path(&id))?;
        Ok(self.usable(record))
    }

    /// Gives an image a name, which another may have had.
    pub(super) fn add_reference(&self, reference: &Reference, image: &Digest) -> Result<(), Error> {
        let record = ReferenceRecord {
            version: VERSION,
            reference: reference.clone(),
            image: image.clone(),
        };
        records::write(&self.reference_path(reference), &record)
    }

    /// The image with this id, if it is there with all its layers.
    pub(super) fn image(&self, id: &Digest) -> Result<Option<Image>, Error> {
        let Some(record) = self.record(id)? else {
            return Ok(None);
        };
        let whole = record
            .layers
            .iter()
            .all(|layer| self.has_layer(&layer.chain_id));
        Ok(whole.then(|| self.usable(record)))
    }

    pub(super) fn record(&self, id: &Digest) -> Result<Option<ImageRecord>, Error> {
        records::read(&self.image_path(id).join("record.json"))
    }

    /// The id that starts with `prefix`.
    pub(super) fn id(&self, prefix: &str) -> Result<Option<Digest>, Error> {
        let digits = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let mut fitting = self.ids()?;
        fitting.retain(|id| id.hex().starts_with(digits));
        match fitting.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            several => Err(Error::AmbiguousId {
                prefix: prefix.to_owned(),
                ids: several.iter().map(Digest::to_string).collect(),
            }),
        }
    }

    pub(super) fn ids(&self) -> Result<Vec<Digest>, Error> {
        self.digests_in("images")
    }

    /// Folders of `images` or `layers`.
    pub(super) fn digests_in(&self, folder: &str) -> Result<Vec<Digest>, Error> {
        let names = fs::list(&self.dir.join(folder))?;
        let digest =
            |name: &std::ffi::OsString| Digest::parse(&format!("sha256:{}", name.to_str()?)).ok();
        Ok(names.iter().filter_map(digest).collect())
    }

    pub(super) fn references(&self) -> Result<Vec<ReferenceRecord>, Error> {
        let folder = self.dir.join("references");
        let mut found = Vec::new();
        for name in fs::list(&folder)? {
            if Path::new(&name)
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                found.extend(records::read::<ReferenceRecord>(&folder.join(name))?);
            }
        }
        Ok(found)
    }

    /// Where a name is recorded. A digest says more than a tag beside it, which Docker ignores too.
    pub(super) fn reference_path(&self, reference: &Reference) -> PathBuf {
        let Reference {
            registry,
            repository,
            tag,
            digest,
        } = reference;
        let name = match (digest, tag) {
            (Some(digest), _) => format!("{registry}/{repository}@{digest}"),
            (None, tag) => format!(
                "{registry}/{repository}:{}",
                tag.as_deref().unwrap_or("latest")
            ),
        };
        let file = format!("{}.json", Digest::of(name.as_bytes()).hex());
        self.dir.join("references").join(file)
    }

    pub(super) fn image_path(&self, id: &Digest) -> PathBuf {
        self.dir.join("images").join(id.hex())
    }

    pub(super) fn layer_path(&self, chain_id: &Digest) -> PathBuf {
        self.dir.join("layers").join(chain_id.hex())
    }

    fn diff_path(&self, chain_id: &Digest) -> PathBuf {
        self.layer_path(chain_id).join("diff")
    }

    fn usable(&self, record: ImageRecord) -> Image {
        Image {
            id: record.id.to_string(),
            layers: record
                .layers
                .iter()
                .map(|layer| self.diff_path(&layer.chain_id))
                .collect(),
            config: record.config,
            pull: None,
        }
    }
}

/// An image to be recorded.
pub(super) struct NewImage<'a> {
    /// Verbatim.
    pub(super) config: &'a [u8],
    pub(super) configuration: &'a Configuration,
    /// Verbatim; archives of `docker save` have none.
    pub(super) manifest: Option<&'a [u8]>,
    pub(super) embedded: bool,
}

/// A folder in `tmp`. As long as it is locked, nobody takes it for something that was left.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    _lock: Lock,
}

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the folder in its place. If another process was first, its is as good.
    pub(super) fn put(mut self, place: &Path) -> Result<(), Error> {
        if beneath::rename_folder(&self.path, place)? {
            // Nothing is left to remove, and the name may be another process' next.
            self.path = PathBuf::new();
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = beneath::remove_all(&self.path) {
            // The next process that has the store alone removes it.
            tracing::warn!(%error, "cannot remove a temporary folder");
        }
    }
}
