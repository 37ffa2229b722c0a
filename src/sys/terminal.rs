//! Terminals: the caller's, its size and a raw mode that always ends; and those that kplay holds, by their master.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::termios::{self, OptionalActions, Termios, Winsize};

/// Rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// The size of a terminal, if that is what `fd` is and if it has one.
#[must_use]
pub fn size(fd: impl AsFd) -> Option<Size> {
    let size = termios::tcgetwinsize(fd).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Size {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Sets a terminal's size in characters, by either side; its foreground process group gets SIGWINCH.
///
/// # Errors
/// It is no terminal.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(termios::tcsetwinsize(terminal, size)?)
}

/// Gives a terminal, by the end that its programs use, to a user, so that a process of that user can open it again by
/// its path.
///
/// # Errors
/// The caller may not.
pub fn give_to(terminal: impl AsFd, uid: u32) -> io::Result<()> {
    Ok(rustix::fs::fchown(
        terminal,
        Some(rustix::process::Uid::from_raw(uid)),
        None,
    )?)
}

/// How the terminal of standard input was before raw mode, while it is raw.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input's terminal in raw mode, until this is dropped. There is one at most.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Hands every key to the program that reads standard input.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        if let Ok(mut slot) = BEFORE.lock() {
            slot.get_or_insert(before);
        }
        // Made before the change, so that a failure half way is undone as well.
        let guard = Self(());
        termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(guard)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Ends raw mode if the terminal is in it: for exits that drop nothing.
pub fn restore() {
    // A lock that is held here belongs to a thread that is doing the same.
    let before = BEFORE.try_lock().ok().and_then(|mut slot| slot.take());
    if let Some(before) = before {
        // The terminal may have gone; then there is nothing to restore.
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &before).ok();
    }
}

/// SIGWINCH as something to wait for.
#[derive(Debug)]
pub struct Resizes(SignalFd);

impl Resizes {
    /// Holds the signal back in this thread from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn watch() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGWINCH);
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags)?))
    }

    /// Forgets the resizes so far; returns whether there were any.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take(&self) -> io::Result<bool> {
        Ok(self.0.read_signal()?.is_some())
    }
}

impl AsFd for Resizes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_set_on_one_side_and_seen_on_both() {
        let pty = nix::pty::openpty(None, None).expect("a pseudo-terminal");
        assert_eq!(size(&pty.master), None);
        let wanted = Size {
            rows: 24,
            columns: 80,
        };
        set_size(&pty.master, wanted.rows, wanted.columns).expect("a terminal");
        assert_eq!(size(&pty.slave), Some(wanted));
    }

    #[test]
    fn a_pipe_has_no_size() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        assert_eq!(size(&reader), None);
    }
}
