//! Each hostility once; that what is right comes out right; and that nothing outside changes.

mod formats;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::*;
use crate::image::testing::{Folder, Head, Tar, can_be_root, tree};
use crate::sys::{beneath, fs};

const SMALL: Limits = Limits {
    entries: 20,
    folder_bytes: 2000,
};

fn place(folder: &Path) -> Place<'_> {
    Place {
        folder,
        beside: None,
        marks: Marks::Trusted,
    }
}

/// Unpacks beside a canary that must not change.
fn unpacked(bytes: &[u8], then: impl FnOnce(Result<(), Error>, &Path)) {
    let outer = Folder::new();
    let root = outer.path().join("layer");
    fs::create_dir_all(&root, 0o700).expect("a folder");
    fs::create_dir_all(&outer.path().join("outside"), 0o755).expect("a folder");
    fs::replace(&outer.path().join("outside/canary"), 0o644, b"alive").expect("a file");
    let before = tree(&outer.path().join("outside"));
    let result = std::thread::scope(|scope| {
        let run = scope.spawn(|| unpack(bytes, &place(&root), &SMALL));
        run.join().expect("no panic")
    });
    assert_eq!(tree(&outer.path().join("outside")), before);
    assert_eq!(
        fs::list(outer.path()).expect("a folder"),
        ["layer", "outside"]
    );
    then(result, &root);
}

/// What comes out, without the line of the root.
fn check(tar: Tar, expected: &[&str]) {
    if !can_be_root() {
        return;
    }
    unpacked(&tar.end(), |result, root| {
        result.expect("it unpacks");
        let found = tree(root);
        let lines: Vec<&str> = found.lines().skip(1).collect();
        assert_eq!(lines, expected);
    });
}

/// An error that says so.
fn refused(tar: Tar, expected: &str) {
    if !can_be_root() {
        return;
    }
    unpacked(&tar.end(), |result, _| {
        let error = result.expect_err("it is refused");
        let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
        let text: Vec<String> = chain.map(ToString::to_string).collect();
        assert!(text.join(": ").starts_with(expected), "{text:?}");
    });
}

#[test]
fn ordinary_entries_come_out_as_they_are() {
    check(
        Tar::default()
            .folder("./", 0o755)
            .folder("bin/", 0o755)
            .file("bin/sh", b"x")
            .entry(
                &Head {
                    path: b"bin/su",
                    mode: 0o4755,
                    ..Head::default()
                },
                b"s",
            )
            .entry(
                &Head {
                    path: b"own",
                    mode: 0o2640,
                    owner: (5, 70000),
                    ..Head::default()
                },
                b"",
            )
            .entry(
                &Head {
                    path: b"tmp",
                    kind: b'5',
                    mode: 0o1777,
                    ..Head::default()
                },
                b"",
            )
            .entry(
                &Head {
                    path: b"fifo",
                    kind: b'6',
                    mode: 0o622,
                    ..Head::default()
                },
                b"",
            )
            .symlink("link", "../../outside/canary")
            .link("hard", "bin/sh"),
        &[
            "755 0:0 bin/",
            "644 0:0 bin/sh = x",
            "4755 0:0 bin/su = s",
            "622 0:0 fifo fifo",
            "644 0:0 hard = x",
            "0:0 link -> ../../outside/canary",
            "2640 5:70000 own = ",
            "1777 0:0 tmp/",
        ],
    );
}

#[test]
fn the_root_has_its_own_mode_and_time() {
    if !can_be_root() {
        return;
    }
    let check = |tar: Tar, mode: u32, time: Option<i64>| {
        unpacked(&tar.end(), |result, root| {
            result.expect("it unpacks");
            let meta = std::fs::metadata(root).expect("the root");
            assert_eq!(meta.mode() & 0o7777, mode);
            assert!(time.is_none_or(|time| meta.mtime() == time));
        });
    };
    check(Tar::default().file("a", b""), 0o755, None);
    check(
        Tar::default().folder("./", 0o711).file("a", b""),
        0o711,
        Some(1),
    );
    check(
        Tar::default().folder("/", 0o500).file("a", b""),
        0o500,
        Some(1),
    );
}

#[test]
fn times_of_folders_survive_what_is_made_in_them() {
    if !can_be_root() {
        return;
    }
    let head = |path, kind, time| Head {
        path,
        kind,
        time,
        mode: 0o755,
        ..Head::default()
    };
    let tar = Tar::default()
        .entry(&head(b"d", b'5', 100), b"")
        .entry(&head(b"d/e", b'5', 200), b"")
        .entry(&head(b"d/e/f", b'0', 300), b"x");
    unpacked(&tar.end(), |result, root| {
        result.expect("it unpacks");
        let time = |path| {
            std::fs::metadata(root.join(path))
                .expect("an entry")
                .mtime()
        };
        assert_eq!((time("d"), time("d/e"), time("d/e/f")), (100, 200, 300));
    });
}

