//! What is mounted in a container, and what is hidden.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};

use super::{ContainerInput, Error, NamespaceChoice};
use crate::model::plan::{MountAccess, Propagation};

/// containerd's list, which is Docker's.
pub(super) const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// containerd's list.
pub(super) const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Something of the host that appears in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    pub source: PathBuf,
    /// Absolute, inside the container.
    pub destination: PathBuf,
    pub access: MountAccess,
    pub programs: Programs,
    pub propagation: Propagation,
    pub owners: Owners,
}

/// Whom files belong to in a container with a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// To the container's users with the same numbers.
    ByNumber,
    /// To whom the mount says already.
    Settled,
}

/// Whether what is mounted can be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    Run,
    /// `noexec`: those of an image that is a volume.
    DoNotRun,
}

impl BindMount {
    /// A mount that is the container's alone, to be written to.
    #[must_use]
    pub fn plain(source: PathBuf, destination: PathBuf) -> Self {
        Self {
            source,
            destination,
            access: MountAccess::ReadWrite,
            programs: Programs::Run,
            propagation: Propagation::None,
            owners: Owners::ByNumber,
        }
    }
}

/// All mounts: the kernel's file systems, then the rest, outer ones first. One that has the destination of a default
/// mount takes its place.
pub(super) fn all(input: &ContainerInput<'_>) -> Result<Vec<Mount>, Error> {
    for bind in &input.mounts {
        check(&bind.destination)?;
    }
    let mut binds: Vec<&BindMount> = input.mounts.iter().collect();
    binds.sort_by_key(|bind| bind.destination.components().count());
    let mut mounts = kernel(input)?;
    mounts.retain(|mount| {
        !binds
            .iter()
            .any(|bind| clean(&bind.destination) == *mount.destination())
    });
    for bind in binds {
        let destination = clean(&bind.destination);
        mounts.push(bound(
            &bind.source,
            &destination,
            bind.access,
            bind.programs,
        )?);
    }
    Ok(mounts)
}

/// The mounts that take part in mount propagation, and those below them; outer ones first. The runtime makes all mounts
/// private, so these are to be made once more, after it.
#[must_use]
pub fn propagated(mounts: &[BindMount]) -> Vec<BindMount> {
    let mut sorted: Vec<BindMount> = mounts.to_vec();
    for bind in &mut sorted {
        bind.destination = clean(&bind.destination);
    }
    sorted.sort_by(|a, b| a.destination.cmp(&b.destination));
    let mut chosen: Vec<BindMount> = Vec::new();
    for bind in sorted {
        let is_below = |outer: &BindMount| bind.destination.starts_with(&outer.destination);
        if bind.propagation != Propagation::None || chosen.iter().any(is_below) {
            chosen.push(bind);
        }
    }
    chosen
}

/// Refuses what runc refuses, and what libcontainer gets wrong.
fn check(destination: &Path) -> Result<(), Error> {
    let has_parent = destination
        .components()
        .any(|part| part == Component::ParentDir);
    if !destination.is_absolute() || has_parent {
        return Err(Error::NotAbsolute {
            destination: destination.to_owned(),
        });
    }
    if destination.starts_with("/proc") {
        return Err(Error::InsideProc {
            destination: destination.to_owned(),
        });
    }
    if clean(destination) == Path::new("/dev") {
        return Err(Error::OverDev);
    }
    Ok(())
}

/// Without doubled and trailing slashes, and without `.`.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

fn kernel(input: &ContainerInput<'_>) -> Result<Vec<Mount>, Error> {
    let privileged = input.plan.security.privileged;
    let writable = if privileged { "rw" } else { "ro" };
    // Who is not the machine's root may not mount what tells of its namespaces, and takes what is mounted.
    let is_machines =
        |choice: &NamespaceChoice| input.host.ids.is_some() && *choice == NamespaceChoice::Host;
    let mut pseudo_terminals = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    if input.host.ids.is_none_or(|ids| ids > TTY) {
        pseudo_terminals.push("gid=5");
    }
    let hardened = ["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        if is_machines(&input.namespaces.pid) {
            of_machine("/proc", &[])?
        } else {
            mounted("proc", "/proc", &hardened)?
        },
        mounted(
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        mounted("devpts", "/dev/pts", &pseudo_terminals)?,
    ];
    // Without it queues have their names all the same.
    if !is_machines(&input.namespaces.ipc) {
        mounts.push(mounted("mqueue", "/dev/mqueue", &hardened)?);
    }
    let options = ["nosuid", "noexec", "nodev", writable];
    mounts.push(match input.sys {
        _ if is_machines(&input.namespaces.network) => of_machine("/sys", &options)?,
        Some(sys) => {
            let mut mount = of_machine("/sys", &options)?;
            mount.set_source(Some(sys.to_owned()));
            mount
        }
        None => mounted("sysfs", "/sys", &options)?,
    });
    if input.cgroup2 {
        let mut options = vec!["nosuid", "noexec", "nodev", "relatime", writable];
        if privileged && !input.has_users() {
            // Mounted in the machine's own cgroup namespace, where a mount without them takes them away from the whole
            // machine.
            options.extend(input.host.cgroup2_options.iter().map(String::as_str));
        }
        mounts.push(mounted("cgroup2", "/sys/fs/cgroup", &options)?);
    }
    mounts.push(bound(
        input.shared_memory,
        Path::new("/dev/shm"),
        MountAccess::ReadWrite,
        Programs::Run,
    )?);
    Ok(mounts)
}

/// The group of terminals.
const TTY: u32 = 5;

/// What the machine has mounted at the same place.
fn of_machine(path: &str, options: &[&str]) -> Result<Mount, Error> {
    let mut all = vec!["rbind", "rprivate"];
    all.extend(options);
    Ok(MountBuilder::default()
        .typ("bind")
        .source(path)
        .destination(path)
        .options(super::owned(&all))
        .build()?)
}

fn mounted(r#type: &str, destination: &str, options: &[&str]) -> Result<Mount, Error> {
    Ok(MountBuilder::default()
        .typ(r#type)
        .source(r#type)
        .destination(destination)
        .options(super::owned(options))
        .build()?)
}

fn bound(
    source: &Path,
    destination: &Path,
    access: MountAccess,
    programs: Programs,
) -> Result<Mount, Error> {
    let access = match access {
        MountAccess::ReadWrite => "rw",
        MountAccess::ReadOnly => "ro",
        MountAccess::RecursiveReadOnly => "rro",
    };
    let mut options = vec!["rbind", "rprivate", access];
    if programs == Programs::DoNotRun {
        options.push("noexec");
    }
    Ok(MountBuilder::default()
        .typ("bind")
        .source(source)
        .destination(destination)
        .options(super::owned(&options))
        .build()?)
}
