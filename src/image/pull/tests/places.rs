//! Pulls by way of `registries.conf`: other locations, mirrors, short names, certificates.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::*;
use crate::image::registries::Places;
use crate::image::testing::registry::file;
use crate::image::{Credentials, auth};

/// A name that has no address, so that a pull that succeeds was sent elsewhere.
const IMAGE: &str = "example.test/lib/app:1";

/// A store, and what the machine's configuration says.
struct Configured {
    setup: Setup,
    folder: Folder,
}

impl Configured {
    fn new(registries_conf: &str) -> Self {
        let folder = Folder::new();
        let path = folder.path().join("registries.conf");
        fs::replace(&path, 0o600, registries_conf.as_bytes()).expect("a file");
        let setup = Setup::new();
        Self { setup, folder }
    }

    /// With a file more beneath the folder of configuration.
    fn with(self, path: &str, content: &[u8]) -> Self {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder"), 0o755).expect("a folder");
        fs::replace(&path, 0o600, content).expect("a file");
        self
    }

    fn options(&self) -> PullOptions {
        let places = Places {
            system: Some(self.folder.path().to_owned()),
            ..Places::default()
        };
        PullOptions {
            registries: Arc::new(RegistriesConf::new(places)),
            ..options()
        }
    }

    fn pull(&self, name: &str) -> Result<Image, Error> {
        let name = ImageName::parse(name).expect("a name");
        runtime().block_on(pull(&self.setup.store, &name, &self.options(), &|_| ()))
    }

    #[track_caller]
    fn pulls(&self, sample: &Sample) {
        let image = self.pull(IMAGE).map_err(|error| chain(&error));
        assert_eq!(image.map(|image| image.id), Ok(sample.id()));
        let stored = Reference::parse(IMAGE).expect("a reference");
        assert!(self.setup.store.find(&stored).expect("readable").is_some());
    }

