//! What is tried, and the process that tries it: `kplay internal try ROOT`.
//!
//! It says how each trial went in a line of JSON. Nothing that it makes outlives it but a folder beside ROOT, which it
//! removes; one that could not is removed by the next.
//!
//! ```text
//! as root       cgroup ─ limits ─ users ─ namespaces ─ overlay ─ mapped ids ─ bridge … ─ proc ─ seccomp
//! as a user     users ─ (its ids are given from outside) ─ namespaces ─ overlay ─ bridge … ─ proc ─ seccomp
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::facts::{self, Subordinate};
use crate::model::cause::chain;
use crate::network::trial as network;
use crate::sys::cgroup::{self, CgroupEntry, Hierarchies, Limits};
use crate::sys::holder::{self, Holder};
use crate::sys::ids::IdRange;
use crate::sys::mount::{self, Overlay};
use crate::sys::namespace::{self, Namespace};
use crate::sys::signal::Signal;
use crate::sys::{capability, fs, identity, poll, process, trial, userns};

/// Something that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Trial {
    /// A cgroup.
    Cgroup,
    /// A cgroup with limits of memory, processor and processes.
    Limits,
    /// The namespaces that every pod has.
    Namespaces,
    /// A user namespace.
    Users,
    /// A user namespace with many ids, for who is not root.
    Ids,
    /// An overlay on the file system of ROOT, that is written to.
    Overlay,
    /// An overlay whose layers have the ids of a user namespace.
    MappedIds,
    Bridge,
    Link,
    Masquerade,
    Seccomp,
    /// A hostname in a namespace.
    Hostname,
    /// A process in a pid namespace, with a `/proc` of its own; in a user namespace, a `/sys` too.
    Proc,
}

/// How each went. What is not here has not been tried.
pub(super) type Outcomes = BTreeMap<Trial, Result<(), String>>;

#[derive(Serialize, Deserialize)]
struct Line {
    trial: Trial,
    error: Option<String>,
}

/// Longest that all trials may take. They take about 50 ms.
const PATIENCE: Duration = Duration::from_secs(20);

/// The process that tries.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    deadline: Instant,
}

impl Running {
    /// Starts it. A signal from the terminal does not reach it, so that it always cleans up.
    pub(super) fn start(root: &Path) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("kplay")
            .args(["internal", "try"])
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        Ok(Self {
            child: process::spawn_with_default_signals(&mut command)?,
            deadline: Instant::now() + PATIENCE,
        })
    }

    /// Reads what it says, and gives it ids when it waits for them.
    pub(super) fn finish(mut self) -> io::Result<Outcomes> {
        let read = self.read();
        if read.is_err() {
            self.child.kill()?;
        }
        self.child.wait()?;
        read
    }

    fn read(&mut self) -> io::Result<Outcomes> {
        let (Some(mut stdout), Some(mut stdin)) =
            (self.child.stdout.take(), self.child.stdin.take())
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let pid = self.child.id();
        let mut outcomes = Outcomes::new();
        let mut unread = Vec::new();
        loop {
            if poll::readable(&[stdout.as_fd()], Some(self.deadline))?.is_empty() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut buffer = [0; 4096];
            let count = stdout.read(&mut buffer)?;
            if count == 0 {
                return Ok(outcomes);
            }
            unread.extend_from_slice(buffer.get(..count).unwrap_or_default());
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                let Line { trial, error } = serde_json::from_slice(&line)?;
                if trial == Trial::Users && error.is_none() && !capability::may_administer() {
                    if let Some(given) = give_ids(pid) {
                        outcomes.insert(Trial::Ids, given);
                    }
                    // It may have been killed meanwhile, which the next read tells.
                    stdin.write_all(b"\n").ok();
                }
                outcomes.insert(trial, error.map_or(Ok(()), Err));
            }
        }
    }
}

/// Gives the user namespace of a process the ids of who is not root: many, if `newuidmap` and `newgidmap` give them, or
/// just its own; or those of a container, whose root it is. Nothing if there are none to be given.
fn give_ids(pid: u32) -> Option<Result<(), String>> {
    if let Some(mapping) = userns::Mapping::of_all() {
        let given = userns::give(&mapping, i32::try_from(pid).unwrap_or_default());
        return Some(given.map_err(|error| chain(&error)));
    }
    let given = Subordinate::read();
    let many = match (&given.users, &given.groups) {
        (Some(users), Some(groups)) => Some(
            run_map("newuidmap", pid, identity::uid(), users)
                .and_then(|()| run_map("newgidmap", pid, identity::gid(), groups)),
        ),
        _ => None,
    };
    if !matches!(many, Some(Ok(()))) {
        // Without groups that it could give up, it may have its own.
        let alone = [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {} 1", identity::uid())),
            ("gid_map", format!("0 {} 1", identity::gid())),
        ];
        for (file, content) in alone {
            let path = PathBuf::from(format!("/proc/{pid}/{file}"));
            if let Err(error) = fs::write_setting(&path, content.as_bytes()) {
                // The trials that need it fail, and tell.
                tracing::debug!(error = chain(&error), "no id for a user namespace");
            }
        }
    }
    many
}