#[test]
fn a_path_that_leaves_the_root_is_refused() {
    refused(
        Tar::default().file("../outside/canary", b"dead"),
        "the entry `../outside/canary` leaves",
    );
    refused(
        Tar::default().file("a/../../outside/canary", b"dead"),
        "the entry `a/../../outside/canary` leaves",
    );
    refused(Tar::default().folder("..", 0o777), "the entry `..` leaves");
    refused(
        Tar::default().symlink("../x", "y"),
        "the entry `../x` leaves",
    );
}

#[test]
fn an_absolute_path_is_beneath_the_root() {
    check(
        Tar::default().file("/etc/x", b"1"),
        &["755 0:0 etc/", "644 0:0 etc/x = 1"],
    );
}

#[test]
fn a_linked_parent_leads_within_the_root() {
    check(
        Tar::default()
            .symlink("out", "../../outside")
            .file("out/canary", b"dead"),
        &[
            "0:0 out -> ../../outside",
            "755 0:0 outside/",
            "644 0:0 outside/canary = dead",
        ],
    );
    check(
        Tar::default()
            .folder("usr", 0o755)
            .folder("usr/lib", 0o755)
            .symlink("lib", "/usr/lib")
            .file("lib/x", b"1"),
        &[
            "0:0 lib -> /usr/lib",
            "755 0:0 usr/",
            "755 0:0 usr/lib/",
            "644 0:0 usr/lib/x = 1",
        ],
    );
    check(
        Tar::default()
            .symlink("a", "b/c")
            .symlink("b/c", "../d")
            .file("a/x", b"1"),
        &[
            "0:0 a -> b/c",
            "755 0:0 b/",
            "0:0 b/c -> ../d",
            "755 0:0 d/",
            "644 0:0 d/x = 1",
        ],
    );
    refused(
        Tar::default()
            .symlink("a", "b")
            .symlink("b", "a")
            .file("a/x", b"1"),
        "cannot make the folder of `a/x`",
    );
}

#[test]
fn a_magic_link_is_only_a_path() {
    check(
        Tar::default()
            .symlink("p", "/proc/self/root/dev/shm")
            .file("p/x", b"1"),
        &[
            "0:0 p -> /proc/self/root/dev/shm",
            "755 0:0 proc/",
            "755 0:0 proc/self/",
            "755 0:0 proc/self/root/",
            "755 0:0 proc/self/root/dev/",
            "755 0:0 proc/self/root/dev/shm/",
            "644 0:0 proc/self/root/dev/shm/x = 1",
        ],
    );
}

#[test]
fn a_file_is_not_written_through_a_link() {
    check(
        Tar::default()
            .symlink("x", "../outside/canary")
            .file("x", b"new"),
        &["644 0:0 x = new"],
    );
    check(
        Tar::default().symlink("x", "../outside").folder("x", 0o700),
        &["700 0:0 x/"],
    );
}

