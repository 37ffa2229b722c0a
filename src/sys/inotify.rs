//! Waiting for changes of files, without polling.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::fs::{Error, Result};

/// Folders that are watched for new, renamed and changed files. Readable when something happened.
#[derive(Debug)]
pub struct Inotify(OwnedFd);

impl Inotify {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The user has too many of them.
    pub fn new() -> io::Result<Self> {
        Ok(Self(inotify::init(
            CreateFlags::NONBLOCK | CreateFlags::CLOEXEC,
        )?))
    }

    /// Watches a folder for files that are made in it, renamed in or into it, written to or removed.
    ///
    /// # Errors
    /// The folder is not there, or the user has too many watches.
    pub fn watch_folder(&self, path: &Path) -> Result<()> {
        let events = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.0, path, events) {
            Ok(_) => Ok(()),
            Err(e) => Err(Error::new("watch the folder", path, e)),
        }
    }

    /// Forgets what happened so far; returns whether anything had.
    ///
    /// # Errors
    /// The events cannot be read.
    pub fn drain(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut buffer);
        let mut any = false;
        loop {
            match events.next() {
                Ok(_) => any = true,
                Err(Errno::WOULDBLOCK) => return Ok(any),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of the descriptors is readable or closed by its other end, or the time has passed.
/// Returns whether one is.
///
/// # Errors
/// A descriptor cannot be waited for.
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    let mut fds: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(std::time::Instant::now()));
        let left = match left.map(rustix::event::Timespec::try_from) {
            Some(Ok(left)) => Some(left),
            // Longer than the kernel can count: for ever.
            Some(Err(_)) | None => None,
        };
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
