//! What has to be done, decided and done while the locks are held.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Instant;

use jiff::Timestamp;
use serde_json::Value;

use super::{Applied, AppliedObject, ApplyInput, Kept, Rollback, claims, tell, used_claims};
use crate::manager::Manager;
use crate::manager::diff::{self, Life, PodStep, Recorded};
use crate::manager::ephemeral;
use crate::manager::error::Error;
use crate::manager::images::PodImages;
use crate::manager::jobs;
use crate::manager::launch::{self, Outcome};
use crate::manager::report::{Change, Event, Report};
use crate::manager::services::{Allocated, is_service};
use crate::manager::stop::{self, Grace, OnSignal};
use crate::manager::undo::{Previous, Undo, Was};
use crate::manager::wait;
use crate::model::names::{ObjectKey, PodKey};
use crate::model::status::PodStatus;
use crate::network;
use crate::protocol::{FailureClass, Launch};
use crate::state::lock::Locks;
use crate::state::pod_dir::{LockedPodDir, PodDir};
use crate::state::record::{ObjectRecord, PodRecord};
use crate::state::volumes;
use crate::state::{endpoints, object};
use crate::sys::{cgroup, identity};

/// One pod's part of the work.
#[derive(Debug)]
struct PodWork<'a> {
    dir: LockedPodDir<'a>,
    step: PodStep,
    new: PodRecord,
    launch: Launch,
    /// What is there now.
    old: Option<OldPod>,
}

#[derive(Debug)]
struct OldPod {
    record: PodRecord,
    launch: Option<Launch>,
    life: Life,
    status: Option<PodStatus>,
}

/// All that is to be done, decided while the locks are held.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pods: Vec<PodWork<'a>>,
    objects: Vec<ObjectWork<'a>>,
}

/// One object's part of the work.
#[derive(Debug)]
struct ObjectWork<'a> {
    object: &'a AppliedObject,
    /// What is to be recorded: with a Service's addresses, with the pod that owns it, if one does.
    manifest: Value,
    change: Change,
    known: Known,
}

#[derive(Debug)]
struct Known {
    /// What is recorded of an object now.
    record: Option<ObjectRecord>,
    /// `metadata.uid`, which it has or will have.
    uid: String,
}

impl<'a> Work<'a> {
    pub(super) fn plan(
        manager: &Manager,
        locks: &'a Locks,
        input: &'a ApplyInput,
        mut images: PodImages,
        services: &mut Allocated,
    ) -> Result<Self, Error> {
        let sources = input.sources.as_ref();
        let known = input.objects.iter();
        let known = known.map(|object| Known::read(manager, object));
        let known = known.collect::<Result<Vec<_>, Error>>()?;
        let all = || input.objects.iter().zip(&known);
        let mut pods = Vec::with_capacity(input.plans.len());
        for plan in &input.plans {
            let key = plan.key();
            let mut jobs = all().filter(|(object, _)| jobs::has_pods_of(&object.key.kind));
            let plan = &match jobs.find(|(job, _)| job.key == plan.owner) {
                Some((_, job)) => Cow::Owned(jobs::labelled(plan, &job.uid)),
                None => Cow::Borrowed(plan),
            };
            let images = images.remove(&key).unwrap_or_default();
            let dir = locks.pod(&key).expect("all pods of the input are locked");
            let old = OldPod::read(&dir)?;
            let recorded = old.as_ref().map(OldPod::recorded);
            let replace = input.options.replace;
            let step = diff::pod_step(recorded.as_ref(), plan, &images, sources, replace).map_err(
                |conflict| Error::Conflict {
                    pod: key,
                    owner: conflict.owner,
                },
            )?;
            let (new, mut launch) = launch::new_pod(&manager.layout, plan, images, sources)?;
            launch.pulling = Some(input.pulling(&manager.layout, dir.key()));
            pods.push(PodWork {
                dir,
                step,
                new,
                launch,
                old,
            });
        }
        let objects = input.objects.iter().zip(known);
        let objects = objects.map(|(object, known)| {
            let manifest = match &object.kept {
                Kept::WithFiles | Kept::Always => services.manifest(object),
                Kept::WithPod(pod) => {
                    let mut pods = pods.iter();
                    let pod_work = pods.find(|work| work.dir.key() == pod);
                    let uid = pod_work.map(PodWork::uid).unwrap_or_default();
                    ephemeral::owned(&object.manifest, pod, uid)
                }
            };
            let before = known.record.as_ref().map(|record| &record.manifest);
            let forbidden = before
                .into_iter()
                .flat_map(|before| diff::forbidden(before, &manifest));
            Error::all(
                forbidden
                    .map(|field| Error::Immutable {
                        key: object.key.clone(),
                        field,
                    })
                    .collect(),
            )?;
            let change = diff::object_change(before, &manifest);
            Ok(ObjectWork {
                object,
                manifest,
                change,
                known,
            })
        });
        let objects = objects.collect::<Result<_, Error>>()?;
        check_claims(manager, input)?;
        Ok(Self { pods, objects })
    }

