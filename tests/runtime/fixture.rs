//! A pod without Kubernetes: folders on a tmpfs, an image of busybox, a cgroup, the runtime.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

pub(crate) use kplay::model::cause::chain;
use kplay::runtime::{
    Error, ExecRequest, Libcontainer, Program, Runtime, SeccompProfile, StartRequest, Started,
    Stdio, enter_private_mounts, rootfs,
};
use kplay::sys::cgroup::{Cgroup, Hierarchies, Limits};
use kplay::sys::pidfd::{Exit, PidFd};
use kplay::sys::process::{Reaper, become_subreaper};
use kplay::sys::{fd, fs as sys_fs, mount};
use oci_spec::runtime::{Process, Spec};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// Set in the process that runs the body of a test.
pub(crate) const INSIDE: &str = "KPLAY_RUNTIME_TEST";
/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);

/// containerd's default capabilities.
pub(crate) const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Runs a test's body in a process of its own.
pub(crate) fn isolated(name: &str, body: impl AsyncFnOnce(&Pod)) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let pod = Pod::new();
        runtime.block_on(body(&pod));
        return;
    }
    if fs::read_to_string("/proc/self/uid_map").is_err() || !is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            name,
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name}");
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

pub(crate) struct Pod {
    pub(crate) dir: PathBuf,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) reaper: Rc<Reaper>,
    pub(crate) runtime: Libcontainer,
    pub(crate) cgroup: String,
}

impl Pod {
    fn new() -> Self {
        become_subreaper().unwrap();
        let hierarchies = enter_private_mounts().unwrap();
        // Long, so that no path fits into a socket's address.
        let dir = std::env::temp_dir().join(format!(
            "kplay-runtime-{}-{}",
            std::process::id(),
            "x".repeat(80)
        ));
        fs::create_dir(&dir).unwrap();
        mount::tmpfs(&dir, "mode=700").unwrap();
        let layer = dir.join("layer");
        make_image(&layer);
        let reaper = Reaper::new();
        let program = Program::at(env!("CARGO_BIN_EXE_kplay"))
            .mounted_read_only(&dir.join("kplay"))
            .unwrap();
        Self {
            hierarchies,
            runtime: Libcontainer::new(program, Rc::clone(&reaper)),
            reaper,
            cgroup: format!("kplay-test-{}", std::process::id()),
            dir,
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Makes a container's bundle, with its root file system mounted.
    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        let bundle = self.dir.join("bundles").join(id);
        for name in ["upper", "work", "rootfs"] {
            fs::create_dir_all(bundle.join(name)).unwrap();
        }
        let layers = [self.dir.join("layer")];
        rootfs::mount(
            &layers,
            &bundle.join("upper"),
            &bundle.join("work"),
            &bundle.join("rootfs"),
            None,
        )
        .unwrap();
        bundle
    }

    pub(crate) fn container_cgroup(&self, id: &str, limits: &Limits) -> Cgroup {
        self.hierarchies
            .create(&format!("{}/{id}", self.cgroup), limits)
            .unwrap()
    }

    /// Starts a container of this specification.
    pub(crate) async fn start(
        &self,
        id: &str,
        spec: Value,
        stdio: Stdio,
    ) -> Result<Started, Error> {
        let cgroup = self.container_cgroup(id, &Limits::default());
        self.start_in(id, spec, stdio, SeccompProfile::RuntimeDefault, &cgroup)
            .await
    }

    pub(crate) async fn start_in(
        &self,
        id: &str,
        spec: Value,
        stdio: Stdio,
        seccomp: SeccompProfile,
        cgroup: &Cgroup,
    ) -> Result<Started, Error> {
        let request = StartRequest {
            late_mounts: Vec::new(),
            host_mounts: None,
            ids: None,
            id: id.to_owned(),
            bundle: self.bundle(id),
            state: self.state(),
            spec: serde_json::from_value::<Spec>(spec).unwrap(),
            seccomp,
            prepared: self.runtime.prepare(&cgroup.entry().unwrap()).unwrap(),
            stdio,
        };
        self.runtime.start(request).await
    }

    /// Runs a command in a container.
    pub(crate) async fn exec(
        &self,
        id: &str,
        process: Value,
        stdio: Stdio,
    ) -> Result<Started, Error> {
        let cgroup = self
            .hierarchies
            .find(&format!("{}/{id}", self.cgroup))
            .unwrap();
        let request = ExecRequest {
            id: id.to_owned(),
            state: self.state(),
            process: serde_json::from_value::<Process>(process).unwrap(),
            seccomp: SeccompProfile::RuntimeDefault,
            cgroup: cgroup.entry().unwrap(),
            stdio,
            tenancy: None,
        };
        self.runtime.exec(request).await
    }

    /// Runs a container to its end: its output, its errors, and how it ended.
    pub(crate) async fn run(&self, id: &str, spec: Value) -> (String, String, Exit) {
        let (stdio, streams) = pipes();
        let started = self
            .start(id, spec, stdio)
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        let exit = wait(&started.process);
        let (out, err) = streams.read();
        self.end(id);
        (out, err, exit)
    }

    /// Runs a command in a container to its end.
    pub(crate) async fn run_exec(&self, id: &str, process: Value) -> (String, String, Exit) {
        let (stdio, streams) = pipes();
        let started = self
            .exec(id, process, stdio)
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        let exit = wait(&started.process);
        let (out, err) = streams.read();
        (out, err, exit)
    }

    /// Kills and forgets a container.
    pub(crate) fn end(&self, id: &str) {
        if let Some(cgroup) = self.hierarchies.find(&format!("{}/{id}", self.cgroup)) {
            cgroup.kill().unwrap();
            assert!(cgroup.wait_empty(PATIENCE).unwrap());
            cgroup.remove().unwrap();
        }
        self.runtime.forget(&self.state(), id).unwrap();
        rootfs::unmount(&self.dir.join("bundles").join(id).join("rootfs")).unwrap();
        fs::remove_dir_all(self.dir.join("bundles").join(id)).unwrap();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(cgroup) = self.hierarchies.find(&self.cgroup) {
            cgroup.kill().unwrap();
            cgroup.remove().unwrap();
        }
        mount::detach(&self.dir).unwrap();
        fs::remove_dir(&self.dir).unwrap();
    }
}

/// The one layer of the image: busybox, and the files that name its users.
fn make_image(layer: &Path) {
    for folder in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "srv/app"] {
        sys_fs::create_dir_all(&layer.join(folder), 0o755).unwrap();
    }
    fs::copy("/usr/bin/busybox", layer.join("bin/busybox")).unwrap();
    let list = Command::new("/usr/bin/busybox")
        .arg("--list")
        .output()
        .unwrap();
    for applet in String::from_utf8(list.stdout)
        .unwrap()
        .lines()
        .filter(|name| *name != "busybox")
    {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/srv/app:/bin/sh\n";
    fs::write(layer.join("etc/passwd"), passwd).unwrap();
    fs::write(layer.join("etc/group"), "root:x:0:\napp:x:1000:\n").unwrap();
    fs::write(layer.join("etc/readme"), "text\n").unwrap();
}

/// A process that runs `script` in a shell, as user 0.
pub(crate) fn shell(script: &str) -> Value {
    process(&["/bin/sh", "-c", script])
}

pub(crate) fn process(args: &[&str]) -> Value {
    json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/usr/bin:/bin", "LAST=1"],
        "cwd": "/",
        "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
    })
}

