//! Registries that mean no good: an error in bounded time and memory, and nothing in the store.

use std::net::TcpListener;

use super::*;
use crate::image::testing::proxy::{Manner, TestProxy};

/// A server that nobody is to ask.
fn secret_server() -> (TcpListener, String) {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    server.set_nonblocking(true).expect("a socket");
    let address = server.local_addr().expect("an address").to_string();
    (server, address)
}

#[test]
fn a_manifest_without_an_end_is_left() {
    fails(
        |r, _| r.act("manifests/1", 99, Act::Endless),
        Class::Hostile,
        "`app:1` has more than 4194304 bytes",
    );
}

#[test]
fn a_blob_without_an_end_is_as_long_as_it_may_be() {
    fails(
        |r, s| r.act(Digest::of(&s.config), 99, Act::Endless),
        Class::Corrupt,
        "has more than the",
    );
    fails(
        |r, s| r.act(blob(s, 1), 99, Act::Endless),
        Class::Corrupt,
        "has more than the",
    );
}

#[test]
fn a_refusal_without_an_end_is_a_refusal() {
    let act = Act::Status(
        403,
        "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\u001b[31m\\nmore\"}]}",
    );
    fails(
        |r, _| r.act("manifests/1", 99, act),
        Class::Unauthorized,
        "refuses access without credentials: no[31m",
    );
}

#[test]
fn headers_without_measure_are_left() {
    fails(
        |r, _| r.act("manifests/1", 99, Act::Headers(50_000_000)),
        Class::Unreachable,
        "broke",
    );
    fails(
        |r, s| r.act(blob(s, 1), 99, Act::Headers(50_000_000)),
        Class::Unreachable,
        "broke",
    );
}

#[test]
fn redirections_end() {
    fails(
        |r, _| r.act("manifests/1", 99, Act::Location("*".into())),
        Class::Hostile,
        "which is one too often",
    );
    let (first, second) = (
        Registry::start(Access::Anybody),
        Registry::start(Access::Anybody),
    );
    let to = |registry: &Registry| Act::Location(format!("http://{}*", registry.address()));
    first.act("/manifests/", 99, to(&second));
    second.act("/manifests/", 99, to(&first));
    let error = Setup::new()
        .pull(&first.reference("app:1"))
        .expect_err("a circle");
    assert_eq!(error.class(), Class::Hostile, "{}", chain(&error));
    assert!(chain(&error).contains("which is one too often"));
    assert!(first.log().len() + second.log().len() < 20);
}

#[test]
fn a_redirection_leads_only_to_the_web() {
    for (place, why) in [
        ("ftp://127.0.0.1/x", "which is neither https nor http"),
        ("file:///etc/passwd", "which is neither https nor http"),
        ("http://[", "which is no address"),
    ] {
        let location = Act::Location(place.to_owned());
        fails(|r, s| r.act(blob(s, 1), 99, location), Class::Hostile, why);
    }
}

#[test]
fn a_registry_elsewhere_does_not_send_to_this_machine() {
    if !can_be_root() {
        return;
    }
    let (server, address) = secret_server();
    // What has such a name is elsewhere; a proxy leads there.
    let reference = Reference::parse("registry.example.test/app:1").expect("a reference");
    let refused = |registry: &Registry, place: &str| {
        let (setup, proxy) = (
            Setup::new(),
            TestProxy::start(Manner::Open, registry.address()),
        );
        let url = format!("http://{}", proxy.address);
        let options = PullOptions {
            tls_verify: TlsVerify::Off,
            proxies: Proxies::new(|name| (name == "ALL_PROXY").then(|| url.clone())),
            ..options()
        };
        let error = setup.pull_with(&reference, &options).expect_err("refused");
        let text = chain(&error);
        assert_eq!(error.class(), Class::Hostile, "{text}");
        let why = format!("sends on to `{place}`, which only this machine can reach");
        assert!(text.contains(&why), "{text}");
        assert_eq!(setup.left(), 0);
    };
    let (sample, open) = (sample(), Registry::start(Access::Anybody));
    open.add("app", "1", &sample);
    for place in [
        format!("http://{address}/latest/meta-data"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "https://[fe80::1]/".to_owned(),
    ] {
        open.act("manifests/1", 1, Act::Location(place.clone()));
        refused(&open, &place);
        open.act(blob(&sample, 1), 1, Act::Location(place.clone()));
        refused(&open, &place);
    }
    // It names a server here as the one to sign in at.
    let closed = Registry::start(Access::Bearer);
    refused(&closed, &format!("http://{}/token", closed.address()));
    assert!(server.accept().is_err(), "the secret is asked for");
}

#[test]
fn an_index_in_an_index_has_an_end() {
    let put = |r: &Registry, s: &Sample| {
        let mut within = s.manifest.clone();
        let mut kind = OCI_MANIFEST;
        for _ in 0..4 {
            let mut entry = descriptor(kind, &within);
            entry["platform"] = serde_json::to_value(Platform::host()).expect("JSON");
            let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] });
            (within, kind) = (index.to_string().into_bytes(), OCI_INDEX);
            r.add_manifest("app", "1", kind, &within);
        }
        // Not what its name says: it would lead to itself.
        let own = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            { "mediaType": OCI_INDEX, "digest": Digest::of(b"x"), "size": 1, "platform": Platform::host() },
        ]});
        r.put_manifest(
            "app",
            Digest::of(b"x").as_str(),
            OCI_INDEX,
            own.to_string().as_bytes(),
        );
        r.add_manifest("app", "circle", OCI_INDEX, own.to_string().as_bytes());
    };
    fails(put, Class::Hostile, "an index within an index");
    let (registry, setup) = (Registry::start(Access::Anybody), Setup::new());
    put(&registry, &sample());
    let circle = setup.pull(&registry.reference("app:circle"));
    let error = circle.expect_err("a circle");
    assert_eq!(error.class(), Class::Corrupt, "{}", chain(&error));
    assert_eq!(setup.left(), 0);
}

