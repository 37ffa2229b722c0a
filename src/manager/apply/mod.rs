//! Makes the machine match plans and objects: all of them, or (if one step fails) none.
//!
//! Nothing is stopped before every image is there. What a failed step leaves behind is undone, except after a container
//! ran and failed: that pod stays, for `logs` and `describe`. The locks are held until all pods have started; waiting
//! for more than that is done without them, so that `delete` can come in between.

mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::work::Work;
use super::Manager;
use super::delete::{self, DeleteOptions, Missing, Target, Volumes};
use super::diff::Replace;
use super::ephemeral;
use super::error::Error;
use super::images::{self, ImageSource, PullOverride, Registries};
use super::ports;
use super::report::{Change, Event, Report, pod_object};
use super::services;
use super::stop::Grace;
use super::sweep;
use super::undo::Undo;
use super::wait::{self, Condition};
use crate::model::names::{ObjectKey, PodKey};
use crate::model::plan::PodPlan;
use crate::model::pull_secret::PullSecret;
use crate::protocol::Pulling;
use crate::state::layout::Layout;
use crate::state::lock::{Locks, Subject};
use crate::state::object;
use crate::state::pod_dir::PodDir;
use crate::state::record::SourceSet;
use crate::state::{view, volumes};
use crate::sys::{capability, identity};

/// What is to be.
#[derive(Debug)]
pub struct ApplyInput {
    /// Each with a key of its own.
    pub plans: Vec<PodPlan>,
    /// What pods have to show to registries.
    pub pull_secrets: BTreeMap<PodKey, Vec<PullSecret>>,
    /// How containers that start again get their images.
    pub ways: PullWays,
    /// All objects of the files but the pods, in the order in which they are told.
    pub objects: Vec<AppliedObject>,
    /// Where they come from.
    pub sources: Option<SourceSet>,
    pub options: ApplyOptions,
}

/// Where pulls that are made later look for what they need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullWays {
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `NAME=value`.
    pub environment: Vec<String>,
}

impl ApplyInput {
    fn pulling(&self, layout: &Layout, pod: &PodKey) -> Pulling {
        Pulling {
            policy: self.options.pull.map(PullOverride::policy),
            registries: self.options.registries,
            store: layout.images(),
            authfile: self.ways.authfile.clone(),
            environment: self.ways.environment.clone(),
            secrets: self.pull_secrets.get(pod).cloned().unwrap_or_default(),
            user: identity::uid(),
        }
    }
}

/// An object that is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct AppliedObject {
    pub key: ObjectKey,
    pub manifest: Value,
    pub kept: Kept,
}

/// Whether an object goes with the files that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// `--prune` takes it away when they do not name it any more.
    WithFiles,
    /// It stays until it is deleted by name: the claim of a StatefulSet's template.
    Always,
    /// It is made with this pod and goes with it: the claim of an ephemeral volume.
    WithPod(PodKey),
}

impl AppliedObject {
    fn is_ephemeral(&self) -> bool {
        matches!(self.kept, Kept::WithPod(_))
    }

    /// The files that it belongs to.
    fn sources<'a>(&self, input: &'a ApplyInput) -> Option<&'a SourceSet> {
        match &self.kept {
            Kept::WithFiles => input.sources.as_ref(),
            Kept::Always | Kept::WithPod(_) => None,
        }
    }
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
/// [`Error::Port`], [`Error::Images`], [`Error::Conflict`] and errors of state before anything was changed; [`Error::RolledBack`] with
/// the cause if what was done is undone (which a signal causes too); [`Error::Workload`] (or several) if a container
/// failed; [`Error::TimedOut`].
pub fn apply(
    manager: &Manager,
    source: &impl ImageSource,
    input: &ApplyInput,
    report: Report<'_>,
) -> Result<Applied, Error> {
    let options = &input.options;
    if options.mode == Mode::Real && !input.plans.is_empty() && !capability::may_administer() {
        return Err(Error::NotRoot);
    }
    if options.mode == Mode::Real {
        ports::check(manager, input)?;
    }
    let images = match options.mode {
        Mode::DryRun => images::present(&input.plans, source),
        Mode::Real => images::resolve(input, source, &manager.interrupt, report)?,
    };
    for error in sweep::sweep(&manager.layout, report)? {
        // Not this command's pods, or they fail below.
        tracing::warn!(%error, "cannot clean up after a crash");
    }
    let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
    let locks = Locks::take(
        &manager.layout,
        subjects(&manager.layout, input),
        &manager.interrupt,
        &mut |s| {
            report(Event::Waiting(s.clone()));
        },
    )?;
    let mut services = services::allocate(manager, input)?;
    let work = Work::plan(manager, &locks, input, images, &mut services)?;
    let applied = work.applied(input);
    let mut undo = Undo::default();
    if options.mode == Mode::Real {
        let done = work.write_lasting(&locks, input, &mut undo).and_then(|()| {
            drop(services);
            work.run(manager, &locks, input, &mut undo, deadline, report)
        });
        let failures = match done {
            Ok(failures) => failures,
            Err(cause) => return Err(roll_back(manager, &locks, undo, options, cause, report)),
        };
        work.commit(manager, &applied, report)?;
        drop(locks);
        Error::all(failures)?;
        retire(manager, input, report)?;
        wait_for(manager, input, undo, deadline, report)?;
        if options.prune == Prune::Yes {
            prune(manager, input, report)?;
        }
    } else {
        tell(&applied, report);
    }
    Ok(applied)
}

