//! `system info`: where kplay keeps things, and how many there are.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use super::doctor::Format;
use super::error::{Done, Error};
use super::inventory::{Inventory, Scope};
use super::session::Session;
use crate::manager::{doctor, storage};
use crate::model::cause::chain;
use crate::output::object;
use crate::output::{images, table};

/// Flags of `system info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Print in this format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

/// Prints it.
///
/// # Errors
/// State cannot be read.
pub(crate) fn run(arguments: &InfoArgs, session: &Session) -> Result<Done, Error> {
    let machine = doctor::machine(&session.layout);
    let inventory = Inventory::read(session, &Scope::All)?;
    let mut phases: BTreeMap<String, usize> = BTreeMap::new();
    for pod in &inventory.pods {
        let phase = format!("{:?}", pod.view.status.phase);
        *phases.entry(phase).or_default() += 1;
    }
    let images = match session.layout.images().exists() {
        true => session.store()?.list()?,
        false => Vec::new(),
    };
    let size = images.iter().map(|image| image.size).sum();
    let (volumes, unreadable) = storage::list(&session.layout)?;
    for error in &unreadable {
        session.ui.warning(&chain(error));
    }
    let version = env!("CARGO_PKG_VERSION");
    if let Some(format) = arguments.output {
        let info = json!({
            "apiVersion": "kplay/v1",
            "kind": "Info",
            "version": format!("v{version}"),
            "root": session.layout.root(),
            "runRoot": session.layout.runroot(),
            "fileSystem": machine.file_system,
            "freeBytes": machine.free_bytes,
            "kernel": machine.kernel,
            "user": machine.user,
            "container": machine.container,
            "cgroups": { "version": machine.cgroup_version, "controllers": machine.controllers },
            "pods": phases,
            "images": { "count": images.len(), "bytes": size },
            "volumes": volumes.len(),
        });
        let text = object::text(&info, format.into())?;
        session.ui.data(text.as_bytes())?;
        return Ok(Done::Well);
    }
    let free = machine
        .free_bytes
        .map_or("unknown".to_owned(), images::size);
    let of_phases: Vec<String> = phases
        .iter()
        .map(|(phase, count)| format!("{count} {phase}"))
        .collect();
    let cgroups = match machine.cgroup_version {
        Some(version) => format!("version {version} with {}", machine.controllers.join(", ")),
        None => "none".to_owned(),
    };
    let root = session.layout.root().display();
    let rows = [
        ("Version", version.to_owned()),
        (
            "Root",
            format!("{root} ({}, {free} free)", machine.file_system),
        ),
        ("Run root", session.layout.runroot().display().to_string()),
        ("User", machine.user),
        ("Kernel", machine.kernel),
        (
            "Container",
            machine.container.unwrap_or_else(|| "none".to_owned()),
        ),
        ("Cgroups", cgroups),
        ("Pods", counted(inventory.pods.len(), &of_phases.join(", "))),
        ("Images", counted(images.len(), &images::size(size))),
        ("Volumes", volumes.len().to_string()),
    ];
    let mut shown = table::Table::new(vec!["", ""]);
    for (name, value) in rows {
        shown.push(vec![name.to_owned(), value]);
    }
    let text = shown.render(table::Headers::Hidden);
    session.ui.data(text.as_bytes())?;
    Ok(Done::Well)
}

fn counted(count: usize, more: &str) -> String {
    match count {
        0 => "0".to_owned(),
        count => format!("{count} ({more})"),
    }
}
