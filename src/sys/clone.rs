//! `clone3`: a fork that is born in its namespaces and in its cgroup, and whose pidfd comes with it.

use std::io;
use std::os::fd::RawFd;

use super::cgroup::CgroupEntry;
use super::pidfd::PidFd;
use super::process;

/// The kernel's `struct clone_args`.
#[repr(C)]
#[derive(Default)]
struct Arguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks with these `CLONE_*` flags; the child is born in `cgroup` where that can be (it still has to call
/// [`CgroupEntry::enter`] for the rest), runs `child`, and exits with code 1 if that returns.
///
/// # Errors
/// The kernel refuses.
///
/// # Safety
/// The child is a copy of this thread alone: another thread may hold the allocator's lock. `child` may only make
/// system calls and touch memory that was prepared before.
pub(super) unsafe fn fork(
    flags: u64,
    cgroup: Option<&CgroupEntry>,
    child: impl FnOnce(),
) -> io::Result<PidFd> {
    let mut pidfd: RawFd = -1;
    let mut arguments = Arguments {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..Arguments::default()
    };
    if let Some(directory) = cgroup.and_then(CgroupEntry::directory) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = directory as u64;
    }
    // SAFETY: `arguments` has the layout and the size that are given; without CLONE_VM the child has its own copy of
    // the stack, as with fork.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<Arguments>()) };
    match pid {
        0 => {
            child();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(1) }
        }
        -1 => Err(io::Error::last_os_error()),
        pid => {
            // SAFETY: the kernel stored a new descriptor, which nobody else knows.
            let fd = unsafe { process::own(pidfd) };
            Ok(PidFd::from_parts(fd, i32::try_from(pid).unwrap_or(-1)))
        }
    }
}
