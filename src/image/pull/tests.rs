//! Pulls from a registry in this process.

mod faults;
mod hostile;
mod places;
mod processes;
mod sign_in;

use serde_json::json;

use super::*;
use crate::image::error::Class;
use crate::image::testing::registry::{Access, Act, Registry};
use crate::image::testing::{
    Folder, Sample, Tar, can_be_root, descriptor, gzip, noise, tree, zstd,
};
use crate::sys::fs;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// As often as usual, and sooner.
const WAITS: &[Duration] = &[Duration::from_millis(5); 4];

struct Setup {
    folder: Folder,
    store: Store,
}

impl Setup {
    fn new() -> Self {
        let folder = Folder::new();
        let store = Store::open(folder.path()).expect("a store");
        Self { folder, store }
    }

    fn pull(&self, reference: &Reference) -> Result<Image, Error> {
        self.pull_with(reference, &options())
    }

    fn pull_with(&self, reference: &Reference, options: &PullOptions) -> Result<Image, Error> {
        let name = reference.clone().into();
        runtime().block_on(pull(&self.store, &name, options, &|_| ()))
    }

    /// Entries that a failed pull must not leave.
    fn left(&self) -> usize {
        let list = |name| {
            fs::list(&self.folder.path().join(name))
                .expect("a folder")
                .len()
        };
        list("tmp") + list("images") + list("references")
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn options() -> PullOptions {
    PullOptions {
        platform: Platform::host(),
        tls_verify: TlsVerify::Configured,
        registries: Arc::default(),
        waits: WAITS,
        silence: Duration::from_secs(20),
        slots: Slots::new(Slots::USUAL),
        keychain: Keychain::empty(),
        proxies: Proxies::default(),
    }
}

fn sample() -> Sample {
    let big = noise(2_000_000);
    let layers = [
        Tar::default().file("a", b"1").end(),
        Tar::default().file("big", &big).end(),
    ];
    Sample::new(&layers, gzip)
}

/// Pulls `app:1` from a registry that has it and does `act`, and expects a failure.
fn fails(act: impl FnOnce(&Registry, &Sample), class: Class, message: &str) {
    if !can_be_root() {
        return;
    }
    let (registry, setup, sample) = (Registry::start(Access::Anybody), Setup::new(), sample());
    registry.add("app", "1", &sample);
    act(&registry, &sample);
    let error = setup
        .pull(&registry.reference("app:1"))
        .expect_err("it fails");
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    let text = chain
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    assert_eq!(error.class(), class, "{text}");
    assert!(
        text.contains(&registry.reference("app:1").to_string()),
        "{text}"
    );
    assert!(text.contains(message), "{text}");
    assert_eq!(setup.left(), 0);
}

fn blob(sample: &Sample, layer: usize) -> String {
    format!("blobs/{}", Digest::of(&sample.layers[layer]))
}

#[test]
fn an_image_is_pulled_and_found_by_tag_and_digest() {
    if !can_be_root() {
        return;
    }
    let (registry, setup, sample) = (Registry::start(Access::Anybody), Setup::new(), sample());
    registry.add("ns/app", "1", &sample);
    let reference = registry.reference("ns/app:1");
    let seen = RefCell::new(Vec::new());
    let progress = |event| seen.borrow_mut().push(event);
    let image = runtime()
        .block_on(pull(
            &setup.store,
            &reference.clone().into(),
            &options(),
            &progress,
        ))
        .expect("pulled");
    assert_eq!((image.id, image.layers.len()), (sample.id(), 2));
    let bytes: usize = sample.layers.iter().map(Vec::len).sum();
    let seen = seen.into_inner();
    assert_eq!(
        seen[0],
        PullProgress::Resolved {
            layers: 2,
            missing: 2,
            bytes: bytes as u64,
            size: (bytes + sample.config.len()) as u64,
        }
    );
    let received = seen.iter().map(|event| match event {
        PullProgress::Received { bytes, .. } => *bytes,
        PullProgress::Resolved { .. }
        | PullProgress::Waiting { .. }
        | PullProgress::Started { .. }
        | PullProgress::LayerDone { .. }
        | PullProgress::Trouble(_) => 0,
    });
    assert_eq!(received.sum::<u64>(), bytes as u64);
    let by_digest = registry.reference(&format!("ns/app@{}", Digest::of(&sample.manifest)));
    assert!(setup.store.find(&reference).expect("readable").is_some());
    assert!(setup.store.find(&by_digest).expect("readable").is_some());
    // Again: nothing is fetched that is there.
    let before = registry.log().len();
    setup.pull(&reference).expect("pulled");
    assert!(
        registry.log()[before..]
            .iter()
            .all(|path| !path.contains(&Digest::of(&sample.layers[0]).to_string()))
    );
    // Its names by digest go with its only tag.
    let removed = setup.store.remove(&reference, &|_| false).expect("removed");
    assert_eq!(
        (removed.references.len(), removed.images.len(), setup.left()),
        (2, 1, 0)
    );
}

#[test]
fn a_digest_is_pulled_and_no_tag_is_recorded() {
    if !can_be_root() {
        return;
    }
    let (registry, setup, sample) = (Registry::start(Access::Anybody), Setup::new(), sample());
    registry.add("app", "1", &sample);
    let digest = Digest::of(&sample.manifest);
    setup
        .pull(&registry.reference(&format!("app:9@{digest}")))
        .expect("pulled");
    let listed = setup.store.list().expect("readable");
    let names: Vec<String> = listed[0]
        .references
        .iter()
        .map(Reference::to_string)
        .collect();
    assert_eq!(
        names,
        [registry.reference(&format!("app@{digest}")).to_string()]
    );
}

#[test]
fn a_name_on_this_machine_is_resolved_without_dns() {
    if !can_be_root() {
        return;
    }
    let (registry, setup, sample) = (Registry::start(Access::Anybody), Setup::new(), sample());
    registry.add("app", "1", &sample);
    let name = format!("localhost:{}/app:1", registry.address().port());
    setup
        .pull(&Reference::parse(&name).expect("a reference"))
        .expect("pulled");
}

#[test]
fn an_index_gives_the_image_of_the_platform() {
    if !can_be_root() {
        return;
    }
    let (registry, setup) = (Registry::start(Access::Anybody), Setup::new());
    let platforms = ["linux/arm/v5", "linux/arm/v7", "linux/arm64", "linux/s390x"];
    let mut entries = Vec::new();
    let mut ids = Vec::new();
    for name in platforms {
        let platform = Platform::parse(name).expect("a platform");
        let sample = Sample::of_platform(
            &[Tar::default().file("p", name.as_bytes()).end()],
            zstd,
            &platform,
        );
        registry.add("app", name.rsplit('/').next().expect("a part"), &sample);
        let mut entry = descriptor(OCI_MANIFEST, &sample.manifest);
        entry["platform"] = serde_json::to_value(&platform).expect("JSON");
        entries.push(entry);
        ids.push(sample.id());
    }
    let index =
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }).to_string();
    registry.add_manifest("app", "all", OCI_INDEX, index.as_bytes());
    let check = |wanted: &str, expected: Result<usize, &str>| {
        let platform = Platform::parse(wanted).expect("a platform");
        let pulled = setup.pull_with(
            &registry.reference("app:all"),
            &PullOptions {
                platform,
                ..options()
            },
        );
        match (pulled, expected) {
            (Ok(image), Ok(index)) => assert_eq!(image.id, ids[index]),
            (Err(Error::Manifest { source, .. }), Err(text)) => {
                assert_eq!(source.to_string(), text);
            }
            (pulled, expected) => panic!("{pulled:?}, not {expected:?}"),
        }
    };
    check("linux/arm/v7", Ok(1));
    check("linux/arm/v6", Ok(0));
    check("linux/arm64/v8", Ok(2));
    check(
        "linux/amd64",
        Err(
            "there is no image for linux/amd64; there is: linux/arm/v5, linux/arm/v7, linux/arm64, linux/s390x",
        ),
    );
    let by_digest = registry.reference(&format!("app@{}", Digest::of(index.as_bytes())));
    assert!(setup.store.find(&by_digest).expect("readable").is_some());
    // Without an index, what the configuration says counts.
    let platform = Platform::parse("linux/amd64").expect("a platform");
    let other = setup.pull_with(
        &registry.reference("app:s390x"),
        &PullOptions {
            platform,
            ..options()
        },
    );
    assert_eq!(
        other.expect_err("another platform").class(),
        Class::Platform
    );
}

