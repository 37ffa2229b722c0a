//! Cgroups, version 2 and version 1 (also in hybrid mode), by absolute paths from each hierarchy's root.
//!
//! The directories of the hierarchies are opened once and stay usable when `/sys/fs/cgroup` is hidden afterwards.
//! Of version 1 only the hierarchies are used that a limit needs or that tell something about a container: memory,
//! cpu, cpuacct, pids, devices, and hugetlb on machines with huge pages. In hybrid mode the version 2 hierarchy has no
//! controllers (but hugetlb, if no other has it), tracks the processes and kills them all at once.
//!
//! ```text
//!            version 2                          version 1
//! cpu        cpu.weight cpu.max                 cpu.shares cpu.cfs_quota_us cpu.cfs_period_us
//! memory     memory.max memory.swap.max         memory.limit_in_bytes memory.memsw.limit_in_bytes
//! pids       pids.max                           pids.max
//! hugetlb    hugetlb.SIZE.max                   hugetlb.SIZE.limit_in_bytes
//! devices    a BPF program                      devices.deny devices.allow
//! kill       cgroup.kill                        SIGKILL to each, until none is left
//! ```

mod delegated;
mod device;
mod hierarchy;
mod huge;
mod limits;
mod scope;
mod warm;
mod weight;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hierarchy::Hierarchy;
use rustix::fs::{Access, AtFlags};

use super::userns;

pub use delegated::{
    enter as enter_delegated, is_of as is_delegated_to, remove as remove_delegated,
};
pub use limits::{BlockDevice, DeviceAccess, DevicePolicy, Limits};
pub use scope::{Scope, of_root as scope_of_root, stand_in};
pub use warm::warm_up;

/// A cgroup operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {verb} the cgroup `{path}`")]
    Io {
        verb: &'static str,
        path: String,
        source: io::Error,
    },
    #[error("cannot find the machine's cgroup hierarchies")]
    Hierarchies { source: io::Error },
    #[error(
        "this machine has no cgroup controller `{controller}`, which the limit `{limit}` needs"
    )]
    NoController {
        controller: &'static str,
        limit: &'static str,
    },
    #[error(
        "the cgroup `{path}` is not given the controller `{controller}`, which the limit `{limit}` needs"
    )]
    NotGiven {
        path: String,
        controller: &'static str,
        limit: &'static str,
        source: io::Error,
    },
    #[error("the cgroup path `{path}` is not a relative path of plain names")]
    Path { path: String },
    #[error("processes in the cgroup `{path}` do not die")]
    Busy { path: String },
}

/// The result of a cgroup operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Which version of cgroups sets the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// What a pod may have a limit of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Cpu,
    Memory,
    HugePages,
}

/// What limits a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Cpu,
    CpuAccounting,
    Memory,
    Pids,
    Devices,
    HugePages,
    /// Counted; nothing of it is limited.
    Io,
}

/// The machine's cgroup hierarchies.
#[derive(Clone, Debug)]
pub struct Hierarchies(Arc<Vec<Hierarchy>>);

impl Hierarchies {
    /// Opens the hierarchies that are mounted now, and not read-only, as they are in containers: there may be none. In a user
    /// namespace nothing of them can be used, but what has been given to the user ([`enter_delegated`]).
    ///
    /// # Errors
    /// There are none, or they cannot be opened.
    pub fn open() -> Result<Self> {
        if !userns::is_initial() {
            return Ok(Self::none());
        }
        let found = hierarchy::find().map_err(|source| Error::Hierarchies { source })?;
        Ok(Self(Arc::new(found)))
    }

