//! `system reset`: the end of everything that kplay keeps.

use std::io::{self, BufRead as _, IsTerminal as _};

use clap::Args;

use super::apply;
use super::error::{Done, Error};
use super::session::Session;
use crate::manager::stop::Grace;
use crate::manager::{Event, reset};
use crate::output::report::{Deed, Reality, deed};

/// Flags of `system reset`.
#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// Do not ask, and kill the pods at once
    #[arg(short, long)]
    force: bool,
}

/// Removes it, after asking.
///
/// # Errors
/// There is nobody to ask, or something cannot be removed.
pub(crate) fn run(arguments: &ResetArgs, session: &Session) -> Result<Done, Error> {
    if !arguments.force && !agreed(session)? {
        return Ok(Done::Well);
    }
    let grace = match arguments.force {
        true => Grace::Kill,
        false => Grace::Own,
    };
    let manager = apply::manager(session)?;
    let mut printed = Ok(());
    let left = reset::reset(&manager, grace, &mut |event| {
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
            .note(&format!("`{}` is left as it is", path.display()));
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
