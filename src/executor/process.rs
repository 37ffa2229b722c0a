//! Waiting for processes and reading what they print, on the executor's one thread.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use tokio::io::Interest;

use crate::sys::pidfd::{Exit, PidFd};

/// Waits until a child has ended and takes its exit status.
///
/// # Errors
/// It cannot be waited for.
pub(super) async fn wait(process: &PidFd) -> io::Result<Exit> {
    let watched = process.as_fd().try_clone_to_owned()?;
    let watched = crate::sys::fd::watch(watched, Interest::READABLE)?;
    loop {
        let mut ready = watched.readable().await?;
        if let Some(exit) = process.try_wait()? {
            return Ok(exit);
        }
        ready.clear_ready();
    }
}

/// Waits for the end of a process that need not be a child.
pub(super) async fn ended(process: &PidFd) -> io::Result<()> {
    let watched = process.as_fd().try_clone_to_owned()?;
    let watched = crate::sys::fd::watch(watched, Interest::READABLE)?;
    watched.readable().await.map(|_| ())
}

/// Reads `fd` to its end, in pieces of at most the buffer's size, and hands each to `take`.
///
/// The buffer is the caller's and shared by all readers: an idle container costs none.
///
/// # Errors
/// It cannot be read. EIO, which a terminal gives when its last user has gone, is its end.
pub(super) async fn read_all(
    fd: OwnedFd,
    buffer: &std::cell::RefCell<Vec<u8>>,
    mut take: impl FnMut(&[u8]),
) -> io::Result<()> {
    crate::sys::fd::set_nonblocking(&fd)?;
    let fd = crate::sys::fd::watch(fd, Interest::READABLE)?;
    loop {
        let mut ready = fd.readable().await?;
        {
            let mut buffer = buffer.borrow_mut();
            match crate::sys::fd::read(fd.get_ref(), &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => take(&buffer[..length]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(EIO) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        // As long as there is more to read nothing here would wait: the pod's other tasks have their turn.
        tokio::task::yield_now().await;
    }
}

/// The same on every architecture.
const EIO: i32 = 5;
