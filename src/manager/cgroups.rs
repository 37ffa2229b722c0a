//! Where the cgroup of a pod is, in a kubelet's tree: among the machine's, in the scope that systemd gives to root's pods, or
//! in what the executor of somebody else than root was given.
//!
//! ```text
//! kplay/UID               a guaranteed pod
//! kplay/burstable/UID     together they weigh what they weigh one by one
//! kplay/besteffort/UID    together they weigh the least that there is
//! ```

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::error::Error;
use crate::model::status::QosClass;
use crate::state::pod_dir::PodDir;
use crate::sys::cgroup::{self, Cgroup, Hierarchies};
use crate::sys::fs;

/// The cgroup of all pods.
const ALL: &str = "kplay";

/// The cgroup of the pod with this uid and of this class, from the root of the hierarchies.
pub(super) fn path(uid: &str, class: QosClass) -> String {
    match class.cgroup() {
        Some(name) => format!("{ALL}/{name}/{uid}"),
        None => format!("{ALL}/{uid}"),
    }
}

/// The folder that is the root of the pod's hierarchies; none if that is the machine's, or if it has none.
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
    // What says the pod's class may not be readable any more.
    let classes = [
        QosClass::Burstable,
        QosClass::BestEffort,
        QosClass::Guaranteed,
    ];
    let places = || classes.map(|class| path(uid, class));
    Ok(hierarchies.and_then(|all| places().iter().find_map(|path| all.find(path))))
}

/// Removes the cgroup of a pod of which nobody is left, and those of its class and of all pods if it was the last in them.
///
/// # Errors
/// Processes live in it.
pub(super) fn remove(pod: &Cgroup) -> cgroup::Result<()> {
    pod.remove_with_parents()?;
    let burstable = pod
        .parent()
        .filter(|parent| Some(parent.name()) == QosClass::Burstable.cgroup());
    burstable.map_or(Ok(()), |class| class.weigh_together())
}

fn failed(error: cgroup::Error) -> Error {
    Error::Io {
        verb: "open the pod's cgroup",
        source: std::io::Error::other(error),
    }
}
