//! The image store among several commands, when a signal comes, and on a disk that is full.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::fs::FlockOperation;
use rustix::process::Signal;

use crate::Kplay;
use crate::fixtures::{Registry, busybox_archive, fixture, noise_archive};
use crate::harness::{Run, script_pod};
use crate::pulls::{ended, signal};
use crate::transfers::Podman;
use crate::wait;

const BUSYBOX: &str = "localhost/busybox:1";
const STAYS: &str = "terminationGracePeriodSeconds: 0,";

fn images(kplay: &Kplay, folder: &str) -> PathBuf {
    kplay.root().join("images").join(folder)
}

fn names_in(kplay: &Kplay, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(images(kplay, folder)).expect("the store");
    let names = entries.flatten().map(|entry| entry.file_name());
    names.map(|name| name.display().to_string()).collect()
}

/// Nothing of an image, whole or half.
#[track_caller]
fn assert_empty(kplay: &Kplay, folders: &[&str]) {
    for folder in folders {
        assert_eq!(names_in(kplay, folder), Vec::<String>::new(), "{folder}");
    }
}

const ALL: &[&str] = &["tmp", "layers", "images", "references"];

/// Whether a process waits for a lock of a file.
fn waits_for_lock(child: &Child) -> bool {
    let locks = fs::read_to_string("/proc/locks").expect("the kernel's list");
    let pid = child.id().to_string();
    let mut lines = locks.lines().map(|line| line.split_whitespace());
    lines
        .any(|mut words| words.nth(1) == Some("->") && words.nth(3).is_some_and(|word| word == pid))
}

/// Whether a process waits in a thread for what it can give up.
fn has_waiting_thread(child: &Child) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).expect("a process");
    tasks.flatten().any(|task| {
        let name = fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name == "wait\n")
    })
}

fn pod(name: &str, image: &str) -> String {
    script_pod(name, STAYS, "imagePullPolicy: Never,", "sleep 1000").replace(BUSYBOX, image)
}

/// `image prune -a` that has to wait, as it is seen to do.
#[track_caller]
fn waiting_prune(kplay: &Kplay) -> Child {
    let prune = kplay.command(["image", "prune", "-a", "-f"]).spawn();
    wait::until("the prune waits", || waits_for_lock(&prune));
    prune
}

#[test]
fn who_prunes_and_who_applies_at_once() {
    let Some(kplay) = Kplay::new() else { return };
    let (mut played, mut missing) = (0, 0);
    for round in 0..12 {
        kplay.load(busybox_archive());
        let file = kplay.file("pod.yaml", pod("one", BUSYBOX));
        let apply = || kplay.command(["apply".as_ref(), file.as_os_str()]).spawn();
        let prune = || kplay.command(["image", "prune", "-a", "-f"]).spawn();
        let (apply, prune) = match round % 2 {
            0 => (apply(), prune()),
            _ => {
                let prune = prune();
                (apply(), prune)
            }
        };
        let output = prune.wait_with_output().expect("our own child");
        assert!(output.status.success(), "{output:?}");
        let output = apply.wait_with_output().expect("our own child");
        kplay.note_pods();
        if output.status.success() {
            // The pod has all of its image, and goes on having it.
            assert_eq!(kplay.shell("one", "busybox echo all there"), "all there\n");
            assert_eq!(names_in(&kplay, "images").len(), 1);
            played += 1;
        } else {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(4), "{told}");
            assert!(
                told.contains("not present with pull policy of Never"),
                "{told}"
            );
            assert_empty(&kplay, ALL);
            missing += 1;
        }
        assert_empty(&kplay, &["tmp"]);
        kplay.run(["delete", "--all"]).succeeds();
        kplay.assert_nothing_left();
    }
    assert_eq!(played + missing, 12);
}

