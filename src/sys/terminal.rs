//! Terminals, by their master.

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

/// Gives the other end of a terminal to a user, so that a process of that user can open it again by its path.
///
/// # Errors
/// It is no terminal's master, or the caller may not.
pub fn give_to(master: impl AsFd, uid: u32) -> io::Result<()> {
    // By the master, because the path is that of another mount namespace.
    let slave = rustix::pty::ioctl_tiocgptpeer(
        master,
        rustix::pty::OpenptFlags::RDWR
            | rustix::pty::OpenptFlags::NOCTTY
            | rustix::pty::OpenptFlags::CLOEXEC,
    )?;
    Ok(rustix::fs::fchown(
        slave,
        Some(rustix::process::Uid::from_raw(uid)),
        None,
    )?)
}
