//! Finding, naming, removing; two at once; what a crash leaves; the embedded image.

use std::time::{Duration, Instant};

use super::*;
use crate::image::load::{LoadSource, Loaded};
use crate::image::remove::Unnamed;
use crate::image::testing::{Folder, Sample, Tar, can_be_root, gzip, noise, tree};

fn layers(names: &[&str]) -> Vec<Vec<u8>> {
    names
        .iter()
        .map(|name| Tar::default().file(name, name.as_bytes()).end())
        .collect()
}

fn load(store: &Store, sample: &Sample, tags: &[&str]) -> Vec<Loaded> {
    let archive = sample.docker_archive(tags);
    store
        .load(
            LoadSource::Reader(&mut archive.as_slice()),
            &Default::default(),
        )
        .expect("it loads")
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).expect("a reference")
}

fn unused(_: &str) -> bool {
    false
}

/// Entries of the store's folders: layers, images, references, tmp.
fn counts(store: &Store) -> [usize; 4] {
    ["layers", "images", "references", "tmp"]
        .map(|folder| fs::list(&store.dir.join(folder)).expect("a folder").len())
}

#[test]
fn an_image_is_found_by_its_names_and_id() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(&folder.path().join("images")).expect("a store");
    let sample = Sample::new(&layers(&["a", "b"]), gzip);
    load(&store, &sample, &["one:1", "example.org/two"]);
    let image = store
        .find(&reference("one:1"))
        .expect("readable")
        .expect("there");
    assert_eq!(image.id, sample.id());
    assert_eq!(image.config.cmd, ["sh"]);
    let expected: Vec<PathBuf> = sample
        .chain
        .iter()
        .map(|id| store.layer_path(id).join("diff"))
        .collect();
    assert_eq!(image.layers, expected);
    assert_eq!(tree(&image.layers[1]), "755 0:0 /\n644 0:0 b = b");
    assert_eq!(
        store
            .find(&reference("example.org/two:latest"))
            .expect("readable"),
        Some(image.clone())
    );
    for other in ["one:2", "one", "example.org/one:1"] {
        assert_eq!(
            store.find(&reference(other)).expect("readable"),
            None,
            "{other}"
        );
    }
    let hex = sample.id()["sha256:".len()..].to_owned();
    for id in [sample.id(), hex.clone(), hex[..5].to_owned()] {
        assert_eq!(
            store.find_id(&id).expect("readable"),
            Some(image.clone()),
            "{id}"
        );
    }
    for id in ["", "sha256:", "xyz", "../..", &format!("{hex}0")] {
        assert_eq!(store.find_id(id).expect("readable"), None, "{id}");
    }
    assert_eq!(
        store.configuration(&image.id).expect("readable"),
        sample.config
    );
}

#[test]
fn the_list_tells_names_and_sizes() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    let sample = Sample::new(&layers(&["a", "b"]), gzip);
    load(&store, &sample, &["z:1", "b:2"]);
    load(&store, &Sample::new(&layers(&["c"]), gzip), &[]);
    let listed = store.list().expect("readable");
    let names = |image: &StoredImage| {
        image
            .references
            .iter()
            .map(Reference::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(listed.len(), 2);
    assert_eq!(
        names(&listed[0]),
        ["docker.io/library/b:2", "docker.io/library/z:1"]
    );
    assert_eq!(listed[0].size, 2 * 2048);
    assert_eq!(listed[0].created.as_deref(), Some("2024-05-06T07:08:09Z"));
    assert_eq!((listed[0].layers.len(), names(&listed[1]).len()), (2, 0));
}

#[test]
fn layers_go_with_the_last_image_that_has_them() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    load(
        &store,
        &Sample::new(&layers(&["base", "x"]), gzip),
        &["x", "x:2"],
    );
    load(&store, &Sample::new(&layers(&["base", "y"]), gzip), &["y"]);
    assert_eq!(counts(&store), [3, 2, 3, 0]);
    let removed = store.remove(&reference("x:2"), &unused).expect("removed");
    assert_eq!(
        (
            removed.references.len(),
            removed.images.len(),
            removed.bytes
        ),
        (1, 0, 0)
    );
    let removed = store.remove(&reference("x"), &unused).expect("removed");
    assert_eq!(
        (
            removed.references.len(),
            removed.images.len(),
            removed.bytes
        ),
        (1, 1, 2048)
    );
    assert_eq!(counts(&store), [2, 1, 1, 0]);
    assert!(matches!(
        store.remove(&reference("x"), &unused),
        Err(Error::NotStored(_))
    ));
    let id = store
        .find(&reference("y"))
        .expect("readable")
        .expect("there")
        .id;
    store.remove_id(&id[..20], &unused).expect("removed");
    assert_eq!(counts(&store), [0, 0, 0, 0]);
}

