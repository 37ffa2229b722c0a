//! Images of podman's own stores, taken over in every way, and such as cannot be.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::image::save::{ArchiveFormat, ToSave};
use crate::image::testing::{Folder, Head, Sample, Tar, can, can_be_root, gzip, noise, tree};
use crate::sys::beneath;

const NAME: &str = "example.test/other/image:1";

/// podman with a store of its own.
struct Podman {
    folder: Folder,
    /// Where its store is.
    at: PathBuf,
    driver: &'static str,
}

impl Podman {
    /// With the sample loaded; nothing if there is no podman.
    fn with(sample: &Sample, driver: &'static str) -> Option<Self> {
        let there = Command::new("podman").arg("--version").output().is_ok();
        if !can_be_root() || !can("run podman", there) {
            return None;
        }
        let folder = Folder::new();
        let podman = Self {
            at: folder.path().join("root"),
            folder,
            driver,
        };
        let archive = podman.folder.path().join("archive");
        fs::replace(&archive, 0o600, &sample.docker_archive(&[NAME])).expect("an archive");
        podman.run(&["load", "-q", "-i", archive.to_str().expect("text")]);
        fs::remove_file(&archive).expect("removed");
        Some(podman)
    }

    fn root(&self) -> PathBuf {
        self.at.clone()
    }

    fn run(&self, arguments: &[&str]) {
        let (root, runroot) = (self.root(), self.folder.path().join("run"));
        // What it mounts goes with the namespace.
        let output = Command::new("unshare")
            .args(["-m", "podman", "--storage-driver", self.driver, "--root"])
            .arg(root)
            .arg("--runroot")
            .arg(runroot)
            .args(arguments)
            .output()
            .expect("podman runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    fn stores(&self) -> OtherStores {
        OtherStores::new(Places::at(&self.root(), None))
    }
}

fn sample() -> Sample {
    let below = Tar::default()
        .folder("./", 0o755)
        .folder("bin/", 0o755)
        .file("bin/sh", &noise(100_000))
        .link("bin/ash", "bin/sh")
        .symlink("sh", "bin/sh")
        .file("gone", b"1")
        .folder("replaced/", 0o1777)
        .file("replaced/old", b"2")
        .pax(&[("SCHILY.xattr.user.a", b"1"), ("mtime", b"12.5")])
        .entry(
            &Head {
                path: b"own",
                mode: 0o4751,
                owner: (5, 6),
                ..Head::default()
            },
            b"s",
        )
        .entry(
            &Head {
                path: b"fifo",
                kind: b'6',
                mode: 0o600,
                ..Head::default()
            },
            b"",
        );
    let above = Tar::default()
        .file(".wh.gone", b"")
        .folder("replaced/", 0o755)
        .file("replaced/.wh..wh..opq", b"")
        .file("replaced/new", b"3");
    Sample::new(&[below.end(), above.end()], gzip)
}

fn name() -> Reference {
    Reference::parse(NAME).expect("a reference")
}

fn store(folder: &Folder) -> Store {
    Store::open(&folder.path().join("images")).expect("a store")
}

fn import(store: &Store, podman: &Podman) -> Option<Imported> {
    let imported = store.import(&name(), &podman.stores(), &Default::default());
    imported.expect("readable")
}

/// The same image as it comes from its archive.
fn as_loaded(sample: &Sample) -> (Folder, Image) {
    let folder = Folder::new();
    let store = store(&folder);
    let archive = sample.docker_archive(&[NAME]);
    let source = crate::image::LoadSource::Reader(&mut archive.as_slice());
    store.load(source, &Default::default()).expect("it loads");
    let image = store.find(&name()).expect("readable").expect("there");
    (folder, image)
}

/// What `tree` does not tell.
fn details(path: &Path) -> Vec<(String, i64, i64, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for name in fs::list(&folder).expect("a folder") {
            let path = folder.join(name);
            let stat = std::fs::symlink_metadata(&path).expect("there");
            let attribute = stat.is_file().then(|| {
                let file = beneath::open_file(&path).expect("readable");
                beneath::attribute(&file, b"user.a").expect("readable")
            });
            if stat.is_dir() {
                folders.push(path.clone());
            }
            if stat.file_type().is_char_device() {
                // A whiteout has the time at which it was made.
                continue;
            }
            found.push((
                path.file_name().expect("a name").display().to_string(),
                stat.mtime(),
                stat.mtime_nsec(),
                attribute.flatten(),
            ));
        }
    }
    found.sort();
    found
}

