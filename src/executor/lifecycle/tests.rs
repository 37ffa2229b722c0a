//! Timelines: events in, who is started, stopped and killed when.

use proptest::prelude::*;

use super::*;
use crate::model::plan::HookAction;
use crate::model::testing::{container, plan};

fn at(seconds: u64) -> Now {
    Now {
        wall: Timestamp::from_second(1_800_000_000 + seconds as i64).expect("a valid time"),
        monotonic: Duration::from_secs(seconds),
    }
}

/// A pod with its timeline: one word per action, events and progress left out.
struct Play {
    pod: Pod,
    now: u64,
    log: Vec<String>,
    told: Vec<Progress>,
    /// `reason: message` of every event.
    reports: Vec<String>,
}

impl Play {
    /// Containers as `i:name` (init), `s:name` (sidecar), `name`; with hooks as `name+post`, `name+pre`.
    fn new(policy: RestartPolicy, containers: &[&str]) -> Self {
        let mut plan = plan("p");
        plan.restart_policy = policy;
        plan.containers.clear();
        for text in containers {
            let (role, text) = match text.split_once(':') {
                Some(("i", rest)) => (ContainerRole::Init, rest),
                Some((_, rest)) => (ContainerRole::Sidecar, rest),
                None => (ContainerRole::Main, *text),
            };
            let mut words = text.split('+');
            let mut container = container(words.next().expect("a name"), role);
            for hook in words {
                let action = Some(HookAction::Exec {
                    command: vec!["hook".into()],
                });
                match hook {
                    "post" => container.hooks.post_start = action,
                    _ => container.hooks.pre_stop = action,
                }
            }
            match role {
                ContainerRole::Main => plan.containers.push(container),
                _ => plan.init_containers.push(container),
            }
        }
        Self::of(&plan)
    }

    fn of(plan: &PodPlan) -> Self {
        let mut play = Self {
            pod: Pod::new(plan, "uid", at(0)),
            now: 0,
            log: Vec::new(),
            told: Vec::new(),
            reports: Vec::new(),
        };
        play.event(Event::Tick);
        play
    }

    fn event(&mut self, event: Event) {
        for action in self.pod.on(event, at(self.now)) {
            let word = match action {
                Action::Start { container, .. } => format!("start {}", self.name(container)),
                Action::PostStart(container) => format!("post-start {}", self.name(container)),
                Action::PreStop(container) => format!("pre-stop {}", self.name(container)),
                Action::Stop(container) => format!("stop {}", self.name(container)),
                Action::Kill(container) => format!("kill {}", self.name(container)),
                Action::RestartSandbox => "sandbox".into(),
                Action::End => "end".into(),
                Action::Tell(progress) => {
                    self.told.push(progress);
                    continue;
                }
                Action::Report {
                    reason, message, ..
                } => {
                    self.reports.push(format!("{reason}: {message}"));
                    continue;
                }
            };
            self.log.push(format!("{} {word}", self.now));
        }
    }

    fn name(&self, index: Index) -> String {
        self.pod.members[index].name.clone()
    }

    fn index(&self, name: &str) -> Index {
        let found = self.pod.members.iter().position(|m| m.name == name);
        found.expect("a container of this name")
    }

    fn up(&mut self, name: &str) -> &mut Self {
        let container = self.index(name);
        let id = format!("{name}-id");
        self.event(Event::Started { container, id });
        self
    }

    fn exit(&mut self, name: &str, code: i32) -> &mut Self {
        let container = self.index(name);
        let exit = Exit {
            code,
            signal: None,
            out_of_memory: false,
            message: None,
        };
        self.event(Event::Exited { container, exit });
        self
    }

    fn hooked(&mut self, name: &str, hook: Hook, outcome: Outcome) -> &mut Self {
        let (container, id) = (self.index(name), format!("{name}-id"));
        self.event(Event::Hooked {
            container,
            id,
            hook,
            outcome,
        });
        self
    }

    fn stop_one(&mut self, name: &str, grace: u64) -> &mut Self {
        let (container, id) = (self.index(name), format!("{name}-id"));
        self.event(Event::StopContainer {
            container,
            id,
            grace: Some(Duration::from_secs(grace)),
            message: "unhealthy".into(),
        });
        self
    }

