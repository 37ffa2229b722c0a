//! What reads other people's bytes, each as one function that must not panic, run long or disagree with itself, whatever
//! it is given. `tests/fuzz` has a target of cargo-fuzz for each; the tests here run them over `testdata/image/fuzz` and
//! over what becomes of that by chance.

#[cfg(test)]
mod tests;

use super::auth;
use super::manifest::{self, Configuration, Document, MOST_LAYERS};
use super::platform::Platform;
use super::registries;
use super::unpack::archive::{Archive, Kind};
use super::unpack::path::clean;
use crate::model::reference::{ImageName, Reference};

/// A layer's or image's archive: as it is, and with the checksums of its headers made right, without which nothing in it
/// would be looked at.
pub fn archive(bytes: &[u8]) {
    read_archive(bytes);
    read_archive(&with_checksums(bytes));
}

fn read_archive(bytes: &[u8]) {
    let mut archive = Archive::new(bytes);
    let mut contents = 0;
    while let Ok(Some(entry)) = archive.next() {
        assert!(!entry.path.is_empty() && !entry.path.contains(&0));
        assert!(entry.mode <= 0o7777);
        if let Some(path) = clean(&entry.path) {
            let mut parts = path.split(|byte| *byte == b'/');
            assert!(parts.all(|part| part != b".." && part != b"."));
        }
        if let Kind::Sparse { pieces, size } = &entry.kind {
            let stored: u64 = pieces.iter().map(|(_, bytes)| bytes).sum();
            assert_eq!(stored, entry.size);
            assert!(pieces.iter().all(|(start, bytes)| start + bytes <= *size));
        }
        while let Ok(content) = archive.content(1000) {
            let length = content.len();
            if length == 0 {
                break;
            }
            contents += length;
            archive.consume(length);
        }
        assert!(contents <= bytes.len());
    }
}

/// An archive whose headers are what their checksums say.
#[must_use]
pub fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if block.get(257..262) == Some(b"ustar") {
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    bytes
}

/// A manifest, an index or a configuration.
pub fn manifest(bytes: &[u8]) {
    match Document::parse(bytes) {
        Ok(Document::Image(manifest)) => assert!(manifest.layers.len() <= MOST_LAYERS),
        Ok(Document::Index(entries)) => {
            // There may be none.
            drop(manifest::choose(&entries, &Platform::host()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(configuration) = Configuration::parse(bytes) {
        let mut volumes = configuration.config.volumes.iter();
        assert!(volumes.all(|path| path.is_absolute() && path.parent().is_some()));
    }
}

/// A name of an image. What it is printed as means the same.
pub fn reference(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(name) = ImageName::parse(&text) else {
        return;
    };
    let printed = name.reference().to_string();
    assert_eq!(Reference::parse(&printed).as_ref(), Ok(name.reference()));
    assert!(printed.is_ascii() && !printed.contains(['\n', '\\', '?', '#']));
}

/// `registries.conf`, and what it makes of some names.
pub fn registries_conf(bytes: &[u8]) {
    registries::fuzz(&String::from_utf8_lossy(bytes));
}

/// A file with credentials.
pub fn auth_file(bytes: &[u8]) {
    auth::fuzz_file(bytes);
}

/// What a registry says that it wants: `WWW-Authenticate`, one a line.
pub fn challenge(bytes: &[u8]) {
    auth::fuzz_challenge(&String::from_utf8_lossy(bytes));
}
