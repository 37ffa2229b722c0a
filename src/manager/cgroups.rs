//! Where the cgroup of a pod is: among the machine's, or in what the executor of somebody else than root was given.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::error::Error;
use super::launch;
use crate::state::pod_dir::PodDir;
use crate::sys::cgroup::{self, Cgroup, Hierarchies};
use crate::sys::fs;

/// The folder that the pod's executor was given; none if the pod's cgroup is among the machine's, or if it has none.
///
/// # Errors
/// The note of it cannot be read.
pub(super) fn given(dir: &PodDir) -> Result<Option<PathBuf>, Error> {
    let note = fs::read_if_there(&dir.paths().cgroup())?;
    Ok(note.map(|folder| PathBuf::from(OsString::from_vec(folder))))
}

/// The cgroup of the pod with this uid, if there is one.
///
/// # Errors
/// It cannot be opened.
pub(super) fn of_pod(dir: &PodDir, uid: &str) -> Result<Option<Cgroup>, Error> {
    let hierarchies = match given(dir)? {
        Some(folder) => Hierarchies::of_executor(&folder).map_err(failed)?,
        // A machine without cgroups has none.
        None => Hierarchies::open().ok(),
    };
    Ok(hierarchies.and_then(|all| all.find(&launch::cgroup(uid))))
}

fn failed(error: cgroup::Error) -> Error {
    Error::Io {
        verb: "open the pod's cgroup",
        source: std::io::Error::other(error),
    }
}
