//! kplay within a container of podman's, as CI jobs run it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::{Kplay, fixtures};

/// podman with state of its own, which goes with this.
struct Podman {
    state: PathBuf,
}

/// What is run in the containers: kplay on a volume, because the container's own root may be an overlay.
const SCRIPT: &str = "
kplay system doctor
echo doctor $?
kplay apply -q /pod.yaml
echo apply $?
kplay exec nested -- /toolbox print inside
kplay delete pod nested
echo delete $?
ls /sys/fs/cgroup/kplay /sys/fs/cgroup/*/kplay 2>/dev/null
ps -o pid,args | grep -v -e PID -e ' ps ' -e grep -e 'sh -c'
";

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: { name: nested }
spec:
  containers:
    - name: main
      image: kplay.local/toolbox
      args: [sleep, '1000']
";

impl Podman {
    fn new(kplay: &Kplay) -> Self {
        // Not in the test's folder: podman refuses a long path.
        let podman = Self {
            state: kplay.dir().with_extension("p"),
        };
        fs::create_dir_all(&podman.state).expect("a folder");
        let archive = fixtures::busybox_archive();
        let loaded = podman.command().arg("load").arg("-i").arg(archive).output();
        let loaded = loaded.unwrap_or_else(|e| panic!("cannot run podman: {e}; run .ci/deps"));
        assert!(loaded.status.success(), "{loaded:?}");
        kplay.file("pod.yaml", POD);
        podman
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.state.join("root"))
            .arg("--runroot")
            .arg(self.state.join("run"))
            .args(["--storage-driver", "vfs"])
            .env("CONTAINERS_CONF", fixtures::testdata("containers.conf"));
        command
    }

    /// What the script says in a container with these flags.
    fn run(&self, kplay: &Kplay, flags: &[&str]) -> String {
        let volume = kplay.dir().join("volume");
        fs::create_dir_all(&volume).expect("a folder");
        let mount = |from: &std::path::Path, to: &str| format!("--volume={}:{to}", from.display());
        let output = self
            .command()
            // One that hangs fails.
            .args(["run", "--rm", "--network=none", "--timeout=50"])
            .arg(mount(&volume, "/var/lib/kplay"))
            .arg(mount(&kplay.dir().join("pod.yaml"), "/pod.yaml:ro"))
            .arg(mount(env!("CARGO_BIN_EXE_kplay").as_ref(), "/bin/kplay:ro"))
            .args(flags)
            .args(["localhost/busybox:1", "sh", "-c", SCRIPT])
            .output()
            .expect("podman runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains("apply "), "{text}");
        text
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // The image's layers, which nothing is mounted on.
        if let Err(e) = fs::remove_dir_all(&self.state) {
            eprintln!("cannot remove {:?}: {e}", self.state);
        }
    }
}

#[track_caller]
fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|one| one.trim() == *line),
            "no `{line}` in:\n{text}"
        );
    }
}

#[test]
fn in_a_privileged_container_pods_run_as_on_the_machine() {
    let Some(kplay) = Kplay::new() else { return };
    let podman = Podman::new(&kplay);
    let text = podman.run(&kplay, &["--privileged"]);
    assert_has(&text, &["doctor 0", "apply 0", "inside", "delete 0"]);
    // Nothing is said after the last command.
    assert!(
        text.contains("delete 0\n") && !text.contains("kplay-executor"),
        "{text}"
    );
}

/// It may make namespaces and mounts, and its cgroups are read only.
#[test]
fn in_a_container_with_some_rights_it_is_said_what_is_missing() {
    let Some(kplay) = Kplay::new() else { return };
    let podman = Podman::new(&kplay);
    let text = podman.run(&kplay, &["--cap-add=SYS_ADMIN,NET_ADMIN"]);
    assert_has(
        &text,
        &["doctor 4", "apply 4", "mend: podman run --privileged …"],
    );
    assert!(text.contains("error: cgroups: version "), "{text}");
    assert!(text.contains("Read-only file system"), "{text}");
}

#[test]
fn in_a_container_without_rights_it_is_said_what_is_missing() {
    let Some(kplay) = Kplay::new() else { return };
    let podman = Podman::new(&kplay);
    let text = podman.run(&kplay, &[]);
    assert_has(
        &text,
        &["doctor 4", "apply 4", "mend: podman run --privileged …"],
    );
}
