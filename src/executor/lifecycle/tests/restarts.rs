//! Who is started again, when a container says so itself.

use super::*;

#[test]
fn the_containers_own_policy_goes_before_its_pods() {
    let mut plan = plan("p");
    plan.restart_policy = RestartPolicy::Always;
    plan.containers = vec![
        container("never", ContainerRole::Main),
        container("always", ContainerRole::Main),
    ];
    plan.containers[0].restarts.policy = Some(RestartPolicy::Never);
    let mut play = Play::of(&plan);
    play.up("never").up("always").exit("never", 1).until(60);
    play.check(&["0 start never", "0 start always"]);
    play.exit("always", 0);
    assert_eq!(play.log.last().unwrap(), "60 start always");
}

#[test]
fn an_init_container_may_be_tried_again_in_a_pod_that_never_restarts() {
    let mut plan = plan("p");
    plan.restart_policy = RestartPolicy::Never;
    let mut init = container("init", ContainerRole::Init);
    init.restarts.policy = Some(RestartPolicy::OnFailure);
    plan.init_containers.push(init);
    let mut play = Play::of(&plan);
    play.up("init").exit("init", 1).up("init").exit("init", 0);
    play.check(&["0 start init", "0 start init", "0 start main"]);

    plan.restart_policy = RestartPolicy::Always;
    plan.init_containers[0].restarts.policy = Some(RestartPolicy::Never);
    let mut play = Play::of(&plan);
    play.up("init").exit("init", 1);
    assert_eq!(play.pod.stage, Stage::Over(Cause::InitFailed));
}

#[test]
fn one_exit_restarts_all_from_the_first_init_container() {
    let mut play = Play::new(
        RestartPolicy::Never,
        &["i:init", "s:side+pre", "a+pre", "done", "b+all"],
    );
    play.up("init")
        .exit("init", 0)
        .up("side")
        .up("a")
        .up("done");
    play.exit("done", 0).up("b");
    let before = play.log.len();
    play.until(5).exit("b", 42);
    assert_eq!(play.pod.restarts_all(), Some(true));
    // No hook, no grace period, no order.
    assert_eq!(play.log[before..], ["5 kill side", "5 kill a"]);
    play.exit("a", 137).exit("side", 137);
    assert_eq!(play.pod.restarts_all(), Some(false));
    play.up("init")
        .exit("init", 0)
        .up("side")
        .up("a")
        .up("done")
        .up("b");
    assert_eq!(
        play.log[before + 2..],
        [
            "5 start init",
            "5 start side",
            "5 start a",
            "5 start done",
            "5 start b",
        ]
    );
    for member in &play.pod.members {
        assert_eq!(member.restarts, 1, "{}", member.name);
        let last = member.last.as_ref().expect("it ran before");
        assert_eq!((last.code, last.reason), (137, "RestartingAllContainers"));
    }
    // Another exit is up to the policy.
    play.exit("b", 1).exit("a", 0).exit("done", 0);
    assert_eq!(play.log.last().unwrap(), "5 pre-stop side");
}

#[test]
fn restarts_of_all_are_backed_off() {
    let mut play = Play::new(RestartPolicy::Never, &["a+all"]);
    for _ in 0..3 {
        play.up("a").exit("a", 42);
        let next = play.pod.next_tick().map_or(play.now, |due| due.as_secs());
        play.until(next);
    }
    play.check(&["0 start a", "0 start a", "10 start a", "30 start a"]);
}

#[test]
fn a_pod_that_ends_is_not_restarted_by_a_rule() {
    let mut play = Play::new(RestartPolicy::Always, &["a+all", "b"]);
    play.up("a")
        .up("b")
        .stop(Some(10))
        .exit("a", 42)
        .exit("b", 0);
    play.check(&["0 start a", "0 start b", "0 stop a", "0 stop b", "0 end"]);

    // Also when it is ended while all containers are being restarted.
    let mut play = Play::new(RestartPolicy::Always, &["a+all", "b"]);
    play.up("a")
        .up("b")
        .exit("a", 42)
        .stop(Some(10))
        .exit("b", 137);
    play.check(&["0 start a", "0 start b", "0 kill b", "0 end"]);
    assert_eq!(play.pod.stage, Stage::Over(Cause::Deleted));
}

