//! `completion SHELL`.

use clap::Args;
use clap_complete::Shell;

use super::error::{Done, Error};
use super::session::Session;
use super::app;

/// Flags of `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Write for this shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints a completion script.
///
/// # Errors
/// It cannot be printed.
pub(crate) fn run(arguments: &CompletionArgs, session: &Session) -> Result<Done, Error> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut app::command(), "kplay", &mut script);
    session.ui.data(&script)?;
    Ok(Done::Well)
}
