//! The one door to libcontainer, and what a pod needs beneath it: root file systems, the pod's shared namespaces,
//! starting containers and running commands in them.
//!
//! libcontainer forks, blocks and changes its caller, so every request runs in a fresh, single-threaded process,
//! `kplay internal create`, which the executor starts inside the container's cgroup:
//!
//! ```text
//! executor ── request (memfd), stdio, seccomp program ──▶ helper ── libcontainer ──▶ init of the container
//!     ▲                                                     │ {"started": pid}        │ {"not_executable": …}
//!     └────────────── one SEQPACKET socket ─────────────────┴─────────────────────────┘ closed by execve
//! ```
//!
//! A helper may be prepared before its request is known: it enters its cgroup, which may take ten milliseconds below
//! version 2, and loads while the executor does other things.
//!
//! Every process on the way holds the socket, close-on-exec, so its end of file says that nobody is on the way any
//! more: a request that saw `started` and no error before it has executed its program, nothing less.
//! The processes are children of the executor (`as_sibling`), which must be the subreaper and have one thread.
//!
//! What it does not do: decide what a container looks like (`spec`), or when it starts (`executor`).
#![forbid(unsafe_code)]

pub mod container;
pub mod create;
mod entry;
mod environment;
mod error;
#[cfg(test)]
pub mod fake;
mod helper;
mod landing;
pub mod late;
pub mod rootfs;
pub mod sandbox;
pub mod seccomp;
mod trace;
pub mod user;
mod wire;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

use crate::sys;
use crate::sys::cgroup::CgroupEntry;
use crate::sys::ids::IdRange;
use crate::sys::pidfd::PidFd;
use crate::sys::process::Kept;

pub use container::{Libcontainer, person};
pub use error::Error;
pub use helper::Program;
pub use late::LateMount;
pub use rootfs::{Users, enter_private_mounts, mount_shared_memory, open_folder};
pub use seccomp::{ProfileFile, SeccompProfile};

/// Starts containers, and commands in running ones.
///
/// Futures are not `Send`: the executor has one thread. Dropping one that is not ready kills its helper, but not what
/// the helper may have started: kill the cgroup then.
pub trait Runtime {
    /// Starts what will start a container in this cgroup. Does not wait for it; dropping it ends it.
    ///
    /// # Errors
    /// There can be no more processes.
    fn prepare(&self, cgroup: &CgroupEntry) -> Result<Prepared, Error>;

    /// Starts a container. Ready when its program runs (`execve` succeeded), or with the reason why it does not.
    fn start(&self, request: StartRequest) -> impl Future<Output = Result<Started, Error>>;

    /// Runs a command in a running container. Ready when the command runs.
    fn exec(&self, request: ExecRequest) -> impl Future<Output = Result<Started, Error>>;

    /// Forgets a container whose processes are gone, so that its id can be used again.
    ///
    /// # Errors
    /// Its state folder cannot be removed.
    fn forget(&self, state: &std::path::Path, id: &str) -> Result<(), Error>;
}

/// What starts a container.
#[derive(Debug)]
pub struct StartRequest {
    /// Unique within `state`.
    pub id: String,
    /// A folder of the container's own, where `config.json` is written. On tmpfs, if it should be fast.
    pub bundle: PathBuf,
    /// The folder with the state of the pod's containers.
    pub state: PathBuf,
    /// Without `linux.resources` and `linux.seccomp`: cgroups and seccomp are set outside libcontainer.
    /// `root.path` must be mounted. PATH and HOME are added to the environment where they are missing.
    pub spec: Spec,
    /// Mounts of `spec` that take part in mount propagation, and those below them; outer ones first.
    pub late_mounts: Vec<LateMount>,
    /// The machine's mount namespace, if one of them is the machine's.
    pub host_mounts: Option<OwnedFd>,
    /// Those of the user namespace that `spec` says, if it says one.
    pub ids: Option<IdRange>,
    pub seccomp: SeccompProfile,
    /// In the container's cgroup.
    pub prepared: Prepared,
    pub stdio: Stdio,
}

/// What waits to start a container.
#[derive(Debug)]
pub struct Prepared(Option<helper::Helper>);

/// What runs a command in a running container.
#[derive(Debug)]
pub struct ExecRequest {
    /// The container's id, as in its [`StartRequest`].
    pub id: String,
    /// As in its [`StartRequest`].
    pub state: PathBuf,
    pub process: Process,
    pub seccomp: SeccompProfile,
    pub cgroup: CgroupEntry,
    pub stdio: Stdio,
    pub tenancy: Option<Tenancy>,
}

/// A container with a user namespace, and what it takes to run a command in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenancy {
    /// The machine's number for the namespace's root.
    first_id: u32,
    /// A folder that this root can reach and write to, for a short-lived copy of the container's state.
    folder: PathBuf,
}

impl Tenancy {
    /// Of the user namespace with these ids. The folder is made.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(ids: IdRange, folder: PathBuf) -> Result<Self, Error> {
        sys::fs::create_dir_all(&folder, 0o700)?;
        sys::fs::set_owner(&folder, ids.first(), ids.first())?;
        Ok(Self {
            first_id: ids.first(),
            folder,
        })
    }
}

/// Where a process reads and writes.
#[derive(Debug)]
pub enum Stdio {
    /// The process's own ends. They are given to its user, so that `/dev/stdout` can be opened again.
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A new terminal of this size, in characters; the spec's `process.terminal` is set accordingly.
    Terminal { rows: u16, columns: u16 },
}

/// A process that runs.
#[derive(Debug)]
pub struct Started {
    /// A child of the caller.
    pub process: PidFd,
    /// The terminal's master, with [`Stdio::Terminal`].
    pub terminal: Option<OwnedFd>,
    /// Keeps the reaper away; to be held until the process has been waited for.
    pub kept: Kept,
}
