//! `image prune`.

use clap::Args;

use super::Users;
use crate::cli::error::{Done, Error};
use crate::cli::session::Session;
use crate::image::Unnamed;
use crate::output::images;

/// Flags of `image prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove all images that no pod uses, also those with names
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Removes images that nothing needs.
///
/// # Errors
/// Nobody can be asked, or something cannot be removed.
pub(crate) fn prune(arguments: &PruneArgs, session: &Session) -> Result<Done, Error> {
    let question = if arguments.all {
        "WARNING! This will remove all images that no pod uses."
    } else {
        "WARNING! This will remove all images that have no name and that no pod uses."
    };
    if !arguments.force && !session.agrees(question, "images")? {
        return Ok(Done::Well);
    }
    prune_unused(arguments.all, session)
}

/// Removes images without a name, or with `all` also those with one, that no pod uses.
///
/// # Errors
/// Something cannot be removed.
pub(crate) fn prune_unused(all: bool, session: &Session) -> Result<Done, Error> {
    let store = session.store()?;
    let users = Users::new(session);
    let in_use = |id: &str| users.are_of(id);
    let removed = if all {
        store.prune(&in_use)?
    } else {
        store.collect(Unnamed::Remove, &in_use)?
    };
    users.result()?;
    for reference in &removed.references {
        session.ui.line(&format!("Untagged: {reference}"))?;
    }
    for id in &removed.images {
        session.ui.line(&format!("Deleted: {id}"))?;
    }
    let freed = images::size(removed.bytes);
    session.ui.talk(&format!("freed {freed}"));
    Ok(Done::Well)
}
