//! The users and groups of a user namespace, as the machine numbers them, and work done as its root.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use super::capability;
use super::namespace::{self, Namespace};
use super::pidfd::PidFd;

/// The machine's numbers for the users and groups 0 to 65535 of a user namespace: as many in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdRange {
    first: u32,
}

impl IdRange {
    /// How many ids a namespace has. A kubelet's default.
    pub const LENGTH: u32 = 65_536;

    /// The range from `first` on; nothing if that is the machine's root, or there are not as many ids.
    #[must_use]
    pub fn starting_at(first: u32) -> Option<Self> {
        // The very last number is no id.
        let fits = first
            .checked_add(Self::LENGTH)
            .is_some_and(|end| end < u32::MAX);
        (first > 0 && fits).then_some(Self { first })
    }

    /// The machine's number for the namespace's root.
    #[must_use]
    pub fn first(self) -> u32 {
        self.first
    }

    /// The machine's number for an id of the namespace; nothing if the namespace does not have it.
    #[must_use]
    pub fn on_host(self, id: u32) -> Option<u32> {
        (id < Self::LENGTH).then(|| self.first + id)
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.first + (Self::LENGTH - 1))
    }
}

/// Gives a new user namespace its ids. `process` must be in it, and wait.
pub(super) fn map(process: &PidFd, range: IdRange) -> io::Result<()> {
    let line = format!("0 {} {}", range.first, IdRange::LENGTH);
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{file}", process.pid()), &line)?;
    }
    Ok(())
}

/// Makes this process the root of the user namespace that it is in. Allocates nothing.
pub(super) fn become_root() -> io::Result<()> {
    super::process::clear_groups()?;
    set_root()
}

/// As [`become_root`], with the groups that the process is in. Allocates nothing.
pub(super) fn set_root() -> io::Result<()> {
    // By the system calls: the C library's functions would involve other threads.
    // SAFETY: take only numbers.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_setresgid, 0, 0, 0),
            libc::syscall(libc::SYS_setresuid, 0, 0, 0),
        ]
    };
    if results == [0, 0] {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Moves this process into a user namespace, as its root, for good: what is closed to that user is closed to the process
/// from now on. The process must have one thread.
///
/// # Errors
/// The caller may not.
pub fn enter(users: impl AsFd) -> io::Result<()> {
    namespace::enter(users, Namespace::User)?;
    become_root()
}

/// Who a process is for good, as the user namespace that it is in numbers them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Person {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// A bit per capability.
    pub capabilities: u64,
}

/// Makes this process somebody else for good, with those of the capabilities that it has, and hides it from others of that
/// user. The process must have one thread.
///
/// # Errors
/// The caller may not.
pub fn become_person(person: &Person) -> io::Result<()> {
    // In a user namespace with one id nobody may set groups.
    super::process::clear_groups()?;
    let groups = person.groups.as_slice();
    // By the system calls: the C library's functions would involve other threads.
    // SAFETY: the list is as long as is said; the others take only numbers.
    let results = unsafe {
        [
            if groups.is_empty() {
                0
            } else {
                libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr())
            },
            libc::syscall(libc::SYS_setresgid, person.gid, person.gid, person.gid),
            libc::c_long::from(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0)),
            libc::syscall(libc::SYS_setresuid, person.uid, person.uid, person.uid),
        ]
    };
    if results != [0; 4] {
        return Err(io::Error::last_os_error());
    }
    let had = capability::permitted()?;
    capability::set(capability::Set(person.capabilities & had.0))?;
    // SAFETY: takes only numbers.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Does something to files as the root of a user namespace: what is made is that root's, also on mounts on which the
/// machine's root is nobody. Otherwise the thread may do what it may. The thread must be root's.
///
/// # Errors
/// Those of `act`, or the caller may not.
pub fn as_root_of<T>(range: IdRange, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let capabilities = capability::effective()?;
    set_file_ids(range.first);
    // Some were lost with the change.
    let result = capability::set_effective(capabilities).and_then(|()| act());
    set_file_ids(0);
    capability::set_effective(capabilities)?;
    // SAFETY: takes only numbers. The change hid the process from itself; that this works is not needed.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    result
}

/// These calls tell no failure; what is done next does.
fn set_file_ids(id: u32) {
    // SAFETY: take only numbers.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, id);
        libc::syscall(libc::SYS_setfsuid, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_as_many_ids_as_a_namespace() {
        let check = |first: u32, expected: Option<&str>| {
            let range = IdRange::starting_at(first).map(|range| range.to_string());
            assert_eq!(range.as_deref(), expected, "{first}");
        };
        check(0, None);
        check(1, Some("1-65536"));
        check(100_000, Some("100000-165535"));
        check(u32::MAX - 65_536, None);
        check(u32::MAX, None);
        let range = IdRange::starting_at(100_000).unwrap();
        assert_eq!(range.on_host(0), Some(100_000));
        assert_eq!(range.on_host(65_535), Some(165_535));
        assert_eq!(range.on_host(65_536), None);
    }
}
