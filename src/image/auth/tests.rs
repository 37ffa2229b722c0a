//! Where credentials are, whose they are, and what `login` leaves behind.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::*;
use crate::image::registries::RegistriesConf;
use crate::image::testing::Folder;
use crate::image::testing::registry::{Access, Registry};
use crate::image::{Proxies, RegistryFault, TlsVerify};
use crate::model::pull_secret::SecretForm;
use crate::sys::fs;

/// A person's name, or the kind of token.
fn who(login: &Login) -> String {
    match &login.credentials {
        Credentials::Password { username, password } => format!("{username}:{password}"),
        Credentials::Identity { token } => format!("identity {token}"),
        Credentials::Registry { token } => format!("registry {token}"),
    }
}

fn encoded(text: &str) -> String {
    base64::Engine::encode(&base64::prelude::BASE64_STANDARD, text)
}

fn write(path: &Path, content: &Value) {
    let parent = path.parent().expect("a folder");
    fs::create_dir_all(parent, 0o700).expect("a folder");
    fs::replace(path, 0o600, content.to_string().as_bytes()).expect("a file");
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

#[test]
fn files_have_their_order() {
    let folder = Folder::new();
    let at = |name: &str| folder.path().join(name);
    let variable = |name: &str| -> Option<OsString> {
        Some(match name {
            "HOME" => at("home").into(),
            "XDG_RUNTIME_DIR" => at("run").into(),
            _ => return None,
        })
    };
    let places = Places::new(None, 0, variable);
    let find = |places: &Places| {
        let found = places.find("example.com", "app").expect("readable");
        found.as_ref().map_or("nobody".to_owned(), who)
    };
    let entry = |name: &str| json!({"example.com": {"auth": encoded(&format!("{name}:1"))}});
    assert_eq!(find(&places), "nobody");
    // From the last place to the first: each is asked before those that came before.
    write(&at("home/.dockercfg"), &entry("legacy"));
    assert_eq!(find(&places), "legacy:1");
    for (file, name) in [
        ("home/.docker/config.json", "docker"),
        ("home/.config/containers/auth.json", "config"),
        ("run/containers/auth.json", "run"),
    ] {
        write(&at(file), &json!({"auths": {"example.com": {}}}));
        assert_ne!(find(&places), format!("{name}:1"), "{file} has nothing");
        write(&at(file), &json!({"auths": entry(name)}));
        assert_eq!(find(&places), format!("{name}:1"), "{file}");
    }
    write(&at("named.json"), &json!({"auths": entry("named")}));
    let named = |name: &str| (name == "REGISTRY_AUTH_FILE").then(|| at("named.json").into());
    assert_eq!(find(&Places::new(None, 0, named)), "named:1");
    write(&at("flag.json"), &json!({"auths": entry("flag")}));
    let flag = at("flag.json");
    assert_eq!(find(&Places::new(Some(&flag), 0, named)), "flag:1");
    let missing = Places::new(Some(&at("missing")), 0, named).find("example.com", "app");
    assert!(
        matches!(missing, Err(Error::NotThere { .. })),
        "{missing:?}"
    );

    let shown = format!("{:?}", Places::new(None, 0, |_| None));
    assert!(shown.contains("/run/containers/0/auth.json"), "{shown}");
    let elsewhere = |name: &str| match name {
        "HOME" => Some("/h".into()),
        "DOCKER_CONFIG" => Some("/d".into()),
        "XDG_CONFIG_HOME" => Some("/c".into()),
        _ => None,
    };
    let shown = format!("{:?}", Places::new(None, 7, elsewhere));
    for path in [
        "/run/containers/7/auth.json",
        "/c/containers/auth.json",
        "/d/config.json",
    ] {
        assert!(shown.contains(path), "{shown}");
    }
}

#[test]
fn the_longest_key_wins() {
    let folder = Folder::new();
    let path = folder.path().join("auth.json");
    let check = |auths: Value, registry: &str, repository: &str, expected: &str| {
        write(&path, &json!({"auths": auths}));
        let found = Places::new(Some(&path), 0, |_| None).find(registry, repository);
        let found = found.expect("readable");
        let found = found.as_ref().map_or("nobody".to_owned(), who);
        assert_eq!(found, expected, "{auths} {registry} {repository}");
    };
    let user = |name: &str| json!({"auth": encoded(&format!("{name}:p:q"))});
    let scoped = json!({
        "example.com": user("host"), "example.com/a": user("a"), "example.com/a/b": user("b"),
        "other.com/a": user("other"),
    });
    check(scoped.clone(), "example.com", "a/b/c", "b:p:q");
    check(scoped.clone(), "example.com", "a/b", "b:p:q");
    check(scoped.clone(), "example.com", "a/bc", "a:p:q");
    check(scoped.clone(), "example.com", "c", "host:p:q");
    check(scoped.clone(), "other.com", "b", "nobody");
    check(scoped, "example.com:443", "a/b", "nobody");
    let docker = json!({"https://index.docker.io/v1/": user("hub")});
    check(docker.clone(), "docker.io", "library/x", "hub:p:q");
    check(docker, "example.com", "library/x", "nobody");
    check(
        json!({"docker.io": user("hub")}),
        "docker.io",
        "library/x",
        "hub:p:q",
    );
    check(
        json!({"docker.io/me": user("me")}),
        "docker.io",
        "me/x",
        "me:p:q",
    );
    check(
        json!({"https://example.com/v2/": user("url")}),
        "example.com",
        "x",
        "url:p:q",
    );
    check(
        json!({"http://h:5000": user("url")}),
        "h:5000",
        "x",
        "url:p:q",
    );
    check(
        json!({"h": {"username": "u", "password": "p"}}),
        "h",
        "x",
        "u:p",
    );
    check(json!({"h": {"auth": encoded("u:p\0\0")}}), "h", "x", "u:p");
    check(json!({"h": {"auth": "?"}}), "h", "x", "nobody");
    check(json!({"h": null}), "h", "x", "nobody");
    let both = json!({"h": {"auth": encoded("u:p"), "identitytoken": "t"}});
    check(both, "h", "x", "identity t");
    check(json!({"h": {"registrytoken": "r"}}), "h", "x", "registry r");
    check(Value::Null, "h", "x", "nobody");
}

#[test]
fn secrets_match_as_a_kubelets() {
    let user = |name: &str| json!({"auth": encoded(&format!("{name}:p"))});
    let check = |auths: Value, registry: &str, repository: &str, expected: &[&str]| {
        for form in [SecretForm::DockerConfigJson, SecretForm::DockerCfg] {
            let content = match form {
                SecretForm::DockerConfigJson => json!({"auths": auths}),
                SecretForm::DockerCfg => auths.clone(),
            };
            let secret = PullSecret {
                name: "s".into(),
                form,
                content: content.to_string().into_bytes(),
            };
            let found = secret::find(&[secret], registry, repository);
            let found: Vec<&str> = found
                .iter()
                .filter_map(|login| login.credentials.username())
                .collect();
            assert_eq!(found, expected, "{auths} {registry} {repository}");
        }
    };
    let scoped = json!({
        "example.com": user("host"), "example.com/a": user("a"), "*.com/a/b": user("star"),
        "https://example.com/v1/": user("old"),
    });
    check(
        scoped.clone(),
        "example.com",
        "a/b",
        &["a", "host", "old", "star"],
    );
    check(scoped.clone(), "example.com", "c", &["host", "old"]);
    check(scoped, "a.example.com", "a/b", &[]);
    let globs = json!({"*.example.com": user("one"), "*.*.example.com": user("two")});
    check(globs.clone(), "a.example.com", "x", &["one"]);
    check(globs.clone(), "b.a.example.com", "x", &["two"]);
    check(globs.clone(), "a.example.com:5000", "x", &[]);
    check(globs, "example.com", "x", &[]);
    check(
        json!({"r?g-*.io:5000": user("g")}),
        "reg-1.io:5000",
        "x",
        &["g"],
    );
    for key in [
        "https://index.docker.io/v1/",
        "docker.io",
        "index.docker.io",
    ] {
        check(
            json!({key: user("hub")}),
            "docker.io",
            "library/x",
            &["hub"],
        );
    }
}

/// Runs itself once more, because the programs' place is in the environment.
#[test]
fn helpers_are_asked() {
    const FOLDER: &str = "KPLAY_TEST_FOLDER";
    if let Ok(folder) = std::env::var(FOLDER) {
        return ask_helpers(folder.as_ref());
    }
    let folder = Folder::new();
    let script = |name: &str, text: &str| {
        let path = folder.path().join(format!("docker-credential-{name}"));
        fs::replace(&path, 0o755, format!("#!/bin/sh\n{text}\n").as_bytes()).expect("a file");
    };
    script(
        "good",
        r#"read -r server; case "$1 $server" in
        "get a.com") echo '{"ServerURL":"a.com","Username":"anna","Secret":"1"}';;
        "get https://index.docker.io/v1/") echo '{"Username":"<token>","Secret":"t"}';;
        "get "*) echo "credentials not found in native keychain"; exit 1;;
        *) echo "$1 $server" >>"$KPLAY_TEST_FOLDER/log";;
        esac"#,
    );
    script("bad", "echo 'the keyring is locked'; exit 1");
    script("silent", "exit 3");
    script("garbage", "echo no JSON");
    script("endless", "exec cat /dev/zero");
    let path = std::env::var("PATH").unwrap_or_default();
    let status = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "image::auth::tests::helpers_are_asked"])
        .env(FOLDER, folder.path())
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .status();
    assert!(status.expect("this test again").success());
    let log = fs::read(&folder.path().join("log")).expect("it was asked");
    assert_eq!(
        String::from_utf8_lossy(&log),
        "store {\"ServerURL\":\"a.com\",\"Username\":\"anna\",\"Secret\":\"2\"}\nerase a.com\n"
    );
}

