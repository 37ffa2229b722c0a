//! `logs`.

use std::os::fd::AsFd as _;
use std::time::SystemTime;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::error::{Done, Error};
use super::follow::{self, Extent, Follow, Source};
use super::inventory::{Inventory, Pod, Scope};
use super::session::Session;
use super::target;
use super::values::GoDuration;
use crate::loader::Selector;
use crate::model::status::ContainerState;
use crate::output::object::{array, string};
use crate::output::report;
use crate::state::layout::Layout;
use crate::state::logs::{self, Options, Streams, Timestamps};
use crate::sys::poll::{self, Interrupt};

/// Flags of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Show this pod's logs: its name, TYPE/NAME, or a workload's name
    #[arg(
        value_name = "POD",
        required_unless_present = "selector",
        conflicts_with = "selector"
    )]
    pod: Option<String>,
    /// Show this container's log
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_containers")]
    container: Option<String>,
    /// Show the logs of all containers
    #[arg(long)]
    all_containers: bool,
    /// Say before each line where it is from
    #[arg(long)]
    prefix: bool,
    /// Go on while the log grows
    #[arg(short, long)]
    follow: bool,
    /// Show the run before the last restart
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// Show only the last lines; -1 is all
    #[arg(long, value_name = "LINES", allow_hyphen_values = true, default_value_t = -1, hide_default_value = true)]
    tail: i64,
    /// Show only what is newer than this
    #[arg(long, value_name = "DURATION", conflicts_with = "since_time")]
    since: Option<GoDuration>,
    /// Show only what was written since this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since_time: Option<Timestamp>,
    /// Show the time of each line
    #[arg(long)]
    timestamps: bool,
    /// Follow at most so many containers at once
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 5,
        hide_default_value = true
    )]
    max_log_requests: usize,
    /// Show the logs of all pods with such labels
    #[arg(short = 'l', long, value_parser = Selector::parse)]
    selector: Option<Selector>,
}

/// Prints logs.
///
/// # Errors
/// The pod or container is not there, or has no log yet.
pub(crate) fn run(arguments: &LogsArgs, session: &Session) -> Result<Done, Error> {
    let interrupt = Interrupt::install().map_err(|source| Error::Machine {
        what: "handle signals",
        source,
    })?;
    let scope = Scope::Namespace(session.namespace.clone());
    let inventory = Inventory::read(session, &scope)?;
    let pods = arguments.pods(&inventory, session)?;
    let mut chosen = Vec::new();
    for pod in pods {
        for container in arguments.containers(pod, session)? {
            chosen.push((pod, container));
        }
    }
    let sources = (0..).zip(&chosen).map(|(number, (pod, container))| {
        let prefix = if arguments.prefix {
            let colour = session.ui.out_colour();
            report::log_prefix(pod.key.name.as_str(), container, number, colour)
        } else {
            String::new()
        };
        source(&session.layout, pod, container, prefix)
    });
    let sources: Vec<Source> = sources.collect();
    if arguments.follow && sources.len() > arguments.max_log_requests {
        return Err(Error::usage(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
            sources.len(),
            arguments.max_log_requests
        )));
    }
    if arguments.follow {
        arguments.follow(sources, &interrupt, session)
    } else {
        for ((pod, container), source) in chosen.iter().zip(&sources) {
            arguments.print(pod, container, source, session)?;
        }
        Ok(Done::Well)
    }
}

/// Where a container's log is.
pub(crate) fn source(layout: &Layout, pod: &Pod, container: &str, prefix: String) -> Source {
    let uid = &pod.view.record.uid;
    Source {
        pod: pod.key.clone(),
        container: container.to_owned(),
        dir: layout.pod_logs(&pod.key, uid).join(container),
        prefix,
    }
}

