//! Ending executors, and removing what is left of their pods. `apply`, its undo, `delete` and `sweep` do it with
//! these same steps, each of which may be done again.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::Manager;
use super::cgroups;
use super::error::Error;
use super::{ephemeral, jobs, launch};
use crate::model::names::PodKey;
use crate::protocol::Request;
use crate::state::endpoints;
use crate::state::layout::Layout;
use crate::state::lock::Locks;
use crate::state::logs::links;
use crate::state::pod_dir::{LockedPodDir, PodDir};
use crate::state::view;
use crate::sys::cgroup::{self, Hierarchies};
use crate::sys::pidfd::PidFd;
use crate::sys::signal::Signal;
use crate::sys::socket::Connection;
use crate::sys::watch::Watch;
use crate::sys::{fs, inhabitants, lockfile, poll};

/// How long a pod has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// `terminationGracePeriodSeconds`.
    Own,
    /// These seconds, at least 1: kubectl's `--grace-period`.
    Seconds(u32),
    /// None at all: kubectl's `--force`.
    Kill,
}

impl Grace {
    /// kubectl's rules: `--force` alone kills at once, `--grace-period=0` without it means 1, a negative one means
    /// the pod's own.
    #[must_use]
    pub fn from_flags(grace_period: Option<i64>, force: Force) -> Self {
        match (force, grace_period) {
            (Force::Yes, None | Some(0)) => Self::Kill,
            (Force::No, Some(0)) => Self::Seconds(1),
            (_, Some(seconds)) if seconds > 0 => {
                Self::Seconds(u32::try_from(seconds).unwrap_or(u32::MAX))
            }
            (_, _) => Self::Own,
        }
    }

    pub(super) fn requested(self) -> Option<u32> {
        match self {
            Self::Own => None,
            Self::Seconds(seconds) => Some(seconds),
            Self::Kill => Some(0),
        }
    }
}

/// Whether `--force` is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    No,
    Yes,
}

/// Whether a signal ends the wait for executors to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnSignal {
    /// They go on ending by themselves; the next command does the rest.
    Leave,
    /// The wait is bounded, and what comes after it must not be left out.
    Stay,
}

/// How much longer than its grace period a pod may take: a preStop hook's two extra seconds, and a slow machine.
const MARGIN: Duration = Duration::from_secs(10);

/// Ends the executors of these pods, all at the same time: with a request, and with SIGKILL where that does not help in
/// time. What their pods leave behind is not cleaned up here. A result for each pod, in the same order.
///
/// # Errors
/// [`Error::Interrupted`].
pub(super) fn stop_all(
    manager: &Manager,
    dirs: &[&PodDir],
    grace: Grace,
    on_signal: OnSignal,
) -> Result<Vec<Result<(), Error>>, Error> {
    let mut results: Vec<Result<(), Error>> = Vec::with_capacity(dirs.len());
    let mut stopping = Vec::new();
    for (index, dir) in dirs.iter().enumerate() {
        match Stopping::begin(dir, grace) {
            Ok(None) => results.push(Ok(())),
            Ok(Some(one)) => {
                results.push(Ok(()));
                stopping.push((index, one));
            }
            Err(error) => results.push(Err(error)),
        }
    }
    while let Some(next) = stopping.iter().map(|(_, one)| one.deadline).min() {
        let mut fds = vec![manager.interrupt.as_fd()];
        if on_signal == OnSignal::Stay {
            fds.clear();
        }
        let others = fds.len();
        fds.extend(stopping.iter().map(|(_, one)| one.process.as_fd()));
        let ready = poll::readable(&fds, Some(next)).map_err(Error::io("wait for executors"))?;
        if on_signal == OnSignal::Leave
            && let Some(signal) = manager
                .interrupt
                .take()
                .map_err(Error::io("take a signal"))?
        {
            return Err(Error::Interrupted { signal });
        }
        let mut position = 0;
        stopping.retain_mut(|(index, one)| {
            let ended = ready.contains(&(position + others));
            position += 1;
            if ended {
                return false;
            }
            match one.check_deadline() {
                Ok(()) => true,
                Err(error) => {
                    if let Some(result) = results.get_mut(*index) {
                        *result = Err(error);
                    }
                    false
                }
            }
        });
    }
    Ok(results)
}

