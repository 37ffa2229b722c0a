//! `system doctor|info|df|prune|reset`: kplay as a whole.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::apply;
use super::disk;
use super::error::{Done, Error, MACHINE};
use super::inventory::{Inventory, Scope};
use super::session::Session;
use crate::manager::doctor::{self, Check, Verdict};
use crate::manager::stop::Grace;
use crate::manager::{self, Event, reset as resetting, storage};
use crate::output::doctor as report;
use crate::output::object::{self, Notation};
use crate::output::report::{Deed, Reality, deed};
use crate::output::{images, table};
use crate::state::layout::Layout;

/// What to do with kplay as a whole.
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Say whether pods can run on this machine, and what would mend what cannot be
    Doctor(DoctorArgs),
    /// Say where kplay keeps things, and how many there are
    Info(InfoArgs),
    /// Show how much images, pods and volumes take
    Df(disk::DfArgs),
    /// Remove images, and with `--volumes` volumes, that nothing needs
    Prune(disk::PruneArgs),
    /// End all pods, and remove everything that kplay keeps
    Reset(ResetArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

impl From<Format> for Notation {
    fn from(format: Format) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::Yaml => Self::Yaml,
        }
    }
}

/// Flags of `system doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print in this format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

/// Flags of `system info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Print in this format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

/// Flags of `system reset`.
#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// Do not ask, and kill the pods at once
    #[arg(short, long)]
    force: bool,
}

/// Runs a command about kplay as a whole.
///
/// # Errors
/// State cannot be read, something cannot be removed.
pub(crate) fn run(command: &SystemCommand, session: &Session) -> Result<Done, Error> {
    match command {
        SystemCommand::Doctor(arguments) => doctor(arguments, session),
        SystemCommand::Info(arguments) => info(arguments, session),
        SystemCommand::Df(arguments) => disk::df(arguments, session),
        SystemCommand::Prune(arguments) => disk::prune(arguments, session),
        SystemCommand::Reset(arguments) => reset(arguments, session),
    }
}

fn examine(layout: &Layout) -> Result<Vec<Check>, Error> {
    doctor::examine(layout).map_err(|source| Error::Machine {
        what: "try what pods need",
        source,
    })
}

fn doctor(arguments: &DoctorArgs, session: &Session) -> Result<Done, Error> {
    let checks = examine(&session.layout)?;
    let fit = doctor::is_fit(&checks);
    let rows: Vec<report::Row> = checks
        .into_iter()
        .map(|check| report::Row {
            name: check.name,
            verdict: check.verdict.as_str(),
            detail: check.detail,
            remedy: check.remedy,
        })
        .collect();
    let text = match arguments.output {
        None => report::lines(&rows, session.ui.out_colour()),
        Some(format) => object::text(&report::object(&rows, fit), format.into())?,
    };
    session.ui.data(text.as_bytes())?;
    if fit {
        return Ok(Done::Well);
    }
    session.ui.talk("no pod can run here");
    Ok(Done::With(MACHINE))
}

/// An error with what of the machine is behind it, if anything is: a pod that does not start for the machine's sake has
/// the machine looked at.
pub(crate) fn explained(error: Error, layout: &Layout) -> Error {
    let Error::Manager(cause) = error else {
        return error;
    };
    if !is_of_machine(&cause) {
        return Error::Manager(cause);
    }
    let checks = doctor::examine(layout).unwrap_or_else(|error| {
        // The cause is told without.
        tracing::debug!(%error, "the machine cannot be looked at");
        Vec::new()
    });
    let faults: Vec<Check> = checks
        .into_iter()
        .filter(|check| check.verdict == Verdict::Fails)
        .collect();
    match faults.is_empty() {
        true => Error::Manager(cause),
        false => Error::Unfit {
            cause: Box::new(cause),
            faults,
        },
    }
}

fn is_of_machine(error: &manager::Error) -> bool {
    use crate::protocol::FailureClass;
    use manager::Error as E;
    match error {
        E::NotRoot | E::ExecutorDied { .. } => true,
        E::Launch { failure, .. } => failure.class == FailureClass::Machine,
        E::RolledBack { cause, .. } => is_of_machine(cause),
        E::Several(errors) => errors.iter().any(is_of_machine),
        _ => false,
    }
}

