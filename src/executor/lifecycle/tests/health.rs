//! Probes: who is asked what and when, and what the answers lead to.

use proptest::prelude::*;

use super::*;

impl Play {
    /// A worker's verdict: it ends with the last one, as the driver's do.
    fn verdict(&mut self, name: &str, kind: Kind, succeeded: bool) -> &mut Self {
        let (container, id) = (self.index(name), format!("{name}-id"));
        if kind != Kind::Readiness {
            self.probed.remove(&(container, kind));
        }
        self.event(Event::Probed {
            container,
            id,
            kind,
            succeeded,
        });
        self
    }

    /// What a container is probed for, in the first letters.
    fn probes(&self, name: &str) -> String {
        let container = self.index(name);
        let of_it = self.probed.iter().filter(|(of, _)| *of == container);
        of_it
            .filter_map(|(_, kind)| kind.to_string().chars().next())
            .collect()
    }

    /// `started` and `ready` as the status has them.
    fn health(&self, name: &str) -> (bool, bool) {
        let member = &self.pod.members[self.index(name)];
        (member.is_started(), member.is_ready())
    }

    #[track_caller]
    fn is(&self, name: &str, probes: &str, health: (bool, bool)) -> &Self {
        assert_eq!(
            (self.probes(name).as_str(), self.health(name)),
            (probes, health)
        );
        self
    }
}

const NEITHER: (bool, bool) = (false, false);
const STARTED: (bool, bool) = (true, false);
const READY: (bool, bool) = (true, true);

#[test]
fn without_probes_a_container_is_ready_when_it_runs() {
    let mut play = Play::new(RestartPolicy::Always, &["a+post"]);
    play.is("a", "", NEITHER);
    play.up("a").is("a", "", NEITHER);
    play.hooked("a", Hook::PostStart, Ok(())).is("a", "", READY);
    play.exit("a", 1).is("a", "", NEITHER);
}

#[test]
fn the_others_wait_for_the_startup_probe() {
    let mut play = Play::new(
        RestartPolicy::Always,
        &["a+post+startup+liveness+readiness"],
    );
    play.up("a").is("a", "", NEITHER);
    play.hooked("a", Hook::PostStart, Ok(()))
        .is("a", "S", NEITHER);
    play.verdict("a", Kind::Startup, true)
        .is("a", "LR", STARTED);
    play.verdict("a", Kind::Readiness, true)
        .is("a", "LR", READY);
    play.verdict("a", Kind::Readiness, false)
        .is("a", "LR", STARTED);
    play.verdict("a", Kind::Readiness, true)
        .is("a", "LR", READY);
    // A new run knows nothing of the one before it.
    play.exit("a", 0).is("a", "", NEITHER);
    play.up("a")
        .hooked("a", Hook::PostStart, Ok(()))
        .is("a", "S", NEITHER);
}

#[test]
fn started_is_ready_where_nobody_asks() {
    let mut play = Play::new(
        RestartPolicy::Always,
        &["a+startup", "b+liveness", "c+readiness"],
    );
    play.up("a").up("b").up("c");
    play.is("a", "S", NEITHER)
        .is("b", "L", READY)
        .is("c", "R", STARTED);
    play.verdict("a", Kind::Startup, true).is("a", "", READY);
}

#[test]
fn a_failed_probe_has_its_container_restarted_whatever_its_exit_code() {
    for (policy, again, message) in [
        (
            RestartPolicy::Always,
            true,
            "Container a failed liveness probe, will be restarted",
        ),
        (
            RestartPolicy::OnFailure,
            true,
            "Container a failed liveness probe, will be restarted",
        ),
        (
            RestartPolicy::Never,
            false,
            "Container a failed liveness probe",
        ),
    ] {
        let mut play = Play::new(policy, &["a+liveness+readiness", "b"]);
        play.up("a").up("b").verdict("a", Kind::Readiness, true);
        play.verdict("a", Kind::Liveness, false);
        // It is asked whether it is ready until it is gone.
        play.is("a", "R", READY);
        assert_eq!(
            play.reports.last().map(String::as_str),
            Some(format!("Killing: {message}").as_str())
        );
        play.until(3).exit("a", 0);
        let mut expected = vec!["0 start a", "0 start b", "0 stop a"];
        expected.extend(again.then_some("3 start a"));
        play.check(&expected);
    }
}

