//! What is saved is loaded again, here and by others, as the same image with the same files.

use std::process::Command;

use super::*;
use crate::image::load::LoadSource;
use crate::image::testing::{Folder, Sample, Tar, can, can_be_root, noise, tree, zstd};
use crate::sys::fs::LockMode;

fn sample() -> Sample {
    let layers = [
        Tar::default()
            .folder("bin/", 0o755)
            .file("bin/sh", &noise(200_000))
            .file("gone", b"1")
            .end(),
        Tar::default()
            .file(".wh.gone", b"")
            .symlink("link", "bin/sh")
            .file("b", b"2")
            .end(),
    ];
    Sample::new(&layers, zstd)
}

fn name(text: &str) -> Reference {
    Reference::parse(text).expect("a reference")
}

/// A store with the sample.
fn store(folder: &Folder) -> (Store, Sample) {
    let store = Store::open(&folder.path().join("images")).expect("a store");
    let sample = sample();
    load(&store, &sample.docker_archive(&["example.test/a:1"]));
    (store, sample)
}

fn load(store: &Store, mut archive: &[u8]) -> Vec<crate::image::Loaded> {
    let source = LoadSource::Reader(&mut archive);
    store.load(source, &Default::default()).expect("it loads")
}

fn to_save(sample: &Sample, names: &[&str]) -> ToSave {
    ToSave {
        id: sample.id(),
        names: names.iter().map(|text| name(text)).collect(),
    }
}

/// Compares an image with that of the first store.
fn same(one: &Store, two: &Store, id: &str) {
    let image = |store: &Store| store.find_id(id).expect("readable").expect("there");
    let trees = |store: &Store| -> Vec<String> {
        let layers = image(store).layers;
        layers.iter().map(|layer| tree(layer)).collect()
    };
    assert_eq!(trees(one), trees(two));
    assert_eq!(image(one).config, image(two).config);
}

#[test]
fn an_archive_is_loaded_as_the_same_image() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (first, sample) = store(&folder);
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        let mut archive = Vec::new();
        let wanted = [
            to_save(&sample, &["example.test/a:1"]),
            to_save(&sample, &["example.test/b:2"]),
        ];
        first.save(&wanted, format, &mut archive).expect("saved");
        let folder = Folder::new();
        let second = Store::open(folder.path()).expect("a store");
        let loaded = load(&second, &archive);
        let mut names: Vec<String> = loaded
            .iter()
            .flat_map(|image| image.references.iter().map(ToString::to_string))
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["example.test/a:1", "example.test/b:2"],
            "{format:?}"
        );
        assert!(loaded.iter().all(|image| image.id == sample.id()));
        same(&first, &second, &sample.id());
        let mut again = Vec::new();
        first.save(&wanted, format, &mut again).expect("saved");
        assert!(archive == again, "the same image is the same archive");
    }
    assert_eq!(
        fs::list(&first.dir().join("tmp")).expect("a folder").len(),
        0
    );
}

#[test]
fn a_layout_is_whole_or_not_there() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (first, sample) = store(&folder);
    let layout = folder.path().join("layout");
    let wanted = [to_save(&sample, &["example.test/a:1"])];
    first.save_layout(&wanted, &layout).expect("saved");
    let other = Folder::new();
    let second = Store::open(other.path()).expect("a store");
    second
        .load(LoadSource::Path(&layout), &Default::default())
        .expect("it loads");
    same(&first, &second, &sample.id());
    let error = first.save_layout(&wanted, &layout).expect_err("refused");
    assert!(
        crate::model::cause::chain(&error).ends_with("is not empty"),
        "{error:?}"
    );
    let unknown = ToSave {
        id: Digest::of(b"").to_string(),
        names: Vec::new(),
    };
    let path = folder.path().join("other");
    first.save_layout(&[unknown], &path).expect_err("no image");
    let left: Vec<_> = fs::list(folder.path()).expect("a folder");
    assert_eq!(left, ["images", "layout"]);
}