    pub(super) fn applied(&self, input: &ApplyInput) -> Applied {
        let pods = input.plans.iter().zip(&self.pods);
        let objects = self.objects.iter();
        Applied {
            pods: pods
                .map(|(plan, work)| (plan.key(), work.step.change()))
                .collect(),
            objects: objects
                .map(|work| (work.object.key.clone(), work.change))
                .collect(),
        }
    }

    /// Does it, and returns the failures of containers that ran, which are not undone.
    pub(super) fn run(
        &self,
        manager: &Manager,
        locks: &Locks,
        input: &ApplyInput,
        undo: &mut Undo,
        deadline: Option<Instant>,
        report: Report<'_>,
    ) -> Result<Vec<Error>, Error> {
        let needs_network = self.changed().any(|work| !work.launch.plan.host_network);
        let network = needs_network.then(|| network::expect(manager.layout.network()));
        let _network = network.transpose().map_err(Error::io("start a thread"))?;
        if self.changed().next().is_some() {
            cgroup::warm_up();
        }
        make_folders(locks, input, undo)?;
        self.stop_replaced(manager, locks, undo, report)?;
        // The claims of the pods that are replaced went with them.
        self.write_objects(locks, input, undo, AppliedObject::is_ephemeral)?;
        for work in self.changed() {
            let mut claims = work.ephemeral_folders();
            claims.try_for_each(|claim| ephemeral::make_folder(locks, &claim))?;
        }
        let signal = manager.interrupt.take();
        if let Some(signal) = signal.map_err(Error::io("take a signal"))? {
            return Err(Error::Interrupted { signal });
        }
        for work in self
            .pods
            .iter()
            .filter(|work| work.step == PodStep::Refresh)
        {
            work.refresh(undo, report)?;
        }
        let mut launching = Vec::new();
        for work in self.changed() {
            report(Event::PodStarting(work.dir.key().clone()));
            launching.push(launch::start(manager, &work.dir, &work.new, &work.launch)?);
        }
        let mut failures = started(manager, launching, input.options.rollback, deadline, report)?;
        match self.wait_for_kept(manager, deadline, report) {
            Ok(()) => {}
            Err(failure @ Error::Workload { .. }) => failures.push(failure),
            Err(error) => return Err(error),
        }
        Ok(failures)
    }

    /// Waits for pods that stay and have not started yet: those of an `apply` that was killed.
    fn wait_for_kept(
        &self,
        manager: &Manager,
        deadline: Option<Instant>,
        report: Report<'_>,
    ) -> Result<(), Error> {
        let starting = self.pods.iter().filter(|work| {
            let life = work.old.as_ref().map(|old| old.life);
            let stays = matches!(work.step, PodStep::Keep | PodStep::Refresh);
            stays && life == Some(Life::Runs)
        });
        let pods: Vec<PodKey> = starting.map(|work| work.dir.key().clone()).collect();
        // Those that run are found to at the first look.
        wait::until(
            manager,
            &pods,
            "the start",
            &mut wait::is_started,
            deadline,
            &mut |event| match event {
                Event::PodReached(_) => {}
                other => report(other),
            },
        )
    }