/// An executor that has been asked to end.
#[derive(Debug)]
struct Stopping {
    key: PodKey,
    process: PidFd,
    /// Open until the executor has read the request.
    _connection: Option<Connection>,
    deadline: Instant,
    state: Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Politely,
    Killed,
}

impl Stopping {
    /// `None` if there is no executor.
    fn begin(dir: &PodDir, grace: Grace) -> Result<Option<Self>, Error> {
        let Some(process) = executor(dir)? else {
            return Ok(None);
        };
        let request = Request::Stop {
            grace_period: grace.requested(),
        };
        let connection = super::client::send(dir, &request).ok();
        let allowed = match (&connection, grace) {
            // Nobody listens (any more): there is nothing to wait for.
            (None, _) => Duration::ZERO,
            (Some(_), Grace::Kill) => MARGIN / 5,
            (Some(_), Grace::Seconds(seconds)) => seconds_of(seconds) + MARGIN,
            (Some(_), Grace::Own) => seconds_of(own_grace(dir)) + MARGIN,
        };
        Ok(Some(Self {
            key: dir.key().clone(),
            process,
            _connection: connection,
            deadline: Instant::now() + allowed,
            state: Asked::Politely,
        }))
    }

    /// Kills it when its time is up.
    fn check_deadline(&mut self) -> Result<(), Error> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        match self.state {
            Asked::Politely => {
                tracing::debug!(pod = %self.key, "the executor does not end by itself");
                self.process
                    .signal(Signal::KILL)
                    .map_err(Error::io("kill an executor"))?;
                self.state = Asked::Killed;
                self.deadline = Instant::now() + MARGIN;
                Ok(())
            }
            Asked::Killed => Err(Error::Undead {
                pod: self.key.clone(),
            }),
        }
    }
}

fn seconds_of(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

/// How many seconds the pod has to end.
pub(super) fn seconds(dir: &PodDir, grace: Grace) -> u32 {
    grace.requested().unwrap_or_else(|| own_grace(dir))
}

fn own_grace(dir: &PodDir) -> u32 {
    const KUBERNETES_DEFAULT: u32 = 30;
    match dir.record() {
        Ok(Some(record)) => record.termination_grace_period,
        // The executor knows its own; this only bounds the wait for it.
        Ok(None) | Err(_) => KUBERNETES_DEFAULT,
    }
}

/// A pod's executor, if it lives. Its lock file has its pid; that the lock is still held after the process has been
/// opened proves that it was not another one's by then.
fn executor(dir: &PodDir) -> Result<Option<PidFd>, Error> {
    if !dir.has_executor()? {
        return Ok(None);
    }
    let failed = |source| Error::Control {
        pod: dir.key().clone(),
        source,
    };
    let pid = named_executor(dir)?.and_then(|pid| i32::try_from(pid).ok());
    let opened = match pid {
        Some(pid) => PidFd::open(pid),
        None => Err(std::io::ErrorKind::InvalidData.into()),
    };
    if !dir.has_executor()? {
        // It has died since the lock was seen.
        return Ok(None);
    }
    opened.map(Some).map_err(failed)
}

/// The pid of the executor that holds the pod's lock. One that was just born, by a command that has been killed since,
/// has yet to write it.
fn named_executor(dir: &PodDir) -> Result<Option<u32>, Error> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let failed = || Error::io("watch a pod's folder");
    let deadline = Instant::now() + PATIENCE;
    // Not watched before the first look, which is nearly always enough.
    let mut watch: Option<Watch> = None;
    loop {
        if let Some(pid) = lockfile::pid(&dir.paths().executor_lock())? {
            return Ok(Some(pid));
        }
        // A full disk or a stray hand may have left the file without the pid; the kernel knows whose socket it is.
        let peer = Connection::connect(&dir.paths().control_socket());
        if let Some(pid) = peer.ok().and_then(|peer| peer.peer_pid().ok()) {
            return Ok(Some(pid));
        }
        let Some(watch) = &watch else {
            let new = watch.insert(Watch::new().map_err(failed())?);
            new.add(dir.paths().run())?;
            continue;
        };
        let changed = poll::readable(&[watch.as_fd()], Some(deadline)).map_err(failed())?;
        if changed.is_empty() || !dir.has_executor()? {
            return Ok(None);
        }
        watch.drain().map_err(failed())?;
    }
}

