//! A pod's folders: [`PodDir`] reads, [`LockedPodDir`] is what the holder of the pod's lock may do, [`ExecutorDir`]
//! what its executor may.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Error;
use super::events;
use super::layout::{self, Layout, PodPaths};
use super::record::{self, PodRecord, json};
use crate::model::event::EventSeries;
use crate::model::names::PodKey;
use crate::model::status::{Phase, PodStatus};
use crate::sys::fs::{self, Lock};
use crate::sys::lockfile::{self, PidLock};
use crate::sys::unmount;

/// A pod on disk, as everybody may see it. It may not exist, or only in part.
#[derive(Clone, Debug)]
pub struct PodDir {
    key: PodKey,
    paths: PodPaths,
    lock: std::path::PathBuf,
}

/// Whether somebody takes care of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Its executor runs.
    Alive,
    /// It has no executor, but a command is at work on it.
    Changing,
    /// Neither.
    Dead,
}

/// Since when a pod is being deleted, and how long it has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleting {
    pub since: Timestamp,
    /// Seconds.
    pub grace: u32,
}

impl Deleting {
    /// When the pod is to have ended: an API server's `deletionTimestamp`.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        let grace = Duration::from_secs(self.grace.into());
        self.since.saturating_add(grace).unwrap_or(Timestamp::MAX)
    }
}

impl PodDir {
    /// The folders of this pod.
    #[must_use]
    pub fn new(layout: &Layout, key: &PodKey) -> Self {
        Self {
            key: key.clone(),
            paths: layout.pod(key),
            lock: layout.pod_lock(key),
        }
    }

    /// Which pod it is.
    #[must_use]
    pub fn key(&self) -> &PodKey {
        &self.key
    }

    /// Its files.
    #[must_use]
    pub fn paths(&self) -> &PodPaths {
        &self.paths
    }

    /// Whether anything of it is on disk.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.paths.data().exists() || self.paths.run().exists()
    }

    /// What was applied; `None` if the pod was never recorded.
    ///
    /// # Errors
    /// The record cannot be read, or is corrupt.
    pub fn record(&self) -> Result<Option<PodRecord>, Error> {
        record::read(&self.paths.record(), || self.remedy())
    }

    /// The last status that its executor wrote. [`super::view::PodView`] has the true one.
    ///
    /// # Errors
    /// It cannot be read, or is corrupt.
    pub fn status(&self) -> Result<Option<PodStatus>, Error> {
        match record::read(&self.paths.status(), || self.remedy())? {
            Some(status) => Ok(Some(status)),
            None => record::read(&self.paths.final_status(), || self.remedy()),
        }
    }

    /// What happened to it; what happened last is at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn events(&self) -> Result<Vec<EventSeries>, Error> {
        events::read(&self.paths.events())
    }

    /// Whether somebody takes care of it.
    ///
    /// # Errors
    /// A lock file cannot be opened.
    pub fn liveness(&self) -> Result<Liveness, Error> {
        Ok(if self.has_executor()? {
            Liveness::Alive
        } else if lockfile::is_held(&self.lock)? {
            Liveness::Changing
        } else {
            Liveness::Dead
        })
    }

    /// Whether its executor runs.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn has_executor(&self) -> Result<bool, Error> {
        Ok(lockfile::is_held(&self.paths.executor_lock())?)
    }

    /// Since when it is being deleted, if it is.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn deleting(&self) -> Result<Option<Deleting>, Error> {
        record::read(&self.paths.deleting(), || self.remedy())
    }

    fn remedy(&self) -> String {
        let PodKey { namespace, name } = &self.key;
        if *namespace == crate::model::names::Namespace::default() {
            format!("`kplay delete pod {name} --force` removes it")
        } else {
            format!("`kplay delete pod {name} -n {namespace} --force` removes it")
        }
    }
}

/// A folder of a pod that was found.
#[derive(Debug)]
pub enum Found {
    Pod(PodDir),
    /// A name too long to be its pod's key, and the record that would tell it is not readable.
    Nameless(Error),
}

/// All pods that have a folder, sorted by key.
///
/// # Errors
/// A folder of folders cannot be read.
pub fn list(layout: &Layout) -> Result<Vec<Found>, Error> {
    let mut pods = BTreeMap::new();
    let mut nameless = Vec::new();
    let mut names = fs::list(&layout.pods_data())?;
    names.extend(fs::list(&layout.pods_run())?);
    for name in BTreeSet::from_iter(names) {
        let Some(name) = name.to_str() else { continue };
        let key = match layout::key_of(name) {
            Some(key) => Ok(Some(key)),
            None => key_by_record(layout, name),
        };
        match key {
            Ok(Some(key)) => {
                pods.insert(key.clone(), PodDir::new(layout, &key));
            }
            // Not a pod's, or one that is being made or removed.
            Ok(None) => {}
            Err(error) => nameless.push(Found::Nameless(error)),
        }
    }
    Ok(pods.into_values().map(Found::Pod).chain(nameless).collect())
}

