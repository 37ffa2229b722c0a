//! What can go wrong in a command, and the exit code of each kind: the contract with scripts.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done; with `--wait` and `wait`: and the condition holds |
//! | 1 | a workload failed |
//! | 2 | wrong usage |
//! | 3 | a manifest is wrong |
//! | 4 | the machine or a registry said no |
//! | 5 | not found |
//! | 70 | a bug in kplay |
//! | 124 | the timeout passed |
//! | 130, 143 | ended by SIGINT, SIGTERM |
//! | other | `exec`: the command's; `up --exit-code-from`: the container's |

use std::io;

use crate::image::Class;
use crate::manager::doctor::Check;
use crate::manager::port_forward::Fault as Forward;
use crate::manager::ports::{User, Why};
use crate::manager::rootless;
use crate::manager::services::Fault;
use crate::model::cause::chain;
use crate::model::names::{Namespace, ObjectKey, PodKey};
use crate::protocol::{FailureClass, Refusal};
use crate::sys::userns;
use crate::{image, loader, manager, output, state, sys};

/// A workload failed.
pub(crate) const WORKLOAD: u8 = 1;
/// Wrong usage; clap's own code, too.
pub(crate) const USAGE: u8 = 2;
/// A manifest is wrong.
pub(crate) const MANIFEST: u8 = 3;
/// The machine or a registry said no.
pub(crate) const MACHINE: u8 = 4;
/// Not found.
pub(crate) const NOT_FOUND: u8 = 5;
/// A bug in kplay.
pub(crate) const BUG: u8 = 70;
/// The timeout passed; `timeout(1)`'s own code, too.
pub(crate) const TIMEOUT: u8 = 124;
/// What a signal's number is added to.
pub(crate) const SIGNAL: u8 = 128;

/// How a command ended that did what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Well,
    /// With the exit code of something else: a command's, a container's.
    With(u8),
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Usage(String),
    /// The faults have been told.
    #[error("the manifests are wrong")]
    Manifest,
    /// In a `.kube` file.
    #[error("{place}: {what}")]
    Kube { place: String, what: String },
    #[error("{message}")]
    NotFound { message: String, hint: String },
    /// SIGINT, SIGTERM or SIGHUP.
    #[error("interrupted by signal {0}")]
    Signal(i32),
    #[error("cannot log in at `{registry}`")]
    Login {
        registry: String,
        source: Box<image::RegistryFault>,
    },
    #[error("cannot {what}")]
    Machine {
        what: &'static str,
        source: io::Error,
    },
    /// The machine or a running pod said no, in these words.
    #[error("{0}")]
    Refused(String),
    /// The machine is not fit for pods, and what would mend it.
    #[error("{cause}")]
    Unfit {
        #[source]
        cause: Box<manager::Error>,
        faults: Vec<Check>,
    },
    #[error(transparent)]
    File(#[from] sys::fs::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
    #[error(transparent)]
    Source(#[from] loader::source::Error),
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    Logs(#[from] state::logs::Error),
    #[error(transparent)]
    Image(Box<image::Error>),
    #[error(transparent)]
    Manager(#[from] manager::Error),
}

impl Error {
    /// Wrong usage that clap cannot see.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// The exit code; see the module's table.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Manifest | Self::Kube { .. } => MANIFEST,
            Self::NotFound { .. } => NOT_FOUND,
            Self::Signal(number) | Self::State(state::Error::Interrupted { signal: number }) => {
                signal_code(*number)
            }
            Self::Output(output::Error::Closed) => 0,
            Self::Logs(state::logs::Error::Output(error)) if is_closed(error) => 0,
            Self::Source(loader::source::Error::NoManifest { .. }) => MANIFEST,
            Self::Image(error) if error.class() == Class::NotStored => NOT_FOUND,
            Self::Manager(error) => manager_code(error),
            Self::Unfit { cause, .. } => manager_code(cause),
            Self::Machine { .. }
            | Self::Login { .. }
            | Self::Refused(_)
            | Self::File(_)
            | Self::Source(_)
            | Self::Output(_)
            | Self::State(_)
            | Self::Logs(_)
            | Self::Image(_) => MACHINE,
        }
    }

    /// Tells it, and what to do about it.
    pub(crate) fn tell(&self, ui: &output::Ui) {
        match self {
            // All has been told, or the reader has gone, or who interrupted it knows.
            Self::Manifest | Self::Signal(_) => return,
            _ if self.code() == 0 => return,
            Self::Manager(error) => return tell_manager(error, ui),
            Self::Unfit { cause, faults } => {
                match &**cause {
                    // What follows is said of this machine, the hint would be of all.
                    cause @ manager::Error::Rootless(_) => ui.error(cause),
                    cause => tell_manager(cause, ui),
                }
                return faults.iter().for_each(|fault| tell_fault(fault, ui));
            }
            _ => ui.error(self),
        }
        if let Some(hint) = self.hint() {
            ui.hint(&hint);
        }
    }

    /// What to do about it, where that is known.
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { hint, .. } => Some(hint.clone()),
            Self::Image(error) => image_hint(error),
            Self::Login { source, .. } => class_hint(source.class()).map(str::to_owned),
            _ => None,
        }
    }
}

