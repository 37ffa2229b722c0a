//! What a path is: mode, owner, type, size, file system.

use std::fs::FileType;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::statfs::statfs;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::arguments::Arguments;
use super::{Error, out};

/// Whether a link is looked through.
#[derive(Clone, Copy)]
enum Links {
    Follow,
    Show,
}

pub(super) fn stat(mut arguments: Arguments) -> Result<u8, Error> {
    let mut links = Links::Follow;
    while let Some(option) = arguments.option() {
        match &*option {
            "--no-follow" => links = Links::Show,
            other => return Err(arguments.unknown(other)),
        }
    }
    let mut paths = vec![arguments.next_path("PATH")?];
    paths.extend(arguments.rest().into_iter().map(PathBuf::from));
    for path in paths {
        let line = line(&path, links)?;
        out(|out| writeln!(out, "{line}"))?;
    }
    Ok(0)
}

/// `PATH: mode=0644 owner=0:0 type=file size=12 fs=tmpfs rw`
fn line(path: &Path, links: Links) -> Result<String, Error> {
    let metadata = match links {
        Links::Follow => std::fs::metadata(path),
        Links::Show => std::fs::symlink_metadata(path),
    };
    let metadata = metadata.map_err(Error::file("look at", path))?;
    let mut line = format!(
        "{}: mode={:04o} owner={}:{} type={} size={}",
        path.display(),
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid(),
        type_name(metadata.file_type()),
        metadata.size(),
    );
    if metadata.is_symlink() {
        let target = std::fs::read_link(path).map_err(Error::file("read the link", path))?;
        line.push_str(&format!(" target={}", target.display()));
        return Ok(line);
    }
    let system =
        statfs(path).map_err(|e| Error::file("look at the file system of", path)(e.into()))?;
    let flags =
        statvfs(path).map_err(|e| Error::file("look at the file system of", path)(e.into()))?;
    let access = if flags.flags().contains(FsFlags::ST_RDONLY) {
        "ro"
    } else {
        "rw"
    };
    line.push_str(&format!(
        " fs={} {access}",
        file_system_name(system.filesystem_type().0)
    ));
    Ok(line)
}

fn type_name(file_type: FileType) -> &'static str {
    match file_type {
        t if t.is_file() => "file",
        t if t.is_dir() => "folder",
        t if t.is_symlink() => "symlink",
        t if t.is_fifo() => "fifo",
        t if t.is_socket() => "socket",
        t if t.is_char_device() => "char-device",
        t if t.is_block_device() => "block-device",
        _ => "unknown",
    }
}

/// The name of a file system by its magic number (`linux/magic.h`).
fn file_system_name(magic: i64) -> String {
    let name = match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        0x2fc1_2fc1 => "zfs",
        0x7371_7368 => "squashfs",
        0xe0f5_e1e2 => "erofs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlay",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        0x6969 => "nfs",
        0xff53_4d42 => "cifs",
        0x9fa0 => "proc",
        0x6265_6572 => "sysfs",
        0x0027_e0eb => "cgroup",
        0x6367_7270 => "cgroup2",
        0x1cd1 => "devpts",
        0x1980_0202 => "mqueue",
        0x9584_58f6 => "hugetlbfs",
        0x6e73_6673 => "nsfs",
        0x00c0_ffee => "hostfs",
        other => return format!("{other:#x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let proc = line(Path::new("/proc/self/status"), Links::Follow).unwrap();
        assert!(
            proc.starts_with("/proc/self/status: mode=0444 owner="),
            "{proc}"
        );
        assert!(proc.ends_with(" type=file size=0 fs=proc rw"), "{proc}");
        let link = line(Path::new("/proc/self/fd/0"), Links::Show).unwrap();
        assert!(
            link.contains(" type=symlink ") && link.contains(" target="),
            "{link}"
        );
        let null = line(Path::new("/dev/null"), Links::Follow).unwrap();
        assert!(
            null.contains(" mode=0666 owner=0:0 type=char-device "),
            "{null}"
        );
        assert!(line(Path::new("/nonexistent"), Links::Follow).is_err());
        assert_eq!(file_system_name(0x1234), "0x1234");
    }
}
