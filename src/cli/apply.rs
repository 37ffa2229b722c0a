//! `apply`.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::delete::waiting_for;
use super::doctor;
use super::error::{Done, Error};
use super::image;
use super::inventory::{Inventory, Scope};
use super::manifests::{self, ManifestArgs, Publishing};
use super::registry::{AuthfileArgs, other_stores, registry_places};
use super::session::{Network, Session};
use super::values::GoDuration;
use crate::image::registries::RegistriesConf;
use crate::image::{PullOptions, TlsVerify};
use crate::loader::{Loaded, Origin, Publish, PublishDeclared};
use crate::manager::apply::{
    self, Applied, AppliedObject, ApplyInput, ApplyOptions, Kept, Mode, Prune, Rollback, WaitFor,
};
use crate::manager::diff::{Replace, Stale};
use crate::manager::images::{PullOverride, Registries, StoreImages};
use crate::manager::report::pod_object;
use crate::manager::rootless;
use crate::manager::services::Ranges;
use crate::manager::{self, Change, Event, Launcher, Manager};
use crate::model::names::{ObjectKey, PodKey};
use crate::model::plan::PodPlan;
use crate::output::object::{self, Notation};
use crate::output::progress::Progress;
use crate::output::report::{self, Deed, Reality};
use crate::state::record::SourceSet;
use crate::sys::poll::Interrupt;

/// Flags of `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) manifests: ManifestArgs,
    /// Return when all pods are so far: `started` (also without this flag), `ready` (the flag alone), `complete`
    #[arg(long, value_name = "STATE", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "ready")]
    pub(crate) wait: Option<WaitArg>,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    /// Only say what would be done
    #[arg(long, value_name = "WHERE", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: Option<DryRun>,
    /// Print the objects in this format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

/// Flags that `up` has as well.
#[derive(Debug, Args)]
pub(crate) struct HowArgs {
    /// Give up after this time
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<GoDuration>,
    /// Pull images: `always`, when they are `missing`, `never`; instead of what the manifests say
    #[arg(long, value_name = "WHEN", value_enum)]
    pull: Option<PullArg>,
    #[command(flatten)]
    files: AuthfileArgs,
    /// Publish a port of the pods on this machine
    #[arg(long, value_name = "[IP:]HOST:CONTAINER", value_parser = Publish::parse)]
    publish: Vec<Publish>,
    /// Publish all ports that the manifests declare, under their own numbers
    #[arg(long)]
    publish_all: bool,
    /// Remove what these files named before and name no longer
    #[arg(long)]
    prune: bool,
    /// Restart pods even if nothing has changed
    #[arg(long)]
    replace: bool,
    /// Leave everything as it is when a step fails
    #[arg(long)]
    no_rollback: bool,
}

/// `--wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitArg {
    Started,
    Ready,
    Complete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PullArg {
    Always,
    Missing,
    Never,
}

/// kubectl's values; there is one place where anything could be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DryRun {
    None,
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Yaml,
    Name,
}

/// Applies manifests.
///
/// # Errors
/// A manifest is wrong, a step fails, or what is waited for does not come.
pub(crate) fn run(arguments: &ApplyArgs, session: &Session) -> Result<Done, Error> {
    let dry = matches!(arguments.dry_run, Some(DryRun::Client | DryRun::Server));
    let mode = if dry { Mode::DryRun } else { Mode::Real };
    let wait = match arguments.wait {
        None | Some(WaitArg::Started) => WaitFor::Started,
        Some(WaitArg::Ready) => WaitFor::Ready,
        Some(WaitArg::Complete) => WaitFor::Complete,
    };
    let job = Job::load(&arguments.manifests, &arguments.how, session, mode, wait)?;
    let manager = manager(session)?;
    let lines = match arguments.output {
        None => Lines::Printed,
        Some(_) => Lines::None,
    };
    job.apply(&manager, lines, session).1?;
    if mode == Mode::Real {
        tell_of_logout(session);
    }
    if let Some(format) = arguments.output {
        job.print(format, mode, session)?;
    }
    Ok(Done::Well)
}

/// Says that pods that are to outlive this command do not outlive the user's sessions, if that is so.
pub(crate) fn tell_of_logout(session: &Session) {
    if rootless::end_at_logout(&session.layout) {
        session.ui.note(
            "systemd ends your pods when you log out; `loginctl enable-linger` lets them live",
        );
    }
}