    fn stop(&mut self, grace: Option<u64>) -> &mut Self {
        self.event(Event::Stop {
            grace: grace.map(Duration::from_secs),
            cause: Cause::Deleted,
        });
        self
    }

    /// Lets time pass until `seconds`, with a tick whenever one is due.
    fn until(&mut self, seconds: u64) -> &mut Self {
        let mut ticks = 0;
        while let Some(due) = self.pod.next_tick() {
            if due.as_secs() > seconds {
                break;
            }
            self.now = self.now.max(due.as_secs());
            self.event(Event::Tick);
            ticks += 1;
            assert!(ticks < 1000, "a tick must change what is due");
        }
        self.now = seconds;
        self
    }

    fn check(&self, expected: &[&str]) {
        assert_eq!(self.log, expected);
    }
}

#[test]
fn main_containers_start_one_after_another() {
    let mut play = Play::new(RestartPolicy::Always, &["a", "b"]);
    play.check(&["0 start a"]);
    play.up("a").check(&["0 start a", "0 start b"]);
    assert_eq!(play.told, []);
    play.up("b");
    assert_eq!(play.told, [Progress::Started]);
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let mut play = Play::new(RestartPolicy::Always, &["i:one", "s:side", "i:two", "main"]);
    play.up("one").exit("one", 0).up("side").up("two");
    play.check(&["0 start one", "0 start side", "0 start two"]);
    play.exit("two", 0);
    play.check(&["0 start one", "0 start side", "0 start two", "0 start main"]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let mut play = Play::new(RestartPolicy::Never, &["s:side", "i:init", "main"]);
    play.up("side").up("init").exit("init", 1);
    play.check(&["0 start side", "0 start init", "0 stop side"]);
    play.exit("side", 0);
    play.check(&["0 start side", "0 start init", "0 stop side", "0 end"]);
    assert_eq!(play.pod.stage, Stage::Over(Cause::InitFailed));
    assert!(matches!(&play.told[..], [Progress::Failed(f)] if f.class == FailureClass::Workload));
}

#[test]
fn a_failed_init_container_is_tried_again_with_back_off() {
    let mut play = Play::new(RestartPolicy::OnFailure, &["i:init", "main"]);
    play.up("init").exit("init", 1).up("init");
    assert_eq!(play.told, [], "the first restart is immediate");
    play.exit("init", 1);
    assert!(matches!(&play.told[..], [Progress::Failed(_)]));
    play.until(60);
    play.check(&["0 start init", "0 start init", "10 start init"]);
}

#[test]
fn restarts_follow_the_policy_and_the_back_off() {
    let mut play = Play::new(RestartPolicy::Always, &["a"]);
    for _ in 0..4 {
        play.up("a").exit("a", 0);
        let next = play.pod.next_tick().map_or(play.now, |due| due.as_secs());
        play.until(next);
    }
    play.check(&[
        "0 start a",
        "0 start a",
        "10 start a",
        "30 start a",
        "70 start a",
    ]);
    assert_eq!(play.pod.members[0].restarts, 4);

    let mut play = Play::new(RestartPolicy::OnFailure, &["a"]);
    play.up("a").exit("a", 3).up("a").exit("a", 0);
    play.check(&["0 start a", "0 start a", "0 end"]);

    let mut play = Play::new(RestartPolicy::Never, &["a", "b"]);
    play.up("a").up("b").exit("a", 1).exit("b", 0);
    play.check(&["0 start a", "0 start b", "0 end"]);
}

#[test]
fn a_failing_start_does_not_stop_the_others() {
    let mut play = Play::new(RestartPolicy::Always, &["a", "b"]);
    let fault = Fault::Start {
        id: "x".into(),
        message: "no such file".into(),
    };
    play.event(Event::NotStarted {
        container: 0,
        fault,
    });
    // The first restart is immediate, but the kubelet's round goes on first.
    play.check(&["0 start a", "0 start b"]);
    play.up("b");
    play.check(&["0 start a", "0 start b", "0 start a"]);
    assert!(matches!(&play.told[..], [Progress::Failed(f)] if f.class == FailureClass::Start));
}

#[test]
fn a_job_that_may_not_be_restarted_again_fails() {
    for (limit, starts) in [(0, 1), (1, 1), (2, 2), (3, 3)] {
        let mut plan = plan("p");
        plan.restart_policy = RestartPolicy::OnFailure;
        plan.backoff_limit = Some(limit);
        let mut play = Play::of(&plan);
        let name = play.name(0);
        for _ in 0..starts {
            play.up(&name).exit(&name, 1);
            play.until(play.now + 300);
        }
        assert_eq!(
            play.pod.stage,
            Stage::Over(Cause::BackoffLimitExceeded),
            "limit {limit}"
        );
    }
}

#[test]
fn a_pod_is_stopped_then_killed_after_its_grace_period() {
    let mut play = Play::new(RestartPolicy::Always, &["a", "b"]);
    play.up("a")
        .up("b")
        .until(5)
        .stop(None)
        .exit("b", 143)
        .until(100);
    play.check(&[
        "0 start a",
        "0 start b",
        "5 stop a",
        "5 stop b",
        "35 kill a",
    ]);
    play.exit("a", 137);
    assert_eq!(play.log.last().map(String::as_str), Some("100 end"));
}

#[test]
fn the_grace_period_is_two_seconds_at_least_unless_it_is_none() {
    let mut play = Play::new(RestartPolicy::Always, &["a"]);
    play.up("a").stop(Some(1)).until(9);
    play.check(&["0 start a", "0 stop a", "2 kill a"]);

    let mut play = Play::new(RestartPolicy::Always, &["a"]);
    play.up("a").stop(Some(0));
    play.check(&["0 start a", "0 kill a"]);
}

#[test]
fn sidecars_end_last_and_in_reverse() {
    let mut play = Play::new(RestartPolicy::Always, &["s:one", "s:two", "main"]);
    play.up("one").up("two").up("main").stop(Some(30));
    play.until(1).exit("main", 0);
    play.until(2).exit("two", 0);
    play.until(3).exit("one", 0);
    play.check(&[
        "0 start one",
        "0 start two",
        "0 start main",
        "0 stop main",
        "1 stop two",
        "2 stop one",
        "3 end",
    ]);
}

#[test]
fn sidecars_whose_turn_never_came_get_two_seconds() {
    let mut play = Play::new(RestartPolicy::Always, &["s:side", "main"]);
    play.up("side").up("main").stop(Some(10)).until(60);
    play.check(&[
        "0 start side",
        "0 start main",
        "0 stop main",
        "10 stop side",
        "10 kill main",
        "12 kill side",
    ]);
}

#[test]
fn a_second_stop_makes_it_quicker_and_never_slower() {
    let mut play = Play::new(RestartPolicy::Always, &["a"]);
    play.up("a")
        .stop(Some(30))
        .until(1)
        .stop(Some(5))
        .stop(Some(60));
    play.until(60);
    play.check(&["0 start a", "0 stop a", "6 kill a"]);
}

#[test]
fn sidecars_end_when_the_main_containers_are_done() {
    let mut play = Play::new(RestartPolicy::Never, &["s:side", "main"]);
    play.up("side").up("main").exit("main", 0).exit("side", 1);
    play.check(&["0 start side", "0 start main", "0 stop side", "0 end"]);
    assert_eq!(play.pod.stage, Stage::Over(Cause::Completed));
}

#[test]
fn a_deadline_counts_from_the_pods_start() {
    let mut plan = plan("p");
    plan.active_deadline = Some(7);
    let mut play = Play::of(&plan);
    let name = play.name(0);
    play.until(3).up(&name).until(100);
    assert_eq!(
        play.log[1..],
        [format!("7 stop {name}"), format!("37 kill {name}")]
    );
}

#[test]
fn a_lost_sandbox_is_made_again() {
    let mut play = Play::new(RestartPolicy::Always, &["i:init", "main"]);
    play.up("init").exit("init", 0).up("main");
    play.event(Event::SandboxGone);
    play.exit("main", 137);
    play.event(Event::SandboxReady);
    play.check(&[
        "0 start init",
        "0 start main",
        "0 kill main",
        "0 sandbox",
        "0 start init",
    ]);
    assert_eq!(play.pod.members[1].restarts, 1);
}

#[test]
fn the_next_container_waits_for_the_post_start_hook() {
    let mut play = Play::new(RestartPolicy::Always, &["s:side+post", "a+post", "b"]);
    play.up("side").until(5);
    play.check(&["0 start side", "0 post-start side"]);
    play.hooked("side", Hook::PostStart, Ok(()))
        .up("a")
        .until(9);
    assert_eq!(play.log.last().unwrap(), "5 post-start a");
    assert_eq!(play.told, [], "not started yet");
    play.hooked("a", Hook::PostStart, Ok(())).up("b");
    assert_eq!(play.log.last().unwrap(), "9 start b");
    assert_eq!(play.told, [Progress::Started]);
}

#[test]
fn a_failed_post_start_hook_ends_its_container_as_any_other_end() {
    let mut play = Play::new(RestartPolicy::Always, &["a+post+pre", "b"]);
    play.up("a")
        .hooked("a", Hook::PostStart, Err("no".into()))
        .until(3)
        .hooked("a", Hook::PreStop, Ok(()))
        .until(4)
        .exit("a", 143);
    // Nothing is started meanwhile, and the next one comes before the second try.
    play.check(&[
        "0 start a",
        "0 post-start a",
        "0 pre-stop a",
        "3 stop a",
        "4 start b",
    ]);
    assert_eq!(
        play.reports,
        [
            "Started: Started container a",
            "FailedPostStartHook: PostStartHook failed",
            "Killing: FailedPostStartHook",
        ]
    );
    assert!(
        matches!(&play.told[..], [Progress::Failed(f)] if f.reason == "PostStartHookError" && f.message == "no")
    );
    let State::BackOff { failed_hook, .. } = &play.pod.members[0].state else {
        panic!("{:?}", play.pod.members[0].state);
    };
    assert_eq!(failed_hook.as_deref(), Some("no"));
    play.up("b");
    assert_eq!(play.log.last().unwrap(), "4 start a");
}

#[test]
fn a_container_that_ends_before_its_post_start_hook_fails_it() {
    let mut play = Play::new(RestartPolicy::Never, &["a+post", "b"]);
    play.up("a").exit("a", 0);
    play.hooked("a", Hook::PostStart, Err("killed".into()));
    play.check(&["0 start a", "0 post-start a", "0 start b"]);
    let failures = play.reports.iter().filter(|r| r.starts_with("Failed"));
    assert_eq!(failures.count(), 1, "{:?}", play.reports);
}

#[test]
fn pre_stop_takes_whole_seconds_of_the_grace_period() {
    // The hook's end in seconds, and when SIGKILL comes with a grace period of 10 s.
    for (end, kill) in [(0, 10), (3, 10), (9, 11), (10, 12)] {
        let mut play = Play::new(RestartPolicy::Always, &["a+pre"]);
        play.up("a").stop(Some(10)).until(end);
        play.hooked("a", Hook::PreStop, Ok(())).until(60);
        play.check(&[
            "0 start a",
            "0 pre-stop a",
            &format!("{end} stop a"),
            &format!("{kill} kill a"),
        ]);
    }
}

#[test]
fn parts_of_seconds_are_not_taken() {
    let mut play = Play::new(RestartPolicy::Always, &["a+pre"]);
    play.up("a").stop(Some(10));
    let later = |millis| Now {
        wall: at(0).wall,
        monotonic: Duration::from_millis(millis),
    };
    let over = Event::Hooked {
        container: 0,
        id: "a-id".into(),
        hook: Hook::PreStop,
        outcome: Ok(()),
    };
    play.pod.on(over, later(3900));
    assert_eq!(play.pod.next_tick(), Some(Duration::from_millis(10_900)));
}

#[test]
fn pre_stop_is_not_waited_for_beyond_the_grace_period() {
    let mut play = Play::new(RestartPolicy::Always, &["a+pre"]);
    play.up("a").stop(Some(5)).until(60);
    play.check(&["0 start a", "0 pre-stop a", "5 stop a", "7 kill a"]);
    // Its failure is told all the same.
    play.exit("a", 137);
    play.hooked("a", Hook::PreStop, Err("killed".into()));
    assert_eq!(
        play.reports.last().unwrap(),
        "FailedPreStopHook: PreStopHook failed"
    );
}

#[test]
fn pre_stop_runs_only_when_somebody_ends_the_container() {
    let mut play = Play::new(RestartPolicy::Never, &["a+pre"]);
    play.up("a").exit("a", 0);
    play.check(&["0 start a", "0 end"]);

    let mut play = Play::new(RestartPolicy::Always, &["a+pre"]);
    play.up("a").stop(Some(0));
    play.check(&["0 start a", "0 kill a"]);
}

#[test]
fn one_container_is_stopped_with_grace_and_started_again() {
    let mut play = Play::new(RestartPolicy::Always, &["s:side", "a+pre", "b"]);
    play.up("side").up("a").up("b");
    let before = play.log.len();
    play.stop_one("a", 4).stop_one("side", 3).until(20);
    play.exit("a", 137).exit("side", 137);
    assert_eq!(
        play.log[before..],
        [
            "0 pre-stop a",
            // Nobody ends with it, so it waits for nobody.
            "0 stop side",
            "3 kill side",
            "4 stop a",
            "6 kill a",
            "20 start a",
        ]
    );
    assert!(play.reports.contains(&"Killing: unhealthy".to_owned()));

    let mut play = Play::new(RestartPolicy::Never, &["a"]);
    play.up("a").stop_one("a", 4).exit("a", 0);
    play.check(&["0 start a", "0 stop a", "0 end"]);
    assert_eq!(play.pod.stage, Stage::Over(Cause::Completed));
}

#[test]
fn the_end_of_the_pod_hastens_that_of_a_container() {
    let mut play = Play::new(RestartPolicy::Always, &["a+pre", "b"]);
    play.up("a").up("b").stop_one("a", 100).until(1);
    play.stop(Some(5)).until(60);
    play.check(&[
        "0 start a",
        "0 start b",
        "0 pre-stop a",
        "1 stop b",
        "6 stop a",
        "6 kill b",
        "8 kill a",
    ]);
}

#[test]
fn sidecars_hooks_run_with_the_others_and_their_signals_come_in_turn() {
    let mut play = Play::new(
        RestartPolicy::Always,
        &["s:one+pre", "s:two+pre", "main+pre"],
    );
    play.up("one").up("two").up("main").stop(Some(30));
    play.until(1).hooked("one", Hook::PreStop, Ok(()));
    play.hooked("two", Hook::PreStop, Ok(()));
    play.until(2).hooked("main", Hook::PreStop, Ok(()));
    play.until(4).exit("main", 0);
    play.until(50).exit("two", 137);
    play.until(90);
    assert_eq!(
        play.log[3..],
        [
            "0 pre-stop one",
            "0 pre-stop two",
            "0 pre-stop main",
            "2 stop main",
            "4 stop two",
            // One second of its hook, three of its wait: 26 of 30 are left.
            "30 stop one",
            "30 kill two",
            "32 kill one",
        ]
    );
}

#[derive(Clone, Debug)]
enum Happening {
    Up(usize),
    Fail(usize),
    Exit(usize, i32),
    Wait(u64),
    Hooked(usize, Hook, bool),
    StopOne(usize, u64),
    Stop(u64),
    SandboxGone,
    SandboxReady,
}

fn step() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..4usize).prop_map(Happening::Up),
        1 => (0..4usize).prop_map(Happening::Fail),
        4 => (0..4usize, prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(c, e)| Happening::Exit(c, e)),
        2 => (1..400u64).prop_map(Happening::Wait),
        3 => (0..4usize, prop_oneof![Just(Hook::PostStart), Just(Hook::PreStop)], any::<bool>())
            .prop_map(|(c, hook, fails)| Happening::Hooked(c, hook, fails)),
        1 => (0..4usize, 0..40u64).prop_map(|(c, grace)| Happening::StopOne(c, grace)),
        1 => (0..40u64).prop_map(Happening::Stop),
        1 => Just(Happening::SandboxGone),
        1 => Just(Happening::SandboxReady),
    ]
}