    #[track_caller]
    fn fails(&self, name: &str, class: Class, texts: &[&str]) {
        let error = self.pull(name).expect_err("it fails");
        let text = chain(&error);
        assert_eq!(error.class(), class, "{text}");
        for part in texts {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert_eq!(self.setup.left(), 0);
    }
}

/// `example.test` at this place, with these mirrors.
fn conf(location: &str, mirrors: &[&str]) -> String {
    let mut text = format!("[[registry]]\nprefix = \"example.test\"\nlocation = \"{location}\"\n");
    for mirror in mirrors {
        text.push_str(&format!("[[registry.mirror]]\nlocation = \"{mirror}\"\n"));
    }
    text
}

fn registry_with(repository: &str, sample: &Sample) -> Registry {
    let registry = Registry::start(Access::Anybody);
    registry.add(repository, "1", sample);
    registry
}

fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

#[test]
fn a_location_is_where_the_image_is() {
    if !can_be_root() {
        return;
    }
    let sample = sample();
    let registry = registry_with("deep/er/lib/app", &sample);
    let location = format!("{}/deep/er", registry.address());
    Configured::new(&conf(&location, &[])).pulls(&sample);
}

#[test]
fn the_first_mirror_that_has_the_image_gives_it() {
    if !can_be_root() {
        return;
    }
    let sample = sample();
    let empty = Registry::start(Access::Anybody);
    let mirror = registry_with("copy/lib/app", &sample);
    let unused = registry_with("lib/app", &sample);
    let mirrors = [
        nobody(),
        empty.address().to_string(),
        format!("{}/copy", mirror.address()),
        unused.address().to_string(),
    ];
    let mirrors = mirrors.each_ref().map(String::as_str);
    Configured::new(&conf("location.test", &mirrors)).pulls(&sample);
    assert!(empty.log().iter().any(|path| path.contains("manifests/1")));
    assert!(unused.log().is_empty(), "{:?}", unused.log());
}

#[test]
fn the_location_comes_last() {
    if !can_be_root() {
        return;
    }
    let sample = sample();
    let (failing, location) = (
        registry_with("lib/app", &sample),
        registry_with("lib/app", &sample),
    );
    failing.act("manifests/1", 99, Act::Status(503, ""));
    let mirror = failing.address().to_string();
    let location = location.address().to_string();
    Configured::new(&conf(&location, &[&mirror])).pulls(&sample);
}

#[test]
fn all_that_fail_are_listed() {
    let (refuses, empty) = (nobody(), Registry::start(Access::Anybody));
    let location = empty.address().to_string();
    Configured::new(&conf(&location, &[&refuses])).fails(
        IMAGE,
        Class::NotFound,
        &[
            IMAGE,
            &format!("`{refuses}/lib/app`: cannot connect"),
            &format!("`{location}/lib/app`: the registry `{location}` does not have `lib/app:1`"),
        ],
    );
}

#[test]
fn another_place_goes_on_where_one_breaks() {
    if !can_be_root() {
        return;
    }
    let sample = sample();
    for act in [
        Act::Cut(500_000),
        Act::Status(404, ""),
        Act::Garble,
        Act::Shorten(7),
    ] {
        for content in [Digest::of(&sample.layers[1]), Digest::of(&sample.config)] {
            let (mirror, location) = (
                registry_with("lib/app", &sample),
                registry_with("lib/app", &sample),
            );
            // The first answer is cut, all after it are nothing.
            let after = match act {
                Act::Cut(_) => Act::Status(500, ""),
                ref other => other.clone(),
            };
            mirror.act(&content, 1, act.clone());
            mirror.act(&content, 99, after);
            let (mirrors, location) = (mirror.address().to_string(), location.address());
            let configured = Configured::new(&conf(&location.to_string(), &[&mirrors]));
            configured.pulls(&sample);
        }
    }
}

#[test]
fn a_mirror_for_digests_is_for_digests() {
    if !can_be_root() {
        return;
    }
    let sample = sample();
    let (mirror, location) = (
        registry_with("lib/app", &sample),
        registry_with("lib/app", &sample),
    );
    let text = conf(
        &location.address().to_string(),
        &[&mirror.address().to_string()],
    );
    let text = text.replace("prefix =", "mirror-by-digest-only = true\nprefix =");
    let configured = Configured::new(&text);
    configured.pulls(&sample);
    assert!(mirror.log().is_empty(), "{:?}", mirror.log());
    let digest = Digest::of(&sample.manifest);
    let before = location.log().len();
    configured
        .pull(&format!("example.test/lib/app@{digest}"))
        .expect("pulled");
    assert!(!mirror.log().is_empty());
    assert_eq!(location.log().len(), before);
}

#[test]
fn a_blocked_image_is_not_asked_for() {
    let registry = Registry::start(Access::Anybody);
    let text = conf(&registry.address().to_string(), &[]) + "blocked = true\n";
    let texts = [
        "`example.test/lib/app:1` is blocked by",
        "registries.conf:1",
    ];
    Configured::new(&text).fails(IMAGE, Class::Configuration, &texts);
    assert!(registry.log().is_empty());
}

#[test]
fn only_an_insecure_place_need_not_prove_who_it_is() {
    if !can_be_root() {
        return;
    }
    let (registry, sample) = (Registry::with_tls(Access::Anybody), sample());
    registry.add("lib/app", "1", &sample);
    let address = registry.address().to_string();
    let text = conf(&address, &[]);
    Configured::new(&text).fails(IMAGE, Class::Tls, &[&address]);
    Configured::new(&format!("{text}insecure = true\n")).pulls(&sample);
    // That a mirror is insecure says nothing about the location.
    let mirror = format!("{}insecure = true\n", conf(&address, &[&nobody()]));
    Configured::new(&mirror).fails(IMAGE, Class::Tls, &[&address]);
    let mirror = format!("{}insecure = true\n", conf("location.test", &[&address]));
    Configured::new(&mirror).pulls(&sample);
    // `--tls-verify` counts more.
    let configured = Configured::new(&format!("{text}insecure = true\n"));
    let verifying = PullOptions {
        tls_verify: TlsVerify::On,
        ..configured.options()
    };
    let image = Reference::parse(IMAGE).expect("a reference");
    let error = configured.setup.pull_with(&image, &verifying);
    assert_eq!(error.expect_err("not trusted").class(), Class::Tls);
}

#[test]
fn certs_d_says_whom_to_trust() {
    if !can_be_root() {
        return;
    }
    let (registry, sample) = (Registry::with_tls(Access::Anybody), sample());
    registry.add("lib/app", "1", &sample);
    let address = registry.address().to_string();
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/image/ca.pem");
    let authority = fs::read(authority.as_ref()).expect("a certificate");
    let host = format!("certs.d/{address}");
    let trusting =
        || Configured::new(&conf(&address, &[])).with(&format!("{host}/ca.crt"), &authority);
    trusting().pulls(&sample);
    Configured::new(&conf(&address, &[]))
        .with("certs.d/127.0.0.1/ca.crt", &authority)
        .fails(IMAGE, Class::Tls, &[&address]);
}

#[test]
fn credentials_are_not_for_mirrors() {
    if !can_be_root() {
        return;
    }
    let sample = sample();
    let (mirror, location) = (
        Registry::start(Access::Basic),
        Registry::start(Access::Basic),
    );
    for registry in [&mirror, &location] {
        registry.add("lib/app", "1", &sample);
    }
    let text = conf(
        &location.address().to_string(),
        &[&mirror.address().to_string()],
    );
    let configured = Configured::new(&text);
    let options = PullOptions {
        keychain: Keychain {
            given: Some(Credentials::password("user", "secret")),
            ..Keychain::empty()
        },
        ..configured.options()
    };
    let image = Reference::parse(IMAGE).expect("a reference");
    configured
        .setup
        .pull_with(&image, &options)
        .expect("pulled");
    // The mirror would have let them in.
    let got = |registry: &Registry| registry.log().iter().any(|path| path.contains("blobs/"));
    assert!(!got(&mirror) && got(&location));
}

#[test]
fn each_place_gets_its_own_credentials() {
    if !can_be_root() {
        return;
    }
    let sample = sample();
    let check = |of_mirror: &str, of_location: &str, is_mirrors: bool| {
        let (mirror, location) = (
            Registry::start(Access::Basic),
            Registry::start(Access::Basic),
        );
        for registry in [&mirror, &location] {
            registry.add("lib/app", "1", &sample);
        }
        let (first, last) = (mirror.address().to_string(), location.address().to_string());
        let entry = |password: &str| json!({"username": "user", "password": password});
        let file = json!({"auths": {
            first.clone(): entry(of_mirror),
            format!("{last}/lib"): entry(of_location),
            "example.test": entry("of nobody that is asked"),
        }});
        let configured =
            Configured::new(&conf(&last, &[&first])).with("auth.json", file.to_string().as_bytes());
        let path = configured.folder.path().join("auth.json");
        let keychain = Keychain {
            places: auth::Places::new(Some(&path), 0, |_| None),
            ..Keychain::empty()
        };
        let options = PullOptions {
            keychain,
            ..configured.options()
        };
        let image = Reference::parse(IMAGE).expect("a reference");
        let pulled = configured.setup.pull_with(&image, &options);
        pulled.map_err(|error| chain(&error)).expect("pulled");
        let got = |registry: &Registry| registry.log().iter().any(|path| path.contains("blobs/"));
        assert_eq!((got(&mirror), got(&location)), (is_mirrors, !is_mirrors));
        let shown = |registry: &Registry, password: &str| {
            let text = format!("user:{password}");
            let text = BASE64_STANDARD.encode(text);
            let own = ["".to_owned(), format!("Basic {text}")];
            registry
                .authorizations()
                .iter()
                .all(|got| own.contains(got))
        };
        assert!(shown(&mirror, of_mirror) && shown(&location, of_location));
    };
    check("secret", "guess", true);
    check("guess", "secret", false);
}

#[test]
fn a_client_certificate_opens_a_registry_and_goes_nowhere_else() {
    if !can_be_root() {
        return;
    }
    let (sample, registry) = (sample(), Registry::with_client_certificates());
    registry.add("lib/app", "1", &sample);
    let (address, content) = (registry.address(), Registry::with_client_certificates());
    content.add("lib/app", "1", &sample);
    let pem = |name: &str| fs::read(file(name).as_ref()).expect("a file");
    let folder = |name: &str| format!("certs.d/{address}/{name}");
    let trusting = || {
        let configured = Configured::new(&conf(&address.to_string(), &[]));
        configured.with(&folder("ca.crt"), &pem("ca.pem"))
    };
    trusting().fails(IMAGE, Class::Tls, &["cannot make a secure connection"]);
    let identified = || {
        let trusting = trusting().with(&folder("me.cert"), &pem("client.pem"));
        trusting.with(&folder("me.key"), &pem("client.key"))
    };
    identified().pulls(&sample);
    // Another server wants one as well, and is not the one that it is for.
    let elsewhere = Act::Location(format!("https://{}*", content.address()));
    registry.act("/blobs/", 99, elsewhere);
    identified().fails(IMAGE, Class::Tls, &["cannot make a secure connection"]);
    let kind = Class::Machine;
    let other = |name: &str, content: &[u8]| identified().with(&folder(name), content);
    other("me.key", &pem("server.key")).fails(
        IMAGE,
        kind,
        &["me.cert", "does not go with the key"],
    );
    let locked =
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    other("me.key", locked).fails(IMAGE, kind, &["me.key", "without a password"]);
    other("a.cert", &pem("client.pem")).fails(IMAGE, kind, &["a.cert", "has no key"]);
    other("a.key", &pem("client.key")).fails(IMAGE, kind, &["a.key", "has no certificate"]);
    let two = other("a.cert", &pem("client.pem")).with(&folder("a.key"), &pem("client.key"));
    two.fails(IMAGE, kind, &["a.cert", "me.cert", "one counts"]);
}

#[test]
fn who_logs_in_trusts_the_same() {
    let registry = Registry::with_tls(Access::Basic);
    let address = registry.address().to_string();
    let log_in = |configured: &Configured, tls_verify| {
        let (registries, proxies) = (configured.options().registries, Proxies::default());
        let credentials = Credentials::password("user", "secret");
        let verified = auth::verify(&address, &credentials, tls_verify, &registries, &proxies);
        runtime().block_on(verified).map_err(|fault| fault.class())
    };
    let nothing = Configured::new("");
    assert_eq!(log_in(&nothing, TlsVerify::Configured), Err(Class::Tls));
    assert_eq!(log_in(&nothing, TlsVerify::Off), Ok(()));
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/image/ca.pem");
    let authority = fs::read(authority.as_ref()).expect("a certificate");
    let trusting = Configured::new("").with(&format!("certs.d/{address}/ca.crt"), &authority);
    assert_eq!(log_in(&trusting, TlsVerify::On), Ok(()));
    let insecure = Configured::new(&format!(
        "[[registry]]\nlocation = \"{address}\"\ninsecure = true\n"
    ));
    assert_eq!(log_in(&insecure, TlsVerify::Configured), Ok(()));
    assert_eq!(log_in(&insecure, TlsVerify::On), Err(Class::Tls));
}

#[test]
fn a_short_name_is_searched_for_and_stored_by_its_whole_name() {
    if !can_be_root() {
        return;
    }
    let sample = sample();
    let (empty, registry) = (
        Registry::start(Access::Anybody),
        registry_with("app", &sample),
    );
    let (first, second) = (empty.address(), registry.address());
    let configured = Configured::new(&format!(
        "unqualified-search-registries = [\"{first}\", \"{second}\"]\n\
         [aliases]\nother = \"{second}/app\"\n"
    ));
    assert_eq!(configured.pull("app:1").expect("pulled").id, sample.id());
    let stored = registry.reference("app:1");
    assert!(
        configured
            .setup
            .store
            .find(&stored)
            .expect("readable")
            .is_some()
    );
    // Once it is there, only its own registry is asked.
    let before = empty.log().len();
    configured.pull("app:1").expect("pulled");
    assert_eq!(empty.log().len(), before);
    configured.pull("other:1").expect("pulled");
    assert_eq!(empty.log().len(), before);
    let error = configured.pull("gone:1").expect_err("nowhere");
    let text = chain(&error);
    assert_eq!(error.class(), Class::NotFound, "{text}");
    for registry in [first, second] {
        assert!(
            text.contains(&format!("`{registry}` does not have `gone:1`")),
            "{text}"
        );
    }
}

#[test]
fn a_policy_decides_by_the_name_that_was_asked_for() {
    if !can_be_root() {
        return;
    }
    let sample = sample();
    let registry = registry_with("lib/app", &sample);
    let text = conf(&registry.address().to_string(), &[]);
    let policy = |scope: &str, kind: &str| {
        let policy = json!({
            "default": [{ "type": "reject" }],
            "transports": { "docker": { scope: [{ "type": kind }] } },
        });
        Configured::new(&text).with("policy.json", policy.to_string().as_bytes())
    };
    policy("example.test", "insecureAcceptAnything").pulls(&sample);
    policy("", "insecureAcceptAnything").pulls(&sample);
    let before = registry.log().len();
    let kind = Class::Configuration;
    let location = registry.address().to_string();
    policy(&location, "insecureAcceptAnything").fails(IMAGE, kind, &["policy.json", "rejected"]);
    let signed = [
        "`sigstoreSigned`",
        "does not verify signatures",
        "`example.test/lib`",
    ];
    policy("example.test/lib", "sigstoreSigned").fails(IMAGE, kind, &signed);
    assert_eq!(registry.log().len(), before);
}
