//! Mounts that take part in mount propagation, and what is mounted below them. libcontainer makes every mount of a
//! container private, so these are mounted again, in the container's mount namespace, when libcontainer has made it and
//! the container's program does not run yet.
//!
//! ```text
//! HostToContainer   the copy of a mount is a slave of the mount's peers: later mounts come in
//! Bidirectional     the copy is a peer: later mounts come in and go out
//! ```
//!
//! A copy is what its original is, so the original decides what is possible: a volume of the machine has the machine's
//! own mount for Bidirectional, which only the machine's namespace has, not the executor's.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::plan::{MountAccess, Propagation};
use crate::sys;
use crate::sys::mount::tree::{self as mount, Depth, Sharing};
use crate::sys::namespace::{self, Namespace};
use crate::sys::pidfd::PidFd;
use crate::sys::signal::Signal;
use crate::sys::userns;

/// One of these mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateMount {
    pub source: PathBuf,
    /// In the container.
    pub destination: PathBuf,
    pub access: MountAccess,
    pub propagation: Propagation,
    pub origin: Origin,
    pub owners: Owners,
}

/// Whom the files of a mount belong to, in a container with a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owners {
    /// To those whom the file system says.
    AsTheyAre,
    /// To the users of the container with the same numbers.
    Mapped,
}

/// Whose mount is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The machine's.
    Host,
    /// The executor's: a volume of the pod.
    Pod,
}

/// Why a mount cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Mount(#[from] sys::fs::Error),
    #[error("cannot get into the mounts of the container")]
    Enter(#[from] io::Error),
    #[error("the machine's mount namespace is not known")]
    NoHost,
    #[error(
        "what is mounted in a container appears on the machine (`mountPropagation: Bidirectional`) only if root plays the pod"
    )]
    NotRoot,
    /// containerd's words.
    #[error("path {path:?} is mounted on {on:?} but it is not a {wanted} mount")]
    NotShared {
        path: PathBuf,
        on: PathBuf,
        wanted: &'static str,
    },
}

/// Mounts all, outer ones first, in the namespace of a container whose first process waits. That is killed if one
/// cannot be mounted.
pub(super) fn mount_all(
    init: i32,
    mounts: &[LateMount],
    host: Option<BorrowedFd<'_>>,
) -> Result<(), Error> {
    if mounts.is_empty() {
        return Ok(());
    }
    let process = PidFd::open(init)?;
    let mounted = mount_in(init, mounts, host);
    if mounted.is_err() {
        // It would wait for ever, and others for it.
        process.signal(Signal::KILL)?;
    }
    mounted
}

fn mount_in(init: i32, mounts: &[LateMount], host: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let own = namespace::own_mounts()?;
    let container = namespace::mounts_of(init)?;
    let users = namespace::users_of(init)?;
    let mut copies = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let copied = match mount.origin {
            Origin::Pod => copy(mount, &users),
            Origin::Host if !userns::is_initial() => return Err(Error::NotRoot),
            Origin::Host => {
                namespace::enter(host.ok_or(Error::NoHost)?, Namespace::Mount)?;
                let copied = copy(mount, &users);
                namespace::enter(&own, Namespace::Mount)?;
                copied
            }
        };
        copies.push((copied?, mount.destination.as_path()));
    }
    namespace::enter(&container, Namespace::Mount)?;
    let placed = place(&copies);
    // libcontainer has more to do, and finds its files in this namespace only.
    namespace::enter(&own, Namespace::Mount)?;
    placed
}

/// A copy of a mount, on no place yet.
fn copy(mount: &LateMount, users: &OwnedFd) -> Result<OwnedFd, Error> {
    let source = mount.source.as_path();
    let peers = mount::peers(source)?;
    let wanted = match mount.propagation {
        Propagation::Bidirectional if !peers.shared => Some("shared"),
        Propagation::HostToContainer if !peers.shared && !peers.slave => Some("shared or slave"),
        _ => None,
    };
    if let Some(wanted) = wanted {
        return Err(Error::NotShared {
            path: source.to_owned(),
            on: peers.point,
            wanted,
        });
    }
    let tree = match mount.owners {
        Owners::AsTheyAre => mount::copy(source)?,
        Owners::Mapped => mount::mapped(source, users)?,
    };
    mount::set_sharing(
        &tree,
        match mount.propagation {
            Propagation::None => Sharing::Private,
            Propagation::HostToContainer => Sharing::Slave,
            Propagation::Bidirectional => Sharing::Shared,
        },
    )?;
    match mount.access {
        MountAccess::ReadWrite => {}
        MountAccess::ReadOnly => mount::set_read_only(&tree, Depth::Top)?,
        MountAccess::RecursiveReadOnly => mount::set_read_only(&tree, Depth::All)?,
    }
    Ok(tree)
}

fn place(copies: &[(OwnedFd, &Path)]) -> Result<(), Error> {
    // libcontainer's own mounts of the same: those below go with the outer ones.
    let mut outermost: Option<&Path> = None;
    for (_, destination) in copies {
        if outermost.is_none_or(|outer| !destination.starts_with(outer)) {
            sys::mount::detach(destination)?;
            outermost = Some(destination);
        }
    }
    for (tree, destination) in copies {
        mount::place(tree, destination)?;
    }
    Ok(())
}
