//! Waiting until something on disk changes: a status, an event, a pod that comes or goes, an executor that dies.

use std::os::fd::AsFd as _;
use std::time::Instant;

use super::Error;
use super::layout::Layout;
use super::pod_dir::{self, Found, PodDir};
use crate::sys::fs;
use crate::sys::poll::{self, Interrupt};
use crate::sys::watch::Watch;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Something may have changed: look again.
    Changed,
    /// The deadline has passed.
    Deadline,
    /// A signal came: its number.
    Signal(i32),
}

/// Watched pods. What happens after this was made is not missed: make it, look, wait, look again.
#[derive(Debug)]
pub struct Changes {
    watch: Watch,
    layout: Layout,
    pods: Pods,
}

#[derive(Debug)]
enum Pods {
    These(Vec<PodDir>),
    All,
}

impl Changes {
    /// Watches these pods, whether they exist yet or not.
    ///
    /// # Errors
    /// The machine has no watches left, or a folder may not be watched.
    pub fn of(layout: &Layout, pods: Vec<PodDir>) -> Result<Self, Error> {
        Self::watch(layout, Pods::These(pods))
    }

    /// Watches all pods that there are at any time, and what else is recorded.
    ///
    /// # Errors
    /// As [`Changes::of`].
    pub fn of_all(layout: &Layout) -> Result<Self, Error> {
        Self::watch(layout, Pods::All)
    }

    fn watch(layout: &Layout, pods: Pods) -> Result<Self, Error> {
        for folder in [layout.locks(), layout.pods_run(), layout.pods_data()] {
            fs::create_dir_all(&folder, 0o700)?;
        }
        let changes = Self {
            watch: Watch::new().map_err(Error::Wait)?,
            layout: layout.clone(),
            pods,
        };
        changes.add_all()?;
        Ok(changes)
    }

    /// Waits for the next change. Several changes may be told as one.
    ///
    /// # Errors
    /// The kernel says no.
    pub fn wait(&self, deadline: Option<Instant>, interrupt: &Interrupt) -> Result<Wake, Error> {
        loop {
            let fds = [self.watch.as_fd(), interrupt.as_fd()];
            let ready = poll::readable(&fds, deadline).map_err(Error::Wait)?;
            if ready.is_empty() {
                return Ok(Wake::Deadline);
            }
            if let Some(signal) = interrupt.take().map_err(Error::Wait)? {
                return Ok(Wake::Signal(signal));
            }
            if self.watch.drain().map_err(Error::Wait)? {
                // A folder that is new is watched before the caller looks into it.
                self.add_all()?;
                return Ok(Wake::Changed);
            }
        }
    }

    fn add_all(&self) -> Result<(), Error> {
        // The end of a command at work on a pod is the end of its lock.
        for folder in [
            self.layout.locks(),
            self.layout.pods_run(),
            self.layout.pods_data(),
        ] {
            self.watch.add(&folder)?;
        }
        let all: Vec<PodDir>;
        let pods = match &self.pods {
            Pods::These(pods) => pods,
            Pods::All => {
                all = pod_dir::list(&self.layout)?
                    .into_iter()
                    .filter_map(|found| match found {
                        Found::Pod(dir) => Some(dir),
                        Found::Nameless(_) => None,
                    })
                    .collect();
                &all
            }
        };
        for pod in pods {
            match self.watch.add(pod.paths().run()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::status::PodStatus;
    use crate::state::lock::Locks;
    use crate::state::pod_dir::{ExecutorDir, Liveness};
    use crate::state::testing::{Scratch, key, record};

    #[test]
    fn a_pods_whole_life_is_seen() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let dir = PodDir::new(&layout, &key("web-0"));
        let interrupt = Interrupt::install().unwrap();
        let changes = Changes::of(&layout, vec![dir.clone()]).unwrap();
        let quiet = || {
            let soon = Instant::now() + Duration::from_millis(5);
            while changes.wait(Some(soon), &interrupt).unwrap() == Wake::Changed {}
            assert_eq!(dir.liveness().unwrap(), dir.liveness().unwrap());
            assert_eq!(
                changes.wait(Some(soon), &interrupt).unwrap(),
                Wake::Deadline
            );
        };
        let check = |act: &mut dyn FnMut()| {
            quiet();
            act();
            assert_eq!(changes.wait(None, &interrupt).unwrap(), Wake::Changed);
        };
        let locks = Locks::try_pod(&layout, dir.key()).unwrap().unwrap();
        let locked = locks.pod(dir.key()).unwrap();
        let mut executor = None;
        check(&mut || locked.create(&record("web-0")).unwrap());
        check(&mut || executor = Some(ExecutorDir::take(dir.paths().clone()).unwrap()));
        check(&mut || {
            let executor = executor.as_ref().unwrap();
            executor.write_status(&PodStatus::default()).unwrap();
        });
        check(&mut || executor = None);
        assert_eq!(dir.liveness().unwrap(), Liveness::Changing);
        check(&mut || locked.remove().unwrap());
        let mut locks = Some(locks);
        check(&mut || locks = None);
        assert_eq!(dir.liveness().unwrap(), Liveness::Dead);
    }
}
