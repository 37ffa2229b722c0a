//! `system doctor|info|df|prune|reset`: kplay as a whole.

use clap::Subcommand;

use super::error::{Done, Error};
use super::session::Session;
use super::{disk, doctor, info, reset};

/// What to do with kplay as a whole.
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Say whether pods can run on this machine, and what would mend what cannot be
    Doctor(doctor::DoctorArgs),
    /// Say where kplay keeps things, and how many there are
    Info(info::InfoArgs),
    /// Show how much images, pods and volumes take
    Df(disk::DfArgs),
    /// Remove images, and with `--volumes` volumes, that nothing needs
    Prune(disk::PruneArgs),
    /// End all pods, and remove everything that kplay keeps
    Reset(reset::ResetArgs),
}

/// Runs a command about kplay as a whole.
///
/// # Errors
/// State cannot be read, something cannot be removed.
pub(crate) fn run(command: &SystemCommand, session: &Session) -> Result<Done, Error> {
    match command {
        SystemCommand::Doctor(arguments) => doctor::run(arguments, session),
        SystemCommand::Info(arguments) => info::run(arguments, session),
        SystemCommand::Df(arguments) => disk::df(arguments, session),
        SystemCommand::Prune(arguments) => disk::prune(arguments, session),
        SystemCommand::Reset(arguments) => reset::run(arguments, session),
    }
}
