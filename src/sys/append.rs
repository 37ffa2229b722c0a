//! Files that only grow.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::fs::{Error, Result};

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
