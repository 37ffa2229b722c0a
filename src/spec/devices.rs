//! The devices of privileged containers.

use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::{ContainerInput, DeviceKind, HostDevice};

/// Those that the runtime makes itself, or that are a container's own.
const OWN: [&str; 5] = [
    "/dev/console",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
    "/dev/mqueue",
];

/// The machine's devices, without those that the runtime makes itself and those that a mount is on.
pub(super) fn all(input: &ContainerInput<'_>) -> Vec<LinuxDevice> {
    let is_free = |device: &&HostDevice| {
        let own = OWN.into_iter().map(Path::new);
        let mounted = input.mounts.iter().map(|mount| mount.destination.as_path());
        !own.chain(mounted)
            .any(|taken| device.path.starts_with(taken))
    };
    input
        .devices
        .iter()
        .filter(is_free)
        .map(described)
        .collect()
}

fn described(of_host: &HostDevice) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device
        .set_path(of_host.path.clone())
        .set_typ(match of_host.kind {
            DeviceKind::Block => LinuxDeviceType::B,
            DeviceKind::Character => LinuxDeviceType::C,
        })
        .set_major(of_host.major.into())
        .set_minor(of_host.minor.into())
        .set_file_mode(Some(of_host.mode & 0o777))
        .set_uid(Some(of_host.uid))
        .set_gid(Some(of_host.gid));
    device
}