fn info(arguments: &InfoArgs, session: &Session) -> Result<Done, Error> {
    let machine = doctor::machine(&session.layout);
    let inventory = Inventory::read(session, &Scope::All)?;
    let mut phases: BTreeMap<String, usize> = BTreeMap::new();
    for pod in &inventory.pods {
        let phase = format!("{:?}", pod.view.status.phase);
        *phases.entry(phase).or_default() += 1;
    }
    let images = match session.layout.images().exists() {
        true => session.store()?.list()?,
        false => Vec::new(),
    };
    let size = images.iter().map(|image| image.size).sum();
    let (volumes, unreadable) = storage::list(&session.layout)?;
    for error in &unreadable {
        session.ui.warning(&crate::model::cause::chain(error));
    }
    let version = env!("CARGO_PKG_VERSION");
    if let Some(format) = arguments.output {
        let info = json!({
            "apiVersion": "kplay/v1",
            "kind": "Info",
            "version": format!("v{version}"),
            "root": session.layout.root(),
            "runRoot": session.layout.runroot(),
            "fileSystem": machine.file_system,
            "freeBytes": machine.free_bytes,
            "kernel": machine.kernel,
            "user": machine.user,
            "container": machine.container,
            "cgroups": { "version": machine.cgroup_version, "controllers": machine.controllers },
            "pods": phases,
            "images": { "count": images.len(), "bytes": size },
            "volumes": volumes.len(),
        });
        let text = object::text(&info, format.into())?;
        session.ui.data(text.as_bytes())?;
        return Ok(Done::Well);
    }
    let free = machine
        .free_bytes
        .map_or("unknown".to_owned(), images::size);
    let of_phases: Vec<String> = phases
        .iter()
        .map(|(phase, count)| format!("{count} {phase}"))
        .collect();
    let cgroups = match machine.cgroup_version {
        Some(version) => format!("version {version} with {}", machine.controllers.join(", ")),
        None => "none".to_owned(),
    };
    let root = session.layout.root().display();
    let rows = [
        ("Version", version.to_owned()),
        (
            "Root",
            format!("{root} ({}, {free} free)", machine.file_system),
        ),
        ("Run root", session.layout.runroot().display().to_string()),
        ("User", machine.user),
        ("Kernel", machine.kernel),
        (
            "Container",
            machine.container.unwrap_or_else(|| "none".to_owned()),
        ),
        ("Cgroups", cgroups),
        ("Pods", counted(inventory.pods.len(), &of_phases.join(", "))),
        ("Images", counted(images.len(), &images::size(size))),
        ("Volumes", volumes.len().to_string()),
    ];
    let mut shown = table::Table::new(vec!["", ""]);
    for (name, value) in rows {
        shown.push(vec![name.to_owned(), value]);
    }
    let text = shown.render(table::Headers::Hidden);
    session.ui.data(text.as_bytes())?;
    Ok(Done::Well)
}

fn counted(count: usize, more: &str) -> String {
    match count {
        0 => "0".to_owned(),
        count => format!("{count} ({more})"),
    }
}

fn reset(arguments: &ResetArgs, session: &Session) -> Result<Done, Error> {
    if !arguments.force && !agreed(session)? {
        return Ok(Done::Well);
    }
    let grace = match arguments.force {
        true => Grace::Kill,
        false => Grace::Own,
    };
    let manager = apply::manager(session)?;
    let mut printed = Ok(());
    let left = resetting::reset(&manager, grace, &mut |event| {
        session.note(&event);
        if let Event::Deleted(key) = event
            && printed.is_ok()
        {
            printed = session.ui.line(&deed(&key, Deed::Deleted, Reality::Done));
        }
    })?;
    printed?;
    for path in left {
        session
            .ui
            .note(&format!("`{}` is not kplay's, and stays", path.display()));
    }
    Ok(Done::Well)
}

/// Asks as podman does.
fn agreed(session: &Session) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::usage(
            "there is nobody to ask whether to remove everything: `--force` does without",
        ));
    }
    let root = session.layout.root().display();
    session.ui.ask(&format!(
        "WARNING! This will remove all that kplay keeps in {root}:\n  all pods\n  all images\n  all volumes with their content\n  \
         all other objects\nAre you sure you want to continue? [y/N] "
    ));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|source| Error::Machine {
            what: "read the answer",
            source,
        })?;
    Ok(answer.trim().to_lowercase().starts_with('y'))
}
