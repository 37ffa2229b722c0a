//! `up`: apply in the foreground, with the logs of all containers.

use std::os::fd::AsFd as _;
use std::time::SystemTime;

use clap::Args;

use super::apply::{self, Changes, HowArgs, Job, Lines};
use super::delete;
use super::error::{Done, Error, signal_code};
use super::follow::{self, Extent, Follow};
use super::inventory::{Inventory, Pod, Scope};
use super::logs;
use super::manifests::ManifestArgs;
use super::session::Session;
use super::target;
use crate::manager::apply::{Mode, WaitFor};
use crate::manager::delete::{DeleteOptions, Missing, Target, Volumes, Wait};
use crate::manager::report::pod_object;
use crate::manager::stop::Grace;
use crate::manager::wait::{Condition, Verdict};
use crate::manager::{self, Change, Manager};
use crate::model::names::PodKey;
use crate::model::status::{ContainerState, Phase};
use crate::output::report::{self, Deed};
use crate::state::logs::{Options, Streams, Timestamps};
use crate::state::pod_dir::PodDir;
use crate::state::view;
use crate::sys::notify::Notifier;
use crate::sys::poll;
use crate::sys::process::{ChildEnds, Reaper};

/// Flags of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    #[command(flatten)]
    how: HowArgs,
    /// Return when all pods are ready
    #[arg(short, long, conflicts_with = "exit_code_from")]
    detach: bool,
    /// End with this container's exit code when it ends, and delete the rest
    #[arg(long, value_name = "CONTAINER")]
    exit_code_from: Option<String>,
}

/// Applies, shows logs, ends with the pods.
///
/// # Errors
/// As `apply`; a pod failed; a signal, after what was started is deleted.
pub(crate) fn run(arguments: &UpArgs, session: &Session) -> Result<Done, Error> {
    let wait = if arguments.detach {
        WaitFor::Ready
    } else {
        WaitFor::Started
    };
    let job = Job::load(
        &arguments.manifests,
        &arguments.how,
        session,
        Mode::Real,
        wait,
    )?;
    let keys = apply::pod_keys(&job.input);
    if let Some(name) = &arguments.exit_code_from {
        check_container(&job, name)?;
    }
    let manager = apply::manager(session)?;
    // What has been said before this run is not this run's.
    let since = SystemTime::now();
    let (changes, applied) = job.apply(&manager, Lines::Printed, session);
    if arguments.detach {
        applied?;
        apply::tell_of_logout(session);
        return Ok(Done::Well);
    }
    if let Err(error) = applied {
        if apply::leaves_pods(&error) {
            let mut shown = follow(&keys, since, session)?;
            shown.step(&mut session.ui.stream())?;
        }
        return Err(error);
    }
    let watched = Watched {
        keys: &keys,
        changes: &changes,
        exit_code_from: arguments.exit_code_from.as_deref(),
    };
    let service = Service::of_environment()?;
    watched.to_the_end(&manager, since, service, session)
}

/// kplay as a service of systemd, which waits until all pods are ready.
struct Service {
    notifier: Option<Notifier>,
    state: ServiceState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServiceState {
    Starting,
    Ready,
}

impl Service {
    fn of_environment() -> Result<Self, Error> {
        let notifier = Notifier::from_environment().map_err(|source| Error::Machine {
            what: "reach the service manager",
            source,
        })?;
        Ok(Self {
            notifier,
            state: ServiceState::Starting,
        })
    }

    /// Says so when all pods have become ready.
    fn look(&mut self, keys: &[PodKey], session: &Session) -> Result<(), Error> {
        if self.notifier.is_none() || self.state == ServiceState::Ready {
            return Ok(());
        }
        let mut ready = 0;
        for key in keys {
            let view = view::view(&PodDir::new(&session.layout, key))?;
            ready += usize::from(Condition::Ready.judge(view.as_ref()) == Verdict::Reached);
        }
        let status = format!("STATUS={ready} of {} pods are ready", keys.len());
        if ready == keys.len() {
            self.state = ServiceState::Ready;
            self.tell(&format!("READY=1\n{status}"));
        } else {
            self.tell(&status);
        }
        Ok(())
    }

    fn tell(&self, state: &str) {
        if let Some(Err(error)) = self.notifier.as_ref().map(|manager| manager.tell(state)) {
            // Pods run without it; the manager gives up on a service that is never ready.
            tracing::warn!(%error, "the service manager does not listen");
        }
    }
}

/// What runs in the foreground.
struct Watched<'a> {
    keys: &'a [PodKey],
    changes: &'a Changes,
    exit_code_from: Option<&'a str>,
}

