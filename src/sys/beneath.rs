//! Files beneath a folder: every path is resolved by the kernel as if the folder were `/` (`openat2` with
//! `RESOLVE_IN_ROOT`), so that neither `..` nor a symbolic link gets out. Names within an open folder are single
//! components ([`Name`]), and nothing here follows a link in the last one.
//!
//! This is what image layers are written with, and knows nothing of archives: folders that kplay makes for volumes are
//! [`dir`](super::dir)'s. Needs Linux 5.6.

mod look;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

pub use look::{Found, content};

/// One component of a path: not empty, not `.` or `..`, without `/` and NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Checks a component; `None` if it is none.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let valid =
            !matches!(bytes, b"" | b"." | b"..") && !bytes.iter().any(|b| matches!(b, b'/' | 0));
        valid.then_some(Self(bytes))
    }

    /// The component.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// What is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Folder,
    Symlink,
    /// overlayfs' mark of a deleted file: a character device 0:0.
    Whiteout,
    Other,
}

/// Special files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Fifo,
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
}

/// Owner of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// A time since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// The folder that nothing gets out of.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// An open folder, beneath a [`Root`] when it comes from one.
#[derive(Debug)]
pub struct Folder(OwnedFd);

/// Takes an open folder as the one that nothing gets out of.
impl From<OwnedFd> for Root {
    fn from(folder: OwnedFd) -> Self {
        Self(folder)
    }
}

impl Root {
    /// Anchors at a folder of the caller's own.
    ///
    /// # Errors
    /// It cannot be opened or is no folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Anchors at an open folder of the caller's own.
    #[must_use]
    pub fn of(folder: File) -> Self {
        Self(folder.into())
    }

    /// Opens the folder at `path`; symbolic links, `..` and a leading `/` are resolved within the root.
    ///
    /// # Errors
    /// It is not there or is no folder.
    pub fn folder(&self, path: &[u8]) -> io::Result<Folder> {
        let path = if path.is_empty() {
            b".".as_slice()
        } else {
            path
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Folder(self.resolve(path, flags)?))
    }