#[test]
fn what_a_pod_uses_stays() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    let sample = Sample::new(&layers(&["a"]), gzip);
    load(&store, &sample, &["a", "b"]);
    let used = |id: &str| id == sample.id();
    // Another name is left, so the image is not lost.
    store.remove(&reference("b"), &used).expect("removed");
    assert!(matches!(
        store.remove(&reference("a"), &used),
        Err(Error::InUse { .. })
    ));
    assert!(matches!(
        store.remove_id(&sample.id(), &used),
        Err(Error::InUse { .. })
    ));
    assert!(store.find(&reference("a")).expect("readable").is_some());
    // Its name goes to another image; it stays as long as it is used, and longer unless told.
    load(&store, &Sample::new(&layers(&["b"]), gzip), &["a"]);
    store.collect(Unnamed::Remove, &used).expect("collected");
    assert_eq!(counts(&store), [2, 2, 1, 0]);
    store.collect(Unnamed::Keep, &unused).expect("collected");
    assert_eq!(counts(&store), [2, 2, 1, 0]);
    store.collect(Unnamed::Remove, &unused).expect("collected");
    assert_eq!(counts(&store), [1, 1, 1, 0]);
}

#[test]
fn an_id_of_two_images_is_not_one() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    // Seventeen images have two whose ids start the same.
    for i in 0..17 {
        load(&store, &Sample::new(&layers(&[&i.to_string()]), gzip), &[]);
    }
    let ids = store.ids().expect("readable");
    let same = ids
        .windows(2)
        .find(|pair| pair[0].hex()[..1] == pair[1].hex()[..1])
        .expect("two");
    assert!(matches!(
        store.find_id(&same[0].hex()[..1]),
        Err(Error::AmbiguousId { .. })
    ));
}

#[test]
fn removing_waits_for_who_uses_the_store() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    load(&store, &Sample::new(&layers(&["a"]), gzip), &["a"]);
    let hold = store.hold().expect("held");
    let waiting = std::thread::spawn({
        let store = store.clone();
        move || store.remove(&reference("a"), &unused)
    });
    assert!(
        fs::try_lock(&store.lock_path(), LockMode::Exclusive)
            .expect("readable")
            .is_none()
    );
    assert!(store.find(&reference("a")).expect("readable").is_some());
    drop(hold);
    waiting.join().expect("no panic").expect("removed");
    assert!(store.find(&reference("a")).expect("readable").is_none());
}

#[test]
fn a_crash_leaves_what_the_next_one_sweeps() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    // A process that died while it unpacked, one that died before it recorded the image, and one that is at work.
    let half = store.dir().join("tmp/1-1/diff/some/where");
    fs::create_dir_all(&half, 0o755).expect("folders");
    let sample = Sample::new(&layers(&["a", "b"]), gzip);
    store
        .add_layer::<Error>(&sample.chain[0], |place| {
            Ok(fs::list(place.folder)?.len() as u64)
        })
        .expect("a layer");
    let name = store.dir().join("references/.a.json.1.0");
    fs::replace(&name, 0o600, b"{").expect("a file");
    let busy = store.temporary().expect("a folder");
    assert_eq!(counts(&store), [1, 0, 1, 2]);
    let user = store.hold().expect("held");
    Store::open(folder.path()).expect("the same store");
    assert!(!half.exists() && busy.path().exists());
    drop(busy);
    assert_eq!(counts(&store), [1, 0, 1, 0]);
    drop(user);
    store.collect(Unnamed::Keep, &unused).expect("collected");
    assert_eq!(counts(&store), [0, 0, 0, 0]);
}

#[test]
fn an_image_without_one_of_its_layers_is_missing_and_comes_back() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    let sample = Sample::new(&layers(&["a", "b"]), gzip);
    load(&store, &sample, &["a"]);
    beneath::remove_all(&store.layer_path(&sample.chain[1])).expect("removed");
    assert_eq!(store.find(&reference("a")).expect("readable"), None);
    load(&store, &sample, &["a"]);
    assert!(store.find(&reference("a")).expect("readable").is_some());
}

