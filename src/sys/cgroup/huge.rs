//! Huge pages: the sizes that the machine has, and how a cgroup limits each. A machine without any pays nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{Cgroup, Controller, Result};

/// The sizes of which the machine has pages or may make some when asked, in bytes.
pub(super) fn sizes() -> Vec<u64> {
    // A kernel without huge pages has no such folder.
    sizes_in(Path::new("/sys/kernel/mm/hugepages")).unwrap_or_default()
}

fn sizes_in(folder: &Path) -> io::Result<Vec<u64>> {
    let (mut sizes, mut is_any_there) = (Vec::new(), false);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let kib = name.to_str().and_then(|name| {
            let digits = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            digits.parse::<u64>().ok()
        });
        sizes.extend(kib.map(|kib| kib << 10));
        is_any_there |= ["nr_hugepages", "nr_overcommit_hugepages"]
            .iter()
            .any(|file| {
                let number = std::fs::read_to_string(entry.path().join(file));
                number.is_ok_and(|number| number.trim() != "0")
            });
    }
    Ok(if is_any_there { sizes } else { Vec::new() })
}

/// Writes a limit for every size: of one that is not in `amounts`, no byte.
pub(super) fn apply(cgroup: &Cgroup, amounts: &BTreeMap<u64, u64>) -> Result<()> {
    let Some(hierarchy) = cgroup.with(Controller::HugePages) else {
        return Ok(());
    };
    for size in hierarchy.page_sizes() {
        let amount = amounts.get(size).copied().unwrap_or_default().to_string();
        for file in files(*size, hierarchy.is_v2()) {
            match hierarchy.write(cgroup.path(), &file, &amount) {
                // The cgroup is not given the controller, or the kernel does not count reservations.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::debug!(cgroup = cgroup.path(), file, "no limit of huge pages");
                }
                other => other.map_err(|source| cgroup.error("set a limit of", source))?,
            }
        }
    }
    Ok(())
}

/// The files with the limit of pages in use, and of pages that are set aside for use.
fn files(size: u64, is_v2: bool) -> [String; 2] {
    let size = match size {
        size if size >= 1 << 30 => format!("{}GB", size >> 30),
        size if size >= 1 << 20 => format!("{}MB", size >> 20),
        size => format!("{}KB", size >> 10),
    };
    let limit = if is_v2 { "max" } else { "limit_in_bytes" };
    ["", "rsvd."].map(|kind| format!("hugetlb.{size}.{kind}{limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(
            files(2 << 20, true),
            ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"]
        );
        let [limit, _] = files(1 << 30, false);
        assert_eq!(limit, "hugetlb.1GB.limit_in_bytes");
        let [limit, _] = files(64 << 10, false);
        assert_eq!(limit, "hugetlb.64KB.limit_in_bytes");
    }

    #[test]
    fn sizes_count_where_there_are_pages() {
        let name = crate::sys::identity::random_hex().unwrap();
        let folder = std::env::temp_dir().join(format!("kplay-huge-{name}"));
        let check = |numbers: [&str; 2], expected: &[u64]| {
            for (size, number) in ["2048", "1048576"].iter().zip(numbers) {
                let pool = folder.join(format!("hugepages-{size}kB"));
                std::fs::create_dir_all(&pool).unwrap();
                std::fs::write(pool.join("nr_hugepages"), "0\n").unwrap();
                let overcommit = pool.join("nr_overcommit_hugepages");
                std::fs::write(overcommit, format!("{number}\n")).unwrap();
            }
            let mut found = sizes_in(&folder).unwrap();
            found.sort_unstable();
            assert_eq!(found, expected);
        };
        check(["0", "0"], &[]);
        check(["0", "3"], &[2 << 20, 1 << 30]);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(sizes_in(&folder).is_err());
    }
}
