//! What holds whatever happens.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::executor::status::Facts;
use crate::model::status::{Generation, Phase, PodStatus, QosClass};

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
        4 => (0..4usize, prop_oneof![Just(0), Just(1), Just(42), Just(137)]).prop_map(|(c, e)| Happening::Exit(c, e)),
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
        let mut play = Play::new(policy, &["i:init", "s:side+post+pre", "a+pre", "b+post+all"]);
        let (mut stopped, mut hastened, mut restarted_all) = (false, false, false);
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
                Happening::Exit(c, code) if running(&play, c) => {
                    restarted_all |= code == 42 && c == 3;
                    let n = name(&play, c);
                    play.exit(&n, code);
                }
                Happening::Wait(seconds) => { let end = play.now + seconds; play.until(end); }
                Happening::Hooked(c, hook, fails) => {
                    let n = name(&play, c);
                    let outcome = if fails { Err("m".into()) } else { Ok(()) };
                    play.hooked(&n, hook, outcome);
                }
                Happening::StopOne(c, grace) => { hastened |= grace == 0; let n = name(&play, c); play.stop_one(&n, grace); }
                Happening::Stop(grace) => { hastened |= grace == 0; stopped = true; play.stop(Some(grace)); }
                Happening::SandboxGone => play.event(Event::SandboxGone),
                Happening::SandboxReady if matches!(play.pod.stage, Stage::Resurrecting { .. }) => play.event(Event::SandboxReady),
                _ => {}
            }
            let new = &play.log[before..];
            prop_assert!(play.pod.members.iter().filter(|m| m.is_starting()).count() <= 1);
            for c in 0..4 {
                check_steps(&play.log, &play.name(c), hastened || restarted_all)?;
            }
            let ended = play.pod.members.iter().all(|m| !matches!(m.state, State::Starting | State::Running { .. }));
            prop_assert!(ended || !matches!(play.pod.stage, Stage::Over(_)));
            if stopped {
                prop_assert!(new.iter().all(|line| !line.contains(" start ") && !line.contains("sandbox")), "{new:?}");
            }
            if policy == RestartPolicy::Never && !restarted_all {
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

/// A state's name.
fn place(member: &Member) -> &'static str {
    match member.state {
        State::Waiting => "Waiting",
        State::Starting => "Starting",
        State::Running { .. } => "Running",
        State::BackOff { .. } => "BackOff",
        State::Faulty { .. } => "Faulty",
        State::Ended(_) => "Ended",
    }
}

/// Where a container may be after one event. An exit may be followed by the next start at once.
fn ways(from: &str) -> &'static [&'static str] {
    match from {
        "Waiting" => &["Waiting", "Starting"],
        "Starting" => &["Starting", "Running", "BackOff", "Faulty", "Ended"],
        "Running" => &["Running", "BackOff", "Ended", "Starting"],
        "BackOff" => &["BackOff", "Starting"],
        "Faulty" => &["Faulty", "Starting"],
        "Ended" => &["Ended"],
        other => panic!("{other}"),
    }
}

#[derive(Clone, Debug)]
enum Turn {
    Up(usize),
    Fail(usize, u8),
    Exit(usize, i32),
    Unhealthy(usize, u64),
    Hooked(usize, Hook),
    Wait(u64),
    Stop(u64),
    Evict,
    SandboxGone,
    SandboxReady,
    SandboxFailed,
}

fn turn() -> impl Strategy<Value = Turn> {
    let hook = prop_oneof![Just(Hook::PostStart), Just(Hook::PreStop)];
    prop_oneof![
        10 => (0..5usize).prop_map(Turn::Up),
        2 => (0..5usize, 0..3u8).prop_map(|(c, kind)| Turn::Fail(c, kind)),
        8 => (0..5usize, prop_oneof![Just(0), Just(1), Just(42), Just(137)]).prop_map(|(c, e)| Turn::Exit(c, e)),
        2 => (0..5usize, 1..40u64).prop_map(|(c, grace)| Turn::Unhealthy(c, grace)),
        4 => (0..5usize, hook).prop_map(|(c, hook)| Turn::Hooked(c, hook)),
        4 => (1..200u64).prop_map(Turn::Wait),
        1 => (0..40u64).prop_map(Turn::Stop),
        1 => Just(Turn::Evict),
        1 => Just(Turn::SandboxGone),
        2 => Just(Turn::SandboxReady),
        1 => Just(Turn::SandboxFailed),
    ]
}

