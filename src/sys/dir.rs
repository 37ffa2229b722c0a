//! Folders of volumes. A [`Dir`] is held open, and what is in it goes by name: no link is followed, modes do not depend
//! on the umask. Paths that a container may change are resolved by the kernel ([`open_within`]).
//!
//! Image layers, whose names are bytes and whose links lead within the layer, are [`beneath`](super::beneath)'s.

mod within;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags};
use rustix::io::Errno;

use super::fs::{Error, Result};
pub use within::{open_or_create_within, open_within};

/// What a name in a folder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File,
    Link,
    Socket,
    CharacterDevice,
    BlockDevice,
    Fifo,
}

/// What is at `path`, links followed; nothing if there is nothing, or a part of the path is no folder.
///
/// # Errors
/// It cannot be looked at.
pub fn kind(path: &Path) -> Result<Option<Kind>> {
    match rustix::fs::stat(path) {
        Ok(stat) => Ok(Some(Kind::of(stat.st_mode))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(Error::new("look at", path, e)),
    }
}

/// Makes a folder and its parents; those that it makes have exactly `mode`. An existing folder is fine.
///
/// # Errors
/// It cannot be made, or something else has its name.
pub fn create_all(path: &Path, mode: u32) -> Result<()> {
    // What exists is the caller's to trust, links included; only below it nothing is followed.
    let mut existing = path;
    while kind(existing)?.is_none() {
        match existing.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => existing = parent,
            _ => break,
        }
    }
    let missing = path.strip_prefix(existing).unwrap_or(path);
    Dir::open(existing)?.create_all(missing, mode).map(drop)
}

/// Makes an empty file with exactly `mode`. An existing one is fine.
///
/// # Errors
/// It cannot be made; its folder must be there.
pub fn create_file(path: &Path, mode: u32) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode);
    let made = rustix::fs::open(path, flags, mode).and_then(|file| rustix::fs::fchmod(file, mode));
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(Error::new("create", path, e)),
    }
}

impl Kind {
    fn of(mode: u32) -> Self {
        match FileType::from_raw_mode(mode) {
            FileType::Directory => Self::Folder,
            FileType::Symlink => Self::Link,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharacterDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            FileType::RegularFile | FileType::Unknown => Self::File,
        }
    }
}

