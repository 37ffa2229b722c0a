//! Images that come from other engines and go to them: saved, pushed, and taken over without a registry.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::Kplay;
use crate::fixtures::{Registry, fixture};
use crate::harness::{Call, Run, script_pod};
use crate::wait;

const BUSYBOX: &str = "localhost/busybox:1";

/// podman with a store of its own, which is the machine's for kplay.
pub(crate) struct Podman<'a> {
    kplay: &'a Kplay,
    driver: &'static str,
}

impl<'a> Podman<'a> {
    pub(crate) fn new(kplay: &'a Kplay, driver: &'static str) -> Self {
        let podman = Self { kplay, driver };
        let text = format!(
            "[storage]\ndriver = {driver:?}\ngraphroot = {:?}\n",
            podman.root()
        );
        kplay.file("storage.conf", text);
        podman
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.kplay.dir().join("podman")
    }

    fn command<const N: usize>(&self, args: [&str; N]) -> Command {
        // What it mounts goes with the namespace.
        let mut command = Command::new("unshare");
        command
            .args(["-m", "podman", "--storage-driver", self.driver, "--root"])
            .arg(self.root())
            .arg("--runroot")
            .arg(self.kplay.dir().join("podman-run"))
            .args(args);
        command
    }

    #[track_caller]
    pub(crate) fn run<const N: usize>(&self, args: [&str; N]) -> String {
        let output = self.command(args).output();
        let output = output.unwrap_or_else(|e| panic!("cannot run podman: {e}; run .ci/deps"));
        assert!(output.status.success(), "podman {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The id of an image.
    fn id(&self, image: &str) -> String {
        let id = self.run(["image", "inspect", "--format", "{{.Id}}", image]);
        format!("sha256:{}", id.trim())
    }

    /// Runs kplay as on a machine with this podman.
    pub(crate) fn kplay<const N: usize>(&self, args: [&str; N]) -> Run {
        self.call(args).run()
    }

    pub(crate) fn call<const N: usize>(&self, args: [&str; N]) -> Call<'a> {
        let conf = self.kplay.dir().join("storage.conf");
        let call = self.kplay.command(args);
        call.env("CONTAINERS_STORAGE_CONF", conf)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a readable path")
}

/// Lines of a tree: all that belongs to an image.
fn tree(folder: &Path) -> String {
    let output = Command::new("find")
        .arg(folder)
        .args(["-printf", "%P %y %m %U:%G %s %T@ %l\n"])
        .output()
        .expect("find runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with(" d "))
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The folders of an image's layers, the highest first.
fn layers(inspected: &str) -> Vec<PathBuf> {
    let json: Value = serde_json::from_str(inspected).expect("JSON");
    let data = &json[0]["GraphDriver"]["Data"];
    let upper = data["UpperDir"].as_str().into_iter();
    let lower = data["LowerDir"].as_str().unwrap_or_default();
    let lower = lower.split(':').filter(|path| !path.is_empty());
    upper.chain(lower).map(PathBuf::from).collect()
}

#[test]
fn what_podman_has_is_played_without_a_registry() {
    for driver in ["overlay", "vfs"] {
        let Some(kplay) = Kplay::new() else { return };
        let podman = Podman::new(&kplay, driver);
        podman.run([
            "load",
            "-q",
            "-i",
            text(&fixture("podman-docker-archive.tar")),
        ]);
        podman.run(["tag", BUSYBOX, "registry.invalid/lib/busybox:1"]);
        let image = "registry.invalid/lib/busybox:1";
        let pod = script_pod("taken", "", "imagePullPolicy: IfNotPresent,", "echo taken")
            .replace(BUSYBOX, image);
        let file = kplay.file("pod.yaml", pod);
        let run = podman.kplay(["apply", "--wait=complete", text(&file)]);
        assert!(
            run.stderr
                .contains("took registry.invalid/lib/busybox:1 from"),
            "{}",
            run.stderr
        );
        run.succeeds();
        assert_eq!(kplay.run(["logs", "taken"]).succeeds(), "taken\n");
        let status = &kplay.pod("taken")["status"]["containerStatuses"][0];
        assert_eq!(status["image"], image);
        let id = status["imageID"].as_str().expect("an id");
        assert!(id.ends_with(&podman.id(image)), "{id}");
        let events = kplay.run(["events"]).succeeds();
        assert!(events.contains("already present on machine"), "{events}");
        kplay.run(["delete", "pod", "taken"]).succeeds();
        // It is kplay's own now.
        podman.run(["rmi", "-a", "-f"]);
        let run = podman.kplay(["apply", "--wait=complete", text(&file)]);
        assert!(!run.stderr.contains("took"), "{}", run.stderr);
        run.succeeds();
        kplay.run(["delete", "pod", "taken"]).succeeds();
    }
}

#[test]
fn files_are_shared_with_podman_across_its_mount() {
    let Some(kplay) = Kplay::new() else { return };
    let podman = Podman::new(&kplay, "overlay");
    podman.run([
        "load",
        "-q",
        "-i",
        text(&fixture("podman-docker-archive.tar")),
    ]);
    // As podman does with its folder.
    let script =
        "mount --make-rprivate / && mount --bind \"$0/overlay\" \"$0/overlay\" && exec \"$@\"";
    let root = podman.root();
    let pull = format!("containers-storage:[overlay@{}]{BUSYBOX}", root.display());
    let call = kplay.command(["pull", &pull]);
    let call = call.through(["unshare", "-m", "sh", "-c", script, text(&root)]);
    let id = call.run().succeeds();
    assert_eq!(id.trim(), podman.id(BUSYBOX));
    let own = layers(&kplay.run(["image", "inspect", BUSYBOX]).succeeds());
    let theirs = layers(&podman.run(["image", "inspect", BUSYBOX]));
    assert_eq!(own.len(), theirs.len());
    for (own, theirs) in own.iter().zip(&theirs) {
        assert_eq!(tree(own), tree(theirs));
        let file = ["bin/busybox", "etc/passwd"]
            .into_iter()
            .find(|name| own.join(name).is_file());
        if let Some(name) = file {
            let inode = |layer: &Path| std::fs::metadata(layer.join(name)).expect("there").ino();
            assert_eq!(inode(own), inode(theirs), "the file is shared");
        }
    }
}

#[test]
fn other_tools_read_what_is_saved() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.load(fixture("hostile.tar"));
    let podman = Podman::new(&kplay, "overlay");
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        for image in [BUSYBOX, "localhost/hostile:1"] {
            let path = kplay.dir().join(format);
            let save = [
                "image",
                "save",
                "--format",
                format,
                "-o",
                text(&path),
                image,
            ];
            kplay.run(save).succeeds();
            let source = match format {
                "oci-dir" => format!("oci:{}", path.display()),
                _ => format!("{format}:{}", path.display()),
            };
            let pulled = podman.run(["pull", "-q", &source]);
            let inspected = kplay.run(["image", "inspect", image]).succeeds();
            let json: Value = serde_json::from_str(&inspected).expect("JSON");
            assert_eq!(json[0]["Id"], pulled.trim(), "{format}");
            let theirs = layers(&podman.run(["image", "inspect", pulled.trim()]));
            let own = layers(&inspected);
            assert_eq!(own.len(), theirs.len(), "{format}");
            for (own, theirs) in own.iter().zip(&theirs) {
                assert_eq!(tree(own), tree(theirs), "{format}");
            }
            podman.run(["rmi", "-a", "-f"]);
            std::fs::remove_dir_all(&path)
                .or_else(|_| std::fs::remove_file(&path))
                .expect("removed");
        }
    }
    // Two at once, through a pipe, by docker's spelling.
    let archive = kplay.dir().join("two.tar");
    let file = std::fs::File::create(&archive).expect("a file");
    let mut save = kplay
        .command(["save", BUSYBOX, "localhost/hostile:1"])
        .std();
    assert!(save.stdout(file).status().expect("it runs").success());
    let loaded = podman.run(["load", "-i", text(&archive)]);
    for image in [BUSYBOX, "localhost/hostile:1"] {
        assert!(loaded.contains(image), "{loaded}");
    }
    kplay
        .run(["save", "localhost/none:1"])
        .fails(5, &["localhost/none:1"]);
}

#[test]
fn a_push_comes_back_as_the_same_image() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let registry = Registry::with_tls_and_password();
    let authorities = registry.authorities(kplay.dir());
    let to = format!("localhost:{}/pushed/busybox:1", registry.port);
    let push = |creds: Option<&str>, authority: bool, flags: &[&str], to: &str| {
        let mut args = vec!["push", BUSYBOX, to];
        args.extend(flags);
        if let Some(creds) = creds {
            args.extend(["--creds", creds]);
        }
        if authority {
            args.extend(["--cert-dir", text(&authorities)]);
        }
        kplay.run(args)
    };
    let good = Some("user:secret");
    push(good, false, &[], &to).fails(4, &["cannot push", "certs.d"]);
    push(None, true, &[], &to).fails(4, &["cannot push", "without credentials"]);
    push(Some("user:wrong"), true, &[], &to).fails(4, &["cannot push", "as `user`"]);
    let digest = push(good, true, &[], &to).succeeds();
    assert_eq!(
        push(good, true, &[], &to).succeeds(),
        digest,
        "the second says the same"
    );
    push(good, false, &["--tls-verify=false"], &to).succeeds();
    for (name, flags) in [
        ("oci", &["--format", "oci"][..]),
        ("zstd", &["--compression-format", "zstd"]),
        ("docker", &["--format", "v2s2"]),
    ] {
        let to = format!("localhost:{}/pushed/{name}:1", registry.port);
        let file = kplay.dir().join("digest");
        let mut flags = flags.to_vec();
        flags.extend(["--digestfile", text(&file)]);
        let digest = push(good, true, &flags, &to).succeeds();
        assert_eq!(
            std::fs::read_to_string(&file).expect("a file"),
            digest.trim()
        );
        let podman = Podman::new(&kplay, "vfs");
        let id = podman.run([
            "pull",
            "-q",
            "--creds",
            "user:secret",
            "--cert-dir",
            text(&authorities),
            &to,
        ]);
        let own = kplay.run(["images", "-q"]).succeeds();
        assert!(id.starts_with(own.trim()), "{id} {own}");
        let by_digest = format!(
            "docker://localhost:{}/pushed/{name}@{}",
            registry.port,
            digest.trim()
        );
        let found = Command::new("skopeo")
            .args([
                "inspect",
                "--creds",
                "user:secret",
                "--cert-dir",
                text(&authorities),
                &by_digest,
            ])
            .output()
            .expect("skopeo runs");
        assert!(found.status.success(), "{found:?}");
    }
    kplay
        .run(["push", BUSYBOX, "--offline"])
        .fails(4, &["--offline"]);
    let with_digest = format!("{to}@{}", digest.trim());
    push(good, true, &[], &with_digest).fails(2, &["digest"]);
}

#[test]
fn a_registry_is_shown_a_certificate_if_there_is_one() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let registry = Registry::with_client_certificates();
    let folder = registry.authorities(kplay.dir());
    let to = format!("localhost:{}/pushed/busybox:1", registry.port);
    let own = ["push", "--cert-dir", text(&folder), BUSYBOX, &to];
    let refused = "cannot make a secure connection";
    kplay.run(own).fails(4, &[&to, refused]);
    Registry::identify(&folder);
    let digest = kplay.run(own).succeeds();
    assert_eq!(kplay.run(own).succeeds(), digest);
    kplay
        .run(["pull", "--cert-dir", text(&folder), &to])
        .succeeds();
    let podman = Podman::new(&kplay, "vfs");
    let id = podman.run(["pull", "-q", "--cert-dir", text(&folder), &to]);
    let own = kplay.run(["images", "-q"]).succeeds();
    assert!(id.starts_with(own.trim()), "{id} {own}");
}