#[test]
fn a_prune_that_waits_keeps_what_was_taken_into_use_meanwhile() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.load(fixture("settings.tar"));
    // Somebody uses the store, so that the prune waits; whoever uses it too does not.
    let lock = File::open(images(&kplay, "lock")).expect("the lock");
    rustix::fs::flock(&lock, FlockOperation::LockShared).expect("nobody else has it");
    let prune = waiting_prune(&kplay);
    kplay.apply(&pod("one", BUSYBOX)).succeeds();
    drop(lock);
    let output = prune.wait_with_output().expect("our own child");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(told, untagged(&kplay, &told), "settings alone went");
    assert_eq!(kplay.shell("one", "busybox echo there"), "there\n");
    let listed = kplay.run(["images"]).succeeds();
    assert!(listed.contains("localhost/busybox"), "{listed}");
    assert!(!listed.contains("localhost/settings"), "{listed}");
}

/// What a prune says that takes `localhost/settings:1` alone.
fn untagged(kplay: &Kplay, told: &str) -> String {
    let id = told.lines().last().unwrap_or_default();
    let left = names_in(kplay, "images");
    assert!(!left.iter().any(|name| id.ends_with(name)), "{told}");
    format!("Untagged: localhost/settings:1\n{id}\n")
}

#[test]
fn a_prune_waits_for_an_apply_that_has_found_its_image() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    kplay.load(fixture("settings.tar"));
    let before = names_in(&kplay, "layers");
    let more = noise_archive(kplay.dir(), "noise", 1000);
    registry.tag_with_layers("gzip", "more", &[more]);
    let image = registry.image("more");
    kplay.run(["pull", &image]).succeeds();
    let mut layers = names_in(&kplay, "layers");
    layers.retain(|layer| !before.contains(layer));
    kplay.run(["rmi", &image]).succeeds();
    let text = script_pod("two", STAYS, "", "sleep 1000").replace(BUSYBOX, &image);
    let settings = text.replace("containers: [", "containers: [{name: first, image: \"localhost/settings:1\", imagePullPolicy: Never, command: [sleep, \"1000\"]}, ");
    let file = kplay.file("pod.yaml", settings);
    // Somebody else seems to be at the other image's layers, so that the apply waits with the first one in hand.
    let claim = |layer: &String| {
        let busy = images(&kplay, "busy").join(layer);
        let busy = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(busy);
        let busy = busy.expect("the layer's lock");
        rustix::fs::flock(&busy, FlockOperation::LockExclusive).expect("nobody else has it");
        busy
    };
    let busy: Vec<File> = layers.iter().map(claim).collect();
    assert!(!busy.is_empty());
    let apply = kplay.command(["apply".as_ref(), file.as_os_str()]).spawn();
    wait::until("the apply waits", || waits_for_lock(&apply));
    let prune = waiting_prune(&kplay);
    drop(busy);
    let output = apply.wait_with_output().expect("our own child");
    kplay.note_pods();
    assert!(output.status.success(), "{output:?}");
    let output = prune.wait_with_output().expect("our own child");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing went");
    for container in ["first", "main"] {
        let exec = ["exec", "two", "-c", container, "--", "true"];
        kplay.run(exec).succeeds();
    }
}

#[test]
fn a_signal_ends_a_load_and_an_import() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.run(["images"]).succeeds();
    let ends = |child: Child, number: i32, how: Signal| {
        signal(&child, how);
        assert_eq!(ended(child), Some(128 + number));
        assert_empty(&kplay, ALL);
    };
    let holds_back = |child: &Child| {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & 2 != 0)
    };
    // Half of an archive, and no end of it.
    let archive = fs::read(busybox_archive()).expect("the archive");
    for (number, how) in [(2, Signal::INT), (15, Signal::TERM)] {
        let mut load = kplay.command(["load"]).spawn();
        let mut input = load.stdin.take().expect("a pipe");
        input
            .write_all(&archive[..archive.len() / 2])
            .expect("it reads");
        let spooled = |name: String| {
            let spool = images(&kplay, "tmp").join(name).join("archive");
            fs::metadata(spool).is_ok_and(|spool| spool.size() > 0)
        };
        wait::until("it reads", || {
            names_in(&kplay, "tmp").into_iter().any(spooled)
        });
        ends(load, number, how);
    }
    // A pipe to which nobody writes.
    let fifo = kplay.dir().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    let load = ["load".as_ref(), "-i".as_ref(), fifo.as_os_str()];
    let load = kplay.command(load).spawn();
    wait::until("it opens the pipe", || holds_back(&load));
    ends(load, 2, Signal::INT);
    // podman is in the middle of something, it seems, for ever.
    let podman = Podman::new(&kplay, "overlay");
    let archive = fixture("podman-docker-archive.tar");
    let archive = archive.to_str().expect("a readable path");
    podman.run(["load", "-q", "-i", archive]);
    let lock = podman.root().join("overlay-layers/layers.lock");
    let lock = File::options().read(true).write(true).open(lock);
    let lock = lock.expect("podman's lock");
    rustix::fs::fcntl_lock(&lock, FlockOperation::LockExclusive).expect("podman has ended");
    let file = kplay.file("pod.yaml", pod("one", BUSYBOX));
    let file = file.to_str().expect("a readable path");
    let storage = format!("containers-storage:{BUSYBOX}");
    for command in [["pull", &storage], ["apply", file]] {
        let import = podman.call(command).spawn();
        wait::until("it waits for podman", || has_waiting_thread(&import));
        ends(import, 2, Signal::INT);
    }
    drop(lock);
    podman.kplay(["apply", file]).succeeds();
    assert_eq!(kplay.shell("one", "busybox echo runs"), "runs\n");
}

