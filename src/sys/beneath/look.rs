//! What is beneath a folder, looked at before it is opened: to open a device has effects.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::{Folder, Name, Root, open_to_list};

/// What a name stands for, held without having been opened: looking at a device has no effect.
#[derive(Debug)]
pub struct Found(OwnedFd);

impl Found {
    /// What it is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn metadata(&self) -> io::Result<std::fs::Metadata> {
        File::from(self.0.try_clone()?).metadata()
    }

    /// Opens it to read: nothing else can have taken its place since it was looked at.
    ///
    /// # Errors
    /// The caller may not.
    pub fn open(&self) -> io::Result<File> {
        Ok(crate::sys::fd::reopen(&self.0)?.into())
    }

    /// It as a folder.
    ///
    /// # Errors
    /// It is none.
    pub fn into_folder(self) -> io::Result<Folder> {
        if self.metadata()?.is_dir() {
            Ok(Folder(self.0))
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// Whether it is on a file system in which the kernel shows what it knows: `/proc`, `/sys`, cgroups.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_of_kernel(&self) -> io::Result<bool> {
        const MAGICS: [libc::c_long; 4] = [
            libc::PROC_SUPER_MAGIC,
            libc::SYSFS_MAGIC,
            libc::CGROUP_SUPER_MAGIC,
            libc::CGROUP2_SUPER_MAGIC,
        ];
        Ok(MAGICS.contains(&rustix::fs::fstatfs(&self.0)?.f_type))
    }
}

impl Root {
    /// Looks at what is at `path`; links, `..` and a leading `/` are resolved within the root.
    ///
    /// # Errors
    /// It is not there, or the caller may not.
    pub fn look(&self, path: &[u8]) -> io::Result<Found> {
        Ok(Found(self.resolve(path, OFlags::PATH | OFlags::CLOEXEC)?))
    }
}

impl Folder {
    /// Opens the folder at `path` in this one; no link is followed on the way, and no `..`. Empty is this one.
    ///
    /// # Errors
    /// It is not there or is no folder, which a link on the way is not either (`NotADirectory`).
    pub fn folder(&self, path: &[u8]) -> io::Result<Self> {
        let path = if path.is_empty() {
            b".".as_slice()
        } else {
            path
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::LOOP) => return Err(io::ErrorKind::NotADirectory.into()),
                other => return Ok(Self(other?)),
            }
        }
    }

    /// Looks at what is at `name`, without following it.
    ///
    /// # Errors
    /// It is not there, or the caller may not.
    pub fn look(&self, name: Name<'_>) -> io::Result<Found> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Found(rustix::fs::openat(
            &self.0,
            name.0,
            flags,
            Mode::empty(),
        )?))
    }

    /// The names in this folder, in no order.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(open_to_list(&self.0, b".")?)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if Name::parse(&name).is_some() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Whether something is mounted at `name`. Renaming over it does not fail where that is in another mount namespace than
    /// the caller's: the kernel takes the mount away.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn is_mount(&self, name: Name<'_>) -> io::Result<bool> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let found = rustix::fs::statx(&self.0, name.0, flags, StatxFlags::empty())?;
        Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }
}

/// Where a file has content, as ranges of its first `size` bytes: the rest is holes, and reads as zeros.
///
/// # Errors
/// What the kernel says; file systems without holes have one range.
pub fn content(file: &File, size: u64) -> io::Result<Vec<std::ops::Range<u64>>> {
    use rustix::fs::SeekFrom;
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            // Nothing but a hole follows.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            other => other?,
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Err(Errno::INVAL | Errno::NXIO) => size,
            other => other?,
        };
        let end = end.min(size);
        if start >= end {
            break;
        }
        ranges.push(start..end);
        at = end;
    }
    Ok(ranges)
}
