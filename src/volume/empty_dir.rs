//! Empty folders, on disk or in memory. Volumes of files start as one.

use std::path::PathBuf;

use super::{Context, Error, root};
use crate::model::names::VolumeName;
use crate::model::plan::Medium;
use crate::sys;

/// Everybody may use it: a container's user is not known to the volume.
const MODE: u32 = 0o777;

/// Makes an empty folder in the volume's place. In memory it is the root of a tmpfs, with mode 1777 as any tmpfs.
pub(super) fn make(
    name: &VolumeName,
    medium: Medium,
    size_limit: Option<u64>,
    context: &Context<'_>,
) -> Result<PathBuf, Error> {
    let root = root(name, medium, context);
    if let Some(parent) = root.parent() {
        sys::dir::create_all(parent, 0o700)?;
    }
    sys::fs::remove_dir_all(&root)?;
    sys::dir::create_all(&root, MODE)?;
    match medium {
        Medium::Disk => {}
        Medium::Memory => sys::tmpfs::mount(&root, size(size_limit, context.memory_size))?,
    }
    Ok(root)
}

/// A limit of 0 is none, as in a kubelet.
fn size(limit: Option<u64>, largest: u64) -> u64 {
    limit
        .filter(|limit| *limit > 0)
        .map_or(largest, |limit| limit.min(largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_size_counts() {
        let check = |limit, expected| assert_eq!(size(limit, 100), expected, "{limit:?}");
        check(None, 100);
        check(Some(0), 100);
        check(Some(1), 1);
        check(Some(100), 100);
        check(Some(101), 100);
    }
}
