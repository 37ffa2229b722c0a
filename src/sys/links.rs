//! Whole trees of files shared by hard links: folders are made anew, everything else is linked. What the kernel does not
//! link, as across two subvolumes, becomes a file of its own with the same blocks, where the file system does that.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::fs::{Error, Result};
use super::stop::Stop;

/// As `statfs` tells file systems.
const BTRFS: i64 = 0x9123_683e;

/// What becomes of an extended attribute of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    Keep,
    Drop,
    /// The tree means something else than it shows.
    Refuse,
}

/// What came of sharing a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shared {
    /// All of it.
    Whole,
    /// The file systems differ, or neither files nor their blocks can be shared there.
    Impossible,
    /// A folder has this attribute, or a file that was not linked.
    Refused(String),
}

/// Shares all that is in the folder `from` with the empty folder `to`, which becomes like `from`: owner, mode, attributes
/// and time, also of folders in it. Works across two mounts of one file system, too. `attribute` tells what becomes of
/// attributes of folders, and of files that cannot be linked; linked ones have theirs, whatever they are. Unless the tree was shared as a whole, `to` has to be
/// removed.
///
/// # Errors
/// Something cannot be read or made, or it is to be given up.
pub fn share(
    from: &Path,
    to: &Path,
    attribute: &dyn Fn(&[u8]) -> Attribute,
    stop: &Stop,
) -> Result<Shared> {
    let failed = |path: &Path, e: Errno| Error::new("share the files of", path, e);
    let Some((from_root, to_root)) = on_one_mount(from, to)? else {
        return Ok(Shared::Impossible);
    };
    let mut cloned = HashMap::new();
    // Paths, not open folders: a tree may be deeper than files may be open.
    let mut folders = vec![PathBuf::from(".")];
    let mut next = 0;
    while let Some(path) = folders.get(next).cloned() {
        next += 1;
        stop.check()
            .map_err(|e| Error::new("share the files of", from, e))?;
        let at = |e| failed(&from.join(&path), e);
        let old = open(&from_root, &path).map_err(at)?;
        let new = open(&to_root, &path).map_err(at)?;
        if let Some(name) = copy_attributes(&old, &new, attribute).map_err(at)? {
            return Ok(Shared::Refused(name));
        }
        for entry in rustix::fs::Dir::read_from(&old).map_err(at)? {
            let entry = entry.map_err(at)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let is_folder = match entry.file_type() {
                FileType::Directory => true,
                // The file system does not say.
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&old, name, AtFlags::SYMLINK_NOFOLLOW);
                    FileType::from_raw_mode(stat.map_err(at)?.st_mode) == FileType::Directory
                }
                _ => false,
            };
            if is_folder {
                rustix::fs::mkdirat(&new, name, Mode::RWXU).map_err(at)?;
                folders.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
                continue;
            }
            match rustix::fs::linkat(&old, name, &new, name, AtFlags::empty()) {
                Ok(()) => {}
                // Another subvolume or mount, too many links, or `fs.protected_hardlinks`.
                Err(Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP) => {
                    let stat = rustix::fs::statat(&old, name, AtFlags::SYMLINK_NOFOLLOW);
                    let stat = stat.map_err(at)?;
                    let copy = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                    // What is one file there is one file here.
                    let first = cloned.get(&stat.st_ino).filter(|_| stat.st_nlink > 1);
                    let done = match first {
                        Some(first) => {
                            rustix::fs::linkat(&to_root, first, &new, name, AtFlags::empty())
                                .map(|()| Shared::Whole)
                        }
                        None => clone(&old, &new, name, &stat, attribute),
                    };
                    let done = match done {
                        // Such as a device in a user namespace.
                        Err(Errno::PERM) => Shared::Impossible,
                        done => done.map_err(at)?,
                    };
                    match done {
                        Shared::Whole if stat.st_nlink > 1 => {
                            cloned.entry(stat.st_ino).or_insert(copy);
                        }
                        Shared::Whole => {}
                        other => return Ok(other),
                    }
                }
                Err(e) => return Err(at(e)),
            }
        }
    }
    // Every entry changes its folder's time.
    for path in folders.iter().rev() {
        let at = |e| failed(&from.join(path), e);
        let stat = rustix::fs::fstat(&open(&from_root, path).map_err(at)?).map_err(at)?;
        let new = open(&to_root, path).map_err(at)?;
        rustix::fs::futimens(&new, &times(&stat)).map_err(at)?;
    }
    Ok(Shared::Whole)
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as _,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Makes of what is no folder another one like it, which has the same blocks if it has any.
fn clone(
    old: &OwnedFd,
    new: &OwnedFd,
    name: &CStr,
    stat: &Stat,
    attribute: &dyn Fn(&[u8]) -> Attribute,
) -> rustix::io::Result<Shared> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::RegularFile {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = rustix::fs::openat(old, name, OFlags::RDONLY | flags, Mode::empty())?;
        let make = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let to = rustix::fs::openat(new, name, make | flags, Mode::RUSR | Mode::WUSR)?;
        if stat.st_size > 0 {
            match rustix::fs::ioctl_ficlone(&to, &from) {
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY) => {
                    return Ok(Shared::Impossible);
                }
                done => done?,
            }
        }
        if let Some(name) = copy_attributes(&from, &to, attribute)? {
            return Ok(Shared::Refused(name));
        }
        rustix::fs::futimens(&to, &times(stat))?;
        return Ok(Shared::Whole);
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if kind == FileType::Symlink {
        let target = rustix::fs::readlinkat(old, name, Vec::new())?;
        rustix::fs::symlinkat(target, new, name)?;
    } else {
        rustix::fs::mknodat(new, name, kind, mode, stat.st_rdev)?;
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let itself = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(new, name, Some(uid), Some(gid), itself)?;
    if kind != FileType::Symlink {
        rustix::fs::chmodat(new, name, mode, AtFlags::empty())?;
    }
    rustix::fs::utimensat(new, name, &times(stat), itself)?;
    Ok(Shared::Whole)
}

