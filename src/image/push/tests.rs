//! Pushes to a registry in this process, and what it is asked for.

use std::sync::Mutex;

use super::*;
use crate::image::auth::{Credentials, Keychain};
use crate::image::load::LoadSource;
use crate::image::platform::Platform;
use crate::image::proxy::Proxies;
use crate::image::pull::{Slots, pull};
use crate::image::registries::{Places, RegistriesConf};
use crate::image::registry::{SILENCE, TlsVerify};
use crate::image::testing::registry::{Access, Act, Registry, file};
use crate::image::testing::{Folder, Sample, Tar, can_be_root, gzip, noise, tree};

const HOW: PushHow = PushHow {
    format: None,
    compression: LayerCompression::Gzip,
};

const WAITS: &[std::time::Duration] = &[std::time::Duration::from_millis(5); 4];

fn sample() -> Sample {
    let layers = [
        Tar::default().file("a", &noise(300_000)).end(),
        Tar::default().file("b", b"2").end(),
    ];
    Sample::new(&layers, gzip)
}

fn options(given: Option<Credentials>) -> PullOptions {
    PullOptions {
        platform: Platform::host(),
        tls_verify: TlsVerify::Configured,
        registries: Arc::default(),
        waits: WAITS,
        silence: SILENCE,
        slots: Slots::new(Slots::USUAL),
        keychain: Keychain {
            given,
            ..Keychain::empty()
        },
        proxies: Proxies::default(),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(future)
}

fn pushed(store: &Store, sample: &Sample, to: &Reference, how: &PushHow) -> Result<Digest, Error> {
    let options = options(Some(Credentials::password("user", "secret")));
    block_on(push(store, &sample.id(), to, &options, how, |_| ()))
}

/// A store with the sample, which came as an archive.
fn loaded(folder: &Folder) -> (Store, Sample) {
    let store = Store::open(&folder.path().join("images")).expect("a store");
    let sample = sample();
    let archive = sample.docker_archive(&["example.test/a:1"]);
    let source = LoadSource::Reader(&mut archive.as_slice());
    store.load(source, &Default::default()).expect("it loads");
    (store, sample)
}

/// Pulls into another store, and compares.
fn comes_back(registry: &Registry, name: &str, store: &Store, sample: &Sample) {
    let folder = Folder::new();
    let other = Store::open(folder.path()).expect("a store");
    let reference = registry.reference(name).into();
    let options = options(Some(Credentials::password("user", "secret")));
    let image = block_on(pull(&other, &reference, &options, &|_| ())).expect("pulled");
    assert_eq!(image.id, sample.id());
    let first = store.find_id(&image.id).expect("readable").expect("there");
    for (one, two) in first.layers.iter().zip(&image.layers) {
        assert_eq!(tree(one), tree(two));
    }
}

/// A store with what was pulled from `lib/a:1` of a registry.
fn pulled(folder: &Folder) -> (Store, Sample, Registry) {
    let store = Store::open(folder.path()).expect("a store");
    let sample = sample();
    let registry = Registry::start(Access::Anybody);
    registry.add("lib/a", "1", &sample);
    let from = registry.reference("lib/a:1").into();
    block_on(pull(&store, &from, &options(None), &|_| ())).expect("pulled");
    (store, sample, registry)
}

#[test]
fn every_way_in_takes_a_push() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (store, sample) = loaded(&folder);
    for access in [
        Access::Anybody,
        Access::Basic,
        Access::Bearer,
        Access::ShortTokens,
    ] {
        let registry = Registry::start(access);
        let to = registry.reference("lib/a:1");
        let digest = pushed(&store, &sample, &to, &HOW).expect("pushed");
        let (media_type, manifest) = registry.content("/v2/lib/a/manifests/1").expect("there");
        assert_eq!(Digest::of(&manifest), digest);
        assert_eq!(media_type, ManifestFormat::Docker.media_type());
        comes_back(&registry, "lib/a:1", &store, &sample);
        if access == Access::Bearer {
            let asked = registry
                .log()
                .into_iter()
                .find(|line| line.starts_with("/token"));
            let asked = asked.expect("a token was asked for");
            assert!(
                asked.contains("lib%2Fa%3Apull%2Cpush") || asked.contains("lib/a:pull,push"),
                "{asked}"
            );
        }
    }
    assert_eq!(
        crate::sys::fs::list(&store.dir().join("tmp"))
            .expect("a folder")
            .len(),
        0
    );
}

#[test]
fn what_the_registry_has_is_not_sent() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (store, sample) = loaded(&folder);
    let registry = Registry::start(Access::Anybody);
    let to = registry.reference("lib/a:1");
    let first = pushed(&store, &sample, &to, &HOW).expect("pushed");
    let before = registry.log().len();
    let second = pushed(&store, &sample, &registry.reference("lib/a:2"), &HOW);
    assert_eq!(second.expect("pushed"), first);
    let log = registry.log();
    let sent: Vec<_> = log[before..]
        .iter()
        .filter(|line| line.starts_with('P'))
        .collect();
    assert_eq!(sent, ["PUT /v2/lib/a/manifests/2"]);
}

