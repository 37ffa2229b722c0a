//! Both ends in this process, with an archive in memory or a pipe between them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::*;

/// A folder of the test's own, which is `/` for both ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kplay-copy-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| format!("{path}: {error}"))
    }

    /// Every path in it, with what links lead to.
    fn all(&self) -> Vec<String> {
        fn walk(folder: &Path, base: &Path, all: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                let shown = path.strip_prefix(base).unwrap().display().to_string();
                match fs::read_link(&path) {
                    Ok(target) => all.push(format!("{shown} -> {}", target.display())),
                    Err(_) => all.push(shown),
                }
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    walk(&path, base, all);
                }
            }
        }
        let mut all = Vec::new();
        walk(&self.0, &self.0, &mut all);
        all.sort();
        all
    }

    fn job(&self, path: &str, deed: Deed) -> (Root, Job) {
        let job = Job {
            deed,
            path: path.into(),
            directory: "/".into(),
            label: String::new(),
            person: None,
        };
        (Root::open(&self.0).unwrap(), job)
    }

    fn pack(&self, path: &str, stream: OwnedFd) -> Report {
        let top = Top::of(Path::new(path));
        let (root, job) = self.job(path, Deed::Pack(top.clone()));
        pack::run(&root, &job, &top, stream.into())
    }

    fn unpack(&self, path: &str, top: &Top, stream: OwnedFd) -> Report {
        let (root, job) = self.job(path, Deed::Unpack(top.clone()));
        unpack::run(&root, &job, top, stream.into())
    }

    /// An archive of somebody else's.
    fn unpack_foreign(&self, archive: &[u8]) -> Report {
        let (reader, writer) = fd::pipe().unwrap();
        let archive = archive.to_vec();
        let writes = std::thread::spawn(move || fs::File::from(writer).write_all(&archive));
        let report = self.unpack("/", &Top::Foreign, reader);
        writes.join().unwrap().ok();
        report
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn copy(from: &Folder, source: &str, to: &Folder, destination: &str) -> [Report; 2] {
    let (reader, writer) = fd::pipe().unwrap();
    let top = Top::of(Path::new(source));
    std::thread::scope(|scope| {
        let packed = scope.spawn(|| from.pack(source, writer));
        let unpacked = to.unpack(destination, &top, reader);
        [packed.join().unwrap(), unpacked]
    })
}

fn fault([packed, unpacked]: [Report; 2]) -> String {
    let faults = [packed.fault, unpacked.fault].into_iter().flatten();
    let texts: Vec<String> = faults
        .filter(|fault| *fault != Fault::Ended)
        .map(|fault| fault.to_string())
        .collect();
    texts.join("; ")
}

#[test]
fn names_at_the_other_end_are_dockers() {
    let from = Folder::new("names-from");
    from.file("data/sub/file", "x");
    from.file("one", "1");
    symlink("data", from.0.join("link")).unwrap();
    let check = |source: &str, destination: &str, expected: Result<&[&str], &str>| {
        let to = Folder::new("names-to");
        to.file("there/old", "");
        let before = to.all();
        let reports = copy(&from, source, &to, destination);
        match (expected, fault(reports)) {
            (Ok(expected), fault) => {
                assert_eq!(fault, "", "{source} {destination}");
                let new: Vec<String> = to
                    .all()
                    .into_iter()
                    .filter(|p| !before.contains(p))
                    .collect();
                assert_eq!(new, expected, "{source} {destination}");
            }
            (Err(words), fault) => {
                assert!(fault.contains(words), "{source} {destination}: {fault}");
                assert_eq!(to.all(), before, "{source} {destination}");
            }
        }
    };
    check("one", "there", Ok(&["there/one"]));
    check("one", "there/", Ok(&["there/one"]));
    check("/one", "new", Ok(&["new"]));
    check("one", "there/old", Ok(&[]));
    check("one", "new/", Err("`new/` is not there"));
    check("one", "no/new", Err("`no` is not there"));
    check("one", "there/old/new", Err("`there/old` is no folder"));
    check("none", "there", Err("`none` is not there"));
    check("one/.", "there", Err("`one/.`: Not a directory"));
    let tree: &[&str] = &["there/data", "there/data/sub", "there/data/sub/file"];
    check("data", "there", Ok(tree));
    check("data/", "/there", Ok(tree));
    check("data", "new", Ok(&["new", "new/sub", "new/sub/file"]));
    check("data/.", "new/", Ok(&["new", "new/sub", "new/sub/file"]));
    check("data/.", "there", Ok(&["there/sub", "there/sub/file"]));
    check("link", "new", Ok(&["new", "new/sub", "new/sub/file"]));
    check(
        "data",
        "there/old",
        Err("`there/old` is there, and no folder"),
    );
    check(
        "data/.",
        "there/old",
        Err("`there/old` is there, and no folder"),
    );
}

#[test]
fn modes_times_and_links_are_kept_and_set_id_is_not() {
    let (from, to) = (Folder::new("keep-from"), Folder::new("keep-to"));
    from.file("tree/file", "content");
    from.file("tree/closed/inner", "");
    symlink("/etc/passwd", from.0.join("tree/absolute")).unwrap();
    symlink("../..//../x/", from.0.join("tree/odd")).unwrap();
    let long = format!("{}/{}", "l".repeat(120), "m".repeat(120));
    symlink(&long, from.0.join("tree/long")).unwrap();
    from.file(
        &format!("tree/{}/{}", "d".repeat(200), "f".repeat(250)),
        "deep",
    );
    fs::hard_link(from.0.join("tree/file"), from.0.join("tree/second")).unwrap();
    let set = |path: &str, mode: u32| {
        let path = from.0.join(path);
        let file = fs::File::open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000))
            .unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set("tree/file", 0o6751);
    set("tree/closed", 0o1555);
    assert_eq!(fault(copy(&from, "tree", &to, "copy")), "");
    let look = |path: &str| fs::symlink_metadata(to.0.join(path)).unwrap();
    assert_eq!(look("copy/file").mode() & 0o7777, 0o751);
    assert_eq!(look("copy/file").mtime(), 1_000_000_000);
    assert_eq!(look("copy/closed").mode() & 0o7777, 0o1555);
    assert_eq!(look("copy/closed").mtime(), 1_000_000_000);
    assert_eq!(look("copy/file").ino(), look("copy/second").ino());
    assert_eq!(to.read("copy/second"), "content");
    let links = ["absolute", "odd", "long"]
        .map(|name| fs::read_link(to.0.join("copy").join(name)).unwrap());
    assert_eq!(
        links,
        ["/etc/passwd", "../..//../x/", &long].map(PathBuf::from)
    );
    assert_eq!(
        to.read(&format!("copy/{}/{}", "d".repeat(200), "f".repeat(250))),
        "deep"
    );
    // Once more, over what is there.
    assert_eq!(fault(copy(&from, "tree/.", &to, "copy")), "");
    fs::set_permissions(to.0.join("copy/closed"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(
        from.0.join("tree/closed"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
}

#[test]
fn holes_stay_holes() {
    let (from, to) = (Folder::new("holes-from"), Folder::new("holes-to"));
    let file = fs::File::create(from.0.join("sparse")).unwrap();
    // More ranges than a header has room for.
    let places: Vec<u64> = (0..60).map(|n| n * 10_000_000 / 4096 * 4096).collect();
    for place in &places {
        file.write_all_at(b"here", *place).unwrap();
    }
    file.set_len(600_000_001).unwrap();
    fs::File::create(from.0.join("empty"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    for name in ["sparse", "empty"] {
        assert_eq!(fault(copy(&from, name, &to, name)), "", "{name}");
        let [old, new] = [&from, &to].map(|folder| fs::metadata(folder.0.join(name)).unwrap());
        assert_eq!(old.len(), new.len(), "{name}");
        assert!(
            new.blocks() <= old.blocks() + 64 * 60 * 8,
            "{name}: {}",
            new.blocks()
        );
    }
    let copy = fs::File::open(to.0.join("sparse")).unwrap();
    for place in &places {
        let mut block = [1; 8];
        copy.read_exact_at(&mut block, *place).unwrap();
        assert_eq!(&block, b"here\0\0\0\0", "{place}");
    }
}

#[test]
fn nothing_leads_out_of_the_folder() {
    let outside = Folder::new("outside");
    outside.file("kept", "kept");
    let out = outside.0.to_str().unwrap();
    // What is at the destination when an archive comes.
    let check = |prepare: &dyn Fn(&Folder), archive: Vec<u8>, words: &str| {
        let to = Folder::new("inside");
        prepare(&to);
        let report = to.unpack_foreign(&archive);
        let fault = report
            .fault
            .map(|fault| fault.to_string())
            .unwrap_or_default();
        assert_eq!(fault.is_empty(), words.is_empty(), "{words}: {fault}");
        assert!(fault.contains(words), "{words}: {fault}");
        assert_eq!(outside.all(), ["kept"]);
        assert_eq!(outside.read("kept"), "kept");
        let temporary = to.all().into_iter().find(|path| path.contains(".kplay-cp"));
        assert_eq!(temporary, None);
    };
    let nothing = |_: &Folder| {};
    let through = |name: &str| {
        let mut archive = tar::Builder::new(Vec::new());
        entry(&mut archive, name, tar::EntryType::Regular, "", b"evil");
        archive.into_inner().unwrap()
    };
    check(&nothing, through("../kept"), "leads out");
    check(&nothing, through("a/../../kept"), "leads out");
    check(&nothing, through(&format!("{out}/kept")), "");
    // A link of the archive's own, and then a file through it.
    let mut archive = tar::Builder::new(Vec::new());
    entry(&mut archive, "way", tar::EntryType::Symlink, out, b"");
    entry(
        &mut archive,
        "way/kept",
        tar::EntryType::Regular,
        "",
        b"evil",
    );
    check(
        &nothing,
        archive.into_inner().unwrap(),
        "in the way to `/way`",
    );
    // One that is there, as a folder, as the file itself, and as a hard link's target.
    let link = |to: &Folder| symlink(out, to.0.join("way")).unwrap();
    check(&link, through("way/kept"), "in the way to `/way`");
    let file = |to: &Folder| symlink(outside.0.join("kept"), to.0.join("file")).unwrap();
    check(&file, through("file"), "");
    let mut archive = tar::Builder::new(Vec::new());
    entry(&mut archive, "hard", tar::EntryType::Link, "way/kept", b"");
    check(&link, archive.into_inner().unwrap(), "`/hard`");
    let mut archive = tar::Builder::new(Vec::new());
    entry(&mut archive, "hard", tar::EntryType::Link, "../kept", b"");
    check(&nothing, archive.into_inner().unwrap(), "leads out");
    let mut archive = tar::Builder::new(Vec::new());
    entry(&mut archive, "way", tar::EntryType::Directory, "", b"");
    check(&link, archive.into_inner().unwrap(), "no folder");
}

/// Adds an entry whose name no honest archive has.
fn entry(
    archive: &mut tar::Builder<Vec<u8>>,
    name: &str,
    kind: tar::EntryType,
    target: &str,
    content: &[u8],
) {
    let mut header = tar::Header::new_gnu();
    let slot = &mut header.as_old_mut().name;
    slot[..name.len()].copy_from_slice(name.as_bytes());
    header.set_link_name_literal(target).unwrap();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.set_cksum();
    archive.append(&header, content).unwrap();
}

#[test]
fn reading_stays_beneath_the_root() {
    let (from, to) = (Folder::new("root-from"), Folder::new("root-to"));
    from.file("etc/passwd", "the container's");
    symlink("/etc/passwd", from.0.join("absolute")).unwrap();
    symlink("../../../../../../etc/passwd", from.0.join("climbs")).unwrap();
    symlink("/proc/self/root/etc/passwd", from.0.join("magic")).unwrap();
    for name in ["absolute", "climbs", "../../etc/passwd"] {
        assert_eq!(fault(copy(&from, name, &to, "got")), "", "{name}");
        assert_eq!(to.read("got"), "the container's", "{name}");
    }
    assert!(fault(copy(&from, "magic", &to, "got")).contains("not there"));
}

#[test]
fn what_cannot_be_copied_is_told_and_the_rest_is() {
    let (from, to) = (Folder::new("odd-from"), Folder::new("odd-to"));
    from.file("tree/file", "x");
    let _socket = std::os::unix::net::UnixListener::bind(from.0.join("tree/socket")).unwrap();
    nix::unistd::mkfifo(&from.0.join("tree/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let [packed, unpacked] = copy(&from, "tree", &to, "copy");
    let mut notes = packed.notes.texts;
    notes.sort();
    assert_eq!(
        notes,
        [
            "`tree/fifo` is a FIFO, and not copied",
            "`tree/socket` is a socket, and not copied"
        ]
    );
    assert_eq!((packed.fault, unpacked.fault), (None, None));
    assert_eq!(to.all(), ["copy", "copy/file"]);
    assert!(fault(copy(&from, "tree/fifo", &to, "x")).contains("a FIFO"));
}

#[test]
fn an_end_that_comes_early_leaves_no_part_of_a_file() {
    let (from, to) = (Folder::new("early-from"), Folder::new("early-to"));
    from.file("file", &"x".repeat(100_000));
    to.file("file", "old");
    let (reader, writer) = fd::pipe().unwrap();
    let mut archive = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| from.pack("file", writer));
        fs::File::from(reader).read_to_end(&mut archive).unwrap();
    });
    let report = to.unpack_foreign(&archive[..50_000]);
    assert_eq!(report.fault, Some(Fault::Ended));
    assert_eq!(to.all(), ["file"]);
    assert_eq!(to.read("file"), "old");
    let no_archive = to.unpack_foreign(&[b'x'; 2048]).fault;
    assert!(
        matches!(no_archive, Some(Fault::Refused(_))),
        "{no_archive:?}"
    );
}
