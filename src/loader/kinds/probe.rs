//! Probes of a container, and what they share with its hooks.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::decode::closest;
use super::super::node::At;
use super::super::report::Report;
use super::pod::{PodScope, choice};
use crate::model::expansion::expand;
use crate::model::plan::{Check, HttpGet, Probe, Probes, Transport};

/// Reads the probes of one container; faults are in the report. The API server's defaults have been filled in.
pub(super) fn convert(container: &core::Container, at: At<'_>, pod: &PodScope<'_>) -> Probes {
    let reader = Reader {
        container,
        report: pod.scope.report,
    };
    let read = |probe: &Option<core::Probe>, kind: Kind| {
        let probe = probe.as_ref()?;
        reader.probe(probe, kind, at.field(kind.field()))
    };
    Probes {
        startup: read(&container.startup_probe, Kind::Startup),
        liveness: read(&container.liveness_probe, Kind::Liveness),
        readiness: read(&container.readiness_probe, Kind::Readiness),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn field(self) -> &'static str {
        match self {
            Self::Startup => "startupProbe",
            Self::Liveness => "livenessProbe",
            Self::Readiness => "readinessProbe",
        }
    }
}

/// What a probe may do, as the manifest names it.
const CHECKS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];

/// Reads what belongs to one container.
struct Reader<'a> {
    container: &'a core::Container,
    report: &'a Report,
}

impl Reader<'_> {
    fn probe(&self, probe: &core::Probe, kind: Kind, at: At<'_>) -> Option<Probe> {
        let number = |value: Option<i32>, field| self.number(value, field, at);
        let initial_delay = number(probe.initial_delay_seconds, "initialDelaySeconds");
        let timeout = number(probe.timeout_seconds, "timeoutSeconds");
        let period = number(probe.period_seconds, "periodSeconds");
        let success_threshold = number(probe.success_threshold, "successThreshold");
        let failure_threshold = number(probe.failure_threshold, "failureThreshold");
        if kind != Kind::Readiness && success_threshold.is_some_and(|threshold| threshold != 1) {
            let message = format!("`successThreshold` of a `{}` must be 1", kind.field());
            self.report.error(at.field("successThreshold"), message);
        }
        let grace = self.grace(probe.termination_grace_period_seconds, kind, at);
        Some(Probe {
            check: self.check(probe, kind, at)?,
            initial_delay: initial_delay?,
            timeout: timeout?,
            period: period?,
            success_threshold: success_threshold?,
            failure_threshold: failure_threshold?,
            termination_grace_period: grace,
        })
    }

    fn number(&self, value: Option<i32>, field: &str, at: At<'_>) -> Option<u32> {
        let value = value.unwrap_or_default();
        let number = u32::try_from(value).ok();
        if number.is_none() {
            let message = format!("`{field}` must not be negative, is {value}");
            self.report.error(at.field(field), message);
        }
        number
    }

    fn grace(&self, seconds: Option<i64>, kind: Kind, at: At<'_>) -> Option<u32> {
        let place = at.field("terminationGracePeriodSeconds");
        let seconds = seconds?;
        if kind == Kind::Readiness {
            let message = "a `readinessProbe` may not have `terminationGracePeriodSeconds`";
            let hint = "it ends no container; `livenessProbe` and `startupProbe` may";
            self.report.error_hint(place, message, hint);
            return None;
        }
        let grace = u32::try_from(seconds).ok().filter(|grace| *grace > 0);
        if grace.is_none() {
            let message = format!(
                "`terminationGracePeriodSeconds` must be between 1 and 4294967295, is {seconds}"
            );
            self.report.error(place, message);
        }
        grace
    }

    fn check(&self, probe: &core::Probe, kind: Kind, at: At<'_>) -> Option<Check> {
        let mut written = CHECKS.into_iter().filter(|check| at.field(check).exists());
        match (written.next(), written.next()) {
            (Some(_), None) => {}
            (None, _) => {
                let message = format!("`{}` must say what to do", kind.field());
                let hint = "add `exec`, `httpGet`, `tcpSocket` or `grpc`";
                self.report.error_hint(at, message, hint);
                return None;
            }
            (Some(first), Some(second)) => {
                let message = format!(
                    "`{}` can do one thing: `{first}` and `{second}` are set",
                    kind.field()
                );
                self.report.error(at.key(second), message);
                return None;
            }
        }
        if let Some(exec) = &probe.exec {
            let words = command(exec, at.key("exec"), self.report)?;
            return Some(Check::Exec {
                command: self.expanded(words),
            });
        }
        if let Some(get) = &probe.http_get {
            return http_get(get, self.container, at.key("httpGet"), self.report).map(Check::Http);
        }
        if let Some(socket) = &probe.tcp_socket {
            return Some(Check::Tcp {
                host: socket.host.clone().filter(|host| !host.is_empty()),
                port: port(
                    &socket.port,
                    self.container,
                    at.key("tcpSocket"),
                    self.report,
                )?,
            });
        }
        self.grpc(probe.grpc.as_ref()?, at.key("grpc"))
    }

    fn grpc(&self, grpc: &core::GRPCAction, at: At<'_>) -> Option<Check> {
        let modes = [("Plaintext", Transport::Plain), ("TLS", Transport::Tls)];
        let mode = grpc.mode.as_deref().unwrap_or("Plaintext");
        let transport = choice(mode, &modes, "mode", at.field("mode"), self.report);
        Some(Check::Grpc {
            port: port_number(grpc.port, at, self.report)?,
            service: grpc.service.clone().unwrap_or_default(),
            transport: transport?,
        })
    }

    /// `$(NAME)` of a probe's command stands for what `env` has literally, and for nothing if that comes from elsewhere.
    fn expanded(&self, words: Vec<String>) -> Vec<String> {
        let value = |name: &str| {
            let mut variables = self.container.env.iter().flatten().rev();
            let variable = variables.find(|variable| variable.name == name)?;
            Some(variable.value.clone().unwrap_or_default())
        };
        words.iter().map(|word| expand(word, &value)).collect()
    }
}