/// What the actions of one run of a container may be, in this order: each step at most once.
const STEPS: [&str; 5] = ["start", "post-start", "pre-stop", "stop", "kill"];

/// No step comes twice in a run or out of order, none comes to a container that does not run, and between its stop
/// signal and SIGKILL there are two seconds unless its pod has no grace period.
fn check_steps(log: &[String], name: &str, hastened: bool) -> Result<(), TestCaseError> {
    let mut last: Option<(usize, u64)> = None;
    for line in log {
        let mut words = line.split(' ');
        let (Some(time), Some(word), Some(who)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let time: u64 = time.parse().expect("seconds");
        let Some(step) = STEPS.iter().position(|step| *step == word) else {
            continue;
        };
        if who != name {
            continue;
        }
        match last {
            _ if step == 0 => {}
            None => prop_assert!(false, "{line} before its start"),
            Some((before, then)) => {
                prop_assert!(before < step, "{line} after {}: {log:?}", STEPS[before]);
                if (before, step) == (3, 4) && !hastened {
                    prop_assert!(time >= then + 2, "{line} after {then}");
                }
            }
        }
        last = Some((step, time));
    }
    Ok(())
}

proptest! {
    /// Whatever happens, in whatever order the kernel delivers it.
    #[test]
    fn no_run_of_events_breaks_the_rules(
        policy in prop_oneof![Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)],
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut play = Play::new(policy, &["i:init", "s:side+post+pre", "a+pre", "b+post"]);
        let (mut stopped, mut hastened) = (false, false);
        for step in steps {
            let starting = |play: &Play, c: usize| play.pod.members[c].state == State::Starting;
            let running = |play: &Play, c: usize| matches!(play.pod.members[c].state, State::Running { .. });
            let before = play.log.len();
            let name = |play: &Play, c: usize| play.name(c);
            match step {
                Happening::Up(c) if starting(&play, c) => { let n = name(&play, c); play.up(&n); }
                Happening::Fail(c) if starting(&play, c) => {
                    let fault = Fault::Start { id: "x".into(), message: "m".into() };
                    play.event(Event::NotStarted { container: c, fault });
                }
                Happening::Exit(c, code) if running(&play, c) => { let n = name(&play, c); play.exit(&n, code); }
                Happening::Wait(seconds) => { let end = play.now + seconds; play.until(end); }
                Happening::Hooked(c, hook, fails) => {
                    let n = name(&play, c);
                    let outcome = if fails { Err("m".into()) } else { Ok(()) };
                    play.hooked(&n, hook, outcome);
                }
                Happening::StopOne(c, grace) => { hastened |= grace == 0; let n = name(&play, c); play.stop_one(&n, grace); }
                Happening::Stop(grace) => { hastened |= grace == 0; stopped = true; play.stop(Some(grace)); }
                Happening::SandboxGone => { hastened = true; play.event(Event::SandboxGone); }
                Happening::SandboxReady if play.pod.stage == Stage::Resurrecting => play.event(Event::SandboxReady),
                _ => {}
            }
            let new = &play.log[before..];
            prop_assert!(play.pod.members.iter().filter(|m| m.is_starting()).count() <= 1);
            for c in 0..4 {
                check_steps(&play.log, &play.name(c), hastened)?;
            }
            let ended = play.pod.members.iter().all(|m| !matches!(m.state, State::Starting | State::Running { .. }));
            prop_assert!(ended || !matches!(play.pod.stage, Stage::Over(_)));
            if stopped {
                prop_assert!(new.iter().all(|line| !line.contains(" start ") && !line.contains("sandbox")), "{new:?}");
            }
            if policy == RestartPolicy::Never {
                let mains: u32 = play.pod.members.iter().filter(|m| m.role == ContainerRole::Main).map(|m| m.restarts).sum();
                prop_assert_eq!(mains, 0);
            }
            let ends = play.log.iter().filter(|line| line.ends_with(" end")).count();
            prop_assert!(ends <= 1);
            prop_assert_eq!(ends == 1, matches!(play.pod.stage, Stage::Over(_)));
            prop_assert!(play.told.len() <= 1);
        }
        // A stopped pod whose processes obey SIGKILL always ends.
        play.stop(Some(1));
        for _ in 0..20 {
            for c in 0..4 {
                if play.pod.members[c].state == State::Starting { let n = play.name(c); play.up(&n); }
                let killed = matches!(play.pod.members[c].state, State::Running { halt: Halt::Killed, .. });
                if killed { let n = play.name(c); play.exit(&n, 137); }
            }
            let end = play.now + 3;
            play.until(end);
        }
        prop_assert!(matches!(play.pod.stage, Stage::Over(_)), "{:?}", play.pod.stage);
    }
}