#[test]
fn a_probes_own_grace_period_comes_before_the_pods() {
    let play = |own: Option<u32>| {
        let mut play = Play::new(RestartPolicy::Always, &["a+startup"]);
        let startup = &mut play.pod.members[0].probes.startup;
        startup
            .as_mut()
            .expect("there is one")
            .termination_grace_period = own;
        play.up("a").verdict("a", Kind::Startup, false).until(100);
        play.log
    };
    assert_eq!(play(None), ["0 start a", "0 stop a", "30 kill a"]);
    assert_eq!(play(Some(5)), ["0 start a", "0 stop a", "5 kill a"]);
    assert_eq!(play(Some(50)), ["0 start a", "0 stop a", "50 kill a"]);
    // Two seconds are the least.
    assert_eq!(play(Some(1)), ["0 start a", "0 stop a", "2 kill a"]);
}

#[test]
fn a_failed_probe_runs_the_pre_stop_hook() {
    let mut play = Play::new(RestartPolicy::Always, &["a+pre+liveness"]);
    play.up("a").verdict("a", Kind::Liveness, false);
    play.hooked("a", Hook::PreStop, Ok(()));
    play.check(&["0 start a", "0 pre-stop a", "0 stop a"]);
}

#[test]
fn a_sidecar_lets_the_next_one_start_when_it_has_started() {
    let mut play = Play::new(
        RestartPolicy::Never,
        &["s:side+startup+readiness", "i:init", "main"],
    );
    play.up("side").check(&["0 start side"]);
    // Not started: again, whatever the policy is, and nobody else meanwhile.
    play.verdict("side", Kind::Startup, false).exit("side", 0);
    play.check(&["0 start side", "0 stop side", "0 start side"]);
    assert!(
        play.reports
            .contains(&"Killing: Init container side failed startup probe".to_owned())
    );
    // It need not be ready.
    play.up("side").verdict("side", Kind::Startup, true);
    play.check(&[
        "0 start side",
        "0 stop side",
        "0 start side",
        "0 start init",
    ]);
    // Once is enough.
    play.exit("side", 1).up("init").exit("init", 0);
    assert_eq!(play.log.last().map(String::as_str), Some("0 start main"));
}

#[test]
fn readiness_is_asked_until_the_end_and_nothing_else() {
    let mut play = Play::new(
        RestartPolicy::Always,
        &["a+liveness+readiness", "b+startup+readiness"],
    );
    play.up("a").up("b").verdict("a", Kind::Readiness, true);
    play.is("a", "LR", READY).is("b", "S", NEITHER);
    play.stop(Some(30));
    play.is("a", "R", READY).is("b", "", NEITHER);
    // What was on its way changes nothing any more.
    let before = play.log.len();
    play.verdict("a", Kind::Liveness, false)
        .verdict("b", Kind::Startup, true);
    play.is("a", "R", READY).is("b", "", NEITHER);
    assert_eq!(play.log.len(), before);
    play.verdict("a", Kind::Readiness, false)
        .is("a", "R", STARTED);
}

#[test]
fn a_verdict_on_an_earlier_run_is_none() {
    let mut play = Play::new(RestartPolicy::Always, &["a+liveness"]);
    play.up("a");
    play.event(Event::Probed {
        container: 0,
        id: "another".into(),
        kind: Kind::Liveness,
        succeeded: false,
    });
    play.check(&["0 start a"]);
}

#[derive(Clone, Debug)]
enum Happening {
    Up(usize),
    Exit(usize, i32),
    Verdict(usize, Kind, bool),
    Hooked(usize, Hook, bool),
    Wait(u64),
    Stop(u64),
    SandboxGone,
    SandboxReady,
}

