//! A plan, an image's configuration and facts of the machine become an OCI runtime specification. Pure.
//!
//! The defaults (mounts, masked paths, capabilities) are containerd's. Cgroups and seccomp are not in the result: they
//! are set around the runtime, not by it.
#![forbid(unsafe_code)]

pub mod arguments;
mod devices;
pub mod env_file;
pub mod environment;
mod mounts;
mod process;
pub mod resources;
pub mod service_links;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Process,
    RootBuilder, SpecBuilder,
};

pub use oci_spec::runtime::Spec;

pub use mounts::{BindMount, Owners, Programs, propagated};
pub use process::{DeviceKind, HostDevice, HostFacts, ResolvedUser, exec_process};

use crate::model::plan::{ContainerPlan, ProcMount};

/// A container that cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that the runtime's types do not take.
    #[error("cannot describe the container to the runtime")]
    Value(#[from] oci_spec::OciSpecError),
    /// As runc: what is there must be the kernel's.
    #[error("cannot mount on `{path}`, because it is inside `/proc`", path = destination.display())]
    InsideProc { destination: PathBuf },
    /// libcontainer would make links and device files in what is mounted there, perhaps the machine's own `/dev`.
    #[error("cannot mount a volume on `/dev`; mount what is needed below it")]
    OverDev,
    #[error("cannot mount on `{path}`, because it is not an absolute path without `..`", path = destination.display())]
    NotAbsolute { destination: PathBuf },
}

/// All that a container is made from.
#[derive(Debug)]
pub struct ContainerInput<'a> {
    pub plan: &'a ContainerPlan,
    /// Program and arguments, at least one.
    pub args: Vec<String>,
    /// `NAME=value`, complete.
    pub env: Vec<String>,
    /// Absolute.
    pub working_dir: &'a Path,
    pub user: ResolvedUser,
    /// Where the root file system is mounted.
    pub rootfs: &'a Path,
    pub namespaces: Namespaces,
    /// Volumes and the pod's files.
    pub mounts: Vec<BindMount>,
    /// The pod's `/dev/shm`; the host's if it has the host's IPC namespace.
    pub shared_memory: &'a Path,
    pub oom_score_adj: i32,
    /// What is bound on `/sys`, where it cannot be mounted.
    pub sys: Option<&'a Path>,
    /// Whether `/sys/fs/cgroup` can be mounted in the container (version 2).
    pub cgroup2: bool,
    pub host: &'a HostFacts,
    /// What a privileged container finds in `/dev`.
    pub devices: Vec<HostDevice>,
}

/// Which namespaces a container gets. Its mount namespace is always its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    pub network: NamespaceChoice,
    pub ipc: NamespaceChoice,
    pub uts: NamespaceChoice,
    pub pid: NamespaceChoice,
    /// Joined or the host's: its ids are given from outside.
    pub user: NamespaceChoice,
}

impl ContainerInput<'_> {
    /// Whether the container's users are not the machine's.
    fn has_users(&self) -> bool {
        self.namespaces.user != NamespaceChoice::Host || self.host.ids.is_some()
    }
}

/// Where a namespace comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceChoice {
    Host,
    New,
    /// `/proc/PID/ns/…`.
    Join(PathBuf),
}

/// Describes a container to the runtime.
///
/// # Errors
/// A value that the runtime's types do not take.
pub fn container(input: &ContainerInput<'_>) -> Result<Spec, Error> {
    let root = RootBuilder::default()
        .path(input.rootfs)
        .readonly(input.plan.security.read_only_root_filesystem)
        .build()?;
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(root)
        .process(process::container_process(input)?)
        .mounts(mounts::all(input)?)
        .linux(linux(input)?)
        .build()?;
    // The sandbox has set the name, or it is the host's; the builder's default is neither.
    spec.set_hostname(None);
    Ok(spec)
}

fn linux(input: &ContainerInput<'_>) -> Result<Linux, Error> {
    let privileged = input.plan.security.privileged;
    let mut linux = LinuxBuilder::default().namespaces(namespaces(input)?);
    // As a kubelet, which means `/sys` too.
    if privileged || input.plan.security.proc_mount == ProcMount::Unmasked {
        linux = linux.masked_paths(Vec::new()).readonly_paths(Vec::new());
    } else {
        linux = linux
            .masked_paths(
                [
                    owned(&mounts::MASKED_PATHS),
                    input.host.masked_paths.clone(),
                ]
                .concat(),
            )
            .readonly_paths(owned(&mounts::READONLY_PATHS));
    }
    let mut linux = linux.build()?;
    linux.set_devices(privileged.then(|| devices::all(input)));
    // The builder's default has resources, which would make libcontainer look for cgroups.
    linux.set_resources(None);
    // libcontainer cannot set it for a mount, and no mount is to see what the machine mounts later.
    linux.set_rootfs_propagation(Some("private".into()));
    Ok(linux)
}

fn owned(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn namespaces(input: &ContainerInput<'_>) -> Result<Vec<LinuxNamespace>, Error> {
    let chosen = &input.namespaces;
    // The cgroup namespace of a privileged container is the host's, which a user namespace is not allowed to mount. Others have their own with version 1 too, unlike in
    // Kubernetes: they see no cgroups there whose paths could be of use to them.
    let cgroup = if input.plan.security.privileged && !input.has_users() {
        NamespaceChoice::Host
    } else {
        NamespaceChoice::New
    };
    let all = [
        (LinuxNamespaceType::User, &chosen.user),
        (LinuxNamespaceType::Mount, &NamespaceChoice::New),
        (LinuxNamespaceType::Network, &chosen.network),
        (LinuxNamespaceType::Ipc, &chosen.ipc),
        (LinuxNamespaceType::Uts, &chosen.uts),
        (LinuxNamespaceType::Pid, &chosen.pid),
        (LinuxNamespaceType::Cgroup, &cgroup),
    ];
    let mut result = Vec::new();
    for (r#type, choice) in all {
        let namespace = LinuxNamespaceBuilder::default().typ(r#type);
        match choice {
            NamespaceChoice::Host => {}
            NamespaceChoice::New => result.push(namespace.build()?),
            NamespaceChoice::Join(path) => result.push(namespace.path(path).build()?),
        }
    }
    Ok(result)
}

/// The process that a specification describes.
#[must_use]
pub fn process_of(spec: &Spec) -> Process {
    spec.process().clone().unwrap_or_default()
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