#[test]
fn a_sandbox_that_is_lost_meanwhile_is_made_again() {
    let mut play = Play::new(RestartPolicy::Always, &["a+all", "b"]);
    play.up("a").up("b").exit("a", 42);
    play.event(Event::SandboxGone);
    play.exit("b", 137);
    play.check(&["0 start a", "0 start b", "0 kill b", "0 sandbox"]);
}

#[test]
fn an_image_is_pulled_again_after_longer_and_longer_waits() {
    let mut play = Play::new(RestartPolicy::Always, &["a"]);
    play.up("a").exit("a", 1);
    let fail = |play: &mut Play| {
        let message = "no such host".to_owned();
        let fault = Fault::Pull {
            image: "x:1".into(),
            message,
        };
        let container = play.index("a");
        play.event(Event::NotStarted { container, fault });
    };
    let waits = |play: &Play| match &play.pod.members[0].state {
        State::Faulty { reason, .. } => *reason,
        state => panic!("{state:?}"),
    };
    let mut starts = Vec::new();
    for _ in 0..7 {
        fail(&mut play);
        let (failed, before) = (play.now, play.log.len());
        assert_eq!(waits(&play), "ErrImagePull");
        while play.log.len() == before {
            play.until(play.now + 1);
            if play.log.len() == before && play.now >= failed + 10 {
                assert_eq!(waits(&play), "ImagePullBackOff");
            }
        }
        starts.push(play.now - failed);
    }
    assert_eq!(starts, [10, 20, 40, 80, 160, 300, 300]);
    let said = |text: &str| play.reports.iter().filter(|report| *report == text).count();
    assert_eq!(
        said("Failed: Failed to pull image \"x:1\": no such host"),
        7
    );
    assert_eq!(said("Failed: Error: ErrImagePull"), 7);
    assert_eq!(said("BackOff: Back-off pulling image \"x:1\""), 6);
    assert_eq!(said("Failed: Error: ImagePullBackOff"), 6);
    // What was had is not held against the next time.
    play.up("a").exit("a", 1);
    play.until(play.now + 700);
    fail(&mut play);
    let failed = play.now;
    play.until(failed + 10);
    assert!(matches!(play.pod.members[0].state, State::Starting));
}

#[test]
fn an_image_without_a_name_is_looked_for_again_soon() {
    let mut play = Play::new(RestartPolicy::Always, &["a"]);
    play.up("a").exit("a", 1);
    for time in 1..4 {
        let fault = Fault::Image {
            reason: "InvalidImageName",
            event: "InspectFailed",
            message: "it means two".into(),
        };
        let container = play.index("a");
        play.event(Event::NotStarted { container, fault });
        let State::Faulty {
            reason, message, ..
        } = &play.pod.members[0].state
        else {
            panic!("{:?}", play.pod.members[0].state);
        };
        assert_eq!(
            (*reason, message.as_str()),
            ("InvalidImageName", "it means two")
        );
        let failed = play.now;
        play.until(failed + 10);
        assert!(matches!(play.pod.members[0].state, State::Starting));
        let said = |text: &str| play.reports.iter().filter(|report| *report == text).count();
        assert_eq!(said("InspectFailed: it means two"), time);
        assert_eq!(said("Failed: Error: InvalidImageName"), time);
    }
}

#[test]
fn a_container_that_is_ended_to_be_restarted_is_whatever_its_exit_code() {
    let restart = |play: &mut Play| {
        let id = "a-id".to_owned();
        let message = "its resources changed".to_owned();
        play.event(Event::RestartContainer {
            container: 0,
            id,
            message,
        });
    };
    let mut play = Play::new(RestartPolicy::OnFailure, &["a", "b"]);
    play.up("a").up("b");
    restart(&mut play);
    play.exit("a", 0);
    play.check(&["0 start a", "0 start b", "0 stop a", "0 start a"]);
    // That was about the run before.
    play.up("a").exit("a", 0).exit("b", 0);
    assert_eq!(play.pod.stage, Stage::Over(Cause::Completed));

    let mut play = Play::new(RestartPolicy::Never, &["a", "b"]);
    play.up("a").up("b");
    restart(&mut play);
    play.exit("a", 0).exit("b", 0);
    play.check(&["0 start a", "0 start b", "0 stop a", "0 end"]);
}
