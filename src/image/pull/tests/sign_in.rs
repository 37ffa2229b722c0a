//! Pulls from registries that ask who one is, and through proxies.

use std::process::Command;

use super::*;
use crate::image::Credentials;
use crate::image::auth::Places;
use crate::image::testing::proxy::{Manner, TestProxy};
use crate::model::pull_secret::{PullSecret, SecretForm};

fn given(credentials: Credentials) -> PullOptions {
    let given = Some(credentials);
    let keychain = Keychain {
        given,
        ..Keychain::empty()
    };
    PullOptions {
        keychain,
        ..options()
    }
}

fn password(password: &str) -> Credentials {
    Credentials::password("user", password)
}

/// Through these variables only, from a registry that may be anybody.
fn proxied(variables: &[(&'static str, &str)]) -> PullOptions {
    let proxies = Proxies::new(|wanted| {
        let mut all = variables.iter();
        let (_, value) = all.find(|(name, _)| *name == wanted)?;
        Some((*value).to_owned())
    });
    PullOptions {
        proxies,
        tls_verify: TlsVerify::Off,
        ..options()
    }
}

fn chain(error: &Error) -> String {
    crate::model::cause::chain(error)
}

#[test]
fn credentials_are_asked_for_and_given() {
    if !can_be_root() {
        return;
    }
    for access in [Access::Basic, Access::Bearer, Access::ShortTokens] {
        let (registry, setup, sample) = (Registry::start(access), Setup::new(), sample());
        registry.add("app", "1", &sample);
        let reference = registry.reference("app:1");
        let error = setup.pull(&reference).expect_err("refused");
        assert_eq!(error.class(), Class::Unauthorized, "{access:?} {error:?}");
        assert!(chain(&error).contains("without credentials"), "{error:?}");
        let error = setup.pull_with(&reference, &given(password("guess")));
        let error = error.expect_err("refused");
        assert_eq!(error.class(), Class::Unauthorized, "{access:?} {error:?}");
        let text = chain(&error);
        assert!(text.contains("as `user`"), "{text}");
        assert!(!format!("{text} {error:?}").contains("guess"), "{text}");
        setup
            .pull_with(&reference, &given(password("secret")))
            .expect("pulled");
    }
}

#[test]
fn tokens_that_stand_for_a_user() {
    if !can_be_root() {
        return;
    }
    let token = |text: &str| text.to_owned();
    for (access, credentials) in [
        (
            Access::Bearer,
            Credentials::Identity {
                token: token("long-lived"),
            },
        ),
        (
            Access::ShortTokens,
            Credentials::Identity {
                token: token("long-lived"),
            },
        ),
        (
            Access::Bearer,
            Credentials::Registry {
                token: token("sesame"),
            },
        ),
    ] {
        let (registry, setup, sample) = (Registry::start(access), Setup::new(), sample());
        registry.add("app", "1", &sample);
        let reference = registry.reference("app:1");
        setup
            .pull_with(&reference, &given(credentials))
            .expect("pulled");
        let log = registry.log();
        assert!(
            log.iter().all(|path| !path.contains("long-lived")),
            "{log:?}"
        );
        let wrong = Credentials::Identity {
            token: token("other"),
        };
        let error = Setup::new().pull_with(&reference, &given(wrong));
        assert_eq!(error.expect_err("refused").class(), Class::Unauthorized);
    }
}

#[test]
fn a_token_that_ends_is_replaced() {
    if !can_be_root() {
        return;
    }
    let layers: Vec<Vec<u8>> = (0..12_u8)
        .map(|n| Tar::default().file(&format!("{n}"), &[n]).end())
        .collect();
    let sample = Sample::new(&layers, gzip);
    let (registry, setup) = (Registry::start(Access::ShortTokens), Setup::new());
    registry.add("app", "1", &sample);
    setup
        .pull_with(&registry.reference("app:1"), &given(password("secret")))
        .expect("pulled");
    let log = registry.log();
    let tokens = log.iter().filter(|path| path.starts_with("/token"));
    // A manifest, a configuration and twelve layers, six with each.
    assert_eq!(tokens.count(), 3, "{log:?}");
}

#[test]
fn no_other_server_gets_credentials() {
    if !can_be_root() {
        return;
    }
    for access in [Access::Basic, Access::Bearer] {
        let (registry, setup, sample) = (Registry::start(access), Setup::new(), sample());
        let content = Registry::start(Access::Anybody);
        registry.add("app", "1", &sample);
        content.add("app", "1", &sample);
        registry.act("/blobs/", 10, Act::Redirect(content.address()));
        setup
            .pull_with(&registry.reference("app:1"), &given(password("secret")))
            .expect("pulled");
        let shown = content.authorizations();
        assert!(
            !shown.is_empty() && shown.iter().all(String::is_empty),
            "{shown:?}"
        );
        let blobs = registry
            .log()
            .iter()
            .filter(|p| p.contains("/blobs/"))
            .count();
        assert_eq!(blobs, shown.len());
    }
}

#[test]
fn all_that_a_pod_has_is_tried_before_the_users_own() {
    if !can_be_root() {
        return;
    }
    for access in [Access::Basic, Access::Bearer] {
        let (registry, sample) = (Registry::start(access), sample());
        registry.add("app", "1", &sample);
        let (reference, address) = (registry.reference("app:1"), registry.address());
        let folder = Folder::new();
        let file = |password: &str| {
            json!({"auths": {address.to_string(): {"username": "user", "password": password}}})
                .to_string()
                .into_bytes()
        };
        let path = folder.path().join("auth.json");
        let pull = |secrets: &[(&str, &str)], own: &str| {
            fs::replace(&path, 0o600, &file(own)).expect("a file");
            let secrets = secrets.iter().map(|(name, password)| PullSecret {
                name: (*name).into(),
                form: SecretForm::DockerConfigJson,
                content: file(password),
            });
            let keychain = Keychain {
                given: None,
                secrets: secrets.collect(),
                places: Places::new(Some(&path), 0, |_| None),
            };
            let options = PullOptions {
                keychain,
                ..options()
            };
            Setup::new().pull_with(&reference, &options)
        };
        pull(&[], "secret").expect("with the user's own");
        pull(&[("a", "secret")], "wrong").expect("with the pod's");
        pull(&[("a", "wrong"), ("b", "secret")], "wrong").expect("with the pod's second");
        pull(&[("a", "wrong"), ("b", "wronger")], "secret").expect("with the user's own after all");
        let text = chain(&pull(&[("a", "wrong")], "wronger").expect_err("refused"));
        assert!(text.contains(&format!("of {path:?}")), "{text}");
        let text = chain(&pull(&[("a", "wrong")], "wrong").expect_err("refused"));
        assert!(!text.contains("wrong\""), "{text}");
    }
}

/// Runs itself once more, because the certificates' place is in the environment.
#[test]
fn a_password_is_not_sent_without_tls() {
    const REFERENCE: &str = "KPLAY_TEST_PULL";
    if let Ok(reference) = std::env::var(REFERENCE) {
        let reference = Reference::parse(&reference).expect("a reference");
        let error = Setup::new().pull_with(&reference, &given(password("secret")));
        let error = error.expect_err("refused");
        assert_eq!(error.class(), Class::Tls, "{error:?}");
        assert!(chain(&error).contains("without TLS"), "{error:?}");
        return;
    }
    // Its token server is named without TLS.
    let registry = Registry::with_tls(Access::Bearer);
    let name = "image::pull::tests::sign_in::a_password_is_not_sent_without_tls";
    let status = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name])
        .env(
            "SSL_CERT_FILE",
            concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/image/ca.pem"),
        )
        .env(REFERENCE, registry.reference("app:1").to_string())
        .status();
    assert!(status.expect("this test again").success());
    assert_eq!(registry.log(), ["/v2/"]);
    assert_eq!(registry.authorizations(), [""]);
}

