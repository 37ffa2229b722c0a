//! The running binary: what it is, and a copy of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fs::{Error, Result};

const SELF: &str = "/proc/self/exe";

/// What changes when the binary is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The running binary, held open: another may have taken its path.
#[derive(Debug)]
pub struct Binary {
    file: File,
}

impl Binary {
    /// Opens the running binary.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn open() -> Result<Self> {
        let file = File::open(SELF).map_err(|e| Error::new("open", SELF, e))?;
        Ok(Self { file })
    }

    /// What it is.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn identity(&self) -> Result<Identity> {
        let meta = self
            .file
            .metadata()
            .map_err(|e| Error::new("look at", SELF, e))?;
        Ok(Identity {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Reads it from its start.
    ///
    /// # Errors
    /// It cannot be opened again.
    pub fn reader(&self) -> Result<impl io::Read> {
        use io::Seek as _;
        let mut file = self
            .file
            .try_clone()
            .map_err(|e| Error::new("open", SELF, e))?;
        file.rewind().map_err(|e| Error::new("read", SELF, e))?;
        Ok(file)
    }

    /// Copies it into a new file; the blocks are shared where the file system can.
    ///
    /// # Errors
    /// The file is there already, or cannot be written.
    pub fn copy_to(&self, path: &Path, mode: u32) -> Result<()> {
        let copied = (|| {
            use io::Seek as _;
            let mut from = self.file.try_clone()?;
            from.rewind()?;
            let mut to = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(path)?;
            // `std` uses copy_file_range here.
            io::copy(&mut from, &mut to)?;
            super::beneath::set_file_mode(&to, mode)
        })();
        copied.map_err(|e| Error::new("write", path, e))
    }
}