#[test]
fn an_image_is_taken_over_and_is_as_if_it_were_pulled() {
    let sample = sample();
    for driver in ["overlay", "vfs"] {
        let Some(podman) = Podman::with(&sample, driver) else {
            return;
        };
        let folder = Folder::new();
        let store = store(&folder);
        let imported = import(&store, &podman).expect("podman has it");
        assert_eq!(imported.image.id, sample.id());
        assert_eq!(imported.from, podman.root());
        let (_folder, loaded) = as_loaded(&sample);
        assert_eq!(imported.image.config, loaded.config);
        for (one, two) in imported.image.layers.iter().zip(&loaded.layers) {
            assert_eq!(one.file_name(), two.file_name());
            assert_eq!(tree(one), tree(two), "{driver}");
            assert_eq!(details(one), details(two), "{driver}");
        }
        // Chain and size are recorded too: what has the same layer later does not fetch it.
        let stored = &store.list().expect("readable")[0];
        assert_eq!(stored.references[0], name());
        assert_eq!(stored.layers.len(), sample.layers.len());
        assert!(stored.size > 100_000, "{}", stored.size);
        let sh = imported.image.layers[0].join("bin/sh");
        let links = std::fs::metadata(&sh).expect("there").nlink();
        assert_eq!(links, if driver == "overlay" { 4 } else { 2 });
        // It stays when podman's goes.
        podman.run(&["rmi", NAME]);
        assert!(import(&store, &podman).is_none());
        let image = store.find(&name()).expect("readable").expect("there");
        assert_eq!(tree(&image.layers[0]), tree(&loaded.layers[0]));
        assert_eq!(
            fs::list(&store.dir().join("tmp")).expect("a folder").len(),
            0
        );
    }
}

/// A file system that shares blocks, with two subvolumes; gone with the value.
struct Btrfs(Folder);

