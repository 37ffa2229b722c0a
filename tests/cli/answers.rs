//! What commands answer on a machine on which nothing runs.

use std::io::Read as _;

use crate::harness::Kplay;

#[test]
fn the_version() {
    let kplay = Kplay::new();
    let version = env!("CARGO_PKG_VERSION");
    let human = format!("kplay {version}\n");
    assert_eq!(kplay.run("version").stdout, human);
    assert_eq!(kplay.run("--version").stdout, human);
    let json = kplay.run("version -o json").stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["clientVersion"]["gitVersion"], format!("v{version}"));
}

#[test]
fn units_of_systemd_have_the_words_of_the_command_line() {
    let kplay = Kplay::new();
    kplay.file(
        "web.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {terminationGracePeriodSeconds: 100, \
         containers: [{name: web, image: web}]}}",
    );
    let run = kplay.run("generate systemd web.yaml -n test -- --publish 8080:80");
    assert_eq!(run.code, Some(0), "{run}");
    let has = |line: &str| assert!(run.stdout.lines().any(|one| one == line), "{line}: {run}");
    let program = env!("CARGO_BIN_EXE_kplay");
    let root = kplay.path("root");
    let root = root.display();
    let run_root = kplay.path("run");
    let folders = format!("--root={root} --runroot={}", run_root.display());
    has(&format!(
        "ExecStart={program} {folders} up web.yaml -n test --publish 8080:80"
    ));
    has(&format!(
        "ExecStopPost={program} {folders} down web.yaml -n test"
    ));
    has(&format!(
        "RequiresMountsFor={} {root}",
        kplay.path("web.yaml").display()
    ));
    has("TimeoutStopSec=130");
    let template = kplay.run("generate systemd --template").stdout;
    assert!(template.contains(" up %I\n"), "{template}");
    let check = |line: &str, code: i32, word: &str| {
        let run = kplay.run(line);
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{run}");
        assert!(run.stderr.contains(word), "{line}: {run}");
    };
    check("generate systemd", 2, "no manifest is named");
    check("generate systemd -", 2, "standard input");
    check("generate systemd --template web.yaml", 2, "instances");
    kplay.file("wrong.yaml", "kind: Pod");
    check("generate systemd wrong.yaml", 3, "apiVersion");
}

#[test]
fn a_kube_file_becomes_a_service() {
    let kplay = Kplay::new();
    let units = kplay.path("units");
    std::fs::create_dir(&units).expect("writable");
    kplay.file(
        "web.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: web, image: web}]}}",
    );
    kplay.file(
        "map.yaml",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: map}}",
    );
    kplay.file(
        "web.kube",
        "[Unit]\nAfter=db.service\n\n[Kube]\nYaml=web.yaml\nConfigMap=map.yaml\nPublishPort=8080:80\n\n\
         [Service]\nRestart=always\n\n[Install]\nWantedBy=default.target\n",
    );
    kplay.file("wrong.kube", "[Kube]\nYaml=web.yaml\nNetwork=host\n");
    kplay.file("faulty.kube", "[Kube]\nYaml=nothing.yaml\n");
    let run = kplay.generator(&units);
    assert_eq!(run.code, Some(3), "{run}");
    let told = |words: &str| assert!(run.stderr.contains(words), "{words}: {run}");
    told("wrong.kube:3: `Network` cannot be honoured");
    told("nothing.yaml");
    let text = std::fs::read_to_string(units.join("web.service")).expect("a service");
    let has = |line: &str| assert!(text.lines().any(|one| one == line), "{line}:\n{text}");
    let program = env!("CARGO_BIN_EXE_kplay");
    let folders = ["root", "run"].map(|name| kplay.path(name).display().to_string());
    let [root, run_root] = &folders;
    let [map, web] = ["map.yaml", "web.yaml"].map(|name| kplay.path(name).display().to_string());
    has(&format!(
        "ExecStart={program} --root={root} --runroot={run_root} up --configmap={map} {web} --publish=8080:80"
    ));
    has(&format!("SourcePath={}", kplay.path("web.kube").display()));
    // What the file says comes last, and so counts.
    let place = |line: &str| text.lines().position(|one| one == line);
    assert!(
        place("Restart=on-abnormal") < place("Restart=always"),
        "{text}"
    );
    has("[X-Kube]");
    let link = std::fs::read_link(units.join("default.target.wants/web.service"));
    assert_eq!(
        link.expect("a link"),
        std::path::Path::new("../web.service")
    );
    let made = std::fs::read_dir(&units).expect("a folder").count();
    assert_eq!(made, 2, "what is wrong is not made");
    assert_eq!(kplay.run("generate systemd web.kube").stdout, text);
    let both = kplay.run("generate systemd web.kube web.yaml");
    assert_eq!(both.code, Some(2), "{both}");
}