/// The manager, from now on with the signals that interrupt it.
///
/// # Errors
/// What the kernel says.
pub(crate) fn manager(session: &Session) -> Result<Manager, Error> {
    Ok(Manager {
        layout: session.layout.clone(),
        launcher: Launcher::of_this_binary(),
        service_ranges: Ranges::default(),
        interrupt: Interrupt::install().map_err(|source| Error::Machine {
            what: "handle signals",
            source,
        })?,
    })
}

/// Whether kubectl's lines are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lines {
    Printed,
    None,
}

/// What is to be applied.
#[derive(Debug)]
pub(crate) struct Job {
    loaded: Loaded,
    pub(crate) input: ApplyInput,
    /// How images are pulled.
    pulling: PullOptions,
}

impl Job {
    /// Reads and checks the manifests, and tells what is to be told about them.
    ///
    /// # Errors
    /// They cannot be read, or are wrong.
    pub(crate) fn load(
        manifests: &ManifestArgs,
        how: &HowArgs,
        session: &Session,
        mode: Mode,
        wait: WaitFor,
    ) -> Result<Self, Error> {
        let names = manifests.names()?;
        let publishing = Publishing {
            ports: how.publish.clone(),
            declared: if how.publish_all {
                PublishDeclared::All
            } else {
                PublishDeclared::HostPorts
            },
        };
        let loaded = manifests::load_valid(&names, &manifests.reading, publishing, session)?;
        let sources = source_set(&names);
        if how.prune && sources.is_none() {
            return Err(Error::usage(
                "`--prune` needs files: what standard input named before is not known",
            ));
        }
        Ok(Self {
            input: ApplyInput {
                plans: loaded
                    .objects
                    .iter()
                    .filter_map(|o| o.plan.clone())
                    .collect(),
                objects: loaded
                    .objects
                    .iter()
                    .filter(|object| object.played && object.key.kind != "Pod")
                    .map(|object| AppliedObject {
                        key: object.key.clone(),
                        manifest: object.json.clone(),
                        kept: match &object.origin {
                            Origin::Files => Kept::WithFiles,
                            Origin::Template => Kept::Always,
                            Origin::Volume(pod) => Kept::WithPod(pod.clone()),
                        },
                    })
                    .collect(),
                pull_secrets: loaded
                    .objects
                    .iter()
                    .filter_map(|o| Some((o.plan.as_ref()?.key(), o.pull_secrets.clone())))
                    .collect(),
                ways: how.files.ways(),
                sources,
                options: how.options(mode, wait, session),
            },
            pulling: how.files.pull_options(
                None,
                TlsVerify::Configured,
                Arc::new(RegistriesConf::new(registry_places())),
                None,
            ),
            loaded,
        })
    }

    /// Applies, and tells what was done. Returns what was changed, also when something failed.
    pub(crate) fn apply(
        &self,
        manager: &Manager,
        lines: Lines,
        session: &Session,
    ) -> (Changes, Result<Applied, Error>) {
        let mut teller = Teller::new(self, lines, session);
        let applied = session.store().and_then(|store| {
            let stop = manager.interrupt.stop();
            let stop = stop.map_err(|source| Error::Machine {
                what: "handle signals",
                source,
            });
            let store = store.heeding(stop?);
            let images = StoreImages::new(store, self.pulling.clone(), other_stores());
            let images = images.map_err(|error| match manager.interrupt.take() {
                Ok(Some(signal)) => Error::Signal(signal),
                Ok(None) | Err(_) => Error::Refused(error.to_string()),
            })?;
            let report = &mut |event| teller.take(event);
            Ok(apply::apply(manager, &images, &self.input, report)?)
        });
        teller.flush();
        let told = teller.failed.take().map_or(Ok(()), Err);
        let applied = applied.map_err(|error| doctor::explained(error, &session.layout));
        let changes = teller.changes;
        (changes, applied.and_then(|applied| told.map(|()| applied)))
    }

