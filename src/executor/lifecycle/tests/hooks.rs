//! Hooks, and how containers are brought to their end.

use super::*;

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
    let report = "Killing: Container a failed liveness probe, will be restarted";
    assert!(play.reports.contains(&report.to_owned()));

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
