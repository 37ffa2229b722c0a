//! Mounts, as this thread's mount namespace sees them.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::fs::{Error, Result};

/// The longest option string that `mount(2)` takes: a page with its zero byte.
const LONGEST_OPTIONS: usize = 4095;

/// Whether what is mounted can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

/// Lets mounts of the parent namespace come in, and none go out.
///
/// # Errors
/// The caller may not.
pub fn make_slave() -> Result<()> {
    let flags = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    rustix::mount::mount_change("/", flags)
        .map_err(|e| Error::new("change the mount propagation of", "/", e))
}

/// Mounts an empty tmpfs. `options` as for mount(8): `size=64m,mode=1777`.
///
/// # Errors
/// The caller may not, or an option is wrong.
pub fn tmpfs(target: &Path, options: &str) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", target, "tmpfs", flags, options)
        .map_err(|e| Error::new("mount a tmpfs on", target, e))
}

/// Mounts `source`, with what is mounted below it, on `target` as well.
///
/// # Errors
/// The caller may not, or one of them is not there.
pub fn bind(source: &Path, target: &Path, access: Access) -> Result<()> {
    rustix::mount::mount_bind_recursive(source, target)
        .map_err(|e| Error::new("mount over", target, e))?;
    match access {
        Access::ReadWrite => Ok(()),
        Access::ReadOnly => {
            rustix::mount::mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, "")
                .map_err(|e| Error::new("make read-only", target, e))
        }
    }
}

/// The folders that make an overlay.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// The lowest first. At least one, at most about 200.
    pub layers: &'a [PathBuf],
    /// Takes what is written.
    pub upper: &'a Path,
    /// Empty, on the file system of `upper`.
    pub work: &'a Path,
}

/// Mounts an overlay. What is written to it is not synced to the disk: it is not to outlive a crash of the machine.
///
/// # Errors
/// A folder is not there, there are too many layers, or the kernel refuses.
pub fn overlay(overlay: Overlay<'_>, target: &Path) -> Result<()> {
    // By descriptor, so that neither the length of the paths nor a comma or colon in them matters.
    let mut held = Vec::with_capacity(overlay.layers.len() + 2);
    let mut lower = String::new();
    for layer in overlay.layers.iter().rev() {
        if !lower.is_empty() {
            lower.push(':');
        }
        lower.push_str(&hold(layer, &mut held)?);
    }
    let upper = hold(overlay.upper, &mut held)?;
    let work = hold(overlay.work, &mut held)?;
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let volatile = format!("{options},volatile");
    if volatile.len() > LONGEST_OPTIONS {
        let source = io::Error::new(io::ErrorKind::ArgumentListTooLong, "too many layers");
        return Err(Error::new("mount an overlay on", target, source));
    }
    let none = MountFlags::empty();
    match mount("overlay", target, "overlay", none, &volatile) {
        // Kernels before 5.10.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            mount("overlay", target, "overlay", none, &options)
        }
        other => other,
    }
    .map_err(|e| Error::new("mount an overlay on", target, e))
}

/// Opens a folder, keeps the descriptor in `held`, and returns a short path to it.
fn hold(path: &Path, held: &mut Vec<OwnedFd>) -> Result<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| Error::new("open the folder", path, e))?;
    let short = format!("/proc/self/fd/{}", fd.as_raw_fd());
    held.push(fd);
    Ok(short)
}

fn mount(
    source: &str,
    target: &Path,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(rustix::mount::mount(
        source,
        target,
        kind,
        flags,
        Some(options.as_c_str()),
    )?)
}

/// Moves a mount to another place.
///
/// # Errors
/// It is no mount point, or it is shared.
pub fn move_to(source: &Path, target: &Path) -> Result<()> {
    rustix::mount::mount_move(source, target).map_err(|e| Error::new("move a mount to", target, e))
}

/// Takes a mount, with what is mounted below it, out of the namespace at once; it ends when nobody uses it any more.
/// Fine if there is none.
///
/// # Errors
/// The caller may not.
pub fn detach(target: &Path) -> Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => Ok(()),
        Err(e) => Err(Error::new("unmount", target, e)),
    }
}