#[test]
fn sizes_beyond_measure_are_refused() {
    let claim = |size: u64| {
        move |r: &Registry, s: &Sample| {
            let mut manifest: serde_json::Value =
                serde_json::from_slice(&s.manifest).expect("JSON");
            manifest["layers"][1]["size"] = size.into();
            manifest["layers"][0]["size"] = size.into();
            r.add_manifest("app", "1", OCI_MANIFEST, manifest.to_string().as_bytes());
        }
    };
    fails(claim(u64::MAX), Class::NoSpace, "no space left");
    fails(claim(1), Class::Corrupt, "has more than the 1 bytes");
}

#[test]
fn a_layer_that_may_not_be_given_on_is_had_from_its_owner() {
    if !can_be_root() {
        return;
    }
    let (closed, owner) = (
        Registry::start(Access::Bearer),
        Registry::start(Access::Anybody),
    );
    let foreign = |place: &str| {
        let sample = sample();
        let mut manifest: serde_json::Value =
            serde_json::from_slice(&sample.manifest).expect("JSON");
        let layer = &mut manifest["layers"][1];
        layer["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
        layer["urls"] = json!([place]);
        closed.add("app", "1", &sample);
        closed.add_manifest("app", "1", OCI_MANIFEST, manifest.to_string().as_bytes());
        closed.act(blob(&sample, 1), 99, Act::Status(404, ""));
        owner.add("lib", "1", &sample);
        sample
    };
    let options = || PullOptions {
        keychain: Keychain {
            given: Some(crate::image::Credentials::password("user", "secret")),
            ..Keychain::empty()
        },
        ..options()
    };
    let reference = closed.reference("app:1");
    let place = format!("http://{}/v2/lib/{}", owner.address(), blob(&sample(), 1));
    let (sample, setup) = (foreign(&place), Setup::new());
    let pulled = setup.pull_with(&reference, &options());
    assert_eq!(pulled.map_err(|e| chain(&e)).map(|i| i.id), Ok(sample.id()));
    // Whoever is asked there is not told who asks.
    assert!(owner.authorizations().iter().all(String::is_empty));
    for (place, why) in [
        ("file:///etc/shadow", "neither https nor http"),
        ("gopher://x/", "neither https nor http"),
    ] {
        foreign(place);
        let error = Setup::new().pull_with(&reference, &options());
        let text = chain(&error.expect_err("nothing to be asked"));
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn what_is_still_the_same_is_not_transferred() {
    if !can_be_root() {
        return;
    }
    let (registry, setup, first) = (Registry::start(Access::Anybody), Setup::new(), sample());
    registry.add("app", "1", &first);
    let reference = registry.reference("app:1");
    setup.pull(&reference).expect("pulled");
    let before = registry.log().len();
    let again = setup.pull(&reference).expect("pulled");
    assert_eq!(again.id, first.id());
    let asked = registry.log()[before..].to_vec();
    assert_eq!(
        asked.last().map(String::as_str),
        Some("HEAD /v2/app/manifests/1")
    );
    assert!(
        asked[..asked.len() - 1].iter().all(|path| path == "/v2/"),
        "{asked:?}"
    );
    // It goes for another platform only if that is what is there.
    let other = PullOptions {
        platform: Platform::parse("linux/s390x").expect("a platform"),
        ..options()
    };
    let error = setup
        .pull_with(&reference, &other)
        .expect_err("not for that");
    assert_eq!(error.class(), Class::Platform);
    let second = Sample::new(&[Tar::default().file("b", b"2").end()], gzip);
    registry.add("app", "1", &second);
    assert_eq!(setup.pull(&reference).expect("pulled").id, second.id());
}
