//! Network namespaces of others, visited for the time of one call.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::fs::{Error, Result};

/// A network namespace, which lives at least as long as this. A clone is the same descriptors.
#[derive(Clone, Debug)]
pub struct NetNs {
    there: Arc<OwnedFd>,
    /// The namespace of the thread that opened it, to come back to.
    here: Arc<OwnedFd>,
}

impl NetNs {
    /// Opens a namespace, usually `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            there: open(path)?,
            here: open(Path::new("/proc/thread-self/ns/net"))?,
        })
    }

    /// A new namespace with nothing but a loopback interface, which is up.
    #[cfg(test)]
    pub(crate) fn fresh() -> Self {
        let make = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may unshare");
            let up = std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.expect("ip is installed").success());
            open(Path::new("/proc/thread-self/ns/net")).expect("a thread may open its namespace")
        };
        let there = std::thread::spawn(make).join().expect("the thread ends");
        Self {
            there,
            here: open(Path::new("/proc/thread-self/ns/net"))
                .expect("a thread may open its namespace"),
        }
    }

    /// Runs `visit` with this thread in the namespace. Sockets made in there stay there. To be called from
    /// threads that are in the namespace in which this was opened.
    ///
    /// # Errors
    /// The namespace cannot be entered, which takes `CAP_SYS_ADMIN`; or `visit` failed.
    pub fn visit<T>(&self, visit: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        move_into_link_name_space(self.there.as_fd(), Some(LinkNameSpaceType::Network))?;
        let back = Return(&self.here);
        let result = visit();
        drop(back);
        result
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.there.as_fd()
    }
}

/// Moves the thread back, also when the visit panics.
struct Return<'a>(&'a OwnedFd);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        let back = move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network));
        if let Err(error) = back {
            // A thread in the wrong namespace would offer the pod's ports to the host and the other way round.
            // The way out was open a moment ago, so that nothing sensible can be left to do.
            tracing::error!(%error, "cannot return to the network namespace");
            std::process::abort();
        }
    }
}

fn open(path: &Path) -> Result<Arc<OwnedFd>> {
    File::open(path)
        .map(|file| Arc::new(file.into()))
        .map_err(|e| Error::new("open the network namespace", path, e))
}