/// The specification of a container with all namespaces of its own.
pub(crate) fn spec(process: Value) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs"},
        "hostname": "test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"},
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// Our ends of a process's streams.
pub(crate) struct Streams {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

pub(crate) fn pipes() -> (Stdio, Streams) {
    let (stdin, in_write) = fd::pipe().unwrap();
    let (out_read, stdout) = fd::pipe().unwrap();
    let (err_read, stderr) = fd::pipe().unwrap();
    let streams = Streams {
        stdin: in_write,
        stdout: out_read,
        stderr: err_read,
    };
    (
        Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        },
        streams,
    )
}

impl Streams {
    /// The first line of its output.
    pub(crate) fn line(&self) -> String {
        let mut line = String::new();
        let output = File::from(self.stdout.try_clone().unwrap());
        BufReader::new(output).read_line(&mut line).unwrap();
        line
    }

    /// Everything that was written, once nobody can write any more.
    pub(crate) fn read(self) -> (String, String) {
        drop(self.stdin);
        let text = |fd: OwnedFd| {
            let mut text = String::new();
            File::from(fd).read_to_string(&mut text).unwrap();
            text
        };
        (text(self.stdout), text(self.stderr))
    }
}

/// Waits for a process, but not for ever.
pub(crate) fn wait(process: &PidFd) -> Exit {
    assert!(has_ended(process), "the process does not end");
    process.wait().unwrap()
}

/// Whether a process ends in time.
pub(crate) fn has_ended(process: &PidFd) -> bool {
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: i64::try_from(PATIENCE.as_secs()).unwrap(),
        tv_nsec: 0,
    };
    rustix::event::poll(&mut polled, Some(&timeout)) == Ok(1)
}

/// Waits until so many children are left, but not for ever: each that ends is a signal.
pub(crate) async fn wait_for_children(pod: &Pod, count: usize) {
    // From here on none is missed.
    let mut ended = signal(SignalKind::child()).unwrap();
    let all = async {
        while children(pod) != count {
            ended.recv().await.unwrap();
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, all).await;
    in_time.unwrap_or_else(|_| panic!("{} children, not {count}", children(pod)));
}

/// How many children are left when those that have ended and that nobody waits for are gone.
pub(crate) fn children(pod: &Pod) -> usize {
    pod.reaper.reap().unwrap();
    let children = fs::read_to_string("/proc/thread-self/children").unwrap();
    children.split_ascii_whitespace().count()
}