fn ask_helpers(folder: &Path) {
    let path = folder.join("config.json");
    let places = Places::new(Some(&path), 0, |_| None);
    let ask = |config: Value, registry: &str| {
        write(&path, &config);
        let found = places.find(registry, "x");
        found.map(|found| found.as_ref().map_or("nobody".to_owned(), who))
    };
    let good = json!({"credsStore": "good"});
    assert_eq!(ask(good.clone(), "a.com").expect("found"), "anna:1");
    assert_eq!(ask(good.clone(), "docker.io").expect("found"), "identity t");
    assert_eq!(ask(good, "b.com").expect("asked"), "nobody");
    let one = json!({"credHelpers": {"a.com": "good"}, "credsStore": "missing"});
    assert_eq!(ask(one.clone(), "a.com").expect("found"), "anna:1");
    let own = json!({"credsStore": "missing", "auths": {"a.com": {"auth": encoded("own:2")}}});
    assert_eq!(ask(own, "a.com").expect("found"), "own:2");
    for (helper, words) in [
        ("missing", "no such program"),
        ("bad", "the keyring is locked"),
        ("silent", "exit status: 3"),
        ("garbage", "answer cannot be used"),
        ("endless", "answer cannot be used"),
        ("../bad", "its name"),
    ] {
        let error = ask(json!({"credsStore": helper}), "a.com").expect_err(helper);
        let text = crate::model::cause::chain(&error);
        assert!(
            text.contains(words) && text.contains(&format!("docker-credential-{helper}")),
            "{text}"
        );
    }
    write(
        &path,
        &json!({"auths": {"a.com": {"auth": encoded("own:2")}}}),
    );
    let keychain = Keychain {
        places: places.clone(),
        ..Keychain::empty()
    };
    let find = |helpers: &[&str], registry: &str| {
        let helpers: Vec<String> = helpers.iter().map(|name| (*name).to_owned()).collect();
        let found = keychain.find(registry, "x", &helpers);
        found.map(|found| found.first().map_or("nobody".to_owned(), who))
    };
    let files = "containers-auth.json";
    assert_eq!(find(&[files, "missing"], "a.com").expect("found"), "own:2");
    assert_eq!(find(&["good", files], "a.com").expect("found"), "anna:1");
    assert_eq!(find(&["good", files], "b.com").expect("asked"), "nobody");
    assert!(find(&[files, "missing"], "b.com").is_err());
    write(
        &path,
        &json!({"credsStore": "good", "HttpHeaders": {"X": "y"}}),
    );
    save(&path, "a.com", "anna", "2").expect("saved");
    let after = json!({"credsStore": "good", "HttpHeaders": {"X": "y"}, "auths": {"a.com": {}}});
    assert_eq!(read(&path), after);
    let out = log_out(&places, &path, "a.com").expect("logged out");
    assert_eq!(
        (out, &read(&path)["auths"]),
        (LoggedOut::Removed, &json!({}))
    );
}

