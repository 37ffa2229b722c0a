//! The process: user, capabilities, limits.

use std::collections::BTreeSet;
use std::path::PathBuf;

use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, ProcessBuilder, Spec, User, UserBuilder,
};

use super::{ContainerInput, Error};
use crate::model::plan::{AppArmorProfile, ContainerSecurity};

/// containerd's default capabilities.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Who a process runs as, in the container's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
}

/// What the machine and this process allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Names without `CAP_`, of this process's bounding set.
    pub capabilities: BTreeSet<String>,
    /// This process's `oom_score_adj`, if it may not go below it.
    pub oom_score_floor: Option<i32>,
    /// This process's hard limit of open files. Containers get no more.
    pub open_files: u64,
    /// What else to mask: the thermal statistics of each processor.
    pub masked_paths: Vec<String>,
    /// The options that the machine's cgroup file system of version 2 is mounted with, `nsdelegate` and the like.
    pub cgroup2_options: Vec<String>,
    /// How many users and groups there are, from 0 on, if this process is root of a user namespace only. It may mount what
    /// tells of that namespace's things, and nothing that tells of the machine's.
    pub ids: Option<u32>,
}

/// A device file of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Below `/dev`.
    pub path: PathBuf,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What a device file stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Block,
    Character,
}

pub(super) fn container_process(input: &ContainerInput<'_>) -> Result<Process, Error> {
    let security = &input.plan.security;
    let oom_score_adj = match input.host.oom_score_floor {
        Some(floor) => input.oom_score_adj.max(floor),
        None => input.oom_score_adj,
    };
    let mut process = ProcessBuilder::default()
        .terminal(input.plan.tty)
        .user(user(&input.user)?)
        .args(input.args.clone())
        .env(input.env.clone())
        .cwd(input.working_dir)
        .capabilities(capabilities(security, &input.user, input.host)?)
        .oom_score_adj(oom_score_adj)
        .build()?;
    process.set_rlimits(Some(vec![open_files(input.host.open_files)?]));
    if let AppArmorProfile::Localhost(profile) = &security.app_armor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    // An explicit `false` is not the same to libcontainer: it may then load no seccomp program.
    process.set_no_new_privileges(
        (security.allow_privilege_escalation == Some(false)).then_some(true),
    );
    Ok(process)
}

/// What runs `command` beside a container's own process: same user, environment, capabilities and limits.
#[must_use]
pub fn exec_process(spec: &Spec, command: Vec<String>, terminal: bool) -> Process {
    let mut process = super::process_of(spec);
    process.set_args(Some(command));
    process.set_terminal(Some(terminal));
    if terminal {
        let mut env = process.env().clone().unwrap_or_default();
        if !env.iter().any(|pair| pair.starts_with("TERM=")) {
            env.push("TERM=xterm".into());
        }
        process.set_env(Some(env));
    }
    process
}

fn user(user: &ResolvedUser) -> Result<User, Error> {
    Ok(UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .umask(0o022_u32)
        .additional_gids(user.additional_gids.clone())
        .build()?)
}

/// What containerd's containers have under systemd; from the shell that kplay was called from it would be anything.
/// The other limits are the executor's own.
fn open_files(hard: u64) -> Result<PosixRlimit, Error> {
    const SOFT: u64 = 1024;
    Ok(PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(SOFT.min(hard))
        .hard(hard)
        .build()?)
}

/// Without ambient capabilities, as in Kubernetes: those that a process of another user than root gets come from
/// file capabilities.
fn capabilities(
    security: &ContainerSecurity,
    user: &ResolvedUser,
    host: &HostFacts,
) -> Result<LinuxCapabilities, Error> {
    let names = capability_names(security, &host.capabilities);
    let bounding: std::collections::HashSet<Capability> =
        names.iter().filter_map(|name| name.parse().ok()).collect();
    let effective = if user.uid == 0 {
        bounding.clone()
    } else {
        std::collections::HashSet::new()
    };
    Ok(LinuxCapabilitiesBuilder::default()
        .bounding(bounding)
        .effective(effective.clone())
        .permitted(effective)
        .inheritable(std::collections::HashSet::new())
        .ambient(std::collections::HashSet::new())
        .build()?)
}

/// `ALL` counts before single names, and dropping one counts more than adding it (containerd's `WithCapabilities`).
fn capability_names(security: &ContainerSecurity, bounding: &BTreeSet<String>) -> BTreeSet<String> {
    if security.privileged {
        return bounding.clone();
    }
    let is_all = |names: &[String]| names.iter().any(|name| name == "ALL");
    let (add, drop) = (&security.capabilities_add, &security.capabilities_drop);
    let mut names: BTreeSet<String> = if is_all(drop) {
        BTreeSet::new()
    } else if is_all(add) {
        bounding.clone()
    } else {
        DEFAULT_CAPABILITIES.map(str::to_owned).into()
    };
    names.extend(add.iter().cloned());
    names.retain(|name| bounding.contains(name) && !drop.contains(name));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_and_dropped_as_in_kubernetes() {
        let check = |privileged: bool, add: &[&str], drop: &[&str], expected: &str| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let security = ContainerSecurity {
                privileged,
                capabilities_add: owned(add),
                capabilities_drop: owned(drop),
                ..ContainerSecurity::default()
            };
            let bounding = ["CHOWN", "KILL", "NET_ADMIN", "SYS_TIME"].map(str::to_owned);
            let names = capability_names(&security, &bounding.into());
            assert_eq!(names.into_iter().collect::<Vec<_>>().join(" "), expected);
        };
        check(false, &[], &[], "CHOWN KILL");
        check(false, &["NET_ADMIN"], &[], "CHOWN KILL NET_ADMIN");
        check(false, &[], &["KILL"], "CHOWN");
        check(false, &[], &["ALL"], "");
        check(false, &["KILL"], &["ALL"], "KILL");
        check(false, &["ALL"], &["KILL"], "CHOWN NET_ADMIN SYS_TIME");
        check(false, &["ALL"], &["ALL"], "");
        check(false, &["CHOWN"], &["CHOWN"], "KILL");
        check(false, &["CHOWN", "KILL"], &["CHOWN", "ALL"], "KILL");
        check(true, &[], &["ALL"], "CHOWN KILL NET_ADMIN SYS_TIME");
        check(false, &["SYS_MODULE"], &[], "CHOWN KILL");
        check(true, &[], &[], "CHOWN KILL NET_ADMIN SYS_TIME");
    }
}
