//! The truth about a pod: what its executor wrote, or what became of it when nobody is there to write.

use super::Error;
use super::layout::Layout;
use super::pod_dir::{self, Deleting, Found, Liveness, LockedPodDir, PodDir};
use super::record::PodRecord;
use crate::model::status::{
    ConditionStatus, ContainerState, ContainerStatus, Phase, PodStatus, Waiting,
};

/// The reason of a pod whose executor is not there although the pod has not ended.
pub const EXECUTOR_DIED: &str = "ExecutorDied";

/// A pod, as `get` shows it.
#[derive(Clone, Debug)]
pub struct PodView {
    pub record: PodRecord,
    pub status: PodStatus,
    pub liveness: Liveness,
    pub deleting: Option<Deleting>,
}

/// A pod's view; `None` if it has no record.
///
/// # Errors
/// One of its files cannot be read, or is corrupt.
pub fn view(dir: &PodDir) -> Result<Option<PodView>, Error> {
    // In this order: an executor that ends in between has written its last status before it died.
    let liveness = dir.liveness()?;
    let status = dir.status()?;
    let deleting = dir.deleting()?;
    Ok(dir.record()?.map(|record| PodView {
        status: effective(status, &record, liveness),
        record,
        liveness,
        deleting,
    }))
}

/// All pods, by key, and what could not be read: one corrupt record hides no other pod.
///
/// # Errors
/// A folder of folders cannot be read.
pub fn list(layout: &Layout) -> Result<(Vec<PodView>, Vec<Error>), Error> {
    let mut views = Vec::new();
    let mut errors = Vec::new();
    for found in pod_dir::list(layout)? {
        let seen = match found {
            Found::Pod(dir) => view(&dir),
            Found::Nameless(error) => Err(error),
        };
        match seen {
            Ok(seen) => views.extend(seen),
            Err(error) => errors.push(error),
        }
    }
    Ok((views, errors))
}

/// Writes how a pod has ended whose executor is dead and has not: whoever looks while a command is at work on it sees
/// that, not a pod that runs, or that has yet to begin.
///
/// # Errors
/// Its files cannot be read, or the status cannot be written.
pub fn note_end(dir: &LockedPodDir<'_>) -> Result<(), Error> {
    let Some(record) = dir.record()? else {
        return Ok(());
    };
    match dir.status()? {
        Some(status) if ended(&status) => Ok(()),
        status => dir.replace_status(&effective(status, &record, Liveness::Dead)),
    }
}

fn ended(status: &PodStatus) -> bool {
    match status.phase {
        Phase::Succeeded | Phase::Failed => true,
        Phase::Pending | Phase::Running => false,
    }
}

/// What a pod's status is, given what was written last.
#[must_use]
pub fn effective(written: Option<PodStatus>, record: &PodRecord, liveness: Liveness) -> PodStatus {
    match (liveness, written) {
        (_, Some(status)) if ended(&status) => status,
        (Liveness::Alive | Liveness::Changing, status) => status.unwrap_or_default(),
        (Liveness::Dead, Some(status)) => abandoned(
            status,
            record,
            "the pod's executor died, and its containers with it",
        ),
        (Liveness::Dead, None) => abandoned(
            unknown(record),
            record,
            "the pod's state is gone: it was never started, or the machine was restarted",
        ),
    }
}

fn abandoned(mut status: PodStatus, record: &PodRecord, message: &str) -> PodStatus {
    status.phase = Phase::Failed;
    status.reason = Some(EXECUTOR_DIED.into());
    status.message = Some(message.into());
    status.terminate();
    for condition in &mut status.conditions {
        if matches!(condition.r#type.as_str(), "Ready" | "ContainersReady") {
            condition.status = ConditionStatus::False;
            condition.reason = Some("PodFailed".into());
            condition.message = None;
        }
        if condition.r#type == "PodReadyToStartContainers" {
            condition.status = ConditionStatus::False;
        }
    }
    if status.start_time.is_none() {
        status.start_time = Some(record.created);
    }
    status
}

/// The status of a pod of which only the record is left.
fn unknown(record: &PodRecord) -> PodStatus {
    let containers = |list: &str| {
        let mut statuses: Vec<ContainerStatus> = record
            .manifest
            .pointer(list)
            .and_then(serde_json::Value::as_array)
            .into_iter()
            .flatten()
            .map(|container| ContainerStatus {
                name: text(container, "name"),
                image: text(container, "image"),
                state: ContainerState::Waiting(Waiting {
                    reason: "PodInitializing".into(),
                    message: None,
                }),
                ..ContainerStatus::default()
            })
            .collect();
        for status in &mut statuses {
            let image = record
                .images
                .iter()
                .find(|(name, _)| name.as_str() == status.name);
            status.image_id = image.map(|(_, id)| id.clone()).unwrap_or_default();
        }
        statuses
    };
    let mut container_statuses = containers("/spec/containers");
    container_statuses.sort_by(|a, b| a.name.cmp(&b.name));
    PodStatus {
        init_container_statuses: containers("/spec/initContainers"),
        container_statuses,
        ..PodStatus::default()
    }
}

