//! What a command of somebody who is not root does first: it becomes root of a user namespace, in which the user's ids
//! and the subordinate ones (/etc/subuid, /etc/subgid) are. So does a root who may not administer the machine, as in most
//! containers: that has the container's ids, if it may give them.
//!
//! ```text
//! RUNROOT/members/lock   flock: somebody looks for the namespace, or makes it
//! RUNROOT/members/PID    flock: a command that is in it lives
//! ```
//!
//! All of a user's pods and commands that have state folders in common are in one namespace: who is in another could not
//! end their processes. It is found through any of them, or what is left of them, and made anew, with the same ids, when
//! none lives. Nothing stays to keep it.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::ids::subordinate;
use crate::state::layout::Layout;
use crate::state::pod_dir::{self, Found};
use crate::sys::fs::{self, LockMode};
use crate::sys::lockfile::{self, PidLock};
use crate::sys::{capability, identity, inhabitants, userns};

/// Why the namespace cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make a user namespace for your pods")]
    Make(#[source] userns::Error),
    #[error("cannot enter the user namespace of your pods")]
    Enter(#[source] std::io::Error),
    #[error("the folder `{}` is not yours alone", .0.display())]
    Foreign(PathBuf),
    #[error(transparent)]
    File(#[from] fs::Error),
    #[error(transparent)]
    State(#[from] crate::state::Error),
}

/// A command that has entered. Others find the namespace through it as long as this lives.
#[derive(Debug)]
pub struct Member {
    path: PathBuf,
    _lock: PidLock,
    /// Why there is nobody but root in it, if that is so.
    pub alone: Option<String>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            // The next command does.
            tracing::debug!(%error, "a command's lock file stays");
        }
    }
}

/// Makes this process root of the user's namespace, if it cannot do without. It must have one thread.
///
/// # Errors
/// The kernel refuses, or the ids are not given.
pub fn enter(layout: &Layout) -> Result<Option<Member>, Error> {
    if capability::may_administer() {
        return Ok(None);
    }
    let members = layout.members();
    // First what may not be the user's: where nothing can be kept, nothing is left in the other folder.
    fs::create_dir_all(layout.root(), 0o700)?;
    fs::create_dir_all(&members, 0o700)?;
    // It may be in a folder in which everybody makes folders.
    for folder in [layout.runroot(), &members] {
        if !fs::is_own(folder)? {
            return Err(Error::Foreign(folder.to_owned()));
        }
    }
    let _looking = fs::lock(&members.join(LOCK), LockMode::Exclusive)?;
    let (namespace, alone) = match find(layout, &members)? {
        Some(namespace) => (namespace, None),
        None => make()?,
    };
    userns::enter(&namespace).map_err(Error::Enter)?;
    let pid = std::process::id();
    let path = members.join(pid.to_string());
    let lock = lockfile::take(&path)?;
    lock.name(pid)
        .map_err(|e| fs::Error::new("write", &path, e))?;
    Ok(Some(Member {
        path,
        _lock: lock,
        alone,
    }))
}

/// Whether the user's pods end with the user's last session: systemd ends what the user runs and removes the folder of the
/// session, unless the user lingers.
#[must_use]
pub fn end_at_logout(layout: &Layout) -> bool {
    if identity::is_root()
        || !layout.runroot().starts_with("/run/user")
        || !Path::new("/run/systemd/system").exists()
    {
        return false;
    }
    // Where nothing says who the user is, nobody lingers.
    let name = Given::read().map(|given| given.name).unwrap_or_default();
    !Path::new("/var/lib/systemd/linger").join(name).exists()
}

const LOCK: &str = "lock";

/// The namespace that a pod or another command is in. Forgets commands that have ended.
fn find(layout: &Layout, members: &Path) -> Result<Option<OwnedFd>, Error> {
    let pods = pod_dir::list(layout)?;
    let has_pods = !pods.is_empty();
    for found in pods {
        let Found::Pod(dir) = found else { continue };
        if let Some(namespace) = of_holder(&dir.paths().executor_lock())? {
            return Ok(Some(namespace));
        }
    }
    for name in fs::list(members)? {
        if name == LOCK {
            continue;
        }
        let path = members.join(name);
        if let Some(namespace) = of_holder(&path)? {
            return Ok(Some(namespace));
        }
        if !lockfile::is_held(&path)? {
            fs::remove_file(&path)?;
        }
    }
    if has_pods {
        // What killed executors have left can be ended from there only.
        let left = inhabitants::find(&layout.pods_data()).map_err(Error::Enter)?;
        let mut namespaces = left
            .into_iter()
            .filter_map(|pid| userns::of_process(pid).ok().flatten());
        return Ok(namespaces.next());
    }
    Ok(None)
}

/// The namespace of the process that holds a lock.
fn of_holder(lock: &Path) -> Result<Option<OwnedFd>, Error> {
    if !lockfile::is_held(lock)? {
        return Ok(None);
    }
    let pid = lockfile::pid(lock)?.and_then(|pid| i32::try_from(pid).ok());
    // One that ends meanwhile, or has not said yet who it is, was started by one that has.
    let namespace = pid.and_then(|pid| userns::of_process(pid).ok().flatten());
    // What was opened is its own only if it still lives.
    Ok(namespace.filter(|_| lockfile::is_held(lock).unwrap_or_default()))
}

fn make() -> Result<(OwnedFd, Option<String>), Error> {
    if let Some(mapping) = userns::Mapping::of_all() {
        let namespace = userns::make(&mapping).map_err(Error::Make)?;
        return Ok((namespace, None));
    }
    let given = Given::read()?;
    let alone = |why: String| {
        let namespace = userns::make(&userns::Mapping::of_caller_alone()).map_err(Error::Make)?;
        Ok((namespace, Some(why)))
    };
    if given.users.is_empty() || given.groups.is_empty() {
        return alone(format!(
            "/etc/subuid and /etc/subgid give no ids to `{}`",
            given.name
        ));
    }
    match userns::make(&userns::Mapping::of_caller(&given.users, &given.groups)) {
        Ok(namespace) => Ok((namespace, None)),
        Err(userns::Error::NoProgram { program, source })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            alone(format!(
                "there is no `{program}` (Debian: `uidmap`, Fedora: `shadow-utils`)"
            ))
        }
        Err(error) => Err(Error::Make(error)),
    }
}

