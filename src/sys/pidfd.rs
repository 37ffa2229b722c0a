//! Processes by file descriptor: never a bare pid that may belong to somebody else by now.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

use super::signal::Signal;

/// A process. Readable (for `poll`) once it has exited.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: i32,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The exit code as shells and container runtimes report it: 128 + n for a signal.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

impl PidFd {
    /// Opens a process by its number, which must be a child that nobody has waited for, or known to live afterwards by
    /// something else: otherwise the number may have been given to another process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn open(pid: i32) -> io::Result<Self> {
        let raw = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let fd = rustix::process::pidfd_open(raw, PidfdFlags::empty())?;
        Ok(Self { fd, pid })
    }

    /// This process.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn own() -> io::Result<Self> {
        Self::open(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// A process that somebody else has opened, and whose number is not known here: it is 0.
    #[must_use]
    pub fn passed(fd: OwnedFd) -> Self {
        Self { fd, pid: 0 }
    }

    /// A process whose pidfd the kernel gave with it.
    pub(super) fn from_parts(fd: OwnedFd, pid: i32) -> Self {
        Self { fd, pid }
    }

    /// Another descriptor of the same process.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn duplicate(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            pid: self.pid,
        })
    }

    /// Its number in the caller's pid namespace. It means nothing once the process has been waited for.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal. A process that has ended already is no error.
    ///
    /// # Errors
    /// The caller may not.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        // SAFETY: every number from 1 to 64 is a signal to the kernel, and no handler is set here.
        let named = unsafe { rustix::process::Signal::from_raw_unchecked(signal.number()) };
        match rustix::process::pidfd_send_signal(&self.fd, named) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes the exit status if the process, a child of the caller, has ended; nothing if it runs.
    ///
    /// # Errors
    /// It is no child, or its status has been taken.
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Takes the exit status if there is one to take; nothing if the process runs, or if its status is gone: somebody else
    /// has taken it, or whoever started the caller has the end of children ignored.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take_exit(&self) -> io::Result<Option<Exit>> {
        match self.try_wait() {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::CHILD.raw_os_error()) => Ok(None),
            other => other,
        }
    }

    /// Waits until the process, a child of the caller, has ended, and takes its status. Blocks.
    ///
    /// # Errors
    /// It is no child, or its status has been taken.
    pub fn wait(&self) -> io::Result<Exit> {
        self.wait_with(WaitIdOptions::EXITED)?
            .ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Whether the process, a child of the caller, is stopped (SIGSTOP) and has not been told to go on. One whose status is
    /// gone is not.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn is_stopped(&self) -> io::Result<bool> {
        // Not taken, so that it is told again for as long as it is so.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), options) {
            Ok(status) => Ok(status.is_some()),
            Err(rustix::io::Errno::CHILD) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn wait_with(&self, options: WaitIdOptions) -> io::Result<Option<Exit>> {
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), options) {
                Ok(status) => return Ok(status.map(|status| exit(&status))),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

fn exit(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        (None, Some(signal)) => Exit::Signal(signal),
        // Only EXITED is asked for, so this is a kernel that reports something unknown.
        (None, None) => Exit::Code(u8::MAX),
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
