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
kplay events
kplay delete pod nested
echo delete $?
ls /sys/fs/cgroup/kplay /sys/fs/cgroup/*/kplay 2>/dev/null
ps -o pid,args | grep -v -e PID -e ' ps ' -e grep -e 'sh -c'
";

/// Allows all but making user namespaces, which a flag of these asks for; of `clone3` a filter cannot see it.
const WITHOUT_USERS: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
  {"names": ["unshare", "clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
   "args": [{"index": 0, "value": 268435456, "valueTwo": 268435456, "op": "SCMP_CMP_MASKED_EQ"}]},
  {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#;

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: { name: nested }
spec:
  containers:
    - name: main
      image: kplay.local/toolbox
      args: [sleep, '1000']
      resources: { limits: { memory: 64Mi } }
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

/// It may make namespaces and mounts, and its cgroups and settings are read only.
#[test]
fn in_a_container_with_some_rights_pods_have_no_limits() {
    let Some(kplay) = Kplay::new() else { return };
    let podman = Podman::new(&kplay);
    let text = podman.run(&kplay, &["--cap-add=SYS_ADMIN,NET_ADMIN"]);
    assert_has(&text, &["doctor 0", "apply 0", "inside", "delete 0"]);
    assert!(text.contains("read-only: limits of pods are not enforced"));
    let event = "LimitsNotEnforced   Pod/nested   limits of memory are not enforced: the cgroups are read-only here";
    assert!(text.contains(event), "{text}");
    assert!(!text.contains("kplay-executor"), "{text}");
}

/// As jobs of a cluster have it that hides nothing of `/proc`: its root makes a user namespace.
#[test]
fn in_a_container_without_rights_pods_run_as_without_root() {
    let Some(kplay) = Kplay::new() else { return };
    let podman = Podman::new(&kplay);
    let text = podman.run(&kplay, &["--security-opt=unmask=ALL"]);
    assert_has(&text, &["doctor 0", "apply 0", "inside", "delete 0"]);
    assert!(text.contains("without CAP_SYS_ADMIN, so in a user namespace"));
    assert!(
        text.contains("root gives those that it has"),
        "all users of the container: {text}"
    );
    let event = "limits of memory are not enforced: no cgroup with them has been given to you";
    assert!(text.contains(event), "{text}");
    assert!(!text.contains("kplay-executor"), "{text}");
}

/// As jobs have it by default: what is hidden of `/proc`, nobody may uncover.
#[test]
fn in_a_container_that_hides_parts_of_proc_it_is_said_what_is_missing() {
    let Some(kplay) = Kplay::new() else { return };
    let podman = Podman::new(&kplay);
    let text = podman.run(&kplay, &[]);
    assert_has(
        &text,
        &[
            "doctor 4",
            "apply 4",
            "mend: podman run --security-opt unmask=ALL …",
            "hint: podman run --security-opt unmask=ALL …",
        ],
    );
    assert!(text.contains("error: proc: pods can have no /proc or /sys: "));
    assert!(!text.contains("kplay-executor"), "{text}");
}

/// As jobs have it whose engine's filter of system calls lets nobody make user namespaces, as Docker's and containerd's do.
#[test]
fn in_a_container_without_user_namespaces_it_is_said_what_is_missing() {
    let Some(kplay) = Kplay::new() else { return };
    let podman = Podman::new(&kplay);
    let profile = kplay.file("seccomp.json", WITHOUT_USERS);
    let profile = format!("--security-opt=seccomp={}", profile.display());
    let text = podman.run(
        &kplay,
        &[&profile, "--env=KUBERNETES_SERVICE_HOST=10.0.0.1"],
    );
    assert_has(
        &text,
        &[
            "doctor 4",
            "apply 4",
            "mend: securityContext: {seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}",
        ],
    );
    assert!(text.contains("fails     user namespaces"), "{text}");
    assert!(
        text.contains("error: cannot make a user namespace"),
        "{text}"
    );
}