#[test]
fn what_is_not_there_is_not_found() {
    fails(
        |r, _| r.act("manifests/1", 9, Act::Status(404, "")),
        Class::NotFound,
        "does not have `app:1`",
    );
    fails(
        |r, s| r.act(blob(s, 0), 9, Act::Status(404, "")),
        Class::NotFound,
        "does not have the blob `sha256:",
    );
    let body = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"unknown"}]}"#;
    fails(
        |r, _| r.act("manifests/1", 9, Act::Status(404, body)),
        Class::NotFound,
        "does not have `app:1`",
    );
}

#[test]
fn wrong_content_is_refused() {
    fails(
        |r, s| r.act(blob(s, 1), 9, Act::Garble),
        Class::Corrupt,
        "its content has the digest sha256:",
    );
    fails(
        |r, s| r.act(Digest::of(&s.config), 9, Act::Garble),
        Class::Corrupt,
        "is something else",
    );
    fails(
        |r, s| r.act(Digest::of(&s.config), 9, Act::Shorten(5)),
        Class::Corrupt,
        "has 5 bytes, and the manifest says",
    );
    fails(
        |r, _| r.act("manifests/1", 9, Act::Garble),
        Class::Corrupt,
        "the manifest is not valid JSON",
    );
    let schema1 = r#"{"schemaVersion":1,"name":"app","fsLayers":[]}"#;
    let put = |r: &Registry, _: &Sample| {
        r.add_manifest("app", "1", "application/json", schema1.as_bytes());
    };
    fails(put, Class::Unsupported, "schema version 1");
    let chart = json!({ "schemaVersion": 2, "config": descriptor("application/vnd.cncf.helm.config.v1+json", b"") });
    let put = |r: &Registry, _: &Sample| {
        r.add_manifest("app", "1", OCI_MANIFEST, chart.to_string().as_bytes());
    };
    fails(put, Class::Unsupported, "which is not a container image");
}

