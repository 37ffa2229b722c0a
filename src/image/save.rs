//! Saves images: as the archive that `docker save` writes (docker-archive), or as an OCI layout in an archive
//! (oci-archive) or a folder (oci-dir). What comes last in each is what lists the rest, so that half of one is none.

mod half;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek as _, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::digest::Digest;
use super::error::Error as ImageError;
use super::export::{Blob, Error, Export, LayerCompression, exporting};
use super::manifest::{ManifestFormat, layer_type};
use super::records::LayerRecord;
use super::store::Store;
use crate::model::reference::Reference;
use crate::sys::stop::Stop;
use crate::sys::{beneath, fs};

use half::{HalfFile, HalfFolder};

/// Layers that are compressed at a time.
const LAYERS_AT_ONCE: usize = 3;
const BLOCK: u64 = 512;

/// How images are saved in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    Docker,
    Oci,
}

/// An image to be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToSave {
    /// `sha256:…`.
    pub id: String,
    /// The names that the archive gives it.
    pub names: Vec<Reference>,
}

impl Store {
    /// Saves images as an archive.
    ///
    /// # Errors
    /// One is not there or cannot be made again, or the archive cannot be written.
    pub fn save(
        &self,
        images: &[ToSave],
        format: ArchiveFormat,
        out: &mut dyn Write,
    ) -> Result<(), ImageError> {
        let saved = self.save_archive(images, format, out);
        saved.map_err(|error| self.stopped_or(error))
    }

    fn save_archive(
        &self,
        images: &[ToSave],
        format: ArchiveFormat,
        out: &mut dyn Write,
    ) -> Result<(), ImageError> {
        self.sweep()?;
        let _hold = self.hold()?;
        let mut target = Target::Archive(out);
        match format {
            ArchiveFormat::Docker => self.save_docker(images, &mut target)?,
            ArchiveFormat::Oci => self.save_oci(images, &mut target)?,
        }
        let ended = target.finish();
        ended.map_err(exporting("the images"))
    }