#[test]
fn registries_behind_a_proxy() {
    if !can_be_root() {
        return;
    }
    let sample = sample();
    let (secure, plain) = (
        Registry::with_tls(Access::Anybody),
        Registry::start(Access::Basic),
    );
    for registry in [&secure, &plain] {
        registry.add("app", "1", &sample);
    }
    let reference = |port: u16| {
        // No resolver knows it: only a proxy leads there.
        Reference::parse(&format!("registry.invalid:{port}/app:1")).expect("a reference")
    };
    let pull = |options: &PullOptions, port| Setup::new().pull_with(&reference(port), options);

    let proxy = TestProxy::start(Manner::Open, secure.address());
    let url = format!("http://{}", proxy.address);
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        let before = proxy.log().len();
        pull(&proxied(&[(variable, &url)]), 5000).expect(variable);
        let log = proxy.log();
        assert!(log.len() > before, "{variable}");
        assert!(
            log.iter()
                .all(|line| line == "CONNECT registry.invalid:5000 HTTP/1.1"),
            "{log:?}"
        );
    }
    let before = proxy.log().len();
    for direct in [
        "registry.invalid",
        "*.invalid",
        ".invalid",
        "registry.invalid:5000",
        "*",
    ] {
        let options = proxied(&[("HTTPS_PROXY", &url), ("no_proxy", direct)]);
        let error = pull(&options, 5000).expect_err("no such name");
        assert!(
            chain(&error).contains("address of the registry"),
            "{}",
            chain(&error)
        );
    }
    assert_eq!(proxy.log().len(), before);
    let options = proxied(&[("HTTPS_PROXY", &url), ("NO_PROXY", "registry.invalid:5001")]);
    pull(&options, 5000).expect("another port is meant");

    // The registry has no TLS: https is tried through the proxy, and then http.
    let proxy = TestProxy::start(Manner::Password, plain.address());
    let url = format!("http://agent:007@{}", proxy.address);
    let options = PullOptions {
        keychain: given(password("secret")).keychain,
        ..proxied(&[("HTTPS_PROXY", &url), ("HTTP_PROXY", &url)])
    };
    pull(&options, 80).expect("pulled");
    let log = proxy.log();
    assert!(
        log.iter()
            .any(|line| line.starts_with("GET http://registry.invalid")),
        "{log:?}"
    );
}

