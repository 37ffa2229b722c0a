//! Files that only grow.

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
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(&content))
        .map_err(|e| Error::new("append to", path, e))
}
