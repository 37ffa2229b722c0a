//! `sysctls` of a pod: those that are a pod's own, and that a kubelet lets pods set.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use super::super::node::At;
use super::super::report::Report;
use crate::model::diagnostic::Diagnostic;

/// What a kubelet allows without being told to. It does not allow some of them on kernels before 4.15, which lack them
/// in namespaces; on those kplay does not run.
const SAFE: [&str; 12] = [
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

/// Which other sysctls may be set: names, or beginnings of names with a `*` behind, as of a kubelet's
/// `--allowed-unsafe-sysctls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedSysctls(Vec<String>);

impl AllowedSysctls {
    /// These names and beginnings.
    #[must_use]
    pub fn new(patterns: &[String]) -> Self {
        Self(patterns.iter().map(|pattern| dotted(pattern)).collect())
    }

    fn contain(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => name == pattern,
            })
    }
}

/// The sysctls of a pod, by their names with dots.
pub(super) fn convert(
    spec: &core::PodSpec,
    sysctls: &[core::Sysctl],
    allowed: &AllowedSysctls,
    at: At<'_>,
    report: &Report,
) -> BTreeMap<String, String> {
    let mut checked = BTreeMap::new();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let place = at.index(index).field("name");
        let name = dotted(&sysctl.name);
        if let Some(fault) = fault(&name, spec, allowed) {
            report.push(fault.at(place.place()));
        }
        if checked.insert(name.clone(), sysctl.value.clone()).is_some() {
            report.error(place, format!("the sysctl `{name}` is set twice"));
        }
    }
    checked
}

/// Both separators are written; the first one says which it is.
fn dotted(name: &str) -> String {
    let separator = name.chars().find(|c| matches!(c, '.' | '/'));
    if separator != Some('/') {
        return name.to_owned();
    }
    let swapped = name.chars().map(|c| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    });
    swapped.collect()
}

fn fault(name: &str, spec: &core::PodSpec, allowed: &AllowedSysctls) -> Option<Diagnostic> {
    if name.len() > 253 || !name.split('.').all(is_part) {
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
    for (its, host, field) in [
        (net, spec.host_network, "hostNetwork"),
        (ipc, spec.host_ipc, "hostIPC"),
    ] {
        if its && host == Some(true) {
            return Some(Diagnostic::error(format!(
                "the sysctl `{name}` does not go with `{field}`"
            )));
        }
    }
    (!SAFE.contains(&name) && !allowed.contain(name)).then(|| {
        let message = format!(
            "the sysctl `{name}` is not among those that every pod may set (SysctlForbidden)"
        );
        let hint = format!("`--allowed-unsafe-sysctls {name}` allows it, as a kubelet's flag does");
        Diagnostic::error(message).hint(hint)
    })
}

/// Between two dots.
fn is_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes
            .iter()
            .all(|b| plain(b) || matches!(b, b'-' | b'_' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_set_what() {
        let check = |name: &str, host_network: bool, allowed: &[&str], expected: Option<&str>| {
            let spec = core::PodSpec {
                host_network: Some(host_network),
                ..core::PodSpec::default()
            };
            let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
            let fault = fault(&dotted(name), &spec, &AllowedSysctls::new(&allowed));
            let message = fault.map(|fault| fault.message);
            assert!(
                message
                    .as_deref()
                    .map(|m| m.contains(expected.unwrap_or("?")))
                    == expected.map(|_| true),
                "{name}: {message:?}"
            );
        };
        for name in SAFE {
            check(name, false, &[], None);
            check(&name.replace('.', "/"), false, &[], None);
        }
        check(
            "net.ipv4.tcp_rmem",
            true,
            &[],
            Some("does not go with `hostNetwork`"),
        );
        check("kernel.shm_rmid_forced", true, &[], None);
        check("net.core.somaxconn", false, &[], Some("SysctlForbidden"));
        check("net.core.somaxconn", false, &["net.core.somaxconn"], None);
        check("net/core/somaxconn", false, &["net.core.*"], None);
        check("net.core.somaxconn", false, &["net/core/*"], None);
        check(
            "net.core.somaxconn",
            false,
            &["net.core"],
            Some("SysctlForbidden"),
        );
        check("net.ipv4.conf.eth0/1.forwarding", false, &["net.*"], None);
        // Of the machine's own IPC namespace.
        let spec = core::PodSpec {
            host_ipc: Some(true),
            ..core::PodSpec::default()
        };
        for name in [
            "kernel.shm_rmid_forced",
            "kernel/msgmax",
            "kernel.sem",
            "fs.mqueue.msg_max",
        ] {
            let told = fault(&dotted(name), &spec, &AllowedSysctls::default());
            let told = told.map(|fault| fault.message).unwrap_or_default();
            assert!(
                told.ends_with("does not go with `hostIPC`"),
                "{name}: {told}"
            );
        }
        // What a kubelet cannot allow either.
        check("kernel.panic", false, &["*"], Some("whole machine's"));
        check("net.core.*", false, &["*"], Some("not the name"));
        check("kernel.sem", false, &["kernel.sem"], None);
    }
}
