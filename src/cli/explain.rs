//! `explain`: what a field is, and whether and how kplay honours it.

use clap::Args;

use super::error::{Done, Error};
use super::resource;
use super::session::Session;
use crate::loader::fields::{self, Unknown};
use crate::manager::resolve::{KINDS, Kind};
use crate::output::explain::{self, Levels, Within};
use crate::output::report;

/// Flags of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Explain this: `TYPE`, or a field of it such as `pod.spec.containers.image`
    #[arg(value_name = "FIELD")]
    field: String,
    /// Show the fields of fields, too
    #[arg(long)]
    recursive: bool,
}

/// Explains a kind or one of its fields.
///
/// # Errors
/// There is no such kind or field.
pub(crate) fn run(arguments: &ExplainArgs, session: &Session) -> Result<Done, Error> {
    let (name, path) = match arguments.field.split_once('.') {
        Some(parts) => parts,
        None => (arguments.field.as_str(), ""),
    };
    let known = || {
        KINDS
            .iter()
            .filter(|kind| !fields::of(kind.kind).is_empty())
    };
    let kind = Kind::parse(name).filter(|kind| known().any(|known| known == *kind));
    let Some(kind) = kind else {
        return Err(unknown_kind(name, known()));
    };
    let found = fields::look_up(kind.kind, path).map_err(|unknown| unknown_field(kind, unknown))?;
    let version = match kind.group {
        "" => "v1".to_owned(),
        group => format!("{group}/v1"),
    };
    let within = Within {
        kind: kind.kind,
        version: &version,
    };
    let levels = match arguments.recursive {
        true => Levels::All,
        false => Levels::One,
    };
    let page = explain::page(within, &found.path, found.fields, levels, &fields::of);
    session.ui.data(page.as_bytes())?;
    Ok(Done::Well)
}

fn unknown_kind(name: &str, known: impl Iterator<Item = &'static Kind>) -> Error {
    let known: Vec<String> = known.map(|kind| kind.kind.to_lowercase()).collect();
    let known = || known.iter().map(String::as_str);
    let hint = match resource::closest(&name.to_lowercase(), known()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there is {}", report::joined(known())),
    };
    Error::NotFound {
        message: format!("no fields are known of the type `{name}`"),
        hint,
    }
}

fn unknown_field(kind: &Kind, unknown: Unknown) -> Error {
    let Unknown {
        name,
        within,
        meant,
        known,
    } = unknown;
    let within = match within.as_str() {
        "" => kind.kind.to_lowercase(),
        path => format!("{}.{path}", kind.kind.to_lowercase()),
    };
    if known.is_empty() {
        return Error::NotFound {
            message: format!("`{within}` has no fields"),
            hint: format!("`kplay explain {within}` says what it is"),
        };
    }
    let hint = match meant {
        Some(meant) => format!("did you mean `{within}.{meant}`?"),
        None => format!(
            "there is {}",
            report::joined(known.iter().map(|field| field.name))
        ),
    };
    Error::NotFound {
        message: format!("`{within}` has no field `{name}`"),
        hint,
    }
}
