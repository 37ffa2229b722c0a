//! A child for tests.

use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;

use crate::sys::pidfd::{Exit, PidFd};
use crate::sys::signal::{self, Signal};
use crate::sys::{clone, fd};

/// A child that ends when it is told to, or by SIGKILL; all other signals wait.
#[derive(Debug)]
pub(crate) struct Puppet {
    strings: std::fs::File,
    pid: i32,
}

impl Puppet {
    /// Starts one.
    pub(crate) fn start() -> io::Result<(Self, PidFd)> {
        let (read, write) = fd::pipe()?;
        let writer = write.as_raw_fd();
        // Blocked before the fork, so that no signal can come too early.
        // SAFETY: both masks are initialised by these calls before they are used.
        let before = unsafe {
            let (mut all, mut before): (libc::sigset_t, libc::sigset_t) =
                (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            before
        };
        // SAFETY: the child only makes system calls, and never returns.
        let child = unsafe {
            clone::fork(0, None, || {
                libc::close(writer);
                let mut order = [0_u8; 2];
                let length = libc::read(read.as_raw_fd(), order.as_mut_ptr().cast(), 2);
                match (length, order) {
                    (2, [0, code]) => libc::_exit(libc::c_int::from(code)),
                    (2, [_, signal]) => {
                        signal::reset_all();
                        libc::kill(libc::getpid(), libc::c_int::from(signal));
                    }
                    _ => {}
                }
            })
        };
        // SAFETY: the mask that was in force before.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut())
        };
        let child = child?;
        let puppet = Self {
            strings: write.into(),
            pid: child.pid(),
        };
        Ok((puppet, child))
    }

    /// Makes it end.
    pub(crate) fn end(&mut self, exit: Exit) -> io::Result<()> {
        self.strings.write_all(&match exit {
            Exit::Code(code) => [0, code],
            Exit::Signal(signal) => [1, u8::try_from(signal).unwrap_or(9)],
        })
    }

    /// Whether it was sent this signal, which waits.
    pub(crate) fn was_sent(&self, signal: Signal) -> io::Result<bool> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let pending = status.lines().filter_map(|line| {
            let mask = line
                .strip_prefix("SigPnd:\t")
                .or_else(|| line.strip_prefix("ShdPnd:\t"))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        });
        Ok(pending.fold(0, |all, mask| all | mask) & 1 << (signal.number() - 1) != 0)
    }
}