/// What of the machine is in the way, as `system doctor` says it.
fn tell_fault(fault: &Check, ui: &output::Ui) {
    ui.error_text(&format!("{}: {}", fault.name, fault.detail));
    if let Some(remedy) = &fault.remedy {
        ui.hint(remedy);
    }
}

/// Errors that hold several are told one by one.
fn tell_manager(error: &manager::Error, ui: &output::Ui) {
    use manager::Error as E;
    match error {
        E::Interrupted { .. } => return,
        E::Several(errors) => return errors.iter().for_each(|error| tell_manager(error, ui)),
        E::RolledBack { cause, failures } => {
            tell_manager(cause, ui);
            if failures.is_empty() {
                ui.note("what was done is undone");
            }
            for failure in failures {
                ui.error_text(&format!("cannot undo a step: {}", chain(failure)));
            }
            return;
        }
        E::Images(missing) => return missing.iter().for_each(|missing| tell_missing(missing, ui)),
        _ => ui.error(error),
    }
    if let Some(hint) = manager_hint(error) {
        ui.hint(&hint);
    }
}

fn tell_missing(missing: &manager::error::MissingImage, ui: &output::Ui) {
    let wanted = missing
        .users
        .iter()
        .map(|(pod, user)| format!("{user} of the pod `{pod}`"));
    let wanted: Vec<String> = wanted.collect();
    ui.error_text(&format!(
        "cannot have the image `{}` for {}: {}",
        missing.reference,
        wanted.join(", "),
        chain(missing)
    ));
    let cause = missing.source.as_deref();
    let hint = cause
        .and_then(|cause| cause.downcast_ref())
        .and_then(image_hint);
    if let Some(hint) = hint {
        ui.hint(&hint);
    }
}

impl From<image::Error> for Error {
    fn from(error: image::Error) -> Self {
        Self::Image(Box::new(error))
    }
}

fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// What a shell reports of a command that a signal ended.
pub(crate) fn signal_code(number: i32) -> u8 {
    u8::try_from(number).map_or(u8::MAX, |number| SIGNAL.saturating_add(number))
}

fn manager_code(error: &manager::Error) -> u8 {
    use manager::Error as E;
    match error {
        E::Interrupted { signal } | E::State(state::Error::Interrupted { signal }) => {
            signal_code(*signal)
        }
        E::TimedOut { .. } => TIMEOUT,
        E::NotFound { .. } | E::Forward(Forward::NoPort { .. } | Forward::NoPods(_)) => NOT_FOUND,
        E::Forward(Forward::Udp { .. }) => USAGE,
        E::Ambiguous { .. } | E::UnknownKind(_) => USAGE,
        E::Conflict { .. } | E::Immutable { .. } => MANIFEST,
        E::Service { fault, .. } if fault.is_of_manifest() => MANIFEST,
        E::RolledBack { cause, .. } => manager_code(cause),
        // All are told; the first decides.
        E::Several(errors) => errors.first().map_or(MACHINE, manager_code),
        E::Launch { failure, .. } => match failure.class {
            FailureClass::Machine => MACHINE,
            FailureClass::Start | FailureClass::Workload => WORKLOAD,
        },
        E::Workload { .. } => WORKLOAD,
        E::Refused { reason, .. } => match reason {
            Refusal::NoSuchContainer => NOT_FOUND,
            Refusal::CommandNotFound => 127,
            Refusal::CannotExecute => 126,
            Refusal::NotRunning | Refusal::Failed => MACHINE,
        },
        E::Images(_)
        | E::Port(_)
        | E::Forward(Forward::NoSelector(_) | Forward::Listen { .. })
        | E::Network(_)
        | E::State(_)
        | E::Io { .. }
        | E::Service { .. }
        | E::InUse { .. }
        | E::NoIds { .. }
        | E::NotRoot
        | E::Rootless(_)
        | E::Spawn { .. }
        | E::ExecutorDied { .. }
        | E::Undead { .. }
        | E::Leftovers { .. }
        | E::NotRunning { .. }
        | E::Control { .. } => MACHINE,
    }
}

