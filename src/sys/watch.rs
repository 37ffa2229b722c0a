//! Waiting for files to change: inotify, so that nobody polls.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
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

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// Has the kernel send this process SIGIO whenever an entry of a folder is made, replaced or removed, as long as the
/// result lives. Unlike a [`Watch`], nothing of which a user may have few only (`fs.inotify.max_user_instances`).
///
/// # Errors
/// `NotFound` if there is no such folder, or the kernel was built without it.
pub fn notify_of(folder: &Path) -> fs::Result<OwnedFd> {
    // As in linux/fcntl.h: an entry made, removed, renamed; again and again.
    const WHAT: libc::c_int = (0x4 | 0x8 | 0x10 | 0x8000_0000_u32).cast_signed();
    let failed = |e: io::Error| fs::Error::new("watch", folder, e);
    let file = std::fs::File::open(folder).map_err(failed)?;
    // SAFETY: F_NOTIFY takes a number and touches no memory of this process; the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_NOTIFY, WHAT) };
    if result < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_of_changes_by_a_signal() {
        let folder = std::env::temp_dir().join(format!("kplay-notify-{}", std::process::id()));
        fs::create_dir_all(&folder, 0o700).unwrap();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async {
            let kind = tokio::signal::unix::SignalKind::io();
            let mut told = tokio::signal::unix::signal(kind).unwrap();
            let watched = notify_of(&folder).unwrap();
            for content in [b"1", b"2"] {
                fs::replace_in_memory(&folder.join("file"), 0o600, content).unwrap();
                told.recv().await.unwrap();
            }
            fs::remove_file(&folder.join("file")).unwrap();
            told.recv().await.unwrap();
            drop(watched);
        });
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            notify_of(&folder).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

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
