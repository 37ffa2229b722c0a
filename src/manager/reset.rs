//! The end of all that two state folders hold: pods, the network, volumes, images, records.
//!
//! Nobody can apply meanwhile, because that takes the image store, which is this command's alone. What is removed are the
//! folders that [`Layout`](crate::state::layout) names: if somebody keeps more beneath ROOT, or ROOT is a wrong one, that
//! stays.

use std::ffi::OsString;

use super::Manager;
use super::delete::{self, DeleteOptions, Missing, Target, Volumes, Wait};
use super::error::Error;
use super::jobs;
use super::report::{Event, Report, pod_object};
use super::stop::{self, Grace, OnSignal};
use crate::image::Store;
use crate::state::layout::Layout;
use crate::state::lock::{Locks, Subject};
use crate::state::pod_dir::{self, Found};
use crate::sys::{fs, unmount};

/// Ends and removes everything. Returns what else is in the two folders, which stays with them. When a pod does not end,
/// no folder is removed.
///
/// # Errors
/// A pod cannot be ended, or something cannot be removed; [`Error::Interrupted`].
pub fn reset(manager: &Manager, grace: Grace, report: Report<'_>) -> Result<Vec<OsString>, Error> {
    let layout = &manager.layout;
    let failed = |source| Error::Io {
        verb: "lock the image store",
        source: std::io::Error::other(source),
    };
    let stop = manager
        .interrupt
        .stop()
        .map_err(Error::io("handle signals"))?;
    let store = Store::open(&layout.images()).map_err(failed)?.heeding(stop);
    let alone = store.alone().map_err(failed);
    let _alone = alone.map_err(|error| manager.interrupted_or(error))?;
    let options = DeleteOptions {
        grace,
        volumes: Volumes::Delete,
        missing: Missing::Ignore,
        wait: Wait::ForEnd,
    };
    delete::delete(manager, &[Target::All(None)], options, report)?;
    remove_unreadable(manager, report)?;
    delete::sweep_network(manager)?;
    // A removal must not follow a mount into a volume of the machine's.
    for pods in [layout.pods_data(), layout.pods_run()] {
        unmount::beneath(&pods)?;
    }
    remove_folders(layout)
}

/// Pods of which nothing is known but that they have a folder.
fn remove_unreadable(manager: &Manager, report: Report<'_>) -> Result<(), Error> {
    for found in pod_dir::list(&manager.layout)? {
        let dir = match found {
            Found::Pod(dir) => dir,
            Found::Nameless(error) => return Err(error.into()),
        };
        let job = jobs::subject(&dir);
        let locks = Locks::take(
            &manager.layout,
            job.into_iter().chain([Subject::Pod(dir.key().clone())]),
            &manager.interrupt,
            &mut |subject| report(Event::Waiting(subject.clone())),
        )?;
        let stopped = stop::stop_all(manager, &[&dir], Grace::Kill, OnSignal::Stay)?;
        stopped.into_iter().collect::<Result<(), Error>>()?;
        if let Some(locked) = locks.pod(dir.key()) {
            stop::remove(&locks, &locked)?;
            report(Event::Deleted(pod_object(dir.key())));
        }
    }
    Ok(())
}

fn remove_folders(layout: &Layout) -> Result<Vec<OsString>, Error> {
    let mut left = Vec::new();
    for folder in layout.folders() {
        fs::remove_dir_all(&folder)?;
    }
    for folder in [layout.root(), layout.runroot()] {
        let others = fs::list(folder)?;
        if others.is_empty() {
            // A mount point stays.
            if let Err(error) = fs::remove_empty_dir(folder) {
                tracing::debug!(%error, "a state folder stays");
            }
        }
        left.extend(others.into_iter().map(|name| folder.join(name).into()));
    }
    Ok(left)
}