#[test]
fn login_leaves_podmans_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let path = folder.path().join("new/auth.json");
    save(&path, "example.com", "u", "p:q").expect("saved");
    let text = String::from_utf8(fs::read(&path).expect("a file")).expect("text");
    assert_eq!(
        text,
        "{\n\t\"auths\": {\n\t\t\"example.com\": {\n\t\t\t\"auth\": \"dTpwOnE=\"\n\t\t}\n\t}\n}"
    );
    let mode = |path: &Path| {
        let found = fs::metadata_if_there(path)
            .expect("readable")
            .expect("there");
        found.permissions().mode() & 0o777
    };
    assert_eq!(
        (mode(&path), mode(path.parent().expect("one"))),
        (0o600, 0o700)
    );

    let places = Places::new(Some(&path), 0, |_| None);
    let mut whole = read(&path);
    whole["other"] = json!([1]);
    whole["auths"]["https://example.com/v1/"] = json!({"auth": "", "email": "e"});
    write(&path, &whole);
    save(&path, "example.com/a", "u2", "p2").expect("saved");
    let found = |key: &str| stored(&places, key).expect("readable").as_ref().map(who);
    assert_eq!(found("example.com/a").as_deref(), Some("u2:p2"));
    assert_eq!(found("example.com").as_deref(), Some("u:p:q"));
    let out = |key: &str| log_out(&places, &path, key).expect("readable");
    assert_eq!(
        out("example.com/b"),
        LoggedOut::Elsewhere(Origin::File(path.clone()))
    );
    assert_eq!(out("example.com"), LoggedOut::Removed);
    assert_eq!(out("example.com"), LoggedOut::NotLoggedIn);
    let left = json!({"auths": {"example.com/a": {"auth": encoded("u2:p2")}}, "other": [1]});
    assert_eq!(read(&path), left);
    assert_eq!(log_out_of_all(&path).expect("done"), Removed::Some);
    assert_eq!(log_out_of_all(&path).expect("done"), Removed::Nothing);
    assert_eq!(read(&path), json!({"auths": {}, "other": [1]}));

    // A link stays what it is.
    let link = folder.path().join("link.json");
    fs::symlink(&path, &link).expect("a link");
    save(&link, "h", "u", "p").expect("saved");
    assert!(fs::read_link_if_there(&link).expect("readable").is_some());
    assert!(!read(&path)["auths"]["h"].is_null());
}