#[test]
fn a_file_is_whole_or_as_before() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (first, sample) = store(&folder);
    let path = folder.path().join("archive");
    let wanted = [to_save(&sample, &["example.test/a:1"])];
    let format = ArchiveFormat::Docker;
    first.save_file(&wanted, format, &path).expect("saved");
    let before = fs::read(&path).expect("read");
    let layer = first.layer_path(&sample.chain[1]);
    fs::replace(&layer.join("diff/b"), 0o644, b"3").expect("changed");
    let error = first.save_file(&wanted, format, &path);
    let error = crate::model::cause::chain(&error.expect_err("changed"));
    assert!(error.contains("a file of the layer has changed"), "{error}");
    assert!(fs::read(&path).expect("read") == before);
    assert_eq!(
        fs::list(folder.path()).expect("a folder"),
        ["archive", "images"]
    );
}

#[test]
fn what_cannot_be_saved_is_told() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (first, sample) = store(&folder);
    let check = |id: &str, expected: &str| {
        let wanted = ToSave {
            id: id.to_owned(),
            names: Vec::new(),
        };
        let error = first.save(&[wanted], ArchiveFormat::Docker, &mut io::sink());
        let error = crate::model::cause::chain(&error.expect_err("refused"));
        assert!(error.contains(expected), "{error}");
    };
    let toolbox = first.toolbox().expect("made");
    check(&toolbox.id, "kplay made it of itself");
    let recipe = first.layer_path(&sample.chain[0]).join("recipe.zst");
    fs::remove_file(&recipe).expect("removed");
    check(&sample.id(), "what its archive was is not recorded");
}

#[test]
fn skopeo_reads_what_is_saved() {
    let there = Command::new("skopeo").arg("--version").output().is_ok();
    if !can_be_root() || !can("run skopeo", there) {
        return;
    }
    let folder = Folder::new();
    let (first, sample) = store(&folder);
    let wanted = [to_save(&sample, &["example.test/a:1"])];
    for (transport, format) in [
        ("docker-archive", ArchiveFormat::Docker),
        ("oci-archive", ArchiveFormat::Oci),
    ] {
        let path = folder.path().join(transport);
        first.save_file(&wanted, format, &path).expect("saved");
        let source = format!("{transport}:{}", path.display());
        let copy = format!("dir:{}", folder.path().join("copy").display());
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", &source, &copy])
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let config = folder
            .path()
            .join("copy")
            .join(&sample.id()["sha256:".len()..]);
        assert!(fs::read(&config).expect("the configuration") == sample.config);
    }
}

#[test]
fn what_is_given_up_leaves_nothing_and_takes_away_what_was_left() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (first, sample) = store(&folder);
    let wanted = [to_save(&sample, &["example.test/a:1"])];
    let given_up = |saved: Result<(), ImageError>| match saved {
        Err(ImageError::Stopped(_)) => {}
        other => panic!("{other:?}"),
    };
    let stop = || {
        let (asked, ask) = io::pipe().expect("a pipe");
        (Stop::when(asked.into()), ask)
    };
    // Of processes that died in the middle, of one that has not, and somebody else's.
    let beside = |name: &str| {
        let path = folder.path().join(name).join("blobs");
        fs::create_dir_all(&path, 0o755).expect("a folder");
    };
    beside("archive.kplay-save-1-0");
    beside("layout.kplay-save-1-12");
    let (alive, others) = ("archive.kplay-save-2-0", "archive.kplay-save-mine");
    beside(alive);
    beside(others);
    let held = fs::lock_existing(&folder.path().join(alive), LockMode::Exclusive);
    let (stopped, ask) = stop();
    drop(ask);
    let stopping = first.clone().heeding(stopped);
    let path = folder.path().join("archive");
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        given_up(stopping.save_file(&wanted, format, &path));
    }
    given_up(stopping.save_layout(&wanted, &folder.path().join("layout")));
    assert_eq!(
        fs::list(folder.path()).expect("a folder"),
        [alive, others, "images"]
    );
    drop(held);
    // In the middle of it, to who reads no more.
    let fifo = folder.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo").success());
    let (stopped, ask) = stop();
    let from = fifo.clone();
    let reading = std::thread::spawn(move || {
        let mut archive = beneath::open_file(&from).expect("a pipe");
        archive.read_exact(&mut [0; 1000]).expect("its beginning");
        drop(ask);
        archive
    });
    let stopping = first.clone().heeding(stopped);
    given_up(stopping.save_file(&wanted, ArchiveFormat::Docker, &fifo));
    drop(reading.join().expect("no panic"));
    let temporary = fs::list(&first.dir().join("tmp")).expect("a folder");
    assert_eq!(temporary.len(), 0);
}
