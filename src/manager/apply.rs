//! Makes the machine match plans and objects: all of them, or (if one step fails) none.
//!
//! Nothing is stopped before every image is there. What a failed step leaves behind is undone, except after a container
//! ran and failed: that pod stays, for `logs` and `describe`. The locks are held until all pods have started; waiting
//! for more than that is done without them, so that `delete` can come in between.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::Manager;
use super::delete::{self, DeleteOptions, Missing, Target, Volumes};
use super::diff::{self, Life, PodStep, Recorded, Replace};
use super::error::Error;
use super::images::{self, ImageSource, PodImages, PullOverride, Registries};
use super::launch::{self, Outcome};
use super::report::{Change, Event, Report, pod_object};
use super::stop::{self, Grace, OnSignal};
use super::sweep;
use super::undo::{Previous, Undo};
use super::wait::{self, Condition};
use crate::model::names::{ObjectKey, PodKey};
use crate::model::plan::PodPlan;
use crate::protocol::{FailureClass, Launch};
use crate::state::lock::{Locks, Subject};
use crate::state::object;
use crate::state::pod_dir::{LockedPodDir, PodDir};
use crate::state::record::{ObjectRecord, PodRecord, SourceSet};
use crate::state::view;
use crate::sys::identity;

/// What is to be.
#[derive(Debug)]
pub struct ApplyInput {
    /// Each with a key of its own.
    pub plans: Vec<PodPlan>,
    /// All objects of the files but the pods, in the order in which they are told.
    pub objects: Vec<AppliedObject>,
    /// Where they come from.
    pub sources: Option<SourceSet>,
    pub options: ApplyOptions,
}

/// An object that is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct AppliedObject {
    pub key: ObjectKey,
    pub manifest: Value,
}

/// How to apply.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    pub mode: Mode,
    pub wait: WaitFor,
    /// For the start of the pods and what is waited for after it; pulls have their own.
    pub timeout: Option<Duration>,
    pub pull: Option<PullOverride>,
    pub registries: Registries,
    pub replace: Replace,
    pub rollback: Rollback,
    pub prune: Prune,
}

/// Whether anything is done at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Real,
    /// Only tells what would be done; pulls nothing.
    DryRun,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// Every main container has been started.
    Started,
    Ready,
    Complete,
}

/// What becomes of what was done when a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollback {
    Yes,
    /// `--no-rollback`: it stays as it is, to be looked at.
    No,
}

/// Whether what the same files no longer name is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    No,
    Yes,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// In the order of the plans.
    pub pods: Vec<(PodKey, Change)>,
    /// In the order of the input.
    pub objects: Vec<(ObjectKey, Change)>,
}

/// Makes the machine match the input.
///
/// # Errors
/// [`Error::Images`], [`Error::Conflict`] and errors of state before anything was changed; [`Error::RolledBack`] with
/// the cause if what was done is undone (which a signal causes too); [`Error::Workload`] (or several) if a container
/// failed; [`Error::TimedOut`].
pub fn apply(
    manager: &Manager,
    source: &impl ImageSource,
    input: &ApplyInput,
    report: Report<'_>,
) -> Result<Applied, Error> {
    let options = &input.options;
    let images = match options.mode {
        Mode::DryRun => images::present(&input.plans, source),
        Mode::Real => images::resolve(
            &input.plans,
            source,
            options.pull,
            options.registries,
            &manager.interrupt,
            report,
        )?,
    };
    for error in sweep::sweep(manager, report)? {
        // Not this command's pods, or they fail below.
        tracing::warn!(%error, "cannot clean up after a crash");
    }
    let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
    let locks = Locks::take(
        &manager.layout,
        subjects(input),
        &manager.interrupt,
        &mut |s| {
            report(Event::Waiting(s.clone()));
        },
    )?;
    let work = Work::plan(manager, &locks, input, images)?;
    let applied = work.applied(input);
    let mut undo = Undo::default();
    if options.mode == Mode::Real {
        let failures = match work.run(manager, &locks, input, &mut undo, deadline, report) {
            Ok(failures) => failures,
            Err(cause) => return Err(roll_back(manager, &locks, undo, options, cause, report)),
        };
        work.commit(manager, &applied, report)?;
        drop(locks);
        Error::all(failures)?;
        wait_for(manager, input, undo, deadline, report)?;
        if options.prune == Prune::Yes {
            prune(manager, input, report)?;
        }
    } else {
        tell(&applied, report);
    }
    Ok(applied)
}

fn subjects(input: &ApplyInput) -> impl Iterator<Item = Subject> {
    let pods = input.plans.iter().map(|plan| Subject::Pod(plan.key()));
    let objects = input
        .objects
        .iter()
        .map(|object| Subject::Object(object.key.clone()));
    pods.chain(objects)
}

