//! What `apply` has done so far, so that it can be undone: newest first, without stopping at a failure.
//!
//! A step is noted before it is taken, so undoing one finds it not begun, begun or done, and copes with each.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::Manager;
use super::ephemeral;
use super::error::Error;
use super::launch::{self, Outcome};
use super::report::{Event, Report};
use super::services::is_service;
use super::stop::{self, Grace, OnSignal};
use crate::model::names::{ObjectKey, PodKey};
use crate::model::status::PodStatus;
use crate::protocol::Launch;
use crate::state::lock::{Locks, Subject};
use crate::state::pod_dir::{LockedPodDir, PodDir};
use crate::state::record::{ObjectRecord, PodRecord};
use crate::state::{endpoints, object, volumes};

/// How long a pod that is started again has for it: it started once, and its images are there.
const RESTORE: Duration = Duration::from_secs(60);

/// A pod that was replaced.
#[derive(Clone, Debug)]
pub(super) struct Previous {
    pub(super) record: PodRecord,
    pub(super) was: Was,
}

/// What a replaced pod did.
#[derive(Clone, Debug)]
pub(super) enum Was {
    /// It is started again.
    Running(Box<Launch>),
    /// It is shown again. What it was started with is not always known any more.
    Ended(Box<PodStatus>, Option<Box<Launch>>),
}

#[derive(Debug)]
struct PodStep {
    key: PodKey,
    new_uid: String,
    /// The claims of the new pod's ephemeral volumes that have a folder.
    new_claims: Vec<ObjectKey>,
    previous: Option<Previous>,
}

/// The notes. Pods are always newer than claims' folders, which are newer than objects.
#[derive(Debug, Default)]
pub(super) struct Undo {
    objects: Vec<(ObjectKey, Option<ObjectRecord>)>,
    /// The claims whose folder was not there.
    folders: Vec<ObjectKey>,
    /// Pods that were given something new, as they were.
    refreshed: Vec<(PodRecord, Launch)>,
    pods: Vec<PodStep>,
}

impl Undo {
    /// An object is about to be written.
    pub(super) fn object(&mut self, key: ObjectKey, previous: Option<ObjectRecord>) {
        self.objects.push((key, previous));
    }

    /// The folder of a claim is about to be made.
    pub(super) fn folder(&mut self, claim: ObjectKey) {
        self.folders.push(claim);
    }

    /// A running pod is about to be given something new.
    pub(super) fn refreshed(&mut self, record: PodRecord, launch: Launch) {
        self.refreshed.push((record, launch));
    }

    /// A pod is about to be created, in the place of a previous one or not.
    pub(super) fn pod(
        &mut self,
        key: PodKey,
        new_uid: String,
        new_claims: Vec<ObjectKey>,
        previous: Option<Previous>,
    ) {
        self.pods.push(PodStep {
            key,
            new_uid,
            new_claims,
            previous,
        });
    }

