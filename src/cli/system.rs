//! `system df|prune`: what kplay keeps on this machine's disks.

use clap::Subcommand;

use super::disk;
use super::error::{Done, Error};
use super::session::Session;

/// What to do with kplay as a whole.
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Show how much images, pods and volumes take
    Df(disk::DfArgs),
    /// Remove images, and with `--volumes` volumes, that nothing needs
    Prune(disk::PruneArgs),
}

/// Runs a command about kplay as a whole.
///
/// # Errors
/// State cannot be read, something cannot be removed.
pub(crate) fn run(command: &SystemCommand, session: &Session) -> Result<Done, Error> {
    match command {
        SystemCommand::Df(arguments) => disk::df(arguments, session),
        SystemCommand::Prune(arguments) => disk::prune(arguments, session),
    }
}
