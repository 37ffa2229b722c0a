//! Starting executors: the manager's half of the handshake that `protocol` describes.
//!
//! All executors are started before any is waited for. One that dies before it said `Started` or `Failed` is seen
//! by the end of its pipe; what it wrote to its standard error is in `executor.log`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{PipeReader, Read as _};
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Manager;
use super::error::Error;
use super::report::{Event, Report};
use super::{cgroups, client, ids};
use crate::model::image::{Image, ImageUser};
use crate::model::names::PodKey;
use crate::model::plan::PodPlan;
use crate::model::status::{Generation, QosClass};
use crate::protocol::{self, Launch, LaunchFailure, Progress};
use crate::state::layout::Layout;
use crate::state::pod_dir::{LockedPodDir, PodDir};
use crate::state::record::{PodRecord, SourceSet};
use crate::sys::cgroup::{self, CgroupEntry, Scope};
use crate::sys::pidfd::{Exit, PidFd};
use crate::sys::process::{self, ParentDeath, Session, Spawn};
use crate::sys::signal::Signal;
use crate::sys::{append, fs, identity, poll, userns};

/// The environment variable with the filter of developers' messages; the only one that executors inherit.
const LOG_FILTER: &str = "KPLAY_LOG";

/// How an executor is started: `program arguments… RUN_DIR`.
#[derive(Clone, Debug)]
pub struct Launcher {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// For how long an executor may say nothing before it is looked at.
    pub patience: Duration,
}

impl Launcher {
    /// This binary, as it runs now, even if its file has been replaced.
    #[must_use]
    pub fn of_this_binary() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            arguments: vec!["kplay".into(), "internal".into(), "execute".into()],
            patience: Duration::from_secs(10),
        }
    }
}

/// Where a kubelet looks for seccomp profiles.
const KUBELET_PROFILES: &str = "/var/lib/kubelet/seccomp";

/// A new pod's record and launch file. Its identity is new.
///
/// # Errors
/// The kernel has no random numbers.
pub(super) fn new_pod(
    layout: &Layout,
    plan: &PodPlan,
    all_images: BTreeMap<ImageUser, Image>,
    sources: Option<&SourceSet>,
) -> Result<(PodRecord, Launch), Error> {
    let uid = identity::random_uuid().map_err(Error::io("make an identity for a pod"))?;
    let key = plan.key();
    // Who is not root has a part of the tree for each pod, in which there is nobody to be weighed against.
    let class = match userns::is_initial() {
        true => plan.qos_class(),
        false => QosClass::Guaranteed,
    };
    let (mut images, mut volume_images) = (BTreeMap::new(), BTreeMap::new());
    for (user, image) in all_images {
        match user {
            ImageUser::Container(name) => images.insert(name, image),
            ImageUser::Volume(name) => volume_images.insert(name, image),
        };
    }
    let record = PodRecord {
        namespace: plan.namespace.clone(),
        name: plan.name.clone(),
        uid: uid.clone(),
        created: Timestamp::now(),
        generation: Generation::default(),
        owner: plan.owner.clone(),
        runs_to_completion: plan.runs_to_completion,
        termination_grace_period: plan.termination_grace_period,
        labels: plan.labels.clone(),
        manifest: plan.manifest.clone(),
        images: images
            .iter()
            .map(|(name, image)| (name.clone(), image.id.clone()))
            .collect(),
        volume_images: volume_images
            .values()
            .map(|image| image.id.clone())
            .collect(),
        sources: sources.cloned(),
        unknown: serde_json::Map::new(),
    };
    let launch = Launch {
        version: protocol::VERSION,
        plan: plan.clone(),
        generation: Generation::default(),
        images,
        volume_images,
        claims: plan
            .claim_folders()
            .map(|(volume, claim)| (volume.clone(), layout.volume(&plan.namespace, claim)))
            .collect(),
        data_dir: layout.pod(&key).data().to_owned(),
        log_dir: layout.pod_logs(&key, &uid),
        log_links: Some(layout.container_logs()),
        cgroup: cgroups::path(&uid, class),
        seccomp_folders: vec![layout.seccomp_profiles(), KUBELET_PROFILES.into()],
        node_name: identity::node_name(),
        objects: layout.root().join("objects"),
        network: layout.network(),
        endpoints: layout.endpoints(),
        pulling: None,
        uid,
    };
    Ok((record, launch))
}