    /// The locks that undoing needs.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        let refreshed = self.refreshed.iter().map(|(record, _)| record.key());
        let pods = self.pods.iter().map(|step| step.key.clone());
        let pods = pods.chain(refreshed).map(Subject::Pod);
        let objects = self.objects.iter().map(|(key, _)| key);
        let claims = self.pods.iter().flat_map(|step| {
            let previous = step.previous.iter().map(|previous| &previous.record);
            previous
                .flat_map(ephemeral::claims)
                .chain(step.new_claims.clone())
        });
        let claims = claims.map(Subject::Object);
        let objects = objects
            .chain(&self.folders)
            .map(|key| Subject::Object(key.clone()));
        pods.chain(claims).chain(objects).collect()
    }

    /// Undoes everything, and returns what could not be undone.
    pub(super) fn run(self, manager: &Manager, locks: &Locks, report: Report<'_>) -> Vec<Error> {
        report(Event::RollingBack);
        let mut errors = Vec::new();
        let ours = self
            .pods
            .iter()
            .rev()
            .filter_map(|step| Some((step, locks.pod(&step.key)?)))
            .filter(|(step, dir)| step.is_ours(dir))
            .collect::<Vec<_>>();
        let dirs: Vec<&PodDir> = ours.iter().map(|(_, dir)| &**dir).collect();
        let stopped = match stop::stop_all(manager, &dirs, Grace::Own, OnSignal::Stay) {
            Ok(stopped) => stopped,
            Err(error) => {
                errors.push(error);
                Vec::new()
            }
        };
        let mut launching = Vec::new();
        for ((step, dir), stopped) in ours.iter().zip(stopped) {
            match stopped.and_then(|()| step.restore(manager, locks, dir, report)) {
                Ok(restoring) => launching.extend(restoring),
                Err(error) => errors.push(error),
            }
        }
        errors.extend(restored(manager, launching, report));
        for (record, launch) in self.refreshed.iter().rev() {
            let dir = locks.pod(&record.key());
            let restored = dir.map(|dir| launch::refresh(&dir, record, launch));
            errors.extend(restored.and_then(Result::err));
        }
        for claim in &self.folders {
            // What has been written there is worth more than an undo.
            if let Err(error) = volumes::remove_empty(locks, claim) {
                errors.push(error.into());
            }
        }
        let services = self.objects.iter().any(|(key, _)| is_service(key));
        for (key, previous) in self.objects.into_iter().rev() {
            let restored = match previous {
                Some(record) => object::write(locks, &record),
                None => object::remove(locks, &key).map(|_| ()),
            };
            if let Err(error) = restored {
                errors.push(error.into());
            }
        }
        if services && let Err(error) = endpoints::tell_services(&manager.layout) {
            errors.push(error.into());
        }
        errors
    }
}

impl PodStep {
    /// Whether what is there is the pod of this `apply`, or a part of the previous one: not the previous one unharmed,
    /// and not one that another command has made since.
    fn is_ours(&self, dir: &PodDir) -> bool {
        match (dir.record(), &self.previous) {
            (Ok(Some(record)), _) if record.uid == self.new_uid => true,
            (Ok(Some(record)), Some(previous)) if record.uid == previous.record.uid => {
                !matches!(dir.has_executor(), Ok(true))
            }
            (Ok(Some(_)), _) => false,
            (Ok(None) | Err(_), _) => true,
        }
    }

    fn restore(
        &self,
        manager: &Manager,
        locks: &Locks,
        dir: &LockedPodDir<'_>,
        report: Report<'_>,
    ) -> Result<Option<launch::Launching>, Error> {
        stop::clean_up(&manager.layout, dir)?;
        dir.remove()?;
        stop::remove_logs(&manager.layout, &self.key, &self.new_uid)?;
        for claim in &self.new_claims {
            volumes::remove(locks, claim)?;
        }
        match &self.previous {
            None => Ok(None),
            Some(Previous {
                record,
                was: Was::Running(launch),
            }) => {
                report(Event::PodStarting(self.key.clone()));
                ephemeral::folders(record, launch)
                    .try_for_each(|claim| ephemeral::make_folder(locks, &claim))?;
                launch::start(manager, dir, record, launch).map(Some)
            }
            Some(Previous {
                record,
                was: Was::Ended(status, launch),
            }) => {
                dir.create(record)?;
                dir.write_end(status)?;
                if let Some(launch) = launch {
                    launch::write(dir, launch)?;
                }
                Ok(None)
            }
        }
    }
}

/// Waits for the pods that are started again, and returns what went wrong.
fn restored(
    manager: &Manager,
    launching: Vec<launch::Launching>,
    report: Report<'_>,
) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut back = BTreeSet::new();
    let deadline = Some(Instant::now() + RESTORE);
    let waited = launch::wait_all(manager, launching, deadline, report, &mut |key, outcome| {
        let pod = key.clone();
        match outcome {
            Outcome::Started => {
                back.insert(pod);
            }
            Outcome::Failed(failure) => errors.push(Error::Launch { pod, failure }),
            Outcome::Died { log } => errors.push(Error::ExecutorDied { pod, log }),
        }
        ControlFlow::Continue(())
    });
    match waited {
        Ok(pods) if pods.is_empty() => {}
        Ok(pods) => errors.push(Error::TimedOut {
            what: "the start",
            pods,
        }),
        Err(error) => errors.push(error),
    }
    for key in back {
        report(Event::PodRestored(key));
    }
    errors
}