    fn print(&self, format: Format, mode: Mode, session: &Session) -> Result<(), Error> {
        let notation = match format {
            Format::Name => {
                for object in &self.loaded.objects {
                    if object.played {
                        session.ui.line(&object.key.to_string())?;
                    }
                }
                return Ok(());
            }
            Format::Json => Notation::Json,
            Format::Yaml => Notation::Yaml,
        };
        let mut objects: Vec<Value> = match mode {
            Mode::DryRun => self.loaded.objects.iter().map(planned).collect(),
            Mode::Real => {
                let inventory = Inventory::read(session, &Scope::All)?;
                let found = |key: &ObjectKey| {
                    let pods = inventory.pods.iter();
                    let pods = pods.map(|pod| (pod_object(&pod.key), &pod.json));
                    let others = inventory.objects.iter();
                    let others = others.map(|object| (object.key.clone(), &object.json));
                    let mut all = pods.chain(others);
                    all.find(|(other, _)| other == key)
                        .map(|(_, json)| json.clone())
                };
                let keys = self.loaded.objects.iter().map(|object| &object.key);
                keys.filter_map(found).collect()
            }
        };
        let whole = match objects.pop() {
            Some(only) if objects.is_empty() => only,
            last => {
                objects.extend(last);
                object::list(objects)
            }
        };
        Ok(session
            .ui
            .data(object::text(&whole, notation)?.as_bytes())?)
    }
}

/// A pod as it is planned, anything else as it is written.
fn planned(object: &crate::loader::Object) -> Value {
    match &object.plan {
        Some(plan) if object.key.kind == "Pod" => plan.manifest.clone(),
        _ => object.json.clone(),
    }
}

/// The arguments as absolute paths, for `--prune` to recognise them.
fn source_set(names: &[String]) -> Option<SourceSet> {
    SourceSet::new(names.iter().map(|name| {
        if name == "-" || name.contains("://") {
            return name.clone();
        }
        std::path::absolute(name).map_or_else(|_| name.clone(), |path| path.display().to_string())
    }))
}

impl HowArgs {
    fn options(&self, mode: Mode, wait: WaitFor, session: &Session) -> ApplyOptions {
        ApplyOptions {
            mode,
            wait,
            timeout: self.timeout.map(|GoDuration(timeout)| timeout),
            pull: self.pull.map(|when| match when {
                PullArg::Always => PullOverride::Always,
                PullArg::Missing => PullOverride::Missing,
                PullArg::Never => PullOverride::Never,
            }),
            registries: match session.network {
                Network::Allowed => Registries::Allowed,
                Network::Forbidden => Registries::Forbidden,
            },
            replace: if self.replace {
                Replace::All
            } else {
                Replace::Changed
            },
            rollback: if self.no_rollback {
                Rollback::No
            } else {
                Rollback::Yes
            },
            prune: if self.prune { Prune::Yes } else { Prune::No },
        }
    }
}

/// What became of each object, pods of workloads included.
pub(crate) type Changes = Vec<(ObjectKey, Change)>;

/// Turns events into lines.
struct Teller<'a> {
    job: &'a Job,
    lines: Lines,
    session: &'a Session,
    progress: Progress<'a>,
    changes: Changes,
    /// How many of the changes have been printed.
    printed: bool,
    failed: Option<Error>,
}

impl<'a> Teller<'a> {
    fn new(job: &'a Job, lines: Lines, session: &'a Session) -> Self {
        Self {
            job,
            lines,
            session,
            progress: image::progress(session, "pulling"),
            changes: Vec::new(),
            printed: false,
            failed: None,
        }
    }