/// The command of an `exec`.
pub(super) fn command(exec: &core::ExecAction, at: At<'_>, report: &Report) -> Option<Vec<String>> {
    let command = exec.command.clone().unwrap_or_default();
    if command.is_empty() {
        report.error(at, "`exec` must have a `command`");
        return None;
    }
    let with_nul = command.iter().position(|word| word.contains('\0'));
    if let Some(index) = with_nul {
        let place = at.field("command").index(index);
        report.error(place, "`command` must not have a NUL character");
    }
    Some(command)
}

/// Reads an `httpGet`, whose port may be the name of one of the container's.
pub(super) fn http_get(
    get: &core::HTTPGetAction,
    container: &core::Container,
    at: At<'_>,
    report: &Report,
) -> Option<HttpGet> {
    let schemes = [("HTTP", Transport::Plain), ("HTTPS", Transport::Tls)];
    let scheme = get.scheme.as_deref().unwrap_or_default();
    let transport = choice(scheme, &schemes, "scheme", at.field("scheme"), report);
    let mut headers = Vec::new();
    for (index, header) in get.http_headers.iter().flatten().enumerate() {
        if !is_header_name(&header.name) {
            let place = at.field("httpHeaders").index(index).field("name");
            let message = format!("`{}` is not the name of a header", header.name);
            report.error_hint(place, message, "letters, digits and `-` make one");
        }
        headers.push((header.name.clone(), header.value.clone()));
    }
    let port = port(&get.port, container, at, report);
    Some(HttpGet {
        transport: transport?,
        host: get.host.clone().filter(|host| !host.is_empty()),
        port: port?,
        path: get.path.clone().unwrap_or_default(),
        headers,
    })
}

/// The API server's rule (`validation.IsHTTPHeaderName`).
fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The `port` of an action, by number or by name.
fn port(
    port: &IntOrString,
    container: &core::Container,
    at: At<'_>,
    report: &Report,
) -> Option<u16> {
    let name = match port {
        IntOrString::Int(number) => return port_number(*number, at, report),
        IntOrString::String(name) => name,
    };
    let mut ports = container.ports.iter().flatten();
    if let Some(found) = ports.find(|port| port.name.as_ref() == Some(name)) {
        // Another fault if it is no port.
        return u16::try_from(found.container_port).ok();
    }
    let place = at.field("port");
    let message = format!("container `{}` has no port `{name}`", container.name);
    let names: Vec<&str> = container
        .ports
        .iter()
        .flatten()
        .filter_map(|port| port.name.as_deref())
        .collect();
    let hint = match (closest(name, &names), name.parse::<u16>()) {
        (_, Ok(number)) => format!("write the number without quotes: {number}"),
        (Some(close), _) => format!("did you mean `{close}`?"),
        (None, Err(_)) if names.is_empty() => "give one of its `ports` this `name`".to_owned(),
        (None, Err(_)) => {
            let list: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            format!("its ports are {}", list.join(", "))
        }
    };
    report.error_hint(place, message, hint);
    None
}

fn port_number(number: i32, at: At<'_>, report: &Report) -> Option<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    if port.is_none() {
        let message = format!("`port` must be between 1 and 65535, is {number}");
        report.error(at.field("port"), message);
    }
    port
}