/// Opens two folders, through one mount if they are on one, so that links between them can be made; `None` if they are on
/// file systems that have no blocks in common.
///
/// Engines mount their folder on itself, and then links to a folder beside it would cross mounts. A copy of the mount
/// that both are beneath, without what is mounted on it, has both.
fn on_one_mount(one: &Path, two: &Path) -> Result<Option<(OwnedFd, OwnedFd)>> {
    let opened = |path: &Path| {
        let whole = path.canonicalize();
        let path = whole.map_err(|e| Error::new("find", path, e))?;
        let folder = open(CWD, &path).map_err(|e| Error::new("open the folder", &path, e))?;
        let stat = rustix::fs::fstat(&folder).map_err(|e| Error::new("look at", &path, e))?;
        Ok((path, folder, (stat.st_dev, stat.st_ino)))
    };
    let (one, one_folder, one_id) = opened(one)?;
    let (two, two_folder, two_id) = opened(two)?;
    if one_id.0 != two_id.0 {
        // Each subvolume of btrfs is a device of its own.
        let is_btrfs =
            |folder: &OwnedFd| rustix::fs::fstatfs(folder).is_ok_and(|disk| disk.f_type == BTRFS);
        let may_share = is_btrfs(&one_folder) && is_btrfs(&two_folder);
        return Ok(may_share.then_some((one_folder, two_folder)));
    }
    let common: PathBuf = one
        .components()
        .zip(two.components())
        .take_while(|(one, two)| one == two)
        .map(|(component, _)| component)
        .collect();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let both = || {
        let mount = rustix::mount::open_tree(CWD, &common, flags).ok()?;
        let within = |path: &Path, id| {
            let rest = Path::new(".").join(path.strip_prefix(&common).ok()?);
            let folder = open(&mount, &rest).ok()?;
            let stat = rustix::fs::fstat(&folder).ok()?;
            // Something else may be there beneath what is mounted.
            ((stat.st_dev, stat.st_ino) == id).then_some(folder)
        };
        Some((within(&one, one_id)?, within(&two, two_id)?))
    };
    // Without the right to copy mounts, or without a mount that has both, links may work all the same.
    Ok(Some(both().unwrap_or((one_folder, two_folder))))
}

