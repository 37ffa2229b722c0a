//! `describe`.

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::error::{Done, Error};
use super::inventory::{Inventory, Object, Scope};
use super::resource;
use super::session::Session;
use super::target;
use crate::manager::resolve::Kind;
use crate::output::object::metadata;
use crate::output::{describe, service};
use crate::state::pod_dir::PodDir;

/// Flags of `describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// Describe these pods or Services: `pod NAME`, `service NAME`, `TYPE/NAME`, `NAME`
    #[arg(value_name = "NAME", required = true)]
    what: Vec<String>,
}

/// Describes pods and Services.
///
/// # Errors
/// One is not there, or cannot be read.
pub(crate) fn run(arguments: &DescribeArgs, session: &Session) -> Result<Done, Error> {
    let scope = Scope::Namespace(session.namespace.clone());
    let inventory = Inventory::read(session, &scope)?;
    let mut pages = Vec::new();
    for text in names(&arguments.what, &inventory) {
        match resource::find_typed(&text) {
            Some((kind, name)) if kind.kind == SERVICE => {
                let service = target::service(&inventory, kind, name)?;
                pages.push(service::page(&service.json, &slices(&inventory, service)));
            }
            _ => {
                for pod in target::pods(&inventory, &text)? {
                    let events = PodDir::new(&session.layout, &pod.key).events()?;
                    pages.push(describe::pod(&pod.json, &events, Timestamp::now()));
                }
            }
        }
    }
    session.ui.data(pages.join("\n\n").as_bytes())?;
    Ok(Done::Well)
}

const SERVICE: &str = "Service";

/// The EndpointSlices of a Service.
fn slices(inventory: &Inventory, service: &Object) -> Vec<Value> {
    let slices = inventory.objects.iter().filter(|object| {
        object.key.kind == "EndpointSlice"
            && object.key.namespace == service.key.namespace
            && object
                .json
                .pointer("/metadata/labels/kubernetes.io~1service-name")
                == Some(&Value::from(metadata(&service.json, "name")))
    });
    slices.map(|object| object.json.clone()).collect()
}

/// The arguments without the type that may come first, which alone stands for all of them: `deploy web` becomes
/// `deployment/web`.
fn names(what: &[String], inventory: &Inventory) -> Vec<String> {
    let Some((first, rest)) = what.split_first() else {
        return Vec::new();
    };
    let Some(kind) = Kind::parse(first) else {
        return what.to_vec();
    };
    let typed = |name: &str| format!("{}/{name}", kind.kind.to_ascii_lowercase());
    if !rest.is_empty() {
        return rest.iter().map(|name| typed(name)).collect();
    }
    if kind == resource::pods() {
        let pods = inventory.pods.iter();
        return pods.map(|pod| typed(pod.key.name.as_str())).collect();
    }
    let objects = inventory.objects.iter();
    let services = objects.filter(|object| object.key.kind == SERVICE);
    match kind.kind {
        SERVICE => services.map(|object| typed(&object.key.name)).collect(),
        _ => what.to_vec(),
    }
}
