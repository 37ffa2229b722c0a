//! Who lives in what a pod has mounted: what a cgroup knows of a container's processes, where there are no cgroups.

use std::io;
use std::path::{Path, PathBuf};

use super::pidfd::PidFd;
use super::signal::Signal;

/// Sends SIGKILL to all processes that see something beneath a folder mounted, also to those that are being born, until there
/// is none. Those that see the same mounts as this process are not meant. Whoever may not be looked at is somebody else's.
///
/// # Errors
/// The processes cannot be listed, or one may not be killed.
pub fn kill_all(folder: &Path) -> io::Result<()> {
    // A look finds those that were born during the one before; nobody is that often faster.
    const LOOKS: usize = 1000;
    let folder = folder.to_string_lossy();
    for _ in 0..LOOKS {
        if kill_once(&folder)? == 0 {
            return Ok(());
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

fn kill_once(folder: &str) -> io::Result<usize> {
    let own = own_mounts()?;
    let mut found = 0;
    for pid in inhabitants(&own, folder)? {
        let Ok(process) = PidFd::open(pid) else {
            continue;
        };
        // The number may have become another's before it was held.
        if lives_there(pid, &own, folder) {
            process.signal(Signal::KILL)?;
            found += 1;
        }
    }
    Ok(found)
}

/// The processes that [`kill_all`] would end, which may have ended.
///
/// # Errors
/// The processes cannot be listed.
pub fn find(folder: &Path) -> io::Result<Vec<i32>> {
    inhabitants(&own_mounts()?, &folder.to_string_lossy())
}

/// All processes there are, as far as they can be seen; they may have ended.
///
/// # Errors
/// They cannot be listed.
pub fn all() -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(found)
}

fn own_mounts() -> io::Result<PathBuf> {
    std::fs::read_link("/proc/self/ns/mnt")
}

fn inhabitants(own: &Path, folder: &str) -> io::Result<Vec<i32>> {
    let mut found = all()?;
    found.retain(|pid| lives_there(*pid, own, folder));
    Ok(found)
}

fn lives_there(pid: i32, own: &Path, folder: &str) -> bool {
    // What has ended is in no namespace.
    let mounts = std::fs::read_link(format!("/proc/{pid}/ns/mnt"));
    mounts.is_ok_and(|mounts| mounts != own)
        && std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))
            .is_ok_and(|table| sees(&table, folder))
}

/// Whether a mountinfo table has a mount of something beneath a folder. The table says where that is in its file system,
/// which may be mounted on a folder that is above this one.
fn sees(table: &str, folder: &str) -> bool {
    let roots = table.lines().filter_map(|line| line.split(' ').nth(3));
    roots.into_iter().any(|root| {
        let ends = root.match_indices('/').map(|(end, _)| end);
        ends.filter_map(|end| root.get(..end))
            // The folder's own name is not enough: others may have it.
            .filter(|above| above.matches('/').count() > 1)
            .any(|above| folder.ends_with(above))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_mount_is_known_by_where_its_content_is() {
        let check = |root: &str, expected: bool| {
            let table = format!("1 0 8:1 / / rw - ext4 x rw\n2 1 8:1 {root} /p rw - ext4 x rw\n");
            let folder = "/home/me/kplay/pods/default_web";
            assert_eq!(super::sees(&table, folder), expected, "{root}");
        };
        check("/home/me/kplay/pods/default_web/etc/hosts//deleted", true);
        // /home is a file system.
        check("/me/kplay/pods/default_web/containers/c-0/log", true);
        check("/home/you/kplay/pods/default_web/etc/hosts", false);
        check("/home/me/kplay/pods/default_web-2/etc/hosts", false);
        check("/home/me/kplay/pods", false);
        check("/default_web/x", false);
        check("/", false);
    }
}