#[test]
fn credentials_are_tried_before_they_are_kept() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for access in [Access::Anybody, Access::Basic, Access::Bearer] {
        let registry = Registry::start(access);
        let address = registry.address().to_string();
        let proxies = Proxies::default();
        let try_it = |credentials: Credentials| {
            runtime.block_on(verify(
                &address,
                &credentials,
                TlsVerify::On,
                &RegistriesConf::default(),
                &proxies,
            ))
        };
        try_it(Credentials::password("user", "secret")).expect("right");
        let wrong = try_it(Credentials::password("user", "guess"));
        let is_refused = matches!(wrong, Err(RegistryFault::Unauthorized { .. }));
        assert_eq!(is_refused, access != Access::Anybody, "{wrong:?}");
        let token = "long-lived".to_owned();
        if access == Access::Bearer {
            try_it(Credentials::Identity { token }).expect("right");
        }
    }
    let nobody = "127.0.0.1:1";
    let credentials = Credentials::password("user", "secret");
    let proxies = Proxies::default();
    let tried = runtime.block_on(verify(
        nobody,
        &credentials,
        TlsVerify::On,
        &RegistriesConf::default(),
        &proxies,
    ));
    assert!(
        matches!(tried, Err(RegistryFault::Connect { .. })),
        "{tried:?}"
    );
}

#[test]
fn nothing_shows_a_secret() {
    let folder = Folder::new();
    let path = folder.path().join("auth.json");
    let token = || "geheim".to_owned();
    let all = [
        Credentials::password("user", "geheim"),
        Credentials::Identity { token: token() },
        Credentials::Registry { token: token() },
    ];
    let secret = PullSecret {
        name: "s".into(),
        form: SecretForm::DockerCfg,
        content: b"geheim".to_vec(),
    };
    assert!(!format!("{all:?} {secret:?}").contains("geheim"));
    for broken in [
        r#"{"auths": {"h": "geheim"}}"#,
        r#"{"auths": {"h": {"auth": geheim}}}"#,
    ] {
        fs::replace(&path, 0o600, broken.as_bytes()).expect("a file");
        let error = Places::new(Some(&path), 0, |_| None).find("h", "x");
        let error = error.expect_err("damaged");
        assert!(matches!(error, Error::Damaged { line: 1, .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
    }
}
