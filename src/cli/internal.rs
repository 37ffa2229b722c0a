//! What kplay calls itself with: `internal execute DIR` (a pod's executor) and `internal create` (one container).
//!
//! Both are looked for before clap is set up: they are a part of the time that a pod takes to start.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Subcommand;

/// The same for clap, which refuses what [`run`] did not take.
#[derive(Debug, Subcommand)]
pub(crate) enum InternalCommand {
    /// Execute the pod of this run folder
    Execute { dir: std::path::PathBuf },
    /// Create the container that the request on standard input describes
    Create,
}

/// Runs an internal command if the arguments name one.
pub(crate) fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let [_, internal, name, rest @ ..] = arguments else {
        return None;
    };
    if internal != "internal" {
        return None;
    }
    match (name.to_str()?, rest) {
        ("execute", [dir]) => Some(execute(std::path::Path::new(dir))),
        ("create", []) => Some(create()),
        _ => None,
    }
}

fn execute(_dir: &std::path::Path) -> ExitCode {
    // crate::executor::run(dir)
    ExitCode::from(super::error::BUG)
}

fn create() -> ExitCode {
    // crate::runtime::create()
    ExitCode::from(super::error::BUG)
}
