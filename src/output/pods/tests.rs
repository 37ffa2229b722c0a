//! The cases of kubectl's own `TestPrintPod`, `TestPrintPodWithInitContainers` and sidecar tests.

use serde_json::json;

use super::*;

/// Times are seconds after an hour of the epoch; now is 1000.
fn at(second: i64) -> String {
    Timestamp::from_second(second)
        .expect("a valid time")
        .to_string()
}

fn check(spec: &Value, status: &Value, expected: [&str; 3]) {
    let pod = json!({ "metadata": { "name": "p" }, "spec": spec, "status": status });
    let now = Timestamp::from_second(1000).expect("a valid time");
    let cells = cells(&pod, now);
    assert_eq!(cells[..3], expected, "{status:#}");
}

fn containers(count: usize) -> Value {
    let all: Vec<Value> = (0..count)
        .map(|n| json!({"name": format!("c{n}"), "image": "i"}))
        .collect();
    json!({ "containers": all })
}

fn running() -> Value {
    json!({ "running": { "startedAt": at(10) } })
}

fn ended(code: i32, reason: &str) -> Value {
    json!({ "terminated": {
        "exitCode": code, "reason": reason, "startedAt": at(10), "finishedAt": at(990)
    }})
}

fn waiting(reason: &str) -> Value {
    json!({ "waiting": { "reason": reason } })
}

fn container(name: &str, state: Value, ready: bool) -> Value {
    json!({ "name": name, "state": state, "ready": ready })
}

#[test]
fn main_containers_say_what_they_do() {
    check(
        &containers(2),
        &json!({ "phase": "Running", "containerStatuses": [
            container("c0", running(), true),
            { "name": "c1", "state": running(), "ready": false, "restartCount": 3 },
        ]}),
        ["1/2", "Running", "3"],
    );
    check(
        &containers(1),
        &json!({ "phase": "Running", "containerStatuses": [
            { "name": "c0", "state": waiting("CrashLoopBackOff"), "restartCount": 3,
              "lastState": ended(1, "Error") },
        ]}),
        ["0/1", "CrashLoopBackOff", "3 (10s ago)"],
    );
    check(
        &containers(2),
        &json!({ "phase": "Pending", "containerStatuses": [
            container("c0", waiting("ContainerCreating"), false),
            container("c1", waiting("ContainerCreating"), false),
        ]}),
        ["0/2", "ContainerCreating", "0"],
    );
    check(
        &containers(1),
        &json!({ "phase": "Succeeded", "containerStatuses": [
            container("c0", ended(0, "Completed"), false),
        ]}),
        ["0/1", "Completed", "0"],
    );
    check(
        &containers(1),
        &json!({ "phase": "Failed", "containerStatuses": [
            container("c0", ended(7, ""), false),
        ]}),
        ["0/1", "ExitCode:7", "0"],
    );
    check(
        &containers(1),
        &json!({ "phase": "Failed", "reason": "DeadlineExceeded" }),
        ["0/1", "DeadlineExceeded", "0"],
    );
    check(&containers(1), &json!({}), ["0/1", "Pending", "0"]);
}

#[test]
fn one_that_ended_does_not_hide_those_that_run() {
    let statuses = json!([
        container("c0", ended(0, "Completed"), false),
        container("c1", running(), true),
    ]);
    check(
        &containers(2),
        &json!({ "phase": "Running", "containerStatuses": statuses }),
        ["1/2", "NotReady", "0"],
    );
    check(
        &containers(2),
        &json!({ "phase": "Running", "containerStatuses": statuses, "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": at(10) },
        ]}),
        ["1/2", "Running", "0"],
    );
}

#[test]
fn init_containers_come_first() {
    let spec = json!({
        "initContainers": [{ "name": "i0" }, { "name": "i1" }],
        "containers": [{ "name": "c0" }],
    });
    let check = |init: Value, expected: [&str; 3]| {
        check(
            &spec,
            &json!({ "phase": "Pending", "initContainerStatuses": init, "containerStatuses": [
                { "name": "c0", "state": waiting("PodInitializing"), "restartCount": 9 },
            ]}),
            expected,
        );
    };
    check(
        json!([
            container("i0", running(), false),
            container("i1", waiting("PodInitializing"), false)
        ]),
        ["0/1", "Init:0/2", "0"],
    );
    check(
        json!([
            container("i0", ended(0, "Completed"), true),
            container("i1", running(), false)
        ]),
        ["0/1", "Init:1/2", "0"],
    );
    check(
        json!([container("i0", ended(1, "Error"), false)]),
        ["0/1", "Init:Error", "0"],
    );
    check(
        json!([container("i0", ended(2, ""), false)]),
        ["0/1", "Init:ExitCode:2", "0"],
    );
    check(
        json!([{ "name": "i0", "state": waiting("CrashLoopBackOff"), "restartCount": 2,
                 "lastState": ended(1, "Error") }]),
        ["0/1", "Init:CrashLoopBackOff", "2 (10s ago)"],
    );
    check(
        json!([
            container("i0", ended(0, "Completed"), true),
            container("i1", ended(0, "Completed"), true)
        ]),
        ["0/1", "PodInitializing", "9"],
    );
}

#[test]
fn sidecars_count_as_containers() {
    let spec = json!({
        "initContainers": [{ "name": "s", "restartPolicy": "Always" }, { "name": "i" }],
        "containers": [{ "name": "c0" }],
    });
    let sidecar = |ready: bool| json!({ "name": "s", "state": running(), "ready": ready, "started": true, "restartCount": 1 });
    check(
        &spec,
        &json!({ "phase": "Pending", "initContainerStatuses": [
            sidecar(true), container("i", running(), false),
        ]}),
        ["1/2", "Init:1/2", "1"],
    );
    check(
        &spec,
        &json!({ "phase": "Running", "initContainerStatuses": [
            sidecar(true), { "name": "i", "state": ended(0, "Completed"), "restartCount": 5 },
        ], "containerStatuses": [container("c0", running(), true)] }),
        ["2/2", "Running", "1"],
    );
}

#[test]
fn a_pod_that_is_being_deleted_says_so_until_it_has_ended() {
    let check = |phase: &str, expected: &str| {
        let pod = json!({
            "metadata": { "name": "p", "deletionTimestamp": at(5) },
            "spec": containers(1),
            "status": { "phase": phase },
        });
        assert_eq!(Summary::of(&pod).status, expected);
    };
    check("Running", "Terminating");
    check("Failed", "Failed");
}
