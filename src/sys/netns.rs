//! Network namespaces of others, visited for the time of one call.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::fs::{Error, Result};
use super::{namespace, userns};

/// A network namespace, which lives at least as long as this. A clone is the same descriptors.
#[derive(Clone, Debug)]
pub struct NetNs {
    there: Arc<OwnedFd>,
    /// The namespace of the thread that opened it, to come back to.
    here: Arc<OwnedFd>,
    may_return: bool,
}

impl NetNs {
    /// Opens a namespace, usually `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            there: open(path)?,
            here: own()?,
            may_return: userns::is_initial(),
        })
    }

    /// Makes a namespace with nothing but a loopback interface, which is up.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn make() -> io::Result<Self> {
        let there = aside(|| {
            namespace::unshare_network()?;
            namespace::loopback_up()?;
            own().map_err(io::Error::other)
        })?;
        Ok(Self {
            there,
            here: own().map_err(io::Error::other)?,
            may_return: userns::is_initial(),
        })
    }

    /// The namespace that a process holds open by the descriptor of this number; none if it has ended, or the descriptor is
    /// of something else.
    #[must_use]
    pub fn held_by(pid: i32, number: i32) -> Option<Self> {
        let path = format!("/proc/{pid}/fd/{number}");
        // As the kernel names them: `net:[4026531840]`.
        let name = std::fs::read_link(&path).ok()?;
        name.to_str()?.strip_prefix("net:[")?;
        Self::open(Path::new(&path)).ok()
    }

    /// The number of the descriptor, valid as long as a clone of this lives.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.there.as_raw_fd()
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
            here: own().expect("a thread may open its namespace"),
            may_return: true,
        }
    }

    /// Runs `visit` in the namespace, in this thread or in one that lives as long: who is root of a user namespace only may
    /// not come back into the machine's network. Sockets made in there stay there. To be called from
    /// threads that are in the namespace in which this was opened.
    ///
    /// # Errors
    /// The namespace cannot be entered, which takes `CAP_SYS_ADMIN`; or `visit` failed.
    pub fn visit<T: Send>(&self, visit: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        if !self.may_return {
            return aside(|| {
                move_into_link_name_space(self.there.as_fd(), Some(LinkNameSpaceType::Network))?;
                visit()
            });
        }
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

/// This thread's namespace.
fn own() -> Result<Arc<OwnedFd>> {
    open(Path::new("/proc/thread-self/ns/net"))
}

/// Runs something in a thread that ends with it, and waits for it.
fn aside<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    const STACK: usize = 256 * 1024;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn open(path: &Path) -> Result<Arc<OwnedFd>> {
    File::open(path)
        .map(|file| Arc::new(file.into()))
        .map_err(|e| Error::new("open the network namespace", path, e))
}
