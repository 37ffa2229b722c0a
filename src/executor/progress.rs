//! The pipe to the manager that launched this executor.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use crate::protocol::Progress;

/// Open until the launch has succeeded or failed.
#[derive(Debug)]
pub(super) struct Channel(Option<File>);

impl Channel {
    /// The pipe's write end.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(Some(fd.into()))
    }

    /// Tells the manager, if it still listens.
    pub(super) fn tell(&mut self, progress: &Progress) {
        let Some(pipe) = &mut self.0 else {
            return;
        };
        let told = serde_json::to_vec(progress)
            .map_err(std::io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                pipe.write_all(&line)
            });
        if let Err(error) = told {
            tracing::debug!(%error, "the manager has gone");
            self.0 = None;
        }
        if matches!(progress, Progress::Started | Progress::Failed(_)) {
            self.0 = None;
        }
    }
}