fn subjects(layout: &Layout, input: &ApplyInput) -> impl Iterator<Item = Subject> {
    let pods = input.plans.iter().map(|plan| Subject::Pod(plan.key()));
    let objects = input
        .objects
        .iter()
        .map(|object| Subject::Object(object.key.clone()));
    // Those of the pods that are replaced.
    let gone = input.plans.iter().flat_map(|plan| {
        let dir = PodDir::new(layout, &plan.key());
        ephemeral::subjects(&dir)
    });
    pods.chain(objects)
        .chain(gone)
        .chain(
            input
                .plans
                .iter()
                .flat_map(used_claims)
                .map(Subject::Object),
        )
        .chain(claims(input).into_iter().map(Subject::Object))
}

/// All claims that the pods use.
fn used_claims(plan: &PodPlan) -> impl Iterator<Item = ObjectKey> + '_ {
    let claims = plan.claims();
    claims.map(|name| volumes::claim_key(&plan.namespace, name))
}

/// The claims that have a folder of kplay's own: those of the files, and those that the pods use.
fn claims(input: &ApplyInput) -> BTreeSet<ObjectKey> {
    let objects = input.objects.iter().filter(|object| {
        object.key.kind == volumes::CLAIM && object.manifest.pointer("/spec/volumeName").is_none()
    });
    let used = input.plans.iter().flat_map(|plan| {
        let claims = plan.claim_folders();
        claims.map(|(_, name)| volumes::claim_key(&plan.namespace, name))
    });
    objects
        .map(|object| object.key.clone())
        .chain(used)
        .collect()
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
        Err(Error::Interrupted { signal }) => {
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

/// Deletes the pods that their owners among the objects do not want any more: of a Job that is suspended, of a
/// StatefulSet that counts from another number.
fn retire(manager: &Manager, input: &ApplyInput, report: Report<'_>) -> Result<(), Error> {
    let owners = input.objects.iter().map(|object| &object.key);
    let owners: BTreeSet<&ObjectKey> = owners
        .filter(|key| ["CronJob", "Job", "StatefulSet"].contains(&&*key.kind))
        .collect();
    if owners.is_empty() {
        return Ok(());
    }
    let planned: BTreeSet<PodKey> = input.plans.iter().map(PodPlan::key).collect();
    let (pods, errors) = view::list(&manager.layout)?;
    for error in errors {
        // `get` tells of it; whose it was is not known.
        tracing::warn!(%error, "cannot tell whose pod it is");
    }
    let unwanted = pods.into_iter().map(|view| view.record);
    let unwanted =
        unwanted.filter(|pod| owners.contains(&pod.owner) && !planned.contains(&pod.key()));
    let targets: Vec<Target> = unwanted
        .map(|pod| Target::Object(pod_object(&pod.key())))
        .collect();
    delete::delete(manager, &targets, GIVEN_UP, report)
}

/// How pods end that nobody names any more.
const GIVEN_UP: DeleteOptions = DeleteOptions {
    grace: Grace::Own,
    volumes: Volumes::Keep,
    missing: Missing::Ignore,
    wait: delete::Wait::ForEnd,
};

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
    delete::delete(manager, &targets, GIVEN_UP, report)
}

#[cfg(test)]
mod tests;
