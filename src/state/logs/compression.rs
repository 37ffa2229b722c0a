//! Compresses a rotated file, a part at a time: whoever does it has other things to do as well.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression as Level;
use flate2::write::GzEncoder;

use super::{compressed_file, rotated_file};
use crate::sys::fs;

/// How much is compressed at once.
const PART: usize = 64 * 1024;

/// A rotated file on its way to be compressed. Dropped before its end, it leaves nothing behind.
#[derive(Debug)]
pub struct Compression {
    from: File,
    to: Option<GzEncoder<File>>,
    plain: PathBuf,
    unfinished: PathBuf,
    compressed: PathBuf,
    buffer: Vec<u8>,
}

impl Compression {
    /// Begins; `None` if the file is not there (any more).
    ///
    /// # Errors
    /// One file cannot be opened, or the other cannot be made.
    pub fn begin(dir: &Path, restart: u32, number: u64, mode: u32) -> fs::Result<Option<Self>> {
        let plain = rotated_file(dir, restart, number);
        let Some(from) = super::files::open(&plain)? else {
            return Ok(None);
        };
        let compressed = compressed_file(dir, restart, number);
        let mut name = compressed.clone().into_os_string();
        name.push(".tmp");
        let unfinished = PathBuf::from(name);
        let to = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&unfinished)
            .map_err(|e| fs::Error::new("make", &unfinished, e))?;
        Ok(Some(Self {
            from,
            to: Some(GzEncoder::new(to, Level::fast())),
            plain,
            unfinished,
            compressed,
            buffer: vec![0; PART],
        }))
    }

    /// Does the next part; returns whether that was the last one.
    ///
    /// # Errors
    /// A file cannot be read or written; the rotated file stays as it is.
    pub fn step(&mut self) -> fs::Result<bool> {
        let Some(to) = &mut self.to else {
            return Ok(true);
        };
        let len = match self.from.read(&mut self.buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(false),
            read => read.map_err(|e| fs::Error::new("read", &self.plain, e))?,
        };
        let failed = |e| fs::Error::new("write", &self.unfinished, e);
        if len > 0 {
            io::Write::write_all(to, &self.buffer[..len]).map_err(failed)?;
            return Ok(false);
        }
        to.try_finish().map_err(failed)?;
        // A reader finds the one or the other.
        fs::rename(&self.unfinished, &self.compressed)?;
        self.to = None;
        fs::remove_file(&self.plain)?;
        Ok(true)
    }
}

impl Drop for Compression {
    fn drop(&mut self) {
        if self.to.is_some()
            && let Err(error) = fs::remove_file(&self.unfinished)
        {
            // It goes with the pod's logs at the latest.
            tracing::debug!(%error, "cannot remove an unfinished file");
        }
    }
}