/// What a pod was started with; `None` if that is not known any more, or is said in another version's words.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read_launch(dir: &PodDir) -> Result<Option<Launch>, Error> {
    let bytes = fs::read_if_there(&dir.paths().launch())?;
    let launch = bytes.and_then(|bytes| serde_json::from_slice::<Launch>(&bytes).ok());
    Ok(launch.filter(|launch| launch.version == protocol::VERSION))
}

/// Notes what a pod is started with, or was.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(dir: &LockedPodDir<'_>, launch: &Launch) -> Result<(), Error> {
    let content = serde_json::to_vec(launch).expect("the keys of its maps are names");
    Ok(dir.write_launch(&content)?)
}

/// Gives a running pod another plan, of which nothing is new but what can change in it.
///
/// # Errors
/// A file cannot be written, or the executor does not do it.
pub(super) fn refresh(
    dir: &LockedPodDir<'_>,
    record: &PodRecord,
    launch: &Launch,
) -> Result<(), Error> {
    dir.create(record)?;
    write(dir, launch)?;
    client::refresh(dir)
}

/// An executor that has been started and has not said yet how it went.
#[derive(Debug)]
pub(super) struct Launching {
    key: PodKey,
    process: PidFd,
    pipe: PipeReader,
    unread: Vec<u8>,
    dir: PodDir,
    silence: Silence,
    /// Kept until the pod keeps it itself.
    _scope: Option<Scope>,
}

/// How long an executor has said nothing.
#[derive(Debug)]
struct Silence {
    /// When it is looked at, unless it says something before.
    until: Instant,
    /// How long it may last at first.
    first: Duration,
    /// How long it may go on then: longer each time.
    patience: Duration,
    /// What the last look saw.
    state: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Running,
    /// By a signal.
    Stopped,
    /// Because it was stopped and did not go on.
    Killed,
}

impl Silence {
    fn begin(patience: Duration) -> Self {
        Self {
            until: Instant::now() + patience,
            first: patience,
            patience,
            state: Seen::Running,
        }
    }
}

/// How a launch went.
#[derive(Debug)]
pub(super) enum Outcome {
    Started,
    Failed(LaunchFailure),
    Died { log: String },
}

/// Writes the pod's files and starts its executor, which is waited for with [`wait_all`].
///
/// # Errors
/// A file cannot be written, or the executor cannot be started. What was written stays.
pub(super) fn start(
    manager: &Manager,
    dir: &LockedPodDir<'_>,
    record: &PodRecord,
    launch: &Launch,
) -> Result<Launching, Error> {
    dir.create(record)?;
    for folder in launch.log_links.iter().chain([&launch.log_dir]) {
        fs::create_dir_all(folder, 0o700)?;
    }
    if launch.plan.own_users && userns::is_initial() {
        ids::take(&manager.layout, dir)?;
    }
    write(dir, launch)?;
    let log_path = dir.paths().executor_log();
    let log = append::open(&log_path)?;
    let failed = |source| Error::Spawn {
        pod: dir.key().clone(),
        source,
    };
    let (pipe, writer) = std::io::pipe().map_err(failed)?;
    // Whoever comes after a command that died right here finds an executor to stop, not a folder to remove.
    let lock = dir.lock_for_executor()?;
    let fds = [writer.as_fd(), lock.as_fd()];
    let (scope, process) = born(manager, dir, &fds, log.as_fd())?;
    lock.name(process.pid().unsigned_abs()).map_err(failed)?;
    Ok(Launching {
        key: dir.key().clone(),
        process,
        pipe,
        unread: Vec::new(),
        dir: PodDir::clone(dir),
        silence: Silence::begin(manager.launcher.patience),
        _scope: scope,
    })
}