fn run_map(
    program: &'static str,
    pid: u32,
    own: u32,
    given: &std::ops::Range<u32>,
) -> Result<(), String> {
    let numbers = [pid, 0, own, 1, 1, given.start, given.end - given.start];
    let output = Command::new(program)
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program}: {}", said.trim()))
        }
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// The process that tries everything: it has one thread, and is in no namespace of its own yet.
#[must_use]
pub fn main(root: Option<&OsStr>) -> ExitCode {
    let Some(root) = root else {
        return ExitCode::FAILURE;
    };
    if root == MOUNT_PROC {
        return mount_proc();
    }
    let mut report = Report(io::stdout());
    let administers = capability::may_administer();
    if administers {
        cgroups(&mut report);
        report.tell(Trial::Users, with_users(|_| Ok(())));
    } else {
        let made = trial::unshare(&[Namespace::User]);
        let failed = made.is_err();
        report.tell(Trial::Users, made);
        // Its ids are given from outside.
        let mut answer = String::new();
        if failed || BufReader::new(io::stdin()).read_line(&mut answer).is_err() {
            return ExitCode::SUCCESS;
        }
    }
    let own = [
        Namespace::Mount,
        Namespace::Network,
        Namespace::Ipc,
        Namespace::Uts,
    ];
    let made = trial::unshare(&own)
        .map_err(boxed)
        .and_then(|()| mount::make_slave().map_err(boxed));
    let failed = made.is_err();
    report.tell(Trial::Namespaces, made);
    if failed {
        return ExitCode::SUCCESS;
    }
    report.tell(Trial::Hostname, trial::set_hostname());
    overlays(Path::new(root), administers, &mut report);
    networks(&mut report);
    // After these two, no more processes can be started, and for good.
    let sys = Path::new("/sys");
    let own = match mount::is_read_only(sys) {
        Ok(true) if !administers => mount::read_only_sys(sys),
        other => other.map(drop),
    };
    let own = own.map_err(boxed).and_then(|()| own_proc());
    report.tell(Trial::Proc, own);
    report.tell(Trial::Seccomp, trial::filter_system_calls());
    ExitCode::SUCCESS
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn boxed(error: impl Into<AnyError>) -> AnyError {
    error.into()
}

struct Report(io::Stdout);

impl Report {
    fn tell<E: Into<AnyError>>(&mut self, trial: Trial, outcome: Result<(), E>) {
        let error = outcome
            .err()
            .map(|error| chain(&*error.into() as &dyn std::error::Error));
        let line = serde_json::to_string(&Line { trial, error }).unwrap_or_default();
        // When nobody reads, what was made is still removed.
        writeln!(self.0, "{line}")
            .and_then(|()| self.0.flush())
            .ok();
    }
}

fn cgroups(report: &mut Report) {
    let path = format!("{CGROUP}{}", std::process::id());
    // Where pods would have theirs.
    let scope = cgroup::scope_of_root();
    let given = match &scope {
        Some(scope) => Hierarchies::of_executor(&scope.folder),
        None => Hierarchies::open().map(Some),
    };
    let hierarchies = match given {
        Ok(hierarchies) => hierarchies.unwrap_or_else(Hierarchies::none),
        Err(error) => return report.tell(Trial::Cgroup, Err(error)),
    };
    if hierarchies.version().is_none() {
        let error = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        return report.tell(Trial::Cgroup, Err(error));
    }
    if let Err(error) = remove_of_killed(&hierarchies) {
        report.tell(Trial::Cgroup, Err(error));
    }
    let removed = match hierarchies.create(&path, &Limits::default()) {
        Ok(cgroup) => {
            report.tell::<io::Error>(Trial::Cgroup, Ok(()));
            let limits = Limits {
                cpu_quota_us: Some(50_000),
                memory_bytes: Some(64 << 20),
                pids: Some(100),
                ..Limits::default()
            };
            report.tell(Trial::Limits, cgroup.set(&limits));
            cgroup.remove_with_parents()
        }
        Err(error) => {
            report.tell(Trial::Cgroup, Err(error));
            // Of several hierarchies, some may have it.
            hierarchies
                .find(&path)
                .map_or(Ok(()), |part| part.remove_with_parents())
        }
    };
    if let Err(error) = removed {
        report.tell(Trial::Cgroup, Err(error));
    }
}

/// Removes the cgroups of doctors that were killed.
fn remove_of_killed(hierarchies: &Hierarchies) -> Result<(), cgroup::Error> {
    let (above, prefix) = CGROUP.split_once('/').unwrap_or_default();
    let all = hierarchies.find(above).map(|all| all.children());
    for one in all.transpose()?.unwrap_or_default() {
        if one.name().strip_prefix(prefix).is_some_and(is_dead) {
            one.remove()?;
        }
    }
    Ok(())
}

/// Whether there is no process of this number.
fn is_dead(pid: &str) -> bool {
    !Path::new("/proc").join(pid).exists()
}

/// The argument of [`main`] that makes it mount `/proc`: the rest of a trial, for the first process of a pid namespace.
const MOUNT_PROC: &str = "--proc";

fn own_proc() -> Result<(), AnyError> {
    trial::unshare(&[Namespace::Pid])?;
    let output = Command::new("/proc/self/exe")
        .arg0("kplay")
        .args(["internal", "try", MOUNT_PROC])
        .stdin(Stdio::null())
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stdout).trim().into()),
    }
}