#[test]
fn a_hostile_layer_is_refused_by_name() {
    if !can_be_root() {
        return;
    }
    let (registry, setup) = (Registry::start(Access::Anybody), Setup::new());
    let sample = Sample::new(&[Tar::default().file("../../etc/x", b"").end()], gzip);
    registry.add("app", "1", &sample);
    let error = setup
        .pull(&registry.reference("app:1"))
        .expect_err("refused");
    assert_eq!(error.class(), Class::Hostile, "{error:?}");
    assert_eq!(setup.left(), 0);
}

#[test]
fn nothing_that_listens_is_unreachable() {
    let setup = Setup::new();
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let reference = Reference::parse(&format!("127.0.0.1:{port}/app:1")).expect("a reference");
    let error = setup.pull(&reference).expect_err("nothing there");
    assert_eq!(error.class(), Class::Unreachable, "{error:?}");
}

#[test]
fn the_embedded_images_are_never_pulled() {
    let setup = Setup::new();
    let error = setup
        .pull(&Reference::parse("kplay.local/other").expect("a reference"))
        .expect_err("never");
    assert_eq!(error.class(), Class::NotStored);
}

#[test]
fn a_certificate_has_to_be_trusted() {
    if !can_be_root() {
        return;
    }
    let (registry, setup, sample) = (Registry::with_tls(Access::Anybody), Setup::new(), sample());
    registry.add("app", "1", &sample);
    let error = setup
        .pull(&registry.reference("app:1"))
        .expect_err("not trusted");
    assert_eq!(error.class(), Class::Tls, "{error:?}");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("SSL_CERT_FILE"))
    );
    let options = PullOptions {
        tls_verify: TlsVerify::Off,
        ..options()
    };
    setup
        .pull_with(&registry.reference("app:1"), &options)
        .expect("pulled");
}