    fn changed(&self) -> impl Iterator<Item = &PodWork<'a>> {
        self.pods.iter().filter(|work| match work.step {
            PodStep::Create | PodStep::Replace => true,
            PodStep::Keep | PodStep::Refresh => false,
        })
    }

    /// First, because executors read Services and the like from the records.
    pub(super) fn write_lasting(
        &self,
        locks: &Locks,
        input: &ApplyInput,
        undo: &mut Undo,
    ) -> Result<(), Error> {
        let lasting = |object: &AppliedObject| !object.is_ephemeral();
        self.write_objects(locks, input, undo, lasting)
    }

    fn write_objects(
        &self,
        locks: &Locks,
        input: &ApplyInput,
        undo: &mut Undo,
        which: impl Fn(&AppliedObject) -> bool,
    ) -> Result<(), Error> {
        let mut services = false;
        // A Job that gets another pod begins anew.
        let is_started = |key: &ObjectKey| self.changed().any(|pod| pod.new.owner == *key);
        for work in self.objects.iter().filter(|work| which(work.object)) {
            let object = work.object;
            let recorded = &work.known.record;
            let record = match recorded {
                Some(recorded) => ObjectRecord {
                    manifest: work.manifest.clone(),
                    sources: object.sources(input).cloned(),
                    ended: recorded.ended.clone().filter(|_| !is_started(&object.key)),
                    ..recorded.clone()
                },
                None => ObjectRecord {
                    key: object.key.clone(),
                    uid: work.known.uid.clone(),
                    created: Timestamp::now(),
                    manifest: work.manifest.clone(),
                    sources: object.sources(input).cloned(),
                    ended: None,
                    unknown: serde_json::Map::new(),
                },
            };
            if recorded.as_ref() != Some(&record) {
                undo.object(object.key.clone(), recorded.clone());
                object::write(locks, &record)?;
                services |= is_service(&object.key);
            }
        }
        if services {
            endpoints::tell_services(locks.layout())?;
        }
        Ok(())
    }

    fn stop_replaced(
        &self,
        manager: &Manager,
        locks: &Locks,
        undo: &mut Undo,
        report: Report<'_>,
    ) -> Result<(), Error> {
        let mut replaced = Vec::new();
        for work in self.changed() {
            let previous = work.old.as_ref().and_then(OldPod::worth_restoring);
            let claims = work.ephemeral_folders().collect();
            undo.pod(
                work.dir.key().clone(),
                work.new.uid.clone(),
                claims,
                previous,
            );
            if work.old.is_some() {
                report(Event::PodStopping(work.dir.key().clone()));
            }
            replaced.push(work);
        }
        let dirs: Vec<&PodDir> = replaced.iter().map(|work| &*work.dir).collect();
        let stopped = stop::stop_all(manager, &dirs, Grace::Own, OnSignal::Stay)?;
        Error::all(stopped.into_iter().filter_map(Result::err).collect())?;
        for work in replaced.into_iter().filter(|work| work.dir.exists()) {
            let dir = &work.dir;
            // Its logs stay until the new pod has started, if it comes back otherwise.
            stop::clean_up(&manager.layout, dir)?;
            if let Some(old) = &work.old {
                if old.worth_restoring().is_none() {
                    stop::remove_logs(&manager.layout, dir.key(), &old.record.uid)?;
                }
                for claim in ephemeral::claims(&old.record) {
                    let record = object::read(locks.layout(), &claim)?;
                    undo.object(claim, record);
                }
                ephemeral::remove(locks, &old.record)?;
            }
            dir.remove()?;
        }
        Ok(())
    }

    pub(super) fn commit(
        &self,
        manager: &Manager,
        applied: &Applied,
        report: Report<'_>,
    ) -> Result<(), Error> {
        tell(applied, report);
        for work in &self.pods {
            work.note_sources()?;
        }
        for work in self.changed() {
            if let Some(old) = &work.old {
                stop::remove_logs(&manager.layout, work.dir.key(), &old.record.uid)?;
            }
        }
        Ok(())
    }
}

impl Known {
    fn read(manager: &Manager, object: &AppliedObject) -> Result<Self, Error> {
        let record = object::read(&manager.layout, &object.key)?;
        let uid = match &record {
            Some(record) => record.uid.clone(),
            None => identity::random_uuid().map_err(Error::io("make an identity"))?,
        };
        Ok(Self { record, uid })
    }
}

impl PodWork<'_> {
    /// That of the pod that will be there.
    fn uid(&self) -> &str {
        match (self.step, &self.old) {
            (PodStep::Keep | PodStep::Refresh, Some(old)) => &old.record.uid,
            (PodStep::Keep | PodStep::Refresh | PodStep::Create | PodStep::Replace, _) => {
                &self.new.uid
            }
        }
    }

    /// The claims of the new pod's ephemeral volumes that have a folder of kplay's own.
    fn ephemeral_folders(&self) -> impl Iterator<Item = ObjectKey> {
        ephemeral::folders(&self.new, &self.launch)
    }

    /// Gives a running pod what has changed of it. It keeps its identity.
    fn refresh(&self, undo: &mut Undo, report: Report<'_>) -> Result<(), Error> {
        let Some((old, launch)) = self
            .old
            .as_ref()
            .and_then(|old| Some((old, old.launch.as_ref()?)))
        else {
            return Ok(());
        };
        let is_same = old.record.manifest.get("spec") == self.new.manifest.get("spec");
        let generation = match is_same {
            true => old.record.generation,
            false => old.record.generation.next(),
        };
        let record = PodRecord {
            generation,
            labels: self.new.labels.clone(),
            manifest: self.new.manifest.clone(),
            sources: self.new.sources.clone(),
            ..old.record.clone()
        };
        let new = Launch {
            plan: self.launch.plan.clone(),
            generation,
            ..launch.clone()
        };
        undo.refreshed(old.record.clone(), launch.clone());
        launch::refresh(&self.dir, &record, &new)?;
        let stale = diff::stale(&launch.plan, &new.plan);
        report(Event::PodRefreshed(self.dir.key().clone(), stale));
        Ok(())
    }

    /// A pod that stays belongs to the files that named it last.
    fn note_sources(&self) -> Result<(), Error> {
        match (self.step, &self.old) {
            (PodStep::Keep, Some(old)) if old.record.sources != self.new.sources => {
                let record = PodRecord {
                    sources: self.new.sources.clone(),
                    ..old.record.clone()
                };
                Ok(self.dir.create(&record)?)
            }
            _ => Ok(()),
        }
    }
}

