//! What can be wrong with what is on disk.

use std::io;
use std::path::PathBuf;

use crate::sys;

/// Why state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] sys::fs::Error),
    #[error("{path:?} is corrupt ({remedy})")]
    Corrupt {
        path: PathBuf,
        /// What to do about it: `kplay delete pod NAME --force` removes it.
        remedy: String,
        source: serde_json::Error,
    },
    #[error("{path:?} was written by a newer kplay (format {version}): this one may not change it")]
    Newer { path: PathBuf, version: u32 },
    #[error("cannot wait for changes")]
    Wait(#[source] io::Error),
    #[error("cannot wait for the lock {path:?}")]
    Lock { path: PathBuf, source: io::Error },
    /// SIGINT, SIGTERM or SIGHUP came while waiting.
    #[error("interrupted by signal {signal}")]
    Interrupted { signal: i32 },
}
