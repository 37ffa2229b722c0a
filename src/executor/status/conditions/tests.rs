use super::super::phase::tests::containers;
use super::*;
use ConditionStatus::{False, True};

/// The conditions of such containers, as `TYPE STATUS REASON MESSAGE`.
fn check(text: &str, phase: Phase, gates: &[&str], expected: &[&str]) {
    let gates: Vec<String> = gates.iter().map(|gate| (*gate).to_owned()).collect();
    let conditions = Conditions {
        containers: &containers(text),
        phase,
        has_sandbox: true,
        generation: Generation::default(),
        readiness_gates: &gates,
        restarts_all: None,
        now: Timestamp::UNIX_EPOCH,
    };
    let told: Vec<String> = conditions
        .list(&[])
        .iter()
        .filter(|c| {
            matches!(
                c.r#type.as_str(),
                "Initialized" | "Ready" | "ContainersReady"
            )
        })
        .map(|c| {
            let status = match c.status {
                True => "True",
                False => "False",
                ConditionStatus::Unknown => "Unknown",
            };
            let mut words = vec![c.r#type.as_str(), status];
            words.extend(c.reason.as_deref());
            words.extend(c.message.as_deref());
            words.join(" ")
        })
        .collect();
    assert_eq!(told, expected, "{text}");
}

#[test]
fn conditions_and_their_reasons() {
    let unready = |names: &str| {
        let tail = format!("False ContainersNotReady containers with unready status: [{names}]");
        (format!("Ready {tail}"), format!("ContainersReady {tail}"))
    };
    let (ready, containers_ready) = unready("side:wait main:wait");
    check(
        "init:up side:wait main:wait",
        Phase::Pending,
        &[],
        &[
            "Initialized False ContainersNotInitialized containers with incomplete status: [init:up side:wait]",
            &ready,
            &containers_ready,
        ],
    );
    let (ready, containers_ready) = unready("side:start");
    check(
        "init:0 side:start main:up",
        Phase::Running,
        &[],
        &["Initialized True", &ready, &containers_ready],
    );
    check(
        "init:0 side:up main:up",
        Phase::Running,
        &[],
        &["Initialized True", "Ready True", "ContainersReady True"],
    );
    check(
        "init:0 main:0",
        Phase::Succeeded,
        &[],
        &[
            "Initialized True PodCompleted",
            "Ready False PodCompleted",
            "ContainersReady False PodCompleted",
        ],
    );
    check(
        "init:1 main:wait",
        Phase::Failed,
        &[],
        &[
            "Initialized False ContainersNotInitialized containers with incomplete status: [init:1]",
            "Ready False PodFailed",
            "ContainersReady False PodFailed",
        ],
    );
    check(
        "main:up",
        Phase::Running,
        &["a", "example.com/b"],
        &[
            "Initialized True",
            "Ready False ReadinessGatesNotReady corresponding condition of pod readiness gate \"a\" does not exist., corresponding condition of pod readiness gate \"example.com/b\" does not exist.",
            "ContainersReady True",
        ],
    );
    // Gates are looked at only when the containers are ready.
    let (ready, containers_ready) = unready("main:back1");
    check(
        "main:back1",
        Phase::Running,
        &["a"],
        &["Initialized True", &ready, &containers_ready],
    );
}

#[test]
fn a_pod_stays_initialized_when_its_init_containers_run_again() {
    let containers = containers("init:up main:wait");
    let initialized = |previous: &[PodCondition]| {
        let conditions = Conditions {
            containers: &containers,
            phase: Phase::Pending,
            has_sandbox: true,
            generation: Generation(3),
            readiness_gates: &[],
            restarts_all: None,
            now: Timestamp::UNIX_EPOCH,
        };
        let mut list = conditions.list(previous);
        list.retain(|condition| condition.r#type == "Initialized");
        list
    };
    let mut before = initialized(&[]);
    assert_eq!(before[0].status, False);
    assert_eq!(initialized(&before)[0].status, False);
    before[0].status = True;
    let after = initialized(&before);
    assert_eq!((after[0].status, &after[0].reason), (True, &None));
    assert_eq!(after[0].observed_generation, Some(3));
}
