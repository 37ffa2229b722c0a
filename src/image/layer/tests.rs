//! Each way in which a layer can be wrong, and each compression.

use super::*;
use crate::image::testing::{Folder, Tar, can_be_root, gzip, tree, zstd};
use crate::image::unpack::Marks;

fn archive() -> Vec<u8> {
    Tar::default()
        .file("a", &[b'a'; 300_000])
        .file("b", b"b")
        .end()
}

fn expected(archive: &[u8], blob: &[u8]) -> Expected {
    Expected {
        blob: Some((Digest::of(blob), blob.len() as u64)),
        diff_id: Digest::of(archive),
        most_bytes: None,
    }
}

fn place(folder: &Folder) -> Place<'_> {
    Place {
        folder: folder.path(),
        beside: None,
        marks: Marks::Trusted,
    }
}

fn check(bytes: &[u8], expected: &Expected, outcome: &str) {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let found = match unpack_verified(bytes, expected, &place(&folder)) {
        Ok(size) => format!("{size}: {}", tree(folder.path()).lines().count()),
        Err(e) => e.to_string(),
    };
    assert!(found.starts_with(outcome), "{found:?} and not {outcome:?}");
}

#[test]
fn each_compression_is_told_by_its_start() {
    let archive = archive();
    let size = format!("{}: 3", archive.len());
    let two_members = [gzip(&archive[..1000]), gzip(&archive[1000..])].concat();
    let two_frames = [zstd(&archive[..1000]), zstd(&archive[1000..])].concat();
    let skipped = [b"\x50\x2a\x4d\x18\x02\0\0\0ab".to_vec(), zstd(&archive)].concat();
    for blob in [
        archive.clone(),
        gzip(&archive),
        zstd(&archive),
        two_members,
        two_frames,
        skipped,
    ] {
        check(&blob, &expected(&archive, &blob), &size);
    }
    for (start, name) in [(b"\xfd7zXZ\0..".as_slice(), "xz"), (b"BZh9", "bzip2")] {
        check(
            start,
            &expected(start, start),
            &format!("it is compressed with {name}"),
        );
    }
}

#[test]
fn bytes_may_come_one_by_one() {
    if !can_be_root() {
        return;
    }
    let archive = Tar::default().file("a", &[b'a'; 3000]).end();
    for blob in [archive.clone(), gzip(&archive), zstd(&archive)] {
        let folder = Folder::new();
        let input = io::BufReader::with_capacity(1, blob.as_slice());
        let size = unpack_verified(input, &expected(&archive, &blob), &place(&folder));
        assert_eq!(size.expect("unpacked"), archive.len() as u64);
    }
}

#[test]
fn a_layer_without_anything_is_a_layer() {
    let archive = Tar::default().end();
    check(&archive, &expected(&archive, &archive), "1024: 1");
    check(b"", &expected(b"", b""), "0: 1");
}

#[test]
fn what_follows_the_end_counts_for_the_digest() {
    let archive = [archive(), b"more".to_vec()].concat();
    let blob = gzip(&archive);
    check(
        &blob,
        &expected(&archive, &blob),
        &format!("{}: 3", archive.len()),
    );
}

#[test]
fn wrong_bytes_are_found_whatever_they_break() {
    let archive = archive();
    let blob = gzip(&archive);
    let right = expected(&archive, &blob);
    let short = &blob[..blob.len() - 10];
    let say = format!("it ends after {} of {} bytes", short.len(), blob.len());
    check(short, &right, &say);
    check(
        &[blob.as_slice(), b"x"].concat(),
        &right,
        "it has more than the",
    );
    let mut garbled = blob.clone();
    garbled[blob.len() / 2] ^= 0xff;
    check(&garbled, &right, "its content has the digest sha256:");
    check(
        &garbled,
        &expected(&archive, &garbled),
        "its compressed data is damaged",
    );
    let other = Tar::default().file("a", b"other").end();
    let blob = gzip(&other);
    check(
        &blob,
        &expected(&archive, &blob),
        "its uncompressed content has the digest",
    );
    let broken = b"this is no archive, but long enough to be one".repeat(100);
    check(
        &broken,
        &expected(&broken, &broken),
        "the archive has a broken header",
    );
}

#[test]
fn a_bomb_is_stopped() {
    let archive = archive();
    let blob = gzip(&archive);
    let bounded = Expected {
        most_bytes: Some(200_000),
        ..expected(&archive, &blob)
    };
    check(
        &blob,
        &bounded,
        "it has more than 200000 bytes when uncompressed",
    );
    check(
        &archive,
        &Expected {
            blob: None,
            ..bounded
        },
        "it has more than 200000 bytes when uncompressed",
    );
}

#[test]
fn a_bomb_is_stopped_where_nobody_says_otherwise() {
    // What follows the archive's end is not written: only the processor has much to do.
    let archive = archive();
    let best = flate2::Compression::best();
    let mut member = flate2::write::GzEncoder::new(Vec::new(), best);
    io::Write::write_all(&mut member, &vec![0; 64 << 20]).expect("memory");
    let member = member.finish().expect("memory");
    let blob = [gzip(&archive), member.repeat(90)].concat();
    assert!(blob.len() < 8 << 20, "{}", blob.len());
    let unbounded = Expected {
        blob: None,
        ..expected(&archive, &blob)
    };
    check(&blob, &unbounded, "it has more than 4");
}

#[test]
fn a_reader_that_fails_is_not_a_damaged_layer() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let archive = archive();
    let blob = gzip(&archive);
    let folder = Folder::new();
    let input = io::BufReader::new(blob[..100].chain(Broken));
    let result = unpack_verified(input, &expected(&archive, &blob), &place(&folder));
    assert!(matches!(result, Err(Error::Read(_))), "{result:?}");
}
