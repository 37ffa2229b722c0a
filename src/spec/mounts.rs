//! What is mounted in a container, and what is hidden.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};

use super::{ContainerInput, Error};

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
    pub read_only: bool,
}

/// All mounts: the kernel's file systems, then the rest, outer ones first.
pub(super) fn all(input: &ContainerInput<'_>) -> Result<Vec<Mount>, Error> {
    let mut mounts = kernel(input)?;
    let mut binds: Vec<&BindMount> = input.mounts.iter().collect();
    binds.sort_by_key(|bind| bind.destination.components().count());
    for bind in binds {
        mounts.push(bound(&bind.source, &bind.destination, bind.read_only)?);
    }
    Ok(mounts)
}

fn kernel(input: &ContainerInput<'_>) -> Result<Vec<Mount>, Error> {
    let privileged = input.plan.security.privileged;
    let writable = if privileged { "rw" } else { "ro" };
    let covered = |path: &str| {
        let path = Path::new(path);
        input.mounts.iter().any(|bind| bind.destination == path)
    };
    let mut mounts = vec![
        mounted("proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        mounted(
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        mounted(
            "devpts",
            "/dev/pts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        )?,
        mounted("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
        mounted("sysfs", "/sys", &["nosuid", "noexec", "nodev", writable])?,
    ];
    if input.cgroup2 {
        let options = ["nosuid", "noexec", "nodev", "relatime", writable];
        mounts.push(mounted("cgroup2", "/sys/fs/cgroup", &options)?);
    }
    if !covered("/dev/shm") {
        mounts.push(bound(input.shared_memory, Path::new("/dev/shm"), false)?);
    }
    Ok(mounts)
}

fn mounted(r#type: &str, destination: &str, options: &[&str]) -> Result<Mount, Error> {
    Ok(MountBuilder::default()
        .typ(r#type)
        .source(r#type)
        .destination(destination)
        .options(super::owned(options))
        .build()?)
}

fn bound(source: &Path, destination: &Path, read_only: bool) -> Result<Mount, Error> {
    let access = if read_only { "ro" } else { "rw" };
    Ok(MountBuilder::default()
        .typ("bind")
        .source(source)
        .destination(destination)
        .options(super::owned(&["rbind", "rprivate", access]))
        .build()?)
}
