//! The store's files: JSON with a version, replaced as a whole. Unknown fields are not kept, so what changes the
//! meaning of a field also raises the version.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::Error;
use super::platform::Platform;
use crate::model::image::ImageConfig;
use crate::model::reference::Reference;
use crate::sys::fs;

/// The version of all records here.
pub(super) const VERSION: u32 = 1;

/// `images/ID/record.json`: what is needed of an image each time it is used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) version: u32,
    /// The digest of its configuration.
    pub(super) id: Digest,
    /// Lowest first.
    pub(super) layers: Vec<LayerRecord>,
    pub(super) config: ImageConfig,
    pub(super) created: Option<String>,
    pub(super) platform: Platform,
    /// Made by kplay itself: goes when no name and no pod has it any more.
    #[serde(default)]
    pub(super) embedded: bool,
}

/// A layer of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    /// Names its folder.
    pub(super) chain_id: Digest,
    pub(super) diff_id: Digest,
    /// Bytes, uncompressed.
    pub(super) size: u64,
}

/// `layers/CHAIN/layer.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UnpackedRecord {
    pub(super) version: u32,
    /// Bytes, uncompressed.
    pub(super) size: u64,
}

/// `references/….json`: which image a name means.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ReferenceRecord {
    pub(super) version: u32,
    pub(super) reference: Reference,
    pub(super) image: Digest,
}

/// `toolbox.json`: of which binary the embedded image was made last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ToolboxRecord {
    pub(super) version: u32,
    pub(super) binary: crate::sys::exe::Identity,
    pub(super) image: Digest,
}

/// Reads a record, if it is there.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let Some(bytes) = fs::read_if_there(path)? else {
        return Ok(None);
    };
    let record = serde_json::from_slice(&bytes).map_err(|source| Error::Record {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(record))
}

/// Writes a record.
pub(super) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(record).map_err(|source| Error::Record {
        path: path.to_owned(),
        source,
    })?;
    Ok(fs::replace(path, 0o600, &bytes)?)
}