impl Btrfs {
    fn new() -> Option<Self> {
        let there = Command::new("mkfs.btrfs").arg("--version").output().is_ok();
        if !can_be_root() || !can("mkfs.btrfs", there) {
            return None;
        }
        let folder = Folder::new();
        let image = folder.path().join("image");
        let file = beneath::make_spool(&image).expect("a file");
        file.set_len(512 << 20).expect("a size");
        let disk = Self(folder);
        let [mounted, one, two] = ["", "one", "two"].map(|name| disk.path(name));
        fs::create_dir_all(&mounted, 0o755).expect("a folder");
        run("mkfs.btrfs", &["-q".as_ref(), &image]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &mounted]);
        for subvolume in [one, two] {
            let make = ["subvolume", "create"].map(Path::new);
            run("btrfs", &[&make[..], &[&subvolume]].concat());
        }
        Some(disk)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("disk").join(name)
    }

    /// Bytes of files that share their blocks with no other.
    fn own_bytes(&self, path: &Path) -> u64 {
        run("sync", &["-f".as_ref(), path]);
        let usage = ["filesystem", "du", "-s", "--raw"].map(Path::new);
        let text = run("btrfs", &[&usage[..], &[path]].concat());
        // After a line of names: all, its own, what others have too.
        let line = text.lines().nth(1).expect("a line");
        let number = line.split_whitespace().nth(1).expect("a column");
        number.parse().expect("a number")
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        run("umount", &[&self.path("")]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.expect(program);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn where_nothing_can_be_linked_blocks_are_shared() {
    let sample = sample();
    let Some(disk) = Btrfs::new() else { return };
    let Some(mut podman) = Podman::with(&sample, "overlay") else {
        return;
    };
    // Its store is moved to one subvolume, and kplay's is in the other.
    let moved = disk.path("one/root");
    run("cp", &["-a".as_ref(), &podman.root(), &moved]);
    podman.at = moved.clone();
    let store = Store::open(&disk.path("two/images")).expect("a store");
    let imported = import(&store, &podman).expect("podman has it");
    let (_folder, loaded) = as_loaded(&sample);
    for (one, two) in imported.image.layers.iter().zip(&loaded.layers) {
        assert_eq!(tree(one), tree(two));
        assert_eq!(details(one), details(two));
    }
    let sh = imported.image.layers[0].join("bin/sh");
    assert_eq!(std::fs::metadata(&sh).expect("there").nlink(), 2);
    assert_eq!(disk.own_bytes(&sh), 0, "its blocks are podman's as well");
    // Where the file systems differ, all is copied.
    let folder = Folder::new();
    let other = self::store(&folder);
    let imported = import(&other, &podman).expect("podman has it");
    assert_eq!(tree(&imported.image.layers[0]), tree(&loaded.layers[0]));
}

#[test]
fn an_import_that_is_given_up_leaves_nothing() {
    let sample = sample();
    let Some(podman) = Podman::with(&sample, "overlay") else {
        return;
    };
    let folder = Folder::new();
    let (asked, ask) = io::pipe().expect("a pipe");
    let store = store(&folder).heeding(Stop::when(asked.into()));
    drop(ask);
    let import = store.import(&name(), &podman.stores(), &Default::default());
    let error = import.expect_err("given up");
    assert!(matches!(error, ImageError::Stopped(_)), "{error:?}");
    for folder in ["images", "references", "layers", "tmp"] {
        let left = fs::list(&store.dir().join(folder)).expect("a folder");
        assert_eq!(left.len(), 0, "{folder}");
    }
}

#[test]
fn what_was_taken_over_can_be_saved() {
    let sample = sample();
    for driver in ["overlay", "vfs"] {
        let Some(podman) = Podman::with(&sample, driver) else {
            return;
        };
        let folder = Folder::new();
        let first = store(&folder);
        import(&first, &podman).expect("podman has it");
        let wanted = ToSave {
            id: sample.id(),
            names: vec![name()],
        };
        let mut archive = Vec::new();
        let saved = first.save(&[wanted], ArchiveFormat::Docker, &mut archive);
        saved.expect("saved");
        let other = Folder::new();
        let second = store(&other);
        let source = crate::image::LoadSource::Reader(&mut archive.as_slice());
        let loaded = second.load(source, &Default::default()).expect("it loads");
        assert_eq!(loaded[0].id, sample.id());
    }
}

#[test]
fn other_names_ids_and_digests() {
    let sample = sample();
    let Some(podman) = Podman::with(&sample, "overlay") else {
        return;
    };
    let folder = Folder::new();
    let store = store(&folder);
    let stores = podman.stores();
    let find = |text: &str| {
        let name = Reference::parse(text).expect("a reference");
        let found = store.import(&name, &stores, &Default::default());
        found.expect("readable").is_some()
    };
    assert!(!find("example.test/other/image:2"));
    assert!(!find("example.test/other/image-2:1"));
    assert!(!find(&format!("example.test/other/image@{}", sample.id())));
    let root = &stores.roots().expect("readable")[0];
    let found = root.find(Wanted::Name(&name())).expect("readable");
    let digest = found.expect("there").digests[0].clone();
    assert!(!find(&format!("example.test/other@{digest}")));
    assert!(find(&format!("example.test/other/image@{digest}")));
    let by_id = |prefix: &str| {
        let found = store.import_id(prefix, &stores, &Default::default());
        found.expect("readable").map(|found| found.image.id)
    };
    assert_eq!(
        by_id(&sample.id()["sha256:".len()..][..12]),
        Some(sample.id())
    );
    assert_eq!(by_id("0000000000000000"), None);
}

#[test]
fn the_engines_locks_are_waited_for_and_excluded() {
    let sample = sample();
    let Some(podman) = Podman::with(&sample, "overlay") else {
        return;
    };
    let root = podman.stores().roots().expect("readable")[0].clone();
    let path = podman.root().join("overlay-layers/layers.lock");
    let write_lock = |wait: &str| {
        // Python's `lockf` is `fcntl`'s lock, as the engines' is.
        let program = format!(
            "import fcntl,sys,time\nf=open({path:?},'r+')\nfcntl.lockf(f,fcntl.LOCK_EX{wait})\nprint('held',flush=True)\nsys.stdin.read()"
        );
        let mut command = Command::new("python3");
        command
            .args(["-c", &program])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null());
        command.spawn().expect("python3 runs")
    };
    let held = root.hold().expect("held");
    let refused = write_lock("|fcntl.LOCK_NB").wait_with_output();
    assert!(
        !refused.expect("it ends").status.success(),
        "the lock excludes writers"
    );
    // Another lock of this process on the same file does not end the first when it goes.
    drop(root.hold().expect("held"));
    let refused = write_lock("|fcntl.LOCK_NB").wait_with_output();
    assert!(
        !refused.expect("it ends").status.success(),
        "the lock is still held"
    );
    drop(held);
    let mut writer = write_lock("");
    let mut line = [0; 5];
    let stdout = writer.stdout.as_mut().expect("a pipe");
    io::Read::read_exact(stdout, &mut line).expect("it has the lock");
    let start = Instant::now();
    let waiting = std::thread::spawn(move || root.hold().map(|_| start.elapsed()));
    // There is no event for "it waits": that it has not got the lock while the writer lives is told by the order.
    drop(writer.stdin.take());
    writer.wait().expect("it ends");
    let waited = waiting.join().expect("no panic").expect("held");
    assert!(waited < Duration::from_secs(60));
}

#[test]
fn what_cannot_be_used_is_told_and_leaves_nothing() {
    let sample = sample();
    let check = |harm: &dyn Fn(&Path), expected: &str| {
        let Some(podman) = Podman::with(&sample, "overlay") else {
            return;
        };
        harm(&podman.root());
        let folder = Folder::new();
        let store = store(&folder);
        let result = store.import(&name(), &podman.stores(), &Default::default());
        let error = crate::model::cause::chain(&result.expect_err("refused"));
        assert!(error.contains(expected), "{error}");
        for folder in ["images", "references", "tmp"] {
            let left = fs::list(&store.dir().join(folder)).expect("a folder");
            assert_eq!(left.len(), 0, "{folder}");
        }
    };
    let change = |file: &'static str, from: &'static str, to: &'static str| {
        move |root: &Path| {
            let path = root.join(file);
            let text = String::from_utf8(fs::read(&path).expect("read")).expect("text");
            assert!(text.contains(from), "{text}");
            fs::replace(&path, 0o600, text.replace(from, to).as_bytes()).expect("written");
        }
    };
    let layers = "overlay-layers/layers.json";
    check(&change(layers, "[{", "{"), "cannot be read");
    check(
        &change(
            layers,
            "\"diff-digest\":\"sha256:",
            "\"diff-digest\":\"sha256:0",
        ),
        "its layers are not those of its configuration",
    );
    check(
        &change(
            layers,
            "\"diff-size\"",
            "\"flags\":{\"incomplete\":true},\"diff-size\"",
        ),
        "a layer of it is not complete",
    );
    check(
        &change(layers, "\"id\":\"", "\"id\":\"0"),
        "it lacks a layer",
    );
    let without_files = |root: &Path| {
        let layers = root.join("overlay");
        for name in fs::list(&layers).expect("a folder") {
            let diff = layers.join(&name).join("diff");
            if name.len() == 64 {
                fs::remove_dir_all(&diff).expect("removed");
            }
        }
    };
    check(&without_files, "it has just been removed there");
}