#[test]
fn completions_are_of_the_real_command_line() {
    let kplay = Kplay::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = kplay.run(&format!("completion {shell}"));
        assert_eq!(run.code, Some(0), "{run}");
        assert!(run.stdout.contains("no-rollback"), "{shell}");
    }
}

#[test]
fn nothing_is_there() {
    let kplay = Kplay::new();
    let check = |line: &str, code: i32, stdout: &str, word: &str| {
        let run = kplay.run(line);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(code), stdout),
            "{line}: {run}"
        );
        assert!(run.stderr.contains(word), "{line}: {run}");
    };
    check(
        "get pods",
        0,
        "",
        "No resources found in default namespace.",
    );
    check(
        "ps -n other",
        0,
        "",
        "No resources found in other namespace.",
    );
    check("-n other get all", 0, "", "other");
    check("get all -A", 0, "", "No resources found");
    check("get events", 0, "", "No resources found");
    check("get pods -o name", 0, "", "");
    check("volume ls", 0, "", "No volumes found");
    check("volume ls -o name", 0, "", "");
    check("volume inspect x", 5, "[]\n", "volumes \"x\" not found");
    check("volume rm x pv/y", 5, "", "volumes \"y\" not found");
    check("volume rm -f x", 0, "", "");
    check("volume prune", 0, "", "");
    check("get pod web", 5, "", "\"web\" not found");
    check("get pod web -o json", 5, "", "\"web\" not found");
    check("get deploy/web", 5, "", "deployments \"web\" not found");
    check("describe pod web", 5, "", "web");
    check("logs web", 5, "", "web");
    check("logs -l app=web", 0, "", "No resources found");
    check("exec web -- true", 5, "", "web");
    check("wait web --for=condition=Ready", 5, "", "web");
    check("wait web --for=delete", 0, "", "");
    check("delete pod web", 5, "", "web");
    check("delete pod web --ignore-not-found", 0, "", "");
    check("delete --all", 0, "", "");
    check("apply no-such-file.yaml", 4, "", "no-such-file.yaml");
    check("pull --offline busybox", 4, "", "--offline");
    check("image rm nothing", 5, "", "nothing");
    check("load -i no-such-archive.tar", 4, "", "no-such-archive.tar");
    check(
        "images",
        0,
        "REPOSITORY   TAG   IMAGE ID   CREATED   SIZE\n",
        "",
    );
    check(
        "get pods -o yaml",
        0,
        "apiVersion: v1\nitems: []\nkind: List\nmetadata:\n  resourceVersion: ''\n",
        "",
    );
}

#[test]
fn an_archive_that_is_none() {
    let kplay = Kplay::new();
    let run = kplay.run_with(&["load"], "this is no archive");
    assert_eq!((run.code, run.stdout.as_str()), (Some(4), ""), "{run}");
}

#[test]
fn a_dry_run_says_what_would_be_done() {
    let kplay = Kplay::new();
    kplay.file(
        "all.yaml",
        "\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: 'yes'}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: kplay.local/toolbox}]}}}
",
    );
    let run = kplay.run("apply all.yaml --dry-run");
    assert_eq!(run.code, Some(0), "{run}");
    assert_eq!(
        run.stdout,
        "configmap/settings created (dry run)\njob.batch/once created (dry run)\n"
    );
    assert_eq!(
        kplay.run("apply all.yaml --dry-run=client -o name").stdout,
        "configmap/settings\njob.batch/once\n"
    );
    assert!(kplay.run("get all,cm").stdout.is_empty());
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let kplay = Kplay::new();
    for arguments in [&["completion", "bash"][..], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut child = kplay
            .command(arguments)
            .stdout(writer)
            .spawn()
            .expect("kplay starts");
        let mut said = String::new();
        let mut stderr = child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut said).expect("text");
        let status = child.wait().expect("our own child");
        assert_eq!(
            (status.code(), said.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}
