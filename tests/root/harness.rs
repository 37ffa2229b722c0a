//! `Kplay`: the built binary on state folders of its own, and what it says.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::leftovers;
use crate::user::{self, User};
use crate::wait::{self, PATIENCE};

/// Longest that one command may take: a command that hangs is a failure, not a stuck suite.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long the kernel may take to forget what was killed, and other tests' pods to end: where the machine's mounts are
/// private, one that was there when they started stays in their namespaces.
const SETTLE: Duration = Duration::from_secs(30);

/// Whether this machine must be able to run every test.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

/// kplay with its own `--root` and `--runroot`.
#[derive(Debug)]
pub(crate) struct Kplay {
    dir: PathBuf,
    /// The `metadata.uid` of every pod seen: their cgroups are named so.
    uids: RefCell<BTreeSet<String>>,
    /// Who runs it, if not root.
    user: Option<User>,
}

impl Kplay {
    /// New, empty state folders. `None` (the test is skipped) without root.
    ///
    /// # Panics
    /// Without root in CI.
    pub(crate) fn new() -> Option<Self> {
        Self::beneath(&std::env::temp_dir())
    }

    /// As [`Kplay::new`], with `localhost/busybox:1` loaded.
    pub(crate) fn with_busybox() -> Option<Self> {
        let kplay = Self::new()?;
        kplay.load(crate::fixtures::busybox_archive());
        Some(kplay)
    }

    /// As [`Kplay::new`], run by this user, who is not root. `None` also if there is no such user.
    ///
    /// # Panics
    /// Without the user in CI.
    pub(crate) fn of(user: &str) -> Option<Self> {
        let Some(user) = User::named(user) else {
            assert!(!in_ci(), "`.ci/deps` makes the user {user}");
            eprintln!("skipped: there is no user {user}, whom `.ci/deps` makes");
            return None;
        };
        Self::made(&std::env::temp_dir(), Some(user))
    }

    /// As [`Kplay::new`], with the state folders in `parent`.
    pub(crate) fn beneath(parent: &Path) -> Option<Self> {
        Self::made(parent, user::chosen())
    }

    fn made(parent: &Path, user: Option<User>) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if let Some(why) = user::why_skipped() {
            eprintln!("skipped: {why}");
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            assert!(!in_ci(), "this test needs root, and CI has it");
            eprintln!("skipped: needs root");
            return None;
        }
        let dir = parent.join(format!(
            "{}{}-{:03}",
            leftovers::prefix(),
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&dir).expect("a folder for the test");
        if let Some(user) = &user {
            user.give(&dir);
        }
        Some(Self {
            dir,
            uids: RefCell::default(),
            user,
        })
    }

    /// The test's own folder; `root` and `run` in it are kplay's.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    pub(crate) fn runroot(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// A pod's folder under RUNROOT.
    pub(crate) fn run_dir(&self, pod: &str) -> PathBuf {
        self.runroot().join("pods").join(format!("default_{pod}"))
    }

    /// A `storage.conf` of a machine on which no other engine has images.
    fn no_other_images(&self) -> PathBuf {
        let path = self.dir.join("no-storage.conf");
        if !path.exists() {
            let text = format!("[storage]\ngraphroot = {:?}\n", self.dir.join("none"));
            fs::write(&path, text).expect("a file");
        }
        path
    }

