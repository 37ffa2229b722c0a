//! `system doctor`, and what it says of the machine when a pod does not start for the machine's sake.

use clap::{Args, ValueEnum};

use super::error::{Done, Error, MACHINE};
use super::session::Session;
use crate::manager;
use crate::manager::doctor::{self, Check, Verdict};
use crate::manager::rootless;
use crate::output::doctor as report;
use crate::output::object::{self, Notation};
use crate::state::layout::Layout;

/// Flags of `system doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print in this format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
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

/// Says what works, what does not, and what would mend it.
///
/// # Errors
/// The machine cannot be looked at.
pub(crate) fn run(arguments: &DoctorArgs, session: &Session) -> Result<Done, Error> {
    let checks = doctor::examine(&session.layout).map_err(|source| Error::Machine {
        what: "try what pods need",
        source,
    })?;
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
        E::Rootless(rootless::Error::Make(_) | rootless::Error::Enter(_)) => true,
        E::Launch { failure, .. } => failure.class == FailureClass::Machine,
        E::RolledBack { cause, .. } => is_of_machine(cause),
        E::Several(errors) => errors.iter().any(is_of_machine),
        _ => false,
    }
}