/// Starts the executor where it is to be. That may go away just then, with the last pod.
fn born(
    manager: &Manager,
    dir: &LockedPodDir<'_>,
    fds: &[BorrowedFd<'_>],
    stderr: BorrowedFd<'_>,
) -> Result<(Option<Scope>, PidFd), Error> {
    const TRIES: usize = 20;
    let mut tries = 1;
    loop {
        let scope = give_place(dir)?;
        let birthplace = scope.as_ref().and_then(|scope| scope.birthplace.as_ref());
        match spawn(&manager.launcher, dir, fds, stderr, birthplace) {
            Err(_) if birthplace.is_some_and(CgroupEntry::is_gone) && tries < TRIES => tries += 1,
            Err(source) => {
                return Err(Error::Spawn {
                    pod: dir.key().clone(),
                    source,
                });
            }
            Ok(process) => return Ok((scope, process)),
        }
    }
}

/// Finds where root's pods have their cgroups, and notes it if that is not the root of the tree: whoever comes after a
/// command that dies here finds them.
fn give_place(dir: &LockedPodDir<'_>) -> Result<Option<Scope>, Error> {
    let scope = cgroup::scope_of_root();
    let note = dir.paths().cgroup();
    match &scope {
        Some(scope) => {
            fs::replace_in_memory(&note, 0o600, scope.folder.as_os_str().as_encoded_bytes())?;
        }
        // The note of an earlier run.
        None => fs::remove_file(&note)?,
    }
    Ok(scope)
}

fn spawn(
    launcher: &Launcher,
    dir: &PodDir,
    fds: &[BorrowedFd<'_>],
    stderr: BorrowedFd<'_>,
    birthplace: Option<&CgroupEntry>,
) -> std::io::Result<PidFd> {
    let mut arguments: Vec<&OsStr> = launcher.arguments.iter().map(AsRef::as_ref).collect();
    arguments.push(dir.paths().run().as_os_str());
    let filter = std::env::var_os(LOG_FILTER).map(|value| {
        let mut pair = OsString::from(LOG_FILTER);
        pair.push("=");
        pair.push(value);
        pair
    });
    let environment: Vec<&OsStr> = filter.as_deref().into_iter().collect();
    process::spawn(&Spawn {
        program: &launcher.program,
        args: &arguments,
        env: &environment,
        fds,
        stderr: Some(stderr),
        session: Session::Own,
        parent_death: ParentDeath::Survive,
        cgroup: birthplace,
    })
}

/// Waits until each executor has said how it went, and tells `decide` of every outcome, which may end the wait. Returns
/// the pods that have not said anything when the deadline passed or the wait was ended. A start may take as long as its
/// init containers do, so silence is told, not punished; an executor that somebody has stopped does not answer for ever.
///
/// # Errors
/// [`Error::Interrupted`].
pub(super) fn wait_all(
    manager: &Manager,
    launching: Vec<Launching>,
    deadline: Option<Instant>,
    report: Report<'_>,
    decide: &mut dyn FnMut(&PodKey, Outcome) -> ControlFlow<()>,
) -> Result<Vec<PodKey>, Error> {
    let failed = || Error::io("wait for executors");
    let mut launching = launching;
    while !launching.is_empty() {
        let mut fds = vec![manager.interrupt.as_fd()];
        fds.extend(launching.iter().map(|one| one.pipe.as_fd()));
        let look = launching.iter().map(|one| one.silence.until);
        let until = deadline.into_iter().chain(look).min();
        let ready = poll::readable(&fds, until).map_err(failed())?;
        let now = Instant::now();
        if ready.is_empty() && deadline.is_some_and(|deadline| deadline <= now) {
            break;
        }
        let silent = launching.iter_mut();
        for one in silent.filter(|one| one.silence.until <= now) {
            one.look(report).map_err(failed())?;
        }
        if let Some(signal) = manager.interrupt.take().map_err(failed())? {
            return Err(Error::Interrupted { signal });
        }
        // From the back, so that removing one moves none that is still to come.
        for index in ready
            .into_iter()
            .rev()
            .filter_map(|index| index.checked_sub(1))
        {
            let Some(one) = launching.get_mut(index) else {
                continue;
            };
            let outcome = one.advance(report).map_err(failed())?;
            if let Some(outcome) = outcome {
                let one = launching.remove(index);
                if decide(&one.key, outcome).is_break() {
                    return Ok(launching.into_iter().map(|one| one.key).collect());
                }
            }
        }
    }
    Ok(launching.into_iter().map(|one| one.key).collect())
}

impl Launching {
    /// Reads what the executor has said, once.
    fn advance(&mut self, report: Report<'_>) -> std::io::Result<Option<Outcome>> {
        let mut buffer = [0; 4096];
        let count = match self.pipe.read(&mut buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return Ok(None),
            other => other?,
        };
        if count == 0 {
            return self.died().map(Some);
        }
        self.silence = Silence::begin(self.silence.first);
        self.unread
            .extend_from_slice(buffer.get(..count).unwrap_or_default());
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            match serde_json::from_slice(&line)? {
                Progress::Event(event) => report(Event::Pod(self.key.clone(), event)),
                Progress::Started => return Ok(Some(Outcome::Started)),
                Progress::Failed(failure) => return Ok(Some(Outcome::Failed(failure))),
            }
        }
        Ok(None)
    }

    /// Finds out why it says nothing.
    fn look(&mut self, report: Report<'_>) -> std::io::Result<()> {
        let seen = match (self.process.is_stopped()?, self.silence.state) {
            (_, Seen::Killed) => Seen::Killed,
            (false, _) => Seen::Running,
            (true, Seen::Running) => Seen::Stopped,
            (true, Seen::Stopped) => {
                // The end of its pipe ends the wait.
                self.process.signal(Signal::KILL)?;
                Seen::Killed
            }
        };
        let waits_for = match seen {
            Seen::Killed => None,
            Seen::Stopped => Some("its executor is stopped by a signal".to_owned()),
            Seen::Running => {
                self.silence.patience *= 2;
                let status = self.dir.status().ok().flatten();
                status.and_then(|status| status.waits_for())
            }
        };
        self.silence.until = Instant::now() + self.silence.patience;
        self.silence.state = seen;
        if seen != Seen::Killed {
            report(Event::PodSilent(self.key.clone(), waits_for));
        }
        Ok(())
    }

    fn died(&self) -> std::io::Result<Outcome> {
        // The pipe is closed a moment before the process has ended. One that only closed it is not waited for.
        let soon = Some(Instant::now() + Duration::from_secs(1));
        poll::readable(&[self.process.as_fd()], soon)?;
        // Taking the status also keeps it from being a zombie for as long as the command lasts.
        let exit = self.process.take_exit()?;
        let path = self.dir.paths().executor_log();
        let log = tail(
            &fs::read_if_there(&path)
                .unwrap_or_default()
                .unwrap_or_default(),
        );
        let log = match (log.is_empty(), exit) {
            _ if self.silence.state == Seen::Killed => {
                "it was stopped by a signal and did not go on, so it was killed".into()
            }
            (false, _) => log,
            (true, Some(Exit::Code(code))) => format!("it exited with {code} and said nothing"),
            (true, Some(Exit::Signal(signal))) => format!("it was killed by signal {signal}"),
            (true, None) => "it closed its pipe and said nothing".into(),
        };
        Ok(Outcome::Died { log })
    }
}

/// The last lines of a log, at most about 2 KB.
fn tail(log: &[u8]) -> String {
    const LONGEST: usize = 2048;
    let end = log.get(log.len().saturating_sub(LONGEST)..).unwrap_or(log);
    let text = String::from_utf8_lossy(end);
    let text = match text.split_once('\n') {
        Some((_, whole)) if end.len() < log.len() => whole,
        _ => &text,
    };
    text.trim().to_owned()
}
