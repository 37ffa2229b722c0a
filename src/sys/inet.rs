//! Options of sockets, and the limit of open files that bounds their number.

use std::io;
use std::os::fd::AsFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets a listening IPv6 socket take IPv4 connections too, whatever the machine's default is.
///
/// # Errors
/// It is no IPv6 socket.
pub fn set_dual_stack(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_ipv6_v6only(socket, false)?)
}

/// Keeps a listening IPv6 socket from taking IPv4 connections, whatever the machine's default is.
///
/// # Errors
/// It is no IPv6 socket.
pub fn set_v6_only(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_ipv6_v6only(socket, true)?)
}

/// Lets this process have as many files open as it may at all.
pub fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Without it there are fewer connections at a time, as before.
    setrlimit(Resource::Nofile, raised).ok();
}

/// How many files this process may have open.
#[must_use]
pub fn open_files_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Whether an error means that this machine has no IPv6.
#[must_use]
pub fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// The first port of the machine that this process may listen at.
#[must_use]
pub fn first_port() -> u16 {
    // Who is root of a user namespace only is nobody in the machine's network.
    if super::userns::is_initial() {
        return 0;
    }
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}
