//! Root's cgroups on a machine with systemd and version 2. There the tree is systemd's, but for units that it delegates: so
//! all pods are in one scope, which it makes when asked once, leaves alone, and takes away with the last process in it.
//!
//! ```text
//! kplay-pods.scope
//!   _executor      those who keep it: executors, or what stands in for those that stay in the unit that started them
//!   kplay/…        the pods
//! ```
//!
//! What starts executors is the one to ask for it, and keeps it until they are there. Later ones are born in `_executor`
//! without systemd's help.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::delegated::{OWN, is_in, own_path};
use super::{CgroupEntry, hierarchy};
use crate::sys::holder::{self, Holder};
use crate::sys::pidfd::PidFd;
use crate::sys::signal::Signal;
use crate::sys::{systemd, userns};

/// The root of all slices, so that nothing is left when the scope goes; and pods weigh as much as all services together, as
/// with a kubelet.
const SLICE: &str = "-.slice";
const SCOPE: &str = "kplay-pods.scope";

/// The scope. Where executors do not keep it from their birth on, it is there at least as long as this is.
#[derive(Debug)]
pub struct Scope {
    /// What is the root of the tree for its pods.
    pub folder: PathBuf,
    /// Where executors are born, unless they stay with who starts them.
    pub birthplace: Option<CgroupEntry>,
    /// One that is born there finds it, or fails.
    _keeper: Option<Keeper>,
}

/// A process in the scope that does nothing else.
#[derive(Debug)]
struct Keeper(PidFd);

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(error) = self.0.signal(Signal::KILL).and_then(|()| self.0.wait()) {
            // It dies with this process.
            tracing::debug!(%error, "cannot end the process that keeps the scope");
        }
    }
}

/// Finds the scope of root's pods, or has it made. None where there is no systemd, or another version: cgroups are made from
/// the root of the tree then. So they are where systemd does not help, which is traced.
#[must_use]
pub fn of_root() -> Option<Scope> {
    if !userns::is_initial() || !systemd::is_there() {
        return None;
    }
    match find_or_make() {
        Ok(scope) => scope,
        Err(error) => {
            tracing::warn!(%error, "systemd gives no scope");
            None
        }
    }
}

fn find_or_make() -> io::Result<Option<Scope>> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let Some(mount) = hierarchy::only_version_2()? else {
        return Ok(None);
    };
    let folder = mount.join(SCOPE);
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(500);
    loop {
        let found = match is_ready(&folder) {
            true => find(&folder),
            false => make(&mount, &folder),
        };
        match found {
            Ok(scope) => return Ok(scope),
            // Another command is just making it, or the last process in it has just ended.
            Err(error) if is_passing(&error) && Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists || hierarchy::is_gone(error)
}

/// Whether it can be divided: who made it has gone out of its way.
fn is_ready(folder: &Path) -> bool {
    let own = folder.join(OWN).join("cgroup.procs");
    own.exists() && std::fs::read(folder.join("cgroup.procs")).is_ok_and(|all| all.is_empty())
}

/// Executors that were started by a service are the service's: they end with it. All others leave the cgroup of the login or
/// terminal that they were started from, which does not outlive it.
fn stays(cgroup: &Path) -> bool {
    let is_service = |part: &std::ffi::OsStr| part.to_string_lossy().ends_with(".service");
    !cgroup.starts_with("user.slice") && cgroup.iter().any(is_service)
}

/// What a process needs to be born in the executors' part.
fn entry(folder: &Path) -> io::Result<CgroupEntry> {
    Ok(CgroupEntry {
        directory: Some(OwnedFd::from(std::fs::File::open(folder.join(OWN))?)),
        procs: Vec::new(),
    })
}

fn hold(cgroup: &CgroupEntry) -> io::Result<PidFd> {
    let holding = holder::start(&Holder {
        namespaces: &[],
        ids: None,
        hostname: None,
        sysctls: &[],
        cgroup,
        oom_score_adj: 0,
    });
    Ok(holding.map_err(|error| error.source)?.process)
}

/// The scope that is there.
fn find(folder: &Path) -> io::Result<Option<Scope>> {
    let entry = entry(folder)?;
    let (birthplace, keeper) = match stays(&own_path("self")?) {
        true => (None, Some(Keeper(hold(&entry)?))),
        false => (Some(entry), None),
    };
    Ok(Some(Scope {
        folder: folder.to_owned(),
        birthplace,
        _keeper: keeper,
    }))
}

/// Has it made. None if there is no systemd to be asked.
fn make(mount: &Path, folder: &Path) -> io::Result<Option<Scope>> {
    let keeper = Keeper(hold(&CgroupEntry::default())?);
    let pid = keeper.0.pid();
    let started = systemd::start_scope(&systemd::Scope {
        manager: systemd::Manager::System,
        name: SCOPE,
        slice: Some(SLICE),
        description: "pods of kplay",
        pid: pid.unsigned_abs(),
    })?;
    if started.is_none() {
        return Ok(None);
    }
    is_in(mount, &pid.to_string(), SCOPE)?;
    let own = folder.join(OWN);
    std::fs::create_dir(&own)?;
    std::fs::write(own.join("cgroup.procs"), pid.to_string())?;
    let birthplace = match stays(&own_path("self")?) {
        true => None,
        false => Some(entry(folder)?),
    };
    Ok(Some(Scope {
        folder: folder.to_owned(),
        birthplace,
        _keeper: Some(keeper),
    }))
}

/// Starts what keeps the scope with this folder for an executor that is not in it itself, as long as the executor lives.
///
/// # Errors
/// The scope is gone, or there can be no more processes.
pub fn stand_in(folder: &Path) -> io::Result<()> {
    if userns::is_initial() && stays(&own_path("self")?) {
        // It ends with this process.
        hold(&entry(folder)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays() {
        let check = |cgroup: &str, expected: bool| assert_eq!(stays(cgroup.as_ref()), expected);
        check("system.slice/web.service", true);
        check("system.slice/runner.service/job", true);
        check("user.slice/user-0.slice/session-1.scope", false);
        check("user.slice/user-7.slice/user@7.service/app.slice", false);
        check("system.slice/docker-1.scope", false);
        check("", false);
    }
}