#[test]
fn a_hard_link_stays_within() {
    refused(
        Tar::default().link("x", "../outside/canary"),
        "the entry `x` is a hard link to `../outside/canary`, which leaves",
    );
    refused(
        Tar::default().link("x", "/outside/canary"),
        "the entry `x` is a hard link to `outside/canary`, which the layer",
    );
    refused(
        Tar::default()
            .symlink("out", "../outside")
            .link("x", "out/canary"),
        "the entry `x` is a hard link to `out/canary`, which the layer",
    );
    refused(
        Tar::default().folder("d", 0o755).link("x", "d"),
        "the entry `x` is a hard link to `d`",
    );
    refused(
        Tar::default().link("x", "."),
        "the entry `x` is a hard link to `.`",
    );
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_that_link() {
    check(
        Tar::default()
            .symlink("s", "../outside/canary")
            .link("x", "s"),
        &["0:0 s -> ../outside/canary", "0:0 x -> ../outside/canary"],
    );
    check(
        Tar::default().file("x", b"1").link("x", "./x"),
        &["644 0:0 x = 1"],
    );
}

#[test]
fn a_later_entry_wins() {
    check(
        Tar::default().file("x", b"old").file("x", b"n"),
        &["644 0:0 x = n"],
    );
    check(
        Tar::default().file("d/x", b"1").file("d", b"n"),
        &["644 0:0 d = n"],
    );
    check(
        Tar::default()
            .file("d", b"1")
            .folder("d", 0o711)
            .file("d/x", b"n"),
        &["711 0:0 d/", "644 0:0 d/x = n"],
    );
    check(
        Tar::default().file("d/x", b"1").folder("d", 0o711),
        &["711 0:0 d/", "644 0:0 d/x = 1"],
    );
    // What was open beneath the old folder must not be written to.
    check(
        Tar::default()
            .folder("a/b", 0o755)
            .file("a/b/x", b"1")
            .symlink("a", "c")
            .file("a/b/y", b"2"),
        &[
            "0:0 a -> c",
            "755 0:0 c/",
            "755 0:0 c/b/",
            "644 0:0 c/b/y = 2",
        ],
    );
    refused(
        Tar::default().file("f", b"").file("f/x", b""),
        "cannot make the folder of `f/x`: Not a directory",
    );
}

#[test]
fn whiteouts_hide_what_is_below_and_not_what_is_beside() {
    check(
        Tar::default().file("d/.wh.gone", b""),
        &["755 0:0 d/", "0 0:0 d/gone c 0:0"],
    );
    check(
        Tar::default()
            .folder("d", 0o755)
            .file("d/.wh..wh..opq", b""),
        &["755 0:0 d/ opaque"],
    );
    check(
        Tar::default().file("d/.wh..wh..opq", b"").file("d/x", b"1"),
        &["755 0:0 d/ opaque", "644 0:0 d/x = 1"],
    );
    check(
        Tar::default().file("x", b"1").file(".wh.x", b""),
        &["644 0:0 x = 1"],
    );
    check(
        Tar::default().file(".wh.x", b"").file("x", b"1"),
        &["644 0:0 x = 1"],
    );
    check(
        Tar::default().file(".wh.d", b"").folder("d", 0o755),
        &["755 0:0 d/ opaque"],
    );
    check(
        Tar::default().folder("d", 0o755).file(".wh.d", b""),
        &["755 0:0 d/ opaque"],
    );
    check(Tar::default().file(".wh..wh.plnk", b""), &[]);
}

#[test]
fn a_whiteout_hides_nothing_outside() {
    refused(
        Tar::default().file("d/.wh...", b""),
        "the entry `d/.wh...` is not something",
    );
    refused(
        Tar::default().file(".wh..", b""),
        "the entry `.wh..` is not something",
    );
    refused(
        Tar::default().file(".wh.", b""),
        "the entry `.wh.` is not something",
    );
    refused(
        Tar::default().file("../.wh.outside", b""),
        "the entry `../.wh.outside` leaves",
    );
    check(
        Tar::default()
            .symlink("o", "../outside")
            .file("o/.wh.canary", b""),
        &[
            "0:0 o -> ../outside",
            "755 0:0 outside/",
            "0 0:0 outside/canary c 0:0",
        ],
    );
}

#[test]
fn devices_are_kept() {
    let device = |path, kind, device| Head {
        path,
        kind,
        device,
        mode: 0o666,
        ..Head::default()
    };
    check(
        Tar::default()
            .entry(&device(b"null", b'3', (1, 3)), b"")
            .entry(&device(b"sda", b'4', (8, 0)), b""),
        &["666 0:0 null c 1:3", "666 0:0 sda b 8:0"],
    );
    refused(
        Tar::default().entry(&device(b"v", b'V', (0, 0)), b""),
        "the entry `v` is of a kind",
    );
}

#[test]
fn attributes_for_the_host_are_not_kept() {
    if !can_be_root() {
        return;
    }
    // cap_net_raw, permitted and effective, version 2.
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = Tar::default()
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/../outside"),
            ("SCHILY.xattr.user.overlay.redirect", b"/../outside"),
            ("SCHILY.xattr.trusted.other", b"1"),
        ])
        .entry(
            &Head {
                path: b"ping",
                mode: 0o755,
                owner: (1, 1),
                ..Head::default()
            },
            b"x",
        )
        .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .folder("d", 0o755);
    unpacked(&tar.end(), |result, root| {
        result.expect("it unpacks");
        let file = beneath::open_file(&root.join("ping")).expect("a file");
        let value = |name: &str| beneath::attribute(&file, name.as_bytes()).expect("attributes");
        assert_eq!(
            value("security.capability").as_deref(),
            Some(&capability[..])
        );
        assert_eq!(value("user.note").as_deref(), Some(&b"a\nb"[..]));
        for absent in [
            "trusted.overlay.redirect",
            "user.overlay.redirect",
            "trusted.other",
        ] {
            assert_eq!(value(absent), None, "{absent}");
        }
        assert!(
            tree(root).contains(
                "755 0:0 d/
"
            ),
            "not opaque"
        );
    });
}

#[test]
fn counts_are_bounded() {
    let many = (0..25).fold(Tar::default(), |tar, i| tar.file(&i.to_string(), b""));
    refused(many, "the layer has more than 20 entries");
    let long = "d".repeat(90);
    let deep = (0..19).fold(Tar::default(), |tar, i| {
        tar.folder(&format!("{i}{long}"), 0o755)
    });
    refused(deep, "the layer has more than 2000 bytes of folders' names");
}

#[test]
fn a_tree_deeper_than_open_files_is_removed() {
    if !can_be_root() {
        return;
    }
    let outer = Folder::new();
    let mut folder = outer.path().to_owned();
    // Each step is shorter than the longest path, all together are not.
    let step = "d/".repeat(1000);
    for level in 0..3 {
        let below = folder.join("s");
        fs::create_dir_all(&below.join(&step), 0o755).expect("folders");
        let link = outer.path().join(format!("l{level}"));
        std::os::unix::fs::symlink(below.join(&step), &link).expect("a link");
        folder = link;
    }
    let removed = outer.path().join("s");
    beneath::remove_all(&removed).expect("it goes");
    assert!(!removed.exists());
}