/// Kills what is left of a pod whose executor has ended, and removes its cgroup and mounts. Other pods do not see it
/// any more.
///
/// # Errors
/// Something does not die, or cannot be removed.
pub(super) fn clean_up(layout: &Layout, dir: &LockedPodDir<'_>) -> Result<(), Error> {
    let failed = |source| Error::Leftovers {
        pod: dir.key().clone(),
        source,
    };
    if let Some(uid) = uid(dir)? {
        let given = cgroups::given(dir)?;
        if let Some(cgroup) = cgroups::of_pod(dir, &uid)? {
            cgroup.kill().map_err(|e| failed(e.into()))?;
            cgroups::remove(&cgroup).map_err(|e| failed(e.into()))?;
        }
        // Whoever removes the pod: it may have been played in another user namespace.
        let own = given.filter(|folder| cgroup::is_delegated_to(folder, &uid));
        if let Some(folder) = own.filter(|_| !dir.has_executor().unwrap_or(true)) {
            cgroup::remove_delegated(&folder).map_err(|e| failed(e.into()))?;
        }
    }
    // No cgroup knows who they are.
    if !dir.paths().cgroup().exists()
        && Hierarchies::open().is_ok_and(|all| all.version().is_none())
    {
        inhabitants::kill_all(dir.paths().data()).map_err(|e| failed(e.into()))?;
    }
    if dir.has_executor()? {
        return Err(Error::Undead {
            pod: dir.key().clone(),
        });
    }
    if let Err(error) = view::note_end(dir) {
        // On a full disk, or of a corrupt pod, removing is the remedy.
        tracing::warn!(pod = %dir.key(), %error, "cannot note the end of a pod whose executor died");
    }
    endpoints::remove(&layout.endpoints(), dir.key())?;
    Ok(dir.unmount()?)
}

/// Removes a pod whose executor has ended: what it left in the kernel, its logs, the claims of its ephemeral volumes, its
/// folders, its record last. Its Job, if it has one, remembers how it ended.
///
/// # Errors
/// Something cannot be removed; the record is still there then.
pub(super) fn remove(locks: &Locks, dir: &LockedPodDir<'_>) -> Result<(), Error> {
    let layout = locks.layout();
    clean_up(layout, dir)?;
    if let Some(uid) = uid(dir)? {
        fs::remove_dir_all(&layout.pod_logs(dir.key(), &uid))?;
    }
    // Those of earlier pods of this name, and of one whose uid cannot be read.
    let prefix = format!("{}_{}_", dir.key().namespace, dir.key().name);
    for name in fs::list(&layout.logs())? {
        if name.to_string_lossy().starts_with(&prefix) {
            fs::remove_dir_all(&layout.logs().join(name))?;
        }
    }
    links::sweep(&layout.container_logs())?;
    if let Ok(Some(record)) = dir.record() {
        ephemeral::remove(locks, &record)?;
    }
    if let Err(error) = jobs::note_end(locks, dir) {
        // On a full disk, or of a corrupt Job, removing is the remedy.
        tracing::warn!(pod = %dir.key(), %error, "cannot note in a Job how its pod ended");
    }
    Ok(dir.remove()?)
}

/// Removes the logs of a pod.
///
/// # Errors
/// They cannot be removed.
pub(super) fn remove_logs(layout: &Layout, key: &PodKey, uid: &str) -> Result<(), Error> {
    fs::remove_dir_all(&layout.pod_logs(key, uid))?;
    Ok(links::sweep(&layout.container_logs())?)
}

/// The pod's uid, from whatever of its files can be read.
fn uid(dir: &PodDir) -> Result<Option<String>, Error> {
    if let Ok(Some(record)) = dir.record() {
        return Ok(Some(record.uid));
    }
    Ok(launch::read_launch(dir)?.map(|launch| launch.uid))
}
