//! Files that have no name until they are whole, so that nothing is left of those whose process dies.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::fs::{Error, Result};

/// Makes a file in a folder, open to write, for who owns it alone; nothing if the file system has no such files.
///
/// # Errors
/// It cannot be made.
pub fn make(folder: &Path) -> Result<Option<File>> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(Some(file.into())),
        // The latter is a folder that is opened to write, for who has not heard of the flag.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => Ok(None),
        Err(e) => Err(Error::new("create a file in", folder, e)),
    }
}

/// Gives the file its name; false if that is taken.
///
/// # Errors
/// It is on another file system, or the caller may not.
pub fn give_name(file: &File, path: &Path) -> Result<bool> {
    // Without this way around it takes a capability.
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(Error::new("create", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::sys::fs;

    #[test]
    fn a_file_has_a_name_when_it_gets_one() {
        let folder = std::env::temp_dir().join(format!("kplay-nameless-{}", std::process::id()));
        fs::create_dir_all(&folder, 0o700).expect("a folder");
        let names = || fs::list(&folder).expect("a folder");
        // Every file system that tests run on has them.
        let mut file = make(&folder).expect("makeable").expect("supported");
        file.write_all(b"whole").expect("written");
        assert!(names().is_empty());
        let path = folder.join("name");
        assert!(give_name(&file, &path).expect("named"));
        assert_eq!(fs::read(&path).expect("a file"), b"whole");
        let other = make(&folder).expect("makeable").expect("supported");
        assert!(!give_name(&other, &path).expect("taken"));
        drop(other);
        assert_eq!(names(), ["name"]);
        assert!(make(&path).is_err() && make(&folder.join("none")).is_err());
        fs::remove_dir_all(&folder).expect("removed");
    }
}
