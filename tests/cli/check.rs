//! `check`, and the manifests that a person can play.

use std::fs;

use crate::harness::{Kplay, repository};

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: web
    image: kplay.local/toolbox
    args: [sleep, '1000']
";

#[test]
fn a_good_manifest_is_ok_and_leaves_nothing() {
    let kplay = Kplay::new();
    kplay.file("web.yaml", POD);
    let check = |run: crate::harness::Run| {
        let said = (run.code, run.stdout.as_str(), run.stderr.as_str());
        assert_eq!(said, (Some(0), "pod/web ok\n", ""), "{run}");
    };
    check(kplay.run("check web.yaml"));
    check(kplay.run("validate -f web.yaml"));
    check(kplay.run("check ."));
    check(kplay.run_with(&["check", "-"], POD));
    assert!(!kplay.has("root") && !kplay.has("run"));
}

#[test]
fn a_faulty_manifest_is_shown_with_its_place() {
    let kplay = Kplay::new();
    kplay.file("web.yaml", &POD.replace("containers:", "contianers:"));
    insta::assert_snapshot!(kplay.run("check web.yaml").to_string(), @r"
    exit code 3
    --- stdout
    --- stderr
    error: unknown field `contianers` in `spec`
      --> web.yaml:6:3
        6 |   contianers:
          |   ^^^^^^^^^^
    hint: did you mean `containers`?
    1 error
    ");
}

#[test]
fn colour_is_a_choice() {
    let kplay = Kplay::new();
    kplay.file("web.yaml", &POD.replace("containers:", "contianers:"));
    let plain = kplay.run("check web.yaml").stderr;
    assert!(!plain.contains('\x1b'), "{plain}");
    let coloured = kplay.run("check web.yaml --color always").stderr;
    assert!(coloured.contains("\x1b[1;31merror\x1b[0m: "), "{coloured}");
}

#[test]
fn what_is_ignored_is_noted_and_strict_minds() {
    let kplay = Kplay::new();
    let deployment = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: kplay.local/toolbox}]
";
    kplay.file("web.yaml", deployment);
    let run = kplay.run("check web.yaml");
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), "deployment.apps/web ok\n"),
        "{run}"
    );
    assert!(run.stderr.starts_with("note: web.yaml:5:"), "{run}");
    let quiet = kplay.run("check -q web.yaml");
    assert_eq!(
        (quiet.code, quiet.stderr.as_str()),
        (Some(0), ""),
        "{quiet}"
    );
    let strict = kplay.run("check --strict web.yaml");
    assert_eq!(
        (strict.code, strict.stdout.as_str()),
        (Some(3), ""),
        "{strict}"
    );
}

#[test]
fn scripts_get_json() {
    let kplay = Kplay::new();
    kplay.file("web.yaml", &POD.replace("spec:", "spec:\n  surprise: 1"));
    let run = kplay.run("check web.yaml -o json");
    assert_eq!((run.code, run.stderr.as_str()), (Some(3), ""), "{run}");
    let report: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(report["valid"], false);
    let first = &report["diagnostics"][0];
    assert_eq!(
        (&first["severity"], &first["file"], &first["line"]),
        (&"error".into(), &"web.yaml".into(), &6.into())
    );
}

#[test]
fn every_example_loads() {
    let kplay = Kplay::new();
    let mut count = 0;
    for entry in fs::read_dir(repository("manifests")).expect("the examples") {
        let path = entry.expect("an entry").path();
        let path = path.to_str().expect("a readable name");
        let run = kplay.run_with(&["check", path], "");
        assert_eq!(run.code, Some(0), "{path}: {run}");
        count += 1;
    }
    assert!(count > 0);
}
