//! Namespaces, and the loopback device of a new network namespace.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    Network,
    Ipc,
    Uts,
    Pid,
    Mount,
    User,
}

impl Namespace {
    /// Its file in `/proc/PID/ns`.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Pid => "pid",
            Self::Mount => "mnt",
            Self::User => "user",
        }
    }

    pub(super) fn flag(self) -> libc::c_int {
        match self {
            Self::Network => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Mount => libc::CLONE_NEWNS,
            Self::User => libc::CLONE_NEWUSER,
        }
    }
}

/// Moves this thread into a mount namespace of its own, a copy of the present one.
///
/// # Errors
/// The caller may not.
pub fn unshare_mounts() -> io::Result<()> {
    unshare(libc::CLONE_NEWNS)
}

/// Moves this process into a cgroup namespace of its own, whose root is the process's cgroup.
///
/// # Errors
/// The caller may not.
pub fn unshare_cgroups() -> io::Result<()> {
    unshare(libc::CLONE_NEWCGROUP)
}

/// Moves this thread into a network namespace of its own, with a loopback device that is down.
pub(super) fn unshare_network() -> io::Result<()> {
    unshare(libc::CLONE_NEWNET)
}

fn unshare(what: libc::c_int) -> io::Result<()> {
    // SAFETY: takes only a number; no descriptor becomes invalid.
    match unsafe { libc::unshare(what) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// This thread's mount namespace.
///
/// # Errors
/// There is no `/proc`.
pub fn own_mounts() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/proc/thread-self/ns/mnt")?.into())
}

/// The mount namespace of a process that cannot end meanwhile.
///
/// # Errors
/// It is not there, or the caller may not.
pub fn mounts_of(pid: i32) -> io::Result<OwnedFd> {
    Ok(std::fs::File::open(format!("/proc/{pid}/ns/mnt"))?.into())
}

/// The root folder of a process that cannot end meanwhile, in its mount namespace; not opened to be read.
///
/// # Errors
/// It has ended and waits to be reaped, or the caller may not.
pub fn root_of(pid: i32) -> io::Result<OwnedFd> {
    let flags =
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let path = format!("/proc/{pid}/root");
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

/// The user namespace of a process that cannot end meanwhile.
///
/// # Errors
/// It is not there, or the caller may not.
pub fn users_of(pid: i32) -> io::Result<OwnedFd> {
    Ok(std::fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
}

/// Moves this thread into the namespace that a descriptor of `/proc/PID/ns/…` stands for.
///
/// # Errors
/// The caller may not, or it is no namespace of this kind.
pub fn enter(namespace: impl AsFd, kind: Namespace) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call.
    match unsafe { libc::setns(namespace.as_fd().as_raw_fd(), kind.flag()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Brings the loopback device of this thread's network namespace up. Allocates nothing.
pub(super) fn loopback_up() -> io::Result<()> {
    // SAFETY: takes only numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new.
    let socket = unsafe { super::process::own(socket) };
    // SAFETY: zero is a valid value of this structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request names a device and has the flags in the union.
    match unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
