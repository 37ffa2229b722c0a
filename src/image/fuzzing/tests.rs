//! Each target over its samples, and over what chance makes of them.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::image::testing::{Folder, can_be_root, tree};
use crate::image::unpack::{Limits, Marks, Place, unpack};
use crate::sys::fs;

/// A change; positions are taken within what there is.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    /// From, how much, to.
    Copy(usize, usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let piece = prop_oneof![
        vec(any::<u8>(), 1..20),
        proptest::sample::select(vec![
            "\0",
            "..",
            "/../",
            "\"",
            "{",
            "[",
            "-1",
            "99999999999999999999",
            "\n",
            "é"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<usize>(), piece).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<usize>(), 1_usize..600).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<usize>(), 1_usize..1100, any::<usize>())
            .prop_map(|(from, length, to)| Change::Copy(from, length, to)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let within = |at: usize| at % (bytes.len() + 1);
        match change {
            Change::Set(at, byte) => {
                let at = within(*at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Change::Insert(at, piece) => {
                let at = within(*at);
                bytes.splice(at..at, piece.iter().copied());
            }
            Change::Remove(at, length) => {
                let (at, end) = (within(*at), bytes.len());
                bytes.drain(at..(at + length).min(end));
            }
            Change::Copy(from, length, to) => {
                let (from, to, end) = (within(*from), within(*to), bytes.len());
                let piece = bytes[from..(from + length).min(end)].to_vec();
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

fn samples(name: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/testdata/image/fuzz/{name}", env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(&folder);
    let names = fs::list(folder).expect("samples");
    assert!(!names.is_empty());
    let read = |name| fs::read(&folder.join(name)).expect("a sample");
    names.into_iter().map(read).collect()
}

/// Runs a target over its samples and `cases` changed ones.
fn run(name: &str, cases: u32, target: impl Fn(&[u8])) {
    let samples = samples(name);
    samples.iter().for_each(|sample| target(sample));
    target(b"");
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    };
    proptest!(config, |(index in 0..samples.len(), changes in vec(change(), 1..8))| {
        target(&changed(samples[index].clone(), &changes));
    });
}

#[test]
fn archives() {
    run("archive", 500, archive);
}

#[test]
fn manifests() {
    run("manifest", 1000, manifest);
}

#[test]
fn references() {
    run("reference", 1000, reference);
}

#[test]
fn registries_confs() {
    run("registries_conf", 1000, registries_conf);
}

#[test]
fn auth_files() {
    run("auth_file", 1000, auth_file);
}

#[test]
fn challenges() {
    run("challenge", 1000, challenge);
}

/// That nothing gets out of the layer's folder.
#[test]
fn archives_are_written_within_their_folder() {
    if !can_be_root() {
        return;
    }
    let limits = Limits {
        entries: 1000,
        folder_bytes: 100_000,
    };
    run("archive", 150, |bytes| {
        let outer = Folder::new();
        let root = outer.path().join("layer");
        fs::create_dir_all(&root, 0o700).expect("a folder");
        fs::replace(&outer.path().join("canary"), 0o644, b"alive").expect("a file");
        let bytes = with_checksums(bytes);
        let place = Place {
            folder: &root,
            beside: None,
            marks: Marks::Trusted,
        };
        let written = std::thread::scope(|scope| {
            let run = scope.spawn(|| unpack(bytes.as_slice(), &place, &limits));
            run.join().expect("no panic")
        });
        // Whether it is right is not the question.
        drop(written);
        assert_eq!(
            fs::list(outer.path()).expect("a folder"),
            ["canary", "layer"]
        );
        let canary = tree(&outer.path().join("canary"));
        assert!(canary.ends_with("= alive"), "{canary}");
    });
}
