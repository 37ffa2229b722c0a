//! Mounts of a pod: the executor's private view, the overlay of a container, the shared memory of the pod.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::Error;
use crate::sys::beneath::Root;
use crate::sys::cgroup::{self, Hierarchies};
use crate::sys::ids::IdRange;
use crate::sys::mount::{self, Overlay};
use crate::sys::{self, namespace, userns};

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
    let is_root = userns::is_initial();
    namespace::unshare_mounts().map_err(Error::system("make a mount namespace"))?;
    mount::make_slave()?;
    if !is_root {
        cover_cgroups()?;
        return Ok(hierarchies);
    }
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

/// Nobody but the machine's root can take away what it has mounted. Of version 2 it is enough to cover it. What is left of
/// version 1 in the list of mounts is looked for by libcontainer unless it finds version 2 in the usual place; and that it
/// may not change anything there is fine with it in a user namespace.
fn cover_cgroups() -> Result<(), Error> {
    let target = Path::new(CGROUPS);
    if cgroup::are_of_version_1()? {
        namespace::unshare_cgroups().map_err(Error::system("make a cgroup namespace"))?;
        mount::read_only_cgroups(target)?;
    } else {
        mount::tmpfs(target, "size=64k,mode=555")?;
    }
    Ok(())
}

/// Makes a folder in this process's own mount namespace that is open to every user, unlike kplay's own: the root of a
/// user namespace finds there what a container is made from. Who does not know the names in it does not see them.
///
/// To be called after [`enter_private_mounts`].
///
/// # Errors
/// The caller may not mount.
pub fn open_folder() -> Result<PathBuf, Error> {
    // The only folder that is this process's alone and has only open folders above it.
    let folder = Path::new(CGROUPS).join("kplay");
    sys::fs::create_dir_all(&folder, 0o711)?;
    mount::tmpfs(&folder, "size=64m,mode=711")?;
    Ok(folder)
}

/// A user namespace, and the ids that it has on the machine.
#[derive(Clone, Copy, Debug)]
pub struct Users<'a> {
    pub namespace: BorrowedFd<'a>,
    pub ids: IdRange,
}

/// Mounts a container's root file system. Returns without waiting for anything.
///
/// `layers` are in the image's order, the lowest first: at least one, at most about 200. `upper` and `work` are empty
/// folders on one file system; what the container writes goes to `upper`, and is not made safe against a crash of the
/// machine. In a user namespace, user 0 of the layers is its root; what `upper` holds has the machine's ids, also on the
/// disk, because the kernel writes to it for the machine's root.
///
/// # Errors
/// A folder is not there, or the kernel refuses.
pub fn mount(
    layers: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    users: Option<Users<'_>>,
) -> Result<(), Error> {
    if let Some(Users { ids, .. }) = users {
        sys::fs::set_owner(upper, ids.first(), ids.first())?;
    }
    mount::overlay(
        Overlay {
            layers,
            upper,
            work,
            users: users.map(|users| users.namespace),
        },
        target,
    )?;
    Ok(())
}

/// Mounts a folder of a container's root file system on `place`, which is made. The folder is made too if it is not there;
/// links on the way to it lead where they would in the container, which must not run yet.
///
/// # Errors
/// There is something else, or it cannot be mounted.
pub fn mount_own(
    rootfs: &Path,
    folder: &Path,
    place: &Path,
    ids: Option<IdRange>,
) -> Result<(), Error> {
    let path = folder.strip_prefix("/").unwrap_or(folder);
    let make = || sys::fs::create_dir_in_root(rootfs, path, 0o755);
    let made = match ids {
        None => make(),
        Some(ids) => sys::ids::as_root_of(ids, make),
    };
    let failed = || Error::system("make a volume of the image");
    made.map_err(failed())?;
    let root = Root::open(rootfs).map_err(failed())?;
    let held = root.folder(path.as_os_str().as_encoded_bytes());
    let held = held.and_then(|folder| folder.reopen()).map_err(failed())?;
    if let Some(parent) = place.parent() {
        sys::fs::create_dir_all(parent, 0o700)?;
    }
    mount::bind_held(&held, place)?;
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

/// Mounts the `/dev/shm` that the containers of a pod share: 64 MiB, for everybody, as containerd's. It is the root's of
/// their user namespace. Makes the folder; one that is mounted there already goes.
///
/// # Errors
/// The caller may not.
pub fn mount_shared_memory(target: &Path, ids: Option<IdRange>) -> Result<(), Error> {
    sys::fs::create_dir_all(target, 0o700)?;
    mount::detach(target)?;
    let root = ids.map_or(0, IdRange::first);
    mount::tmpfs(target, &format!("size=64m,mode=1777,uid={root},gid={root}"))?;
    Ok(())
}
