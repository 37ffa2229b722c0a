//! Archives of other tools and of none, whole and broken.

use std::process::Command;

use serde_json::json;

use super::*;
use crate::image::Platform;
use crate::image::testing::{
    Folder, Head, Sample, Tar, can, can_be_root, descriptor, gzip, tree, zstd,
};
use crate::sys::stop::Stop;
use crate::sys::{beneath, fs};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

fn sample(compress: fn(&[u8]) -> Vec<u8>) -> Sample {
    let layers = [
        Tar::default().file("a", b"1").end(),
        Tar::default().file("b", b"2").end(),
    ];
    Sample::new(&layers, compress)
}

/// Loads through a pipe and from a file, each into a new store; both must do the same.
fn load(archive: &[u8]) -> Result<Vec<Loaded>, ImageError> {
    let folder = Folder::new();
    let path = folder.path().join("archive");
    fs::replace(&path, 0o600, archive).expect("a file");
    let stores =
        ["one", "two"].map(|name| Store::open(&folder.path().join(name)).expect("a store"));
    let from_file = stores[0].load(LoadSource::Path(&path), &Default::default());
    let from_pipe = stores[1].load(LoadSource::Reader(&mut { archive }), &Default::default());
    for store in &stores {
        assert_eq!(
            fs::list(&store.dir().join("tmp")).expect("a folder").len(),
            0
        );
    }
    match (&from_file, &from_pipe) {
        (Ok(one), Ok(two)) => {
            assert_eq!(one, two);
            for image in one {
                let found = stores[1]
                    .find_id(&image.id)
                    .expect("readable")
                    .expect("there");
                assert_eq!(
                    found.layers.len(),
                    fs::list(&stores[1].dir().join("layers"))
                        .expect("a folder")
                        .len()
                );
            }
        }
        (Err(_), Err(_)) => {}
        other => panic!("{other:?}"),
    }
    from_file
}

fn names(loaded: &[Loaded]) -> Vec<String> {
    loaded
        .iter()
        .flat_map(|image| &image.references)
        .map(Reference::to_string)
        .collect()
}

fn fails(archive: &[u8], expected: &str) {
    if !can_be_root() {
        return;
    }
    let error = load(archive).expect_err("it fails");
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    let text = chain
        .skip(1)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    assert!(text.starts_with(expected), "{text:?} and not {expected:?}");
}

/// An OCI layout with these entries in its index, as an archive.
fn layout(sample: &Sample, entries: &[serde_json::Value], more: &[&[u8]]) -> Tar {
    let index =
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }).to_string();
    let blobs = sample
        .layers
        .iter()
        .chain([&sample.config, &sample.manifest])
        .map(Vec::as_slice);
    blobs.chain(more.iter().copied()).fold(
        Tar::default()
            .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", index.as_bytes()),
        |tar, blob| tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob),
    )
}

fn named(sample: &Sample, annotation: &str, name: &str) -> serde_json::Value {
    let mut entry = descriptor(OCI_MANIFEST, &sample.manifest);
    entry["annotations"] = json!({ annotation: name });
    entry
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An archive during which somebody asks for the end.
struct Interrupted<'a> {
    archive: &'a [u8],
    ask: Option<io::PipeWriter>,
}

impl Read for Interrupted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.archive.len() < 5000 {
            self.ask = None;
        }
        let most = buffer.len().min(1000);
        self.archive.read(&mut buffer[..most])
    }
}

type Attempt = Result<Vec<Loaded>, ImageError>;

