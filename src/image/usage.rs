//! How much the store takes, and how much of it nothing needs.

use std::collections::BTreeMap;

use super::digest::Digest;
use super::error::Error;
use super::store::{Store, StoredImage};

/// What the store takes, in bytes of layers, uncompressed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUsage {
    pub images: Vec<UsedImage>,
    /// Each layer once.
    pub bytes: u64,
    /// Of layers that no image in use has.
    pub reclaimable: u64,
}

/// One image of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedImage {
    pub stored: StoredImage,
    /// Of layers that other images have, too.
    pub shared: u64,
    /// Of layers that only it has.
    pub unique: u64,
}

impl Store {
    /// What the store takes. `in_use` tells of an image id whether a pod uses it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn usage(&self, in_use: &dyn Fn(&str) -> bool) -> Result<ImageUsage, Error> {
        let listed = self.list()?;
        let _hold = self.hold()?;
        // How many images have a layer, whether one is in use, and the layer's bytes.
        let mut layers: BTreeMap<Digest, (usize, bool, u64)> = BTreeMap::new();
        let mut records = Vec::new();
        for stored in listed {
            let record = match Digest::parse(&stored.id) {
                Ok(id) => self.record(&id)?,
                Err(_) => None,
            };
            // It may have gone since it was listed.
            let Some(record) = record else { continue };
            let used = in_use(&stored.id);
            for layer in &record.layers {
                let entry = layers.entry(layer.chain_id.clone());
                let (count, any_used, bytes) = entry.or_default();
                *count += 1;
                *any_used |= used;
                *bytes = layer.size;
            }
            records.push((stored, record));
        }
        let images = records.into_iter().map(|(stored, record)| {
            let (mut shared, mut unique) = (0, 0);
            for layer in &record.layers {
                match layers.get(&layer.chain_id) {
                    Some((1, ..)) => unique += layer.size,
                    Some(_) | None => shared += layer.size,
                }
            }
            UsedImage {
                stored,
                shared,
                unique,
            }
        });
        Ok(ImageUsage {
            images: images.collect(),
            bytes: layers.values().map(|(_, _, bytes)| bytes).sum(),
            reclaimable: layers
                .values()
                .filter(|(_, used, _)| !used)
                .map(|(_, _, bytes)| bytes)
                .sum(),
        })
    }
}