fn tell(applied: &Applied, report: Report<'_>) {
    for (key, change) in &applied.objects {
        report(Event::Object(key.clone(), *change));
    }
    for (key, change) in &applied.pods {
        report(Event::Object(pod_object(key), *change));
    }
}

fn roll_back(
    manager: &Manager,
    locks: &Locks,
    undo: Undo,
    options: &ApplyOptions,
    cause: Error,
    report: Report<'_>,
) -> Error {
    match options.rollback {
        Rollback::No => cause,
        Rollback::Yes => Error::RolledBack {
            cause: Box::new(cause),
            failures: undo.run(manager, locks, report),
        },
    }
}

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
}

/// All that is to be done, decided while the locks are held.
#[derive(Debug)]
struct Work<'a> {
    pods: Vec<PodWork<'a>>,
    /// With what is recorded of it now.
    objects: Vec<(&'a AppliedObject, Change, Option<ObjectRecord>)>,
}

impl<'a> Work<'a> {
    fn plan(
        manager: &Manager,
        locks: &'a Locks,
        input: &'a ApplyInput,
        mut images: PodImages,
    ) -> Result<Self, Error> {
        let sources = input.sources.as_ref();
        let mut pods = Vec::with_capacity(input.plans.len());
        for plan in &input.plans {
            let key = plan.key();
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
            let (new, launch) = launch::new_pod(&manager.layout, plan, images, sources)?;
            pods.push(PodWork {
                dir,
                step,
                new,
                launch,
                old,
            });
        }
        let objects = input.objects.iter().map(|object| {
            let recorded = object::read(&manager.layout, &object.key)?;
            let manifest = recorded.as_ref().map(|record| &record.manifest);
            let change = diff::object_change(manifest, &object.manifest);
            Ok((object, change, recorded))
        });
        let objects = objects.collect::<Result<_, Error>>()?;
        Ok(Self { pods, objects })
    }

    fn applied(&self, input: &ApplyInput) -> Applied {
        let pods = input.plans.iter().zip(&self.pods);
        let objects = self.objects.iter();
        Applied {
            pods: pods
                .map(|(plan, work)| (plan.key(), work.step.change()))
                .collect(),
            objects: objects
                .map(|(object, change, _)| (object.key.clone(), *change))
                .collect(),
        }
    }

    /// Does it, and returns the failures of containers that ran, which are not undone.
    fn run(
        &self,
        manager: &Manager,
        locks: &Locks,
        input: &ApplyInput,
        undo: &mut Undo,
        deadline: Option<Instant>,
        report: Report<'_>,
    ) -> Result<Vec<Error>, Error> {
        self.write_objects(locks, input, undo)?;
        self.stop_replaced(manager, undo, report)?;
        let signal = manager.interrupt.take();
        if let Some(signal) = signal.map_err(Error::io("take a signal"))? {
            return Err(Error::Interrupted { signal });
        }
        let mut launching = Vec::new();
        for work in self.changed() {
            report(Event::PodStarting(work.dir.key().clone()));
            launching.push(launch::start(manager, &work.dir, &work.new, &work.launch)?);
        }
        started(manager, launching, input.options.rollback, deadline, report)
    }

