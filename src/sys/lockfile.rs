//! A lock file that tells who holds it: it contains the holder's pid.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::fs::{Error, Result};

/// Held until dropped, or until the process ends. A watch on the folder sees the end.
#[derive(Debug)]
pub struct PidLock {
    _file: File,
}

/// Takes the lock, waiting for it, and writes this process's pid into the file.
///
/// # Errors
/// The file cannot be opened or written.
pub fn hold(path: &Path) -> Result<PidLock> {
    let failed = |e: io::Error| Error::new("lock", path, e);
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    flock(&file, FlockOperation::LockExclusive).map_err(failed)?;
    (|| {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())
    })()
    .map_err(failed)?;
    Ok(PidLock { _file: file })
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

    #[test]
    fn a_lock_is_held_while_its_value_lives() {
        let path = std::env::temp_dir().join(format!("kplay-lockfile-{}", std::process::id()));
        assert!(!is_held(&path).unwrap());
        let lock = hold(&path).unwrap();
        assert!(is_held(&path).unwrap());
        assert_eq!(pid(&path).unwrap(), Some(std::process::id()));
        drop(lock);
        assert!(!is_held(&path).unwrap());
        super::super::fs::remove_file(&path).unwrap();
    }
}
