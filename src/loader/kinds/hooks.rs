//! `lifecycle` of a container: its hooks and its stop signal.

use k8s_openapi::api::core::v1 as core;

use super::super::node::At;
use super::super::report::Report;
use super::pod::PodScope;
use super::probe;
use crate::model::plan::{HookAction, Hooks};

/// What a hook may do, as the manifest names it.
const ACTIONS: [&str; 4] = ["exec", "httpGet", "sleep", "tcpSocket"];

/// The signals without a number, of those that the API server knows on Linux.
const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS",
    "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
    "XFSZ",
];

/// Reads `lifecycle`; faults are in the report.
pub(super) fn convert(
    container: &core::Container,
    at: At<'_>,
    pod: &PodScope<'_>,
) -> (Hooks, Option<String>) {
    let report = pod.scope.report;
    let at = at.field("lifecycle");
    let Some(lifecycle) = &container.lifecycle else {
        return (Hooks::default(), None);
    };
    // Another fault if it is negative.
    let grace = pod.spec.termination_grace_period_seconds.unwrap_or(30);
    let hook = |handler: &Option<core::LifecycleHandler>, field: &str| {
        let handler = handler.as_ref()?;
        let at = at.field(field);
        check_one(field, at, report)?;
        action(handler, field, at, container, grace, report)
    };
    let hooks = Hooks {
        post_start: hook(&lifecycle.post_start, "postStart"),
        pre_stop: hook(&lifecycle.pre_stop, "preStop"),
    };
    if let Some(signal) = &lifecycle.stop_signal {
        check_signal(signal, at.field("stopSignal"), pod);
    }
    (hooks, lifecycle.stop_signal.clone())
}

/// A hook does one thing.
fn check_one(name: &str, at: At<'_>, report: &Report) -> Option<()> {
    let written: Vec<&str> = ACTIONS
        .into_iter()
        .filter(|action| at.field(action).exists())
        .collect();
    match written.as_slice() {
        [_] => Some(()),
        [] => {
            let message = format!("`{name}` must say what to do");
            let hint = "add `exec`, `httpGet` or `sleep`";
            report.error_hint(at, message, hint);
            None
        }
        [first, second, ..] => {
            let message = format!("`{name}` can do one thing: `{first}` and `{second}` are set");
            report.error(at.key(second), message);
            None
        }
    }
}

fn action(
    handler: &core::LifecycleHandler,
    name: &str,
    at: At<'_>,
    container: &core::Container,
    grace: i64,
    report: &Report,
) -> Option<HookAction> {
    if let Some(get) = &handler.http_get {
        return probe::http_get(get, container, at.key("httpGet"), report).map(HookAction::HttpGet);
    }
    if let Some(exec) = &handler.exec {
        return probe::command(exec, at.key("exec"), report)
            .map(|command| HookAction::Exec { command });
    }
    if let Some(sleep) = &handler.sleep {
        let seconds = u32::try_from(sleep.seconds).ok();
        if !(0..=grace.max(0)).contains(&sleep.seconds) {
            let message = format!(
                "`seconds` must be between 0 and `terminationGracePeriodSeconds` ({grace}), is {}",
                sleep.seconds
            );
            report.error(at.path("sleep.seconds"), message);
        }
        return Some(HookAction::Sleep { seconds: seconds? });
    }
    if handler.tcp_socket.is_some() {
        let message = format!("`tcpSocket` fails when `{name}` runs, as in a kubelet");
        report.note(at.key("tcpSocket"), message);
        return Some(HookAction::TcpSocket);
    }
    None
}

fn check_signal(signal: &str, at: At<'_>, pod: &PodScope<'_>) {
    let report = pod.scope.report;
    if pod.spec.os.is_none() {
        let message = "`stopSignal` needs `spec.os.name`";
        report.error_hint(at, message, "add `os: {name: linux}` to the pod's `spec`");
    }
    if !is_signal(signal) {
        let message = format!("`stopSignal` must be the name of a signal, is `{signal}`");
        report.error_hint(at, message, "such as `SIGTERM`, `SIGINT` or `SIGRTMIN+3`");
    }
}

/// Whether the API server knows a signal of this name.
fn is_signal(text: &str) -> bool {
    let Some(name) = text.strip_prefix("SIG") else {
        return false;
    };
    let real_time = |prefix: &str, last: u8| {
        let number = name.strip_prefix(prefix);
        let number = number.filter(|number| !number.starts_with(['0', '+']));
        number
            .and_then(|number| number.parse().ok())
            .is_some_and(|number: u8| (1..=last).contains(&number))
    };
    SIGNALS.contains(&name) || real_time("RTMIN+", 15) || real_time("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_of_the_api_server() {
        for name in SIGNALS {
            assert!(is_signal(&format!("SIG{name}")), "{name}");
        }
        for name in ["SIGRTMIN+1", "SIGRTMIN+15", "SIGRTMAX-1", "SIGRTMAX-14"] {
            assert!(is_signal(name), "{name}");
        }
        for name in [
            "TERM",
            "sigterm",
            "15",
            "SIG",
            "",
            "SIGRTMIN+0",
            "SIGRTMIN+16",
            "SIGRTMAX-15",
            "SIGRTMIN+01",
            "SIGRTMIN++1",
            "SIGRTMIN-1",
            "SIGNOPE",
        ] {
            assert!(!is_signal(name), "{name}");
        }
    }
}
