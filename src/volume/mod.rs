//! Volumes: what a pod's volumes are made of, as paths that the executor binds into containers.
//!
//! All is made beneath two folders of the pod, which are closed to other users of the machine:
//!
//! ```text
//! DISK/NAME/           emptyDir; files that need not be secret
//! MEMORY/NAME/         a tmpfs: emptyDir with `medium: Memory`; secrets and the downward API, never on a disk;
//!                      the mount of an image
//! ```
//!
//! The tmpfs are mounted in the caller's private mount namespace and go with that; the folders go with the pod's.
#![forbid(unsafe_code)]

mod claim;
mod empty_dir;
mod files;
mod host_path;
mod image;
mod nested;
mod ownership;

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::model::names::VolumeName;
use crate::model::plan::{FileContent, FsGroupChangePolicy, Volume, VolumeMount, VolumeSource};
use crate::sys::{self, fs, mount};

/// Why a volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] fs::Error),
    /// The kubelet's words, after its prefix.
    #[error("hostPath type check failed: {path} is not {expected}", path = path.display())]
    HostPathType {
        path: PathBuf,
        expected: &'static str,
    },
    #[error("the hostPath `{path}` has a `..`", path = path.display())]
    HostPathParent { path: PathBuf },
    /// The kubelet's words (`local.go`).
    #[error("path \"{path}\" does not exist", path = path.display())]
    Missing { path: PathBuf },
    #[error("path \"{path}\" is not a block device", path = path.display())]
    NoDevice { path: PathBuf },
    #[error("its files cannot belong to the pod's own users (`hostUsers: false`)")]
    Ids(#[source] fs::Error),
    #[error("the claim's folder is not known")]
    NoFolder,
    #[error("the image is missing")]
    NoImage,
    #[error("the volume's file `{path}` {problem}", path = path.display())]
    FilePath {
        path: PathBuf,
        problem: &'static str,
    },
    #[error("cannot mount on `{path}` in the volume: names with `..` in front are its own", path = path.display())]
    MountPath { path: PathBuf },
}

/// The bytes of a file.
pub type Resolve<'a> = dyn Fn(&FileContent) -> Vec<u8> + 'a;

/// What volumes need to know of their pod.
pub struct Context<'a> {
    /// The folder of volumes on disk. Made with mode 0700 if it is not there.
    pub disk: &'a Path,
    /// The folder whose subfolders become mount points of tmpfs, in the caller's private mount namespace. Made as
    /// `disk` is.
    pub memory: &'a Path,
    /// The largest size of a volume in memory, in bytes, above 0: the pod's memory limit, or what the machine has. A
    /// smaller `sizeLimit` counts.
    pub memory_size: u64,
    pub fs_group: Option<u32>,
    /// The pod's user namespace, if it has one: its root is the owner of what root owns.
    pub users: Option<BorrowedFd<'a>>,
    /// When the content of claims is given to the group.
    pub change_policy: FsGroupChangePolicy,
    /// The folders of kplay's own that claims are bound to.
    pub claims: &'a BTreeMap<VolumeName, PathBuf>,
    /// The layers of the images that are volumes, the lowest first.
    pub images: &'a BTreeMap<VolumeName, &'a [PathBuf]>,
    /// `volumeMounts` of each container: where a volume is mounted inside of one of files, which is read-only, that one
    /// gets a folder for it first.
    pub mounts: &'a [&'a [VolumeMount]],
    pub resolve: &'a Resolve<'a>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("disk", &self.disk)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

/// Makes a volume ready when its pod starts; returns what is to be bound into containers. A volume of files is always to be bound read-only, whatever the mount says.
///
/// # Errors
/// A check of hostPath fails, or something cannot be made.
pub fn prepare(volume: &Volume, context: &Context<'_>) -> Result<PathBuf, Error> {
    let path = make(volume, context)?;
    match (&volume.source, context.users) {
        // Its layers have been mapped.
        (VolumeSource::Image { .. }, _) | (_, None) => {}
        // Only to see that it can be done.
        (_, Some(users)) => drop(mount::tree::mapped(&path, users).map_err(Error::Ids)?),
    }
    Ok(path)
}

