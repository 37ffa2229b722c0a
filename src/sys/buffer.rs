//! How much a socket takes at once.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

/// Lets a message of this length be sent, also where the machine's limit is smaller: for sockets to the kernel, for which
/// the whole message is one transaction.
///
/// # Errors
/// The kernel refuses: it takes the right to set up the network.
pub fn send_at_once(socket: &impl AsFd, length: usize) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::SndBufForce, &length)?)
}
