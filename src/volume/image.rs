//! Images as volumes: their layers, read-only.

use std::path::PathBuf;

use super::{Context, Error};
use crate::model::names::VolumeName;
use crate::sys::{dir, mount};

/// Mounts the content of an image where volumes in memory are.
pub(super) fn mount(name: &VolumeName, context: &Context<'_>) -> Result<PathBuf, Error> {
    let layers = context.images.get(name).ok_or(Error::NoImage)?;
    let root = context.memory.join(name.as_str());
    dir::create_all(context.memory, 0o700)?;
    dir::create_all(&root, 0o755)?;
    mount::read_only_layers(layers, context.users, &root)?;
    Ok(root)
}