fn make(volume: &Volume, context: &Context<'_>) -> Result<PathBuf, Error> {
    match &volume.source {
        VolumeSource::EmptyDir {
            medium,
            size_limit,
            mode,
        } => {
            let root = empty_dir::make(&volume.name, *medium, *size_limit, context)?;
            if let Some(mode) = mode {
                sys::fs::set_mode(&root, *mode)?;
            }
            if let Some(group) = context.fs_group {
                ownership::give(&root, group, ownership::Access::ReadWrite)?;
            }
            Ok(root)
        }
        VolumeSource::HostPath { path, kind } => {
            host_path::check(path, *kind)?;
            Ok(path.clone())
        }
        VolumeSource::Image { .. } => image::mount(&volume.name, context),
        VolumeSource::Claim { storage, .. } => claim::prepare(&volume.name, storage, context),
        VolumeSource::Files { files, medium } => {
            let payload = files::Payload::collect(files, context.resolve)?;
            let root = empty_dir::make(&volume.name, *medium, None, context)?;
            nested::make_mount_points(&root, &volume.name, context.mounts)?;
            files::write(&root, &payload, context.fs_group)?;
            Ok(root)
        }
    }
}

/// Brings a volume of files up to date that is mounted in running containers: they see the new files all at once. Other
/// volumes stay as they are.
///
/// # Errors
/// A file cannot be written; all are as before then.
pub fn refresh(volume: &Volume, context: &Context<'_>) -> Result<(), Error> {
    let VolumeSource::Files { files, medium } = &volume.source else {
        return Ok(());
    };
    let payload = files::Payload::collect(files, context.resolve)?;
    let root = empty_dir::place(&volume.name, *medium, context);
    files::write(&root, &payload, context.fs_group)
}

/// What to do about a subPath that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is made a folder with the mode of the volume's root, as a kubelet does.
    Create,
    Refuse,
}

/// Mounts a subPath of a volume on `target`, which is made: a container gets `target`, never the path in the volume.
///
/// A container that can write to the volume can change it at any time, also between the look at a path and its mount.
/// So what is found is held by a descriptor, and that is mounted, on a place that no container sees. libcontainer looks
/// its source up again: `/proc/PID/fd/N` would become a path in the volume, and somebody else's by the time it is
/// opened.
///
/// To be made anew for each run of a container, and undone by [`unmount_sub_paths`] after it.
///
/// # Errors
/// It is missing and may not be made, leads out of the volume, or cannot be mounted.
pub fn mount_sub_path(
    root: &Path,
    sub_path: &Path,
    missing: Missing,
    target: &Path,
) -> Result<(), Error> {
    let found = find_sub_path(root, sub_path, missing)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent, 0o700)?;
    }
    Ok(mount::bind_held(found, target)?)
}

fn find_sub_path(root: &Path, sub_path: &Path, missing: Missing) -> Result<OwnedFd, Error> {
    Ok(match missing {
        Missing::Create => sys::dir::open_or_create_within(root, sub_path)?,
        Missing::Refuse => sys::dir::open_within(root, sub_path)?,
    })
}

/// Undoes every [`mount_sub_path`] whose target is right in `folder`, and removes the folder. What was mounted is never
/// touched, not even if it cannot be unmounted. Fine if there is none.
///
/// # Errors
/// One cannot be undone; the others are.
pub fn unmount_sub_paths(folder: &Path) -> Result<(), Error> {
    let mut result = Ok(());
    for name in fs::list(folder)? {
        result = result.and(mount::unbind_held(&folder.join(name)));
    }
    result?;
    Ok(fs::remove_empty_dir(folder)?)
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests look at what is there without detours"
)]
mod tests;
