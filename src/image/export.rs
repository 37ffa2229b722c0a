//! Images on their way out of the store: each layer's archive is made again and compressed anew.
//!
//! ```text
//! unpack::recipe ─ hash, compare with the diff ID ─ compress ─ hash ─▶ a blob in a file
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::error::{Class, Error as ImageError};
use super::manifest::{Document, Manifest, ManifestFormat};
use super::records::{ImageRecord, LayerRecord};
use super::store::Store;
use super::unpack::{RecipeError, recipe};
use crate::sys::{beneath, fs};

/// Why an image cannot be given away.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("kplay made it of itself, and there is no archive of it")]
    Embedded,
    #[error("the archive of its layer {layer} cannot be made again")]
    Layer { layer: Digest, source: RecipeError },
    #[error(
        "the archive of its layer {layer} comes out as {actual}: a file of the layer has changed"
    )]
    Different { layer: Digest, actual: Digest },
    #[error("its layer {layer} has {actual} bytes, and {expected} are recorded")]
    Size {
        layer: Digest,
        expected: u64,
        actual: u64,
    },
    #[error("cannot write it")]
    Write(#[source] io::Error),
    #[error("the folder {0:?} is not empty")]
    NotEmpty(std::path::PathBuf),
}

impl Error {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Embedded => Class::Unsupported,
            Self::Different { .. } | Self::Size { .. } => Class::Corrupt,
            Self::Layer { source, .. } => match source {
                RecipeError::Unknown => Class::Unsupported,
                RecipeError::Damaged | RecipeError::Changed { .. } => Class::Corrupt,
                RecipeError::Read(_) | RecipeError::Content { .. } | RecipeError::Write(_) => {
                    Class::Machine
                }
            },
            Self::Write(_) | Self::NotEmpty(_) => Class::Machine,
        }
    }
}

/// How the layers of an image that goes out are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerCompression {
    Gzip,
    Zstd,
}

/// An image that goes out.
pub(super) struct Export {
    pub(super) record: ImageRecord,
    /// Verbatim.
    pub(super) config: Vec<u8>,
    /// What it came with, unless it came without.
    pub(super) original: Option<Original>,
}

/// A manifest that the image had somewhere else.
pub(super) struct Original {
    pub(super) bytes: Vec<u8>,
    pub(super) manifest: Manifest,
    pub(super) format: ManifestFormat,
}

/// A compressed layer.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) file: Arc<File>,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Store {
    /// An image that goes out; the caller has a hold.
    pub(super) fn export(&self, id: &Digest) -> Result<Export, ImageError> {
        let not_stored = || ImageError::NotStored(id.to_string());
        let record = self.record(id)?.ok_or_else(not_stored)?;
        if record.embedded {
            return Err(exporting(id.as_str())(Error::Embedded));
        }
        let folder = self.image_path(id);
        let config = fs::read(&folder.join("config.json"))?;
        let original = match fs::read_if_there(&folder.join("manifest.json"))? {
            None => None,
            Some(bytes) => match Document::parse(&bytes) {
                Ok(Document::Image(manifest)) => Some(Original {
                    format: ManifestFormat::of(&manifest),
                    bytes,
                    manifest,
                }),
                // It was read before it was stored.
                Ok(Document::Index(_)) | Err(_) => None,
            },
        };
        let fits = |original: &Original| original.manifest.layers.len() == record.layers.len();
        Ok(Export {
            original: original.filter(fits),
            record,
            config,
        })
    }

    /// Writes the archive of a layer, which is the very one that was unpacked.
    pub(super) fn write_archive(
        &self,
        layer: &LayerRecord,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let mut out = Hashed::new(out);
        let baked = recipe::bake(&self.layer_path(&layer.chain_id), &mut out);
        let bytes = baked.map_err(|source| match source {
            RecipeError::Write(e) => Error::Write(e),
            source => Error::Layer {
                layer: layer.diff_id.clone(),
                source,
            },
        })?;
        let (actual, layer_id) = (Digest::from_hash(out.hash), layer.diff_id.clone());
        if actual != layer.diff_id {
            return Err(Error::Different {
                layer: layer_id,
                actual,
            });
        }
        if bytes != layer.size {
            return Err(Error::Size {
                layer: layer_id,
                expected: layer.size,
                actual: bytes,
            });
        }
        Ok(())
    }

    /// Compresses the archive of a layer into a new file.
    pub(super) fn pack(
        &self,
        layer: &LayerRecord,
        compression: LayerCompression,
        path: &Path,
    ) -> Result<Blob, ImageError> {
        let file = beneath::make_spool(path)?;
        let packed = self.pack_into(layer, compression, file);
        packed.map_err(exporting(layer.diff_id.as_str()))
    }

    fn pack_into(
        &self,
        layer: &LayerRecord,
        compression: LayerCompression,
        file: File,
    ) -> Result<Blob, Error> {
        let out = self.stop().writer(file);
        let out = Hashed::new(BufWriter::with_capacity(1 << 17, out));
        let out = match compression {
            LayerCompression::Gzip => {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::GzEncoder::new(out, level);
                self.write_archive(layer, &mut encoder)?;
                encoder.finish()
            }
            LayerCompression::Zstd => {
                let mut encoder =
                    zstd::stream::write::Encoder::new(out, 0).map_err(Error::Write)?;
                encoder.include_checksum(true).map_err(Error::Write)?;
                self.write_archive(layer, &mut encoder)?;
                encoder.finish()
            }
        };
        let out = out.map_err(Error::Write)?;
        let (size, digest) = (out.bytes, Digest::from_hash(out.hash));
        let out = out.inner.into_inner().map_err(|e| Error::Write(e.into()))?;
        let file = Arc::new(out.into_inner());
        Ok(Blob { file, digest, size })
    }
}

/// Says of which image or layer it is.
pub(super) fn exporting(what: &str) -> impl FnOnce(Error) -> ImageError {
    let what = what.to_owned();
    move |source| ImageError::Export { what, source }
}

/// Counts and hashes what is written.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hash.update(&bytes[..length]);
        self.bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
