//! What is mounted in a container, and what is hidden.

use std::path::{Component, Path, PathBuf};

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
        mounts.push(bound(&bind.source, &destination, bind.read_only)?);
    }
    Ok(mounts)
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
        let mut options = vec!["nosuid", "noexec", "nodev", "relatime", writable];
        if privileged {
            // Mounted in the machine's own cgroup namespace, where a mount without them takes them away from the whole
            // machine.
            options.extend(input.host.cgroup2_options.iter().map(String::as_str));
        }
        mounts.push(mounted("cgroup2", "/sys/fs/cgroup", &options)?);
    }
    mounts.push(bound(input.shared_memory, Path::new("/dev/shm"), false)?);
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
