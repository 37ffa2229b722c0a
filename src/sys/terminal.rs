//! Terminals, by one of their ends.

use std::io;
use std::os::fd::AsFd;

use rustix::termios::Winsize;

/// Sets a terminal's size in characters; its foreground process group gets SIGWINCH.
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
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
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