fn key_by_record(layout: &Layout, name: &str) -> Result<Option<PodKey>, Error> {
    let folder = layout.pods_data().join(name);
    let path = PodPaths::at(folder.clone(), layout.pods_run().join(name)).record();
    let record: Option<PodRecord> = record::read(&path, || format!("remove {folder:?}"))?;
    Ok(record.map(|record| record.key()))
}

/// A pod's folders in the hand of whoever holds the pod's lock.
#[derive(Debug)]
pub struct LockedPodDir<'a> {
    dir: PodDir,
    _lock: &'a Lock,
}

impl std::ops::Deref for LockedPodDir<'_> {
    type Target = PodDir;

    fn deref(&self) -> &PodDir {
        &self.dir
    }
}

impl<'a> LockedPodDir<'a> {
    pub(super) fn new(dir: PodDir, lock: &'a Lock) -> Self {
        Self { dir, _lock: lock }
    }

    /// Makes the pod's folders and writes its record: from here on it exists.
    ///
    /// # Errors
    /// They cannot be made or written.
    pub fn create(&self, record: &PodRecord) -> Result<(), Error> {
        fs::create_dir_all(self.paths.data(), 0o700)?;
        record::write(&self.paths.record(), record)?;
        fs::create_dir_all(self.paths.run(), 0o700)?;
        Ok(())
    }

    /// Says that the pod's executor lives, from before it is started on: the lock is handed to it.
    ///
    /// # Errors
    /// The lock file cannot be written.
    pub fn lock_for_executor(&self) -> Result<PidLock, Error> {
        Ok(lockfile::take(&self.paths.executor_lock())?)
    }

    /// Writes what the executor reads first. It holds the content of Secrets.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_launch(&self, launch: &[u8]) -> Result<(), Error> {
        Ok(fs::replace_in_memory(&self.paths.launch(), 0o600, launch)?)
    }

    /// Notes how a pod that has no executor has ended.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_end(&self, status: &PodStatus) -> Result<(), Error> {
        Ok(fs::replace(
            &self.paths.final_status(),
            0o600,
            &json(status),
        )?)
    }

    /// As [`LockedPodDir::write_end`], instead of what the executor wrote before it died.
    pub(super) fn replace_status(&self, status: &PodStatus) -> Result<(), Error> {
        self.write_end(status)?;
        if self.paths.run().exists() {
            fs::replace_in_memory(&self.paths.status(), 0o600, &json(status))?;
        }
        Ok(())
    }

    /// Notes that the pod is being deleted, so that the next command goes on if this one dies. The first note stays, but for
    /// one that leaves the pod less time.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn mark_deleting(&self, note: Deleting) -> Result<(), Error> {
        let stays = matches!(self.deleting(), Ok(Some(first)) if first.until() <= note.until());
        if !stays {
            fs::create_dir_all(self.paths.run(), 0o700)?;
            fs::replace_in_memory(&self.paths.deleting(), 0o600, &json(&note))?;
        }
        Ok(())
    }

    /// Notes that nothing is left of the pod but its files.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn mark_swept(&self) -> Result<(), Error> {
        fs::create_dir_all(self.paths.run(), 0o700)?;
        Ok(fs::replace_in_memory(&self.paths.swept(), 0o600, b"")?)
    }

    /// Undoes mounts in the pod's folders, which a removal would follow into the volumes of the host.
    ///
    /// # Errors
    /// A mount cannot be undone.
    pub fn unmount(&self) -> Result<(), Error> {
        for folder in [self.paths.run(), self.paths.data()] {
            unmount::beneath(folder)?;
        }
        Ok(())
    }

    /// Removes everything but the record. May be done again after it failed or was cut off.
    ///
    /// # Errors
    /// A mount cannot be undone, or something cannot be removed.
    pub fn remove_content(&self) -> Result<(), Error> {
        self.remove_but(&[self.paths.record()])
    }

    fn remove_but(&self, kept: &[PathBuf]) -> Result<(), Error> {
        self.unmount()?;
        for name in fs::list(self.paths.data())? {
            let path = self.paths.data().join(name);
            if kept.contains(&path) {
                continue;
            }
            if path
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.is_dir())
            {
                fs::remove_dir_all(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
        Ok(fs::remove_dir_all(self.paths.run())?)
    }

    /// Removes the record too, corrupt or not: the pod does not exist any more.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        // Whoever looks meanwhile sees how it ended, not a pod that has not begun.
        self.remove_but(&[self.paths.record(), self.paths.final_status()])?;
        fs::remove_file(&self.paths.record())?;
        Ok(fs::remove_dir_all(self.paths.data())?)
    }
}

/// A pod's folders in the hand of its executor.
#[derive(Debug)]
pub struct ExecutorDir {
    paths: PodPaths,
    lock: PidLock,
}

