//! The user namespace of a process that is not root: the user is root in it, and has the ids there that the machine
//! gives to the user beside its own.
//!
//! Such a namespace needs nobody to keep it: another one with the same ids is as good for files. But only who is in it may
//! end its processes and change its networks, so it is joined as long as a process lives in it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::OnceLock;

use super::capability::{self, Set};
use super::namespace::{self, Namespace};
use super::{clone, fd, holder};

/// Ids in a row, as the namespace and as the machine numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// All ids that a namespace has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub users: Vec<Extent>,
    pub groups: Vec<Extent>,
    /// Who gives the ids.
    by: Giver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Giver {
    /// The caller, to whom they belong.
    Caller,
    /// The caller, who is root.
    Root,
    /// `newuidmap` and `newgidmap`.
    Programs,
}

impl Mapping {
    /// The caller is root, and nobody else is there.
    #[must_use]
    pub fn of_caller_alone() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self {
            users: extents(uid.as_raw(), &[]),
            groups: extents(gid.as_raw(), &[]),
            by: Giver::Caller,
        }
    }

    /// All ids are as they are, for a root who may give them. None if the caller is no such.
    #[must_use]
    pub fn of_all() -> Option<Self> {
        let needed = ["CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP"];
        let set = capability::effective().ok()?;
        let has = |name| Set::named(name).is_some_and(|one| set.contains(one));
        let is_root = rustix::process::geteuid().is_root();
        let all = |file| Some(same(&std::fs::read_to_string(file).ok()?));
        Some(Self {
            users: all("/proc/self/uid_map").filter(|_| is_root && needed.into_iter().all(has))?,
            groups: all("/proc/self/gid_map")?,
            by: Giver::Root,
        })
    }

    /// The caller is root, and the others are the subordinate ids, in a row.
    #[must_use]
    pub fn of_caller(users: &[Range<u32>], groups: &[Range<u32>]) -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self {
            users: extents(uid.as_raw(), users),
            groups: extents(gid.as_raw(), groups),
            by: match users.is_empty() && groups.is_empty() {
                true => Giver::Caller,
                false => Giver::Programs,
            },
        }
    }
}

/// The ids that a namespace has by its map, each as itself. The very last is left out: with it, the new namespace would look
/// like the machine's own.
fn same(map: &str) -> Vec<Extent> {
    let extents = map.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().map(str::parse);
        let (first, count) = (fields.next()?.ok()?, fields.nth(1)?.ok()?);
        Some(Extent {
            inside: first,
            outside: first,
            count: u32::min(count, u32::MAX - 1),
        })
    });
    extents.collect()
}

fn extents(own: u32, subordinate: &[Range<u32>]) -> Vec<Extent> {
    let mut extents = vec![Extent {
        inside: 0,
        outside: own,
        count: 1,
    }];
    let mut inside = 1_u32;
    for range in subordinate {
        let room = u32::MAX - inside;
        let count = range.end.saturating_sub(range.start).min(room);
        if count > 0 {
            extents.push(Extent {
                inside,
                outside: range.start,
                count,
            });
            inside += count;
        }
    }
    extents
}

/// Why there is no such namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the kernel refuses a user namespace")]
    Refused { source: io::Error },
    #[error("`{program}` does not give the user namespace its ids: {said}")]
    NotGiven { program: &'static str, said: String },
    #[error("`{program}` cannot be run")]
    NoProgram {
        program: &'static str,
        source: io::Error,
    },
    #[error("cannot {step}")]
    System {
        step: &'static str,
        source: io::Error,
    },
}

impl Error {
    fn at(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { step, source }
    }
}

/// Makes a namespace. Ids other than the caller's own take the programs `newuidmap` and `newgidmap`.
///
/// # Errors
/// It cannot be made; then nothing is left.
pub fn make(mapping: &Mapping) -> Result<OwnedFd, Error> {
    let gate = fd::pipe().map_err(Error::at("make a pipe"))?;
    let flags = u64::try_from(Namespace::User.flag()).unwrap_or_default();
    let ends = [gate.0.as_raw_fd(), gate.1.as_raw_fd()];
    // SAFETY: the child only makes system calls, and ends.
    let child = unsafe {
        clone::fork(flags, None, || {
            // Open or closed, it has nothing else to do.
            holder::wait_at(ends).ok();
        })
    }
    .map_err(|source| Error::Refused {
        source: match source.raw_os_error() {
            // What the kernel says of it is not about a disk.
            Some(libc::ENOSPC) => {
                io::Error::other("the sysctl `user.max_user_namespaces` allows no more")
            }
            // Every kernel that kplay runs on has `clone3`.
            Some(libc::ENOSYS) => io::Error::other("a filter of system calls lets nobody make one"),
            _ => source,
        },
    })?;
    let made = give(mapping, child.pid()).and_then(|()| {
        namespace::users_of(child.pid()).map_err(Error::at("open the user namespace"))
    });
    drop(gate);
    child.wait().map_err(Error::at(
        "wait for the first process of the user namespace",
    ))?;
    made
}

/// Gives the new user namespace of a process its ids.
///
/// # Errors
/// The kernel or a program refuses.
pub fn give(mapping: &Mapping, pid: i32) -> Result<(), Error> {
    let failed = Error::at("give the user namespace its ids");
    match mapping.by {
        Giver::Caller => {
            // Groups could be given up that are to be kept from something.
            std::fs::write(format!("/proc/{pid}/setgroups"), "deny")
                .and_then(|()| write_maps(mapping, pid))
                .map_err(failed)
        }
        Giver::Root => write_maps(mapping, pid).map_err(failed),
        Giver::Programs => run_programs(mapping, pid),
    }
}

