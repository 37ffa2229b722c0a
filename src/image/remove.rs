//! Takes names from images, and images and layers from the disk when nothing needs them.
//!
//! Names go first, then images, then layers: a crash in between leaves what the next removal finds.

use std::collections::HashSet;

use super::digest::Digest;
use super::error::Error;
use super::records::{ImageRecord, ReferenceRecord};
use super::store::{Store, Temporary};
use crate::model::reference::Reference;
use crate::sys::beneath;
use crate::sys::fs;

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that mean nothing now.
    pub references: Vec<Reference>,
    /// Ids of images that are gone.
    pub images: Vec<String>,
    /// Bytes of the layers that are gone, uncompressed.
    pub bytes: u64,
}

impl Store {
    /// Takes a name; with its last name goes the image, with its last image goes a layer.
    ///
    /// Waits until nobody uses the store. `in_use` tells of an image id whether a pod uses it; it is asked when nobody can
    /// start to use one any more.
    ///
    /// # Errors
    /// There is no such name; it is the last one of an image that is in use, and then nothing changes.
    pub fn remove(
        &self,
        reference: &Reference,
        in_use: &dyn Fn(&str) -> bool,
    ) -> Result<Removed, Error> {
        let _alone = self.alone()?;
        let all = self.references()?;
        let path = self.reference_path(reference);
        let found = all
            .iter()
            .find(|record| self.reference_path(&record.reference) == path);
        let image = &found
            .ok_or_else(|| Error::NotStored(reference.to_string()))?
            .image;
        let of_image = all.iter().filter(|record| record.image == *image);
        let (going, staying): (Vec<_>, Vec<_>) = of_image.cloned().partition(|record| {
            self.reference_path(&record.reference) == path || goes_along(record, reference, &all)
        });
        if staying.is_empty() {
            return self.remove_image(image, going, in_use, reference.to_string());
        }
        let references = self.remove_references(going)?;
        Ok(Removed {
            references,
            ..Removed::default()
        })
    }

    /// Removes an image by the start of its id, with all its names.
    ///
    /// # Errors
    /// There is no such image, or more than one; it is in use, and then nothing changes.
    pub fn remove_id(&self, prefix: &str, in_use: &dyn Fn(&str) -> bool) -> Result<Removed, Error> {
        let _alone = self.alone()?;
        let image = self
            .id(prefix)?
            .ok_or_else(|| Error::NotStored(prefix.to_owned()))?;
        let mut names = self.references()?;
        names.retain(|record| record.image == image);
        self.remove_image(&image, names, in_use, prefix.to_owned())
    }

    /// Removes all that is not in use: images with their names, and layers.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn prune(&self, in_use: &dyn Fn(&str) -> bool) -> Result<Removed, Error> {
        let _alone = self.alone()?;
        let mut names = self.references()?;
        names.retain(|record| !in_use(record.image.as_str()));
        let mut removed = Removed {
            references: self.remove_references(names)?,
            ..Removed::default()
        };
        removed.references.sort();
        self.collect_alone(Unnamed::Remove, in_use, &mut removed)?;
        Ok(removed)
    }

    /// Removes what nothing needs: layers without an image, images that kplay made of earlier builds of itself, and
    /// with [`Unnamed::Remove`] every image without a name. What is in use stays.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn collect(
        &self,
        unnamed: Unnamed,
        in_use: &dyn Fn(&str) -> bool,
    ) -> Result<Removed, Error> {
        let _alone = self.alone()?;
        let mut removed = Removed::default();
        self.collect_alone(unnamed, in_use, &mut removed)?;
        Ok(removed)
    }

    fn remove_image(
        &self,
        image: &Digest,
        names: Vec<ReferenceRecord>,
        in_use: &dyn Fn(&str) -> bool,
        called: String,
    ) -> Result<Removed, Error> {
        if in_use(image.as_str()) {
            return Err(Error::InUse { image: called });
        }
        let mut removed = Removed {
            references: self.remove_references(names)?,
            ..Removed::default()
        };
        self.discard(&self.image_path(image))?;
        removed.images.push(image.to_string());
        self.collect_alone(Unnamed::Keep, in_use, &mut removed)?;
        Ok(removed)
    }

    fn remove_references(&self, records: Vec<ReferenceRecord>) -> Result<Vec<Reference>, Error> {
        for record in &records {
            fs::remove_file(&self.reference_path(&record.reference))?;
        }
        Ok(records.into_iter().map(|record| record.reference).collect())
    }

    /// The caller has the lock alone.
    fn collect_alone(
        &self,
        unnamed: Unnamed,
        in_use: &dyn Fn(&str) -> bool,
        removed: &mut Removed,
    ) -> Result<(), Error> {
        let named: HashSet<Digest> = self
            .references()?
            .into_iter()
            .map(|record| record.image)
            .collect();
        let mut needed = HashSet::new();
        for id in self.ids()? {
            let record = self.record(&id)?;
            let goes = |record: &ImageRecord| record.embedded || unnamed == Unnamed::Remove;
            let keep = named.contains(&id) || in_use(id.as_str());
            match record {
                Some(record) if keep || !goes(&record) => {
                    needed.extend(record.layers.into_iter().map(|layer| layer.chain_id));
                }
                Some(_) | None => {
                    self.discard(&self.image_path(&id))?;
                    removed.images.push(id.to_string());
                }
            }
        }
        for layer in self.digests_in("layers")? {
            if !needed.contains(&layer) {
                removed.bytes += self.layer_size(&layer)?;
                self.discard(&self.layer_path(&layer))?;
            }
        }
        // Nobody waits for a layer while this lock is held.
        for name in fs::list(&self.dir().join("busy"))? {
            fs::remove_file(&self.dir().join("busy").join(name))?;
        }
        // Nor does anybody write a name: what is unfinished was begun by who was killed.
        let names = self.dir().join("references");
        for name in fs::list(&names)? {
            if fs::target_of_unfinished(&name).is_some() {
                fs::remove_file(&names.join(name))?;
            }
        }
        self.empty_temporary()
    }

    fn layer_size(&self, chain_id: &Digest) -> Result<u64, Error> {
        let path = self.layer_path(chain_id).join("layer.json");
        let record = super::records::read::<super::records::UnpackedRecord>(&path)?;
        Ok(record.map_or(0, |record| record.size))
    }

    /// Moves a folder to `tmp`, so that half of it is never taken for a whole, and removes it there.
    fn discard(&self, path: &std::path::Path) -> Result<(), Error> {
        let temporary: Temporary = self.temporary()?;
        beneath::rename_folder(path, &temporary.path().join("removed"))?;
        Ok(())
    }
}

/// What becomes of images without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unnamed {
    Keep,
    Remove,
}

/// Whether a name by digest goes with the tag `taken`: when no other tag of its repository means the image.
fn goes_along(record: &ReferenceRecord, taken: &Reference, all: &[ReferenceRecord]) -> bool {
    let same = |reference: &Reference| {
        reference.registry == taken.registry && reference.repository == taken.repository
    };
    let other_tag = |other: &&ReferenceRecord| {
        let reference = &other.reference;
        other.image == record.image
            && reference.digest.is_none()
            && same(reference)
            && reference.tag != taken.tag
    };
    taken.digest.is_none()
        && record.reference.digest.is_some()
        && same(&record.reference)
        && all.iter().find(other_tag).is_none()
}
