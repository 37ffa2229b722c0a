//! Security contexts: the pod's and the container's, merged.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use super::super::decode::closest;
use super::super::node::At;
use super::super::report::Report;
use super::pod::choice;
use crate::model::diagnostic::{Diagnostic, Severity};
use crate::model::plan::{ContainerSecurity, PodSecurity, SeccompProfile};

const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// What a kubelet allows without being told to.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The parts that are the pod's own.
pub(super) fn pod(spec: &core::PodSpec, at: At<'_>, report: &Report) -> PodSecurity {
    let Some(context) = &spec.security_context else {
        return PodSecurity::default();
    };
    // The user and group are each container's, but they are checked here, once.
    id(context.run_as_user, "runAsUser", at, report);
    id(context.run_as_group, "runAsGroup", at, report);
    check_seccomp(context.seccomp_profile.as_ref(), at, report);
    let groups = context.supplemental_groups.iter().flatten().enumerate();
    let groups = groups.filter_map(|(index, group)| {
        let place = at.field("supplementalGroups").index(index);
        checked_id(*group, "supplementalGroups", place, report)
    });
    PodSecurity {
        fs_group: id(context.fs_group, "fsGroup", at, report),
        supplemental_groups: groups.collect(),
        sysctls: sysctls(
            spec,
            context.sysctls.as_deref().unwrap_or_default(),
            at.field("sysctls"),
            report,
        ),
    }
}

fn id(value: Option<i64>, field: &str, at: At<'_>, report: &Report) -> Option<u32> {
    value.and_then(|value| checked_id(value, field, at.field(field), report))
}

/// Kubernetes allows ids up to 2^31 - 1.
fn checked_id(value: i64, field: &str, at: At<'_>, report: &Report) -> Option<u32> {
    let checked = i32::try_from(value)
        .ok()
        .and_then(|value| u32::try_from(value).ok());
    if checked.is_none() {
        report.error(
            at,
            format!("`{field}` must be between 0 and 2147483647, is {value}"),
        );
    }
    checked
}

fn sysctls(
    spec: &core::PodSpec,
    sysctls: &[core::Sysctl],
    at: At<'_>,
    report: &Report,
) -> BTreeMap<String, String> {
    let mut checked = BTreeMap::new();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let place = at.index(index).field("name");
        // Both separators are written; the first one says which it is.
        let slashes = sysctl
            .name
            .find(['.', '/'])
            .is_some_and(|first| sysctl.name.as_bytes().get(first) == Some(&b'/'));
        let name = match slashes {
            true => sysctl
                .name
                .replace('.', "\0")
                .replace('/', ".")
                .replace('\0', "/"),
            false => sysctl.name.clone(),
        };
        if let Some(fault) = sysctl_fault(&name, spec) {
            report.push(fault.at(place.place()));
        }
        if checked.insert(name.clone(), sysctl.value.clone()).is_some() {
            report.error(place, format!("the sysctl `{name}` is set twice"));
        }
    }
    checked
}

fn sysctl_fault(name: &str, spec: &core::PodSpec) -> Option<Diagnostic> {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let edge =
            |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: &u8| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'/')
        };
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
    };
    if name.len() > 253 || !name.split('.').all(part) {
        return Some(Diagnostic::error(format!(
            "`{name}` is not the name of a sysctl"
        )));
    }
    let net = name.starts_with("net.");
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || name == "kernel.sem";
    if !net && !ipc {
        return Some(Diagnostic::error(format!(
            "the sysctl `{name}` is the whole machine's, not a pod's"
        )));
    }
    if net && spec.host_network == Some(true) {
        return Some(Diagnostic::error(format!(
            "the sysctl `{name}` does not go with `hostNetwork`"
        )));
    }
    if ipc && spec.host_ipc == Some(true) {
        return Some(Diagnostic::error(format!(
            "the sysctl `{name}` does not go with `hostIPC`"
        )));
    }
    (!SAFE_SYSCTLS.contains(&name)).then(|| {
        let message = format!(
            "the sysctl `{name}` is set, but a kubelet refuses it unless it is told to allow it"
        );
        Diagnostic::new(Severity::Warning, message)
    })
}

