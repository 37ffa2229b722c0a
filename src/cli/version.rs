//! `version`.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::error::{Done, Error};
use super::session::Session;
use crate::output::object::{self, Notation};

/// Flags of `version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Print it in this format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

/// Prints the version.
///
/// # Errors
/// It cannot be printed.
pub(crate) fn run(arguments: &VersionArgs, session: &Session) -> Result<Done, Error> {
    let version = env!("CARGO_PKG_VERSION");
    let notation = match arguments.output {
        None => {
            session.ui.line(&format!("kplay {version}"))?;
            return Ok(Done::Well);
        }
        Some(Format::Json) => Notation::Json,
        Some(Format::Yaml) => Notation::Yaml,
    };
    let platform = format!("{}/{}", std::env::consts::OS, architecture());
    let object = json!({ "clientVersion": {
        "major": env!("CARGO_PKG_VERSION_MAJOR"),
        "minor": env!("CARGO_PKG_VERSION_MINOR"),
        "gitVersion": format!("v{version}"),
        "platform": platform,
    }});
    session
        .ui
        .data(object::text(&object, notation)?.as_bytes())?;
    Ok(Done::Well)
}

/// As images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
