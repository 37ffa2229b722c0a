//! What pods know of each other: one file per pod, written by its executor, and one that changes with the Services.
//!
//! ```text
//! RUNROOT/endpoints/KEY.json   a pod's peer record (versioned); there as long as its executor says what it is
//! RUNROOT/endpoints/services   which records of Services there are, each as it was told last: if this changes, they are
//!                              read anew
//! ```
//!
//! Every executor watches this one folder. All functions take the folder, since an executor knows no more than that.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::Error;
use super::layout::{self, Layout};
use super::{object, record};
use crate::model::cluster::Peer;
use crate::model::names::PodKey;
use crate::sys::fs::{self, Lock, LockMode};
use crate::sys::lockfile;

/// The name of the file that changes with the Services.
pub const SERVICES: &str = "services";

/// The name of a pod's file.
#[must_use]
pub fn file_name(key: &PodKey) -> OsString {
    format!("{}.json", layout::file_name(key)).into()
}

fn path(folder: &Path, key: &PodKey) -> PathBuf {
    folder.join(file_name(key))
}

/// What is written in a pod's file; nothing if it is gone or cannot be read.
#[must_use]
pub fn read(path: &Path) -> Option<Peer> {
    match record::read(path, || format!("remove {path:?}")) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(%error, "cannot read what a pod says of itself");
            None
        }
    }
}

/// Writes what others have to know of a pod. Only the pod's executor does, which holds its lock.
///
/// # Errors
/// It cannot be written.
pub fn write(folder: &Path, peer: &Peer) -> Result<(), Error> {
    fs::create_dir_all(folder, 0o700)?;
    let _others = lock(folder)?;
    record::write_in_memory(&path(folder, &peer.key()), peer)
}

/// Excludes those who write, and those who remove what the dead have written, for the time of few system calls.
fn lock(folder: &Path) -> Result<Lock, Error> {
    Ok(fs::lock_existing(folder, LockMode::Exclusive)?)
}

/// Removes what is written of a pod if nobody holds its executor's lock: what a new executor writes stays. Returns
/// whether the executor is dead.
///
/// # Errors
/// It cannot be removed.
pub fn remove_of_dead(folder: &Path, key: &PodKey, executor_lock: &Path) -> Result<bool, Error> {
    let _others = lock(folder)?;
    let is_dead = !lockfile::is_held(executor_lock)?;
    if is_dead {
        remove(folder, key)?;
    }
    Ok(is_dead)
}

/// Removes what is written of a pod, and what its executor was about to write when it was killed; fine if there is
/// nothing.
///
/// # Errors
/// It cannot be removed.
pub fn remove(folder: &Path, key: &PodKey) -> Result<(), Error> {
    fs::remove_file(&path(folder, key))?;
    remove_unfinished(folder, file_name(key))
}

/// Removes what somebody was about to write in a file when it was killed.
fn remove_unfinished(folder: &Path, file: impl AsRef<OsStr>) -> Result<(), Error> {
    let file = file.as_ref().to_str();
    for name in fs::list(folder)? {
        let target = fs::target_of_unfinished(&name);
        if target.is_some() && target == file {
            fs::remove_file(&folder.join(name))?;
        }
    }
    Ok(())
}

/// All that is written, by key. A file that cannot be read hides no other.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<Peer>, Error> {
    let mut peers = Vec::new();
    for name in fs::list(folder)? {
        let text = name.to_string_lossy();
        // A file that is being written has a name that starts with a dot.
        if text.starts_with('.') || !text.ends_with(".json") {
            continue;
        }
        peers.extend(read(&folder.join(&name)));
    }
    peers.sort_by_cached_key(Peer::key);
    Ok(peers)
}