/// A container's context, completed from its pod's.
pub(super) fn container(
    container: &core::Container,
    spec: &core::PodSpec,
    at: At<'_>,
    report: &Report,
) -> ContainerSecurity {
    let own = container.security_context.clone().unwrap_or_default();
    let pods = spec.security_context.clone().unwrap_or_default();
    id(own.run_as_user, "runAsUser", at, report);
    id(own.run_as_group, "runAsGroup", at, report);
    // Checked above and in `pod`.
    let merged =
        |own: Option<i64>, pods: Option<i64>| own.or(pods).and_then(|id| u32::try_from(id).ok());
    let capabilities = own.capabilities.unwrap_or_default();
    let capabilities_at = at.field("capabilities");
    let capabilities_add = capability_names(capabilities.add, capabilities_at.field("add"), report);
    let capabilities_drop =
        capability_names(capabilities.drop, capabilities_at.field("drop"), report);
    let privileged = own.privileged == Some(true);
    if own.allow_privilege_escalation == Some(false) {
        let place = at.field("allowPrivilegeEscalation");
        if privileged {
            report.error(
                place,
                "`allowPrivilegeEscalation: false` does not go with `privileged: true`",
            );
        }
        if capabilities_add.iter().any(|name| name == "SYS_ADMIN") {
            report.error(
                place,
                "`allowPrivilegeEscalation: false` does not go with the capability `SYS_ADMIN`",
            );
        }
    }
    let proc_mount = own.proc_mount.as_deref().unwrap_or("Default");
    if !["", "Default", "Unmasked"].contains(&proc_mount) {
        let message = format!("`procMount` must be `Default` or `Unmasked`, is `{proc_mount}`");
        report.error(at.field("procMount"), message);
    }
    let own_seccomp = own.seccomp_profile.as_ref();
    check_seccomp(own_seccomp, at, report);
    let seccomp = seccomp(own_seccomp.or(pods.seccomp_profile.as_ref()));
    ContainerSecurity {
        run_as_user: merged(own.run_as_user, pods.run_as_user),
        run_as_group: merged(own.run_as_group, pods.run_as_group),
        run_as_non_root: own.run_as_non_root.or(pods.run_as_non_root) == Some(true),
        privileged,
        read_only_root_filesystem: own.read_only_root_filesystem == Some(true),
        allow_privilege_escalation: own.allow_privilege_escalation,
        capabilities_add,
        capabilities_drop,
        seccomp: seccomp.unwrap_or_default(),
    }
}

/// `None` for what there is not; a `Localhost` profile is refused by the table of unsupported fields.
fn seccomp(profile: Option<&core::SeccompProfile>) -> Option<SeccompProfile> {
    match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => Some(SeccompProfile::RuntimeDefault),
        Some("Unconfined") => Some(SeccompProfile::Unconfined),
        _ => None,
    }
}

fn check_seccomp(profile: Option<&core::SeccompProfile>, at: At<'_>, report: &Report) {
    let kinds = ["RuntimeDefault", "Unconfined", "Localhost"].map(|kind| (kind, ()));
    if let Some(profile) = profile {
        let at = at.key("seccompProfile");
        choice(&profile.type_, &kinds, "type", at.field("type"), report);
    }
}

fn capability_names(names: Option<Vec<String>>, at: At<'_>, report: &Report) -> Vec<String> {
    let mut checked = Vec::new();
    for (index, name) in names.into_iter().flatten().enumerate() {
        if CAPABILITIES.contains(&name.as_str()) {
            checked.push(name);
            continue;
        }
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let fault = Diagnostic::error(format!("there is no capability `{name}`"))
            .at(at.index(index).place());
        report.push(match closest(bare, &CAPABILITIES) {
            Some(close) => fault.hint(format!("did you mean `{close}`?")),
            None => fault.hint("capabilities are written without `CAP_`, such as `NET_ADMIN`"),
        });
    }
    checked
}