impl LogsArgs {
    fn pods<'a>(&self, inventory: &'a Inventory, session: &Session) -> Result<Vec<&'a Pod>, Error> {
        let Some(name) = &self.pod else {
            let chosen = |pod: &&Pod| {
                let labels = &pod.view.record.labels;
                self.selector.as_ref().is_none_or(|s| s.matches(labels))
            };
            let pods: Vec<&Pod> = inventory.pods.iter().filter(chosen).collect();
            if pods.is_empty() {
                session.ui.talk("No resources found");
            }
            return Ok(pods);
        };
        Ok(vec![target::one_pod(inventory, name, session)?])
    }

    fn containers<'a>(&self, pod: &'a Pod, session: &Session) -> Result<Vec<&'a str>, Error> {
        if self.all_containers {
            return Ok(target::containers(pod));
        }
        let named = self.container.as_deref();
        Ok(vec![target::container(pod, named, session)?])
    }

    fn options(&self) -> Options {
        let since = match (self.since, self.since_time) {
            (Some(GoDuration(age)), _) => SystemTime::now().checked_sub(age),
            (None, Some(time)) => Some(time.into()),
            (None, None) => None,
        };
        // As in kubectl, a selector shows the end of many logs rather than all of them.
        let tail = match (self.tail, &self.selector) {
            (-1, Some(_)) => Some(10),
            (lines, _) => usize::try_from(lines).ok(),
        };
        Options {
            tail,
            since,
            streams: Streams::Both,
        }
    }

    fn shown_timestamps(&self) -> Timestamps {
        if self.timestamps {
            Timestamps::Shown
        } else {
            Timestamps::Hidden
        }
    }

    fn print(
        &self,
        pod: &Pod,
        container: &str,
        source: &Source,
        session: &Session,
    ) -> Result<(), Error> {
        let runs = logs::restarts(&source.dir).map_err(Error::File)?;
        let status = follow::find_status(&pod.view, container);
        let waiting = match status.map(|status| &status.state) {
            Some(ContainerState::Waiting(waiting)) => Some(waiting.reason.as_str()),
            Some(ContainerState::Running(_) | ContainerState::Terminated(_)) => None,
            None => Some("ContainerCreating"),
        };
        // A container that waits for its restart has no current run: the last one is the previous one.
        let run = match (self.previous, waiting) {
            (true, None) => runs.iter().rev().nth(1),
            (true, Some(_)) | (false, _) => runs.last(),
        };
        let name = format!("container `{container}` of the pod `{}`", pod.key.name);
        match (run, waiting) {
            (Some(run), _) => {
                let mut out = session.ui.stream();
                let mut each = follow::show(&source.prefix, self.shown_timestamps(), &mut out);
                logs::read(&source.dir, *run, &self.options(), &mut each)?;
                drop(each);
                std::io::Write::flush(&mut out).map_err(|e| Error::Logs(logs::Error::Output(e)))
            }
            (None, _) if self.previous => Err(Error::NotFound {
                message: format!("{name} has no previous run"),
                hint: "without `--previous` its only run is shown".to_owned(),
            }),
            (None, Some(reason)) if self.all_containers => {
                session
                    .ui
                    .note(&format!("{name} has not been started: {reason}"));
                Ok(())
            }
            (None, Some(reason)) => Err(Error::Refused(format!(
                "{name} is waiting to start: {reason}"
            ))),
            // It ran and said nothing, or its log is gone.
            (None, None) => Ok(()),
        }
    }

    fn follow(
        &self,
        sources: Vec<Source>,
        interrupt: &Interrupt,
        session: &Session,
    ) -> Result<Done, Error> {
        let mut follow = Follow::new(
            &session.layout,
            sources,
            self.options(),
            self.shown_timestamps(),
            Extent::OneRun,
        )?;
        let mut out = session.ui.stream();
        let waiting = |source| Error::Machine {
            what: "wait for the logs",
            source,
        };
        while !follow.step(&mut out)? {
            poll::readable(&[follow.watch().as_fd(), interrupt.as_fd()], None).map_err(waiting)?;
            if let Some(signal) = interrupt.take().map_err(waiting)? {
                return Err(Error::Signal(signal));
            }
        }
        Ok(Done::Well)
    }
}

/// The names of a list of containers in a manifest.
pub(crate) fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    array(pod, list)
        .iter()
        .map(|container| string(container, "/name"))
        .collect()
}