fn text(container: &serde_json::Value, field: &str) -> String {
    let value = container.get(field).and_then(serde_json::Value::as_str);
    value.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::status::{PodCondition, Running};
    use crate::state::lock::Locks;
    use crate::state::pod_dir::ExecutorDir;
    use crate::state::testing::{Scratch, key, record};
    use crate::sys::fs;
    use crate::sys::testing::eventually;

    fn running() -> PodStatus {
        let second = Timestamp::from_second(5).unwrap();
        PodStatus {
            phase: Phase::Running,
            conditions: vec![PodCondition {
                r#type: "Ready".into(),
                status: ConditionStatus::True,
                reason: None,
                message: None,
                last_transition_time: second,
                observed_generation: None,
            }],
            container_statuses: vec![ContainerStatus {
                name: "main".into(),
                state: ContainerState::Running(Running { started_at: second }),
                ready: true,
                started: Some(true),
                ..ContainerStatus::default()
            }],
            ..PodStatus::default()
        }
    }

    #[test]
    fn a_pod_without_executor_has_failed_unless_it_had_ended() {
        let check = |written: Option<PodStatus>, liveness, phase, reason: Option<&str>| {
            let status = effective(written, &record("web-0"), liveness);
            assert_eq!((status.phase, status.reason.as_deref()), (phase, reason));
            status
        };
        let died = Some(EXECUTOR_DIED);
        let succeeded = PodStatus {
            phase: Phase::Succeeded,
            ..running()
        };
        check(Some(running()), Liveness::Alive, Phase::Running, None);
        check(Some(running()), Liveness::Changing, Phase::Running, None);
        check(None, Liveness::Changing, Phase::Pending, None);
        check(Some(succeeded), Liveness::Dead, Phase::Succeeded, None);
        let after_kill = check(Some(running()), Liveness::Dead, Phase::Failed, died);
        let after_reboot = check(None, Liveness::Dead, Phase::Failed, died);
        assert_eq!(after_kill.conditions[0].status, ConditionStatus::False);
        assert_eq!(after_reboot.container_statuses[0].image_id, "sha256:1");
        for status in [after_kill, after_reboot] {
            let container = &status.container_statuses[0];
            assert_eq!((container.name.as_str(), container.ready), ("main", false));
            assert!(matches!(
                &container.state,
                ContainerState::Terminated(end)
                    if end.exit_code == 137 && end.reason == "ContainerStatusUnknown"
            ));
        }
    }

    #[test]
    fn a_pod_whose_executor_died_has_ended_for_whoever_looks_while_it_is_removed() {
        let check = |written: Option<PodStatus>, expected: Phase| {
            let scratch = Scratch::new();
            let layout = scratch.layout();
            let locks = Locks::try_pod(&layout, &key("web-0")).unwrap().unwrap();
            let dir = locks.pod(&key("web-0")).unwrap();
            // One that is not there has no end.
            note_end(&dir).unwrap();
            assert!(!dir.exists());
            dir.create(&record("web-0")).unwrap();
            let executor = ExecutorDir::take(dir.paths().clone()).unwrap();
            if let Some(status) = written {
                executor.write_status(&status).unwrap();
            }
            drop(executor);
            note_end(&dir).unwrap();
            let seen = || {
                let look = || view(&dir).unwrap().unwrap();
                // Another test's new process may have a copy of the executor's lock for a moment.
                eventually("it is being changed", || {
                    look().liveness == Liveness::Changing
                });
                look().status
            };
            let before = seen();
            assert_eq!(before.phase, expected);
            // What a removal takes away first, and a restart of the machine.
            fs::remove_dir_all(dir.paths().run()).unwrap();
            assert_eq!(seen(), before);
            note_end(&dir).unwrap();
            assert_eq!(seen(), before);
        };
        check(None, Phase::Failed);
        check(Some(running()), Phase::Failed);
        let succeeded = PodStatus {
            phase: Phase::Succeeded,
            ..running()
        };
        check(Some(succeeded), Phase::Succeeded);
    }
}
