//! Undoing the mounts in a folder, before it is removed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::fs::{self, Error, Result};

/// Detaches every mount beneath `folder` (and at it), newest first, as far as this process's mount namespace has any.
///
/// # Errors
/// The mounts cannot be read, or one cannot be undone.
pub fn beneath(folder: &Path) -> Result<()> {
    // The kernel names mounts by their resolved path.
    let folder = match folder.canonicalize() {
        Ok(folder) => folder,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::new("resolve", folder, e)),
    };
    let table = fs::read(Path::new("/proc/self/mountinfo"))?;
    let mounts = mount_points(&table);
    for mount in mounts.iter().rev().filter(|path| path.starts_with(&folder)) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(mount, flags) {
            // It went with the one above it.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(Error::new("unmount", mount, e)),
        }
    }
    Ok(())
}

fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .collect()
}

/// The kernel writes blanks and backslashes as `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\');
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (value, after.get(3..)) {
            (Some(value), Some(after)) => {
                path.push(value);
                rest = after;
            }
            _ => {
                path.push(byte);
                rest = after;
            }
        }
    }
    debug_assert!(!path.contains(&0), "no path has a zero byte");
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let table = b"36 35 98:0 / /a\\040b\\134c rw - ext4 x rw\n37 35 0:1 / /d rw - tmpfs x rw\n";
        let expected = [Path::new("/a b\\c"), Path::new("/d")];
        assert_eq!(mount_points(table), expected);
        assert_eq!(unescape(b"/x\\0").as_os_str().as_bytes(), b"/x\\0");
    }
}
