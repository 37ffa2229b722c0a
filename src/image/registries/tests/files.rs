//! Which files of a machine count, and what is written to one.

use super::*;

#[test]
fn later_files_count_more() {
    let search = |registry: &str| format!("unqualified-search-registries = ['{registry}.test']");
    let check = |files: &[&str], expected: &str| {
        let files: Vec<(&str, String)> = files
            .iter()
            .map(|name| (*name, search(&name.replace(['/', '.'], "-"))))
            .collect();
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, text)| (*name, text.as_str()))
            .collect();
        let machine = Machine::new(&files);
        let names = machine.searched(machine.places());
        assert_eq!(names, [format!("{expected}/app:1")], "{files:?}");
    };
    check(&[], "docker.io/library");
    check(&["vendor/registries.conf"], "vendor-registries-conf.test");
    check(
        &["vendor/registries.conf", "system/registries.conf"],
        "system-registries-conf.test",
    );
    check(
        &["system/registries.conf", "system/registries.conf.d/a.conf"],
        "system-registries-conf-d-a-conf.test",
    );
    check(
        &[
            "system/registries.conf.d/b.conf",
            "system/registries.conf.d/a.conf",
            "system/registries.conf.d/c.txt",
        ],
        "system-registries-conf-d-b-conf.test",
    );
    check(
        &[
            "system/registries.conf.d/b.conf",
            "user/registries.conf.d/a.conf",
        ],
        "user-registries-conf-d-a-conf.test",
    );
    // Beside the user's own file, the system's folder does not count.
    check(
        &["user/registries.conf", "system/registries.conf.d/a.conf"],
        "user-registries-conf.test",
    );
}

#[test]
fn a_named_file_replaces_the_others() {
    let machine = Machine::new(&[
        (
            "named.conf",
            "unqualified-search-registries = ['named.test']",
        ),
        ("user/registries.conf", "this is not read"),
        (
            "system/registries.conf.d/a.conf",
            "[aliases]\napp = 'a.test/app'",
        ),
        ("aliases.conf", "[aliases]\nother = 'a.test/other'"),
    ]);
    let places = Places {
        registries_conf: Some(machine.0.path().join("named.conf")),
        ..machine.places()
    };
    // Its drop-in folders still count.
    assert_eq!(machine.searched(places.clone()), ["a.test/app:1"]);
    let conf = RegistriesConf::new(places);
    let other = conf.names(&name("other:2")).expect("names");
    assert_eq!(texts(&other), ["a.test/other:2"]);
    let third = conf.names(&name("third:3")).expect("names");
    assert_eq!(texts(&third), ["named.test/third:3"]);
    assert_eq!(
        conf.credential_helpers().expect("helpers"),
        ["containers-auth.json"]
    );
    let gone = RegistriesConf::new(Places {
        registries_conf: Some("/nowhere/registries.conf".into()),
        ..Places::default()
    });
    let error = gone.names(&name("app")).expect_err("it is not there");
    assert!(
        error.to_string().contains("/nowhere/registries.conf"),
        "{error}"
    );
    // A whole name needs no file.
    gone.names(&name("a.test/app")).expect("a name");
}

#[test]
fn variables_name_the_places() {
    let places = |is_root, set: &[(&str, &str)]| {
        Places::of(is_root, |name| {
            let found = set.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).into())
        })
    };
    let root = places(true, &[("HOME", "/root")]);
    assert_eq!(root.user, Some(PathBuf::from("/root/.config/containers")));
    assert_eq!(root.registries_conf, None);
    let aliases = "/var/cache/containers/short-name-aliases.conf";
    assert_eq!(root.aliases, Some(PathBuf::from(aliases)));
    let old = ("REGISTRIES_CONFIG_PATH", "/old");
    let user = places(false, &[("HOME", "/home/a"), old]);
    let aliases = "/home/a/.cache/containers/short-name-aliases.conf";
    assert_eq!(user.aliases, Some(PathBuf::from(aliases)));
    assert_eq!(user.registries_conf, Some(PathBuf::from("/old")));
    let new = places(false, &[old, ("CONTAINERS_REGISTRIES_CONF", "/new")]);
    assert_eq!(new.registries_conf, Some(PathBuf::from("/new")));
}

#[test]
fn an_answer_is_written_down() {
    let folder = Folder::new();
    let aliases = folder.path().join("cache/short-name-aliases.conf");
    let conf = || {
        RegistriesConf::new(Places {
            aliases: Some(aliases.clone()),
            ..Places::default()
        })
    };
    let chosen = |text| Reference::parse(text).expect("a reference");
    conf()
        .record_alias("box", &chosen("a.test/lib/box:9"))
        .expect("written");
    conf()
        .record_alias("ns/app", &chosen("b.test:5000/ns/app"))
        .expect("written");
    conf()
        .record_alias("box", &chosen("b.test/box"))
        .expect("written");
    let name = |text| {
        conf()
            .names(&ImageName::parse(text).expect("a name"))
            .expect("readable")
    };
    assert_eq!(name("box:1"), [chosen("b.test/box:1")]);
    assert_eq!(name("ns/app:2"), [chosen("b.test:5000/ns/app:2")]);
    let text = fs::read(&aliases).expect("a file");
    let expected = "[aliases]\n  \"box\" = \"b.test/box\"\n  \"ns/app\" = \"b.test:5000/ns/app\"\n";
    assert_eq!(String::from_utf8_lossy(&text), expected);
}
