//! Waiting for conditions of pods, with a deadline and without polling.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Manager;
use super::error::Error;
use super::report::{Event, Report};
use crate::model::names::PodKey;
use crate::model::status::{ConditionStatus, ContainerState, Phase, PodStatus};
use crate::state::pod_dir::{Liveness, PodDir};
use crate::state::view::{self, EXECUTOR_DIED, PodView};
use crate::state::watch::{Changes, Wake};

/// What a pod is waited for to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Ready; for a pod that ends, that it has succeeded is enough.
    Ready,
    /// Ended with success; for a pod that runs for ever (`restartPolicy: Always`), ready.
    Complete,
    /// Gone.
    Deleted,
}

/// What a look at a pod tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Reached,
    NotYet,
    /// It never will be: the pod has failed, or was deleted.
    Never {
        reason: String,
        message: String,
    },
}

impl Condition {
    /// Judges a pod; `None` is one that does not exist.
    #[must_use]
    pub fn judge(self, view: Option<&PodView>) -> Verdict {
        let Some(view) = view else {
            return match self {
                Self::Deleted => Verdict::Reached,
                Self::Ready | Self::Complete => Verdict::Never {
                    reason: "NotFound".into(),
                    message: "it was deleted".into(),
                },
            };
        };
        let forever = view.record.manifest.pointer("/spec/restartPolicy")
            == Some(&serde_json::Value::from("Always"));
        match (self, view.status.phase) {
            (Self::Deleted, _) => Verdict::NotYet,
            (Self::Ready | Self::Complete, Phase::Failed) => Verdict::Never {
                reason: view.status.reason.clone().unwrap_or_default(),
                message: failure_message(&view.status),
            },
            (Self::Ready | Self::Complete, Phase::Succeeded) => Verdict::Reached,
            (Self::Complete, _) if !forever => Verdict::NotYet,
            (Self::Ready | Self::Complete, Phase::Pending | Phase::Running) => {
                if is_ready(&view.status) {
                    Verdict::Reached
                } else {
                    Verdict::NotYet
                }
            }
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Ready => "readiness",
            Self::Complete => "the end",
            Self::Deleted => "the deletion",
        }
    }
}

/// Whether a pod's `Ready` condition is true.
#[must_use]
pub fn is_ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|one| one.r#type == "Ready" && one.status == ConditionStatus::True)
}

/// Judges whether a pod has started, as its executor tells the command that launched it: whoever holds the pod's lock
/// asks.
pub(super) fn is_started(view: Option<&PodView>) -> Verdict {
    let never = |reason: &str, message: String| Verdict::Never {
        reason: reason.into(),
        message,
    };
    let Some(view) = view else {
        return never("NotFound", "it was deleted".into());
    };
    match (view.status.phase, view.liveness) {
        (Phase::Running | Phase::Succeeded, _) => Verdict::Reached,
        (Phase::Failed, _) => Condition::Ready.judge(Some(view)),
        (Phase::Pending, Liveness::Changing | Liveness::Dead) => {
            never(EXECUTOR_DIED, "its executor died".into())
        }
        (Phase::Pending, Liveness::Alive) => match stuck(&view.status) {
            Some((reason, message)) => never(reason, message),
            None => Verdict::NotYet,
        },
    }
}

/// Why a container that did not start, or ended too early, is tried again later.
fn stuck(status: &PodStatus) -> Option<(&str, String)> {
    let mut containers = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses);
    containers.find_map(|container| match &container.state {
        ContainerState::Waiting(waiting)
            if !matches!(
                waiting.reason.as_str(),
                "ContainerCreating" | "PodInitializing"
            ) =>
        {
            let name = &container.name;
            let message = match &waiting.message {
                Some(message) => format!("container `{name}`: {message}"),
                None => format!("container `{name}` waits to be started again"),
            };
            Some((waiting.reason.as_str(), message))
        }
        ContainerState::Waiting(_) | ContainerState::Running(_) | ContainerState::Terminated(_) => {
            None
        }
    })
}

/// The pod's own message, or how its containers ended.
fn failure_message(status: &PodStatus) -> String {
    if let Some(message) = &status.message {
        return message.clone();
    }
    let containers = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses);
    let ends: Vec<String> = containers
        .filter_map(|container| match &container.state {
            ContainerState::Terminated(end) if end.exit_code != 0 => Some(format!(
                "container `{}` exited with {} ({})",
                container.name, end.exit_code, end.reason
            )),
            ContainerState::Terminated(_)
            | ContainerState::Waiting(_)
            | ContainerState::Running(_) => None,
        })
        .collect();
    ends.join(", ")
}

/// Waits until all pods have reached the condition.
///
/// # Errors
/// [`Error::Workload`] as soon as one never will, [`Error::TimedOut`] with those that have not,
/// [`Error::Interrupted`].
pub fn wait(
    manager: &Manager,
    pods: &[PodKey],
    condition: Condition,
    deadline: Option<Instant>,
    report: Report<'_>,
) -> Result<(), Error> {
    let mut judge = |view: Option<&PodView>| condition.judge(view);
    until(
        manager,
        pods,
        condition.what(),
        &mut judge,
        deadline,
        report,
    )
}

/// Waits until `judge` has called every pod reached. It is asked at once and after each change of the pod.
///
/// # Errors
/// As [`wait`].
pub fn until(
    manager: &Manager,
    pods: &[PodKey],
    what: &'static str,
    judge: &mut dyn FnMut(Option<&PodView>) -> Verdict,
    deadline: Option<Instant>,
    report: Report<'_>,
) -> Result<(), Error> {
    let dirs = pods.iter().map(|key| PodDir::new(&manager.layout, key));
    let dirs: Vec<PodDir> = dirs.collect();
    // Not watched before the first look: most often that is enough, and to end a watch takes the kernel ten milliseconds.
    let mut changes = None;
    let mut left: BTreeSet<&PodKey> = pods.iter().collect();
    loop {
        for dir in &dirs {
            if !left.contains(dir.key()) {
                continue;
            }
            match judge(view::view(dir)?.as_ref()) {
                Verdict::NotYet => {}
                Verdict::Reached => {
                    left.remove(dir.key());
                    report(Event::PodReached(dir.key().clone()));
                }
                Verdict::Never { reason, message } => {
                    return Err(Error::Workload {
                        pod: dir.key().clone(),
                        reason,
                        message,
                    });
                }
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let Some(changes) = &changes else {
            // What happened since the look is seen by the next.
            changes = Some(Changes::of(&manager.layout, dirs.clone())?);
            continue;
        };
        match changes.wait(deadline, &manager.interrupt)? {
            Wake::Changed => {}
            Wake::Signal(signal) => return Err(Error::Interrupted { signal }),
            Wake::Deadline => {
                return Err(Error::TimedOut {
                    what,
                    pods: left.into_iter().cloned().collect(),
                });
            }
        }
    }
}
