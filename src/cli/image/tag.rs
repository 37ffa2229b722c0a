//! `image tag|untag`.

use clap::Args;

use super::{named, stored_name};
use crate::cli::error::{Done, Error};
use crate::cli::registry::registry_places;
use crate::cli::session::Session;
use crate::image::registries::RegistriesConf;
use crate::image::{self, Store};
use crate::model::reference::{ImageName, Reference};

/// Flags of `image tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Give this image further names; it may be named by the start of its id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The names
    #[arg(value_name = "NAME", required = true, value_parser = ImageName::parse)]
    names: Vec<ImageName>,
}

/// Flags of `image untag`.
#[derive(Debug, Args)]
pub(crate) struct UntagArgs {
    /// Take names from this image, which stays; it may be named by the start of its id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The names; without any, all that it has
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Gives an image names.
///
/// # Errors
/// It is not there; a name has a digest.
pub(crate) fn tag(arguments: &TagArgs, session: &Session) -> Result<Done, Error> {
    let store = session.store()?;
    let (image, _) = named(&store, &arguments.image)?;
    let registries = RegistriesConf::new(registry_places());
    let mut names = Vec::new();
    for name in &arguments.names {
        names.push(new_name(name, &registries)?);
    }
    for name in names {
        store.tag(&image.id, &name)?;
    }
    Ok(Done::Well)
}

/// A short name is of this machine where the machine looks for such names, as with podman; else it is Docker's.
fn new_name(name: &ImageName, registries: &RegistriesConf) -> Result<Reference, Error> {
    if name.reference().digest.is_some() {
        return Err(Error::usage(format!(
            "`{}` has a digest, and that is not for anybody to give",
            name.reference()
        )));
    }
    let names = registries.stored_names(name).map_err(image::Error::from)?;
    let local = names.iter().find(|name| name.registry == "localhost");
    Ok(local.unwrap_or(name.reference()).clone())
}

/// Takes names from an image.
///
/// # Errors
/// It is not there; it has no such name.
pub(crate) fn untag(arguments: &UntagArgs, session: &Session) -> Result<Done, Error> {
    let store = session.store()?;
    let (image, _) = named(&store, &arguments.image)?;
    let mut names = Vec::new();
    for name in &arguments.names {
        names.push(own_name(&store, &image.id, name)?);
    }
    if arguments.names.is_empty() {
        names = store.details(&image.id)?.stored.references;
    }
    for name in names {
        if store.untag(&image.id, &name)? {
            session.ui.line(&format!("Untagged: {name}"))?;
        }
    }
    Ok(Done::Well)
}

fn own_name(store: &Store, id: &str, name: &str) -> Result<Reference, Error> {
    if let Some((reference, true)) = stored_name(store, name)?
        && store.find(&reference)?.is_some_and(|found| found.id == id)
    {
        return Ok(reference);
    }
    Err(image::Error::NotStored(name.to_owned()).into())
}
