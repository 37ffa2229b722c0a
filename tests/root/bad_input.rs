//! What is wrong is said with its place and a remedy, has its exit code, and leaves nothing behind.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::Kplay;
use crate::fixtures::Registry;
use crate::harness::script_pod;

const OK: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - {name: main, image: kplay.local/toolbox, args: [sleep, '1000']}
";

#[track_caller]
fn check(kplay: &Kplay, manifest: &str, code: i32, words: &[&str]) {
    let said = kplay.apply(manifest).fails(code, words);
    assert!(!said.contains("panicked"), "{said}");
    kplay.assert_nothing_left();
}

#[test]
fn manifests_that_are_wrong() {
    let Some(kplay) = Kplay::new() else { return };
    let line = |manifest: &str, text: &str| {
        let line = manifest
            .lines()
            .position(|line| line.contains(text))
            .expect("it is there")
            + 1;
        format!("manifest.yaml:{line}:")
    };
    // Not YAML.
    check(&kplay, "a: [1, 2\nb: }", 3, &["manifest.yaml:"]);
    check(&kplay, "", 3, &["nothing to play"]);
    check(&kplay, "just text", 3, &["manifest.yaml:1:1"]);
    // Tabs are YAML's most frequent fault.
    check(
        &kplay,
        "apiVersion: v1\n\tkind: Pod\n",
        3,
        &["manifest.yaml:", "tab"],
    );
    // Nothing in it can be played.
    let ingress =
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i}\nspec: {}\n";
    check(&kplay, ingress, 3, &["Ingress"]);
    // A field that does not exist, with the one that was meant.
    let misspelt = OK.replace("containers:", "contianers:");
    check(
        &kplay,
        &misspelt,
        3,
        &["contianers", "containers", &line(&misspelt, "contianers")],
    );
    // A value of the wrong type.
    let wrong = OK.replace("args: [sleep, '1000']", "args: [sleep, 1000]");
    check(&kplay, &wrong, 3, &[&line(&wrong, "1000")]);
    // A key twice.
    let twice = OK.replace("kind: Pod", "kind: Pod\nkind: Pod");
    check(&kplay, &twice, 3, &["kind", "manifest.yaml:4:"]);
    // A ConfigMap that is not there, and a key that is not.
    let absent = OK.replace(
        "args:",
        "envFrom: [{configMapRef: {name: settings}}], args:",
    );
    check(
        &kplay,
        &absent,
        3,
        &["settings", &line(&absent, "settings")],
    );
    let key = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{present: x}}\n---{}",
        OK.replace(
            "args:",
            "env: [{name: A, valueFrom: {configMapKeyRef: {name: settings, key: absent}}}], args:"
        )
    );
    check(
        &kplay,
        &key,
        3,
        &["absent", "settings", "present", &line(&key, "key: absent")],
    );
    // A mount without its volume.
    let mount = OK.replace(
        "args:",
        "volumeMounts: [{name: conf, mountPath: /c}], args:",
    );
    let volumes = mount.replace("spec:", "spec:\n  volumes: [{name: config, emptyDir: {}}]");
    check(
        &kplay,
        &volumes,
        3,
        &["conf", "config", &line(&volumes, "name: conf,")],
    );
    // Names and images.
    check(
        &kplay,
        &OK.replace("name: web", "name: Web_1"),
        3,
        &["Web_1"],
    );
    let image = OK.replace("kplay.local/toolbox", "'not an image'");
    check(
        &kplay,
        &image,
        3,
        &["not an image", &line(&image, "not an image")],
    );
    // A Deployment whose pods may not restart.
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: c}}\n    spec:\n      restartPolicy: Never\n      containers: [{name: main, image: kplay.local/toolbox}]\n";
    check(
        &kplay,
        deployment,
        3,
        &["restartPolicy", "manifest.yaml:9:"],
    );
    // All faults at once.
    let both = misspelt.replace("kind: Pod", "kind: Pod\nsurprise: 1");
    check(&kplay, &both, 3, &["surprise", "contianers"]);
}

#[test]
fn files_that_are_not_there() {
    let Some(kplay) = Kplay::new() else { return };
    kplay
        .run(["apply", "no-such-file.yaml"])
        .fails(4, &["no-such-file.yaml"]);
    kplay.run(["apply"]).fails(2, &[]);
    kplay
        .run(["no-such-command"])
        .fails(2, &["no-such-command"]);
    kplay.run(["get", "pod", "absent"]).fails(5, &["absent"]);
    kplay.assert_nothing_left();
}

#[test]
fn images_that_are_not_there() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let pod = |image: &str, policy: &str| {
        script_pod("web", "", &format!("imagePullPolicy: {policy},"), "true")
            .replace("localhost/busybox:1", image)
    };
    check(
        &kplay,
        &pod("localhost/absent:1", "Never"),
        4,
        &["localhost/absent:1", "Never"],
    );
    // Nobody listens there.
    let nobody = format!("127.0.0.1:{}/test/busybox:1", crate::harness::free_port());
    check(&kplay, &pod(&nobody, "Always"), 4, &[&nobody]);
    let absent = registry.image("absent");
    check(
        &kplay,
        &pod(&absent, "Always"),
        4,
        &[&absent, "does not have"],
    );
    let digest = format!(
        "127.0.0.1:{}/test/busybox@sha256:{}",
        registry.port,
        "0".repeat(64)
    );
    check(&kplay, &pod(&digest, "Always"), 4, &["sha256:0000"]);
}

