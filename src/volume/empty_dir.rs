//! Empty folders, on disk or in memory. Volumes of files start as one.

use std::path::{Path, PathBuf};

use super::{Context, Error};
use crate::model::names::VolumeName;
use crate::model::plan::Medium;
use crate::sys;

/// Everybody may use it: a container's user is not known to the volume.
const MODE: u32 = 0o777;

/// Makes the folder in the volume's place. On disk, what is in it stays; in memory it is the root of a new tmpfs, with
/// mode 1777 as any tmpfs.
pub(super) fn make(
    name: &VolumeName,
    medium: Medium,
    size_limit: Option<u64>,
    context: &Context<'_>,
) -> Result<PathBuf, Error> {
    let root = place(name, medium, context);
    sys::dir::create_all(parent(medium, context), 0o700)?;
    sys::dir::create_all(&root, MODE)?;
    match medium {
        Medium::Disk => {}
        Medium::Memory => {
            sys::mount::unswapped_tmpfs(&root, size(size_limit, context.memory_size))?;
        }
        // Its size is what the containers may use of them.
        Medium::HugePages(page) => sys::mount::huge_pages(&root, page)?,
    }
    Ok(root)
}

/// Where a volume is.
pub(super) fn place(name: &VolumeName, medium: Medium, context: &Context<'_>) -> PathBuf {
    parent(medium, context).join(name.as_str())
}

fn parent<'a>(medium: Medium, context: &Context<'a>) -> &'a Path {
    match medium {
        Medium::Disk => context.disk,
        Medium::Memory | Medium::HugePages(_) => context.memory,
    }
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
