//! What a cgroup may use, and how that is said to each version.

use std::collections::BTreeMap;
use std::io;

use super::{Cgroup, Controller, Error, Hierarchy, Result, device, huge};
use crate::sys::userns;

/// What a cgroup may use. `None` leaves a value as it is: in a new cgroup, without a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight, from 2 to 262144; 1024 is one processor. Where weights cannot be set, all weigh the same.
    pub cpu_shares: Option<u64>,
    /// The version 2 weight, from 1 to 10000, where it is not the one that follows from `cpu_shares`.
    pub cpu_weight: Option<u64>,
    /// Microseconds of processor time in each period.
    pub cpu_quota_us: Option<u64>,
    /// Microseconds; the kernel's default is 100000.
    pub cpu_period_us: Option<u64>,
    /// Bytes of memory. Swap is not to be had beyond it.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes of huge pages by the size of a page; of other sizes there are none then.
    pub huge_pages: Option<BTreeMap<u64, u64>>,
    /// When memory runs out, kill all processes of the cgroup (version 2 only; version 1 kills one).
    pub oom_group: bool,
    /// Swap nothing out, with or without a limit of memory (version 2 only).
    pub no_swap: bool,
    pub devices: DevicePolicy,
}

/// Which device files may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DevicePolicy {
    /// All that the parent may use.
    #[default]
    All,
    /// Those that every container has: null, zero, full, random, urandom, tty, console, ptmx, pts/*; and these. Others can
    /// be made with `mknod`, but not opened.
    Default { and: Vec<BlockDevice> },
}

/// A block device by its numbers, and what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    pub major: u32,
    pub minor: u32,
    pub access: DeviceAccess,
}

/// Whether a device may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceAccess {
    Read,
    ReadWrite,
}

/// Writes the limits.
pub(super) fn apply(cgroup: &Cgroup, limits: &Limits) -> Result<()> {
    cpu(cgroup, limits)?;
    if let Some(bytes) = limits.memory_bytes {
        memory(cgroup, bytes)?;
    }
    if limits.oom_group
        && let Some(hierarchy) = cgroup.with(Controller::Memory)
        && hierarchy.is_v2()
    {
        // Where memory is not limited, a cgroup does not run out of it.
        write_if_there(cgroup, "oom_group", "memory.oom.group", 1)?;
    }
    if limits.no_swap
        && let Some(hierarchy) = cgroup.with(Controller::Memory)
        && hierarchy.is_v2()
    {
        write_if_there(cgroup, "no_swap", "memory.swap.max", 0)?;
    }
    if let Some(pids) = limits.pids {
        write(cgroup, Controller::Pids, "pids", "pids.max", pids)?;
    }
    if let Some(amounts) = &limits.huge_pages {
        huge::apply(cgroup, amounts)?;
    }
    match &limits.devices {
        DevicePolicy::All => Ok(()),
        // Nobody in a user namespace has a device that the machine did not make, or may restrict what is; and where cgroups
        // are read-only, somebody else has restricted them.
        DevicePolicy::Default { .. } if !userns::is_initial() || cgroup.all().next().is_none() => {
            Ok(())
        }
        DevicePolicy::Default { and } => device::restrict(cgroup, and),
    }
}

fn cpu(cgroup: &Cgroup, limits: &Limits) -> Result<()> {
    let v2 = cgroup.with(Controller::Cpu).is_some_and(Hierarchy::is_v2);
    if v2 {
        let weight = limits.cpu_weight.or(limits.cpu_shares.map(weight_of));
        if let Some(weight) = weight {
            set_weight(cgroup, "cpu.weight", weight)?;
        }
        if limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some() {
            let quota = limits
                .cpu_quota_us
                .map_or("max".to_owned(), |quota| quota.to_string());
            let value = match limits.cpu_period_us {
                Some(period) => format!("{quota} {period}"),
                None => quota,
            };
            write_text(cgroup, Controller::Cpu, "cpu_quota_us", "cpu.max", &value)?;
        }
        return Ok(());
    }
    if let Some(shares) = limits.cpu_shares {
        set_weight(cgroup, "cpu.shares", shares)?;
    }
    // The period first: a quota is checked against it.
    if let Some(period) = limits.cpu_period_us {
        write(
            cgroup,
            Controller::Cpu,
            "cpu_period_us",
            "cpu.cfs_period_us",
            period,
        )?;
    }
    if let Some(quota) = limits.cpu_quota_us {
        write(
            cgroup,
            Controller::Cpu,
            "cpu_quota_us",
            "cpu.cfs_quota_us",
            quota,
        )?;
    }
    Ok(())
}

/// Every cgroup has a weight, those of pods that ask for nothing too, and it bounds nothing. So it is no fault that it
/// cannot be set: within a container, and without root, the controller is often not to be had.
fn set_weight(cgroup: &Cgroup, file: &'static str, weight: u64) -> Result<()> {
    match write(cgroup, Controller::Cpu, "cpu_shares", file, weight) {
        Err(error @ (Error::NoController { .. } | Error::NotGiven { .. })) => {
            tracing::debug!(cgroup = cgroup.path, %error, "no weight");
            Ok(())
        }
        other => other,
    }
}

