use std::time::Duration;

use super::super::lifecycle::{Event, Exit, Fault, Now};
use super::*;
use crate::model::plan::PodPlan;
use crate::model::testing::{container, plan};
use crate::protocol::FailureClass;

fn at(seconds: u64) -> Now {
    Now {
        wall: Timestamp::from_second(1_800_000_000 + seconds as i64).expect("a valid time"),
        monotonic: Duration::from_secs(seconds),
    }
}

fn of_plan(plan: &PodPlan, events: Vec<Event>) -> PodStatus {
    let mut pod = Pod::new(plan, "uid", at(0));
    pod.on(Event::Tick, at(0));
    for event in events {
        pod.on(event, at(1));
    }
    let images = plan
        .all_containers()
        .map(|c| (c.image.clone(), "sha256:0".into()));
    let facts = Facts {
        host_ip: None,
        qos_class: QosClass::BestEffort,
        images: images.collect(),
    };
    of(&pod, &facts, &PodStatus::default(), at(2).wall)
}

fn up(container: usize) -> Event {
    let id = format!("id{container}");
    Event::Started { container, id }
}

fn exit(container: usize, code: i32) -> Event {
    let exit = Exit {
        code,
        signal: None,
        out_of_memory: false,
        message: None,
    };
    Event::Exited { container, exit }
}

fn waiting(status: &ContainerStatus) -> (&str, Option<&str>) {
    match &status.state {
        ContainerState::Waiting(waiting) => (&waiting.reason, waiting.message.as_deref()),
        other => panic!("{other:?}"),
    }
}

fn condition<'a>(
    status: &'a PodStatus,
    name: &str,
) -> (ConditionStatus, Option<&'a str>, Option<&'a str>) {
    let found = status.conditions.iter().find(|c| c.r#type == name);
    let found = found.expect("a condition of this type");
    (
        found.status,
        found.reason.as_deref(),
        found.message.as_deref(),
    )
}

#[test]
fn a_pod_is_pending_until_all_its_containers_have_run() {
    let mut two = plan("p");
    two.containers.push(container("b", ContainerRole::Main));
    let status = of_plan(&two, vec![up(0)]);
    assert_eq!(status.phase, Phase::Pending);
    assert_eq!(
        waiting(&status.container_statuses[0]),
        ("ContainerCreating", None)
    );
    assert_eq!(
        condition(&status, "Ready"),
        (
            ConditionStatus::False,
            Some("ContainersNotReady"),
            Some("containers with unready status: [b]")
        )
    );
    let status = of_plan(&two, vec![up(0), up(1)]);
    assert_eq!(status.phase, Phase::Running);
    assert_eq!(
        condition(&status, "Ready"),
        (ConditionStatus::True, None, None)
    );
}

#[test]
fn a_pod_in_back_off_is_running() {
    let status = of_plan(&plan("p"), vec![up(0), exit(0, 1), up(0), exit(0, 1)]);
    assert_eq!(status.phase, Phase::Running);
    let main = &status.container_statuses[0];
    assert_eq!(
        waiting(main),
        (
            "CrashLoopBackOff",
            Some("back-off 10s restarting failed container=main pod=p_default(uid)")
        )
    );
    let last = main.last_state.terminated.as_ref().expect("it ran before");
    assert_eq!((last.exit_code, last.reason.as_str()), (1, "Error"));
    assert_eq!(main.restart_count, 1);
    assert!(!main.ready);
}

#[test]
fn a_pod_that_completed_succeeded_and_is_not_ready() {
    let mut job = plan("p");
    job.restart_policy = RestartPolicy::Never;
    let status = of_plan(&job, vec![up(0), exit(0, 0)]);
    assert_eq!(status.phase, Phase::Succeeded);
    assert_eq!(
        condition(&status, "Ready"),
        (ConditionStatus::False, Some("PodCompleted"), None)
    );
    let status = of_plan(&job, vec![up(0), exit(0, 3)]);
    assert_eq!(status.phase, Phase::Failed);
}

#[test]
fn init_containers_keep_a_pod_pending() {
    let mut with_init = plan("p");
    with_init
        .init_containers
        .push(container("init", ContainerRole::Init));
    let status = of_plan(&with_init, vec![up(0), exit(0, 1)]);
    assert_eq!(status.phase, Phase::Pending);
    assert_eq!(waiting(&status.container_statuses[0]).0, "PodInitializing");
    assert_eq!(
        condition(&status, "Initialized"),
        (
            ConditionStatus::False,
            Some("ContainersNotInitialized"),
            Some("containers with incomplete status: [init]")
        )
    );
    with_init.restart_policy = RestartPolicy::Never;
    let status = of_plan(&with_init, vec![up(0), exit(0, 1)]);
    assert_eq!(status.phase, Phase::Failed);
}

#[test]
fn what_could_not_start_says_why() {
    let fault = |fault| {
        vec![Event::NotStarted {
            container: 0,
            fault,
        }]
    };
    let status = of_plan(
        &plan("p"),
        fault(Fault::Create {
            reason: "CreateContainerConfigError",
            message: "container has runAsNonRoot and image will run as root".into(),
            class: FailureClass::Start,
        }),
    );
    assert_eq!(
        waiting(&status.container_statuses[0]),
        (
            "CreateContainerConfigError",
            Some("container has runAsNonRoot and image will run as root")
        )
    );
    let mut never = plan("p");
    never.restart_policy = RestartPolicy::Never;
    let status = of_plan(
        &never,
        fault(Fault::Start {
            id: "x".into(),
            message: "no such program".into(),
        }),
    );
    let ContainerState::Terminated(ended) = &status.container_statuses[0].state else {
        panic!("{status:?}");
    };
    assert_eq!(
        (ended.exit_code, ended.reason.as_str()),
        (128, "StartError")
    );
    assert_eq!(status.phase, Phase::Failed);
}

#[test]
fn durations_are_gos() {
    for (seconds, text) in [(10, "10s"), (160, "2m40s"), (300, "5m0s")] {
        assert_eq!(go_duration(seconds), text);
    }
}
