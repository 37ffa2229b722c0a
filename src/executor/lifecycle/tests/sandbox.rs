//! The end of the pause process, which takes the namespaces with it: everything is ended as with the pod, and runs again.

use super::*;

#[test]
fn what_is_in_a_lost_sandbox_has_its_grace_period() {
    let mut play = Play::new(
        RestartPolicy::Always,
        &["i:init", "s:side", "main+pre+readiness"],
    );
    play.up("init").exit("init", 0).up("side").up("main");
    let before = play.log.len();
    play.until(5).event(Event::SandboxGone);
    play.until(7)
        .hooked("main", Hook::PreStop, Ok(()))
        .until(9)
        .exit("main", 0);
    play.until(11).exit("side", 143);
    assert_eq!(
        play.log[before..],
        [
            "5 pre-stop main",
            "7 stop main",
            "9 stop side",
            "11 sandbox"
        ]
    );
    play.event(Event::SandboxReady);
    play.up("init").exit("init", 0).up("side").up("main");
    assert_eq!(
        play.log[before + 4..],
        ["11 start init", "11 start side", "11 start main"]
    );
    let restarts = play.pod.members.iter().map(|member| member.restarts);
    assert_eq!(restarts.collect::<Vec<_>>(), [1, 1, 1]);
    let changed = "SandboxChanged: Pod sandbox changed, it will be killed and re-created.";
    let told = play.reports.iter().filter(|report| *report == changed);
    assert_eq!(told.count(), 1);
    assert!(
        play.reports
            .contains(&"Killing: Stopping container main".to_owned())
    );

    let mut play = Play::new(RestartPolicy::Always, &["main"]);
    play.up("main").event(Event::SandboxGone);
    play.until(60);
    play.check(&["0 start main", "0 stop main", "30 kill main"]);
}

#[test]
fn what_is_done_is_not_done_again_in_another_sandbox() {
    let mut play = Play::new(RestartPolicy::OnFailure, &["i:init", "done", "main"]);
    play.up("init").exit("init", 0).up("done").up("main");
    play.exit("done", 0);
    play.event(Event::SandboxGone);
    // It was asked to stop, and has not done its work.
    play.exit("main", 0);
    play.event(Event::SandboxReady);
    play.up("init").exit("init", 0).up("main");
    play.check(&[
        "0 start init",
        "0 start done",
        "0 start main",
        "0 stop main",
        "0 sandbox",
        "0 start init",
        "0 start main",
    ]);
    let restarts = play.pod.members.iter().map(|member| member.restarts);
    assert_eq!(restarts.collect::<Vec<_>>(), [1, 0, 1]);
    play.exit("main", 0);
    assert_eq!(play.pod.stage, Stage::Over(Cause::Completed));

    // A pod that restarts what it can has nothing to restart.
    let mut play = Play::new(RestartPolicy::Always, &["a+never", "b+never"]);
    play.up("a").up("b").exit("a", 0);
    play.event(Event::SandboxGone);
    play.exit("b", 137);
    play.check(&["0 start a", "0 start b", "0 stop b", "0 end"]);
}

#[test]
fn a_pod_that_never_restarts_ends_with_its_sandbox() {
    let mut play = Play::new(RestartPolicy::Never, &["a"]);
    play.up("a").event(Event::SandboxGone);
    play.exit("a", 0);
    play.check(&["0 start a", "0 stop a", "0 end"]);
    assert_eq!(play.pod.stage, Stage::Over(Cause::SandboxGone));
    assert!(
        !play
            .reports
            .iter()
            .any(|report| report.starts_with("SandboxChanged"))
    );
}

#[test]
fn another_sandbox_shortens_no_back_off() {
    let mut play = Play::new(RestartPolicy::Always, &["i:init", "a", "b"]);
    play.up("init").exit("init", 0).up("a").up("b");
    play.exit("a", 1).up("a").exit("a", 1);
    play.until(4).event(Event::SandboxGone);
    play.exit("b", 143).event(Event::SandboxReady);
    let before = play.log.len();
    play.up("init").exit("init", 0).up("b").until(60);
    assert_eq!(play.log[before..], ["4 start b", "10 start a"]);
    let restarts = play.pod.members.iter().map(|member| member.restarts);
    assert_eq!(restarts.collect::<Vec<_>>(), [1, 2, 1]);
}

#[test]
fn the_deadline_of_a_pod_does_not_wait_for_another_sandbox() {
    let mut plan = Play::plan(RestartPolicy::Always, &["main"]);
    plan.active_deadline = Some(7);
    let mut play = Play::of(&plan);
    play.up("main").until(5).event(Event::SandboxGone);
    play.until(20).exit("main", 143);
    play.check(&["0 start main", "5 stop main", "20 end"]);
    assert_eq!(play.pod.stage, Stage::Over(Cause::DeadlineExceeded));
}

#[test]
fn a_sandbox_that_cannot_be_made_is_tried_again() {
    let lost = |deadline: Option<u64>| {
        let mut plan = plan("p");
        plan.active_deadline = deadline;
        let mut play = Play::of(&plan);
        play.up("main").event(Event::SandboxGone);
        play.exit("main", 137);
        play.event(Event::SandboxFailed);
        play
    };
    let mut play = lost(None);
    play.until(9);
    play.event(Event::Tick);
    play.check(&["0 start main", "0 stop main", "0 sandbox"]);
    play.until(10).event(Event::SandboxFailed);
    play.until(25).event(Event::SandboxReady);
    play.check(&[
        "0 start main",
        "0 stop main",
        "0 sandbox",
        "10 sandbox",
        "20 sandbox",
        "25 start main",
    ]);
    // Meanwhile it can be ended, and its time goes on.
    let mut play = lost(None);
    play.stop(Some(30));
    play.check(&["0 start main", "0 stop main", "0 sandbox", "0 end"]);
    let mut play = lost(Some(15));
    play.until(60);
    play.check(&[
        "0 start main",
        "0 stop main",
        "0 sandbox",
        "10 sandbox",
        "15 end",
    ]);
    assert_eq!(play.pod.stage, Stage::Over(Cause::DeadlineExceeded));
}