/// An image that takes a while to save.
fn big(kplay: &Kplay) -> String {
    let registry = Registry::start();
    let noise = noise_archive(kplay.dir(), "noise", 32 << 20);
    registry.tag_with_layers("gzip", "big", &[noise]);
    let image = registry.image("big");
    kplay.run(["pull", &image]).succeeds();
    image
}

/// Whether a layer is being compressed.
fn packs(kplay: &Kplay) -> bool {
    let started = |name: String| {
        let spools = fs::read_dir(images(kplay, "tmp").join(name));
        let mut spools = spools.into_iter().flatten().flatten();
        spools.any(|spool| spool.metadata().is_ok_and(|spool| spool.size() > 0))
    };
    names_in(kplay, "tmp").into_iter().any(started)
}

#[test]
fn a_signal_ends_a_save_and_a_push() {
    let Some(kplay) = Kplay::new() else { return };
    let image = big(&kplay);
    let place = kplay.dir().join("saved");
    fs::create_dir(&place).expect("a folder");
    let there = || fs::read_dir(&place).expect("a folder").count();
    let save = |format: &str, name: &str| {
        let path = place.join(name);
        let path = path.to_str().expect("a readable path");
        kplay.command(["save", "--format", format, "-o", path, &image])
    };
    // Who reads has had enough, and stays.
    for (number, how) in [(2, Signal::INT), (15, Signal::TERM)] {
        let mut child = kplay.command(["save", &image]).spawn();
        let output = child.stdout.as_mut().expect("a pipe");
        output.read_exact(&mut [0; 10]).expect("it writes");
        signal(&child, how);
        assert_eq!(ended(child), Some(128 + number));
        assert_empty(&kplay, &["tmp"]);
    }
    // Nobody reads.
    let fifo = kplay.dir().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    let arguments = [
        "save",
        "-o",
        fifo.to_str().expect("a readable path"),
        &image,
    ];
    let child = kplay.command(arguments).spawn();
    wait::until("it opens the pipe", || has_waiting_thread(&child));
    signal(&child, Signal::INT);
    assert_eq!(ended(child), Some(130));
    for format in ["oci-archive", "oci-dir"] {
        for (how, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
            let child = save(format, "image").spawn();
            wait::until("it is in the middle", || packs(&kplay));
            signal(&child, how);
            assert_eq!(ended(child), code);
            let left = usize::from((how, format) == (Signal::KILL, "oci-dir"));
            assert_eq!(there(), left, "{format} {how:?}");
        }
        // What had a name goes with the next.
        save(format, "image").run().succeeds();
        assert_eq!(there(), 1);
        assert_empty(&kplay, &["tmp"]);
        let path = place.join("image");
        match path.is_dir() {
            true => fs::remove_dir_all(path).expect("removed"),
            false => fs::remove_file(path).expect("removed"),
        }
    }
    // A registry that never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = format!("{}/x", silent.local_addr().expect("an address"));
    let child = kplay.command(["push", &image, &to]).spawn();
    let connection = silent.accept().expect("the registry is asked");
    signal(&child, Signal::INT);
    assert_eq!(ended(child), Some(130));
    drop(connection);
    assert_empty(&kplay, &["tmp"]);
}