    /// A path in the test's folder, made with this content.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().expect("in the test's folder")).expect("a folder");
        fs::write(&path, content).expect("a file");
        path
    }

    /// A command line, not yet run.
    pub(crate) fn command<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Call<'_> {
        Call {
            kplay: self,
            program: user::program(self.user.as_ref()),
            args: args.into_iter().map(Into::into).collect(),
            stdin: Vec::new(),
            env: Vec::new(),
        }
    }

    /// Runs a command line to its end.
    pub(crate) fn run<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        self.command(args).run()
    }

    /// `kplay load -i ARCHIVE`.
    pub(crate) fn load(&self, archive: impl AsRef<Path>) -> String {
        self.run([
            OsString::from("load"),
            "-i".into(),
            archive.as_ref().as_os_str().to_owned(),
        ])
        .succeeds()
    }

    /// `kplay apply` of this text.
    pub(crate) fn apply(&self, manifest: &str) -> Run {
        self.apply_with(manifest, [])
    }

    /// `kplay apply FLAGS` of this text.
    pub(crate) fn apply_with<const N: usize>(&self, manifest: &str, flags: [&str; N]) -> Run {
        let file = self.file("manifest.yaml", manifest);
        let mut args = vec![OsString::from("apply")];
        args.extend(flags.map(OsString::from));
        args.push(file.into());
        let run = self.run(args);
        self.note_pods();
        run
    }

    /// The pod as `get -o json` prints it.
    pub(crate) fn pod(&self, name: &str) -> Value {
        let text = self.run(["get", "pod", name, "-o", "json"]).succeeds();
        serde_json::from_str(&text).expect("`get -o json` prints JSON")
    }

    /// The pod's `status.phase`.
    pub(crate) fn phase(&self, name: &str) -> String {
        text(&self.pod(name)["status"]["phase"])
    }

    /// Waits until the pod's status satisfies `condition`, looking at each new `status.json`.
    #[track_caller]
    pub(crate) fn until(&self, pod: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait::until_in(&self.run_dir(pod), &format!("pod {pod}: {what}"), || {
            last = self.pod(pod);
            condition(&last["status"])
        });
        last
    }

    /// Waits for the end of a pod that ends, then returns it.
    #[track_caller]
    pub(crate) fn until_ended(&self, pod: &str) -> Value {
        self.until(pod, "has ended", |status| {
            status["phase"] == "Succeeded" || status["phase"] == "Failed"
        })
    }

    /// Applies a pod that runs one shell script in busybox to its end, and returns its log.
    #[track_caller]
    pub(crate) fn script(&self, script: &str) -> String {
        self.script_in("", "", script)
    }

    /// As [`Kplay::script`], with more fields of the pod and of the container (YAML flow style: `name: value, `).
    #[track_caller]
    pub(crate) fn script_in(&self, pod: &str, container: &str, script: &str) -> String {
        let manifest = script_pod("script", pod, container, script);
        self.apply_with(&manifest, ["--wait=complete"]).succeeds();
        let log = self.run(["logs", "script"]).succeeds();
        self.run(["delete", "pod", "script"]).succeeds();
        log
    }

    /// `kplay exec POD -- sh -c SCRIPT`, which must succeed.
    #[track_caller]
    pub(crate) fn shell(&self, pod: &str, script: &str) -> String {
        self.run(["exec", pod, "--", "sh", "-c", script]).succeeds()
    }

    /// The cgroup of a running container: the one beneath its pod's that is named after it and has processes.
    pub(crate) fn cgroup(&self, controller: &str, pod: &str, container: &str) -> PathBuf {
        let uid = text(&self.pod(pod)["metadata"]["uid"]);
        let parent = leftovers::cgroup_of(controller, &uid);
        let entries = fs::read_dir(&parent).unwrap_or_else(|e| panic!("no {parent:?}: {e}"));
        let names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let occupied = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let of_container = name == container || name.starts_with(&format!("{container}-"));
            let procs = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            of_container && !procs.is_empty()
        };
        names
            .iter()
            .find(|path| occupied(path))
            .unwrap_or_else(|| panic!("no running {container} among {names:?}"))
            .clone()
    }

    /// The processes of a container, first its init.
    pub(crate) fn pids(&self, pod: &str, container: &str) -> Vec<u32> {
        let procs = self.cgroup("pids", pod, container).join("cgroup.procs");
        let mut pids: Vec<u32> = fs::read_to_string(&procs)
            .unwrap_or_else(|e| panic!("cannot read {procs:?}: {e}"))
            .lines()
            .map(|pid| pid.parse().expect("a pid"))
            .collect();
        pids.sort_unstable();
        pids
    }

    /// The executor of a pod.
    pub(crate) fn executor(&self, pod: &str) -> u32 {
        let executors = leftovers::executors_of(&self.run_dir(pod));
        let executor = executors.first().copied();
        executor.unwrap_or_else(|| panic!("no executor of {pod}: {:#?}", leftovers::processes()))
    }

    /// Remembers the uids of the pods that are there now.
    pub(crate) fn note_pods(&self) {
        let Ok(pods) = fs::read_dir(self.runroot().join("pods")) else {
            return;
        };
        for pod in pods.flatten() {
            let launch = fs::read(pod.path().join("launch.json")).unwrap_or_default();
            let launch: Value = serde_json::from_slice(&launch).unwrap_or_default();
            if let Some(uid) = launch["uid"].as_str() {
                self.uids.borrow_mut().insert(uid.to_owned());
            }
        }
    }

    /// What this test's pods have left on the machine.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        self.note_pods();
        let mut left = leftovers::of_dir(&self.dir);
        left.extend(leftovers::of_network(&self.runroot()));
        for uid in self.uids.borrow().iter() {
            left.extend(leftovers::of_uid(uid));
        }
        left.sort();
        left.dedup();
        left
    }

    /// Asserts that nothing of any pod is there, and no record of one either.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let mut left = Vec::new();
        wait::holds_within(SETTLE, || {
            left = self.leftovers();
            left.is_empty()
        });
        assert!(left.is_empty(), "left behind: {left:#?}");
        let files = self.files();
        assert!(files.is_empty(), "files left behind: {files:#?}");
    }

    /// The files that belong to pods; images, and locks that nobody holds, are not among them.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for folder in [
            "root/pods",
            "root/logs",
            "root/container-logs",
            "root/objects",
            "run/pods",
            "run/objects",
            "run/network/leases",
            "run/endpoints",
        ] {
            walk(&self.dir.join(folder), &mut files);
        }
        // It has nothing but a number that changes with the Services.
        files.retain(|file| !file.ends_with("run/endpoints/services"));
        files
    }

    fn clean(&self) -> Vec<String> {
        self.note_pods();
        let mut faults = Vec::new();
        if self.runroot().exists() || self.root().exists() {
            let run = self.run(["delete", "--all", "--all-namespaces", "--force"]);
            if run.code != Some(0) {
                faults.push(format!("delete --all failed: {run}"));
            }
        }
        let mut left = Vec::new();
        wait::holds_within(SETTLE, || {
            left = self.leftovers();
            left.is_empty()
        });
        faults.extend(left);
        faults.extend(self.files().iter().map(|path| format!("file {path:?}")));
        faults
    }
}