/// A folder held open. Names are single path components.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// Only for errors.
    path: PathBuf,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a folder, links followed.
    ///
    /// # Errors
    /// It cannot be opened or is no folder.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = rustix::fs::open(path, OPEN, Mode::empty())
            .map_err(|e| Error::new("open the folder", path, e))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Opens a folder in this one.
    ///
    /// # Errors
    /// It cannot be opened, or is no folder.
    pub fn folder(&self, name: &OsStr) -> Result<Self> {
        let path = self.path.join(name);
        match rustix::fs::openat(&self.fd, name, OPEN | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(e) => Err(Error::new("open the folder", path, e)),
        }
    }

    /// Makes a folder with exactly `mode` (permissions, setgid and sticky bit) and opens it.
    ///
    /// # Errors
    /// It cannot be made, or the name is taken.
    pub fn create_folder(&self, name: &OsStr, mode: u32) -> Result<Self> {
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::mkdirat(&self.fd, name, mode)
            .map_err(|e| self.error("create the folder", name, e))?;
        let made = self.folder(name)?;
        made.set_own_mode(mode.as_raw_mode())?;
        Ok(made)
    }

    /// Makes a folder below this one and its parents, those that are missing with exactly `mode`, and opens it.
    ///
    /// # Errors
    /// It cannot be made, or a link or file is in the way. `path` must be relative and without `..`.
    pub fn create_all(&self, path: &Path, mode: u32) -> Result<Self> {
        let mut folder = self.folder(OsStr::new("."))?;
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::CurDir => continue,
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(Error::new("create the folder", path, Errno::INVAL));
                }
            };
            folder = match folder.create_folder(name, mode) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => folder.folder(name)?,
                made => made?,
            };
        }
        Ok(folder)
    }

    /// Makes a file with exactly `mode`.
    ///
    /// # Errors
    /// It cannot be written, or the name is taken.
    pub fn create_file(&self, name: &OsStr, mode: u32, content: &[u8]) -> Result<()> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Closed to others until it has its content and mode.
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| self.error("create", name, e))?;
        let mut file = File::from(fd);
        let written = file.write_all(content);
        written.map_err(|e| Error::new("write", self.path.join(name), e))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
            .map_err(|e| self.error("set the mode of", name, e))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is a link.
    pub fn read(&self, name: &OsStr) -> Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())
            .map_err(|e| self.error("read", name, e))?;
        let mut bytes = Vec::new();
        let read = File::from(fd).read_to_end(&mut bytes);
        read.map_err(|e| Error::new("read", self.path.join(name), e))?;
        Ok(bytes)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// It cannot be made, or the name is taken.
    pub fn create_link(&self, name: &OsStr, target: &Path) -> Result<()> {
        rustix::fs::symlinkat(target, &self.fd, name)
            .map_err(|e| self.error("create the link", name, e))
    }

    /// Where a link leads; nothing if there is none, or something else.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn link(&self, name: &OsStr) -> Result<Option<PathBuf>> {
        match rustix::fs::readlinkat(&self.fd, name, Vec::new()) {
            Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()).into())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(e) => Err(self.error("read the link", name, e)),
        }
    }

    /// What a name stands for; nothing if there is nothing.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn kind(&self, name: &OsStr) -> Result<Option<Kind>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Kind::of(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.error("look at", name, e)),
        }
    }

    /// What is in the folder, sorted by name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn entries(&self) -> Result<Vec<(OsString, Kind)>> {
        let failed = |e| Error::new("list", &self.path, e);
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_owned().into_bytes();
            let name = OsString::from_vec(name);
            if name == "." || name == ".." {
                continue;
            }
            // What somebody else has removed since is not there.
            if let Some(kind) = self.kind(&name)? {
                entries.push((name, kind));
            }
        }
        entries.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
        Ok(entries)
    }

    /// Renames in this folder; what has the new name is replaced.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to).map_err(|e| self.error("replace", to, e))
    }

    /// Removes a file or link, or a folder with all in it; fine if there is nothing.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self, name: &OsStr) -> Result<()> {
        let flags = match self.kind(name)? {
            None => return Ok(()),
            Some(Kind::Folder) => {
                let folder = self.folder(name)?;
                for (entry, _) in folder.entries()? {
                    folder.remove(&entry)?;
                }
                AtFlags::REMOVEDIR
            }
            Some(_) => AtFlags::empty(),
        };
        rustix::fs::unlinkat(&self.fd, name, flags).map_err(|e| self.error("remove", name, e))
    }

    /// The permissions of what has a name, with setuid, setgid and sticky bit.
    ///
    /// # Errors
    /// It is not there.
    pub fn mode(&self, name: &OsStr) -> Result<u32> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        Ok(stat.map_err(|e| self.error("look at", name, e))?.st_mode & 0o7777)
    }

    /// Sets the permissions of what is no link.
    ///
    /// # Errors
    /// It is not there, or the caller may not.
    pub fn set_mode(&self, name: &OsStr, mode: u32) -> Result<()> {
        rustix::fs::chmodat(&self.fd, name, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|e| self.error("set the mode of", name, e))
    }

    /// Sets the group of a file, folder or link; clears setuid and setgid of files.
    ///
    /// # Errors
    /// It is not there, or the caller may not.
    pub fn set_group(&self, name: &OsStr, group: u32) -> Result<()> {
        rustix::fs::chownat(
            &self.fd,
            name,
            None,
            Some(Gid::from_raw(group)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|e| self.error("set the group of", name, e))
    }

    /// The permissions of the folder itself.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn own_mode(&self) -> Result<u32> {
        let stat = rustix::fs::fstat(&self.fd);
        Ok(stat
            .map_err(|e| Error::new("look at", &self.path, e))?
            .st_mode
            & 0o7777)
    }

    /// The group of the folder itself.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn own_group(&self) -> Result<u32> {
        let stat = rustix::fs::fstat(&self.fd);
        Ok(stat
            .map_err(|e| Error::new("look at", &self.path, e))?
            .st_gid)
    }

    /// Sets the permissions of the folder itself.
    ///
    /// # Errors
    /// The caller may not.
    pub fn set_own_mode(&self, mode: u32) -> Result<()> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))
            .map_err(|e| Error::new("set the mode of", &self.path, e))
    }

    /// Sets the group of the folder itself.
    ///
    /// # Errors
    /// The caller may not.
    pub fn set_own_group(&self, group: u32) -> Result<()> {
        rustix::fs::fchown(&self.fd, None, Some(Gid::from_raw(group)))
            .map_err(|e| Error::new("set the group of", &self.path, e))
    }

    fn error(&self, verb: &'static str, name: &OsStr, source: Errno) -> Error {
        Error::new(verb, self.path.join(name), source)
    }
}
