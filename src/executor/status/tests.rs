use std::time::Duration;

use super::super::lifecycle::{Event, Exit, Fault, Hook, Now, Outcome};
use super::*;
use crate::model::plan::{ExitCodes, HookAction, PodPlan, RestartAction, RestartRule, Restarts};
use crate::model::status::{ConditionStatus, Generation, LinuxContainerUser, QosClass};
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
    let facts = Facts::new(
        plan,
        Generation::default(),
        &BTreeMap::new(),
        None,
        Vec::new(),
        QosClass::BestEffort,
    );
    of(
        &pod,
        &facts,
        &Observed::new(),
        &PodStatus::default(),
        at(2).wall,
    )
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
fn a_pod_whose_container_restarts_itself_goes_on() {
    let mut never = plan("p");
    never.restart_policy = RestartPolicy::Never;
    let mut own = never.clone();
    own.containers[0].restarts.policy = Some(RestartPolicy::Always);
    let fault = Fault::Start {
        id: "x".into(),
        message: "no such program".into(),
    };
    let not_started = Event::NotStarted {
        container: 0,
        fault,
    };
    assert_eq!(
        of_plan(&never, vec![not_started.clone()]).phase,
        Phase::Failed
    );
    assert_eq!(of_plan(&own, vec![not_started]).phase, Phase::Running);
}

#[test]
fn durations_are_gos() {
    for (seconds, text) in [(10, "10s"), (160, "2m40s"), (300, "5m0s")] {
        assert_eq!(go_duration(seconds), text);
    }
}

/// The whole status of a pod in the middle of its life, field by field as a kubelet would report it.
#[test]
fn a_whole_status() {
    let mut golden = plan("p");
    golden.init_containers = vec![
        container("prepare", ContainerRole::Init),
        container("proxy", ContainerRole::Sidecar),
    ];
    golden.containers = vec![
        container("web", ContainerRole::Main),
        container("app", ContainerRole::Main),
    ];
    golden.host_network = true;
    golden.manifest = serde_json::json!({ "spec": {
        "readinessGates": [{ "conditionType": "example.com/lb" }],
        "initContainers": [{ "name": "prepare" }, { "name": "proxy" }],
        "containers": [
            { "name": "web",
              "resources": { "limits": { "cpu": "1" }, "requests": { "cpu": "500m" } },
              "volumeMounts": [
                { "name": "data", "mountPath": "/data" },
                { "name": "conf", "mountPath": "/etc/conf", "readOnly": true },
                { "name": "deep", "mountPath": "/deep", "readOnly": true, "recursiveReadOnly": "Enabled" },
              ] },
            { "name": "app" },
        ],
    }});
    let mut pod = Pod::new(&golden, "uid", at(0));
    pod.on(Event::Tick, at(0));
    for (event, second) in [
        (up(0), 1),
        (exit(0, 0), 2),
        (up(1), 3),
        (up(2), 4),
        (up(3), 5),
    ] {
        pod.on(event, at(second));
    }
    let facts = Facts::new(
        &golden,
        Generation(2),
        &BTreeMap::new(),
        Some("192.0.2.1".into()),
        vec!["10.244.0.2".into(), "fd00::2".into()],
        QosClass::Burstable,
    );
    let linux = LinuxContainerUser {
        uid: 1000,
        gid: 100,
        supplemental_groups: vec![100, 2000],
    };
    let observation = Observation {
        user: ContainerUser { linux },
        stop_signal: "SIGTERM".into(),
    };
    let observed = Observed::from([(2, observation)]);
    let before = of(&pod, &facts, &observed, &PodStatus::default(), at(6).wall);
    let status = of(&pod, &facts, &observed, &before, at(60).wall);
    let text = serde_json::to_string_pretty(&status).expect("serializes") + "\n";
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/executor/status.json");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        crate::sys::fs::replace(&path, 0o644, text.as_bytes()).expect("writable");
    }
    let expected = crate::sys::fs::read(&path).expect("the golden");
    assert_eq!(text, String::from_utf8_lossy(&expected));
    let typed: k8s_openapi::api::core::v1::PodStatus =
        serde_json::from_str(&text).expect("is a v1.PodStatus");
    assert_eq!(typed.phase.as_deref(), Some("Running"));
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let plan = plan("p");
    let facts = Facts::new(
        &plan,
        Generation::default(),
        &BTreeMap::new(),
        None,
        Vec::new(),
        QosClass::BestEffort,
    );
    let mut pod = Pod::new(&plan, "uid", at(0));
    pod.on(Event::Tick, at(0));
    let mut status = PodStatus::default();
    let mut look = |pod: &Pod, second: u64| {
        status = of(pod, &facts, &Observed::new(), &status, at(second).wall);
        let of = |name: &str| {
            let found = status.conditions.iter().find(|c| c.r#type == name);
            found.expect("it is there").last_transition_time
        };
        (of("Ready"), of("PodScheduled"))
    };
    let wall = |second| at(second).wall;
    assert_eq!(look(&pod, 0), (wall(0), wall(0)));
    let fault = Fault::Create {
        reason: "CreateContainerError",
        message: "no".into(),
        class: FailureClass::Machine,
    };
    let faulty = Event::NotStarted {
        container: 0,
        fault,
    };
    pod.on(faulty, at(1));
    // Another reason is no transition.
    assert_eq!(look(&pod, 1), (wall(0), wall(0)));
    pod.on(Event::Tick, at(11));
    pod.on(up(0), at(12));
    assert_eq!(look(&pod, 12), (wall(12), wall(0)));
    assert_eq!(look(&pod, 13), (wall(12), wall(0)));
    pod.on(exit(0, 1), at(14));
    assert_eq!(look(&pod, 14), (wall(14), wall(0)));
}