#[test]
fn files_that_are_not_plain_are_copied() {
    let sample = sample();
    let Some(podman) = Podman::with(&sample, "overlay") else {
        return;
    };
    let layer = sample.chain[0].hex();
    let bin = podman.root().join("overlay").join(layer).join("diff/bin");
    let marked = beneath::open_file(&bin).expect("a folder");
    let name = b"user.containers.override_stat";
    beneath::set_attribute(&marked, name, b"0:0:755").expect("set");
    let folder = Folder::new();
    let imported = import(&store(&folder), &podman).expect("podman has it");
    let sh = imported.image.layers[0].join("bin/sh");
    assert_eq!(std::fs::metadata(&sh).expect("there").nlink(), 2, "a copy");
    let (_folder, loaded) = as_loaded(&sample);
    assert_eq!(tree(&imported.image.layers[0]), tree(&loaded.layers[0]));
}

#[test]
fn where_stores_are() {
    let folder = Folder::new();
    let check = |text: Option<&str>, uid: u32, expected: &[&str], driver: Option<&str>| {
        let path = folder.path().join("storage.conf");
        match text {
            Some(text) => fs::replace(&path, 0o600, text.as_bytes()).expect("written"),
            None => fs::remove_file(&path).expect("removed"),
        }
        let variable = |name: &str| {
            Some(match name {
                "CONTAINERS_STORAGE_CONF" => path.clone().into(),
                "HOME" => "/home/a".into(),
                _ => return None,
            })
        };
        let found = conf::read(&Places::of(uid, variable)).expect("readable");
        let roots: Vec<&str> = found
            .roots
            .iter()
            .filter_map(|path| path.to_str())
            .collect();
        assert_eq!(roots, expected);
        assert_eq!(found.driver.as_deref(), driver);
    };
    check(None, 0, &["/var/lib/containers/storage"], None);
    check(None, 5, &["/home/a/.local/share/containers/storage"], None);
    let text = "[storage]\ndriver = \"overlay\"\ngraphroot = \"/g\"\nrootless_storage_path = \"$HOME/r/$UID\"\n\
                [storage.options]\nadditionalimagestores = [\"/one\", \"/two\"]\n";
    check(Some(text), 0, &["/g", "/one", "/two"], Some("overlay"));
    check(
        Some(text),
        5,
        &["/home/a/r/5", "/one", "/two"],
        Some("overlay"),
    );
    check(Some("[other]\n"), 0, &["/var/lib/containers/storage"], None);
    let path = folder.path().join("storage.conf");
    fs::replace(&path, 0o600, b"[storage\n").expect("written");
    let places = Places {
        storage_conf: Some(path),
        ..Places::default()
    };
    let error = conf::read(&places).expect_err("no TOML").to_string();
    assert!(error.contains("is no configuration of storage"), "{error}");
}
