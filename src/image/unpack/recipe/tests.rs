//! What was unpacked is packed again, to the byte; or it is said why not.

use std::path::PathBuf;

use super::*;
use crate::image::testing::{Folder, Head, Tar, can_be_root, gzip, noise};
use crate::image::unpack::{Limits, Marks, Place, unpack};
use crate::sys::fs;

/// Unpacks into `folder/diff`; what is kept goes beside it.
fn unpacked(archive: &[u8], folder: &Folder) -> PathBuf {
    let diff = folder.path().join("diff");
    fs::create_dir_all(&diff, 0o755).expect("a folder");
    let place = Place {
        folder: &diff,
        beside: Some(folder.path()),
        marks: Marks::Trusted,
    };
    std::thread::scope(|scope| {
        let run = scope.spawn(|| unpack(archive, &place, &Limits::USUAL));
        run.join().expect("no panic").expect("it unpacks");
    });
    diff
}

fn check(archive: &[u8]) {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    unpacked(archive, &folder);
    let mut out = Vec::new();
    let bytes = bake(folder.path(), &mut out).expect("it can be made again");
    assert!(out == archive, "{} bytes of {}", out.len(), archive.len());
    assert_eq!(bytes, archive.len() as u64);
}

fn head(path: &[u8], kind: u8) -> Head<'_> {
    Head {
        path,
        kind,
        ..Head::default()
    }
}

#[test]
fn every_kind_of_entry_comes_back() {
    let tar = Tar::default()
        .folder("./", 0o755)
        .folder("bin/", 0o755)
        .file("bin/sh", &noise(300_000))
        .file("bin/empty", b"")
        .link("bin/ash", "bin/sh")
        .symlink("lib", "usr/lib")
        .file("lib/through-a-link", b"found where it leads")
        .pax(&[("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"1")])
        .file("pax", b"x")
        .pax(&[("comment", &[b'c'; 5000])])
        .file("long", b"y")
        .entry(&head(b"fifo", b'6'), b"")
        .file(".wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file(".wh.with-content", b"which is in no file");
    check(&tar.end());
    check(&Tar::default().end());
    check(b"");
}

#[test]
fn what_follows_the_end_comes_back() {
    let mut archive = Tar::default().file("a", b"a").end();
    archive.extend_from_slice(&noise(100_000));
    check(&archive);
    check(&Tar::default().file("a", b"a").unended());
}

#[test]
fn what_a_later_entry_replaces_comes_back() {
    let tar = Tar::default()
        .file("twice", b"first")
        .file("twice", b"second")
        .folder("folder/", 0o755)
        .file("folder/a/b", b"in a folder")
        .file("folder", b"now a file")
        .folder("folder/", 0o700)
        .file("folder/a", b"third")
        .file("link", b"was a file")
        .symlink("link", "twice")
        .file("linked", b"content")
        .link("also", "linked")
        .file("linked", b"other content")
        .file("twice", b"third");
    check(&tar.end());
}

#[test]
fn files_with_holes_come_back() {
    let records: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"holes"),
        ("GNU.sparse.realsize", b"1000000"),
    ];
    let mut content = b"2\n0\n3\n500000\n4\n".to_vec();
    content.resize(512, 0);
    content.extend_from_slice(b"abcdefg");
    let tar = Tar::default()
        .pax(records)
        .file("placeholder", &content)
        .file("after", b"1");
    check(&tar.end());
}

#[test]
fn what_is_missing_or_damaged_is_told() {
    if !can_be_root() {
        return;
    }
    let archive = Tar::default().file("a", &noise(1000)).file("b", b"b").end();
    let check = |harm: &dyn Fn(&Folder, &Path), expected: &str| {
        let folder = Folder::new();
        let diff = unpacked(&archive, &folder);
        harm(&folder, &diff);
        let error = bake(folder.path(), &mut io::sink()).expect_err("it cannot be made");
        assert_eq!(error.to_string(), expected);
    };
    let recipe = |folder: &Folder| folder.path().join(FILE);
    check(
        &|folder, _| fs::remove_file(&recipe(folder)).expect("removed"),
        "what its archive was is not recorded",
    );
    check(
        &|folder, _| fs::replace(&recipe(folder), 0o600, b"").expect("written"),
        "the record of its archive is damaged",
    );
    check(
        &|folder, _| {
            let half = fs::read(&recipe(folder)).expect("read");
            fs::replace(&recipe(folder), 0o600, &half[..half.len() / 2]).expect("written");
        },
        "the record of its archive is damaged",
    );
    check(
        &|folder, _| {
            let other = zstd::stream::encode_all(&gzip(b"other")[..], 1).expect("memory");
            fs::replace(&recipe(folder), 0o600, &other).expect("written");
        },
        "the record of its archive is damaged",
    );
    check(
        &|_, diff| fs::remove_file(&diff.join("b")).expect("removed"),
        "cannot read its file `b`",
    );
    check(
        &|_, diff| fs::replace(&diff.join("a"), 0o600, b"short").expect("written"),
        "its file `a` has changed",
    );
}