#[test]
fn images_that_are_damaged() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let pod = |tag: &str| {
        script_pod("web", "", "imagePullPolicy: Always,", "true")
            .replace("localhost/busybox:1", &registry.image(tag))
    };
    // Other bytes of the same length: the digest is wrong.
    let layer = registry.manifest("gzip")["layers"][0]["digest"].clone();
    let layer = registry.blob(layer.as_str().expect("a digest"));
    let good = fs::read(&layer).expect("the layer");
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    fs::write(&layer, &damaged).expect("writable");
    check(&kplay, &pod("gzip"), 4, &["sha256:"]);
    // Too few bytes.
    fs::write(&layer, &good[..middle]).expect("writable");
    check(&kplay, &pod("gzip"), 4, &["sha256:"]);
    // Whole again: what came before did no lasting harm.
    fs::write(&layer, &good).expect("writable");
    kplay
        .apply_with(&pod("gzip"), ["--wait=complete"])
        .succeeds();
}

#[test]
fn a_command_that_is_not_in_the_image() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod("web", "", "", "true").replace("[sh, -c, ", "[no-such-program, ");
    check(&kplay, &pod, 1, &["web", "main", "no-such-program"]);
    // The same of an init container, which is told before the pod that it ends.
    let init = "initContainers: [{name: first, image: 'localhost/busybox:1', command: [no-such-program]}],";
    let late = script_pod("late", init, "", "true");
    check(&kplay, &late, 1, &["late", "first", "no-such-program"]);
    // Not taken away again: what Kubernetes says of it.
    kplay
        .apply_with(&pod, ["--no-rollback"])
        .fails(1, &["no-such-program"]);
    let pod = kplay.pod("web");
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["reason"], "StartError", "{state}");
    assert_eq!(state["exitCode"], 128, "{state}");
    assert_eq!(pod["status"]["phase"], "Failed");
}

#[test]
fn a_port_that_is_taken() {
    let Some(kplay) = Kplay::new() else { return };
    let taken = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("a port").port();
    let pod = OK.replace(
        "args:",
        &format!("ports: [{{containerPort: 80, hostPort: {port}}}], args:"),
    );
    check(&kplay, &pod, 4, &[&port.to_string(), "web"]);
    drop(taken);
    kplay.apply(&pod).succeeds();
    // By another pod, which the message names or not, but the port it does.
    let second = pod.replace("name: web", "name: second");
    kplay.apply(&second).fails(4, &[&port.to_string()]);
    assert_eq!(kplay.phase("web"), "Running");
}

#[test]
fn no_root_and_no_user_namespaces() {
    let Some(kplay) = Kplay::new() else { return };
    // Root without the rights to use it: an unmapped user of a new user namespace, who may not make another one.
    let file = kplay.file("pod.yaml", OK);
    let apply = || kplay.command(["apply".as_ref(), file.as_os_str()]);
    let said = apply().through(["unshare", "--user"]).run().fails(
        4,
        &["cannot make a user namespace", "user namespaces", "hint: "],
    );
    assert!(!said.contains("panicked"), "{said}");
    // And nobody, who may not even write where root has its state.
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "unshare",
        "--user",
    ];
    let words = ["/run/members", "Permission denied"];
    let said = apply().through(nobody).run().fails(4, &words);
    assert!(!said.contains("panicked"), "{said}");
    kplay.assert_nothing_left();
}

#[test]
fn state_files_that_are_damaged() {
    let Some(kplay) = Kplay::new() else { return };
    for name in ["run/status.json", "run/launch.json", "root/record.json"] {
        for content in ["", "{\"version\": 1, \"uid\"", "\0\0\0\0"] {
            kplay.apply(OK).succeeds();
            let (folder, name) = name.split_once('/').expect("a folder");
            let path = kplay.dir().join(folder).join("pods/default_web").join(name);
            assert!(path.exists(), "{path:?}");
            fs::write(&path, content).expect("writable");
            for args in [&["get", "pods"][..], &["get", "pod", "web", "-o", "json"]] {
                let run = kplay.run(args.iter().copied());
                assert!(!run.stderr.contains("panicked"), "{run}");
                assert!(!matches!(run.code, Some(70 | 101) | None), "{run}");
                // Either it does not need the file, or it says which file is damaged.
                assert!(run.code == Some(0) || run.stderr.contains(name), "{run}");
            }
            kplay.run(["delete", "pod", "web", "--force"]).succeeds();
            kplay.assert_nothing_left();
        }
    }
    kplay.apply(OK).succeeds();
}

/// A small file system for a test, gone when it is dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn new(name: &str, size: &str) -> Self {
        let path = std::env::temp_dir().join(format!(
            "{}{name}-{}",
            crate::leftovers::prefix(),
            std::process::id()
        ));
        fs::create_dir_all(&path).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(&path)
            .status()
            .expect("mount of util-linux");
        assert!(mounted.success());
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "{:?}",
            self.0
        );
        fs::remove_dir(&self.0).expect("removable");
    }
}

#[test]
fn a_full_disk() {
    if !rustix::process::geteuid().is_root() {
        let _none = Kplay::new();
        return;
    }
    let archive = crate::fixtures::busybox_archive();
    let disk = SmallDisk::new("full", "1500k");
    let kplay = Kplay::beneath(&disk.0).expect("root");
    let run = kplay.run(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]);
    run.fails(4, &["no space"]);
    assert_eq!(kplay.run(["images", "-q"]).stdout, "");
    // Not even a record fits: the pod is not there, and the space is free again.
    let manifest = kplay.file("pod.yaml", OK);
    let filler = kplay.file("filler", "");
    let mut file = fs::File::create(&filler).expect("a file");
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    kplay
        .run(["apply".as_ref(), manifest.as_os_str()])
        .fails(4, &["space"]);
    fs::remove_file(filler).expect("removable");
    kplay.assert_nothing_left();
}