/// A file system of few bytes or few files at a place, as long as it lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(path: &Path, options: &str) -> Self {
        fs::create_dir_all(path).expect("a folder");
        let disk = Self(path.to_owned());
        disk.mount(&["-t", "tmpfs", "-o", options, "none"]);
        disk
    }

    fn grow(&self) {
        self.mount(&["-o", "remount,size=64m,nr_inodes=100000"]);
    }

    #[track_caller]
    fn mount(&self, arguments: &[&str]) {
        let mut mount = Command::new("mount");
        let status = mount.args(arguments).arg(&self.0).status();
        assert!(
            status.expect("mount of util-linux").success(),
            "{arguments:?}"
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        let unmounted = unmounted.is_ok_and(|status| status.success());
        assert!(unmounted || std::thread::panicking(), "{:?}", self.0);
    }
}

/// Too few bytes for the image, and too few files.
const SMALL: [&str; 2] = ["size=1m", "size=64m,nr_inodes=60"];

#[test]
fn a_full_disk_is_named_whatever_way_an_image_comes() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let podman = Podman::new(&kplay, "overlay");
    let archive = busybox_archive();
    let path = archive.to_str().expect("a readable path");
    podman.run(["load", "-q", "-i", path]);
    let (image, storage) = (
        registry.image("gzip"),
        format!("containers-storage:{BUSYBOX}"),
    );
    let input = fs::read(path).expect("the archive");
    let ways: [&dyn Fn() -> Run; 4] = [
        &|| kplay.run(["load", "-i", path]),
        &|| kplay.command(["load"]).stdin(input.clone()).run(),
        &|| kplay.run(["pull", &image]),
        &|| podman.kplay(["pull", &storage]),
    ];
    for options in SMALL {
        for (number, way) in ways.iter().enumerate() {
            let disk = SmallDisk::new(&kplay.root(), options);
            let place = images(&kplay, "").display().to_string();
            let place = place.trim_end_matches('/');
            let words = ["no space left for images in", place, "image rm", "--root"];
            way().fails(4, &words);
            assert_empty(&kplay, &["tmp", "images", "references"]);
            kplay.run(["image", "prune", "-f"]).succeeds();
            assert_empty(&kplay, ALL);
            // With more space all is well, as if nothing had been.
            disk.grow();
            way().succeeds();
            assert_eq!(names_in(&kplay, "images").len(), 1, "{number}");
        }
    }
}

#[test]
fn a_full_disk_is_named_where_an_image_is_saved() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let disk = SmallDisk::new(&kplay.dir().join("small"), "size=256k");
    let kept = disk.0.join("kept");
    fs::write(&kept, "as it was").expect("a file");
    let left = || {
        let entries = fs::read_dir(&disk.0).expect("the disk");
        entries.count()
    };
    let save = |format: &str, name: &str| {
        let path = disk.0.join(name);
        let path = path.to_str().expect("a readable path");
        let run = kplay.run(["save", "--format", format, "-o", path, BUSYBOX]);
        run.fails(4, &["no space left for", path, "save to another place"]);
        assert_eq!(fs::read_to_string(&kept).expect("there"), "as it was");
        assert_eq!(left(), 1, "{format}");
    };
    for format in ["docker-archive", "oci-archive"] {
        save(format, "new");
        save(format, "kept");
    }
    save("oci-dir", "new");
    // The store's own disk is another one: layers are compressed there.
    disk.grow();
    let full = SmallDisk::new(&images(&kplay, "tmp"), "size=64k");
    let path = disk.0.join("new");
    let path = path.to_str().expect("a readable path");
    let run = kplay.run(["save", "--format", "oci-archive", "-o", path, BUSYBOX]);
    run.fails(4, &["no space left for images in", "image rm"]);
    assert_eq!(left(), 1);
    drop(full);
    let run = kplay.run(["save", "--format", "oci-archive", "-o", path, BUSYBOX]);
    run.succeeds();
    assert_eq!(left(), 2);
}
