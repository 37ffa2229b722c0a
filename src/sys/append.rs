//! A file that only grows: every append is whole or leaves no trace.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::fs::{Error, Result};

/// A file opened for appending by its only writer.
#[derive(Debug)]
pub struct AppendFile {
    file: File,
    path: PathBuf,
    len: u64,
}

impl AppendFile {
    /// Opens a file at its end; makes it with `mode` if there is none.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, mode: u32) -> Result<Self> {
        let open = || {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(mode)
                .open(path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        };
        let (file, len) = open().map_err(|e: io::Error| Error::new("open", path, e))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            len,
        })
    }

    /// The file's size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file's last byte.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn last_byte(&self) -> Result<Option<u8>> {
        let Some(at) = self.len.checked_sub(1) else {
            return Ok(None);
        };
        let mut byte = [0];
        match self.file.read_exact_at(&mut byte, at) {
            Ok(()) => Ok(Some(byte[0])),
            Err(e) => Err(Error::new("read", &self.path, e)),
        }
    }

    /// Appends all of `bytes`, in one system call unless the kernel takes less.
    ///
    /// # Errors
    /// Not all could be written; what was is cut off again.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(e) => {
                if let Err(cut) = self.file.set_len(self.len) {
                    // The write's error is the one to report; the next open sees the torn end.
                    tracing::debug!(path = ?self.path, error = %cut, "cannot cut off a torn write");
                }
                Err(Error::new("write", &self.path, e))
            }
        }
    }

    /// Gives the file another name in the same folder and starts an empty one, with `mode`, under the old name.
    ///
    /// # Errors
    /// Either step failed; the old file is written further.
    pub fn rotate(&mut self, old: &Path, mode: u32) -> Result<()> {
        std::fs::rename(&self.path, old).map_err(|e| Error::new("rename", &self.path, e))?;
        match Self::open(&self.path, mode) {
            Ok(new) => {
                *self = new;
                Ok(())
            }
            Err(e) => {
                if let Err(back) = std::fs::rename(old, &self.path) {
                    tracing::debug!(path = ?self.path, error = %back, "cannot undo a rotation");
                }
                Err(e)
            }
        }
    }
}

/// Appends `line` and a line end in one write, so that readers see whole lines. The file is made (0600) if need be.
///
/// # Errors
/// It cannot be opened or written.
pub fn line(path: &Path, line: &[u8]) -> Result<()> {
    let mut content = Vec::with_capacity(line.len() + 1);
    content.extend_from_slice(line);
    content.push(b'\n');
    open(path)?
        .write_all(&content)
        .map_err(|e| Error::new("append to", path, e))
}

/// Opens a file to append to it. The file is made (0600) if need be.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: &Path) -> Result<File> {
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| Error::new("append to", path, e))
}
