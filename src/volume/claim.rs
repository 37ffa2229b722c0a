//! Claims: a folder of kplay's own, or a PersistentVolume's path or block device. All outlive the pod.

use std::path::PathBuf;

use super::{Context, Error, host_path, ownership};
use crate::model::names::VolumeName;
use crate::model::plan::{ClaimStorage, FsGroupChangePolicy};
use crate::sys::dir::{self, Kind};

/// Checks the storage, and gives it to the pod's group where a kubelet does.
pub(super) fn prepare(
    name: &VolumeName,
    storage: &ClaimStorage,
    context: &Context<'_>,
) -> Result<PathBuf, Error> {
    let path = match storage {
        ClaimStorage::HostPath { path, kind } => {
            host_path::check(path, *kind)?;
            return Ok(path.clone());
        }
        ClaimStorage::Device { path } => {
            return match dir::kind(path)? {
                Some(Kind::BlockDevice) => Ok(path.clone()),
                Some(_) => Err(Error::NoDevice { path: path.clone() }),
                None => Err(Error::Missing { path: path.clone() }),
            };
        }
        ClaimStorage::LocalPath { path } => path,
        ClaimStorage::Folder => context.claims.get(name).ok_or(Error::NoFolder)?,
    };
    if dir::kind(path)? != Some(Kind::Folder) {
        return Err(Error::Missing { path: path.clone() });
    }
    if let Some(group) = context.fs_group {
        let is_done = match context.change_policy {
            FsGroupChangePolicy::Always => false,
            FsGroupChangePolicy::OnRootMismatch => {
                ownership::is_given(path, group, ownership::Access::ReadWrite)?
            }
        };
        if !is_done {
            ownership::give(path, group, ownership::Access::ReadWrite)?;
        }
    }
    Ok(path.clone())
}