#[test]
fn what_was_pulled_goes_to_another_repository_as_it_is() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (store, sample, registry) = pulled(&folder);
    let digest = pushed(&store, &sample, &registry.reference("lib/b:1"), &HOW).expect("pushed");
    assert_eq!(
        digest,
        Digest::of(&sample.manifest),
        "the very same manifest"
    );
    let log = registry.log();
    let mounted = log.iter().filter(|line| line.contains("mount="));
    assert_eq!(mounted.count(), 2, "{log:?}");
    comes_back(&registry, "lib/b:1", &store, &sample);
}

#[test]
fn the_other_repository_of_a_blob_is_asked_for_by_name() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).expect("a store");
    let sample = sample();
    let registry = Registry::start(Access::Scopes);
    registry.add("lib/a", "1", &sample);
    let from = registry.reference("lib/a:1").into();
    let given = options(Some(Credentials::password("user", "secret")));
    block_on(pull(&store, &from, &given, &|_| ())).expect("pulled");
    let before = registry.log().len();
    let to = registry.reference("lib/b:1");
    let digest = pushed(&store, &sample, &to, &HOW).expect("pushed");
    assert_eq!(digest, Digest::of(&sample.manifest));
    let log = registry.log().split_off(before);
    let count = |part: &str| log.iter().filter(|line| line.contains(part)).count();
    assert_eq!(count("mount="), 2, "{log:?}");
    // The configuration is sent, and nothing else.
    assert_eq!(count("PUT /v2/lib/b/blobs/"), 1, "{log:?}");
    let both = "scope=repository%3Alib%2Fb%3Apull%2Cpush&scope=repository%3Alib%2Fa%3Apull";
    assert_eq!(count(both), 1, "one token for both layers: {log:?}");
    comes_back(&registry, "lib/b:1", &store, &sample);
}

#[test]
fn manifests_and_layers_are_of_the_kind_that_was_asked_for() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (store, sample) = loaded(&folder);
    let registry = Registry::start(Access::Anybody);
    let check = |tag: &str, how: &PushHow, manifest: ManifestFormat, layer: &str| {
        let to = registry.reference(&format!("lib/a:{tag}"));
        pushed(&store, &sample, &to, how).expect("pushed");
        let path = format!("/v2/lib/a/manifests/{tag}");
        let (media_type, bytes) = registry.content(&path).expect("there");
        let json: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(media_type, manifest.media_type());
        assert_eq!(json["layers"][0]["mediaType"], layer);
        comes_back(&registry, &format!("lib/a:{tag}"), &store, &sample);
    };
    let oci = PushHow {
        format: Some(ManifestFormat::Oci),
        ..HOW
    };
    let zstd = PushHow {
        compression: LayerCompression::Zstd,
        ..oci
    };
    let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    check("docker", &HOW, ManifestFormat::Docker, docker);
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    check("oci", &oci, ManifestFormat::Oci, gzip);
    let zstd_type = "application/vnd.oci.image.layer.v1.tar+zstd";
    check("zstd", &zstd, ManifestFormat::Oci, zstd_type);
}

#[test]
fn what_passes_is_tried_again_and_what_does_not_is_told() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (store, sample) = loaded(&folder);
    let registry = Registry::start(Access::Anybody);
    registry.act("blobs/uploads", 2, Act::Status(503, "{}"));
    registry.act("manifests/1", 1, Act::Status(500, "{}"));
    let (count, to) = (Arc::new(Mutex::new((0, 0))), registry.reference("lib/a:1"));
    let counted = Arc::clone(&count);
    let progress = move |step| {
        let mut count = counted.lock().expect("a lock");
        match step {
            PushProgress::Packed { bytes } => count.0 += bytes,
            PushProgress::Sent { bytes } => count.1 += bytes,
        }
    };
    let given = options(None);
    block_on(push(&store, &sample.id(), &to, &given, &HOW, progress)).expect("pushed");
    let (packed, sent) = *count.lock().expect("a lock");
    assert!(packed > 300_000 && sent >= packed, "{packed} {sent}");
    let check = |path: &str, status: u16, expected: &str| {
        let registry = Registry::start(Access::Anybody);
        registry.act(path, 20, Act::Status(status, "{}"));
        let to = registry.reference("lib/a:1");
        let error = pushed(&store, &sample, &to, &HOW).expect_err("refused");
        let text = crate::model::cause::chain(&error);
        assert!(text.contains(expected), "{text}");
        assert!(registry.content("/v2/lib/a/manifests/1").is_none());
    };
    let later = Registry::start(Access::Anybody);
    later.act("blobs/uploads", 1, Act::ComeAgain(429, "100"));
    let error = pushed(&store, &sample, &later.reference("lib/a:1"), &HOW);
    let text = crate::model::cause::chain(&error.expect_err("refused"));
    assert!(text.contains("to be asked again in 100 s"), "{text}");
    check("blobs/uploads", 403, "refuses access");
    check("blobs/uploads", 500, "answers with status 500");
    check("manifests/1", 400, "cannot push");
    let refused = Registry::start(Access::Basic);
    let to = refused.reference("lib/a:1");
    let error = block_on(push(
        &store,
        &sample.id(),
        &to,
        &options(None),
        &HOW,
        |_| (),
    ));
    let text = crate::model::cause::chain(&error.expect_err("refused"));
    assert!(text.contains("without credentials"), "{text}");
    assert_eq!(
        crate::sys::fs::list(&store.dir().join("tmp"))
            .expect("a folder")
            .len(),
        0
    );
}

