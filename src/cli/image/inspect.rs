//! `image inspect`.

use clap::Args;
use serde_json::Value;

use super::named;
use crate::cli::error::{Done, Error};
use crate::cli::session::Session;
use crate::output::images::{self, Inspected};
use crate::output::object::{self, Notation};

/// Flags of `image inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Show all about these images, by name or by the start of their id
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Prints all about images, as podman does.
///
/// # Errors
/// One is not there; those that are there are printed all the same.
pub(crate) fn inspect(arguments: &InspectArgs, session: &Session) -> Result<Done, Error> {
    let store = session.store()?;
    let mut found = Vec::new();
    let mut failed: Option<Error> = None;
    for name in &arguments.images {
        let details = named(&store, name).and_then(|(image, _)| Ok(store.details(&image.id)?));
        match details {
            Ok(details) => {
                let json = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or(Value::Null);
                found.push(images::inspected(&Inspected {
                    id: &details.stored.id,
                    references: &details.stored.references,
                    config: json(&details.config),
                    manifest: details.manifest.as_ref().map(|(bytes, _)| json(bytes)),
                    digest: details.manifest.as_ref().map(|(_, digest)| digest.as_str()),
                    size: details.stored.size,
                    folders: &details.folders,
                }));
            }
            Err(error) => {
                if let Some(before) = failed.replace(error) {
                    before.tell(&session.ui);
                }
            }
        }
    }
    let text = object::text(&Value::Array(found), Notation::Json)?;
    session.ui.data(text.as_bytes())?;
    failed.map_or(Ok(Done::Well), Err)
}
