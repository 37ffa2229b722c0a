use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::model::plan::FileContent;
use crate::sys;
use crate::volume::tests::{Scratch, mode_and_group, resolve, some_group};

fn payload(files: &[(&str, u32, &str)]) -> Result<Payload, Error> {
    let files: Vec<VolumeFile> = files
        .iter()
        .map(|(path, mode, text)| VolumeFile {
            path: path.into(),
            mode: *mode,
            content: FileContent::Bytes(text.as_bytes().to_vec()),
        })
        .collect();
    Payload::collect(&files, &resolve)
}

fn write_all(root: &Path, files: &[(&str, u32, &str)]) {
    write(root, &payload(files).unwrap(), None).unwrap();
}

/// What a volume shows, links with their targets; the timestamped folder is called `TIME`.
fn shown(root: &Path) -> Vec<String> {
    let folder = Dir::open(root).unwrap();
    let mut lines = Vec::new();
    for (name, kind) in folder.entries().unwrap() {
        let text = name.to_str().unwrap().to_owned();
        match folder.link(&name).unwrap() {
            Some(target) if text == DATA => {
                lines.push(format!("..data -> {}", time(target.to_str().unwrap())));
            }
            Some(target) => lines.push(format!("{text} -> {}", target.display())),
            None if kind == Kind::Folder => lines.push(format!("{}/", time(&text))),
            None => lines.push(text),
        }
    }
    lines.sort();
    lines
}

/// `..YYYY_MM_DD_hh_mm_ss.NUMBER`
fn time(name: &str) -> &str {
    let rest = name.strip_prefix("..").unwrap_or_default();
    let (calendar, number) = rest.split_once('.').unwrap_or_default();
    let fields: Vec<usize> = calendar.split('_').map(str::len).collect();
    let digits = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_')
    };
    let is_time =
        fields == [4, 2, 2, 2, 2, 2] && digits(calendar) && !number.is_empty() && digits(number);
    if is_time { "TIME" } else { name }
}

fn current(root: &Path) -> PathBuf {
    Dir::open(root)
        .unwrap()
        .link(OsStr::new(DATA))
        .unwrap()
        .unwrap()
}

fn read(root: &Path, path: &str) -> Option<String> {
    let bytes = sys::fs::read_if_there(&root.join(path)).unwrap()?;
    Some(String::from_utf8(bytes).unwrap())
}

#[test]
fn the_layout_is_a_kubelets() {
    let scratch = Scratch::new("files-layout");
    let root = scratch.path("");
    write_all(
        &root,
        &[
            ("key", 0o644, "1"),
            ("folder/deep/file", 0o400, "2"),
            ("folder/x", 0o755, ""),
        ],
    );
    assert_eq!(
        shown(&root),
        [
            "..data -> TIME",
            "TIME/",
            "folder -> ..data/folder",
            "key -> ..data/key"
        ]
    );
    assert_eq!(read(&root, "key").as_deref(), Some("1"));
    assert_eq!(read(&root, "folder/deep/file").as_deref(), Some("2"));
    let mode = |path: &str| mode_and_group(&root.join("..data").join(path)).0;
    assert_eq!(mode("key"), 0o644);
    assert_eq!(mode("folder/x"), 0o755);
    assert_eq!(mode("folder/deep/file"), 0o400);
    assert_eq!(mode("folder/deep"), 0o755);
    assert_eq!(mode_and_group(&root.join(current(&root))).0, 0o755);
}

#[test]
fn a_group_can_read_what_it_is_given() {
    let scratch = Scratch::new("files-group");
    let root = scratch.path("");
    let group = some_group(&scratch);
    let files = [("key", 0o400, "1"), ("folder/file", 0o600, "2")];
    for content in ["1", "2"] {
        let files = payload(&[files[0], ("folder/file", 0o600, content)]).unwrap();
        write(&root, &files, Some(group)).unwrap();
        let check = |path: &str, mode| {
            assert_eq!(mode_and_group(&root.join(path)), (mode, group), "{path}");
        };
        check("..data/key", 0o440);
        check("..data/folder/file", 0o640);
        check("..data/folder", 0o2755);
        check("", 0o2755);
        check(current(&root).to_str().unwrap(), 0o2755);
        assert_eq!(mode_and_group(&root.join("key")).1, group);
    }
}

#[test]
fn an_update_adds_changes_and_removes() {
    let scratch = Scratch::new("files-update");
    let root = scratch.path("");
    write_all(
        &root,
        &[
            ("a", 0o644, "1"),
            ("b", 0o644, "1"),
            ("c/d", 0o644, "1"),
            ("c/e", 0o644, "1"),
        ],
    );
    let first = current(&root);
    write_all(
        &root,
        &[("a", 0o644, "2"), ("c/e", 0o644, "1"), ("f/g", 0o644, "1")],
    );
    assert_ne!(current(&root), first);
    assert_eq!(
        shown(&root),
        [
            "..data -> TIME",
            "TIME/",
            "a -> ..data/a",
            "c -> ..data/c",
            "f -> ..data/f"
        ]
    );
    assert_eq!(read(&root, "a").as_deref(), Some("2"));
    assert_eq!(read(&root, "c/d"), None);
    assert_eq!(read(&root, "c/e").as_deref(), Some("1"));
    write_all(&root, &[]);
    assert_eq!(shown(&root), ["..data -> TIME", "TIME/"]);
}