fn open(folder: impl std::os::fd::AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        let resolve = ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&folder, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Returns the name of an attribute that is refused.
fn copy_attributes(
    old: &OwnedFd,
    new: &OwnedFd,
    attribute: &dyn Fn(&[u8]) -> Attribute,
) -> rustix::io::Result<Option<String>> {
    let stat = rustix::fs::fstat(old)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(new, Some(uid), Some(gid))?;
    rustix::fs::fchmod(new, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0; 65536];
    let length = match rustix::fs::flistxattr(old, &mut *names) {
        Err(Errno::OPNOTSUPP) => return Ok(None),
        other => other?,
    };
    for name in names[..length].split(|byte| *byte == 0) {
        if name.is_empty() {
            continue;
        }
        match attribute(name) {
            Attribute::Keep => {
                let mut value = vec![0; 65536];
                let length = rustix::fs::fgetxattr(old, name, &mut *value)?;
                rustix::fs::fsetxattr(new, name, &value[..length], XattrFlags::empty())?;
            }
            Attribute::Drop => {}
            Attribute::Refuse => return Ok(Some(String::from_utf8_lossy(name).into_owned())),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("kplay-links-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("from/a/b")).expect("a folder");
        std::fs::create_dir_all(path.join("to")).expect("a folder");
        path
    }

    #[test]
    fn a_tree_is_shared_and_looks_the_same() {
        let path = folder("same");
        let from = path.join("from");
        crate::sys::fs::replace(&from.join("a/b/file"), 0o640, b"x").expect("a file");
        crate::sys::fs::symlink(Path::new("b/file"), &from.join("a/link")).expect("a link");
        std::fs::set_permissions(from.join("a/b"), std::fs::Permissions::from_mode(0o1711))
            .expect("a mode");
        let keep = |_: &[u8]| Attribute::Keep;
        let shared = share(&from, &path.join("to"), &keep, &Stop::default()).expect("shared");
        assert_eq!(shared, Shared::Whole);
        for entry in ["a", "a/b", "a/b/file", "a/link", "."] {
            let look = |tree: &str| std::fs::symlink_metadata(path.join(tree).join(entry));
            let (one, two) = (look("from").expect("there"), look("to").expect("there"));
            assert_eq!(
                (one.mode(), one.mtime_nsec()),
                (two.mode(), two.mtime_nsec()),
                "{entry}"
            );
            assert_eq!(one.ino() == two.ino(), !one.is_dir(), "{entry}");
        }
        crate::sys::fs::remove_dir_all(&path).expect("removed");
    }

    #[test]
    fn what_must_not_be_linked_is_told() {
        let path = folder("immutable");
        let from = path.join("from");
        crate::sys::fs::replace(&from.join("a/file"), 0o640, b"x").expect("a file");
        let file = std::fs::File::open(from.join("a/file")).expect("a file");
        let set = |flags| rustix::fs::ioctl_setflags(&file, flags);
        // Not every file system has such files, and not everybody may make one.
        if set(rustix::fs::IFlags::IMMUTABLE).is_ok() {
            let keep = |_: &[u8]| Attribute::Keep;
            let shared = share(&from, &path.join("to"), &keep, &Stop::default());
            set(rustix::fs::IFlags::empty()).expect("as before");
            let there = path.join("to/a/file");
            match shared.expect("looked at") {
                Shared::Impossible => {}
                // The file system shares blocks.
                Shared::Whole => assert_eq!(std::fs::read(there).expect("a copy"), b"x"),
                other @ Shared::Refused(_) => panic!("{other:?}"),
            }
        }
        crate::sys::fs::remove_dir_all(&path).expect("removed");
    }

    #[test]
    fn work_that_is_given_up_ends() {
        let path = folder("stopped");
        let (asked, ask) = std::io::pipe().expect("a pipe");
        drop(ask);
        let (from, to, keep) = (path.join("from"), path.join("to"), |_: &[u8]| {
            Attribute::Keep
        });
        let error = share(&from, &to, &keep, &Stop::when(asked.into()));
        let error = error.expect_err("given up").to_string();
        assert!(error.contains("share the files of"), "{error}");
        crate::sys::fs::remove_dir_all(&path).expect("removed");
    }

    #[test]
    fn other_file_systems_are_told() {
        let path = folder("other");
        let drop = |_: &[u8]| Attribute::Drop;
        let to = path.join("to");
        let shared = share(Path::new("/proc/self"), &to, &drop, &Stop::default());
        assert_eq!(shared.expect("looked at"), Shared::Impossible);
        crate::sys::fs::remove_dir_all(&path).expect("removed");
    }
}