    /// For who may make no cgroups: those that are made are nowhere, hold nobody and limit nothing.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::default())
    }

    /// Which version sets the limits; hybrid mode counts as version 1. None if there are no cgroups to be made.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        if self.0.is_empty() {
            None
        } else if self.0.iter().all(Hierarchy::is_v2) {
            Some(Version::V2)
        } else {
            Some(Version::V1)
        }
    }

    /// Which limits are not enforced: in a user namespace there is what has been given, or nothing; and where all is
    /// read-only, none is.
    #[must_use]
    pub fn unenforced(&self) -> Vec<Resource> {
        if userns::is_initial() && !self.0.is_empty() {
            return Vec::new();
        }
        let all = [
            (Resource::Cpu, Controller::Cpu),
            (Resource::Memory, Controller::Memory),
            (Resource::HugePages, Controller::HugePages),
        ];
        let controls = |controller| {
            self.0
                .iter()
                .any(|hierarchy| hierarchy.controls(controller))
        };
        let missing = all
            .into_iter()
            .filter(|(_, controller)| !controls(*controller));
        missing.map(|(resource, _)| resource).collect()
    }

    /// Makes a cgroup with its parents, or takes one that is there, and sets its limits.
    ///
    /// `path` is relative to the root of the hierarchies, `kplay/CLASS/UID/NAME`. Below version 2 a cgroup either has
    /// processes or children with limits, not both.
    ///
    /// # Errors
    /// It cannot be made or a limit cannot be set; then what was made is removed, if it is empty.
    pub fn create(&self, path: &str, limits: &Limits) -> Result<Cgroup> {
        if !is_plain(path) {
            return Err(Error::Path {
                path: path.to_owned(),
            });
        }
        let cgroup = Cgroup {
            hierarchies: self.clone(),
            path: path.to_owned(),
        };
        let made = self
            .0
            .iter()
            .try_for_each(|hierarchy| hierarchy.create(path))
            .map_err(|source| cgroup.error("create", source))
            .and_then(|()| cgroup.set(limits));
        if let Err(error) = made {
            for hierarchy in self.0.iter() {
                // The first failure is the one to tell; a cgroup that is in use stays.
                hierarchy.remove(path).ok();
            }
            return Err(error);
        }
        Ok(cgroup)
    }

    /// A cgroup that is there in at least one hierarchy.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Cgroup> {
        let there = is_plain(path) && self.0.iter().any(|hierarchy| hierarchy.has(path));
        there.then(|| Cgroup {
            hierarchies: self.clone(),
            path: path.to_owned(),
        })
    }
}

/// Where cgroups are mounted, in this thread's mount namespace.
///
/// # Errors
/// The list of mounts cannot be read.
pub fn mount_points() -> Result<Vec<std::path::PathBuf>> {
    hierarchy::mount_points().map_err(|source| Error::Hierarchies { source })
}

/// Whether cgroups of version 1 are mounted, in this thread's mount namespace.
///
/// # Errors
/// The list of mounts cannot be read.
pub fn are_of_version_1() -> Result<bool> {
    hierarchy::has_version_1().map_err(|source| Error::Hierarchies { source })
}

