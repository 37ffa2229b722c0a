//! What a pod has to know of the machine and of what this process may do on it.

use std::path::Path;

use super::context::Facts;
use super::error::{Error, StartFailure, system};
use crate::protocol::Launch;
use crate::spec::{DeviceKind, HostDevice, HostFacts};
use crate::sys::{capability, device, fs, identity, mount, process as processes, userns};

/// Found out once, while the machine's cgroups are still to be seen.
pub(super) fn facts(launch: &Launch) -> Result<Facts, Error> {
    let bounding = capability::bounding().map_err(system("read the capabilities"))?;
    let names = bounding
        .names()
        .filter_map(|name| name.strip_prefix("CAP_"));
    Ok(Facts {
        host: HostFacts {
            capabilities: names.map(str::to_owned).collect(),
            oom_score_floor: processes::oom_score_floor().map_err(system("read the OOM score"))?,
            open_files: processes::open_files_limit(),
            masked_paths: thermal_statistics()?,
            cgroup2_options: mount::cgroup2_options()?,
            ids: (!userns::is_initial()).then(userns::ids),
        },
        host_ip: identity::host_ip(),
        qos_class: launch.plan.qos_class(),
        memory: identity::memory(),
        storage: fs::size(&launch.data_dir)?,
        cpus: identity::cpus(),
    })
}

/// `/sys/devices/system/cpu/cpuN/thermal_throttle`, as far as there are any.
fn thermal_statistics() -> Result<Vec<String>, Error> {
    let folder = Path::new("/sys/devices/system/cpu");
    let mut paths = Vec::new();
    for name in fs::list(folder)? {
        let path = folder.join(name).join("thermal_throttle");
        if fs::metadata_if_there(&path).is_ok_and(|found| found.is_some()) {
            paths.extend(path.to_str().map(str::to_owned));
        }
    }
    Ok(paths)
}

/// The device files that are there at this moment.
pub(super) fn devices() -> Result<Vec<HostDevice>, StartFailure> {
    let found = device::beneath(Path::new("/dev"))?;
    let devices = found.into_iter().map(|found| HostDevice {
        path: found.path,
        kind: match found.kind {
            device::Kind::Block => DeviceKind::Block,
            device::Kind::Character => DeviceKind::Character,
        },
        major: found.major,
        minor: found.minor,
        mode: found.mode,
        uid: found.uid,
        gid: found.gid,
    });
    Ok(devices.collect())
}