impl Drop for Kplay {
    fn drop(&mut self) {
        let faults = self.clean();
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {:?}: {e}", self.dir);
        }
        if std::thread::panicking() {
            // The test has failed already; a second panic would hide why.
            if !faults.is_empty() {
                eprintln!("left behind as well: {faults:#?}");
            }
            return;
        }
        assert!(faults.is_empty(), "left behind: {faults:#?}");
    }
}

/// A pod that never restarts and runs `script` in busybox as container `main`.
pub(crate) fn script_pod(name: &str, pod: &str, container: &str, script: &str) -> String {
    let script = serde_json::to_string(script).expect("a string");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{restartPolicy: Never, \
         {pod} containers: [{{name: main, image: \"localhost/busybox:1\", {container} \
         command: [sh, -c, {script}]}}]}}\n"
    )
}

/// A container's status, of a pod's.
#[track_caller]
pub(crate) fn container<'a>(status: &'a Value, name: &str) -> &'a Value {
    ["containerStatuses", "initContainerStatuses"]
        .into_iter()
        .filter_map(|list| status[list].as_array())
        .flatten()
        .find(|container| container["name"] == name)
        .unwrap_or_else(|| panic!("no `{name}` in {status}"))
}

/// A JSON string's text.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a string: {value}"))
        .to_owned()
}

/// A host port that nobody listens on at this moment.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), files);
        } else {
            files.push(entry.path());
        }
    }
}

/// A command line with what surrounds it.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    kplay: &'a Kplay,
    program: Vec<OsString>,
    args: Vec<OsString>,
    stdin: Vec<u8>,
    env: Vec<(&'static str, OsString)>,
}

impl Call<'_> {
    /// What the command reads from standard input.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Runs it by way of another program, such as `unshare --user`.
    pub(crate) fn through<const N: usize>(mut self, program: [&str; N]) -> Self {
        let mut words: Vec<OsString> = program.map(OsString::from).into();
        words.append(&mut self.program);
        self.program = words;
        self
    }

    /// The process, with no environment but what every program may expect.
    pub(crate) fn std(&self) -> Command {
        if let Some(user) = &self.kplay.user {
            user.give_all(self.kplay.dir());
        }
        let mut command = Command::new(&self.program[0]);
        command
            .args(&self.program[1..])
            .arg("--root")
            .arg(self.kplay.root())
            .arg("--runroot")
            .arg(self.kplay.runroot())
            .args(&self.args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.kplay.dir())
            .env("CONTAINERS_STORAGE_CONF", self.kplay.no_other_images())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.kplay.dir());
        command
    }

    /// Starts it with pipes on all three streams.
    pub(crate) fn spawn(&self) -> Child {
        self.std()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run {:?}: {e}", self.program))
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// It does not end in time (it is killed), or something that it started keeps its output open.
    #[track_caller]
    pub(crate) fn run(self) -> Run {
        let mut child = self.spawn();
        let mut input = child.stdin.take().expect("a pipe");
        let stdin = self.stdin.clone();
        // A command that does not read its input closes the pipe: no fault.
        let writer = std::thread::spawn(move || input.write_all(&stdin).ok());
        let stdout = drain(child.stdout.take().expect("a pipe"));
        let stderr = drain(child.stderr.take().expect("a pipe"));
        let in_time = wait::ended(child.id(), TIMEOUT);
        if !in_time {
            child.kill().expect("our own child");
        }
        let status = child.wait().expect("our own child");
        let collect = |stream: &mpsc::Receiver<Vec<u8>>, name: &str| {
            let bytes = stream.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("{:?} has ended but its {name} is still open", self.args)
            });
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let run = Run {
            args: self.args.clone(),
            code: status.code().or_else(|| status.signal().map(|s| 128 + s)),
            stdout: collect(&stdout, "stdout"),
            stderr: collect(&stderr, "stderr"),
        };
        drop(writer);
        assert!(in_time, "not within {:?}: {run}", TIMEOUT);
        run
    }
}

fn drain(mut stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What could be read is what the test gets to see.
        stream.by_ref().read_to_end(&mut bytes).ok();
        sender.send(bytes)
    });
    receiver
}

/// What a command did.
#[must_use = "a command's result is what the test is about"]
#[derive(Debug)]
pub(crate) struct Run {
    args: Vec<OsString>,
    /// 128 + signal for a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Asserts exit code 0 and returns standard output.
    #[track_caller]
    pub(crate) fn succeeds(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout
    }

    /// Asserts the exit code and that standard error has each of these words, then returns it.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.code, Some(code), "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in {self}");
        }
        self.stderr
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "kplay {:?} → {:?}\n--- stdout\n{}--- stderr\n{}---",
            self.args, self.code, self.stdout, self.stderr
        )
    }
}
