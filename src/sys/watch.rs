//! Waiting for files to change: inotify, so that nobody polls.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags};

use super::fs;

/// Folders whose entries are watched. Readable (in poll's sense) when something happened in one of them.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The user has too many watches already (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let fd = rustix::fs::inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self(fd))
    }

    /// Watches a folder too: entries made, replaced, removed, or closed after writing, and its own end. Appending
    /// to a file counts. Adding it twice is fine.
    ///
    /// # Errors
    /// `NotFound` if there is no such folder.
    pub fn add(&self, folder: &Path) -> fs::Result<()> {
        let what = WatchFlags::CREATE
            | WatchFlags::MOVE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        rustix::fs::inotify::add_watch(&self.0, folder, what)
            .map_err(|e| fs::Error::new("watch", folder, e))?;
        Ok(())
    }

    /// Takes what happened so far, and says whether anything did. Does not wait.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn drain(&self) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut space);
        let mut any = false;
        loop {
            match reader.next() {
                Ok(_) => any = true,
                Err(rustix::io::Errno::AGAIN) => return Ok(any),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Watch {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sees_a_file_replaced_appended_and_removed() {
        let folder = std::env::temp_dir().join(format!("kplay-watch-{}", std::process::id()));
        let file = folder.join("status.json");
        fs::create_dir_all(&folder, 0o700).unwrap();
        let watch = Watch::new().unwrap();
        watch.add(&folder).unwrap();
        watch.add(&folder).unwrap();
        let check = |act: &dyn Fn()| {
            assert!(!watch.drain().unwrap());
            act();
            assert!(watch.drain().unwrap());
        };
        check(&|| fs::replace_in_memory(&file, 0o600, b"1").unwrap());
        check(&|| fs::remove_file(&file).unwrap());
        check(&|| fs::remove_dir_all(&folder).unwrap());
        assert_eq!(
            watch.add(&folder).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
