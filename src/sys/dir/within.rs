//! Paths that may not leave a folder, whoever changes it meanwhile.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::super::fs::{Error, Result};

/// Opens `relative` in the folder `root`, without rights to read or write (`O_PATH`). Symbolic links are followed
/// inside the folder only; one that leads out of it is an error.
///
/// # Errors
/// It is not there, leaves the folder, or `root` cannot be opened.
pub fn open_within(root: &Path, relative: &Path) -> Result<OwnedFd> {
    let anchor = open_root(root)?;
    open_at(&anchor, relative).map_err(|e| failed(root, relative, e))
}

/// As [`open_within`]; what is missing is made as folders with the mode of `root`.
///
/// # Errors
/// As [`open_within`], or a folder cannot be made.
pub fn open_or_create_within(root: &Path, relative: &Path) -> Result<OwnedFd> {
    let anchor = open_root(root)?;
    let mode = rustix::fs::fstat(&anchor)
        .map(|stat| Mode::from_raw_mode(stat.st_mode & 0o7777))
        .map_err(|e| failed(root, Path::new(""), e))?;
    let mut done = PathBuf::from(".");
    for component in relative.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        make_missing(&anchor, &done, name, mode).map_err(|e| failed(root, relative, e))?;
        done.push(name);
    }
    open_at(&anchor, &done).map_err(|e| failed(root, relative, e))
}

fn make_missing(
    anchor: &OwnedFd,
    parent: &Path,
    name: &OsStr,
    mode: Mode,
) -> rustix::io::Result<()> {
    match open_at(anchor, &parent.join(name)) {
        Err(Errno::NOENT) => {}
        Ok(_) => return Ok(()),
        Err(e) => return Err(e),
    }
    let parent = open_at(anchor, parent)?;
    match rustix::fs::mkdirat(&parent, name, mode) {
        // The umask took bits away. By descriptor: a link may be there by now.
        Ok(()) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
            rustix::fs::fchmod(made, mode)
        }
        Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e),
    }
}

fn open_root(root: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(
        CWD,
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| Error::new("open the folder", root, e))
}

fn open_at(anchor: &OwnedFd, relative: &Path) -> rustix::io::Result<OwnedFd> {
    // The kernel asks to try again when somebody renames at the same time, which a container can do for ever.
    const ATTEMPTS: u32 = 1000;
    let mut opened = Err(Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        opened = rustix::fs::openat2(
            anchor,
            relative,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        );
        if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    opened
}

fn failed(root: &Path, relative: &Path, errno: Errno) -> Error {
    let path = root.join(relative);
    match errno {
        Errno::XDEV | Errno::LOOP => Error::new(
            "open",
            path,
            io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it leads out of its volume",
            ),
        ),
        errno => Error::new("open", path, errno),
    }
}
