//! Cgroups for who is not root: a part of the tree of version 2 that has been given to the user.
//!
//! ```text
//! …/user@1000.service/…/kplay-UID.scope   the user's systemd makes it
//! …/kplay-UID                             without: beside this process's own, where the one above both is the user's
//!   _executor                             this process: who hands controllers down has no processes itself
//!   kplay/UID/…                           the pod, as everywhere
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::hierarchy::{self, Hierarchy};
use super::{Error, Hierarchies, Result};
use crate::sys::{systemd, userns};

/// The cgroup of a process that divides the one above it.
pub(super) const OWN: &str = "_executor";

/// Moves this process into a cgroup of its own, `name`, that it may divide, and returns its folder. None if it is root, or
/// nothing is given to it: then the reason is traced.
pub fn enter(name: &str) -> Option<PathBuf> {
    if userns::is_initial() {
        return None;
    }
    match try_enter(name) {
        Ok(folder) => folder,
        Err(error) => {
            // Limits are not enforced then, which is told if there are any.
            tracing::info!(%error, "no cgroup of its own");
            None
        }
    }
}

fn try_enter(name: &str) -> io::Result<Option<PathBuf>> {
    let Some(mount) = hierarchy::only_version_2()? else {
        return Ok(None);
    };
    let scope = format!("kplay-{name}.scope");
    let uid = userns::outer_uid();
    let asked = systemd::start_scope(&systemd::Scope {
        manager: systemd::Manager::OfUser(uid),
        name: &scope,
        slice: None,
        description: "a pod of kplay",
        pid: std::process::id(),
    });
    let folder = match asked {
        Ok(Some(())) => is_in(&mount, "self", &scope)?,
        Ok(None) => beside_own(&mount, &format!("kplay-{name}"))?,
        Err(error) => {
            tracing::info!(%error, "systemd gives no scope");
            beside_own(&mount, &format!("kplay-{name}"))?
        }
    };
    let own = folder.join(OWN);
    match std::fs::create_dir(&own) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    std::fs::write(own.join("cgroup.procs"), "0")?;
    Ok(Some(folder))
}

/// The path of a process's cgroup from the root of the tree. The process is named as in `/proc`.
pub(super) fn own_path(process: &str) -> io::Result<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    Ok(path.into())
}

/// Waits until a process is in a scope, and returns its folder: systemd moves the process a moment after it has agreed, and
/// tells nobody without a bus.
pub(super) fn is_in(mount: &Path, process: &str, scope: &str) -> io::Result<PathBuf> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(200);
    loop {
        let folder = mount.join(own_path(process)?);
        if folder.ends_with(scope) {
            return Ok(folder);
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "systemd agreed to a scope and did not make it",
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn beside_own(mount: &Path, name: &str) -> io::Result<PathBuf> {
    let own = mount.join(own_path("self")?);
    // The root of a namespace has nothing above it that can be seen.
    let above = own
        .parent()
        .filter(|above| above.starts_with(mount))
        .ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))?;
    let folder = above.join(name);
    std::fs::create_dir(&folder)?;
    hierarchy::hand_down(above);
    Ok(folder)
}

impl Hierarchies {
    /// What a pod's cgroups are in, by the folder; none if it is gone.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn of_executor(folder: &Path) -> Result<Option<Self>> {
        match Hierarchy::delegated(folder) {
            Ok(hierarchy) => Ok(Some(Self(vec![hierarchy].into()))),
            // Also while it is opened.
            Err(e) if hierarchy::is_gone(&e) => Ok(None),
            Err(source) => Err(Error::Hierarchies { source }),
        }
    }
}

/// Whether a folder was given to the executor of this name alone. What all of root's pods are in is systemd's to remove.
#[must_use]
pub fn is_of(folder: &Path, name: &str) -> bool {
    let last = folder.file_name().and_then(|last| last.to_str());
    let own = last.and_then(|last| last.strip_prefix("kplay-"));
    own.is_some_and(|own| own.strip_suffix(".scope").unwrap_or(own) == name)
}

/// Removes what an executor that has ended was given; fine if it is gone, as it is where systemd gave it. Waits up to two
/// seconds for processes that are dying.
///
/// # Errors
/// Processes live in it.
pub fn remove(folder: &Path) -> Result<()> {
    const LONGEST: Duration = Duration::from_secs(2);
    let deadline = Instant::now() + LONGEST;
    loop {
        match remove_tree(folder) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                // The kernel tells nobody when it has taken down the last process.
                std::thread::sleep(Duration::from_millis(10));
            }
            other => {
                return other.map_err(|source| Error::Io {
                    verb: "remove",
                    path: folder.display().to_string(),
                    source,
                });
            }
        }
    }
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if hierarchy::is_gone(&e) => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = match entry {
            // Removed by somebody else meanwhile.
            Err(e) if hierarchy::is_gone(&e) => return Ok(()),
            other => other?,
        };
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(folder) {
        Err(e) if hierarchy::is_gone(&e) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_to_an_executor_has_its_name() {
        let check = |folder: &str, expected: bool| {
            let folder = Path::new("/sys/fs/cgroup").join(folder);
            assert_eq!(is_of(&folder, "4fd6-2c"), expected, "{folder:?}");
        };
        check("user.slice/kplay-4fd6-2c", true);
        check("user@7.service/app.slice/kplay-4fd6-2c.scope", true);
        check("user.slice/kplay-4fd6", false);
        check("kplay-pods.scope", false);
        check("kplay", false);
    }
}
