//! `hostPath.type`, with the kubelet's checks and words (`volume/hostpath/host_path.go`).

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::Error;
use crate::model::plan::HostPathType;
use crate::sys::fs;

/// Checks a host path, and makes it where its type says so.
pub(super) fn check(path: &Path, kind: HostPathType) -> Result<(), Error> {
    let found = fs::metadata_if_there(path)?;
    let fails = |expected| {
        Err(Error::HostPathType {
            path: path.to_owned(),
            expected,
        })
    };
    match (kind, found.map(|metadata| metadata.file_type())) {
        (HostPathType::Unset, Some(_)) => Ok(()),
        (HostPathType::Unset | HostPathType::DirectoryOrCreate, None) => {
            Ok(fs::create_dir_all(path, 0o755)?)
        }
        (HostPathType::FileOrCreate, None) => Ok(fs::replace(path, 0o644, b"")?),
        (HostPathType::DirectoryOrCreate | HostPathType::Directory, found) => match found {
            Some(found) if found.is_dir() => Ok(()),
            _ => fails("is not a directory"),
        },
        (HostPathType::FileOrCreate | HostPathType::File, found) => match found {
            Some(found) if found.is_file() => Ok(()),
            _ => fails("is not a file"),
        },
        (HostPathType::Socket, found) => match found {
            Some(found) if found.is_socket() => Ok(()),
            _ => fails("is not a socket file"),
        },
        (HostPathType::CharDevice, found) => match found {
            Some(found) if found.is_char_device() => Ok(()),
            _ => fails("is not a character device"),
        },
        (HostPathType::BlockDevice, found) => match found {
            Some(found) if found.is_block_device() => Ok(()),
            _ => fails("is not a block device"),
        },
    }
}