impl Watched<'_> {
    fn to_the_end(
        &self,
        manager: &Manager,
        since: SystemTime,
        mut service: Service,
        session: &Session,
    ) -> Result<Done, Error> {
        let waiting = |source| Error::Machine {
            what: "wait for the pods",
            source,
        };
        let reaper = Reaper::new();
        let child_ends = ChildEnds::watch().map_err(waiting)?;
        let mut follow = follow(self.keys, since, session)?;
        loop {
            // Looked at before the logs are, which then have all that it said.
            let code = self.exit_code(session)?;
            service.look(self.keys, session)?;
            let step = follow.step(&mut session.ui.stream());
            if step.is_err() {
                // Nobody reads the logs any more: what runs only in the foreground has none.
                self.take_down(manager, session)?;
            }
            if let Some(code) = code {
                self.take_down(manager, session)?;
                return Ok(Done::With(code));
            }
            if step? {
                // What has just succeeded was ready enough.
                service.look(self.keys, session)?;
                return self.outcome(session);
            }
            let fds = [
                follow.watch().as_fd(),
                manager.interrupt.as_fd(),
                child_ends.as_fd(),
            ];
            poll::readable(&fds, None).map_err(waiting)?;
            // An executor that has ended is this process's child, and a zombie until it is waited for.
            child_ends.take().map_err(waiting)?;
            reaper.reap().map_err(waiting)?;
            if let Some(signal) = manager.interrupt.take().map_err(waiting)? {
                service.tell("STOPPING=1");
                session
                    .ui
                    .talk("deleting what was started; once more to leave it");
                self.take_down(manager, session)?;
                return Err(Error::Signal(signal));
            }
        }
    }

    /// Deletes what this command made; what was there before and has not changed stays.
    fn take_down(&self, manager: &Manager, session: &Session) -> Result<(), Error> {
        let inventory = Inventory::read(session, &Scope::All)?;
        let mut targets: Vec<Target> = Vec::new();
        for (key, change) in self.changes {
            let pod = inventory
                .pods
                .iter()
                .find(|pod| pod_object(&pod.key) == *key);
            match (pod, change) {
                (_, Change::Unchanged) => {}
                // The pod of a workload goes with it.
                (Some(pod), _) => targets.push(Target::Object(pod.view.record.owner.clone())),
                (None, Change::Created) => targets.push(Target::Object(key.clone())),
                (None, Change::Configured) => {}
            }
        }
        targets.sort();
        targets.dedup();
        let options = DeleteOptions {
            grace: Grace::Own,
            volumes: Volumes::Keep,
            missing: Missing::Ignore,
            wait: Wait::ForEnd,
        };
        delete::delete(manager, &targets, options, Deed::Deleted, session)?;
        Ok(())
    }

    /// The exit code of the container that decides, once it has ended for good.
    fn exit_code(&self, session: &Session) -> Result<Option<u8>, Error> {
        let Some(name) = self.exit_code_from else {
            return Ok(None);
        };
        for key in self.keys {
            let Some(view) = view::view(&PodDir::new(&session.layout, key))? else {
                continue;
            };
            let Some(status) = follow::find_status(&view, name) else {
                continue;
            };
            return Ok(match &status.state {
                ContainerState::Terminated(end) => {
                    Some(u8::try_from(end.exit_code).unwrap_or(u8::MAX))
                }
                ContainerState::Waiting(_) | ContainerState::Running(_) => {
                    matches!(view.status.phase, Phase::Failed).then_some(super::error::WORKLOAD)
                }
            });
        }
        // The pod is gone: somebody deleted it.
        Ok(Some(signal_code(15)))
    }

    /// All pods have ended: well, or the first that did not is told.
    fn outcome(&self, session: &Session) -> Result<Done, Error> {
        for key in self.keys {
            let view = view::view(&PodDir::new(&session.layout, key))?;
            if view
                .as_ref()
                .is_none_or(|view| view.status.phase != Phase::Failed)
            {
                continue;
            }
            if let Verdict::Never { reason, message } = Condition::Complete.judge(view.as_ref()) {
                return Err(Error::Manager(manager::Error::Workload {
                    pod: key.clone(),
                    reason,
                    message,
                }));
            }
        }
        Ok(Done::Well)
    }
}

/// All logs of these pods.
fn follow(keys: &[PodKey], since: SystemTime, session: &Session) -> Result<Follow, Error> {
    let inventory = Inventory::read(session, &Scope::All)?;
    let pods: Vec<&Pod> = inventory
        .pods
        .iter()
        .filter(|pod| keys.contains(&pod.key))
        .collect();
    let mut sources = Vec::new();
    for pod in pods {
        for container in target::containers(pod) {
            let colour = session.ui.out_colour();
            let name = pod.key.name.as_str();
            let prefix = report::log_prefix(name, container, sources.len(), colour);
            sources.push(logs::source(&session.layout, pod, container, prefix));
        }
    }
    let options = Options {
        tail: None,
        since: Some(since),
        streams: Streams::Both,
    };
    Follow::new(
        &session.layout,
        sources,
        options,
        Timestamps::Hidden,
        Extent::AllRuns,
    )
}

fn check_container(job: &Job, name: &str) -> Result<(), Error> {
    let containers = job
        .input
        .plans
        .iter()
        .flat_map(|plan| plan.all_containers());
    let names: Vec<&str> = containers
        .map(|container| container.name.as_str())
        .collect();
    if names.contains(&name) {
        return Ok(());
    }
    Err(Error::NotFound {
        message: format!("no pod of the manifests has a container `{name}`"),
        hint: format!("there is {}", report::joined(names)),
    })
}
