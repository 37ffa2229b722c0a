//! Device files.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::fs::{Error, Result};

/// Folders of `/dev` that are not the machine's hardware: terminals and memory of other containers, links to open files.
const LEFT_OUT: [&[u8]; 4] = [b"pts", b"shm", b"fd", b"mqueue"];

/// A device file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub path: PathBuf,
    pub kind: Kind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What a device file stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Block,
    Character,
}

/// All device files in `/dev`, or a folder like it, and below; links are not followed. What vanishes meanwhile is left
/// out.
///
/// # Errors
/// A folder cannot be read.
pub fn beneath(folder: &Path) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    for name in super::fs::list(folder)? {
        let path = folder.join(&name);
        let found = match path.symlink_metadata() {
            Ok(found) => found,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::new("look at", path, e)),
        };
        let kind = found.file_type();
        if kind.is_dir() && !LEFT_OUT.contains(&name.as_bytes()) {
            devices.extend(beneath(&path)?);
        }
        let kind = match (kind.is_block_device(), kind.is_char_device()) {
            (true, _) => Kind::Block,
            (_, true) => Kind::Character,
            (false, false) => continue,
        };
        devices.push(Device {
            kind,
            major: rustix::fs::major(found.rdev()),
            minor: rustix::fs::minor(found.rdev()),
            mode: found.mode() & 0o777,
            uid: found.uid(),
            gid: found.gid(),
            path,
        });
    }
    Ok(devices)
}

/// The major and minor number of a block device, whatever links lead to it; `None` if the path is something else.
///
/// # Errors
/// There is nothing, or it cannot be looked at.
pub fn block(path: &Path) -> Result<Option<(u32, u32)>> {
    let found = path.metadata();
    let found = found.map_err(|error| Error::new("look at", path.to_owned(), error))?;
    let numbers = || {
        (
            rustix::fs::major(found.rdev()),
            rustix::fs::minor(found.rdev()),
        )
    };
    Ok(found.file_type().is_block_device().then(numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found() {
        let devices = beneath(Path::new("/dev")).unwrap();
        let null = devices
            .iter()
            .find(|device| device.path == Path::new("/dev/null"))
            .unwrap();
        assert_eq!((null.kind, null.major, null.minor), (Kind::Character, 1, 3));
        assert!(devices.iter().all(|d| !d.path.starts_with("/dev/pts")));
        assert_eq!(block(Path::new("/dev/null")).unwrap(), None);
        let disk = devices.iter().find(|device| device.kind == Kind::Block);
        if let Some(disk) = disk {
            let numbers = Some((disk.major, disk.minor));
            assert_eq!(block(&disk.path).unwrap(), numbers);
        }
    }
}
