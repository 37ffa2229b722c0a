//! Whole trees of files shared by hard links: folders are made anew, everything else is linked.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::fs::{Error, Result};

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
    /// The file systems differ, or one of them or the kernel does not link (more).
    Impossible,
    /// A folder has this attribute.
    Refused(String),
}

/// Shares all that is in the folder `from` with the empty folder `to`, which becomes like `from`: owner, mode, attributes
/// and time, also of folders in it. Works across two mounts of one file system, too. `attribute` tells what becomes of
/// attributes of folders; files have theirs, whatever they are. Unless the tree was shared as a whole, `to` has to be
/// removed.
///
/// # Errors
/// Something cannot be read or made.
pub fn share(from: &Path, to: &Path, attribute: &dyn Fn(&[u8]) -> Attribute) -> Result<Shared> {
    let failed = |path: &Path, e: Errno| Error::new("share the files of", path, e);
    let Some((from_root, to_root)) = on_one_mount(from, to)? else {
        return Ok(Shared::Impossible);
    };
    // Paths, not open folders: a tree may be deeper than files may be open.
    let mut folders = vec![PathBuf::from(".")];
    let mut next = 0;
    while let Some(path) = folders.get(next).cloned() {
        next += 1;
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
                // Another mount, too many links, or `fs.protected_hardlinks`.
                Err(Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP) => {
                    return Ok(Shared::Impossible);
                }
                Err(e) => return Err(at(e)),
            }
        }
    }
    // Every entry changes its folder's time.
    for path in folders.iter().rev() {
        let at = |e| failed(&from.join(path), e);
        let stat = rustix::fs::fstat(&open(&from_root, path).map_err(at)?).map_err(at)?;
        let time = Timespec {
            tv_sec: stat.st_mtime as i64,
            tv_nsec: stat.st_mtime_nsec as _,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&open(&to_root, path).map_err(at)?, &times).map_err(at)?;
    }
    Ok(Shared::Whole)
}

/// Opens two folders through one mount, so that links between them can be made; `None` if they are on two file systems.
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
        return Ok(None);
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
        let shared = share(&from, &path.join("to"), &keep).expect("shared");
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
    fn other_file_systems_are_told() {
        let path = folder("other");
        let shared = share(Path::new("/proc/self"), &path.join("to"), &|_| {
            Attribute::Drop
        });
        assert_eq!(shared.expect("looked at"), Shared::Impossible);
        crate::sys::fs::remove_dir_all(&path).expect("removed");
    }
}