    /// Opens the regular file at `path` to read; links are resolved within the root.
    ///
    /// # Errors
    /// It is not there or is no regular file.
    pub fn file(&self, path: &[u8]) -> io::Result<File> {
        // A FIFO would block without NONBLOCK; it means nothing for a regular file.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(self.resolve(path, flags)?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::other("not a regular file"))
        }
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        loop {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                // The kernel could not rule out that a rename elsewhere led a `..` out: it asks to try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

impl Folder {
    /// Opens a folder of the caller's own, following links.
    ///
    /// # Errors
    /// It cannot be opened or is no folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Root::open(path)?.0))
    }

    /// What is at `name`, or nothing.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn kind(&self, name: Name<'_>) -> io::Result<Option<Kind>> {
        let stat = match rustix::fs::statat(&self.0, name.0, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Folder,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice if stat.st_rdev == 0 => Kind::Whiteout,
            _ => Kind::Other,
        }))
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// It is not there or is no link.
    pub fn link_target(&self, name: Name<'_>) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.0, name.0, Vec::new())?.into_bytes())
    }

    /// Makes a folder; `mode` is subject to the thread's umask.
    ///
    /// # Errors
    /// The name is taken, or it cannot be made.
    pub fn make_folder(&self, name: Name<'_>, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(
            &self.0,
            name.0,
            Mode::from_raw_mode(mode),
        )?)
    }

    /// Makes a regular file, open to write; `mode` is subject to the thread's umask.
    ///
    /// # Errors
    /// The name is taken (also by a dangling link), or it cannot be made.
    pub fn make_file(&self, name: Name<'_>, mode: u32) -> io::Result<File> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        Ok(File::from(rustix::fs::openat(
            &self.0, name.0, flags, mode,
        )?))
    }

    /// Makes a symbolic link with any target.
    ///
    /// # Errors
    /// The name is taken, or it cannot be made.
    pub fn make_symlink(&self, name: Name<'_>, target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.0, name.0)?)
    }

    /// Makes a hard link to `target` in `folder`; a symbolic link there is linked to itself, not followed.
    ///
    /// # Errors
    /// The name is taken, the target is missing or a folder.
    pub fn make_link(&self, name: Name<'_>, folder: &Self, target: Name<'_>) -> io::Result<()> {
        let flags = AtFlags::empty();
        Ok(rustix::fs::linkat(
            &folder.0, target.0, &self.0, name.0, flags,
        )?)
    }

    /// Moves what is at `name` to another folder, where the new name is free.
    ///
    /// # Errors
    /// It is not there, or the name is taken.
    pub fn rename(&self, name: Name<'_>, folder: &Self, new: Name<'_>) -> io::Result<()> {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        Ok(rustix::fs::renameat_with(
            &self.0, name.0, &folder.0, new.0, flags,
        )?)
    }

    /// Moves what is at `name` to another name here, in the place of what is there, unless that is a folder.
    ///
    /// # Errors
    /// It is not there, or cannot take the place.
    pub fn replace(&self, name: Name<'_>, new: Name<'_>) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, name.0, &self.0, new.0)?)
    }

    /// Makes a special file; `mode` is subject to the thread's umask.
    ///
    /// # Errors
    /// The name is taken, or the caller may not make one.
    pub fn make_node(&self, name: Name<'_>, node: Node, mode: u32) -> io::Result<()> {
        let (kind, device) = match node {
            Node::Fifo => (FileType::Fifo, 0),
            Node::Character { major, minor } => {
                (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            Node::Block { major, minor } => {
                (FileType::BlockDevice, rustix::fs::makedev(major, minor))
            }
        };
        let mode = Mode::from_raw_mode(mode);
        Ok(rustix::fs::mknodat(&self.0, name.0, kind, mode, device)?)
    }

    /// Sets the owner; clears setuid and setgid, so the mode is set after it.
    ///
    /// # Errors
    /// It is not there, or the caller may not.
    pub fn set_owner(&self, name: Name<'_>, owner: Owner) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(
            &self.0,
            name.0,
            Some(uid),
            Some(gid),
            flags,
        )?)
    }

    /// Sets the mode of what is known to be no symbolic link.
    ///
    /// # Errors
    /// It is not there, or the caller may not.
    pub fn set_mode(&self, name: Name<'_>, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        Ok(rustix::fs::chmodat(
            &self.0,
            name.0,
            mode,
            AtFlags::empty(),
        )?)
    }

    /// Sets the time of modification (and of access, to the same).
    ///
    /// # Errors
    /// It is not there, or the caller may not.
    pub fn set_time(&self, name: Name<'_>, time: Time) -> io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(
            &self.0,
            name.0,
            &timestamps(time),
            flags,
        )?)
    }

    /// Opens the folder or regular file at `name` for what works only on open files.
    ///
    /// # Errors
    /// It is not there, or is a link.
    pub fn open_itself(&self, name: Name<'_>) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(
            &self.0,
            name.0,
            flags,
            Mode::empty(),
        )?))
    }

    /// Opens this folder itself for what works only on open files.
    ///
    /// # Errors
    /// The caller may not.
    pub fn reopen(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(
            &self.0,
            ".",
            flags,
            Mode::empty(),
        )?))
    }

    /// Removes what is at `name`; a folder with all that is in it, however deep.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self, name: Name<'_>) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name.0, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => remove_folder(&self.0, name),
            Err(e) => Err(e.into()),
        }
    }
}

/// Sets the owner of an open file; clears setuid and setgid, so the mode is set after it.
///
/// # Errors
/// The caller may not.
pub fn set_file_owner(file: &File, owner: Owner) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    Ok(rustix::fs::fchown(file, Some(uid), Some(gid))?)
}

/// Sets the mode of an open file, with the setuid, setgid and sticky bits.
///
/// # Errors
/// The caller may not.
pub fn set_file_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?)
}

/// Sets the time of modification of an open file (and of access, to the same).
///
/// # Errors
/// The caller may not.
pub fn set_file_time(file: &File, time: Time) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &timestamps(time))?)
}

/// Sets an extended attribute of an open file.
///
/// # Errors
/// The file system has none (`Unsupported`), the caller may not, or the kernel refuses the value.
pub fn set_attribute(file: &File, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        file,
        name,
        value,
        XattrFlags::empty(),
    )?)
}