    fn changed(&self) -> impl Iterator<Item = &PodWork<'a>> {
        self.pods.iter().filter(|work| match work.step {
            PodStep::Create | PodStep::Replace => true,
            PodStep::Keep => false,
        })
    }

    /// First, because executors read Services and the like from the records.
    fn write_objects(
        &self,
        locks: &Locks,
        input: &ApplyInput,
        undo: &mut Undo,
    ) -> Result<(), Error> {
        for (object, _, recorded) in &self.objects {
            let record = match recorded {
                Some(recorded) => ObjectRecord {
                    manifest: object.manifest.clone(),
                    sources: input.sources.clone(),
                    ..recorded.clone()
                },
                None => ObjectRecord {
                    key: object.key.clone(),
                    uid: identity::random_uuid().map_err(Error::io("make an identity"))?,
                    created: Timestamp::now(),
                    manifest: object.manifest.clone(),
                    sources: input.sources.clone(),
                    unknown: serde_json::Map::new(),
                },
            };
            if recorded.as_ref() != Some(&record) {
                undo.object(object.key.clone(), recorded.clone());
                object::write(locks, &record)?;
            }
        }
        Ok(())
    }

    fn stop_replaced(
        &self,
        manager: &Manager,
        undo: &mut Undo,
        report: Report<'_>,
    ) -> Result<(), Error> {
        let mut replaced = Vec::new();
        for work in self.changed() {
            let previous = work.old.as_ref().and_then(OldPod::worth_restoring);
            undo.pod(work.dir.key().clone(), work.new.uid.clone(), previous);
            if work.old.is_some() {
                report(Event::PodStopping(work.dir.key().clone()));
            }
            replaced.push(&work.dir);
        }
        let dirs: Vec<&PodDir> = replaced.iter().map(|dir| &***dir).collect();
        let stopped = stop::stop_all(manager, &dirs, Grace::Own, OnSignal::Stay)?;
        Error::all(stopped.into_iter().filter_map(Result::err).collect())?;
        for dir in replaced.into_iter().filter(|dir| dir.exists()) {
            // Its logs stay until the new pod has started.
            stop::clean_up(dir)?;
            dir.remove()?;
        }
        Ok(())
    }

    fn commit(
        &self,
        manager: &Manager,
        applied: &Applied,
        report: Report<'_>,
    ) -> Result<(), Error> {
        tell(applied, report);
        for work in self.changed() {
            if let Some(old) = &work.old {
                stop::remove_logs(&manager.layout, work.dir.key(), &old.record.uid)?;
            }
        }
        Ok(())
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
                Some(status) => match Life::without_executor(Some(status.phase)) {
                    Life::Ended(ending) => Life::Ended(ending),
                    Life::Abandoned | Life::Runs | Life::Deleting => Life::Runs,
                },
                None => Life::Runs,
            }
        } else {
            Life::without_executor(dir.status()?.map(|status| status.phase))
        };
        Ok(Some(Self {
            launch: launch::read_launch(dir)?,
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

    /// Only what ran is started again when its replacement fails.
    fn worth_restoring(&self) -> Option<Previous> {
        match self.life {
            Life::Runs => Some(Previous {
                record: self.record.clone(),
                launch: self.launch.clone()?,
            }),
            Life::Ended(_) | Life::Abandoned | Life::Deleting => None,
        }
    }
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

/// Waits for readiness or the end, of unchanged pods too. A signal undoes what this command did; a failure or the
/// deadline leaves the pods to be looked at.
fn wait_for(
    manager: &Manager,
    input: &ApplyInput,
    undo: Undo,
    deadline: Option<Instant>,
    report: Report<'_>,
) -> Result<(), Error> {
    let condition = match input.options.wait {
        WaitFor::Started => return Ok(()),
        WaitFor::Ready => Condition::Ready,
        WaitFor::Complete => Condition::Complete,
    };
    let pods: Vec<PodKey> = input.plans.iter().map(PodPlan::key).collect();
    match wait::wait(manager, &pods, condition, deadline, report) {
        Err(
            Error::State(crate::state::Error::Interrupted { signal })
            | Error::Interrupted { signal },
        ) => {
            let cause = Error::Interrupted { signal };
            let locks = Locks::take(
                &manager.layout,
                undo.subjects(),
                &manager.interrupt,
                &mut |subject| report(Event::Waiting(subject.clone())),
            )?;
            Err(roll_back(
                manager,
                &locks,
                undo,
                &input.options,
                cause,
                report,
            ))
        }
        other => other,
    }
}

/// Deletes what the same files named before and do not name now. Files without a lasting name (standard input) have
/// no past.
fn prune(manager: &Manager, input: &ApplyInput, report: Report<'_>) -> Result<(), Error> {
    let Some(sources) = &input.sources else {
        return Ok(());
    };
    let (objects, errors) = object::list(&manager.layout)?;
    let (pods, more_errors) = view::list(&manager.layout)?;
    for error in errors.into_iter().chain(more_errors) {
        // `get` tells of it; whose it was is not known.
        tracing::warn!(%error, "cannot tell whether to prune");
    }
    let named: BTreeSet<&ObjectKey> = input.objects.iter().map(|object| &object.key).collect();
    let planned: BTreeMap<PodKey, &PodPlan> =
        input.plans.iter().map(|plan| (plan.key(), plan)).collect();
    let objects = objects.into_iter().filter_map(|record| {
        let gone = record.sources.as_ref() == Some(sources) && !named.contains(&record.key);
        gone.then_some(Target::Object(record.key))
    });
    let pods = pods.into_iter().filter_map(|view| {
        let key = view.record.key();
        let gone = view.record.sources.as_ref() == Some(sources) && !planned.contains_key(&key);
        gone.then(|| Target::Object(pod_object(&key)))
    });
    let targets: Vec<Target> = pods.chain(objects).collect();
    let options = DeleteOptions {
        grace: Grace::Own,
        volumes: Volumes::Keep,
        missing: Missing::Ignore,
        wait: delete::Wait::ForEnd,
    };
    delete::delete(manager, &targets, options, report)
}
