//! Copies of mounts that are on no place yet, and what they are: who sees mounts on them, and who may write.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::super::fs::{self, Error, Result};

/// Who sees what is mounted on a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody else.
    Private,
    /// What is mounted on its peers is seen on it.
    Slave,
    /// And what is mounted on it is seen on its peers.
    Shared,
}

/// Whether what is mounted below a mount is meant, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    Top,
    All,
}

/// What the mount is that a path is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    pub point: PathBuf,
    pub shared: bool,
    pub slave: bool,
}

/// What the mount is that a path is on, in this thread's mount namespace.
///
/// # Errors
/// It is not there, or the mounts cannot be read.
pub fn peers(path: &Path) -> Result<Peers> {
    let found = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)
        .map_err(|e| Error::new("look at", path, e))?;
    let table = fs::read(Path::new("/proc/thread-self/mountinfo"))?;
    let table = String::from_utf8_lossy(&table);
    peers_of(&table, found.stx_mnt_id).ok_or_else(|| {
        let source = io::Error::from(io::ErrorKind::NotFound);
        Error::new("find the mount of", path, source)
    })
}

fn peers_of(table: &str, id: u64) -> Option<Peers> {
    let id = id.to_string();
    let line = table
        .lines()
        .find(|line| line.split(' ').next() == Some(&id))?;
    let mut fields = line.split(' ').skip(4);
    let point = fields.next()?;
    let optional: Vec<&str> = fields.skip(1).take_while(|field| *field != "-").collect();
    let has = |prefix| optional.iter().any(|field| field.starts_with(prefix));
    Some(Peers {
        point: PathBuf::from(point),
        shared: has("shared:"),
        slave: has("master:"),
    })
}

/// Copies a mount, with what is mounted below it.
///
/// # Errors
/// It is not there, or the caller may not.
pub fn copy(source: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, source, flags)
        .map_err(|e| Error::new("copy the mount of", source, e))
}

/// Copies a mount, with what is mounted below it, and has the ids of a user namespace in the place of those of its files:
/// a file of user 0 is the namespace's root's. What is mounted below keeps its ids, as with runc, and so is nobody's.
///
/// # Errors
/// As [`copy`]; the file system or the kernel cannot do it, or it has been done to this mount before.
pub fn mapped(source: &Path, users: impl AsFd) -> Result<OwnedFd> {
    let tree = copy(source)?;
    map_ids(&tree, users)
        .map_err(|cause| Error::new("map the ids of", source, explain(source, cause)))?;
    Ok(tree)
}

/// Says what the kernel's error numbers do not.
fn explain(source: &Path, error: io::Error) -> io::Error {
    let kind = kind_of(source).unwrap_or_else(|_| "unknown".to_owned());
    let why = match error.raw_os_error() {
        Some(libc::ENOSYS) => "mounts with ids of their own need Linux 5.12".to_owned(),
        Some(libc::EINVAL) if kind == "tmpfs" => {
            "a tmpfs can have the ids of a user namespace from Linux 6.3 on".to_owned()
        }
        Some(libc::EINVAL) => {
            format!("this kernel's `{kind}` file system cannot have the ids of a user namespace")
        }
        Some(libc::EPERM) => {
            format!("this mount of a `{kind}` file system has ids of its own already")
        }
        _ => return error,
    };
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// The kind of file system that a path is on.
///
/// # Errors
/// It is not there, or the mounts cannot be read.
pub fn kind_of(path: &Path) -> Result<String> {
    let found = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)
        .map_err(|e| Error::new("look at", path, e))?;
    let table = fs::read(Path::new("/proc/thread-self/mountinfo"))?;
    let id = found.stx_mnt_id.to_string();
    let table = String::from_utf8_lossy(&table);
    let line = table
        .lines()
        .find(|line| line.split(' ').next() == Some(&id));
    let kind = line.and_then(|line| line.split_once(" - ")?.1.split(' ').next());
    Ok(kind.unwrap_or("unknown").to_owned())
}

/// Gives a copy its place.
///
/// # Errors
/// There is nothing at `target` to mount on, or the caller may not.
pub fn place(tree: impl AsFd, target: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", CWD, target, flags)
        .map_err(|e| Error::new("mount over", target, e))
}

/// Sets who sees what is mounted on a copy and on all below it.
///
/// # Errors
/// The kernel is older than 5.12.
pub fn set_sharing(tree: impl AsFd, sharing: Sharing) -> Result<()> {
    let propagation = match sharing {
        Sharing::Private => libc::MS_PRIVATE,
        Sharing::Slave => libc::MS_SLAVE,
        Sharing::Shared => libc::MS_SHARED,
    };
    set(&tree, 0, propagation, Depth::All)
}

/// Lets nobody write to a copy.
///
/// # Errors
/// The kernel is older than 5.12.
pub fn set_read_only(tree: impl AsFd, depth: Depth) -> Result<()> {
    set(&tree, libc::MOUNT_ATTR_RDONLY, 0, depth)
}

fn set(tree: impl AsFd, attributes: u64, propagation: u64, depth: Depth) -> Result<()> {
    let wanted = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    set_attributes(tree, wanted, depth)
        .map_err(|e| Error::new("set the attributes of", "a mount", e))
}

fn map_ids(tree: impl AsFd, users: impl AsFd) -> io::Result<()> {
    let wanted = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(users.as_fd().as_raw_fd().unsigned_abs()),
    };
    set_attributes(tree, wanted, Depth::Top)
}

fn set_attributes(tree: impl AsFd, wanted: libc::mount_attr, depth: Depth) -> io::Result<()> {
    let flags = match depth {
        Depth::Top => libc::AT_EMPTY_PATH,
        Depth::All => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    let empty: &CStr = c"";
    // SAFETY: the descriptor is open, the path ends with a zero byte, and the structure is of the length that is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_says_who_the_peers_are() {
        let table = "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                     22 21 8:2 / /a rw,nosuid shared:7 master:1 - ext4 /dev/sdb rw\n\
                     23 21 8:3 / /b rw - tmpfs tmpfs rw\n";
        let check = |id, expected: Option<(&str, bool, bool)>| {
            let peers = peers_of(table, id);
            let peers = peers.as_ref();
            let seen = peers.map(|p| (p.point.to_str().unwrap(), p.shared, p.slave));
            assert_eq!(seen, expected, "{id}");
        };
        check(21, Some(("/", true, false)));
        check(22, Some(("/a", true, true)));
        check(23, Some(("/b", false, false)));
        check(2, None);
    }
}
