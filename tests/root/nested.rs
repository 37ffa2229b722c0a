//! kplay within a container of podman's, as CI jobs run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Kplay, fixtures, wait};

/// podman with state of its own, which goes with this.
struct Podman {
    state: PathBuf,
    /// What containers' roots are made with.
    driver: &'static str,
}

/// Containers' roots are overlays, as they mostly are.
const OVERLAY: &str = "overlay";

/// What is run in the containers.
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

/// What Docker's own filter refuses to whom it gives no `CAP_SYS_ADMIN`, which is everybody; beside `clone` with any of the flags
/// that make a namespace.
const REFUSED_BY_DOCKER: &str = r#""unshare", "setns", "mount", "umount", "umount2", "pivot_root", "fsopen", "fsconfig",
  "fsmount", "fspick", "move_mount", "open_tree", "mount_setattr", "sethostname", "setdomainname", "bpf", "perf_event_open",
  "syslog", "quotactl", "fanotify_init", "add_key", "request_key", "keyctl""#;

/// The capabilities that Docker gives to a container.
const CAPABILITIES_OF_DOCKER: &str = "--cap-add=CHOWN,DAC_OVERRIDE,FSETID,FOWNER,MKNOD,NET_RAW,SETGID,SETUID,SETFCAP,SETPCAP,\
                                      NET_BIND_SERVICE,SYS_CHROOT,KILL,AUDIT_WRITE";

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

/// That filter.
fn filter_of_docker() -> String {
    // CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, …
    let flags = [17, 25, 26, 27, 28, 29, 30].map(|bit| 1_u64 << bit);
    let clones = flags.map(|flag| {
        format!(
            r#"{{"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "args": [{{"index": 0, "value": {flag}, "valueTwo": {flag}, "op": "SCMP_CMP_MASKED_EQ"}}]}}"#
        )
    });
    format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {{"names": [{REFUSED_BY_DOCKER}], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}},
        {{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}}, {}]}}"#,
        clones.join(", ")
    )
}

impl Podman {
    fn new(kplay: &Kplay) -> Self {
        Self::with(kplay, "vfs")
    }

    fn with(kplay: &Kplay, driver: &'static str) -> Self {
        // Not in the test's folder: podman refuses a long path.
        let podman = Self {
            state: kplay.dir().with_extension("p"),
            driver,
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
            .args(["--storage-driver", self.driver])
            .env("CONTAINERS_CONF", fixtures::testdata("containers.conf"));
        command
    }

    /// What the script says in a container with these flags, where kplay has a volume.
    fn run(&self, kplay: &Kplay, flags: &[&str]) -> String {
        let volume = kplay.dir().join("volume");
        fs::create_dir_all(&volume).expect("a folder");
        let volume = mount(&volume, "/var/lib/kplay");
        self.script(kplay, &[flags, &[&volume]].concat())
    }

    /// What it says in a container of a job of GitLab's, as its runner has Docker make it: the root is an overlay, what is built is on a
    /// volume, nobody is at a terminal.
    fn run_job(&self, kplay: &Kplay, flags: &[&str]) -> String {
        let builds = kplay.dir().join("builds");
        fs::create_dir_all(builds.join("group/project")).expect("a folder");
        let builds = mount(&builds, "/builds");
        let job = [
            builds.as_str(),
            "--workdir=/builds/group/project",
            "--env=CI=true",
            "--env=GITLAB_CI=true",
            "--env=CI_BUILDS_DIR=/builds",
        ];
        self.script(kplay, &[job.as_slice(), flags].concat())
    }

    fn script(&self, kplay: &Kplay, flags: &[&str]) -> String {
        let output = self
            .command()
            // One that hangs fails.
            .args(["run", "--rm", "--network=none", "--timeout=50"])
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

fn mount(from: &Path, to: &str) -> String {
    format!("--volume={}:{to}", from.display())
}

impl Drop for Podman {
    fn drop(&mut self) {
        let mut removed = Ok(());
        // podman's own clean-up may be under way, and with this driver it keeps the folder mounted on itself.
        wait::holds_within(wait::PATIENCE, || {
            if self.driver == OVERLAY {
                let mut umount = Command::new("umount");
                umount.arg("--quiet").arg(self.state.join("root/overlay"));
                umount.status().expect("umount is there");
            }
            removed = fs::remove_dir_all(&self.state);
            removed.is_ok()
        });
        if let Err(e) = removed {
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

/// Its own root is an overlay, where no other one can be: what is built is on something better.
#[test]
fn in_a_job_of_a_privileged_runner_pods_run_beside_what_is_built() {
    let Some(kplay) = Kplay::new() else { return };
    let podman = Podman::with(&kplay, OVERLAY);
    let text = podman.run_job(&kplay, &["--privileged"]);
    assert_has(
        &text,
        &[
            "doctor 4",
            "apply 4",
            "mend: kplay --root $CI_BUILDS_DIR/kplay …",
            "hint: kplay --root $CI_BUILDS_DIR/kplay …",
        ],
    );
    assert!(text.contains("fails     overlay"), "{text}");
    let text = podman.run_job(&kplay, &["--privileged", "--env=KPLAY_ROOT=/builds/kplay"]);
    assert_has(&text, &["doctor 0", "apply 0", "inside", "delete 0"]);
    assert!(
        text.contains("delete 0\n") && !text.contains("kplay-executor"),
        "{text}"
    );
}

/// As GitLab's own runners and most others are not privileged.
#[test]
fn in_a_job_of_another_runner_it_is_said_what_is_missing() {
    let Some(kplay) = Kplay::new() else { return };
    let podman = Podman::with(&kplay, OVERLAY);
    let filter = kplay.file("seccomp.json", filter_of_docker());
    let filter = format!("--security-opt=seccomp={}", filter.display());
    let flags = ["--cap-drop=all", CAPABILITIES_OF_DOCKER, &filter];
    let text = podman.run_job(&kplay, &flags);
    let remedy = "privileged = true in [runners.docker] of the runner's config.toml";
    assert_has(
        &text,
        &[
            "doctor 4",
            "apply 4",
            &format!("mend: {remedy}"),
            &format!("hint: {remedy}"),
        ],
    );
    assert!(text.contains("fails     user namespaces"), "{text}");
    let error = "error: cannot make a user namespace for your pods: the kernel refuses a user namespace: a filter of system calls";
    assert!(text.contains(error), "{text}");
    // What would help on a machine without such a filter.
    assert!(!text.contains("unprivileged_userns_clone"), "{text}");
}