impl OldPod {
    fn read(dir: &PodDir) -> Result<Option<Self>, Error> {
        let Some(record) = dir.record()? else {
            return Ok(None);
        };
        let life = if dir.deleting()?.is_some() {
            Life::Deleting
        } else if dir.has_executor()? {
            // Under the lock, so what has no executor has nobody.
            match dir.status()? {
                Some(status) => match Life::without_executor(Some(&status)) {
                    Life::Ended(ending) => Life::Ended(ending),
                    Life::Abandoned | Life::Runs | Life::Deleting => Life::Runs,
                },
                None => Life::Runs,
            }
        } else {
            Life::without_executor(dir.status()?.as_ref())
        };
        Ok(Some(Self {
            launch: launch::read_launch(dir)?,
            status: dir.status()?,
            record,
            life,
        }))
    }

    fn recorded(&self) -> Recorded<'_> {
        Recorded {
            owner: &self.record.owner,
            sources: self.record.sources.as_ref(),
            launch: self.launch.as_ref(),
            life: self.life,
        }
    }

    /// What is there again when its replacement fails.
    fn worth_restoring(&self) -> Option<Previous> {
        let launch = self.launch.clone().map(Box::new);
        let was = match self.life {
            Life::Runs => Was::Running(launch?),
            Life::Ended(_) => Was::Ended(Box::new(self.status.clone()?), launch),
            Life::Abandoned | Life::Deleting => return None,
        };
        Some(Previous {
            record: self.record.clone(),
            was,
        })
    }
}

/// Whether the claims that pods use are there still: one that is only recorded may have been deleted since the files were
/// read.
fn check_claims(manager: &Manager, input: &ApplyInput) -> Result<(), Error> {
    for claim in input.plans.iter().flat_map(used_claims) {
        let is_applied = input.objects.iter().any(|object| object.key == claim);
        if !is_applied && object::read(&manager.layout, &claim)?.is_none() {
            return Err(Error::NotFound {
                kind: "persistentvolumeclaims".to_owned(),
                name: claim.name,
            });
        }
    }
    Ok(())
}

/// Makes the folders of the claims that do not go with their pods.
fn make_folders(locks: &Locks, input: &ApplyInput, undo: &mut Undo) -> Result<(), Error> {
    let ephemeral: BTreeSet<&ObjectKey> = input
        .objects
        .iter()
        .filter(|object| object.is_ephemeral())
        .map(|object| &object.key)
        .collect();
    for claim in claims(input)
        .iter()
        .filter(|claim| !ephemeral.contains(claim))
    {
        if !volumes::exists(locks.layout(), claim)? {
            undo.folder(claim.clone());
            volumes::make(locks, claim)?;
        }
    }
    Ok(())
}

/// Waits for the executors and sorts out who failed: errors of the machine and of the manifests end the wait if they
/// are going to be undone; failures of containers that ran are returned.
fn started(
    manager: &Manager,
    launching: Vec<launch::Launching>,
    rollback: Rollback,
    deadline: Option<Instant>,
    report: Report<'_>,
) -> Result<Vec<Error>, Error> {
    let mut failures = Vec::new();
    let mut errors = Vec::new();
    let mut outcomes = Vec::new();
    let late = launch::wait_all(manager, launching, deadline, report, &mut |key, outcome| {
        let pod = key.clone();
        let error = match outcome {
            Outcome::Started => {
                outcomes.push(Event::PodStarted(pod));
                return ControlFlow::Continue(());
            }
            Outcome::Failed(failure) if failure.class == FailureClass::Workload => {
                outcomes.push(Event::PodFailed(pod.clone(), failure.clone()));
                failures.push(Error::Workload {
                    pod,
                    reason: failure.reason,
                    message: failure.message,
                });
                return ControlFlow::Continue(());
            }
            Outcome::Failed(failure) => {
                outcomes.push(Event::PodFailed(pod.clone(), failure.clone()));
                Error::Launch { pod, failure }
            }
            Outcome::Died { log } => Error::ExecutorDied { pod, log },
        };
        errors.push(error);
        match rollback {
            Rollback::Yes => ControlFlow::Break(()),
            Rollback::No => ControlFlow::Continue(()),
        }
    })?;
    outcomes.into_iter().for_each(report);
    if errors.is_empty() && !late.is_empty() {
        errors.push(Error::TimedOut {
            what: "the start",
            pods: late,
        });
    }
    Error::all(errors)?;
    Ok(failures)
}
