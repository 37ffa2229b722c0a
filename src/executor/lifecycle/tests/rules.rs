//! What holds whatever happens.

use proptest::prelude::*;

use super::*;

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
                Happening::SandboxGone => { hastened = true; play.event(Event::SandboxGone); }
                Happening::SandboxReady if play.pod.stage == Stage::Resurrecting => play.event(Event::SandboxReady),
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