fn manager_hint(error: &manager::Error) -> Option<String> {
    use manager::Error as E;
    match error {
        E::Workload { pod, .. } => Some(more_about(pod)),
        E::Launch { pod, failure } => Some(match failure.class {
            FailureClass::Workload => more_about(pod),
            FailureClass::Machine | FailureClass::Start => {
                "`--no-rollback` leaves the pod as it is, to be looked at".to_owned()
            }
        }),
        E::Conflict { .. } => Some("give one of the two another name or namespace".to_owned()),
        E::Service { service, fault } => service_hint(service, fault),
        E::Port(taken) => match &taken.why {
            Why::Ours(User::Pod(pod)) => Some(format!(
                "`kplay delete pod {}{}` first, or publish another port",
                pod.name,
                flag(&pod.namespace)
            )),
            Why::Roots { .. } => Some(format!(
                "publish another port, or have root allow it to all: `sysctl -w net.ipv4.ip_unprivileged_port_start={}`",
                taken.port
            )),
            Why::Ours(User::Service(_)) | Why::Twice | Why::Foreign(_) => None,
        },
        E::Forward(Forward::NoPods(service)) => {
            Some(format!("`kplay describe service {service}` says which"))
        }
        E::NoIds { .. } => Some(
            "delete pods, or give `kubelet` more in /etc/subuid and /etc/subgid: 65536 for each pod".to_owned(),
        ),
        E::Immutable { key, .. } => Some(format!(
            "give it another name, or `kplay delete {key}` first"
        )),
        E::InUse { pod, .. } => Some(format!("`kplay delete pod {}` first", pod.name)),
        E::Rootless(error) => rootless_hint(error),
        E::NotRoot => {
            Some("run it as another user than root, or with that capability".to_owned())
        }
        E::Undead { .. } | E::Leftovers { .. } => {
            Some("`kplay delete pod NAME --force` tries again".to_owned())
        }
        _ => None,
    }
}

fn rootless_hint(error: &rootless::Error) -> Option<String> {
    use userns::Error as U;
    let rootless::Error::Make(error) = error else {
        return None;
    };
    match error {
        U::Refused { .. } => Some(
            "the machine's root may allow them: `sysctl -w user.max_user_namespaces=15000`, on Debian \
             `kernel.unprivileged_userns_clone=1`, on Ubuntu `kernel.apparmor_restrict_unprivileged_userns=0`"
                .to_owned(),
        ),
        U::NotGiven { .. } => Some(
            "the machine's root can give ids that nobody else has: `usermod --add-subuids 100000-165535 --add-subgids \
             100000-165535 USER`; and the program must be setuid root, or have its capability"
                .to_owned(),
        ),
        U::NoProgram { .. } | U::System { .. } => None,
    }
}

fn service_hint(service: &ObjectKey, fault: &Fault) -> Option<String> {
    let has = |holder: &ObjectKey, field: &str| {
        let namespace = &holder.namespace;
        Some(format!(
            "{holder} of namespace `{namespace}` has it; without `{field}` a free one is allocated"
        ))
    };
    match fault {
        Fault::AddressTaken { holder, .. } => has(holder, "clusterIP"),
        Fault::PortTaken { holder, .. } => has(holder, "nodePort"),
        Fault::Fixed { .. } => {
            let (name, namespace) = (&service.name, flag(&service.namespace));
            Some(format!("`kplay delete service {name}{namespace}` first"))
        }
        Fault::NoAddress { .. } | Fault::NoNodePort => None,
    }
}

/// How a command names a namespace.
fn flag(namespace: &Namespace) -> String {
    match namespace.as_str() {
        "default" => String::new(),
        other => format!(" -n {other}"),
    }
}

fn more_about(pod: &PodKey) -> String {
    let (name, namespace) = (&pod.name, flag(&pod.namespace));
    format!(
        "`kplay describe pod {name}{namespace}` and `kplay logs {name}{namespace} --all-containers` say more"
    )
}