proptest! {
    /// Every step is one of the diagram's, who never restarts does not, no grace period is negative or longer than what
    /// was asked for, and a phase that is an end stays.
    #[test]
    fn no_transition_is_illegal(
        policy in prop_oneof![Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)],
        deadline in proptest::option::of(1..2000u64),
        turns in proptest::collection::vec(turn(), 0..80),
    ) {
        let containers = ["i:init", "s:side+pre", "a+pre+never", "b+post+retry", "c+all"];
        let mut plan = Play::plan(policy, &containers);
        plan.active_deadline = deadline;
        let mut play = Play::of(&plan);
        let facts = Facts::new(&plan, Generation::default(), &BTreeMap::new(), None, Vec::new(), QosClass::BestEffort);
        let mut status = PodStatus::default();
        // Who has ended for good, as long as nothing makes all begin again.
        let mut over = BTreeSet::new();
        for turn in turns {
            let is = |place_: &str, c: usize| place(&play.pod.members[c]) == place_;
            let possible = match turn {
                Turn::Up(c) | Turn::Fail(c, _) => is("Starting", c),
                Turn::Exit(c, _) | Turn::Unhealthy(c, _) => is("Running", c),
                Turn::SandboxReady | Turn::SandboxFailed => {
                    matches!(play.pod.stage, Stage::Resurrecting { .. })
                }
                Turn::Hooked(..) | Turn::Wait(_) | Turn::Stop(_) | Turn::Evict | Turn::SandboxGone => true,
            };
            if !possible {
                continue;
            }
            let before: Vec<&str> = play.pod.members.iter().map(place).collect();
            let (lines, stage) = (play.log.len(), play.pod.stage);
            let restarting = matches!(stage, Stage::Terminating { cause: Cause::RestartAll, .. });
            let begins_again = restarting
                || matches!(turn, Turn::SandboxReady)
                || (matches!(turn, Turn::Exit(4, 42)) && stage == Stage::Active);
            if begins_again {
                over.clear();
            }
            let own = |c: usize| plan.all_containers().nth(c).expect("a container").restarts.policy.unwrap_or(policy);
            match turn {
                Turn::Up(c) => { let n = play.name(c); play.up(&n); }
                Turn::Fail(c, kind) => {
                    let message = "m".to_owned();
                    let fault = match kind {
                        0 => Fault::Start { id: "x".into(), message },
                        1 => Fault::Pull { image: "i".into(), message },
                        _ => Fault::Create { reason: "CreateContainerError", message, class: FailureClass::Machine },
                    };
                    if kind == 0 && c != 1 && own(c) == RestartPolicy::Never {
                        over.insert(c);
                    }
                    play.event(Event::NotStarted { container: c, fault });
                }
                Turn::Exit(c, code) => {
                    let comes_back = matches!(play.pod.members[c].state, State::Running { comes_back: true, .. });
                    let by_rule = c >= 3 && code == 42;
                    let for_good = match own(c) {
                        RestartPolicy::Never => !by_rule,
                        RestartPolicy::OnFailure => code == 0 && !comes_back,
                        RestartPolicy::Always => c == 0 && code == 0 && !comes_back,
                    };
                    if c != 1 && for_good && !begins_again {
                        over.insert(c);
                    }
                    let n = play.name(c);
                    play.exit(&n, code);
                }
                Turn::Unhealthy(c, grace) => { let n = play.name(c); play.stop_one(&n, grace); }
                Turn::Hooked(c, hook) => { let n = play.name(c); play.hooked(&n, hook, Ok(())); }
                Turn::Wait(seconds) => { let end = play.now + seconds; play.until(end); }
                Turn::Stop(grace) => { play.stop(Some(grace)); }
                Turn::Evict => play.event(Event::Evict { message: "m".into() }),
                Turn::SandboxGone => play.event(Event::SandboxGone),
                Turn::SandboxReady => play.event(Event::SandboxReady),
                Turn::SandboxFailed => play.event(Event::SandboxFailed),
            }
            let steps = match turn { Turn::Wait(_) => 2, _ => 1 };
            for (c, member) in play.pod.members.iter().enumerate() {
                let after = place(member);
                // Several are due while time passes: a start that is due twice would have to be answered between.
                let legal = ways(before[c]).contains(&after)
                    || (steps == 2 && ways(before[c]).iter().any(|one| ways(one).contains(&after)))
                    || begins_again;
                prop_assert!(legal, "{} from {} to {after} by {turn:?}", member.name, before[c]);
                if let State::Running { halt, .. } = &member.state
                    && let Some(until) = halt.until()
                {
                    let now = Duration::from_secs(play.now);
                    prop_assert!(until > now, "{halt:?} at {now:?}");
                    prop_assert!(until - now <= Duration::from_secs(40), "{halt:?} at {now:?}");
                }
                let start = format!(" start {}", member.name);
                let starts = play.log[lines..].iter().any(|line| line.ends_with(&start));
                prop_assert!(!(starts && over.contains(&c)), "{start} by {turn:?}");
            }
            let observed = crate::executor::status::Observed::new();
            let was = status.phase;
            status = crate::executor::status::of(&play.pod, &facts, &observed, &status, at(play.now).wall);
            let ended = |phase| matches!(phase, Phase::Succeeded | Phase::Failed);
            prop_assert!(!ended(was) || status.phase == was, "{was:?} became {:?}", status.phase);
            prop_assert_eq!(ended(status.phase), matches!(play.pod.stage, Stage::Over(_)));
        }
    }
}