#[test]
fn a_proxy_that_does_not_help_is_named() {
    let registry = Registry::start(Access::Anybody);
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    };
    let (locked, refuses) = (
        TestProxy::start(Manner::Password, registry.address()),
        TestProxy::start(Manner::Refuses, registry.address()),
    );
    for address in [nobody, locked.address, refuses.address] {
        let url = format!("http://agent:008@{address}");
        let options = proxied(&[("https_proxy", &url)]);
        let reference = Reference::parse("registry.invalid/app:1").expect("a reference");
        let error = Setup::new().pull_with(&reference, &options);
        let error = error.expect_err("no way");
        let text = chain(&error);
        assert_eq!(error.class(), Class::Unreachable, "{text}");
        assert!(
            text.contains(&format!(
                "through the proxy `http://{address}` of https_proxy"
            )),
            "{text}"
        );
        assert!(!format!("{text} {error:?}").contains("008"), "{text}");
    }
    let options = proxied(&[("ALL_PROXY", "socks5://agent:008@127.0.0.1")]);
    let reference = Reference::parse("registry.invalid/app:1").expect("a reference");
    let error = Setup::new().pull_with(&reference, &options);
    let text = chain(&error.expect_err("no way"));
    assert!(
        text.contains("ALL_PROXY") && !text.contains("008"),
        "{text}"
    );
}