fn image_hint(error: &image::Error) -> Option<String> {
    match error {
        image::Error::Registry(image::RegistryError { source, .. }) => match source {
            image::RegistryFault::Unauthorized { registry, .. } => Some(format!(
                "log in with `kplay login {registry}`, or give `--creds USER:PASSWORD`; or the name is misspelt"
            )),
            other => class_hint(other.class()).map(str::to_owned),
        },
        image::Error::Daemon(error) => daemon_hint(error).map(str::to_owned),
        image::Error::Import { .. } if error.class() == Class::Configuration => {
            Some("containers-storage.conf(5) says what can be set".to_owned())
        }
        image::Error::NoSpaceFor { .. } => {
            Some("make room there, or save to another place".to_owned())
        }
        image::Error::Export { source, .. } => export_hint(source).map(str::to_owned),
        other => class_hint(other.class()).map(str::to_owned),
    }
}

fn daemon_hint(error: &image::DaemonError) -> Option<&'static str> {
    use image::DaemonError as E;
    match error {
        E::Host(_) => Some("name a socket, as in `DOCKER_HOST=unix:///var/run/docker.sock`"),
        E::Connect { .. } => Some("is Docker running? DOCKER_HOST says where it listens"),
        E::NotFound(_) => Some("`docker images` lists what it has"),
        E::Answer { .. } | E::Broken(_) | E::Runtime(_) => None,
    }
}

fn export_hint(error: &image::ExportError) -> Option<&'static str> {
    use image::ExportError as E;
    match error {
        E::Layer {
            source: image::RecipeError::Unknown,
            ..
        } => Some("remove the image and pull it again: an earlier kplay kept less of it"),
        E::Different { .. } | E::Size { .. } | E::Layer { .. } => {
            Some("remove the image and pull it again")
        }
        E::NotEmpty(_) => Some("name a folder that is not there yet"),
        E::Embedded | E::Write(_) => None,
    }
}

fn class_hint(class: Class) -> Option<&'static str> {
    Some(match class {
        Class::NotFound => {
            "look for a misspelt name or tag; `kplay image ls` lists what is stored here"
        }
        Class::Unauthorized => "log in with `kplay login REGISTRY`",
        Class::Unreachable => "look at the network, the proxy variables and the registry's name",
        Class::Tls => {
            "put the authority's certificate as /etc/containers/certs.d/HOST/ca.crt; without one, there is `--tls-verify=false`"
        }
        Class::NoSpace => {
            "remove images with `kplay image rm`, or choose another disk with `--root`"
        }
        Class::NotStored => "`kplay image ls` lists what is stored here",
        Class::InUse => "delete the pod first, or give `--force`",
        Class::Registry => "try again later",
        Class::Configuration => {
            "containers-registries.conf(5) and containers-policy.json(5) say what can be set"
        }
        Class::Corrupt | Class::Unsupported | Class::Platform | Class::Hostile | Class::Machine => {
            return None;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::PodName;

    #[test]
    fn every_kind_has_the_code_that_scripts_rely_on() {
        let pod = || PodKey {
            namespace: Namespace::default(),
            name: PodName::parse("web").expect("a name"),
        };
        let check = |error: Error, expected: u8| assert_eq!(error.code(), expected, "{error}");
        let workload = || manager::Error::Workload {
            pod: pod(),
            reason: "Error".into(),
            message: String::new(),
        };
        check(Error::usage("x"), 2);
        check(Error::Manifest, 3);
        check(Error::Refused("x".into()), 4);
        check(
            manager::Error::TimedOut {
                what: "readiness",
                pods: vec![pod()],
            }
            .into(),
            124,
        );
        check(Error::Signal(2), 130);
        check(Error::Signal(15), 143);
        check(Error::Output(output::Error::Closed), 0);
        check(workload().into(), 1);
        check(
            manager::Error::RolledBack {
                cause: Box::new(workload()),
                failures: Vec::new(),
            }
            .into(),
            1,
        );
        check(manager::Error::Images(Vec::new()).into(), 4);
        check(manager::Error::Interrupted { signal: 15 }.into(), 143);
        check(
            manager::Error::Refused {
                reason: Refusal::CommandNotFound,
                message: "x".into(),
            }
            .into(),
            127,
        );
    }
}
