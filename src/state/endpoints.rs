//! What pods know of each other: one file per pod, written by its executor, and one that changes with the Services.
//!
//! ```text
//! RUNROOT/endpoints/KEY.json   a pod's peer record (versioned); there as long as its executor says what it is
//! RUNROOT/endpoints/services   another content after Services were written or removed: read their records anew
//! ```
//!
//! Every executor watches this one folder. All functions take the folder, since an executor knows no more than that.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use super::{layout, record};
use crate::model::cluster::Peer;
use crate::model::names::PodKey;
use crate::sys::{fs, identity};

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

/// Writes what others have to know of a pod. Only the pod's executor does.
///
/// # Errors
/// It cannot be written.
pub fn write(folder: &Path, peer: &Peer) -> Result<(), Error> {
    fs::create_dir_all(folder, 0o700)?;
    record::write_in_memory(&path(folder, &peer.key()), peer)
}

/// Removes what is written of a pod, and what its executor was about to write when it was killed; fine if there is
/// nothing.
///
/// # Errors
/// It cannot be removed.
pub fn remove(folder: &Path, key: &PodKey) -> Result<(), Error> {
    fs::remove_file(&path(folder, key))?;
    let unfinished = format!(".{}.", file_name(key).to_string_lossy());
    for name in fs::list(folder)? {
        if name.to_string_lossy().starts_with(&unfinished) {
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

/// Tells all executors that Services were written or removed.
///
/// # Errors
/// The file cannot be written.
pub fn touch(folder: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| fs::Error::new("make a value for", folder, source);
    let value = identity::random_uuid().map_err(failed)?;
    fs::create_dir_all(folder, 0o700)?;
    Ok(fs::replace_in_memory(
        &folder.join(SERVICES),
        0o600,
        value.as_bytes(),
    )?)
}

#[cfg(test)]
mod tests {
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
        touch(&folder).unwrap();
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
    fn every_touch_is_another_value() {
        let scratch = Scratch::new();
        let folder = scratch.layout().endpoints();
        let value = || {
            touch(&folder).unwrap();
            fs::read(&folder.join(SERVICES)).unwrap()
        };
        assert_ne!(value(), value());
    }
}
