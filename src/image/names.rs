//! Gives stored images further names, and tells all about one.

use std::path::PathBuf;

use super::digest::Digest;
use super::error::Error;
use super::records::ReferenceRecord;
use super::store::{Store, StoredImage};
use crate::model::reference::Reference;
use crate::sys::fs;

/// All about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    pub stored: StoredImage,
    /// Verbatim.
    pub config: Vec<u8>,
    /// What it came with, verbatim, and the digest of that; archives of `docker save` have none.
    pub manifest: Option<(Vec<u8>, Digest)>,
    /// The unpacked layers, lowest first.
    pub folders: Vec<PathBuf>,
}

impl Store {
    /// Gives an image a further name, which another may have had.
    ///
    /// # Errors
    /// There is no such image; the name cannot be written.
    pub fn tag(&self, id: &str, name: &Reference) -> Result<(), Error> {
        let _hold = self.hold()?;
        let id = self.known(id)?;
        self.add_reference(name, &id)
    }

    /// Takes a name from an image, which stays, even without any. Returns whether it had the name.
    ///
    /// # Errors
    /// The name cannot be removed.
    pub fn untag(&self, id: &str, name: &Reference) -> Result<bool, Error> {
        let _hold = self.hold()?;
        let id = self.known(id)?;
        let path = self.reference_path(name);
        let record = super::records::read::<ReferenceRecord>(&path)?;
        if record.is_none_or(|record| record.image != id) {
            return Ok(false);
        }
        fs::remove_file(&path)?;
        Ok(true)
    }

    /// All about an image.
    ///
    /// # Errors
    /// There is no such image; it cannot be read.
    pub fn details(&self, id: &str) -> Result<Details, Error> {
        let not_stored = || Error::NotStored(id.to_owned());
        let stored = self.list()?.into_iter().find(|image| image.id == id);
        let _hold = self.hold()?;
        let digest = self.known(id)?;
        let record = self.record(&digest)?.ok_or_else(not_stored)?;
        let manifest = fs::read_if_there(&self.image_path(&digest).join("manifest.json"))?;
        let layers = record.layers.iter();
        Ok(Details {
            stored: stored.ok_or_else(not_stored)?,
            config: self.configuration(id)?,
            manifest: manifest.map(|bytes| {
                let digest = Digest::of(&bytes);
                (bytes, digest)
            }),
            folders: layers
                .map(|layer| self.layer_path(&layer.chain_id).join("diff"))
                .collect(),
        })
    }

    fn known(&self, id: &str) -> Result<Digest, Error> {
        let not_stored = || Error::NotStored(id.to_owned());
        let digest = Digest::parse(id).map_err(|_| not_stored())?;
        self.record(&digest)?.ok_or_else(not_stored)?;
        Ok(digest)
    }
}
