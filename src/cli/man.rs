//! `man DIR`: the manual, from the same definitions as the help and the loader.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_mangen::Man;

use super::app;
use super::error::{Done, Error};
use super::session::Session;
use crate::loader::fields;
use crate::output::manual;
use crate::sys::fs;

/// Flags of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write the pages into this folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes the manual.
///
/// # Errors
/// It cannot be written.
pub(crate) fn run(arguments: &ManArgs, session: &Session) -> Result<Done, Error> {
    let dir = &arguments.dir;
    fs::create_dir_all(dir, 0o755)?;
    let mut command = app::command().disable_help_subcommand(true);
    command.build();
    let mut count = write(&command, dir)?;
    let page = manual::fields(fields::all(), command.get_version().unwrap_or_default());
    fs::replace(&dir.join("kplay-fields.7"), 0o644, page.as_bytes())?;
    count += 1;
    let shown = dir.display();
    session.ui.talk(&format!(
        "{count} pages are in `{shown}`; `man -l {shown}/kplay.1` shows the first"
    ));
    Ok(Done::Well)
}

/// Writes the pages of a command and of those below it.
fn write(command: &clap::Command, dir: &Path) -> Result<usize, Error> {
    let mut count = 1;
    let shown = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set());
    for below in shown {
        count += write(below, dir)?;
    }
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render(&mut page).map_err(|source| Error::Machine {
        what: "write a page of the manual",
        source,
    })?;
    fs::replace(&dir.join(man.get_filename()), 0o644, &page)?;
    Ok(count)
}