#[test]
fn names_come_and_go() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let id = kplay.run(["images", "-q"]).succeeds();
    kplay
        .run([
            "image",
            "tag",
            BUSYBOX,
            "example.test/a:1",
            "example.test/b",
        ])
        .succeeds();
    kplay
        .run(["image", "tag", id.trim(), "example.test/c:3"])
        .succeeds();
    let inspected = kplay.run(["image", "inspect", "example.test/b"]).succeeds();
    let json: Value = serde_json::from_str(&inspected).expect("JSON");
    let tags = json[0]["RepoTags"].as_array().expect("names");
    for name in [
        BUSYBOX,
        "example.test/a:1",
        "example.test/b:latest",
        "example.test/c:3",
    ] {
        assert!(tags.iter().any(|tag| tag == name), "{tags:?}");
    }
    for (key, expected) in [("Os", "linux"), ("Architecture", "amd64")] {
        assert_eq!(json[0][key], expected);
    }
    assert_eq!(json[0]["RootFS"]["Type"], "layers");
    kplay
        .run(["image", "untag", BUSYBOX, "example.test/a:1"])
        .succeeds();
    kplay
        .run(["image", "untag", BUSYBOX, "example.test/a:1"])
        .fails(5, &["example.test/a:1"]);
    kplay
        .run(["image", "inspect", "example.test/a:1"])
        .fails(5, &["example.test/a:1"]);
    kplay
        .run(["image", "tag", "example.test/none", "example.test/d"])
        .fails(5, &["none"]);
    kplay.run(["image", "untag", BUSYBOX]).succeeds();
    assert_eq!(
        kplay.run(["images", "-q"]).succeeds(),
        id,
        "it is there without a name"
    );
    kplay.run(["image", "inspect", id.trim()]).succeeds();
}