/// `certs.d` with these files of `testdata/image`.
fn certificates(folder: &Folder, files: &[(&str, &str)]) -> PullOptions {
    let certs = folder.path().join("certs");
    crate::sys::fs::create_dir_all(&certs, 0o755).expect("a folder");
    for (name, from) in files {
        let content = crate::sys::fs::read(file(from).as_ref()).expect("a file");
        crate::sys::fs::replace(&certs.join(name), 0o600, &content).expect("a file");
    }
    let cert_dir = Some(certs);
    let places = Places {
        cert_dir,
        ..Places::default()
    };
    PullOptions {
        registries: Arc::new(RegistriesConf::new(places)),
        ..options(None)
    }
}

#[test]
fn a_client_certificate_is_shown() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (store, sample) = loaded(&folder);
    let registry = Registry::with_client_certificates();
    let to = registry.reference("lib/a:1");
    let push_with = |files: &[(&str, &str)]| {
        let certs = Folder::new();
        let options = certificates(&certs, files);
        block_on(push(&store, &sample.id(), &to, &options, &HOW, |_| ()))
    };
    let error = push_with(&[("ca.crt", "ca.pem")]).expect_err("nobody is let in without");
    assert_eq!(error.class(), crate::image::error::Class::Tls, "{error:?}");
    let all = [
        ("ca.crt", "ca.pem"),
        ("me.cert", "client.pem"),
        ("me.key", "client.key"),
    ];
    let digest = push_with(&all).expect("pushed");
    let (_, manifest) = registry.content("/v2/lib/a/manifests/1").expect("there");
    assert_eq!(Digest::of(&manifest), digest);
}

#[test]
fn a_blob_goes_to_where_the_registry_says_and_credentials_stay() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (store, sample) = loaded(&folder);
    let (registry, storage) = (
        Registry::start(Access::Basic),
        Registry::start(Access::Anybody),
    );
    let there = Act::Location(format!("http://{}*", storage.address()));
    registry.act("blobs/uploads", 99, there);
    let to = registry.reference("lib/a:1");
    pushed(&store, &sample, &to, &HOW).expect("pushed");
    let config = format!("/v2/lib/a/blobs/{}", sample.id());
    assert!(storage.content(&config).is_some());
    let shown = storage.authorizations();
    assert!(
        shown.len() == 3 && shown.iter().all(String::is_empty),
        "{shown:?}"
    );
    // In the middle of it, too.
    let registry = Registry::start(Access::Basic);
    let there = Act::Location(format!("http://{}*", storage.address()));
    registry.act("blobs/uploads/1?", 99, there);
    pushed(&store, &sample, &registry.reference("lib/b:1"), &HOW).expect("pushed");
    let config = format!("/v2/lib/b/blobs/{}", sample.id());
    assert!(storage.content(&config).is_some());
    assert!(storage.authorizations().iter().all(String::is_empty));
    // From behind TLS to where anybody listens.
    let registry = Registry::with_tls(Access::Anybody);
    let there = Act::Location(format!("http://{}*", storage.address()));
    registry.act("blobs/uploads", 99, there);
    let certs = Folder::new();
    let options = certificates(&certs, &[("ca.crt", "ca.pem")]);
    let to = registry.reference("lib/a:1");
    let error = block_on(push(&store, &sample.id(), &to, &options, &HOW, |_| ()));
    let text = crate::model::cause::chain(&error.expect_err("refused"));
    assert!(text.contains("which has no TLS"), "{text}");
}

#[test]
fn an_upload_that_is_begun_instead_of_a_mount_is_called_off() {
    if !can_be_root() {
        return;
    }
    let folder = Folder::new();
    let (store, sample, registry) = pulled(&folder);
    registry.act(
        "mount=",
        99,
        Act::Location("/v2/lib/b/blobs/uploads/7".into()),
    );
    let before = registry.log().len();
    let to = registry.reference("lib/b:1");
    pushed(&store, &sample, &to, &HOW).expect("pushed");
    let log = registry.log().split_off(before);
    let count = |part: &str| log.iter().filter(|line| line.starts_with(part)).count();
    assert_eq!(count("DELETE /v2/lib/b/blobs/uploads/7"), 2, "{log:?}");
    assert_eq!(count("PUT /v2/lib/b/blobs/"), 3, "{log:?}");
    comes_back(&registry, "lib/b:1", &store, &sample);
}