/// The version 2 weight for version 1 shares as runc (1.3.2) and crun compute it: 1024 shares are weight 100.
#[must_use]
pub(super) fn weight_of(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    #[expect(clippy::cast_precision_loss, reason = "below 2^18")]
    let l = (shares as f64).log2();
    let exponent = l.mul_add(l, 125.0 * l) / 612.0 - 7.0 / 34.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 1 to 10000"
    )]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

fn memory(cgroup: &Cgroup, bytes: u64) -> Result<()> {
    let limit = "memory_bytes";
    let Some(hierarchy) = cgroup.with(Controller::Memory) else {
        return Err(Error::NoController {
            controller: "memory",
            limit,
        });
    };
    if hierarchy.is_v2() {
        make_room(cgroup, hierarchy, bytes).map_err(|e| cgroup.error("set a limit of", e))?;
        write(cgroup, Controller::Memory, limit, "memory.max", bytes)?;
        return write_if_there(cgroup, limit, "memory.swap.max", 0);
    }
    // The limit of memory and swap must not be below that of memory: raised before it, lowered after it.
    let both = "memory.memsw.limit_in_bytes";
    let raised = write_if_there(cgroup, limit, both, bytes);
    write(
        cgroup,
        Controller::Memory,
        limit,
        "memory.limit_in_bytes",
        bytes,
    )?;
    match raised {
        Ok(()) => Ok(()),
        Err(_) => write_if_there(cgroup, limit, both, bytes),
    }
}

/// Has the kernel take back what can be had without harm, before a limit of version 2 below what is in use would make it
/// kill. Version 1 refuses such a limit by itself, with the same error.
fn make_room(cgroup: &Cgroup, hierarchy: &Hierarchy, bytes: u64) -> io::Result<()> {
    let beyond = || -> io::Result<u64> {
        // Without the file there is no limit to be set either, which is told then.
        let current = match hierarchy.read(&cgroup.path, "memory.current") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        let current = current.trim().parse::<u64>().unwrap_or(0);
        Ok(current.saturating_sub(bytes))
    };
    let excess = beyond()?;
    if excess == 0 {
        return Ok(());
    }
    match hierarchy.write(&cgroup.path, "memory.reclaim", &excess.to_string()) {
        // Not as much could be had.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
        // A kernel before 5.19.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            throttle_once(cgroup, hierarchy, bytes)?;
        }
        other => other?,
    }
    match beyond()? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::ResourceBusy.into()),
    }
}

/// Has the kernel take back what is in use beyond `bytes` by a throttle, which is then as it was before. Who dies in
/// between is the executor, and the pod with it.
pub(super) fn throttle_once(cgroup: &Cgroup, hierarchy: &Hierarchy, bytes: u64) -> io::Result<()> {
    const FILE: &str = "memory.high";
    let before = hierarchy.read(&cgroup.path, FILE)?;
    hierarchy.write(&cgroup.path, FILE, &bytes.to_string())?;
    hierarchy.write(&cgroup.path, FILE, before.trim())
}

/// For what a kernel may lack, as without swap accounting.
fn write_if_there(
    cgroup: &Cgroup,
    limit: &'static str,
    file: &'static str,
    value: u64,
) -> Result<()> {
    match write(cgroup, Controller::Memory, limit, file, value) {
        Err(Error::NotGiven { .. }) => Ok(()),
        other => other,
    }
}

fn write(
    cgroup: &Cgroup,
    controller: Controller,
    limit: &'static str,
    file: &str,
    value: u64,
) -> Result<()> {
    write_text(cgroup, controller, limit, file, &value.to_string())
}

pub(super) fn write_text(
    cgroup: &Cgroup,
    controller: Controller,
    limit: &'static str,
    file: &str,
    value: &str,
) -> Result<()> {
    let Some(hierarchy) = cgroup.with(controller) else {
        return Err(Error::NoController {
            controller: name(controller),
            limit,
        });
    };
    hierarchy
        .write(&cgroup.path, file, value)
        .map_err(|source| match source.kind() {
            // A cgroup has the files of the controllers that the one above it hands down. Of version 2 that is refused
            // where the one above has processes of its own, as a container's root has.
            io::ErrorKind::NotFound => Error::NotGiven {
                path: cgroup.path.clone(),
                controller: name(controller),
                limit,
                source,
            },
            _ => cgroup.error("set a limit of", source),
        })
}

fn name(controller: Controller) -> &'static str {
    match controller {
        Controller::Cpu => "cpu",
        Controller::CpuAccounting => "cpuacct",
        Controller::Memory => "memory",
        Controller::Pids => "pids",
        Controller::Devices => "devices",
        Controller::HugePages => "hugetlb",
        Controller::Io => "io",
    }
}