/// In the mount namespace of who started it, and with its end everything goes.
fn mount_proc() -> ExitCode {
    match trial::mount_proc(Path::new("/proc")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When nobody reads, nobody wants to know.
            writeln!(io::stdout(), "{}", chain(&error)).ok();
            ExitCode::FAILURE
        }
    }
}

/// A bridge in one network namespace, and a link from there to another one.
fn networks(report: &mut Report) {
    let pod =
        trial::own_network().and_then(|pod| trial::unshare(&[Namespace::Network]).map(|()| pod));
    let pod = match pod {
        Ok(pod) => pod,
        Err(error) => return report.tell(Trial::Bridge, Err(error)),
    };
    match network::Trial::bridge() {
        Ok(bridge) => {
            report.tell::<io::Error>(Trial::Bridge, Ok(()));
            let path = format!("/proc/self/fd/{}", pod.as_raw_fd());
            report.tell(Trial::Link, bridge.link(Path::new(&path)));
            report.tell(Trial::Masquerade, bridge.masquerade());
        }
        Err(error) => report.tell(Trial::Bridge, Err(error)),
    }
}

/// A user namespace as a pod with users of its own has it, for the time of one call.
fn with_users<T>(
    act: impl FnOnce(&std::os::fd::OwnedFd) -> Result<T, AnyError>,
) -> Result<T, AnyError> {
    const SOMEBODY: u32 = 0x7000_0000;
    let holding = holder::start(&Holder {
        namespaces: &[],
        ids: IdRange::starting_at(SOMEBODY),
        hostname: None,
        sysctls: &[],
        cgroup: &CgroupEntry::default(),
        oom_score_adj: 0,
    })?;
    let acted = namespace::users_of(holding.process.pid())
        .map_err(boxed)
        .and_then(|users| act(&users));
    holding.process.signal(Signal::KILL)?;
    holding.process.wait()?;
    acted
}

/// Overlays in a folder on the file system of `root`. Only who administers the machine may map ids.
fn overlays(root: &Path, administers: bool, report: &mut Report) {
    let folder = match Folder::make(root) {
        Ok(folder) => folder,
        Err(error) => return report.tell(Trial::Overlay, Err(error)),
    };
    let made = folder.overlay("plain", None);
    let failed = made.is_err();
    report.tell(Trial::Overlay, made);
    if !failed && administers {
        let made = with_users(|users| folder.overlay("mapped", Some(users)));
        report.tell(Trial::MappedIds, made);
    }
    if let Err(error) = folder.remove() {
        report.tell(Trial::Overlay, Err(error));
    }
}

/// A folder to try things in.
struct Folder(PathBuf);

/// What the cgroup's path begins with; the pid of who made it follows.
const CGROUP: &str = "kplay/doctor-";
/// What the folder's name begins with; the pid of who made it follows.
const PREFIX: &str = ".kplay-doctor-";

impl Folder {
    /// Makes one where ROOT is, or would be. Removes those of processes that were killed.
    fn make(root: &Path) -> Result<Self, fs::Error> {
        let parent = facts::existing(root);
        for name in fs::list(parent)? {
            let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if pid.is_some_and(is_dead) {
                fs::remove_dir_all(&parent.join(&name))?;
            }
        }
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&path, 0o700)?;
        Ok(Self(path))
    }

    /// Mounts an overlay, writes to it, and removes something that is in its layer.
    fn overlay(&self, name: &str, users: Option<&std::os::fd::OwnedFd>) -> Result<(), AnyError> {
        let made = |part: &str| {
            let path = self.0.join(name).join(part);
            fs::create_dir_all(&path, 0o755).map(|()| path)
        };
        let layers = [made("low")?];
        let (upper, work, target) = (made("upper")?, made("work")?, made("target")?);
        fs::overwrite(&layers[0].join("below"), 0o644, b"below")?;
        let plan = Overlay {
            layers: &layers,
            upper: &upper,
            work: &work,
            users: users.map(|users| users.as_fd()),
        };
        mount::overlay(plan, &target)?;
        let used = match users {
            // Its root is not root here.
            Some(_) => Ok(()),
            None => fs::overwrite(&target.join("above"), 0o644, b"above")
                .and_then(|()| fs::remove_file(&target.join("below"))),
        };
        mount::detach(&target)?;
        Ok(used?)
    }

    fn remove(self) -> Result<(), fs::Error> {
        fs::remove_dir_all(&self.0)
    }
}
