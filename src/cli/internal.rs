//! Hidden entry points, for kplay's own processes: `kplay internal create` is the helper that creates one container.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use super::pull;

/// Runs an entry point if the arguments name one. Looked at before anything else is set up: a helper is started for
/// every container and every probe, and libcontainer needs a process with one thread.
#[must_use]
pub(super) fn run() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next().as_deref() != Some(OsStr::new("internal")) {
        return None;
    }
    match args.next().as_deref().and_then(OsStr::to_str) {
        Some("create") => Some(crate::runtime::create::main()),
        Some("copy") => Some(crate::copy::main()),
        Some("try") => Some(crate::manager::doctor::try_all(args.next().as_deref())),
        Some("execute") => Some(execute(args.next().as_deref())),
        Some("pull") => Some(match (args.next(), args.next()) {
            (Some(dir), Some(container)) => pull::main(Path::new(&dir), &container),
            _ => ExitCode::FAILURE,
        }),
        _ => None,
    }
}

fn execute(dir: Option<&OsStr>) -> ExitCode {
    let Some(dir) = dir else {
        return ExitCode::FAILURE;
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // It would print that a message could not be written, to the same full disk, and panic because it cannot.
        .log_internal_errors(false)
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .init();
    match crate::executor::run(Path::new(dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the pod could not be run"
            );
            ExitCode::FAILURE
        }
    }
}
