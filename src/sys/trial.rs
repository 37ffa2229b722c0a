//! Single steps that tell whether a machine lets pods be: each is tried for its own sake, in a process that ends soon
//! and takes with it what it made.

use std::io;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

use super::fs::{Error, Result};
use super::namespace::Namespace;
use super::seccomp;

/// Moves this thread into new namespaces. A new user namespace takes a process with one thread; into a new pid namespace
/// only its children are born.
///
/// # Errors
/// The caller may not, or the kernel has no such namespaces.
pub fn unshare(kinds: &[Namespace]) -> io::Result<()> {
    let flags = kinds.iter().fold(0, |flags, kind| flags | kind.flag());
    // SAFETY: takes only a number; no descriptor becomes invalid.
    match unsafe { libc::unshare(flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// This thread's network namespace, which stays as long as this is open.
///
/// # Errors
/// There is no `/proc`.
pub fn own_network() -> io::Result<std::fs::File> {
    std::fs::File::open("/proc/thread-self/ns/net")
}

/// Filters the system calls of this thread by a program that allows all.
///
/// # Errors
/// The kernel has no such filters, or the caller may not.
pub fn filter_system_calls() -> io::Result<()> {
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    // `struct sock_filter`: a code of 16 bits, two jumps of 8, and the value.
    let program = [&RETURN.to_ne_bytes()[..], &[0, 0], &ALLOW.to_ne_bytes()].concat();
    seccomp::load(&program, 0)
}

/// Mounts `/proc` as it is for this process's pid namespace.
///
/// # Errors
/// The caller may not: nobody but the machine's root may see more of it than is to be seen already.
pub fn mount_proc(target: &Path) -> Result<()> {
    use rustix::mount::{MountFlags, mount};

    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", target, "proc", flags, None)
        .map_err(|e| Error::new("mount a new /proc on", target, e))
}

/// Opens a device or a setting for reading and writing, and does nothing with it.
///
/// # Errors
/// It is not there, or the caller may not.
pub fn open_both_ways(path: &Path) -> Result<()> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::empty())
        .map(drop)
        .map_err(|e| Error::new("open", path, e))
}

/// Whether the caller may make files in a folder. Asks only.
///
/// # Errors
/// It is not there, or the caller may not.
pub fn may_write(folder: &Path) -> Result<()> {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(CWD, folder, wanted, AtFlags::EACCESS)
        .map_err(|e| Error::new("write to", folder, e))
}

/// Bytes that the caller may still write to the file system of a path.
///
/// # Errors
/// It is not there.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path).map_err(|e| Error::new("look at", path, e))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Sets the hostname of this process's namespace, which must be its own.
///
/// # Errors
/// The kernel refuses, or a filter.
pub fn set_hostname() -> io::Result<()> {
    super::holder::set_hostname(b"kplay-doctor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_allows_all_can_be_loaded() {
        let loaded = std::thread::spawn(|| {
            if !super::super::identity::is_root() {
                return Ok(());
            }
            filter_system_calls()?;
            // The thread goes on.
            free_bytes(Path::new("/"))
                .map(drop)
                .map_err(io::Error::other)
        });
        loaded.join().unwrap().unwrap();
    }

    #[test]
    fn what_is_not_there_cannot_be_opened() {
        assert!(open_both_ways(Path::new("/dev/null")).is_ok());
        assert!(open_both_ways(Path::new("/nothing")).is_err());
        assert!(may_write(Path::new("/nothing")).is_err());
    }
}
