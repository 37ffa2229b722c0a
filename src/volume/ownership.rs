//! `fsGroup`: a volume's group, with the permissions that make it useful.

use std::path::Path;

use super::Error;
use crate::sys::dir::{Dir, Kind};

/// What the group may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    ReadOnly,
    ReadWrite,
}

const SETGID: u32 = 0o2000;

impl Access {
    /// Owner and group.
    fn file(self) -> u32 {
        match self {
            Self::ReadOnly => 0o440,
            Self::ReadWrite => 0o660,
        }
    }

    fn folder(self) -> u32 {
        self.file() | 0o110 | SETGID
    }
}

/// Whether the root of a volume says that all of it was given to a group before (`volume_linux.go:
/// requiresPermissionChange`).
pub(super) fn is_given(root: &Path, group: u32, access: Access) -> Result<bool, Error> {
    let folder = Dir::open(root)?;
    let wanted = access.folder();
    Ok(folder.own_group()? == group && folder.own_mode()? & wanted == wanted)
}

/// Gives all that is in a volume, and last the volume itself, to a group: who is interrupted begins anew. Links are not
/// followed.
pub(super) fn give(root: &Path, group: u32, access: Access) -> Result<(), Error> {
    give_folder(&Dir::open(root)?, group, access)
}

fn give_folder(folder: &Dir, group: u32, access: Access) -> Result<(), Error> {
    for (name, kind) in folder.entries()? {
        match kind {
            Kind::Folder => give_folder(&folder.folder(&name)?, group, access)?,
            Kind::Link => folder.set_group(&name, group)?,
            Kind::File | Kind::Socket | Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo => {
                // Before the kernel takes setuid away from what gets another group.
                let mode = folder.mode(&name)?;
                folder.set_group(&name, group)?;
                folder.set_mode(&name, mode | access.file())?;
            }
        }
    }
    folder.set_own_group(group)?;
    Ok(folder.set_own_mode(folder.own_mode()? | access.folder())?)
}