/// What the machine's files give to the user.
#[derive(Debug, PartialEq, Eq)]
struct Given {
    name: String,
    users: Vec<Range<u32>>,
    groups: Vec<Range<u32>>,
}

impl Given {
    fn read() -> Result<Self, Error> {
        let read = |file: &str| -> Result<String, Error> {
            let content = fs::read_if_there(&Path::new("/etc").join(file))?;
            Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
        };
        let [passwd, subuid, subgid] = [read("passwd")?, read("subuid")?, read("subgid")?];
        Ok(Self::find(identity::uid(), &passwd, &subuid, &subgid))
    }

    fn find(uid: u32, passwd: &str, subuid: &str, subgid: &str) -> Self {
        let number = uid.to_string();
        let name = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == number).then_some(name)
        });
        let name = name.unwrap_or(&number);
        let of_user = |file| {
            let lines = subordinate(file).filter(|(owner, _)| *owner == name || *owner == number);
            lines
                .map(|(_, ids)| ids)
                .filter(|ids| !ids.is_empty())
                .collect()
        };
        Self {
            users: of_user(subuid),
            groups: of_user(subgid),
            name: name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_given_by_name_or_number() {
        let passwd = "root:x:0:0::/:\nme:x:1000:100::/:\n";
        let check = |uid: u32, subuid: &str, expected: (&str, &[Range<u32>])| {
            let given = Given::find(uid, passwd, subuid, "1000:7:9\n");
            assert_eq!((given.name.as_str(), given.users.as_slice()), expected);
            assert_eq!(given.groups.len(), usize::from(uid == 1000));
        };
        let both = "me:100000:65536\nyou:200000:65536\n1000:300000:10\nme:5:0\n";
        check(1000, both, ("me", &[100_000..165_536, 300_000..300_010]));
        check(1001, both, ("1001", &[]));
        check(1000, "", ("me", &[]));
    }
}
