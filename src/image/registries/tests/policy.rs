//! What may be pulled and loaded.

use super::*;

#[test]
fn a_policy_is_as_narrow_as_its_narrowest_scope() {
    let check = |image: &str, expected: Result<(), &str>| {
        let machine = Machine::new(&[(
            "system/policy.json",
            r#"{"default": [{"type": "reject"}], "transports": {
                "docker-archive": {"": [{"type": "insecureAcceptAnything"}]},
                "docker": {
                    "a.test": [{"type": "insecureAcceptAnything"}],
                    "a.test/ns": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}],
                    "a.test/ns/app": [{"type": "insecureAcceptAnything"}],
                    "a.test/ns/app:bad": [{"type": "reject"}],
                    "*.wild.test": [{"type": "insecureAcceptAnything"}],
                    "empty.test": []
                }}}"#,
        )]);
        let conf = RegistriesConf::new(machine.places());
        let reference = Reference::parse(image).expect("a reference");
        let found = conf.endpoints(&reference).map(|_| ());
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, _) => panic!("{image}: {found:?}, not {expected:?}"),
        }
    };
    check("a.test/x", Ok(()));
    check("a.test/ns/app", Ok(()));
    check("a.test/ns/app/more", Ok(()));
    check(
        "a.test/ns/app:bad",
        Err("for the scope `a.test/ns/app:bad`"),
    );
    check("a.test/ns/x", Err("must be signed (`signedBy`)"));
    check("b.wild.test:5000/x", Ok(()));
    check("wild.test/x", Err("for everything (`default`)"));
    check("empty.test/x", Err("has no requirement"));
}

#[test]
fn a_policy_holds_for_what_is_loaded() {
    let machine = Machine::new(&[
        ("good/image.tar", ""),
        (
            "system/policy.json",
            r#"{"default": [{"type": "reject"}], "transports": {
                "docker-archive": {"": [{"type": "insecureAcceptAnything"}]},
                "oci-archive": {"FOLDER/good": [{"type": "insecureAcceptAnything"}]}}}"#,
        ),
    ]);
    let folder = machine.0.path().canonicalize().expect("a folder");
    let policy = folder.join("system/policy.json");
    let text = String::from_utf8(fs::read(&policy).expect("a file")).expect("text");
    let text = text.replace("FOLDER", folder.to_str().expect("a readable path"));
    fs::replace(&policy, 0o600, text.as_bytes()).expect("a file");
    let conf = RegistriesConf::new(machine.places());
    let check = |transport, path: Option<&str>, accepted: bool| {
        let path = path.map(|path| folder.join(path));
        let checked = conf.check_load(transport, path.as_deref());
        assert_eq!(
            checked.is_ok(),
            accepted,
            "{transport:?} {path:?} {checked:?}"
        );
    };
    check(Transport::DockerArchive, Some("good/image.tar"), true);
    check(Transport::DockerArchive, None, true);
    check(Transport::OciArchive, Some("good/image.tar"), true);
    check(Transport::OciArchive, Some("system/policy.json"), false);
    check(Transport::OciArchive, None, false);
    check(Transport::OciLayout, Some("good"), false);
}
