//! Mounts of a pod: the executor's private view, the overlay of a container, the shared memory of the pod.

use std::path::{Path, PathBuf};

use super::Error;
use crate::sys::cgroup::{self, Hierarchies};
use crate::sys::mount::{self, Overlay};
use crate::sys::{self, namespace};

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Moves this process into a mount namespace of its own in which no cgroup is to be seen, and returns the cgroup
/// hierarchies, opened before. Mounts of the host still appear in it; its own are seen by nobody else and go with it.
///
/// libcontainer then finds no cgroups and leaves them alone. The process must have one thread.
///
/// # Errors
/// The caller is not root, or there are no cgroups.
pub fn enter_private_mounts() -> Result<Hierarchies, Error> {
    let hierarchies = Hierarchies::open()?;
    namespace::unshare_mounts().map_err(Error::system("make a mount namespace"))?;
    mount::make_slave()?;
    // Taken out of the namespace, not only covered: libcontainer looks at the list of mounts. The descriptors of the
    // hierarchies stay usable.
    // All at once where they are mounted on one folder, as the hierarchies of version 1 are: each costs a grace period of
    // the kernel's.
    mount::detach(Path::new(CGROUPS))?;
    for point in cgroup::mount_points()? {
        mount::detach(&point)?;
    }
    mount::tmpfs(Path::new(CGROUPS), "size=64k,mode=555")?;
    Ok(hierarchies)
}

/// Mounts a container's root file system. Returns without waiting for anything.
///
/// `layers` are in the image's order, the lowest first: at least one, at most about 200. `upper` and `work` are empty
/// folders on one file system; what the container writes goes to `upper`, and is not made safe against a crash of the
/// machine.
///
/// # Errors
/// A folder is not there, or the kernel refuses.
pub fn mount(layers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> Result<(), Error> {
    mount::overlay(
        Overlay {
            layers,
            upper,
            work,
        },
        target,
    )?;
    Ok(())
}

/// Unmounts a container's root file system, at once, with all that is mounted in it. Fine if it is not mounted.
///
/// # Errors
/// The caller may not.
pub fn unmount(target: &Path) -> Result<(), Error> {
    mount::detach(target)?;
    Ok(())
}

/// Mounts the `/dev/shm` that the containers of a pod share: 64 MiB, for everybody, as containerd's. Makes the folder.
///
/// # Errors
/// The caller may not.
pub fn mount_shared_memory(target: &Path) -> Result<(), Error> {
    sys::fs::create_dir_all(target, 0o700)?;
    mount::tmpfs(target, "size=64m,mode=1777")?;
    Ok(())
}