fn run_programs(mapping: &Mapping, pid: i32) -> Result<(), Error> {
    for (program, extents) in [
        ("newuidmap", &mapping.users),
        ("newgidmap", &mapping.groups),
    ] {
        let mut command = Command::new(program);
        command.arg(pid.to_string());
        for extent in extents {
            let numbers = [extent.inside, extent.outside, extent.count];
            command.args(numbers.map(|number| number.to_string()));
        }
        let output = command
            .output()
            .map_err(|source| Error::NoProgram { program, source })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::NotGiven { program, said });
        }
    }
    Ok(())
}

fn write_maps(mapping: &Mapping, pid: i32) -> io::Result<()> {
    for (file, extents) in [("uid_map", &mapping.users), ("gid_map", &mapping.groups)] {
        let lines: Vec<String> = extents
            .iter()
            .map(|extent| format!("{} {} {}", extent.inside, extent.outside, extent.count))
            .collect();
        std::fs::write(format!("/proc/{pid}/{file}"), lines.join("\n"))?;
    }
    Ok(())
}

/// Who this process was before it entered a namespace.
static CALLER: OnceLock<u32> = OnceLock::new();

/// Moves this process into a namespace, as its root, for good. The process must have one thread. It keeps its groups:
/// what the user may read through them, it may.
///
/// # Errors
/// The caller may not.
pub fn enter(users: &OwnedFd) -> io::Result<()> {
    CALLER.get_or_init(|| rustix::process::getuid().as_raw());
    namespace::enter(users, Namespace::User)?;
    super::ids::set_root()
}

/// Says who that was, where the process began in the namespace. For its first words: who it was is not changed.
pub(super) fn set_caller(uid: u32) {
    CALLER.get_or_init(|| uid);
}

/// The user that this process was started as.
pub(super) fn caller() -> u32 {
    let now = || rustix::process::getuid().as_raw();
    CALLER.get().copied().unwrap_or_else(now)
}

/// The number outside of this process's namespace of the user who is root in it.
pub(super) fn outer_uid() -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut lines = map.lines().map(str::split_whitespace);
    let of_root = lines.find_map(|mut fields| {
        let outside = (fields.next() == Some("0")).then(|| fields.next())?;
        outside?.parse().ok()
    });
    of_root.unwrap_or_default()
}

/// Whether this process is in the machine's own user namespace, whose root may do everything on the machine.
#[must_use]
pub fn is_initial() -> bool {
    // Another namespace maps fewer ids, or maps them elsewhere. No such file: a kernel without user namespaces.
    std::fs::read_to_string("/proc/self/uid_map").map_or(true, |map| {
        map.split_whitespace().eq(["0", "0", "4294967295"])
    })
}

/// How many users and groups this process's namespace has, at least: the numbers below are all there.
#[must_use]
pub fn ids() -> u32 {
    let count = |file: &str| {
        let Ok(map) = std::fs::read_to_string(file) else {
            return u32::MAX;
        };
        let mut lines: Vec<[u32; 2]> = map
            .lines()
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                Some([fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?])
            })
            .collect();
        lines.sort_unstable();
        lines.iter().fold(0, |end, [first, count]| {
            if *first == end {
                end.saturating_add(*count)
            } else {
                end
            }
        })
    };
    count("/proc/self/uid_map").min(count("/proc/self/gid_map"))
}

/// The namespace of a process, if it is right below this process's own: neither that, nor one that a container has made.
///
/// # Errors
/// It has ended, or the caller may not look at it.
pub fn of_process(pid: i32) -> io::Result<Option<OwnedFd>> {
    use std::os::unix::fs::MetadataExt as _;
    // As in linux/nsfs.h.
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    let theirs = namespace::users_of(pid)?;
    // SAFETY: takes no argument; the descriptor is open.
    let parent = unsafe { libc::ioctl(theirs.as_raw_fd(), NS_GET_PARENT) };
    if parent < 0 {
        return match io::Error::last_os_error() {
            // It is above what this process can see, as the own one's parent is.
            error if error.raw_os_error() == Some(libc::EPERM) => Ok(None),
            error => Err(error),
        };
    }
    // SAFETY: the kernel made a new descriptor, which nobody else knows.
    let parent = File::from(unsafe { super::process::own(parent) });
    let own = std::fs::metadata("/proc/self/ns/user")?;
    let found = parent.metadata()?;
    let is_own = (own.dev(), own.ino()) == (found.dev(), found.ino());
    Ok(is_own.then_some(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ids_are_as_they_are_but_for_the_last() {
        let extent = |first, count| Extent {
            inside: first,
            outside: first,
            count,
        };
        assert_eq!(
            same("         0          0 4294967295\n"),
            [extent(0, u32::MAX - 1)]
        );
        let of_user = "0 1000 1\n1 100000 65536\n";
        assert_eq!(same(of_user), [extent(0, 1), extent(1, 65_536)]);
    }

    #[test]
    fn subordinate_ids_are_in_a_row_behind_root() {
        let extent = |inside, outside, count| Extent {
            inside,
            outside,
            count,
        };
        assert_eq!(extents(1000, &[]), [extent(0, 1000, 1)]);
        let two = [100_000..165_536, 300_000..300_000, 500_000..500_010];
        let expected = [
            extent(0, 1000, 1),
            extent(1, 100_000, 65_536),
            extent(65_537, 500_000, 10),
        ];
        assert_eq!(extents(1000, &two), expected);
        let all = 0..u32::MAX;
        assert_eq!(extents(7, &[all])[1], extent(1, 0, u32::MAX - 1));
    }
}
