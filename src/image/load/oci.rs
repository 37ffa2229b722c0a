//! OCI layouts: `index.json` lists manifests, and everything is in `blobs` under its digest.

use std::collections::BTreeMap;

use super::contents::Contents;
use super::{Error, Part, Plan, reference};
use crate::image::digest::Digest;
use crate::image::manifest::{
    self, Descriptor, Document, Entry, MOST_CONFIG_BYTES, MOST_MANIFEST_BYTES, Manifest,
};
use crate::image::platform::Platform;
use crate::model::reference::Reference;

/// Indexes within indexes that are followed.
const MOST_NESTED: u32 = 3;

/// The images that the index lists: one for each name, and one for those without a name.
pub(super) fn plans(contents: &Contents, index: &[u8], part: &Part) -> Result<Vec<Plan>, Error> {
    let mut entries = match parse("index.json", index)? {
        Document::Index(entries) => entries,
        Document::Image(_) => return Err(Error::Unknown),
    };
    if let Part::Named(wanted) = part {
        let there = entries.iter().flat_map(own_names).cloned().collect();
        entries.retain(|entry| own_names(entry).any(|name| name == wanted));
        if entries.is_empty() {
            let wanted = wanted.clone();
            return Err(Error::NoImage { wanted, there });
        }
        let reference = match entries.iter().find_map(name) {
            Some(name) => reference(&name)?,
            // A tag alone is of this machine, as with podman.
            None => reference(&format!("localhost/{wanted}"))?,
        };
        return Ok(vec![plan(contents, &entries, Some(reference))?]);
    }
    let mut by_name: BTreeMap<Option<String>, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        by_name.entry(name(&entry)).or_default().push(entry);
    }
    by_name
        .into_iter()
        .map(|(name, entries)| {
            let reference = name.as_deref().map(reference).transpose()?;
            plan(contents, &entries, reference)
        })
        .collect()
}

/// What an index may call an image.
fn own_names(entry: &Entry) -> impl Iterator<Item = &String> {
    let keys = [
        "io.containerd.image.name",
        "org.opencontainers.image.ref.name",
    ];
    keys.into_iter()
        .filter_map(|key| entry.annotations.get(key))
}

/// The name of an image: all of it is in containerd's annotation; OCI's may have only the tag, which is no name.
fn name(entry: &Entry) -> Option<String> {
    let whole = entry.annotations.get("io.containerd.image.name");
    let named = entry.annotations.get("org.opencontainers.image.ref.name");
    whole
        .or(named.filter(|name| name.contains(['/', ':'])))
        .cloned()
}

fn plan(
    contents: &Contents,
    entries: &[Entry],
    reference: Option<Reference>,
) -> Result<Plan, Error> {
    let (bytes, digest, manifest) = image(contents, entries, MOST_NESTED)?;
    let config_name = blob_name(&manifest.config.digest);
    let config = blob(contents, &manifest.config, MOST_CONFIG_BYTES)?;
    let layer = |layer: Descriptor| (blob_name(&layer.digest), Some((layer.digest, layer.size)));
    let layers = manifest.layers.into_iter().map(layer).collect();
    let references = reference.into_iter().collect();
    Plan::new(
        config,
        &config_name,
        Some((bytes, digest)),
        layers,
        references,
    )
}

/// The manifest for this machine. One that is alone is taken for what it is.
fn image(
    contents: &Contents,
    entries: &[Entry],
    nested: u32,
) -> Result<(Vec<u8>, Digest, Manifest), Error> {
    let unusable = |source| Error::Manifest {
        name: "index.json".into(),
        source,
    };
    let entry = match entries {
        [only] => only,
        several => manifest::choose(several, &Platform::host()).map_err(unusable)?,
    };
    let descriptor = &entry.descriptor;
    let bytes = blob(contents, descriptor, MOST_MANIFEST_BYTES)?;
    match parse(&blob_name(&descriptor.digest), &bytes)? {
        Document::Image(manifest) => Ok((bytes, descriptor.digest.clone(), manifest)),
        Document::Index(entries) => match nested.checked_sub(1) {
            Some(nested) => image(contents, &entries, nested),
            None => Err(unusable(manifest::Error::Nested)),
        },
    }
}

fn parse(name: &str, bytes: &[u8]) -> Result<Document, Error> {
    Document::parse(bytes).map_err(|source| Error::Manifest {
        name: name.to_owned(),
        source,
    })
}

fn blob(contents: &Contents, descriptor: &Descriptor, most: u64) -> Result<Vec<u8>, Error> {
    let name = blob_name(&descriptor.digest);
    let bytes = contents.needed(&name, most)?;
    if bytes.len() as u64 == descriptor.size && Digest::of(&bytes) == descriptor.digest {
        Ok(bytes)
    } else {
        Err(Error::Digest { name })
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
