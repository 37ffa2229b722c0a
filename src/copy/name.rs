//! What is copied is called at the other end: the rules of `docker cp`, which `podman cp` has too.
//!
//! | SRC | DST is a folder | DST is a file | DST is not there |
//! | --- | --- | --- | --- |
//! | a file | `DST/NAME` | in its place | DST, in a folder that is there |
//! | a folder | `DST/NAME` | an error | DST |
//! | `FOLDER/.` | what is in it, into DST | an error | DST |

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What an archive has at its top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Top {
    /// One file or folder of this name.
    Named(Vec<u8>),
    /// A folder without a name: what is in it is meant.
    Contents,
    /// Whatever somebody else has put there.
    Foreign,
}

impl Top {
    /// What is made of this source.
    #[must_use]
    pub fn of(source: &Path) -> Self {
        let bytes = source.as_os_str().as_bytes();
        let trimmed = bytes.strip_suffix(b"/.").unwrap_or(bytes);
        let has_dot = trimmed.len() < bytes.len() || matches!(bytes, b"." | b"");
        // `file_name` is nothing for `/` and `..`.
        match source.file_name().filter(|_| !has_dot) {
            Some(name) => Self::Named(name.as_bytes().to_vec()),
            None => Self::Contents,
        }
    }

    /// The first component of every path.
    pub(super) fn prefix(&self) -> &[u8] {
        match self {
            Self::Named(name) => name,
            Self::Contents | Self::Foreign => b".",
        }
    }
}

/// Whether a path can only be a folder's.
pub(super) fn is_folders(path: &[u8]) -> bool {
    path.ends_with(b"/") || path.ends_with(b"/.") || path.ends_with(b"/..") || path == b"."
}

/// A path as it is told: bytes that are no text are replaced.
pub(super) fn shown(label: &str, path: &[u8]) -> String {
    format!("{label}{}", String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_name_or_is_its_contents() {
        let check = |source: &str, expected: Option<&str>| {
            let top = Top::of(Path::new(source));
            let expected = expected.map_or(Top::Contents, |name| Top::Named(name.into()));
            assert_eq!(top, expected, "{source}");
        };
        check("/etc/passwd", Some("passwd"));
        check("data", Some("data"));
        check("/data/", Some("data"));
        check("/data/.", None);
        check("/data/..", None);
        check("/", None);
        check(".", None);
        check("..", None);
        check("./x", Some("x"));
        check("/data/.hidden", Some(".hidden"));
    }
}