#[test]
fn a_load_that_is_given_up_leaves_nothing() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let archive = sample(gzip).docker_archive(&["app"]);
    let path = folder.path().join("archive");
    fs::replace(&path, 0o600, &archive).expect("a file");
    let fifo = folder.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo").success());
    let check = |load: &dyn Fn(&Store, io::PipeWriter) -> Attempt| {
        let (asked, ask) = io::pipe().expect("a pipe");
        let store = Store::open(&folder.path().join("images")).expect("a store");
        let store = store.heeding(Stop::when(asked.into()));
        let error = load(&store, ask).expect_err("given up");
        assert!(matches!(error, ImageError::Stopped(_)), "{error:?}");
        for folder in ["images", "references", "layers", "tmp"] {
            let left = fs::list(&store.dir().join(folder)).expect("a folder");
            assert_eq!(left.len(), 0, "{folder}");
        }
    };
    check(&|store, ask| {
        let (archive, ask) = (archive.as_slice(), Some(ask));
        let mut reader = Interrupted { archive, ask };
        store.load(LoadSource::Reader(&mut reader), &Default::default())
    });
    let from = |path: &Path, store: &Store| store.load(LoadSource::Path(path), &Default::default());
    check(&|store, ask| {
        drop(ask);
        from(&path, store)
    });
    // Nobody writes to it.
    check(&|store, ask| {
        drop(ask);
        from(&fifo, store)
    });
    // Somebody else is at its layers.
    let layers = sample(gzip).chain;
    check(&|store, ask| {
        let other = Store::open(store.dir()).expect("a store");
        let claims = layers.iter().map(|layer| other.try_claim_layer(layer));
        let _claims: Vec<_> = claims.map(|claim| claim.expect("free")).collect();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| from(&path, store));
            // It may wait already or not: both end.
            drop(ask);
            waiting.join().expect("no panic")
        })
    });
}

#[test]
fn a_docker_archive_is_loaded_however_it_is_compressed() {
    if !can_be_root() {
        return;
    }
    for compress in [plain, gzip, zstd] {
        let sample = sample(compress);
        let archive = sample.docker_archive(&["app", "example.org/app:2"]);
        for archive in [archive.clone(), gzip(&archive), zstd(&archive)] {
            let loaded = load(&archive).expect("it loads");
            assert_eq!(loaded[0].id, sample.id());
            assert_eq!(
                names(&loaded),
                ["docker.io/library/app:latest", "example.org/app:2"]
            );
        }
    }
}

#[test]
fn links_within_an_archive_are_followed() {
    if !can_be_root() {
        return;
    }
    // `docker save` before version 25 writes layers that are the same as links.
    let sample = sample(plain);
    let table =
        json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["x/layer.tar", "y/layer.tar"] }]);
    let tar = Tar::default()
        .symlink("x/layer.tar", "../z/layer.tar")
        .file("z/layer.tar", &sample.layers[0])
        .file("w", &sample.layers[1])
        .link("y/layer.tar", "w")
        .file("manifest.json", table.to_string().as_bytes())
        .file("c.json", &sample.config);
    assert_eq!(load(&tar.end()).expect("it loads")[0].id, sample.id());
    let endless = Tar::default()
        .symlink("manifest.json", "m")
        .symlink("m", "manifest.json");
    fails(
        &endless.end(),
        "it is neither an archive of images nor an OCI layout",
    );
}

#[test]
fn an_oci_archive_is_loaded_with_its_names() {
    if !can_be_root() {
        return;
    }
    for compress in [plain, gzip, zstd] {
        let sample = sample(compress);
        let check = |annotation: &str, name: &str, expected: &[&str]| {
            let loaded = load(&layout(&sample, &[named(&sample, annotation, name)], &[]).end())
                .expect("it loads");
            assert_eq!(
                (loaded[0].id.clone(), names(&loaded)),
                (
                    sample.id(),
                    expected.iter().map(ToString::to_string).collect()
                )
            );
        };
        check(REF_NAME, "example.org/app:3", &["example.org/app:3"]);
        check(REF_NAME, "app:3", &["docker.io/library/app:3"]);
        check(REF_NAME, "latest", &[]);
        check(
            "io.containerd.image.name",
            "example.org/app:4",
            &["example.org/app:4"],
        );
    }
}