    /// Saves images as an archive in a file, which is not there before it is whole, and replaces what was. What is no
    /// regular file is written to.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_file(
        &self,
        images: &[ToSave],
        format: ArchiveFormat,
        path: &Path,
    ) -> Result<(), ImageError> {
        let there = fs::metadata_if_there(path)?;
        if there.is_some_and(|metadata| !metadata.is_file()) {
            let place = path.to_owned();
            // A FIFO waits for who reads.
            let file = self.unless(move || beneath::open_to_write(&place))??;
            let out = self.stop().waiting_writer(file);
            let mut out = io::BufWriter::with_capacity(1 << 17, out);
            return self.save(images, format, &mut out);
        }
        let saved = HalfFile::new(path).map_err(ImageError::from);
        let saved = saved.and_then(|half| {
            let out = self.stop().writer(half.file());
            let mut out = io::BufWriter::with_capacity(1 << 17, out);
            self.save(images, format, &mut out)?;
            drop(out);
            Ok(half.put(path)?)
        });
        saved.map_err(|error| error.naming_no_space_for(path))
    }

    /// Saves images as an OCI layout in a folder that is not there yet, or is empty.
    ///
    /// # Errors
    /// One is not there or cannot be made again, or the folder cannot be written; then it is not there.
    pub fn save_layout(&self, images: &[ToSave], folder: &Path) -> Result<(), ImageError> {
        let saved = self.save_folder(images, folder);
        saved.map_err(|error| self.stopped_or(error.naming_no_space_for(folder)))
    }

    fn save_folder(&self, images: &[ToSave], folder: &Path) -> Result<(), ImageError> {
        self.sweep()?;
        let _hold = self.hold()?;
        let there = fs::metadata_if_there(folder)?.is_some();
        if there && !fs::list(folder)?.is_empty() {
            let error = Error::NotEmpty(folder.to_owned());
            return Err(exporting("the images")(error));
        }
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent, 0o755)?;
        }
        let half = HalfFolder::new(folder)?;
        fs::create_dir_all(&half.path().join("blobs/sha256"), 0o755)?;
        let mut target = Target::Folder(half.path(), self.stop());
        self.save_oci(images, &mut target)?;
        Ok(half.put(folder)?)
    }

    fn exports(&self, images: &[ToSave]) -> Result<Vec<(Export, Vec<Reference>)>, ImageError> {
        let mut exports: BTreeMap<Digest, (Export, Vec<Reference>)> = BTreeMap::new();
        let mut order = Vec::new();
        for image in images {
            let id = Digest::parse(&image.id);
            let id = id.map_err(|_| ImageError::NotStored(image.id.clone()))?;
            if !exports.contains_key(&id) {
                exports.insert(id.clone(), (self.export(&id)?, Vec::new()));
                order.push(id.clone());
            }
            if let Some((_, names)) = exports.get_mut(&id) {
                for name in &image.names {
                    if !names.contains(name) {
                        names.push(name.clone());
                    }
                }
            }
        }
        Ok(order.iter().filter_map(|id| exports.remove(id)).collect())
    }

    fn save_docker(&self, images: &[ToSave], target: &mut Target<'_>) -> Result<(), ImageError> {
        let mut table = Vec::new();
        let mut written = BTreeSet::new();
        for (export, names) in self.exports(images)? {
            let id = &export.record.id;
            for layer in &export.record.layers {
                if written.insert(layer.diff_id.clone()) {
                    let name = format!("{}.tar", layer.diff_id.hex());
                    let put =
                        target.put_with(&name, layer.size, |out| self.write_archive(layer, out));
                    put.map_err(exporting(id.as_str()))?;
                }
            }
            let config = format!("{}.json", id.hex());
            let put = target.put(&config, &export.config);
            put.map_err(exporting(id.as_str()))?;
            let layers = export.record.layers.iter();
            let layers: Vec<String> = layers
                .map(|layer| format!("{}.tar", layer.diff_id.hex()))
                .collect();
            let tags: Vec<String> = names.iter().filter_map(tagged).collect();
            table.push(json!({ "Config": config, "RepoTags": tags, "Layers": layers }));
        }
        let table = Value::Array(table).to_string();
        let put = target.put("manifest.json", table.as_bytes());
        put.map_err(exporting("the images"))
    }

    fn save_oci(&self, images: &[ToSave], target: &mut Target<'_>) -> Result<(), ImageError> {
        let full = |error: ImageError| error.naming_no_space(self.dir());
        let spools = self.temporary().map_err(full)?;
        let exports = self.exports(images)?;
        let mut layers: BTreeMap<Digest, &LayerRecord> = BTreeMap::new();
        for (export, _) in &exports {
            layers.extend(export.record.layers.iter().map(|l| (l.diff_id.clone(), l)));
        }
        let layers: Vec<&LayerRecord> = layers.into_values().collect();
        let mut blobs = BTreeMap::new();
        for some in layers.chunks(LAYERS_AT_ONCE) {
            for (layer, blob) in self.pack_all(some, spools.path()).map_err(full)? {
                let put = target.put_file(&blob_name(&blob.digest), &blob);
                put.map_err(exporting(layer.as_str()))?;
                fs::remove_file(&spools.path().join(layer.hex()))?;
                blobs.insert(layer, (blob.digest, blob.size));
            }
        }
        let mut index = Vec::new();
        for (export, names) in &exports {
            let described = write_manifest(export, &blobs, target);
            let described = described.map_err(exporting(export.record.id.as_str()))?;
            if names.is_empty() {
                index.push(described.clone());
            }
            for name in names {
                let mut named = described.clone();
                named["annotations"] = json!({
                    "io.containerd.image.name": name.to_string(),
                    "org.opencontainers.image.ref.name": name.to_string(),
                });
                index.push(named);
            }
        }
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index,
        });
        let layout = json!({ "imageLayoutVersion": "1.0.0" }).to_string();
        let put = target
            .put("oci-layout", layout.as_bytes())
            .and_then(|()| target.put("index.json", index.to_string().as_bytes()));
        put.map_err(exporting("the images"))
    }

    /// Compresses some layers at the same time.
    fn pack_all(
        &self,
        layers: &[&LayerRecord],
        folder: &Path,
    ) -> Result<Vec<(Digest, Blob)>, ImageError> {
        std::thread::scope(|scope| {
            let packing: Vec<_> = layers
                .iter()
                .map(|layer| {
                    scope.spawn(|| {
                        let path = folder.join(layer.diff_id.hex());
                        let blob = self.pack(layer, LayerCompression::Gzip, &path)?;
                        Ok((layer.diff_id.clone(), blob))
                    })
                })
                .collect();
            let joined = packing.into_iter().map(|thread| match thread.join() {
                Ok(packed) => packed,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect()
        })
    }
}

/// Writes an image's configuration and manifest, and returns the manifest's descriptor.
fn write_manifest(
    export: &Export,
    blobs: &BTreeMap<Digest, (Digest, u64)>,
    target: &mut Target<'_>,
) -> Result<Value, Error> {
    let format = ManifestFormat::Oci;
    let media_type = layer_type(format, LayerCompression::Gzip);
    let layers = export.record.layers.iter().filter_map(|layer| {
        let (digest, size) = blobs.get(&layer.diff_id)?;
        Some(json!({ "mediaType": media_type, "digest": digest, "size": size }))
    });
    let manifest = format.manifest(export, layers.collect());
    let digest = Digest::of(&manifest);
    target.put(&blob_name(&export.record.id), &export.config)?;
    target.put(&blob_name(&digest), &manifest)?;
    let platform = &export.record.platform;
    let mut described = json!({
        "mediaType": format.media_type(), "digest": digest, "size": manifest.len(),
        "platform": { "os": platform.os, "architecture": platform.architecture },
    });
    if !platform.variant.is_empty() {
        described["platform"]["variant"] = json!(platform.variant);
    }
    Ok(described)
}

/// `RepoTags` has no digests.
fn tagged(name: &Reference) -> Option<String> {
    name.tag.as_ref()?;
    let name = Reference {
        digest: None,
        ..name.clone()
    };
    Some(name.to_string())
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// What is written to.
enum Target<'a> {
    Archive(&'a mut dyn Write),
    Folder(&'a Path, &'a Stop),
}

impl Target<'_> {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.put_with(name, bytes.len() as u64, |out| {
            out.write_all(bytes).map_err(Error::Write)
        })
    }

    fn put_file(&mut self, name: &str, blob: &Blob) -> Result<(), Error> {
        let mut file = &*blob.file;
        file.rewind().map_err(Error::Write)?;
        self.put_with(name, blob.size, |out| {
            let copied = io::copy(&mut file.take(blob.size), out);
            copied.map(drop).map_err(Error::Write)
        })
    }

    /// `fill` has to write exactly `size` bytes.
    fn put_with(
        &mut self,
        name: &str,
        size: u64,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self {
            Self::Archive(out) => {
                out.write_all(header(name, size)?.as_bytes())
                    .map_err(Error::Write)?;
                fill(&mut **out)?;
                let padding = (size.next_multiple_of(BLOCK) - size) as usize;
                let zeros = [0; BLOCK as usize];
                out.write_all(&zeros[..padding]).map_err(Error::Write)
            }
            Self::Folder(folder, stop) => {
                let path = folder.join(name);
                if path.exists() {
                    // Two images may share a blob.
                    return Ok(());
                }
                let file =
                    beneath::make_spool(&path).map_err(|e| Error::Write(io::Error::other(e)))?;
                let mut out = io::BufWriter::with_capacity(1 << 17, stop.writer(&file));
                fill(&mut out)?;
                out.flush().map_err(Error::Write)?;
                beneath::set_file_mode(&file, 0o644).map_err(Error::Write)
            }
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        match self {
            Self::Archive(out) => {
                let end = [0; 2 * BLOCK as usize];
                out.write_all(&end)
                    .and_then(|()| out.flush())
                    .map_err(Error::Write)
            }
            Self::Folder(..) => Ok(()),
        }
    }
}

/// The same for the same content, whenever it is saved.
fn header(name: &str, size: u64) -> Result<tar::Header, Error> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).map_err(Error::Write)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}