/// Tells all executors which Services there are, if that is new. To be called whenever records of Services were written
/// or removed; and later for whoever was killed before it could.
///
/// # Errors
/// The file cannot be written.
pub fn tell_services(layout: &Layout) -> Result<(), Error> {
    let folder = layout.endpoints();
    let path = folder.join(SERVICES);
    let [objects, _] = layout.objects();
    let untold = || -> Result<Option<String>, Error> {
        let now = object::fingerprint_of_services(&objects)?;
        let told = fs::read_if_there(&path)?;
        Ok((told.as_deref() != Some(now.as_bytes())).then_some(now))
    };
    if untold()?.is_none() {
        return Ok(());
    }
    fs::create_dir_all(&folder, 0o700)?;
    // Whoever is killed with this has told nothing, so that the next one comes here.
    let _others = lock(&folder)?;
    remove_unfinished(&folder, SERVICES)?;
    match untold()? {
        Some(now) => Ok(fs::replace_in_memory(&path, 0o600, now.as_bytes())?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::model::cluster::{PeerPort, PeerState};
    use crate::model::names::{Namespace, PodName};
    use crate::model::plan::Protocol;
    use crate::state::testing::{Scratch, key};

    fn peer(name: &str) -> Peer {
        Peer {
            namespace: Namespace::default(),
            name: PodName::parse(name).unwrap(),
            ips: vec![[10, 0, 0, 2].into()],
            labels: [("app".into(), "web".into())].into(),
            hostname: None,
            subdomain: Some("web".into()),
            ports: vec![PeerPort {
                name: "http".into(),
                port: 80,
                protocol: Protocol::Tcp,
            }],
            state: PeerState::Ready,
        }
    }

    #[test]
    fn peers_are_written_listed_and_removed_and_a_corrupt_one_hides_no_other() {
        let scratch = Scratch::new();
        let folder = scratch.layout().endpoints();
        assert_eq!(list(&folder).unwrap(), []);
        remove(&folder, &key("b")).unwrap();
        for name in ["b", "a"] {
            write(&folder, &peer(name)).unwrap();
        }
        tell_services(&scratch.layout()).unwrap();
        assert_eq!(list(&folder).unwrap(), [peer("a"), peer("b")]);
        let changed = Peer {
            state: PeerState::Terminating,
            ..peer("a")
        };
        write(&folder, &changed).unwrap();
        fs::replace(&path(&folder, &key("c")), 0o600, b"{").unwrap();
        assert_eq!(list(&folder).unwrap(), [changed, peer("b")]);
        fs::replace(&folder.join(".default_a.json.1.2"), 0o600, b"{").unwrap();
        remove(&folder, &key("a")).unwrap();
        assert_eq!(list(&folder).unwrap(), [peer("b")]);
        assert!(!folder.join(".default_a.json.1.2").exists());
        let text = fs::read(&path(&folder, &key("b"))).unwrap();
        assert!(text.starts_with(b"{\"version\":1,"));
    }

    #[test]
    fn services_are_told_if_they_are_new() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let record = |name: &str| layout.objects()[0].join("default/service").join(name);
        let told = || {
            tell_services(&layout).unwrap();
            let path = layout.endpoints().join(SERVICES);
            let metadata = fs::metadata_if_there(&path).unwrap().unwrap();
            (fs::read(&path).unwrap(), metadata.ino())
        };
        let write = |name: &str| {
            fs::create_dir_all(record(name).parent().unwrap(), 0o700).unwrap();
            fs::replace(&record(name), 0o600, b"{}").unwrap();
        };
        let none = told();
        assert_eq!(told(), none);
        write("a.json");
        let one = told();
        assert_ne!(one.0, none.0);
        // The same content is another record.
        write("a.json");
        let other = told();
        assert_ne!(other.0, one.0);
        write(".b.json.1");
        assert_eq!(told(), other);
        // Somebody was killed before it had told so.
        let unfinished = layout.endpoints().join(".services.1.2");
        fs::replace(&unfinished, 0o600, b"x").unwrap();
        write("b.json");
        assert_ne!(told().0, other.0);
        assert!(!unfinished.exists());
        fs::remove_file(&record("b.json")).unwrap();
        assert_eq!(told().0, other.0);
    }

    #[test]
    fn what_a_dead_executor_has_told_is_removed_and_what_a_living_one_tells_stays() {
        let scratch = Scratch::new();
        let (folder, lock) = (scratch.layout().endpoints(), scratch.path("lock"));
        write(&folder, &peer("a")).unwrap();
        let held = lockfile::take(&lock).unwrap();
        assert!(!remove_of_dead(&folder, &key("a"), &lock).unwrap());
        assert_eq!(list(&folder).unwrap(), [peer("a")]);
        drop(held);
        assert!(remove_of_dead(&folder, &key("a"), &lock).unwrap());
        assert_eq!(list(&folder).unwrap(), []);
        assert!(remove_of_dead(&folder, &key("a"), &lock).unwrap());
    }
}
