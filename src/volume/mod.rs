//! Volumes: what a pod's volumes are made of, as paths that the executor binds into containers.
//!
//! Everything lives in the folders that the caller hands in and goes with them; the tmpfs are mounted in the caller's
//! private mount namespace and go with that.
#![forbid(unsafe_code)]

mod atomic;
mod host_path;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::model::plan::{FileContent, Medium, Volume, VolumeFile, VolumeSource};
use crate::sys::{self, fs, mount};

/// Why a volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] fs::Error),
    /// The kubelet's words, after its prefix.
    #[error("hostPath type check failed: {path} {expected}", path = path.display())]
    HostPathType {
        path: PathBuf,
        expected: &'static str,
    },
    #[error("the file name {path:?} leaves the volume")]
    Escape { path: PathBuf },
}

/// Where a pod's volumes live.
#[derive(Clone, Copy, Debug)]
pub struct VolumeDirs<'a> {
    /// On disk, the pod's own.
    pub disk: &'a Path,
    /// Where tmpfs are mounted, in the caller's private mount namespace.
    pub memory: &'a Path,
}

/// Makes a volume ready, or brings the files of one that is there up to date; returns what is to be bound into
/// containers. `resolve` gives the bytes of a file.
///
/// # Errors
/// A check of hostPath fails, or something cannot be made.
pub fn prepare(
    volume: &Volume,
    dirs: &VolumeDirs<'_>,
    fs_group: Option<u32>,
    resolve: &dyn Fn(&FileContent) -> Vec<u8>,
) -> Result<PathBuf, Error> {
    let name = volume.name.as_str();
    match &volume.source {
        VolumeSource::EmptyDir { medium, size_limit } => {
            let path = place(*medium, name, dirs, *size_limit)?;
            match fs_group {
                Some(group) => {
                    fs::set_group(&path, group)?;
                    fs::set_mode(&path, 0o2777)?;
                }
                None => fs::set_mode(&path, 0o777)?,
            }
            Ok(path)
        }
        VolumeSource::HostPath { path, kind } => {
            host_path::check(path, *kind)?;
            Ok(path.clone())
        }
        VolumeSource::Files { files, medium } => {
            let path = place(*medium, name, dirs, None)?;
            let content: Vec<(&VolumeFile, Vec<u8>)> = files
                .iter()
                .map(|file| (file, resolve(&file.content)))
                .collect();
            atomic::write(&path, &content, fs_group)?;
            Ok(path)
        }
    }
}

/// A volume's folder; in memory it is a tmpfs of its own.
fn place(
    medium: Medium,
    name: &str,
    dirs: &VolumeDirs<'_>,
    size: Option<u64>,
) -> Result<PathBuf, Error> {
    let path = match medium {
        Medium::Disk => dirs.disk.join(name),
        Medium::Memory => dirs.memory.join(name),
    };
    let is_new = fs::metadata_if_there(&path)?.is_none();
    fs::create_dir_all(&path, 0o755)?;
    if is_new && medium == Medium::Memory {
        let size = size.map_or_else(String::new, |bytes| format!(",size={bytes}"));
        mount::tmpfs(&path, &format!("mode=755{size}"))?;
    }
    Ok(path)
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
        Missing::Create => sys::within::open_or_create_dir(root, sub_path)?,
        Missing::Refuse => sys::within::open(root, sub_path)?,
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