fn happening() -> impl Strategy<Value = Happening> {
    let kind = prop_oneof![
        Just(Kind::Startup),
        Just(Kind::Liveness),
        Just(Kind::Readiness)
    ];
    let hook = prop_oneof![Just(Hook::PostStart), Just(Hook::PreStop)];
    prop_oneof![
        4 => (0..4usize).prop_map(Happening::Up),
        2 => (0..4usize, prop_oneof![Just(0), Just(1)]).prop_map(|(c, code)| Happening::Exit(c, code)),
        8 => (0..4usize, kind, any::<bool>()).prop_map(|(c, kind, ok)| Happening::Verdict(c, kind, ok)),
        4 => (0..4usize, hook, any::<bool>()).prop_map(|(c, hook, ok)| Happening::Hooked(c, hook, ok)),
        2 => (1..40_u64).prop_map(Happening::Wait),
        1 => (0..40_u64).prop_map(Happening::Stop),
        1 => Just(Happening::SandboxGone),
        2 => Just(Happening::SandboxReady),
    ]
}

proptest! {
    /// Whatever workers say, and whenever they say it. The workers that there are follow from the actions alone; those
    /// that speak out of turn are none of ours.
    #[test]
    fn no_verdict_breaks_the_rules(
        policy in prop_oneof![Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)],
        happenings in proptest::collection::vec(happening(), 0..80),
    ) {
        let containers = ["s:side+startup+liveness+readiness", "a+post+startup+liveness+readiness", "b+liveness", "c+pre+readiness"];
        let mut play = Play::new(policy, &containers);
        for happening in happenings {
            let running = |play: &Play, c: usize| matches!(play.pod.members[c].state, State::Running { .. });
            let before = play.log.len();
            match happening {
                Happening::Up(c) if play.pod.members[c].state == State::Starting => { let n = play.name(c); play.up(&n); }
                Happening::Exit(c, code) if running(&play, c) => { let n = play.name(c); play.exit(&n, code); }
                // A worker speaks only while there is one.
                Happening::Verdict(c, kind, succeeded)
                    if play.probed.contains(&(c, kind)) && (kind != Kind::Liveness || !succeeded) =>
                {
                    let n = play.name(c);
                    let was = play.health(&n);
                    let had_hook = play.pod.members[c].hooks.pre_stop.is_some();
                    play.verdict(&n, kind, succeeded);
                    let new = &play.log[before..];
                    if kind == Kind::Readiness {
                        prop_assert_eq!(play.health(&n), (was.0, succeeded));
                        prop_assert!(new.is_empty(), "{:?}", new);
                    } else if !succeeded {
                        // The container is told, once; it is there until it has gone.
                        let step = if had_hook { "pre-stop" } else { "stop" };
                        prop_assert_eq!(new, [format!("{} {step} {n}", play.now)]);
                        prop_assert_eq!(play.health(&n), was);
                    } else {
                        prop_assert_eq!(play.health(&n).0, true);
                    }
                }
                Happening::Hooked(c, hook, succeeds) => {
                    let n = play.name(c);
                    play.hooked(&n, hook, if succeeds { Ok(()) } else { Err("m".into()) });
                }
                Happening::Wait(seconds) => { let end = play.now + seconds; play.until(end); }
                Happening::Stop(grace) => { play.stop(Some(grace)); }
                Happening::SandboxGone => play.event(Event::SandboxGone),
                Happening::SandboxReady if matches!(play.pod.stage, Stage::Resurrecting { .. }) => play.event(Event::SandboxReady),
                _ => {}
            }
            for (c, member) in play.pod.members.iter().enumerate() {
                let asked = |kind| play.probed.contains(&(c, kind));
                prop_assert!(!member.is_ready() || member.is_started());
                prop_assert!(!member.is_started() || member.is_up());
                // Only what runs is asked, and nothing before the startup probe has succeeded.
                let any = asked(Kind::Startup) || asked(Kind::Liveness) || asked(Kind::Readiness);
                prop_assert!(!any || member.is_up());
                prop_assert!(!asked(Kind::Startup) || !member.is_started());
                prop_assert!(!(asked(Kind::Liveness) || asked(Kind::Readiness)) || member.is_started());
                // Nobody has a container ended that is being ended.
                let ends = !matches!(member.state, State::Running { halt: Halt::No, .. });
                prop_assert!(!ends || !(asked(Kind::Startup) || asked(Kind::Liveness)));
                // What has started and goes on is asked.
                if !ends && member.is_started() {
                    prop_assert_eq!(asked(Kind::Liveness), member.probes.liveness.is_some());
                    prop_assert_eq!(asked(Kind::Readiness), member.probes.readiness.is_some());
                }
            }
        }
    }
}