#[test]
fn two_that_make_the_same_layer_make_it_once() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    let sample = Sample::new(&layers(&["a", "b", "c"]), gzip);
    std::thread::scope(|scope| {
        let loads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| load(&store, &sample, &["a"])))
            .collect();
        for load in loads {
            assert_eq!(load.join().expect("no panic")[0].id, sample.id());
        }
    });
    assert_eq!(counts(&store), [3, 1, 1, 0]);
}

#[test]
fn what_is_just_made_may_be_taken_for_what_was_left() {
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeping = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.sweep().expect("swept");
            }
        });
        for _ in 0..3000 {
            store.temporary().expect("a folder of its own");
        }
        done.store(true, Ordering::Relaxed);
        sweeping.join().expect("no panic");
    });
    assert_eq!(counts(&store)[3], 0);
}

#[test]
fn a_full_disk_is_named_and_nothing_is_left() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let small = folder.path().join("small");
    fs::create_dir_all(&small, 0o755).expect("a folder");
    let mount = |arguments: &[&std::ffi::OsStr], program: &str| {
        let status = std::process::Command::new(program)
            .args(arguments)
            .status()
            .expect(program);
        assert!(status.success(), "{program}");
    };
    let options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs"].map(std::ffi::OsStr::new);
    mount(&[&options[..], &[small.as_os_str()]].concat(), "mount");
    let tried = std::panic::catch_unwind(|| {
        let store = Store::open(&small).expect("a store");
        let noise = noise(4_000_000);
        let sample = Sample::new(&[Tar::default().file("big", &noise).end()], gzip);
        let path = folder.path().join("archive.tar");
        fs::replace(&path, 0o600, &sample.docker_archive(&["big"])).expect("a file");
        let error = store
            .load(LoadSource::Path(&path), &Default::default())
            .expect_err("no space");
        assert_eq!(error.class(), crate::image::Class::NoSpace, "{error:?}");
        assert!(
            error.to_string().starts_with("no space left for images in"),
            "{error}"
        );
        assert_eq!(counts(&store), [0, 0, 0, 0]);
    });
    mount(&[small.as_os_str()], "umount");
    tried.expect("the test");
}

#[test]
fn the_toolbox_is_made_once_for_a_binary() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    let image = store.toolbox().expect("made");
    assert_eq!(image.config.entrypoint, ["/toolbox"]);
    assert_eq!(
        (
            image.config.env.as_slice(),
            image.config.working_dir.as_str()
        ),
        (&["PATH=/".to_owned()][..], "/")
    );
    let lines = tree(&image.layers[0]);
    for line in [
        "755 0:0 /",
        "1777 0:0 tmp/",
        "755 0:0 toolbox = ",
        "644 0:0 etc/passwd = ",
    ] {
        assert!(
            lines.lines().any(|found| found.starts_with(line)),
            "{line} in {lines}"
        );
    }
    let size = |path: &Path| std::fs::metadata(path).expect("a file").len();
    assert_eq!(
        size(&image.layers[0].join("toolbox")),
        size(Path::new("/proc/self/exe"))
    );
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(store.toolbox().expect("found").id, image.id);
    }
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?} for 100",
        start.elapsed()
    );
    assert_eq!(
        store
            .find(&reference("kplay.local/toolbox"))
            .expect("readable"),
        Some(image)
    );
}

#[test]
fn the_toolbox_of_another_build_goes_when_nothing_uses_it() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    let image = store.toolbox().expect("made");
    // As another build leaves it: its image has the name, and this one has not.
    load(
        &store,
        &Sample::new(&layers(&["other"]), gzip),
        &["kplay.local/toolbox"],
    );
    store
        .collect(Unnamed::Keep, &|id| id == image.id)
        .expect("collected");
    assert_eq!(counts(&store), [2, 2, 1, 0]);
    store.collect(Unnamed::Keep, &unused).expect("collected");
    assert_eq!(counts(&store), [1, 1, 1, 0]);
    assert_eq!(store.toolbox().expect("made again").id, image.id);
}

#[test]
fn two_processes_may_make_the_toolbox() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    std::thread::scope(|scope| {
        let made: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| store.toolbox().expect("made").id))
            .collect();
        let ids: Vec<String> = made
            .into_iter()
            .map(|made| made.join().expect("no panic"))
            .collect();
        assert!(ids.iter().all(|id| *id == ids[0]));
    });
    assert_eq!(counts(&store), [1, 1, 1, 0]);
}