#[test]
fn a_prune_keeps_what_pods_use() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.load(fixture("hostile.tar"));
    kplay.load(fixture("settings.tar"));
    kplay
        .apply(&script_pod("user", "", "", "sleep 1000"))
        .succeeds();
    kplay.run(["image", "prune"]).fails(2, &["--force"]);
    // Nothing is without a name.
    assert_eq!(kplay.run(["image", "prune", "-f"]).succeeds(), "");
    kplay
        .run(["image", "untag", "localhost/hostile:1"])
        .succeeds();
    kplay.run(["image", "untag", BUSYBOX]).succeeds();
    let pruned = kplay.run(["image", "prune", "-f"]).succeeds();
    assert_eq!(pruned.matches("Deleted: ").count(), 1, "{pruned}");
    let pruned = kplay.run(["image", "prune", "-a", "-f"]).succeeds();
    assert!(
        pruned.contains("Untagged: localhost/settings:1"),
        "{pruned}"
    );
    assert_eq!(pruned.matches("Deleted: ").count(), 1, "{pruned}");
    assert_eq!(kplay.shell("user", "echo still here"), "still here\n");
    let usage = || -> Value {
        let text = kplay.run(["system", "df", "-o", "json"]).succeeds();
        serde_json::from_str(&text).expect("JSON")
    };
    let line = |usage: &Value, number: usize| {
        let line = &usage["summary"][number];
        ["total", "active", "reclaimable"].map(|key| line[key].as_u64().expect("a number"))
    };
    let before = usage();
    assert_eq!(line(&before, 0), [1, 1, 0], "{before}");
    assert_eq!(line(&before, 1), [1, 1, 0], "{before}");
    let details = kplay.run(["system", "df", "-v"]).succeeds();
    assert!(details.contains("default/user"), "{details}");
    kplay.run(["system", "prune"]).fails(2, &["--force"]);
    let pruned = kplay.run(["system", "prune", "-a", "-f"]).succeeds();
    assert_eq!(pruned, "");
    kplay
        .run(["delete", "pod", "user", "--grace-period", "0"])
        .succeeds();
    let after = usage();
    let [total, active, reclaimable] = line(&after, 0);
    assert!((total, active) == (1, 0) && reclaimable > 0, "{after}");
    let pruned = kplay.run(["system", "prune", "--volumes", "-f"]).succeeds();
    assert!(pruned.contains("Deleted: "), "{pruned}");
    assert_eq!(kplay.run(["images", "-q"]).succeeds(), "");
    let layers = kplay.root().join("images/layers");
    assert_eq!(std::fs::read_dir(layers).expect("a folder").count(), 0);
}

