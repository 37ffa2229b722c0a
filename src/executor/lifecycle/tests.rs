//! Timelines: events in, who is started, stopped and killed when.

use std::collections::BTreeSet;

use super::*;
use crate::model::plan::{Check, HookAction, Probe};
use crate::model::plan::{ExitCodes, RestartAction, RestartRule, Restarts};
use crate::model::testing::{container, plan};

mod health;
mod hooks;
mod restarts;
mod rules;
mod sandbox;

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
    /// Which containers are probed for what, by the driver's rules: until they end, or until a verdict is the last.
    probed: BTreeSet<(Index, Kind)>,
}

fn probe() -> Probe {
    Probe {
        check: Check::Exec {
            command: vec!["probe".into()],
        },
        initial_delay: 0,
        timeout: 1,
        period: 10,
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace_period: None,
    }
}

impl Play {
    /// Containers as `i:name` (init), `s:name` (sidecar), `name`; with hooks as `name+post`, `name+pre`; with a rule that
    /// restarts all after exit code 42 as `name+all`, itself as `name+retry`; with a policy of its own as `name+never`;
    /// with probes as `name+startup`, `name+liveness`, `name+readiness`.
    fn new(policy: RestartPolicy, containers: &[&str]) -> Self {
        Self::of(&Self::plan(policy, containers))
    }

    fn plan(policy: RestartPolicy, containers: &[&str]) -> PodPlan {
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
                let rule = |action| Restarts {
                    policy: Some(RestartPolicy::Never),
                    rules: vec![RestartRule {
                        action,
                        codes: ExitCodes::In(vec![42]),
                    }],
                };
                match hook {
                    "post" => container.hooks.post_start = action,
                    "all" => container.restarts = rule(RestartAction::RestartAllContainers),
                    "retry" => container.restarts = rule(RestartAction::Restart),
                    "never" => container.restarts.policy = Some(RestartPolicy::Never),
                    "startup" => container.probes.startup = Some(probe()),
                    "liveness" => container.probes.liveness = Some(probe()),
                    "readiness" => container.probes.readiness = Some(probe()),
                    _ => container.hooks.pre_stop = action,
                }
            }
            match role {
                ContainerRole::Main => plan.containers.push(container),
                _ => plan.init_containers.push(container),
            }
        }
        plan
    }

    fn of(plan: &PodPlan) -> Self {
        let mut play = Self {
            pod: Pod::new(plan, "uid", at(0)),
            now: 0,
            log: Vec::new(),
            told: Vec::new(),
            reports: Vec::new(),
            probed: BTreeSet::new(),
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
                Action::Probe { container, kind } => {
                    let is_new = self.probed.insert((container, kind));
                    assert!(is_new, "{kind} of {container} is probed already");
                    continue;
                }
                Action::LeaveReadiness(container) => {
                    self.probed
                        .retain(|(of, kind)| *of != container || *kind == Kind::Readiness);
                    continue;
                }
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
        self.probed.retain(|(of, _)| *of != container);
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
        let mut probe = probe();
        probe.termination_grace_period = u32::try_from(grace).ok();
        self.pod.members[container].probes.liveness = Some(probe);
        self.event(Event::Probed {
            container,
            id,
            kind: Kind::Liveness,
            succeeded: false,
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
fn a_sidecar_that_ends_is_waited_for_until_something_behind_it_has_run() {
    let mut play = Play::new(RestartPolicy::Always, &["s:side", "main"]);
    let fail = |play: &mut Play| {
        let message = "no such host".to_owned();
        let fault = Fault::Pull {
            image: "x:1".into(),
            message,
        };
        let container = play.index("main");
        play.event(Event::NotStarted { container, fault });
    };
    play.up("side");
    fail(&mut play);
    play.until(5).exit("side", 1).up("side");
    play.until(6).exit("side", 1).until(16);
    let mut expected = vec![
        "0 start side",
        "0 start main",
        "5 start side",
        "16 start side",
    ];
    play.check(&expected);
    play.up("side").up("main");
    expected.push("16 start main");
    play.check(&expected);
    // From now on each has its own back-off.
    play.until(17).exit("side", 1).exit("main", 1);
    expected.push("17 start main");
    play.check(&expected);
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

/// That there is no such program says more than the exit code that stands for it.
#[test]
fn an_init_container_that_does_not_start_is_told_with_the_reason() {
    for policy in [RestartPolicy::Never, RestartPolicy::Always] {
        let mut play = Play::new(policy, &["i:init", "main"]);
        let fault = Fault::Start {
            id: "x".into(),
            message: "no such file".into(),
        };
        play.event(Event::NotStarted {
            container: 0,
            fault,
        });
        assert!(
            matches!(&play.told[..], [Progress::Failed(f)] if f.message == "no such file"),
            "{policy:?} {:?}",
            play.told
        );
    }
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
fn an_evicted_pod_has_the_shortest_time_to_end() {
    let mut play = Play::new(RestartPolicy::Always, &["main"]);
    play.up("main").until(3);
    play.event(Event::Evict {
        message: "too much".into(),
    });
    play.until(100);
    // A second, which is raised to the least that a container has.
    play.check(&["0 start main", "3 stop main", "5 kill main"]);
}

#[test]
fn a_pod_that_takes_too_much_of_the_disk_has_a_second() {
    let mut play = Play::new(RestartPolicy::Always, &["a+pre", "b"]);
    play.up("a").up("b").until(5);
    let message = "too much".to_owned();
    play.event(Event::Evict { message });
    play.until(60);
    // Between the stop signal and SIGKILL there are two at least.
    play.check(&[
        "0 start a",
        "0 start b",
        "5 pre-stop a",
        "5 stop b",
        "6 stop a",
        "7 kill b",
        "8 kill a",
    ]);
    play.exit("a", 137).exit("b", 0);
    assert_eq!(play.pod.stage, Stage::Over(Cause::Evicted));
    assert_eq!(
        play.reports
            .iter()
            .filter(|r| *r == "Evicted: too much")
            .count(),
        1
    );
}