#[test]
fn a_pod_does_not_end_before_its_containers() {
    let mut job = plan("p");
    job.restart_policy = RestartPolicy::Never;
    job.init_containers = vec![container("proxy", ContainerRole::Sidecar)];
    let status = of_plan(&job, vec![up(0), up(1), exit(1, 0)]);
    assert_eq!(status.phase, Phase::Running, "its sidecar runs");
    let status = of_plan(&job, vec![up(0), up(1), exit(1, 0), exit(0, 143)]);
    assert_eq!(status.phase, Phase::Succeeded);
    let mut deadline = plan("p");
    deadline.active_deadline = Some(1);
    let status = of_plan(&deadline, vec![up(0), Event::Tick]);
    assert_eq!((status.phase, status.reason), (Phase::Running, None));
    let status = of_plan(&deadline, vec![up(0), Event::Tick, exit(0, 0)]);
    assert_eq!(status.phase, Phase::Failed);
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn what_never_ran_is_lost_when_the_pod_ends() {
    let lost = |status: &ContainerStatus| match &status.state {
        ContainerState::Terminated(end) => (end.exit_code, end.reason.clone()),
        other => panic!("{other:?}"),
    };
    let stop = Event::Stop {
        grace: Some(Duration::ZERO),
        cause: Cause::Deleted,
    };
    let mut two = plan("p");
    two.containers.push(container("b", ContainerRole::Main));
    let fault = Fault::Create {
        reason: "CreateContainerError",
        message: "no".into(),
        class: FailureClass::Machine,
    };
    let status = of_plan(
        &two,
        vec![
            up(0),
            Event::NotStarted {
                container: 1,
                fault,
            },
            stop.clone(),
            exit(0, 137),
        ],
    );
    assert_eq!(
        lost(&status.container_statuses[0]),
        (137, "ContainerStatusUnknown".into())
    );
    assert_eq!(lost(&status.container_statuses[1]), (137, "Error".into()));
    // A container in back-off ended as it did.
    let status = of_plan(
        &plan("p"),
        vec![up(0), exit(0, 1), up(0), exit(0, 3), stop.clone()],
    );
    assert_eq!(lost(&status.container_statuses[0]), (3, "Error".into()));
    assert_eq!(status.phase, Phase::Failed);
    // Init containers that were never reached still wait.
    let mut with_inits = plan("p");
    with_inits.restart_policy = RestartPolicy::Never;
    with_inits.init_containers = vec![
        container("one", ContainerRole::Init),
        container("two", ContainerRole::Init),
    ];
    let status = of_plan(&with_inits, vec![up(0), exit(0, 7)]);
    assert_eq!(
        lost(&status.init_container_statuses[0]),
        (7, "Error".into())
    );
    assert_eq!(
        waiting(&status.init_container_statuses[1]).0,
        "PodInitializing"
    );
    assert_eq!(waiting(&status.container_statuses[0]).0, "PodInitializing");
}

#[test]
fn a_failed_post_start_hook_is_why_a_container_waits() {
    let mut plan = plan("p");
    plan.containers[0].hooks.post_start = Some(HookAction::Sleep { seconds: 1 });
    let up_at = |outcome: Option<Outcome>| {
        let mut events = vec![up(0)];
        events.extend(outcome.map(|outcome| Event::Hooked {
            container: 0,
            id: "id0".into(),
            hook: Hook::PostStart,
            outcome,
        }));
        events
    };
    let status = of_plan(&plan, up_at(None));
    assert_eq!(
        waiting(&status.container_statuses[0]),
        ("ContainerCreating", None)
    );
    assert_eq!(status.phase, Phase::Pending);
    let status = of_plan(&plan, up_at(Some(Ok(()))));
    assert!(status.container_statuses[0].ready);
    // The first restart is immediate, the second one waits.
    let mut events = up_at(Some(Err("why".into())));
    events.push(exit(0, 143));
    events.extend(events.clone());
    let status = of_plan(&plan, events);
    assert_eq!(
        waiting(&status.container_statuses[0]),
        ("PostStartHookError", Some("why"))
    );
    let last = status.container_statuses[0].last_state.terminated.as_ref();
    assert_eq!(last.map(|end| end.exit_code), Some(143));
}

#[test]
fn containers_that_restart_with_all_others_say_so() {
    let mut plan = plan("p");
    plan.restart_policy = RestartPolicy::Never;
    plan.init_containers = vec![container("init", ContainerRole::Init)];
    plan.containers[0].restarts = Restarts {
        policy: Some(RestartPolicy::Never),
        rules: vec![RestartRule {
            action: RestartAction::RestartAllContainers,
            codes: ExitCodes::In(vec![42]),
        }],
    };
    plan.containers
        .push(container("other", ContainerRole::Main));
    let mut events = vec![up(0), exit(0, 0), up(1), up(2)];
    let told = |events: &[Event]| {
        let status = of_plan(&plan, events.to_vec());
        let (status, reason, message) = condition(&status, "AllContainersRestarting");
        (
            status,
            reason.map(str::to_owned),
            message.map(str::to_owned),
        )
    };
    assert_eq!(told(&events), (ConditionStatus::False, None, None));
    events.push(exit(1, 42));
    assert_eq!(
        told(&events),
        (
            ConditionStatus::True,
            Some("RestartAllContainersStarted".into()),
            Some("container exited with restart policy rule".into())
        )
    );
    events.push(exit(2, 137));
    assert_eq!(told(&events), (ConditionStatus::False, None, None));
    let status = of_plan(&plan, events.clone());
    for container in &status.container_statuses {
        let (reason, message) = waiting(container);
        assert_eq!(reason, "RestartingAllContainers", "{}", container.name);
        assert_eq!(
            message,
            Some("The container is removed because RestartAllContainers in place")
        );
        let last = container.last_state.terminated.as_ref();
        let last = last.expect("it ran").clone();
        assert_eq!(
            (last.exit_code, last.reason.as_str()),
            (137, "RestartingAllContainers")
        );
        // Of what was removed nothing else is known.
        assert_eq!((last.started_at, last.finished_at), (None, None));
        assert_eq!((last.container_id, &container.container_id), (None, &None));
        assert_eq!(container.restart_count, 1, "{}", container.name);
    }
    events.extend([up(0), exit(0, 0), up(1)]);
    let again = of_plan(&plan, events);
    let [main, other] = &again.container_statuses[..] else {
        panic!("two main containers");
    };
    assert_eq!(main.container_id.as_deref(), Some("kplay://id1"));
    for container in [main, other] {
        let last = container.last_state.terminated.as_ref();
        assert_eq!(last.and_then(|last| last.started_at), None);
        assert_eq!(container.restart_count, 1, "{}", container.name);
    }
}

#[test]
fn a_lost_sandbox_is_none_and_ends_no_pod_as_long_as_its_containers_run() {
    let mut never = plan("p");
    never.restart_policy = RestartPolicy::Never;
    let mut events = vec![up(0), Event::SandboxGone];
    let status = of_plan(&never, events.clone());
    let sandbox = condition(&status, "PodReadyToStartContainers");
    assert_eq!(sandbox.0, ConditionStatus::False);
    assert_eq!(condition(&status, "Ready").0, ConditionStatus::True);
    assert_eq!(status.phase, Phase::Running);
    let ended = |code| of_plan(&never, [events.clone(), vec![exit(0, code)]].concat());
    let succeeded = ended(0);
    assert_eq!(
        (succeeded.phase, succeeded.reason),
        (Phase::Succeeded, None)
    );
    let failed = ended(143);
    assert_eq!(failed.phase, Phase::Failed);
    assert_eq!(failed.reason.as_deref(), Some("SandboxGone"));
    // In a pod that restarts, it is not over.
    events.push(exit(0, 0));
    let lasting = of_plan(&plan("p"), events).phase;
    assert!(!matches!(lasting, Phase::Succeeded | Phase::Failed));
}