#[test]
fn parts_of_archives_by_name_and_number() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.load(fixture("hostile.tar"));
    let all = kplay.run(["images", "-q"]).succeeds();
    let archive = kplay.dir().join("two.tar");
    let hostile = "localhost/hostile:1";
    kplay
        .run(["save", "-o", text(&archive), BUSYBOX, hostile])
        .succeeds();
    let layout = kplay.dir().join("layout");
    kplay
        .run([
            "save",
            "--format",
            "oci-dir",
            "-o",
            text(&layout),
            BUSYBOX,
            hostile,
        ])
        .succeeds();
    let sources = [
        (
            format!("docker-archive:{}:{hostile}", archive.display()),
            hostile,
        ),
        (format!("docker-archive:{}:@0", archive.display()), BUSYBOX),
        (format!("oci:{}:{hostile}", layout.display()), hostile),
    ];
    for (source, name) in sources {
        // They need not be there.
        drop(kplay.run(["rmi", BUSYBOX, hostile]));
        let id = kplay.run(["pull", "--offline", &source]).succeeds();
        assert!(all.lines().any(|line| id.contains(line)), "{id} {all}");
        let listed = kplay.run(["images"]).succeeds();
        let wanted = |line: &&str| line.starts_with(name.trim_end_matches(":1"));
        let named = listed.lines().skip(1);
        assert!(
            named.clone().count() > 0 && named.clone().all(|line| wanted(&line)),
            "{source}: {listed}"
        );
        kplay.run(["image", "inspect", name]).succeeds();
    }
    let none = format!("docker-archive:{}:localhost/none:1", archive.display());
    kplay
        .run(["pull", &none])
        .fails(4, &["localhost/none:1", BUSYBOX, hostile]);
    let none = format!("docker-archive:{}:@2", archive.display());
    kplay.run(["pull", &none]).fails(4, &["@2"]);
    let other = format!("oci-archive:{}", archive.display());
    kplay.run(["pull", &other]).fails(4, &["no OCI layout"]);
    kplay.run(["pull", "dir:/tmp"]).fails(2, &["dir:"]);
}

