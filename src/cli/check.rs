//! `check`: all that `apply` checks, without touching the machine.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::error::{Done, Error};
use super::manifests::{self, ManifestArgs, Publishing};
use super::session::Session;
use crate::loader::Loaded;
use crate::model::diagnostic::{Diagnostic, Severity};
use crate::output::object::{self, Notation};

/// Flags of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    /// Take notes and warnings for errors
    #[arg(long)]
    strict: bool,
    /// Print what is found in this format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
}

/// Checks manifests.
///
/// # Errors
/// A file cannot be read, or is wrong.
pub(crate) fn run(arguments: &CheckArgs, session: &Session) -> Result<Done, Error> {
    let names = arguments.manifests.names()?;
    let reading = &arguments.manifests.reading;
    let (_, loaded) = manifests::load(&names, reading, Publishing::as_declared(), session)?;
    let failed = loaded.has_errors() || (arguments.strict && !loaded.diagnostics.is_empty());
    match arguments.output {
        Some(Format::Json) => {
            let report = report(&loaded, failed);
            let text = object::text(&report, Notation::Json)?;
            session.ui.data(text.as_bytes())?;
        }
        None => {
            session.ui.diagnostics(&loaded.diagnostics);
            if !failed {
                for object in &loaded.objects {
                    let ignored = if object.played { "" } else { ", not played" };
                    session.ui.line(&format!("{} ok{ignored}", object.key))?;
                }
            }
        }
    }
    match failed {
        true => Err(Error::Manifest),
        false => Ok(Done::Well),
    }
}

fn report(loaded: &Loaded, failed: bool) -> Value {
    let objects: Vec<Value> = loaded
        .objects
        .iter()
        .map(|object| {
            json!({
                "object": object.key.to_string(),
                "namespace": object.key.namespace,
                "played": object.played,
            })
        })
        .collect();
    let diagnostics: Vec<Value> = loaded.diagnostics.iter().map(diagnostic).collect();
    json!({
        "apiVersion": "kplay/v1",
        "kind": "CheckReport",
        "valid": !failed,
        "objects": objects,
        "diagnostics": diagnostics,
    })
}

fn diagnostic(diagnostic: &Diagnostic) -> Value {
    let severity = match diagnostic.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let place = diagnostic.place.as_ref();
    json!({
        "severity": severity,
        "message": diagnostic.message,
        "file": place.map(|place| &place.file),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
        "hint": diagnostic.hint,
    })
}