    fn take(&mut self, event: Event) {
        self.session.note(&event);
        let ui = &self.session.ui;
        match event {
            Event::ImagePulling(_) => {}
            Event::ImageProgress(image, step) => {
                self.progress.update(&image.to_string(), image::shown(step));
            }
            Event::ImageImported(image, from) => {
                ui.talk(&format!("took {image} from {}", from.display()));
            }
            // kplay's own images come from nowhere.
            Event::ImagePulled(image, _) if image.registry == "kplay.local" => {}
            Event::HealthcheckIgnored(image) => ui.detail(&format!(
                "the HEALTHCHECK of the image {image} is not run, as by Kubernetes: probes are in manifests"
            )),
            Event::ImagePulled(image, _) => self.progress.finish(&image.to_string()),
            Event::Object(key, change) => {
                self.changes.push((key, change));
                let all = self.job.input.objects.len() + self.job.input.plans.len();
                if self.changes.len() >= all {
                    self.flush();
                }
            }
            Event::Deleted(key) => {
                let reality = self.reality();
                self.print(&report::deed(&key, Deed::Deleted, reality));
            }
            Event::Waiting(subject) => ui.talk(&waiting_for(&subject)),
            Event::RollingBack => ui.talk("undoing what was done"),
            Event::PodStopping(key) => ui.detail(&format!("stopping {}", pod_object(&key))),
            Event::PodStarting(key) => ui.detail(&format!("starting {}", pod_object(&key))),
            Event::Pod(key, event) => ui.detail(&format!(
                "{}: {}: {}",
                pod_object(&key),
                event.reason,
                event.message
            )),
            Event::PodSilent(key, waits_for) => ui.talk(&format!(
                "{} has not started yet{}",
                pod_object(&key),
                waits_for
                    .map(|what| format!(": {what}"))
                    .unwrap_or_default()
            )),
            Event::PodStarted(key) => ui.detail(&format!("started {}", pod_object(&key))),
            Event::PodRefreshed(key, Stale::Nothing) => {
                ui.detail(&format!("{} has its new files", pod_object(&key)));
            }
            Event::PodRefreshed(key, Stale::UntilRestart) => ui.talk(&format!(
                "{} runs on: its containers see new variables and files of a `subPath` when they are started again \
                 (`--replace` does that)",
                pod_object(&key)
            )),
            Event::PodReached(key) => ui.detail(&format!("{} is as wanted", pod_object(&key))),
            Event::PodRestored(key) => ui.talk(&format!("{} runs again", pod_object(&key))),
            // They are in the error at the end.
            Event::ImageFailed { image, .. } => self.progress.give_up(&image.to_string()),
            Event::PodFailed(..) => {}
        }
    }

    /// Prints the lines of the objects, once.
    fn flush(&mut self) {
        if std::mem::replace(&mut self.printed, true) {
            return;
        }
        let reality = self.reality();
        for (key, change) in outcome(&self.job.input, &self.changes) {
            let deed = match change {
                Change::Created => Deed::Created,
                Change::Configured => Deed::Configured,
                Change::Unchanged => Deed::Unchanged,
            };
            self.print(&report::deed(&key, deed, reality));
        }
    }

    fn reality(&self) -> Reality {
        match self.job.input.options.mode {
            Mode::Real => Reality::Done,
            Mode::DryRun => Reality::Dry,
        }
    }

    /// The first line that cannot be printed is the error at the end: the work goes on.
    fn print(&mut self, line: &str) {
        self.progress.clear();
        if self.lines == Lines::Printed
            && let Err(error) = self.session.ui.line(line)
        {
            self.failed.get_or_insert(error.into());
        }
    }
}

/// What is told of each object of the files: a workload's pod is told as the workload, which is configured if its pod
/// had to be made again.
/// Claims that are made for pods are their affair.
fn outcome(input: &ApplyInput, changes: &[(ObjectKey, Change)]) -> Changes {
    let owner = |key: &ObjectKey| {
        input
            .plans
            .iter()
            .find(|plan| pod_object(&plan.key()) == *key)
            .map(|plan| &plan.owner)
            .filter(|owner| owner.kind != "Pod")
    };
    let is_made = |key: &ObjectKey| {
        let mut objects = input.objects.iter();
        objects.any(|object| object.kept != Kept::WithFiles && object.key == *key)
    };
    let mut told: Changes = changes
        .iter()
        .filter(|(key, _)| owner(key).is_none() && !is_made(key))
        .cloned()
        .collect();
    for (key, change) in changes {
        let Some(owner) = owner(key).filter(|_| *change != Change::Unchanged) else {
            continue;
        };
        for (other, change) in &mut told {
            if other == owner && *change == Change::Unchanged {
                *change = Change::Configured;
            }
        }
    }
    told
}

/// The pods of a run's plans.
pub(crate) fn pod_keys(input: &ApplyInput) -> Vec<PodKey> {
    input.plans.iter().map(PodPlan::key).collect()
}

/// Whether a failure leaves the pods, with their logs.
pub(crate) fn leaves_pods(error: &Error) -> bool {
    fn leaves(error: &manager::Error) -> bool {
        match error {
            manager::Error::Workload { .. } | manager::Error::Launch { .. } => true,
            manager::Error::Several(errors) => errors.iter().any(leaves),
            _ => false,
        }
    }
    matches!(error, Error::Manager(error) if leaves(error))
}