/// Docker's interface, as podman has it too.
struct Service {
    process: Child,
}

impl Service {
    fn start(podman: &Podman<'_>, socket: &Path) -> Self {
        let address = format!("unix://{}", socket.display());
        let process = podman
            .command(["system", "service", "--time=0", &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("podman runs");
        let service = Self { process };
        wait::holds_within(wait::PATIENCE, || {
            std::os::unix::net::UnixStream::connect(socket).is_ok()
        });
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn docker_gives_its_images_through_its_socket() {
    let Some(kplay) = Kplay::new() else { return };
    let podman = Podman::new(&kplay, "vfs");
    podman.run([
        "load",
        "-q",
        "-i",
        text(&fixture("podman-docker-archive.tar")),
    ]);
    let socket = kplay.dir().join("docker.sock");
    let host = format!("unix://{}", socket.display());
    let pull = |image: &str, host: &str| {
        let source = format!("docker-daemon:{image}");
        kplay
            .command(["pull", "--offline", &source])
            .env("DOCKER_HOST", host)
            .run()
    };
    pull(BUSYBOX, &host).fails(4, &["cannot ask Docker", "docker.sock"]);
    pull(BUSYBOX, "tcp://127.0.0.1:1").fails(4, &["DOCKER_HOST", "tcp://127.0.0.1:1"]);
    let _service = Service::start(&podman, &socket);
    let id = pull(BUSYBOX, &host).succeeds();
    assert_eq!(id.trim(), podman.id(BUSYBOX));
    kplay.run(["image", "inspect", BUSYBOX]).succeeds();
    pull("localhost/none:1", &host).fails(4, &["Docker does not have", "localhost/none:1"]);
    let tmp = kplay.root().join("images/tmp");
    assert_eq!(std::fs::read_dir(tmp).expect("a folder").count(), 0);
}
