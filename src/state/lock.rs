//! Who may change what: one `flock` per pod and per object.
//!
//! A command takes all its locks at once and always in the same order (that of their paths), so that commands with
//! overlapping files wait for each other and never for ever. Lock files are never removed: somebody may be waiting
//! with the old one open.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use super::Error;
use super::layout::Layout;
use super::pod_dir::{LockedPodDir, PodDir};
use crate::model::names::{ObjectKey, PodKey};
use crate::sys::fs::{self, Lock, LockMode};
use crate::sys::poll::{self, Interrupt};

/// What is locked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Pod(PodKey),
    Object(ObjectKey),
}

impl Subject {
    fn path(&self, layout: &Layout) -> PathBuf {
        match self {
            Self::Pod(key) => layout.pod_lock(key),
            Self::Object(key) => layout.object_lock(key),
        }
    }
}

/// Locks that are held until this is dropped.
#[derive(Debug)]
pub struct Locks {
    layout: Layout,
    held: BTreeMap<PathBuf, Lock>,
}

impl Locks {
    /// Takes the locks of all subjects, waiting for each. `waiting` is told for what, once for each wait.
    ///
    /// # Errors
    /// A lock file cannot be opened; [`Error::Interrupted`]. No lock is kept then.
    pub fn take(
        layout: &Layout,
        subjects: impl IntoIterator<Item = Subject>,
        interrupt: &Interrupt,
        waiting: &mut dyn FnMut(&Subject),
    ) -> Result<Self, Error> {
        let mut locks = Self::none(layout)?;
        let ordered: BTreeMap<PathBuf, Subject> = subjects
            .into_iter()
            .map(|subject| (subject.path(layout), subject))
            .collect();
        for (path, subject) in ordered {
            let lock = match fs::try_lock(&path, LockMode::Exclusive)? {
                Some(lock) => lock,
                None => {
                    waiting(&subject);
                    wait_for(&path, interrupt)?
                }
            };
            locks.held.insert(path, lock);
        }
        Ok(locks)
    }

    /// Takes the locks of all subjects if nobody has one of them.
    ///
    /// # Errors
    /// A lock file cannot be opened.
    pub fn try_take(
        layout: &Layout,
        subjects: impl IntoIterator<Item = Subject>,
    ) -> Result<Option<Self>, Error> {
        let mut locks = Self::none(layout)?;
        for subject in subjects {
            let path = subject.path(layout);
            let Some(lock) = fs::try_lock(&path, LockMode::Exclusive)? else {
                return Ok(None);
            };
            locks.held.insert(path, lock);
        }
        Ok(Some(locks))
    }

    /// Takes a pod's lock if nobody has it.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn try_pod(layout: &Layout, key: &PodKey) -> Result<Option<Self>, Error> {
        Self::try_take(layout, [Subject::Pod(key.clone())])
    }

    fn none(layout: &Layout) -> Result<Self, Error> {
        fs::create_dir_all(&layout.locks(), 0o700)?;
        Ok(Self {
            layout: layout.clone(),
            held: BTreeMap::new(),
        })
    }

    /// A pod's folder, to be written; `None` if this is not its lock.
    #[must_use]
    pub fn pod(&self, key: &PodKey) -> Option<LockedPodDir<'_>> {
        let lock = self.held.get(&self.layout.pod_lock(key))?;
        Some(LockedPodDir::new(PodDir::new(&self.layout, key), lock))
    }

    /// Whether an object may be written.
    #[must_use]
    pub fn has_object(&self, key: &ObjectKey) -> bool {
        self.held.contains_key(&self.layout.object_lock(key))
    }

    /// Where these locks are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The pods that are locked of these.
    #[must_use]
    pub fn locked<'k>(&self, keys: impl IntoIterator<Item = &'k PodKey>) -> BTreeSet<&'k PodKey> {
        keys.into_iter()
            .filter(|key| self.held.contains_key(&self.layout.pod_lock(key)))
            .collect()
    }
}

/// The lock of whoever chooses addresses and node ports of Services: taken last, and held until they are written.
#[derive(Debug)]
pub struct ServicesLock {
    _lock: Lock,
}

impl ServicesLock {
    /// Takes it, waiting for it.
    ///
    /// # Errors
    /// As [`Locks::take`].
    pub fn take(layout: &Layout, interrupt: &Interrupt) -> Result<Self, Error> {
        fs::create_dir_all(&layout.locks(), 0o700)?;
        let path = layout.services_lock();
        let lock = match fs::try_lock(&path, LockMode::Exclusive)? {
            Some(lock) => lock,
            None => wait_for(&path, interrupt)?,
        };
        Ok(Self { _lock: lock })
    }
}

/// Waits for a lock, or for a signal. The kernel lets a thread wait for one of them only, so another thread waits
/// for the lock; after a signal it is left to itself, and the command ends.
fn wait_for(path: &Path, interrupt: &Interrupt) -> Result<Lock, Error> {
    let failed = |source: io::Error| Error::Lock {
        path: path.to_owned(),
        source,
    };
    let (done, waiter) = io::pipe().map_err(failed)?;
    let (sender, receiver) = std::sync::mpsc::channel();
    let owned = path.to_owned();
    std::thread::Builder::new()
        .name("lock".into())
        .spawn(move || {
            // Nobody receives it after an interrupt; the lock is released then.
            sender.send(fs::lock(&owned, LockMode::Exclusive)).ok();
            drop(waiter);
        })
        .map_err(failed)?;
    let fds: [BorrowedFd<'_>; 2] = [done.as_fd(), interrupt.as_fd()];
    loop {
        let ready = poll::readable(&fds, None).map_err(failed)?;
        if ready.contains(&0) {
            let gone = |_| failed(io::ErrorKind::BrokenPipe.into());
            return Ok(receiver.recv().map_err(gone)??);
        }
        if let Some(signal) = interrupt.take().map_err(failed)? {
            return Err(Error::Interrupted { signal });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::{Scratch, key};

    #[test]
    fn commands_with_the_same_pods_in_another_order_both_get_on() {
        let scratch = Scratch::new();
        let run = |names: &'static [&'static str]| {
            let layout = scratch.layout();
            std::thread::spawn(move || {
                let interrupt = Interrupt::install().unwrap();
                for _ in 0..200 {
                    let subjects = names.iter().map(|name| Subject::Pod(key(name)));
                    Locks::take(&layout, subjects, &interrupt, &mut |_| {}).unwrap();
                }
            })
        };
        let threads = [
            run(&["a", "b", "c"]),
            run(&["c", "b", "a"]),
            run(&["b", "a"]),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_held_lock_is_waited_for() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let interrupt = Interrupt::install().unwrap();
        let subjects = || [Subject::Pod(key("a"))];
        let held = Locks::take(&layout, subjects(), &interrupt, &mut |_| {}).unwrap();
        assert!(held.pod(&key("a")).is_some());
        assert!(held.pod(&key("b")).is_none());
        assert!(Locks::try_pod(&layout, &key("a")).unwrap().is_none());
        let mut held = Some(held);
        let mut waits = 0;
        Locks::take(&layout, subjects(), &interrupt, &mut |_| {
            waits += 1;
            held.take();
        })
        .unwrap();
        assert_eq!(waits, 1);
    }
}
