//! `describe`.

use clap::Args;
use jiff::Timestamp;

use super::error::{Done, Error};
use super::inventory::{Inventory, Scope};
use super::resource;
use super::session::Session;
use super::target;
use crate::manager::resolve::Kind;
use crate::output::describe;
use crate::state::pod_dir::PodDir;

/// Flags of `describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// Describe these pods: `pod NAME`, `TYPE/NAME`, `NAME`
    #[arg(value_name = "POD", required = true)]
    what: Vec<String>,
}

/// Describes pods.
///
/// # Errors
/// One is not there, or cannot be read.
pub(crate) fn run(arguments: &DescribeArgs, session: &Session) -> Result<Done, Error> {
    let scope = Scope::Namespace(session.namespace.clone());
    let inventory = Inventory::read(session, &scope)?;
    let mut pods = Vec::new();
    for name in names(&arguments.what) {
        pods.extend(target::pods(&inventory, &name)?);
    }
    if pods.is_empty() {
        pods.extend(&inventory.pods);
    }
    let mut pages = Vec::new();
    for pod in pods {
        let events = PodDir::new(&session.layout, &pod.key).events()?;
        pages.push(describe::pod(&pod.json, &events, Timestamp::now()));
    }
    session.ui.data(pages.join("\n\n").as_bytes())?;
    Ok(Done::Well)
}

/// The arguments without the type that may come first; `deploy web` becomes `deployment/web`.
fn names(what: &[String]) -> Vec<String> {
    let Some((first, rest)) = what.split_first() else {
        return Vec::new();
    };
    match Kind::parse(first) {
        Some(kind) if kind == resource::pods() => rest.to_vec(),
        Some(kind) if !rest.is_empty() => {
            let kind = kind.kind.to_ascii_lowercase();
            rest.iter().map(|name| format!("{kind}/{name}")).collect()
        }
        _ => what.to_vec(),
    }
}