#[test]
fn an_index_in_a_layout_gives_the_image_of_this_machine() {
    if !can_be_root() {
        return;
    }
    let sample = sample(gzip);
    let entry = |platform: &Platform| {
        let mut entry = descriptor(OCI_MANIFEST, &sample.manifest);
        entry["platform"] = serde_json::to_value(platform).expect("JSON");
        entry
    };
    let other = Platform::parse("windows/amd64").expect("a platform");
    let inner =
        json!({ "schemaVersion": 2, "manifests": [entry(&other), entry(&Platform::host())] })
            .to_string();
    let mut outer = descriptor(OCI_INDEX, inner.as_bytes());
    outer["annotations"] = json!({ "io.containerd.image.name": "example.org/app:1" });
    let archive = layout(&sample, &[outer], &[inner.as_bytes()]).end();
    assert_eq!(
        names(&load(&archive).expect("it loads")),
        ["example.org/app:1"]
    );
    let only_others = [entry(&other), entry(&other)];
    fails(
        &layout(&sample, &only_others, &[]).end(),
        "its `index.json` cannot be used: there is no image for linux/",
    );
}

#[test]
fn a_layout_folder_is_loaded_and_its_links_stay_in_it() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let dir = folder.path().join("layout");
    let sample = sample(gzip);
    fs::create_dir_all(&dir.join("blobs/sha256"), 0o755).expect("folders");
    let entry = named(&sample, REF_NAME, "example.org/app:1");
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    fs::replace(&dir.join("index.json"), 0o644, index.as_bytes()).expect("a file");
    for blob in sample
        .layers
        .iter()
        .chain([&sample.config, &sample.manifest])
    {
        let path = dir.join("blobs/sha256").join(Digest::of(blob).hex());
        fs::replace(&path, 0o644, blob).expect("a file");
    }
    let store = Store::open(&folder.path().join("store")).expect("a store");
    let loaded = store
        .load(LoadSource::Path(&dir), &Default::default())
        .expect("it loads");
    let image = store
        .find(&loaded[0].references[0])
        .expect("readable")
        .expect("there");
    assert_eq!(tree(&image.layers[0]), "755 0:0 /\n644 0:0 a = 1");
    // By its manifest's digest as well.
    let by_digest = format!("example.org/app@{}", Digest::of(&sample.manifest));
    assert!(
        store
            .find(&Reference::parse(&by_digest).expect("a reference"))
            .expect("readable")
            .is_some()
    );
    beneath::remove_all(&dir.join("index.json")).expect("removed");
    std::os::unix::fs::symlink("/etc/passwd", dir.join("index.json")).expect("a link");
    let error = store
        .load(LoadSource::Path(&dir), &Default::default())
        .expect_err("it leads out");
    assert!(
        matches!(
            error,
            ImageError::Load {
                source: Error::Unknown,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn archives_that_are_wrong_say_how() {
    let sample = sample(gzip);
    let entry = || named(&sample, REF_NAME, "example.org/app:1");
    let whole = sample.docker_archive(&["app"]);
    fails(b"", "it is neither an archive of images nor an OCI layout");
    fails(
        &Tar::default().file("readme", b"").end(),
        "it is neither an archive of images nor an OCI layout",
    );
    fails(
        b"plain text, and more of it than a block of an archive has"
            .repeat(20)
            .as_slice(),
        "it is damaged",
    );
    fails(b"BZh91AY&SY", "it is compressed with bzip2");
    fails(
        &whole[..1500],
        "it is damaged: the archive ends in the middle of an entry",
    );
    fails(&gzip(&whole)[..300], "cannot read it");
    fails(
        &sample.docker_archive(&["UPPER"]),
        "it has an image of the name `UPPER`: the repository name must be",
    );
    fails(
        &Tar::default().file("manifest.json", b"[{}]").end(),
        "its `manifest.json` is not valid JSON",
    );
    let table = json!([{ "Config": "../../etc/passwd", "Layers": [] }]).to_string();
    fails(
        &Tar::default().file("manifest.json", table.as_bytes()).end(),
        "it has no `../../etc/passwd`",
    );
    let table = json!([{ "Config": "c", "Layers": ["only"] }]).to_string();
    let tar = Tar::default()
        .file("manifest.json", table.as_bytes())
        .file("c", &sample.config);
    fails(
        &tar.clone().end(),
        "its `c` cannot be used: the manifest has 1 layers, but the configuration has 2",
    );
    let table = json!([{ "Config": "c", "Layers": ["l", "l"] }]).to_string();
    let tar = Tar::default()
        .file("manifest.json", table.as_bytes())
        .file("c", &sample.config);
    fails(&tar.clone().end(), "it has no `l`");
    fails(
        &tar.file("l", &sample.layers[0]).end(),
        "its layer `l` cannot be used: its uncompressed content has the digest",
    );
    let mut other = entry();
    other["digest"] = json!(Digest::of(&sample.config));
    fails(&layout(&sample, &[other], &[]).end(), "its `blobs/sha256/");
    let mut missing = entry();
    missing["digest"] = json!(Digest::of(b"missing"));
    fails(
        &layout(&sample, &[missing], &[]).end(),
        "it has no `blobs/sha256/",
    );
}

/// What other tools write, from an image of Debian's busybox.
#[test]
fn archives_of_other_tools_are_loaded() {
    let have = ["/usr/bin/podman", "/usr/bin/skopeo", "/usr/bin/busybox"];
    let there = have.iter().all(|path| Path::new(path).exists());
    if !can_be_root() || !can("podman, skopeo and busybox", there) {
        return;
    }
    let folder = Folder::new();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let busybox = fs::read("/usr/bin/busybox".as_ref()).expect("busybox");
    let head = Head {
        path: b"bin/busybox",
        mode: 0o4755,
        ..Head::default()
    };
    let layer = Tar::default()
        .folder("./", 0o755)
        .entry(&head, &busybox)
        .link("bin/sh", "bin/busybox")
        .end();
    let sample = Sample::new(&[layer], plain);
    fs::replace(
        at("in.tar").as_ref(),
        0o600,
        &sample.docker_archive(&["example.org/box:1"]),
    )
    .expect("a file");
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .output()
            .expect(program);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let source = format!("docker-archive:{}", at("in.tar"));
    let mut made = Vec::new();
    for compression in ["gzip", "zstd"] {
        for (kind, rest) in [
            ("oci-archive", ":example.org/box:1"),
            ("oci", ":example.org/box:1"),
        ] {
            let path = at(&format!("{kind}-{compression}"));
            let target = format!("{kind}:{path}{rest}");
            run(
                "skopeo",
                &[
                    "copy",
                    "-q",
                    "--insecure-policy",
                    "--dest-compress-format",
                    compression,
                    &source,
                    &target,
                ],
            );
            made.push(path);
        }
    }
    let path = at("docker-archive");
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--insecure-policy",
            &source,
            &format!("docker-archive:{path}:example.org/box:1"),
        ],
    );
    made.push(path);
    let podman = |arguments: &[&str]| {
        let (root, runroot) = (at("podman"), at("podman-run"));
        let own = [
            "--root",
            &root,
            "--runroot",
            &runroot,
            "--storage-driver",
            "vfs",
        ];
        run("podman", &[&own[..], arguments].concat());
    };
    podman(&["load", "-q", "-i", &at("in.tar")]);
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let path = at(&format!("podman-{format}"));
        podman(&[
            "save",
            "-q",
            "--format",
            format,
            "-o",
            &path,
            "example.org/box:1",
        ]);
        made.push(path);
    }
    for (number, path) in made.iter().enumerate() {
        let store = Store::open(&folder.path().join(format!("store-{number}"))).expect("a store");
        let loaded = store
            .load(LoadSource::Path(path.as_ref()), &Default::default())
            .unwrap_or_else(|e| panic!("{path}: {e:?}"));
        let image = store
            .find_id(&loaded[0].id)
            .expect("readable")
            .expect("there");
        let size = busybox.len();
        let found = tree(&image.layers[0]);
        assert!(
            found.contains(&format!("4755 0:0 bin/busybox = {size} bytes")),
            "{path}: {found}"
        );
        // podman's OCI folder has no name in it.
        if !path.ends_with("oci-dir") {
            assert_eq!(names(&loaded), ["example.org/box:1"], "{path}");
        }
    }
}
