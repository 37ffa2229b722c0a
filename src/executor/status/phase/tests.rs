use super::super::Container;
use super::super::phase::phase;
use super::*;
use crate::model::status::{ContainerStatus, LastState, Running, Terminated, Waiting};

/// Containers from words like `init:ok`, `side:up`, `main:wait`: role and state. `wait` never ran, `back0` and `back1` wait
/// after an exit with that code, `up` runs, `start` runs and has not started up yet, `0` and `1` have ended for good.
pub(in crate::executor::status) fn containers(text: &str) -> Containers {
    let list: Vec<_> = text
        .split_whitespace()
        .map(|word| {
            let (role, state) = word.split_once(':').expect("ROLE:STATE");
            let role = match role {
                "init" => ContainerRole::Init,
                "side" => ContainerRole::Sidecar,
                "main" => ContainerRole::Main,
                other => panic!("{other}"),
            };
            Container {
                role,
                status: status(word, role, state),
                is_over: ["0", "1"].contains(&state),
            }
        })
        .collect();
    Containers {
        has_main_run: list.iter().any(|Container { role, status, .. }| {
            *role == ContainerRole::Main
                && (!matches!(status.state, ContainerState::Waiting(_))
                    || status.last_state.terminated.is_some())
        }),
        list,
    }
}

fn status(name: &str, role: ContainerRole, state: &str) -> ContainerStatus {
    let ended = |code: &str| Terminated {
        exit_code: code.parse().expect("an exit code"),
        signal: None,
        reason: String::new(),
        message: None,
        started_at: None,
        finished_at: None,
        container_id: None,
    };
    let (state, last) = match state {
        "wait" => (ContainerState::Waiting(Waiting::default()), None),
        "up" | "start" => (
            ContainerState::Running(Running {
                started_at: jiff::Timestamp::UNIX_EPOCH,
            }),
            None,
        ),
        back if back.starts_with("back") => (
            ContainerState::Waiting(Waiting::default()),
            back.strip_prefix("back").map(ended),
        ),
        code => (ContainerState::Terminated(ended(code)), None),
    };
    let is_up = name.ends_with(":up");
    ContainerStatus {
        name: name.into(),
        ready: match role {
            ContainerRole::Init => name.ends_with(":0"),
            ContainerRole::Sidecar | ContainerRole::Main => is_up,
        },
        started: Some(is_up),
        state,
        last_state: LastState { terminated: last },
        ..ContainerStatus::default()
    }
}

#[test]
fn phases() {
    use Phase::{Failed, Pending, Running, Succeeded};
    let check = |text: &str, expected| assert_eq!(phase(&containers(text)), expected, "{text}");
    check("main:wait", Pending);
    check("main:up main:wait", Pending);
    check("main:up main:0", Running);
    check("main:up main:1", Running);
    check("main:start", Running);
    // A pod whose containers crash again and again runs.
    check("main:back1", Running);
    check("main:back0", Running);
    check("main:back1 main:up", Running);
    // One that cannot pull its image makes the others' pod pending.
    check("main:back1 main:wait", Pending);
    check("main:0", Succeeded);
    check("main:1", Failed);
    check("main:0 main:1", Failed);
    // One that comes back keeps it from its end.
    check("main:0 main:back1", Running);
    check("main:1 main:back0", Running);
    check("init:wait main:wait", Pending);
    check("init:up main:wait", Pending);
    check("init:back1 main:wait", Pending);
    check("init:1 main:wait", Failed);
    check("init:0 init:wait main:wait", Pending);
    check("init:0 main:up", Running);
    // After a new sandbox: the init containers run again, the main ones have run.
    check("init:up main:back1", Pending);
    check("side:start main:wait", Pending);
    check("side:up main:wait", Pending);
    check("side:up main:up", Running);
    check("side:back1 main:up", Running);
    // Restarted, it starts up: what runs stays running.
    check("side:start main:up", Running);
    check("side:up main:0", Running);
    check("side:1 main:0", Succeeded);
    check("side:1 main:1", Failed);
    check("side:wait main:up", Pending);
}