/// The value of an extended attribute, if there is one.
///
/// # Errors
/// It cannot be read.
pub fn attribute(file: &File, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 65536];
    match rustix::fs::fgetxattr(file, name, &mut *value) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Gives the calling thread a umask of its own, 0, so that modes are exact without a second call per file. The
/// rest of the process keeps its umask and its working folder. For threads that end after the work.
///
/// # Errors
/// The kernel refuses.
pub fn clear_thread_umask() -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
    rustix::process::umask(Mode::empty());
    Ok(())
}

/// Makes a folder whose parent is there, with exactly `mode`; false if the name is taken.
///
/// # Errors
/// It cannot be made.
pub fn make_folder_at(path: &Path, mode: u32) -> super::fs::Result<bool> {
    let mode = Mode::from_raw_mode(mode);
    let made = match rustix::fs::mkdir(path, mode) {
        Err(Errno::EXIST) => return Ok(false),
        made => made.and_then(|()| rustix::fs::chmod(path, mode)),
    };
    made.map(|()| true)
        .map_err(|e| super::fs::Error::new("create the folder", path, e))
}

/// Opens a file or folder of the caller's own to read.
///
/// # Errors
/// It cannot be opened.
pub fn open_file(path: &Path) -> super::fs::Result<File> {
    File::open(path).map_err(|e| super::fs::Error::new("open", path, e))
}

/// Opens what is no regular file to write: a FIFO, a device.
///
/// # Errors
/// It cannot be opened.
pub fn open_to_write(path: &Path) -> super::fs::Result<File> {
    let opened = File::options().write(true).open(path);
    opened.map_err(|e| super::fs::Error::new("open", path, e))
}

/// Makes a file of the caller's own, open to write and to read again.
///
/// # Errors
/// It is there, or cannot be made.
pub fn make_spool(path: &Path) -> super::fs::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = File::options();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    options
        .open(path)
        .map_err(|e| super::fs::Error::new("create", path, e))
}

/// Renames a folder that is not empty; false if such a folder has the new name already, and then nothing changes.
///
/// # Errors
/// It cannot be renamed.
pub fn rename_folder(from: &Path, to: &Path) -> super::fs::Result<bool> {
    match rustix::fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
        Err(e) => Err(super::fs::Error::new("write", to, e)),
    }
}

/// Removes a folder of the caller's own and all in it, however deep; fine if there is none.
///
/// `std`'s holds one descriptor per level: an archive can nest deeper than the limit of open files.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove_all(path: &Path) -> super::fs::Result<()> {
    let removed = (|| {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let name = path.file_name().map(OsStr::as_bytes).and_then(Name::parse);
        let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Folder::open(parent.unwrap_or(Path::new(".")))?.remove(name)
    })();
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|e| super::fs::Error::new("remove", path, e)),
    }
}

/// Levels that are held open at once; what is deeper is moved up first.
const HELD_LEVELS: u32 = 48;

fn remove_folder(parent: &OwnedFd, name: Name<'_>) -> io::Result<()> {
    let top = open_to_list(parent, name.0)?;
    let mut moved = 0;
    loop {
        let before = moved;
        empty_folder(&top, 0, &top, &mut moved)?;
        if moved == before {
            break;
        }
    }
    Ok(rustix::fs::unlinkat(parent, name.0, AtFlags::REMOVEDIR)?)
}

fn empty_folder(folder: &OwnedFd, level: u32, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
                // The file system does not say what an entry is, and it is a folder after all.
                Err(Errno::ISDIR) => {}
                other => {
                    other?;
                    continue;
                }
            }
        }
        if level < HELD_LEVELS {
            empty_folder(
                &open_to_list(folder, name.to_bytes())?,
                level + 1,
                top,
                moved,
            )?;
            rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?;
        } else {
            move_up(folder, name.to_bytes(), top, moved)?;
        }
    }
    Ok(())
}

fn move_up(folder: &OwnedFd, name: &[u8], top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(folder, name, top, format!("moved-{moved}"), flags) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
    }
}

fn open_to_list(folder: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
