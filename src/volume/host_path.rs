//! Paths of the machine: checked and made as their type says, by a kubelet's rules.

use std::path::{Component, Path};

use super::Error;
use crate::model::plan::HostPathType;
use crate::sys::dir::{self, Kind};

/// Checks a hostPath, and makes it where its type says so. Links are followed.
pub(super) fn check(path: &Path, kind: HostPathType) -> Result<(), Error> {
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Error::HostPathParent {
            path: path.to_owned(),
        });
    }
    let found = dir::kind(path)?;
    let is = |wanted: Kind, expected: &'static str| {
        if found == Some(wanted) {
            return Ok(());
        }
        Err(Error::HostPathType {
            path: path.to_owned(),
            expected,
        })
    };
    match (kind, found) {
        // containerd makes it; a kubelet does not look.
        (HostPathType::Unset | HostPathType::DirectoryOrCreate, None) => {
            Ok(dir::create_all(path, 0o755)?)
        }
        (HostPathType::FileOrCreate, None) => Ok(dir::create_file(path, 0o644)?),
        (HostPathType::Unset, Some(_)) => Ok(()),
        (HostPathType::DirectoryOrCreate | HostPathType::Directory, _) => {
            is(Kind::Folder, "a directory")
        }
        (HostPathType::FileOrCreate | HostPathType::File, _) => is(Kind::File, "a file"),
        (HostPathType::Socket, _) => is(Kind::Socket, "a socket file"),
        (HostPathType::CharDevice, _) => is(Kind::CharacterDevice, "a character device"),
        (HostPathType::BlockDevice, _) => is(Kind::BlockDevice, "a block device"),
    }
}
