//! Where the mounts of a container land.
//!
//! A mount follows the symbolic links on its way: those of the image, and those in a volume that another one is mounted
//! inside of. It never leaves the container's root, but it may land on `/proc`, where all must be the kernel's, or on
//! `/dev`. runc refuses the first while it mounts. libcontainer does not, and stumbles when it finds no `/proc` any more.
//! So the links of the image are followed before, and all is looked at again when it is mounted and the container's
//! program does not run yet.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::sys::dir::{self, Kind};
use crate::sys::fs;
use crate::sys::pidfd::PidFd;
use crate::sys::signal::Signal;

const PROC: &str = "/proc";

/// Why a container may not have its mounts.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    File(#[from] fs::Error),
    #[error("cannot open the container's process")]
    Open(#[source] std::io::Error),
    /// The first words are runc's.
    #[error(
        "something of the pod cannot be mounted because it is inside /proc: a symbolic link leads to {place:?}"
    )]
    InsideProc { place: PathBuf },
    #[error("something of the pod cannot be mounted on /dev, to which a symbolic link leads")]
    OverDev,
}

/// Checks the mounts that a container is to have, by the links of its image. A folder that is mounted where a link leads
/// to nothing gets its place made, as runc does and libcontainer does not.
pub(super) fn prepare(spec: &Spec, rootfs: &Path) -> Result<(), Error> {
    let mounts = spec.mounts().iter().flatten();
    let binds = mounts.filter(|mount| mount.typ().as_deref() == Some("bind"));
    for mount in binds {
        let place = follow(rootfs, mount.destination());
        // No volume's: the machine's own `/proc`, which who is not root has to take as it is.
        let is_machines = mount.destination() == Path::new(PROC) && place == Path::new(PROC);
        if place.starts_with(PROC) && !is_machines {
            return Err(Error::InsideProc { place });
        }
        if place == Path::new("/dev") {
            return Err(Error::OverDev);
        }
        let source = mount.source().as_deref().map(dir::kind).transpose()?;
        if place != *mount.destination() && source.flatten() == Some(Kind::Folder) {
            fs::create_dir_in_root(rootfs, &place, 0o755)
                .map_err(|error| fs::Error::new("make the folder", &place, error))?;
        }
    }
    Ok(())
}

/// Where a path leads to in a root, as far as that has links.
fn follow(root: &Path, path: &Path) -> PathBuf {
    const MOST_LINKS: usize = 40;
    let parts = |path: &Path| -> Vec<OsString> {
        let parts = path.components();
        parts.map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut left: VecDeque<OsString> = parts(path).into();
    let (mut place, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = left.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                place.pop();
            }
            Some(Component::Normal(name)) => {
                let inside = place.strip_prefix("/").unwrap_or(&place).join(name);
                // What is no link, or is not there, is itself.
                match fs::read_link(&root.join(inside)) {
                    Ok(target) if links < MOST_LINKS => {
                        links += 1;
                        for part in parts(&target).into_iter().rev() {
                            left.push_front(part);
                        }
                    }
                    Ok(_) | Err(_) => place.push(name),
                }
            }
            Some(Component::RootDir) => place = PathBuf::from("/"),
            Some(Component::CurDir | Component::Prefix(_)) | None => {}
        }
    }
    place
}

/// Checks the mounts of a container whose first process waits. That is killed if one is at a wrong place. `masked` are the
/// files that libcontainer hides: what is mounted on one is hidden, too.
pub(super) fn check(init: i32, masked: &[PathBuf]) -> Result<(), Error> {
    let process = PidFd::open(init).map_err(Error::Open)?;
    let table = fs::read(Path::new(&format!("/proc/{init}/mountinfo")));
    let checked = match table {
        Ok(table) => check_table(&String::from_utf8_lossy(&table), masked),
        Err(error) => Err(error.into()),
    };
    if checked.is_err() {
        // It would wait for ever, and others for it.
        process.signal(Signal::KILL).map_err(Error::Open)?;
    }
    checked
}

fn check_table(table: &str, masked: &[PathBuf]) -> Result<(), Error> {
    let mut on_dev = 0;
    for line in table.lines() {
        let place = line
            .split(' ')
            .nth(4)
            .map(Path::new)
            .unwrap_or(Path::new(""));
        let (_, source) = line.split_once(" - ").unwrap_or_default();
        let kind = source.split(' ').next().unwrap_or_default();
        let is_hidden = || masked.iter().any(|masked| place.starts_with(masked));
        // The one thing that is mounted in the machine's own.
        let is_kernels = kind == "proc" || place == Path::new("/proc/sys/fs/binfmt_misc");
        if place.starts_with(PROC) && !is_kernels && !is_hidden() {
            return Err(Error::InsideProc {
                place: place.to_owned(),
            });
        }
        on_dev += u8::from(place == Path::new("/dev"));
    }
    match on_dev {
        0 | 1 => Ok(()),
        _ => Err(Error::OverDev),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_kernels_own_is_in_proc() {
        let check = |lines: &[&str], expected: Option<&str>| {
            let lines = lines.iter().map(|line| {
                let (place, kind) = line.split_once(' ').unwrap();
                format!("21 1 0:1 / {place} rw,nosuid shared:1 - {kind} x rw\n")
            });
            let table: String = lines.collect();
            let found = check_table(&table, &["/proc/kcore".into(), "/proc/scsi".into()]);
            let found = found.err().map(|error| error.to_string());
            let hint = found.clone().unwrap_or_default();
            match expected {
                None => assert_eq!(found, None),
                Some(word) => assert!(hint.contains(word), "{hint}"),
            }
        };
        let usual = ["/ overlay", "/proc proc", "/dev tmpfs", "/dev/pts devpts"];
        let masks = ["/proc/sys proc", "/proc/kcore tmpfs", "/proc/scsi tmpfs"];
        let all = [usual.as_slice(), &masks].concat();
        check(&all, None);
        let with = |line| [usual.as_slice(), &masks, &[line]].concat();
        check(&with("/processes ext4"), None);
        check(&with("/dev/mine ext4"), None);
        check(&with("/proc ext4"), Some("\"/proc\""));
        check(&with("/proc/sys ext4"), Some("\"/proc/sys\""));
        check(&with("/proc/self tmpfs"), Some("\"/proc/self\""));
        check(&with("/dev ext4"), Some("/dev"));
    }
}
