//! A lock file that tells who holds it: it contains the holder's pid.
//!
//! The lock belongs to the open file, so whoever starts a process can take it for that process and hand it over: there
//! is no moment in which the process lives and the lock is free.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::FlockOperation;

use super::fs::{Error, Result};

/// Held until dropped by all processes that have it, or until they end. A watch on the folder sees the end.
#[derive(Debug)]
pub struct PidLock {
    file: File,
}

impl PidLock {
    /// A lock that this process's parent took for it.
    #[must_use]
    pub fn inherited(fd: OwnedFd) -> Self {
        Self { file: fd.into() }
    }

    /// Writes the holder's pid into the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn name(&self, pid: u32) -> io::Result<()> {
        // Padded, because a holder and whoever started it may both write it, and nobody may read a half.
        self.file
            .write_all_at(format!("{pid:<WIDTH$}").as_bytes(), 0)
    }

    /// Whether this is the lock that others find at `path`.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        let held = self.file.metadata().map(|held| (held.dev(), held.ino()));
        let found = path.metadata().map(|found| (found.dev(), found.ino()));
        matches!((held, found), (Ok(held), Ok(found)) if held == found)
    }
}

impl AsFd for PidLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The bytes of the largest pid.
const WIDTH: usize = 10;

/// Takes the lock, waiting for it, for a process whose pid is not known yet. A disk that has no place for the pid is
/// told here, before there is a process.
///
/// # Errors
/// The file cannot be opened or written.
pub fn take(path: &Path) -> Result<PidLock> {
    let failed = |e: io::Error| Error::new("lock", path, e);
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    flock(&file, FlockOperation::LockExclusive).map_err(failed)?;
    file.write_all_at(&[b' '; WIDTH], 0).map_err(failed)?;
    file.set_len(WIDTH as u64).map_err(failed)?;
    Ok(PidLock { file })
}

/// Whether somebody holds an exclusive lock on the file; false if there is no file. Leaves no trace that a watch
/// on the folder would see.
///
/// # Errors
/// It is there and cannot be opened.
pub fn is_held(path: &Path) -> Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::new("open the lock file", path, e)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(Error::new("lock", path, e)),
    }
}

/// The pid in the file. It is the holder's only if the lock [`is_held`], and only for a moment: open a pidfd, then
/// ask [`is_held`] again.
///
/// # Errors
/// The file is there and cannot be read.
pub fn pid(path: &Path) -> Result<Option<u32>> {
    let content = super::fs::read_if_there(path)?.unwrap_or_default();
    Ok(std::str::from_utf8(&content)
        .ok()
        .and_then(|text| text.trim().parse().ok()))
}

fn flock(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::eventually;

    #[test]
    fn a_lock_is_held_while_its_value_lives() {
        let path = std::env::temp_dir().join(format!("kplay-lockfile-{}", std::process::id()));
        assert!(!is_held(&path).unwrap());
        let lock = take(&path).unwrap();
        assert!(is_held(&path).unwrap());
        assert_eq!(pid(&path).unwrap(), None);
        let handed_over = PidLock::inherited(lock.as_fd().try_clone_to_owned().unwrap());
        handed_over.name(std::process::id()).unwrap();
        drop(lock);
        assert!(is_held(&path).unwrap());
        assert_eq!(pid(&path).unwrap(), Some(std::process::id()));
        drop(handed_over);
        eventually("it is free", || !is_held(&path).unwrap());
        super::super::fs::remove_file(&path).unwrap();
        let lost = take(&path).unwrap();
        assert!(lost.is_at(&path));
        super::super::fs::remove_file(&path).unwrap();
        assert!(!lost.is_at(&path));
        let other = take(&path).unwrap();
        assert!(other.is_at(&path) && !lost.is_at(&path));
        super::super::fs::remove_file(&path).unwrap();
    }
}