impl ExecutorDir {
    /// The folders of the pod for which this process was started with `lock`, which says that it lives until this is
    /// dropped or the process ends.
    ///
    /// # Errors
    /// The lock file cannot be written.
    pub fn new(paths: PodPaths, lock: PidLock) -> Result<Self, Error> {
        let failed = |e| fs::Error::new("write", paths.executor_lock(), e);
        lock.name(std::process::id()).map_err(failed)?;
        Ok(Self { paths, lock })
    }

    /// As [`ExecutorDir::new`], with a lock of its own.
    #[cfg(test)]
    pub(super) fn take(paths: PodPaths) -> Result<Self, Error> {
        let lock = lockfile::take(&paths.executor_lock())?;
        Self::new(paths, lock)
    }

    /// The pod's files.
    #[must_use]
    pub fn paths(&self) -> &PodPaths {
        &self.paths
    }

    /// Whether others find this process: its lock is where they look for it. Nobody but kplay's own commands removes
    /// it, unless the folder of all pods is removed by hand.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.lock.is_at(&self.paths.executor_lock())
    }

    /// Replaces the pod's status. That of a pod that has ended is kept on disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_status(&self, status: &PodStatus) -> Result<(), Error> {
        let content = json(status);
        // Each is of use without the other, where one of the disks is full.
        let kept = match status.phase {
            Phase::Pending | Phase::Running => Ok(()),
            Phase::Succeeded | Phase::Failed => {
                fs::replace(&self.paths.final_status(), 0o600, &content)
            }
        };
        fs::replace_in_memory(&self.paths.status(), 0o600, &content)?;
        Ok(kept?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::lock::Locks;
    use crate::state::testing::{Scratch, key, record};

    #[test]
    fn a_pod_is_created_run_and_removed() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let dir = PodDir::new(&layout, &key("web-0"));
        assert!(!dir.exists());
        assert_eq!(dir.liveness().unwrap(), Liveness::Dead);
        let locks = Locks::try_pod(&layout, dir.key()).unwrap().unwrap();
        let locked = locks.pod(dir.key()).unwrap();
        locked.create(&record("web-0")).unwrap();
        assert_eq!(dir.liveness().unwrap(), Liveness::Changing);
        assert_eq!(dir.record().unwrap().unwrap(), record("web-0"));
        assert_eq!(dir.status().unwrap(), None);

        let executor = ExecutorDir::take(dir.paths().clone()).unwrap();
        assert_eq!(dir.liveness().unwrap(), Liveness::Alive);
        let ended = PodStatus {
            phase: Phase::Succeeded,
            ..PodStatus::default()
        };
        // As with a full disk under ROOT.
        fs::create_dir_all(&dir.paths().final_status().join("x"), 0o700).unwrap();
        executor.write_status(&ended).unwrap_err();
        assert_eq!(dir.status().unwrap().as_ref(), Some(&ended));
        fs::remove_dir_all(&dir.paths().final_status()).unwrap();
        executor.write_status(&ended).unwrap();
        drop(executor);
        assert_eq!(dir.liveness().unwrap(), Liveness::Changing);
        // A reboot.
        fs::remove_dir_all(dir.paths().run()).unwrap();
        assert_eq!(dir.status().unwrap(), Some(ended));

        let note = |second, grace| Deleting {
            since: Timestamp::from_second(second).unwrap(),
            grace,
        };
        for (marked, stays) in [
            (note(100, 30), note(100, 30)),
            (note(110, 30), note(100, 30)),
            (note(110, 5), note(110, 5)),
        ] {
            locked.mark_deleting(marked).unwrap();
            assert_eq!(dir.deleting().unwrap(), Some(stays));
        }
        assert_eq!(note(110, 5).until(), Timestamp::from_second(115).unwrap());
        fs::create_dir_all(&dir.paths().data().join("volumes/x/y"), 0o700).unwrap();
        locked.remove_content().unwrap();
        assert_eq!(list(&layout).unwrap().len(), 1);
        for _ in 0..2 {
            locked.remove().unwrap();
        }
        assert!(!dir.exists());
        assert!(list(&layout).unwrap().is_empty());
    }

    #[test]
    fn a_pod_with_a_very_long_name_is_found() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let name = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(61),
        ]
        .join(".");
        let locks = Locks::try_pod(&layout, &key(&name)).unwrap().unwrap();
        let locked = locks.pod(&key(&name)).unwrap();
        locked.create(&record(&name)).unwrap();
        let found = list(&layout).unwrap();
        assert!(matches!(&found[..], [Found::Pod(dir)] if *dir.key() == key(&name)));
        fs::replace(&locked.paths().record(), 0o600, b"?").unwrap();
        assert!(matches!(&list(&layout).unwrap()[..], [Found::Nameless(_)]));
    }
}
