//! Cleaning up after crashes: what every command does first, in a few system calls per pod.
//!
//! An executor that was killed may leave processes, a cgroup, mounts; a `delete` that was cut off leaves a pod whose
//! folder says `deleting`. Pods at which another command is at work are left to it, and so is the network: nothing here
//! waits for anybody. The folder of a pod that was swept
//! says `swept`, so that it is done once.

use super::error::Error;
use super::report::{Event, Report, pod_object};
use super::{ephemeral, jobs, stop};
use crate::network;
use crate::state::layout::Layout;
use crate::state::lock::{Locks, Subject};
use crate::state::pod_dir::{self, Found, Liveness, PodDir};
use crate::state::{endpoints, ids, object};

/// Cleans up after all pods whose executor is dead, and after commands that were.
///
/// Returns what could not be cleaned up: it stands in nobody's way until its own pod is touched.
///
/// # Errors
/// The folder of pods cannot be read.
pub fn sweep(layout: &Layout, report: Report<'_>) -> Result<Vec<Error>, Error> {
    let mut errors = Vec::new();
    for found in pod_dir::list(layout)? {
        // One whose name is not known is told by `get`, and not touched.
        let Found::Pod(dir) = found else { continue };
        if let Err(error) = sweep_pod(layout, &dir, report) {
            errors.push(error);
        }
    }
    if let Err(error) = network::sweep_unless_busy(&layout.network()) {
        errors.push(error.into());
    }
    if let Err(error) = object::sweep(layout) {
        errors.push(error.into());
    }
    // For a command that was killed after it had written them.
    if layout.endpoints().exists()
        && let Err(error) = endpoints::tell_services(layout)
    {
        errors.push(error.into());
    }
    Ok(errors)
}

fn sweep_pod(layout: &Layout, dir: &PodDir, report: Report<'_>) -> Result<(), Error> {
    // A pod at which another command is at work is left to it.
    if !is_unswept(dir) || dir.liveness()? != Liveness::Dead {
        return Ok(());
    }
    let subjects = ephemeral::subjects(dir);
    let subjects = subjects
        .into_iter()
        .chain(jobs::subject(dir))
        .chain([Subject::Pod(dir.key().clone())]);
    let Some(locks) = Locks::try_take(layout, subjects)? else {
        return Ok(());
    };
    let Some(locked) = locks.pod(dir.key()) else {
        return Ok(());
    };
    // Another command may have been here before the lock was had.
    if !is_unswept(dir) || dir.has_executor()? {
        return Ok(());
    }
    if dir.paths().deleting().exists() {
        stop::remove(&locks, &locked)?;
        report(Event::Deleted(pod_object(dir.key())));
        return Ok(());
    }
    if !dir.paths().record().exists() {
        return stop::remove(&locks, &locked);
    }
    stop::clean_up(layout, &locked)?;
    // Nobody runs with them any more.
    ids::give_back(dir.paths())?;
    Ok(locked.mark_swept()?)
}

fn is_unswept(dir: &PodDir) -> bool {
    let paths = dir.paths();
    // Without its run folder, too: the machine has started anew and nothing is left, or somebody has removed the folder
    // and the pod runs on.
    !paths.swept().exists() || paths.deleting().exists()
}
