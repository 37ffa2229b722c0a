//! A pod's user namespace (`hostUsers: false`), seen from outside: the ids that it has on the machine, and where its root
//! finds what containers are made from.
//!
//! ```text
//! OPEN/rootfs/RUN     the root file system of a container's run
//! OPEN/mounts/RUN/N   what is mounted in it, each with the namespace's ids
//! OPEN/shm            the pod's shared memory
//! OPEN/exec/          copies of containers' state, while commands are started in them
//! ```
//!
//! OPEN is in the executor's own mount namespace: the pod's folders are closed to everybody but the machine's root, and
//! the runtime mounts as the root of the namespace. What is mounted is what the machine's root has made ready: user 0
//! of a file is user 0 in the pod, and nothing below can be made writable again.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::context::Context;
use super::error::{Error, StartFailure, SystemError, system};
use crate::model::plan::{MountAccess, PodPlan};
use crate::runtime::{self, Tenancy, open_folder, rootfs};
use crate::spec::{BindMount, Owners};
use crate::state::layout::PodPaths;
use crate::sys::ids::IdRange;
use crate::sys::mount::tree::{self, Depth};
use crate::sys::{fs, mount, userns};

/// The pod's user namespace.
#[derive(Debug)]
pub(super) struct Users {
    ids: IdRange,
    open: PathBuf,
}

impl Users {
    /// Finds the ids that the manager took for the pod, if it is to have a user namespace, and makes the folder. To be
    /// called in the executor's own mount namespace.
    ///
    /// # Errors
    /// There are no ids, or the folder cannot be made.
    pub(super) fn set_up(plan: &PodPlan, paths: &PodPaths) -> Result<Option<Self>, Error> {
        // Who is not root has users for all pods together, who are not the machine's either; and may not map the ids of files.
        if !plan.own_users || !userns::is_initial() {
            return Ok(None);
        }
        let ids = crate::state::ids::read(paths)?.ok_or(Error::NoIds)?;
        let open = open_folder()?;
        for folder in ["rootfs", "mounts"] {
            let folder = open.join(folder);
            fs::create_dir_all(&folder, 0o711)?;
            fs::set_mode(&folder, 0o711)?;
        }
        Ok(Some(Self { ids, open }))
    }

    pub(super) fn ids(&self) -> IdRange {
        self.ids
    }

    pub(super) fn rootfs(&self, run: &str) -> PathBuf {
        self.open.join("rootfs").join(run)
    }

    /// The folder of the mounts of a container's run.
    pub(super) fn mounts(&self, run: &str) -> PathBuf {
        self.open.join("mounts").join(run)
    }

    pub(super) fn shared_memory(&self) -> PathBuf {
        self.open.join("shm")
    }

    /// What it takes to run a command in one of the pod's containers.
    pub(super) fn tenancy(&self) -> Result<Tenancy, runtime::Error> {
        Tenancy::new(self.ids, self.open.join("exec"))
    }
}

/// The pod's user namespace itself, if it has one.
///
/// # Errors
/// Its sandbox is gone: nothing may be started without, least of all as the machine's root.
pub(super) fn namespace<R>(context: &Context<R>) -> Result<Option<Joined>, SystemError> {
    let Some(users) = &context.users else {
        return Ok(None);
    };
    let found = match context.sandbox.borrow().as_ref() {
        Some(sandbox) => sandbox.users(),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    Ok(Some(Joined {
        namespace: found.map_err(system("find the pod's user namespace"))?,
        ids: users.ids,
    }))
}

/// A user namespace, held open.
#[derive(Debug)]
pub(super) struct Joined {
    namespace: OwnedFd,
    ids: IdRange,
}

impl Joined {
    pub(super) fn as_users(&self) -> rootfs::Users<'_> {
        rootfs::Users {
            namespace: self.namespace.as_fd(),
            ids: self.ids,
        }
    }
}

/// Makes the mounts of a container's run ready for a pod with a user namespace, in [`Users::mounts`], where they stay until
/// [`volume::unmount_sub_paths`](crate::volume::unmount_sub_paths). Without one they are as they were.
pub(super) fn make_ready<R>(
    context: &Context<R>,
    run: &str,
    mut mounts: Vec<BindMount>,
) -> Result<Vec<BindMount>, StartFailure> {
    let (Some(users), Some(joined)) = (&context.users, namespace(context)?) else {
        return Ok(mounts);
    };
    let folder = users.mounts(run);
    fs::create_dir_all(&folder, 0o711)?;
    fs::set_mode(&folder, 0o711)?;
    for (number, bind) in mounts.iter_mut().enumerate() {
        let place = folder.join(number.to_string());
        ready(bind, joined.namespace.as_fd(), &place)?;
        bind.source = place;
    }
    Ok(mounts)
}

fn ready(bind: &BindMount, namespace: BorrowedFd<'_>, place: &Path) -> Result<(), fs::Error> {
    let tree = match bind.owners {
        Owners::ByNumber => tree::mapped(&bind.source, namespace)?,
        Owners::Settled => tree::copy(&bind.source)?,
    };
    // Here, not only by the runtime: the pod's root could undo what is done in its own mount namespace.
    match bind.access {
        MountAccess::ReadWrite => {}
        MountAccess::ReadOnly => tree::set_read_only(&tree, Depth::Top)?,
        MountAccess::RecursiveReadOnly => tree::set_read_only(&tree, Depth::All)?,
    }
    mount::place_new(tree, place)
}