fn is_plain(path: &str) -> bool {
    path.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

/// One cgroup, in all hierarchies that are used. Not removed when dropped.
#[derive(Clone, Debug)]
pub struct Cgroup {
    hierarchies: Hierarchies,
    path: String,
}

impl Cgroup {
    /// Its path, relative to the root of the hierarchies.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What a new process needs to be born in it.
    ///
    /// # Errors
    /// The cgroup is not there.
    pub fn entry(&self) -> Result<CgroupEntry> {
        let mut entry = CgroupEntry::default();
        // Beside hierarchies of version 1 nothing is won by being born in that of version 2, and a birth has to wait for all
        // entries that are under way.
        let born = self.hierarchies.version() == Some(Version::V2);
        for hierarchy in self.all() {
            let opened = if born {
                hierarchy
                    .directory(&self.path)
                    .map(|fd| entry.directory = Some(fd))
            } else {
                hierarchy
                    .open_procs(&self.path)
                    .map(|fd| entry.procs.push(fd))
            };
            opened.map_err(|source| self.error("open", source))?;
        }
        Ok(entry)
    }

    /// Sets these limits; what is `None` stays as it is, and so is what is [`unenforced`](Hierarchies::unenforced).
    ///
    /// # Errors
    /// The machine lacks the controller, or the kernel refuses the value.
    pub fn set(&self, limits: &Limits) -> Result<()> {
        let mut limits = limits.clone();
        for resource in self.hierarchies.unenforced() {
            match resource {
                Resource::Cpu => {
                    (limits.cpu_shares, limits.cpu_weight) = (None, None);
                    (limits.cpu_quota_us, limits.cpu_period_us) = (None, None);
                }
                Resource::Memory => limits.memory_bytes = None,
                Resource::HugePages => limits.huge_pages = None,
            }
        }
        limits::apply(self, &limits)
    }

    /// The processes in it and in the cgroups below it.
    ///
    /// # Errors
    /// It cannot be read; one that is not there has none.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let Some(hierarchy) = self.tracking() else {
            return Ok(Vec::new());
        };
        hierarchy
            .pids(&self.path)
            .map_err(|source| self.error("read", source))
    }

    /// Sends SIGKILL to all processes in it and below it, also to those that are being born. Does not wait for their
    /// end. One that is not there has none.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&self) -> Result<()> {
        let Some(hierarchy) = self.tracking() else {
            return Ok(());
        };
        hierarchy
            .kill(&self.path)
            .map_err(|source| self.error("kill", source))
    }

    /// Waits until no process is in it or below it; says whether that is so.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn wait_empty(&self, timeout: Duration) -> Result<bool> {
        let Some(hierarchy) = self.tracking() else {
            return Ok(true);
        };
        hierarchy
            .wait_empty(&self.path, Instant::now() + timeout)
            .map_err(|source| self.error("watch", source))
    }

    /// Removes it and the cgroups below it. Waits up to two seconds for processes that are dying; fine if it is gone.
    ///
    /// # Errors
    /// Processes live in it.
    pub fn remove(&self) -> Result<()> {
        self.remove_then(|_| ())
    }

    /// The same, and those above it as far as it was the last in them.
    ///
    /// # Errors
    /// Processes live in it.
    pub fn remove_with_parents(&self) -> Result<()> {
        self.remove_then(|hierarchy| hierarchy.remove_parents(&self.path))
    }

    fn remove_then(&self, then: impl Fn(&Hierarchy)) -> Result<()> {
        const LONGEST: Duration = Duration::from_secs(2);
        let deadline = Instant::now() + LONGEST;
        for hierarchy in self.all() {
            let mut pause = Duration::from_micros(200);
            loop {
                match hierarchy.remove(&self.path) {
                    Ok(()) => {
                        then(hierarchy);
                        break;
                    }
                    Err(e) if e.raw_os_error() != Some(libc::EBUSY) => {
                        return Err(self.error("remove", e));
                    }
                    Err(_) if Instant::now() >= deadline => {
                        return Err(Error::Busy {
                            path: self.path.clone(),
                        });
                    }
                    Err(_) => {
                        hierarchy
                            .wait_empty(&self.path, deadline)
                            .map_err(|source| self.error("watch", source))?;
                        // The kernel may still be taking down the last process where it counts as gone, and tells
                        // nobody when it has: the pause doubles up to the deadline.
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(50));
                    }
                }
            }
        }
        Ok(())
    }

    /// How many of its processes were killed because it had used up its memory.
    ///
    /// # Errors
    /// It cannot be read; without a memory controller there are none.
    pub fn oom_kills(&self) -> Result<u64> {
        let file = match self.with(Controller::Memory) {
            Some(hierarchy) if hierarchy.is_v2() => "memory.events",
            Some(_) => "memory.oom_control",
            None => return Ok(0),
        };
        let text = self.read(Controller::Memory, file)?;
        Ok(keyed(&text, "oom_kill").unwrap_or(0))
    }

    /// Bytes of memory in use, with the page cache; nothing without a memory controller.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn memory_current(&self) -> Result<Option<u64>> {
        self.number(
            Controller::Memory,
            "memory.current",
            "memory.usage_in_bytes",
        )
    }

    /// Bytes of memory in use that cannot be taken away without harm: without the page cache that has not been used of
    /// late, as a kubelet counts a working set. Nothing without a memory controller.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn working_set(&self) -> Result<Option<u64>> {
        let Some(current) = self.memory_current()? else {
            return Ok(None);
        };
        let v2 = self.with(Controller::Memory).is_some_and(Hierarchy::is_v2);
        let key = if v2 {
            "inactive_file"
        } else {
            "total_inactive_file"
        };
        let inactive = keyed(&self.read(Controller::Memory, "memory.stat")?, key);
        Ok(Some(current.saturating_sub(inactive.unwrap_or(0))))
    }

    /// The cgroups right below it, by their names.
    ///
    /// # Errors
    /// It cannot be read; one that is not there has none.
    pub fn children(&self) -> Result<Vec<Self>> {
        let Some(hierarchy) = self.tracking() else {
            return Ok(Vec::new());
        };
        let paths = hierarchy
            .children(&self.path)
            .map_err(|source| self.error("list", source))?;
        let child = |path| Self {
            hierarchies: self.hierarchies.clone(),
            path,
        };
        Ok(paths.into_iter().map(child).collect())
    }

    /// The one above it, if there is one.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.path.rsplit_once('/')?;
        Some(Self {
            hierarchies: self.hierarchies.clone(),
            path: parent.to_owned(),
        })
    }

    /// Its name, the last part of its path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it is gone by now.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.tracking().is_none()
    }

    /// Processes and threads in it; nothing without a pids controller.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn pids_current(&self) -> Result<Option<u64>> {
        self.number(Controller::Pids, "pids.current", "pids.current")
    }

    /// Processor time that it has used, in microseconds; nothing without accounting.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn cpu_usage(&self) -> Result<Option<u64>> {
        if let Some(hierarchy) = self.all().find(|hierarchy| hierarchy.is_v2()) {
            // Counted also where the controller is not enabled.
            let text = hierarchy
                .read(&self.path, "cpu.stat")
                .map_err(|source| self.error("read", source))?;
            return Ok(keyed(&text, "usage_usec"));
        }
        let nanoseconds = self.number(Controller::CpuAccounting, "", "cpuacct.usage")?;
        Ok(nanoseconds.map(|n| n / 1000))
    }

    fn number(
        &self,
        controller: Controller,
        v2: &'static str,
        v1: &'static str,
    ) -> Result<Option<u64>> {
        let Some(hierarchy) = self.with(controller) else {
            return Ok(None);
        };
        let text = self.read(controller, if hierarchy.is_v2() { v2 } else { v1 })?;
        Ok(text.trim().parse().ok())
    }

    fn read(&self, controller: Controller, file: &str) -> Result<String> {
        let Some(hierarchy) = self.with(controller) else {
            return Ok(String::new());
        };
        hierarchy
            .read(&self.path, file)
            .map_err(|source| self.error("read", source))
    }

    fn all(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.0.iter()
    }

    /// The hierarchy that has this controller.
    fn with(&self, controller: Controller) -> Option<&Hierarchy> {
        self.all().find(|hierarchy| hierarchy.controls(controller))
    }

    /// The hierarchy that knows best which processes are in it.
    fn tracking(&self) -> Option<&Hierarchy> {
        let there = |hierarchy: &&Hierarchy| hierarchy.has(&self.path);
        self.all()
            .filter(|hierarchy| hierarchy.is_v2())
            .find(there)
            .or_else(|| self.all().find(there))
    }

    fn error(&self, verb: &'static str, source: io::Error) -> Error {
        Error::Io {
            verb,
            path: self.path.clone(),
            source,
        }
    }
}

/// The number after `key` in a file of `key number` lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// What a new process needs to be born in a cgroup: descriptors, so it works where the cgroups are hidden.
#[derive(Debug, Default)]
pub struct CgroupEntry {
    /// Of version 2 alone, for `CLONE_INTO_CGROUP`.
    directory: Option<OwnedFd>,
    /// Of version 1 and hybrid mode: each hierarchy's `cgroup.procs`.
    procs: Vec<OwnedFd>,
}

impl CgroupEntry {
    /// Whether the cgroup has been removed since this was made. Of version 1 that is not known.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let procs = |fd| rustix::fs::accessat(fd, "cgroup.procs", Access::EXISTS, AtFlags::empty());
        self.directory.as_ref().is_some_and(|fd| procs(fd).is_err())
    }

    pub(super) fn directory(&self) -> Option<RawFd> {
        self.directory.as_ref().map(|fd| fd.as_raw_fd())
    }

    /// Moves the calling process into the cgroups that it was not born in. Only system calls: runs in a forked child.
    pub(super) fn enter(&self) -> io::Result<()> {
        for fd in &self.procs {
            // "0" is the writer itself, whatever its pid namespace.
            rustix::io::write(fd, b"0")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
