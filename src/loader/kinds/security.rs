//! Security contexts: the pod's and the container's, merged.

use k8s_openapi::api::core::v1 as core;

use super::super::decode::closest;
use super::super::node::At;
use super::super::report::Report;
use super::pod::choice;
use super::profiles;
use super::sysctl::{self, AllowedSysctls};
use crate::model::diagnostic::Diagnostic;
use crate::model::plan::{
    ContainerSecurity, FsGroupChangePolicy, PodSecurity, ProcMount, SupplementalGroupsPolicy,
};

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

/// The parts that are the pod's own.
pub(super) fn pod(
    spec: &core::PodSpec,
    allowed_sysctls: &AllowedSysctls,
    at: At<'_>,
    report: &Report,
) -> PodSecurity {
    let Some(context) = &spec.security_context else {
        return PodSecurity::default();
    };
    // What is each container's is checked here, once.
    id(context.run_as_user, "runAsUser", at, report);
    id(context.run_as_group, "runAsGroup", at, report);
    profiles::seccomp(context.seccomp_profile.as_ref(), at, report);
    profiles::app_armor(context.app_armor_profile.as_ref(), at, report);
    let groups = context.supplemental_groups.iter().flatten().enumerate();
    let groups = groups.filter_map(|(index, group)| {
        let place = at.field("supplementalGroups").index(index);
        checked_id(*group, "supplementalGroups", place, report)
    });
    if spec.host_users == Some(false) {
        let own = [
            ("runAsUser", context.run_as_user),
            ("runAsGroup", context.run_as_group),
            ("fsGroup", context.fs_group),
        ];
        for (field, value) in own {
            check_own_id(value, field, at.field(field), report);
        }
        for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
            let place = at.field("supplementalGroups").index(index);
            check_own_id(Some(*group), "supplementalGroups", place, report);
        }
    }
    PodSecurity {
        fs_group: id(context.fs_group, "fsGroup", at, report),
        fs_group_change_policy: change_policy(context, at, report),
        supplemental_groups: groups.collect(),
        supplemental_groups_policy: groups_policy(context, at, report),
        sysctls: sysctl::convert(
            spec,
            context.sysctls.as_deref().unwrap_or_default(),
            allowed_sysctls,
            at.field("sysctls"),
            report,
        ),
    }
}

fn groups_policy(
    context: &core::PodSecurityContext,
    at: At<'_>,
    report: &Report,
) -> SupplementalGroupsPolicy {
    let policies = [
        ("Merge", SupplementalGroupsPolicy::Merge),
        ("Strict", SupplementalGroupsPolicy::Strict),
    ];
    let (text, field) = (
        context.supplemental_groups_policy.as_deref(),
        "supplementalGroupsPolicy",
    );
    text.and_then(|text| choice(text, &policies, field, at.field(field), report))
        .unwrap_or_default()
}

fn change_policy(
    context: &core::PodSecurityContext,
    at: At<'_>,
    report: &Report,
) -> FsGroupChangePolicy {
    let field = "fsGroupChangePolicy";
    let policies = [
        ("Always", FsGroupChangePolicy::Always),
        ("OnRootMismatch", FsGroupChangePolicy::OnRootMismatch),
    ];
    let text = context.fs_group_change_policy.as_deref();
    text.and_then(|text| choice(text, &policies, field, at.field(field), report))
        .unwrap_or_default()
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

/// A user namespace has ids of 16 bits. A kubelet says so when it starts the pod.
fn check_own_id(value: Option<i64>, field: &str, at: At<'_>, report: &Report) {
    // What is no id at all is told as such.
    if let Some(value) = value
        && (65_536..=i64::from(i32::MAX)).contains(&value)
    {
        report.error(
            at,
            format!("`{field}` must be at most 65535 with `hostUsers: false`, is {value}"),
        );
    }
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
    if spec.host_users == Some(false) {
        for (field, value) in [
            ("runAsUser", own.run_as_user),
            ("runAsGroup", own.run_as_group),
        ] {
            check_own_id(value, field, at.field(field), report);
        }
    }
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
    if proc_mount == "Unmasked" && spec.host_users != Some(false) {
        // The API server's words.
        let message = "`hostUsers` must be false to use `Unmasked`";
        report.error(at.field("procMount"), message);
    }
    // Those of the pod were checked in `pod`.
    let unseen = Report::default();
    let seccomp = match &own.seccomp_profile {
        Some(own) => profiles::seccomp(Some(own), at, report),
        None => profiles::seccomp(pods.seccomp_profile.as_ref(), at, &unseen),
    };
    let app_armor = match &own.app_armor_profile {
        Some(own) => profiles::app_armor(Some(own), at, report),
        None => profiles::app_armor(pods.app_armor_profile.as_ref(), at, &unseen),
    };
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
        app_armor: app_armor.unwrap_or_default(),
        proc_mount: match proc_mount {
            "Unmasked" => ProcMount::Unmasked,
            _ => ProcMount::Masked,
        },
    }
}

fn capability_names(names: Option<Vec<String>>, at: At<'_>, report: &Report) -> Vec<String> {
    let mut checked = Vec::new();
    for (index, name) in names.into_iter().flatten().enumerate() {
        // Small letters are as good: the runtime makes them capital.
        let upper = name.to_ascii_uppercase();
        if CAPABILITIES.contains(&upper.as_str()) {
            checked.push(upper);
            continue;
        }
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