#[test]
fn what_has_not_changed_is_not_written() {
    let scratch = Scratch::new("files-same");
    let root = scratch.path("");
    let files = [("a", 0o644, "1"), ("c/d", 0o644, "1")];
    write_all(&root, &files);
    let first = current(&root);
    write_all(&root, &files);
    assert_eq!(current(&root), first);
    // A file less in a folder that stays is a change.
    write_all(&root, &[("a", 0o644, "1"), ("c/e", 0o644, "1")]);
    assert_ne!(current(&root), first);
    // A writer that died between the change of `..data` and the links.
    let folder = Dir::open(&root).unwrap();
    folder.remove(OsStr::new("a")).unwrap();
    let second = current(&root);
    write_all(&root, &[("a", 0o644, "1"), ("c/e", 0o644, "1")]);
    assert_eq!(current(&root), second);
    assert_eq!(read(&root, "a").as_deref(), Some("1"));
}

#[test]
fn what_a_dead_writer_left_is_swept() {
    let scratch = Scratch::new("files-dead");
    let root = scratch.path("");
    write_all(&root, &[("a", 0o644, "1")]);
    let folder = Dir::open(&root).unwrap();
    // It died before the rename, twice.
    let half = folder
        .create_folder(OsStr::new("..2020_01_01_00_00_00.1"), 0o755)
        .unwrap();
    half.create_file(OsStr::new("a"), 0o600, b"half").unwrap();
    folder
        .create_folder(OsStr::new("..2020_01_01_00_00_00.2"), 0o755)
        .unwrap();
    folder
        .create_link(OsStr::new(NEW_DATA), Path::new("..2020_01_01_00_00_00.2"))
        .unwrap();
    assert_eq!(read(&root, "a").as_deref(), Some("1"));
    write_all(&root, &[("a", 0o644, "2")]);
    assert_eq!(shown(&root), ["..data -> TIME", "TIME/", "a -> ..data/a"]);
    assert_eq!(read(&root, "a").as_deref(), Some("2"));
    // `..data` that leads nowhere is as none.
    folder.remove(current(&root).as_os_str()).unwrap();
    write_all(&root, &[("a", 0o644, "2")]);
    assert_eq!(read(&root, "a").as_deref(), Some("2"));
}

#[test]
fn a_failed_write_leaves_the_old_files() {
    let scratch = Scratch::new("files-failed");
    let root = scratch.path("");
    write_all(&root, &[("a", 0o644, "1")]);
    let first = current(&root);
    // A file cannot be a folder too.
    let impossible = payload(&[("a", 0o644, "2"), ("a/b", 0o644, "2")]).unwrap();
    write(&root, &impossible, None).unwrap_err();
    assert_eq!(current(&root), first);
    assert_eq!(shown(&root), ["..data -> TIME", "TIME/", "a -> ..data/a"]);
    assert_eq!(read(&root, "a").as_deref(), Some("1"));
}

#[test]
fn paths_stay_in_the_volume() {
    let check = |path: &str, expected: Option<&str>| {
        let actual = payload(&[(path, 0o644, "")]).err().map(|e| e.to_string());
        let expected = expected.map(|problem| format!("the volume's file `{path}` {problem}"));
        assert_eq!(actual, expected);
    };
    check("a", None);
    check("a/b", None);
    check(".a", None);
    check("a/..b", None);
    check("...", Some("starts with `..`"));
    check("..data", Some("starts with `..`"));
    check("..data/a", Some("starts with `..`"));
    check("./..data", Some("starts with `..`"));
    check("..", Some("has a `..`"));
    check("a/../b", Some("has a `..`"));
    check("/a", Some("is not relative"));
    check("", Some("has no name"));
    check(".", Some("has no name"));
    check(&"x".repeat(255), None);
    check(&"x".repeat(256), Some("has a name that is too long"));
    check(&"abc/".repeat(1025), Some("is too long"));
}

#[test]
fn the_later_of_two_files_counts() {
    let scratch = Scratch::new("files-twice");
    let root = scratch.path("");
    write_all(&root, &[("a", 0o644, "1"), ("./a", 0o600, "2")]);
    assert_eq!(read(&root, "a").as_deref(), Some("2"));
    assert_eq!(mode_and_group(&root.join("..data/a")).0, 0o600);
}

#[test]
fn a_reader_sees_all_old_or_all_new_files() {
    let scratch = Scratch::new("files-readers");
    let root = scratch.path("");
    let write_version = |version: u32| {
        let text = version.to_string();
        write_all(&root, &[("a", 0o644, &text), ("b/c", 0o644, &text)]);
    };
    write_version(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| read_versions(&root, &stop)))
            .collect();
        (1..300).for_each(write_version);
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}

/// Reads pairs of files until told to stop; returns how many pairs were there.
fn read_versions(root: &Path, stop: &AtomicBool) -> u32 {
    let mut pairs = 0;
    while !stop.load(Ordering::Relaxed) {
        // A reader that is overtaken finds that its folder is gone, and looks again.
        let folder = root.join(current(root));
        let pair = ["a", "b/c"].map(|name| read(&folder, name));
        if let [Some(a), Some(b)] = pair {
            assert_eq!(a, b);
            pairs += 1;
        }
        // Through the links the file is always there.
        match std::fs::metadata(root.join("a")) {
            Ok(_) => {}
            // The kernel resolved `..data` right before it changed, and the old folder went before the next step.
            Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound),
        }
    }
    pairs
}
