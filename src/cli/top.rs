//! `top`: what containers use.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::error::{Done, Error};
use super::inventory::{Inventory, Pod, Scope};
use super::session::Session;
use super::target;
use crate::loader::Selector;
use crate::manager::usage::{self as counted, Usage};
use crate::model::names::{ContainerName, PodKey};
use crate::model::status::ContainerState;
use crate::output::object::{self, Notation};
use crate::output::table::Headers;
use crate::output::usage::{self, Row};
use crate::state::pod_dir::PodDir;
use crate::sys::poll::{self, Interrupt};
use crate::sys::userns;

/// Flags of `top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Show `pods`, or only these
    #[arg(value_name = "pods|POD")]
    what: Vec<String>,
    /// Show all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Show only pods with such labels
    #[arg(short = 'l', long, value_parser = Selector::parse)]
    selector: Option<Selector>,
    /// Show those that use most of it first
    #[arg(long, value_name = "WHAT", value_enum)]
    sort_by: Option<Amount>,
    /// Print in this format
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        conflicts_with = "watch"
    )]
    output: Option<Format>,
    /// Go on, and show it anew every two seconds, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Print no column names
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Amount {
    Cpu,
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

/// For how long the first look at processor time takes, and those after it.
const FIRST: Duration = Duration::from_secs(1);
const NEXT: Duration = Duration::from_secs(2);

/// Shows what containers use.
///
/// # Errors
/// A named pod is not there, or the counters cannot be read.
pub(crate) fn run(arguments: &TopArgs, session: &Session) -> Result<Done, Error> {
    let interrupt = Interrupt::install().map_err(waiting)?;
    let mut before = look(arguments, session)?;
    if before.is_empty() {
        session.ui.talk("No running containers found");
        if !arguments.watch {
            if arguments.output.is_some() {
                show(&[], Duration::ZERO, arguments, session)?;
            }
            return Ok(Done::Well);
        }
    }
    let mut window = FIRST;
    loop {
        if let Some(signal) = pause(window, &interrupt)? {
            return match arguments.watch {
                true => Ok(Done::Well),
                false => Err(Error::Signal(signal)),
            };
        }
        let now = look(arguments, session)?;
        let mut rows = rows(&before, &now);
        match arguments.sort_by {
            None => {}
            Some(Amount::Cpu) => rows.sort_by_key(|row| std::cmp::Reverse(row.nanocores)),
            Some(Amount::Memory) => rows.sort_by_key(|row| std::cmp::Reverse(row.bytes)),
        }
        show(&rows, window, arguments, session)?;
        if !arguments.watch {
            return Ok(Done::Well);
        }
        before = now;
        window = NEXT;
    }
}

fn waiting(source: std::io::Error) -> Error {
    Error::Machine {
        what: "wait between two looks",
        source,
    }
}

/// Waits; returns the signal that ended it.
fn pause(window: Duration, interrupt: &Interrupt) -> Result<Option<i32>, Error> {
    let deadline = Instant::now() + window;
    poll::readable(&[interrupt.as_fd()], Some(deadline)).map_err(waiting)?;
    interrupt.take().map_err(waiting)
}

/// What each container that runs uses now. A pod that comes in a later look is in that one.
type Looks = BTreeMap<(PodKey, ContainerName), Usage>;

fn look(arguments: &TopArgs, session: &Session) -> Result<Looks, Error> {
    let scope = match arguments.all_namespaces {
        true => Scope::All,
        false => Scope::Namespace(session.namespace.clone()),
    };
    let inventory = Inventory::read(session, &scope)?;
    let names = match arguments.what.split_first() {
        Some((first, names)) if matches!(first.as_str(), "pods" | "pod" | "po") => names,
        _ => arguments.what.as_slice(),
    };
    let mut pods: Vec<&Pod> = Vec::new();
    if names.is_empty() {
        pods.extend(&inventory.pods);
    }
    for name in names {
        pods.extend(target::pods(&inventory, name)?);
    }
    let mut looks = Looks::new();
    let mut uncounted = false;
    for pod in pods {
        let labels = &pod.view.record.labels;
        if arguments
            .selector
            .as_ref()
            .is_some_and(|one| !one.matches(labels))
        {
            continue;
        }
        let status = &pod.view.status;
        let containers = status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses);
        for container in containers {
            let ContainerState::Running(_) = container.state else {
                continue;
            };
            let dir = PodDir::new(&session.layout, &pod.key);
            let used = counted::of_container(&dir, &pod.view.record.uid, &container.name)?;
            uncounted |= used.is_none();
            if let (Some(used), Ok(name)) = (used, ContainerName::parse(&container.name)) {
                looks.insert((pod.key.clone(), name), used);
            }
        }
    }
    // Those that have just ended are not missed beside others.
    if looks.is_empty() && uncounted && !userns::is_initial() {
        return Err(Error::Refused(
            "nothing counts what these containers use: without root that takes cgroups of version 2, of the user's systemd or \
             otherwise the user's own (`kplay system doctor` says more)"
                .to_owned(),
        ));
    }
    Ok(looks)
}

fn rows(before: &Looks, now: &Looks) -> Vec<Row> {
    now.iter()
        .map(|(key, used)| Row {
            pod: key.0.clone(),
            container: key.1.clone(),
            nanocores: before
                .get(key)
                .and_then(|before| used.nanocores_since(before)),
            bytes: used.memory,
            pids: used.pids,
        })
        .collect()
}

fn show(
    rows: &[Row],
    window: Duration,
    arguments: &TopArgs,
    session: &Session,
) -> Result<(), Error> {
    /// Clears a terminal, and goes to its first line.
    const CLEAR: &str = "\x1b[H\x1b[2J";
    let headers = match arguments.no_headers {
        true => Headers::Hidden,
        false => Headers::Shown,
    };
    let text = match arguments.output {
        None => usage::table(rows, headers, arguments.all_namespaces),
        Some(format) => {
            let notation = match format {
                Format::Json => Notation::Json,
                Format::Yaml => Notation::Yaml,
            };
            object::text(&usage::list(rows, Timestamp::now(), window), notation)?
        }
    };
    let redraws = arguments.watch && std::io::stdout().is_terminal();
    let clear = if redraws { CLEAR } else { "" };
    Ok(session.ui.data(format!("{clear}{text}").as_bytes())?)
}
