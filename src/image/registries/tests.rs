//! Settings, names, places; pulls are with `pull`.

mod files;
mod policy;

use std::path::{Path, PathBuf};

use super::parse::{Kind, parse};
use super::*;
use crate::image::testing::Folder;

fn registries(files: &[&str]) -> Registries {
    let mut registries = Registries::default();
    for text in files {
        let settings = parse(Path::new("registries.conf"), text, Kind::Main);
        registries.add(settings.expect("settings"));
    }
    registries
}

fn name(text: &str) -> ImageName {
    ImageName::parse(text).expect("a name")
}

fn texts(names: &[Reference]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn every_setting_is_read() {
    let text = r#"
        unqualified-search-registries = ["one.test", "two.test:5000/"]
        short-name-mode = "enforcing"
        credential-helpers = ["containers-auth.json", "secretservice"]
        from-the-future = { a = 1 }

        [[registry]]
        prefix = "example.test/foo"
        location = "internal.test/bar/"
        insecure = true
        blocked = false
        mirror-by-digest-only = false
        from-the-future = 1

        [[registry.mirror]]
        location = "mirror.test:5000/x"
        insecure = true
        pull-from-mirror = "tag-only"

        [[registry.mirror]]
        location = "other.test"
        pull-from-mirror = ""

        [[registry]]
        location = "internal.test/bar"
        prefix = "same.test"
        insecure = true

        [[registry]]
        prefix = "*.wild.test"
        blocked = true

        [aliases]
        "fedora" = "registry.fedoraproject.org/fedora"
        "ns/app" = "quay.io/ns/app"
        "nothing" = ""
    "#;
    let all = registries(&[text]);
    assert_eq!(all.search, ["one.test", "two.test:5000"]);
    assert_eq!(all.mode, ShortNameMode::Enforcing);
    assert_eq!(
        all.credential_helpers,
        ["containers-auth.json", "secretservice"]
    );
    assert_eq!(all.aliases.len(), 3);
    assert_eq!(all.aliases["nothing"], None);
    let [first, same, wild] = &all.registries[..] else {
        panic!("{:#?}", all.registries);
    };
    assert_eq!(first.place.to_string(), "registries.conf:7");
    assert_eq!(first.location.as_deref(), Some("internal.test/bar"));
    assert!(first.insecure && !first.blocked && !first.mirror_by_digest_only);
    assert_eq!(first.mirrors[0].pull, PullFromMirror::TagOnly);
    assert_eq!(first.mirrors[1].pull, PullFromMirror::All);
    assert!(first.mirrors[0].insecure && !first.mirrors[1].insecure);
    assert_eq!(same.prefix, "same.test");
    assert!(wild.blocked && wild.location.is_none());
}

#[test]
fn the_old_form_is_read() {
    let text = "[registries.search]\nregistries = ['one.test', 'two.test']\n\
                [registries.insecure]\nregistries = ['two.test', 'three.test:5000']\n\
                [registries.block]\nregistries = ['bad.test/ns']\n";
    let all = registries(&[text]);
    assert_eq!(all.search, ["one.test", "two.test"]);
    let flags = |reference: &str| {
        let reference = Reference::parse(reference).expect("a reference");
        let endpoints = all.endpoints(&reference);
        endpoints.map(|endpoints| endpoints[0].insecure)
    };
    assert!(matches!(flags("one.test/a"), Ok(false)));
    assert!(matches!(flags("three.test:5000/a"), Ok(true)));
    assert!(matches!(flags("bad.test/other"), Ok(false)));
    let blocked = flags("bad.test/ns/a").expect_err("blocked").to_string();
    assert_eq!(
        blocked,
        "the image `bad.test/ns/a:latest` is blocked by registries.conf:6"
    );
    // As distributions had it, with nothing in it.
    let empty = "[registries.search]\nregistries = []\n";
    registries(&[&format!("short-name-mode = 'disabled'\n{empty}")]);
}

#[test]
fn a_fault_has_its_file_and_line() {
    let check = |text: &str, expected: &str| {
        let file = Path::new("/etc/r.conf");
        let error = parse(file, text, Kind::Main)
            .expect_err("a fault")
            .to_string();
        assert_eq!(error, expected, "{text}");
    };
    check(
        "a = 1\na = 2",
        "/etc/r.conf:2: this is no TOML: duplicate key",
    );
    check(
        "short-name-mode = 'strict'",
        "/etc/r.conf:1: `short-name-mode` cannot be `strict`: it is `enforcing`, `permissive` or `disabled`",
    );
    check(
        "\nunqualified-search-registries = 'a'",
        "/etc/r.conf:2: `unqualified-search-registries` must be a list of strings",
    );
    check(
        "unqualified-search-registries = [\n'a.test',\n'a.test/b']",
        "/etc/r.conf:3: `unqualified-search-registries` cannot be `a.test/b`: it is a host, with a port or without",
    );
    check(
        "[[registry]]\nlocation = 'https://a.test'",
        "/etc/r.conf:2: `location` cannot be `https://a.test`: it is a host and a path, without `http://` or `https://`",
    );
    check(
        "[[registry]]\nlocation = 'a.test'\ninsecure = 'yes'",
        "/etc/r.conf:3: `insecure` must be `true` or `false`",
    );
    check(
        "\n[[registry]]\nprefix = 'a.test'",
        "/etc/r.conf:2: `[[registry]]` has no `location`",
    );
    check(
        "[[registry]]\nprefix = '*.a.test/b'\nlocation = 'c.test'",
        "/etc/r.conf:2: `prefix` cannot be `*.a.test/b`: a `*` stands only before a domain, as in `*.example.com`",
    );
    check(
        "[[registry]]\nlocation = 'a.test'\n[[registry.mirror]]\ninsecure = true",
        "/etc/r.conf:3: `[[registry.mirror]]` has no `location`",
    );
    check(
        "[[registry]]\nlocation = 'a.test'\n[[registry.mirror]]\nlocation = 'b.test'\npull-from-mirror = 'some'",
        "/etc/r.conf:5: `pull-from-mirror` cannot be `some`: it is `all`, `digest-only` or `tag-only`",
    );
    check(
        "[[registry]]\nlocation = 'a.test'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'b.test'\n\
         pull-from-mirror = 'all'",
        "/etc/r.conf:6: `pull-from-mirror` cannot be `all`: the registry has `mirror-by-digest-only`",
    );
    check(
        "[[registry]]\nlocation = 'a.test'\npull-from-mirror = 'all'",
        "/etc/r.conf:3: `pull-from-mirror` cannot be `all`: it is for a `[[registry.mirror]]`, not for a `[[registry]]`",
    );
    check(
        "[[registry]]\nlocation = 'a.test'\n[[registry]]\nprefix = 'b.test'\nlocation = 'a.test'\nblocked = true",
        "/etc/r.conf:3: `a.test` is here more than once, with different values of `blocked`",
    );
    check(
        "[aliases]\n'a.test/b' = 'c.test/d'",
        "/etc/r.conf:2: `aliases` cannot be `a.test/b`: a short name has no registry, no tag and no digest",
    );
    check(
        "[aliases]\nb = 'c.test/d:1'",
        "/etc/r.conf:2: `b` cannot be `c.test/d:1`: it is a registry and a repository, without tag and digest",
    );
    check(
        "short-name-mode = 'disabled'\n[registries.search]\nregistries = ['a.test']",
        "/etc/r.conf:2: `[registries]` is the old form, which cannot be mixed with settings of the new one",
    );
    let text = "[registries.block]\nregistries = ['a.test']";
    let error = parse(Path::new("d.conf"), text, Kind::DropIn).expect_err("a fault");
    assert_eq!(
        error.to_string(),
        "d.conf:1: `[registries]` is the old form, which only `registries.conf` itself may have"
    );
}

#[test]
fn an_image_is_asked_for_at_its_places_in_order() {
    let all = registries(&[r#"
        [[registry]]
        prefix = "example.test"
        location = "internal.test"
        insecure = true
        [[registry.mirror]]
        location = "mirror.test/a"
        [[registry.mirror]]
        location = "digests.test"
        insecure = true
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.test"
        pull-from-mirror = "tag-only"

        [[registry]]
        prefix = "example.test/foo"
        location = "other.test/bar"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "mirror.test"

        [[registry]]
        prefix = "example.test/foo/app:9"
        location = "nine.test/app:nine"

        [[registry]]
        prefix = "*.wild.test"
        [[registry.mirror]]
        location = "mirror.test/wild"

        [[registry]]
        prefix = "*.to.wild.test"
        location = "elsewhere.test:5000"

        [[registry]]
        prefix = "docker.io/library"
        location = "hub.test"

        [[registry]]
        prefix = "odd.test"
        location = "nodot/x"
    "#]);
    let digest = format!("sha256:{}", "0".repeat(64));
    let check = |image: &str, expected: &[&str]| {
        let reference = Reference::parse(image).expect("a reference");
        let endpoints = all.endpoints(&reference).expect("places");
        let texts = endpoints.iter().map(|endpoint| {
            let insecure = if endpoint.insecure { " insecure" } else { "" };
            let mirror = if endpoint.mirror { " mirror" } else { "" };
            format!("{}{insecure}{mirror}", endpoint.reference)
        });
        assert_eq!(texts.collect::<Vec<_>>(), expected, "{image}");
    };
    check("unknown.test/app:1", &["unknown.test/app:1"]);
    check(
        "example.test/app:1",
        &[
            "mirror.test/a/app:1 mirror",
            "tags.test/app:1 mirror",
            "internal.test/app:1 insecure",
        ],
    );
    check(
        &format!("example.test/app@{digest}"),
        &[
            &format!("mirror.test/a/app@{digest} mirror"),
            &format!("digests.test/app@{digest} insecure mirror"),
            &format!("internal.test/app@{digest} insecure"),
        ],
    );
    check("example.test/foo/app:1", &["other.test/bar/app:1"]);
    check(
        &format!("example.test/foo/app@{digest}"),
        &[
            &format!("mirror.test/app@{digest} mirror"),
            &format!("other.test/bar/app@{digest}"),
        ],
    );
    check("example.test/foo/app:9", &["nine.test/app:nine"]);
    // The longest match ends where a component does.
    check(
        "example.test/foobar:1",
        &[
            "mirror.test/a/foobar:1 mirror",
            "tags.test/foobar:1 mirror",
            "internal.test/foobar:1 insecure",
        ],
    );
    check(
        "a.b.wild.test/x/y:1",
        &["mirror.test/wild/x/y:1 mirror", "a.b.wild.test/x/y:1"],
    );
    check("a.to.wild.test/x:1", &["elsewhere.test:5000/x:1"]);
    check("wild.test/x:1", &["wild.test/x:1"]);
    check("notwild.test/x:1", &["notwild.test/x:1"]);
    check("busybox:1", &["hub.test/busybox:1"]);
    let odd = Reference::parse("odd.test/app").expect("a reference");
    let error = all.endpoints(&odd).expect_err("no registry").to_string();
    assert!(error.contains("the location `nodot/x`"), "{error}");
}

#[test]
fn a_short_name_is_completed_as_podman_does() {
    let check = |conf: &str, image: &str, expected: &[&str], stored: &[&str]| {
        let (all, name) = (registries(&[conf]), name(image));
        let short = name.short().expect("a short name");
        let names = all.names(&name, short).expect("names");
        assert_eq!(texts(&names), expected, "{conf} {image}");
        let names = all.stored_names(&name, short).expect("names");
        assert_eq!(texts(&names), stored, "{conf} {image}");
    };
    let docker = ["docker.io/library/app:1"];
    check("", "app:1", &docker, &docker);
    check("[aliases]\nother = 'a.test/b'", "app:1", &docker, &docker);
    let alias = "unqualified-search-registries = ['s.test']\n[aliases]\napp = 'a.test/b'";
    check(
        alias,
        "app:1",
        &["a.test/b:1"],
        &["a.test/b:1", "localhost/app:1", "s.test/app:1"],
    );
    check(
        alias,
        "library/app",
        &["s.test/library/app:latest"],
        &["localhost/library/app:latest", "s.test/library/app:latest"],
    );
    let digest = format!("sha256:{}", "0".repeat(64));
    check(
        "unqualified-search-registries = ['s.test', 'docker.io']",
        &format!("app@{digest}"),
        &[
            &format!("s.test/app@{digest}"),
            &format!("docker.io/library/app@{digest}"),
        ],
        &[
            &format!("localhost/app@{digest}"),
            &format!("s.test/app@{digest}"),
            &format!("docker.io/library/app@{digest}"),
        ],
    );
    let enforcing = registries(&[
        "short-name-mode = 'enforcing'\nunqualified-search-registries = ['a.test', 'b.test']",
    ]);
    let error = enforcing.names(&name("app:1"), "app").expect_err("two");
    assert_eq!(
        error.to_string(),
        "the short name `app` can mean a.test/app:1 or b.test/app:1, and `short-name-mode` is `enforcing`"
    );
    assert!(crate::image::Error::from(error).is_invalid_name());
    let odd = registries(&["unqualified-search-registries = ['registry.of.a.long.name.test']"]);
    let long = "x".repeat(235);
    let error = odd.names(&name(&long), &long).expect_err("too long");
    assert!(crate::image::Error::from(error).is_invalid_name());
    let blocked = registries(&["[[registry]]\nlocation = 'a.test'\nblocked = true"]);
    let reference = Reference::parse("a.test/b").expect("a reference");
    let error = blocked.endpoints(&reference).expect_err("blocked");
    assert!(!crate::image::Error::from(error).is_invalid_name());
}

#[test]
fn a_short_name_with_several_registries_is_a_question() {
    let text = |mode: &str| {
        format!(
            "unqualified-search-registries = ['a.test', 'b.test']\n{mode}[aliases]\nknown = 'c.test/known'\n"
        )
    };
    let check = |mode: &str, name: &str, expected: Option<&[&str]>| {
        let folder = Folder::new();
        let path = folder.path().join("registries.conf");
        fs::replace(&path, 0o600, text(mode).as_bytes()).expect("a file");
        let conf = RegistriesConf::new(Places {
            registries_conf: Some(path),
            ..Places::default()
        });
        let image = ImageName::parse(name).expect("a name");
        let found = conf.candidates(&image).expect("readable");
        let found = found.map(|names| texts(&names));
        let found: Option<Vec<&str>> = found
            .as_ref()
            .map(|names| names.iter().map(String::as_str).collect());
        assert_eq!(found.as_deref(), expected, "{mode} {name}");
    };
    let both = ["a.test/x:1", "b.test/x:1"];
    check("", "x:1", Some(&both));
    check("short-name-mode = 'permissive'\n", "x:1", Some(&both));
    check("short-name-mode = 'enforcing'\n", "x:1", Some(&both));
    check("short-name-mode = 'disabled'\n", "x:1", None);
    check("", "known:1", None);
    check("", "c.test/x:1", None);
}

proptest::proptest! {
    #[test]
    fn no_file_and_no_name_is_too_odd(
        lines in proptest::collection::vec(
            "(\\[\\[registry\\]\\]|\\[\\[registry\\.mirror\\]\\]|\\[aliases\\]|\\[registries\\.(search|block)\\]|(prefix|location|a|registries) = \\[?'(\\*\\.)?[a-zé.:/@]{0,9}'\\]?|blocked = true|\\PC{0,9})",
            0..12,
        ),
        image in "[a-z]{1,3}(\\.[a-z]{1,2})?(:[0-9]{1,2})?(/[a-z]{1,3}){0,2}(:[a-z]{1,3})?",
    ) {
        let text = lines.join("\n");
        if let Ok(settings) = parse(Path::new("r.conf"), &text, Kind::Main) {
            let mut all = Registries::default();
            all.add(settings);
            if let Ok(name) = ImageName::parse(&image) {
                let places = all.endpoints(name.reference());
                proptest::prop_assert!(places.is_err() || places.is_ok_and(|places| !places.is_empty()));
                if let Some(short) = name.short() {
                    let names = all.names(&name, short);
                    proptest::prop_assert!(names.is_err() || names.is_ok_and(|names| !names.is_empty()));
                }
            }
        }
    }
}

/// A machine's folders, and what is in them.
struct Machine(Folder);

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        for (name, text) in files {
            let path = folder.path().join(name);
            let parent = path.parent().expect("a folder");
            fs::create_dir_all(parent, 0o755).expect("a folder");
            fs::replace(&path, 0o600, text.as_bytes()).expect("a file");
        }
        Self(folder)
    }

    fn places(&self) -> Places {
        let at = |name: &str| Some(self.0.path().join(name));
        Places {
            user: at("user"),
            system: at("system"),
            vendor: at("vendor"),
            aliases: at("aliases.conf"),
            ..Places::default()
        }
    }

    fn searched(&self, places: Places) -> Vec<String> {
        let conf = RegistriesConf::new(places);
        texts(&conf.names(&name("app:1")).expect("names"))
    }
}
