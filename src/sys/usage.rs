//! How much of a disk folders take, counted a little at a time. Whoever changes them meanwhile cannot lead the count out
//! of them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::fs::{Error, Result};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A count under way. What comes and goes meanwhile may be in it or not.
#[derive(Debug, Default)]
pub struct Usage {
    bytes: u64,
    /// Folders that have not been looked into, in a root.
    rest: Vec<(Rc<Root>, PathBuf)>,
    /// Files with several names that have been counted.
    seen: HashSet<(u64, u64)>,
}

#[derive(Debug)]
struct Root {
    folder: OwnedFd,
    device: u64,
}

impl Usage {
    /// Adds a folder and all that is in it on the same file system. One that is not there takes nothing.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn add(&mut self, folder: &Path) -> Result<()> {
        let opened = rustix::fs::openat(CWD, folder, FOLDER, Mode::empty());
        let looked = opened.and_then(|fd| rustix::fs::fstat(&fd).map(|stat| (fd, stat)));
        let (fd, stat) = match looked {
            Err(Errno::NOENT) => return Ok(()),
            looked => looked.map_err(|e| Error::new("look at", folder, e))?,
        };
        self.bytes += bytes(&stat);
        let root = Root {
            folder: fd,
            device: stat.st_dev,
        };
        self.rest.push((Rc::new(root), PathBuf::from(".")));
        Ok(())
    }

    /// Looks into one more folder, and returns how many entries it has; `None` if all are counted.
    pub fn step(&mut self) -> Option<usize> {
        let (root, path) = self.rest.pop()?;
        // Gone meanwhile, changed into something else, or deeper than any path reaches: not counted.
        Some(self.look_into(&root, &path).unwrap_or(0))
    }

    /// Bytes on the disk, as far as they have been counted.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn look_into(&mut self, root: &Rc<Root>, path: &Path) -> rustix::io::Result<usize> {
        let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let folder = rustix::fs::openat2(&root.folder, path, FOLDER, Mode::empty(), flags)?;
        let mut count = 0;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            count += 1;
            let Ok(stat) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if stat.st_dev != root.device {
                continue;
            }
            if stat.st_nlink == 1 || self.seen.insert((stat.st_dev, stat.st_ino)) {
                self.bytes += bytes(&stat);
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.rest.push((Rc::clone(root), path.join(name)));
            }
        }
        Ok(count)
    }
}

/// As du(1) counts.
fn bytes(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests look at what is there without detours"
)]
mod tests {
    use super::*;

    fn usage(folder: &Path) -> u64 {
        let mut usage = Usage::default();
        usage.add(folder).unwrap();
        while usage.step().is_some() {}
        usage.bytes()
    }

    #[test]
    fn files_count_once_and_links_lead_nowhere() {
        let folder = std::env::temp_dir().join(format!("kplay-usage-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("a/b")).unwrap();
        let empty = usage(&folder);
        std::fs::write(folder.join("a/b/file"), vec![1; 1 << 20]).unwrap();
        let one = usage(&folder);
        assert!(
            (1 << 20..(1 << 20) + 65536).contains(&(one - empty)),
            "{one}"
        );
        std::fs::hard_link(folder.join("a/b/file"), folder.join("a/again")).unwrap();
        std::os::unix::fs::symlink("/usr", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("a", folder.join("inside")).unwrap();
        assert!(usage(&folder) - one < 65536);
        assert_eq!(usage(&folder.join("none")), 0);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
