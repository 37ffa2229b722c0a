use std::os::fd::AsFd as _;

use super::*;
use crate::manager::client;
use crate::manager::delete::{Target, delete};
use crate::manager::testing::{Machine, delete_options, eventually, image, input, object, plan};
use crate::model::names::ContainerName;
use crate::model::plan::PullPolicy;
use crate::model::pull_secret::{PullSecret, SecretForm};
use crate::model::reference::Reference;
use crate::protocol::{Exec, LaunchFailure};
use crate::state::testing::{key, object_key};
use crate::sys::poll::raise_interrupt;

fn changes(applied: &Applied) -> Vec<(String, Change)> {
    let objects = applied
        .objects
        .iter()
        .map(|(key, change)| (key.to_string(), *change));
    let pods = applied
        .pods
        .iter()
        .map(|(key, change)| (pod_object(key).to_string(), *change));
    objects.chain(pods).collect()
}

fn check(machine: &mut Machine, input: &ApplyInput, expected: &[(&str, Change)]) {
    let applied = machine.apply(input).unwrap();
    let expected: Vec<(String, Change)> = expected
        .iter()
        .map(|(name, change)| ((*name).to_owned(), *change))
        .collect();
    assert_eq!(changes(&applied), expected);
    let told: Vec<(String, Change)> = machine
        .told
        .iter()
        .filter_map(|event| match event {
            Event::Object(key, change) => Some((key.to_string(), *change)),
            _ => None,
        })
        .collect();
    assert_eq!(told, expected);
}

fn cause(error: Error) -> (Error, usize) {
    match error {
        Error::RolledBack { cause, failures } => (*cause, failures.len()),
        other => panic!("not rolled back: {other:?}"),
    }
}

#[test]
fn applying_twice_does_nothing_and_a_change_replaces_the_pod() {
    let mut machine = Machine::new();
    let (web, pod) = ("deployment.apps/web", "pod/web-0");
    let mut first = input(&[("web-0", "run")]);
    check(
        &mut machine,
        &first,
        &[(web, Change::Created), (pod, Change::Created)],
    );
    let (uid, pid) = (machine.uid("web-0"), machine.pid("web-0"));
    check(
        &mut machine,
        &first,
        &[(web, Change::Unchanged), (pod, Change::Unchanged)],
    );
    assert_eq!(
        (machine.uid("web-0"), machine.pid("web-0")),
        (uid.clone(), pid)
    );

    let second = input(&[("web-0", "run another way")]);
    check(
        &mut machine,
        &second,
        &[(web, Change::Unchanged), (pod, Change::Configured)],
    );
    assert_ne!(machine.uid("web-0"), uid);
    assert_eq!(machine.behaviour("web-0"), "run another way");
    assert_eq!(
        machine.scratch.layout().logs().read_dir().unwrap().count(),
        1
    );

    first.options.mode = Mode::DryRun;
    check(
        &mut machine,
        &first,
        &[(web, Change::Unchanged), (pod, Change::Configured)],
    );
    assert_eq!(machine.behaviour("web-0"), "run another way");

    let uid = machine.uid("web-0");
    let mut forced = second;
    forced.options.replace = Replace::All;
    check(
        &mut machine,
        &forced,
        &[(web, Change::Unchanged), (pod, Change::Configured)],
    );
    assert_ne!(machine.uid("web-0"), uid);
}

#[test]
fn a_new_image_under_the_same_name_replaces_the_pod() {
    let mut machine = Machine::new();
    let mut input = input(&[("web-0", "run")]);
    machine.apply(&input).unwrap();
    input.options.pull = Some(PullOverride::Always);
    let expected = [
        ("deployment.apps/web", Change::Unchanged),
        ("pod/web-0", Change::Configured),
    ];
    check(&mut machine, &input, &expected);
    let images = machine.view("web-0").unwrap().record.images;
    let main = ContainerName::parse("main").unwrap();
    assert_eq!(images[&main], image("docker.io/library/web:1 as pulled").id);
    input.options.registries = Registries::Forbidden;
    check(&mut machine, &input, &expected);
}

#[test]
fn a_failure_restores_what_was_replaced() {
    let mut machine = Machine::new();
    let mut first = input(&[("a-0", "run")]);
    first
        .objects
        .push(object("ConfigMap", "", "settings", "old"));
    machine.apply(&first).unwrap();
    let uid = machine.uid("a-0");

    let mut second = input(&[("a-0", "run 2"), ("b-0", "start-error")]);
    second
        .objects
        .push(object("ConfigMap", "", "settings", "new"));
    second.objects.push(object("Secret", "", "new", "x"));
    let (cause, failures) = cause(machine.apply(&second).unwrap_err());
    assert_eq!(failures, 0);
    assert!(
        matches!(&cause, Error::Launch { failure: LaunchFailure { reason, .. }, .. } if reason == "StartError"),
        "{cause:?}"
    );
    let told = machine.told.clone();
    assert!(told.contains(&Event::RollingBack));
    assert!(told.contains(&Event::PodRestored(key("a-0"))), "{told:?}");
    assert!(!told.iter().any(|event| matches!(event, Event::Object(..))));
    assert_eq!(
        (machine.uid("a-0"), machine.behaviour("a-0").as_str()),
        (uid, "run")
    );
    machine.pid("a-0");
    assert!(!machine.dir("b-0").exists());
    let layout = &machine.manager.layout;
    let settings = object::read(layout, &object_key("ConfigMap", "", "settings")).unwrap();
    assert_eq!(settings.unwrap().manifest["data"], "old");
    for gone in [
        object_key("Secret", "", "new"),
        object_key("Deployment", "apps", "b"),
    ] {
        assert_eq!(object::read(layout, &gone).unwrap(), None);
    }
}

#[test]
fn an_executor_that_dies_leaves_its_last_words_and_nothing_else() {
    let mut machine = Machine::new();
    let mut input = input(&[("web-0", "die")]);
    let (cause, failures) = cause(machine.apply(&input).unwrap_err());
    assert!(
        matches!(&cause, Error::ExecutorDied { log, .. } if log.contains("no space on the moon")),
        "{cause:?}"
    );
    assert_eq!(failures, 0);
    assert!(!machine.dir("web-0").exists());

    input.options.rollback = Rollback::No;
    let kept = machine.apply(&input).unwrap_err();
    assert!(matches!(kept, Error::ExecutorDied { .. }), "{kept:?}");
    // What another test has just forked holds a copy of the executor's lock until it executes its program.
    let mut views = std::iter::repeat_with(|| machine.view("web-0").unwrap());
    let dead = views.find(|view| view.status.reason.is_some()).unwrap();
    assert_eq!(dead.status.reason.as_deref(), Some(view::EXECUTOR_DIED));
}

#[test]
fn a_container_that_ran_and_failed_stays() {
    let mut machine = Machine::new();
    let input = input(&[("a-0", "run"), ("b-0", "workload")]);
    let error = machine.apply(&input).unwrap_err();
    assert!(
        matches!(&error, Error::Workload { pod, .. } if *pod == key("b-0")),
        "{error:?}"
    );
    machine.pid("a-0");
    let status = machine.view("b-0").unwrap().status;
    assert_eq!(status.phase, crate::model::status::Phase::Failed);
}

#[test]
fn a_stopped_executor_does_not_hold_up_the_apply() {
    let mut machine = Machine::new();
    let (cause, failures) = cause(machine.apply(&input(&[("a-0", "frozen")])).unwrap_err());
    assert!(
        matches!(&cause, Error::ExecutorDied { log, .. } if log.contains("stopped by a signal")),
        "{cause:?}"
    );
    assert_eq!(failures, 0);
    assert!(!machine.dir("a-0").exists());
    let told = |event: &&Event| matches!(event, Event::PodSilent(..));
    let silent: Vec<_> = machine.told.iter().filter(told).collect();
    let stopped = Some("its executor is stopped by a signal".to_owned());
    assert_eq!(silent, [&Event::PodSilent(key("a-0"), stopped)]);
}

#[test]
fn a_long_start_is_told_and_goes_on() {
    let mut machine = Machine::new();
    let mut slow = input(&[("a-0", "silent")]);
    slow.options.timeout = Some(Duration::from_millis(800));
    let (late, _) = cause(machine.apply(&slow).unwrap_err());
    assert!(matches!(late, Error::TimedOut { .. }), "{late:?}");
    let told = |event: &&Event| matches!(event, Event::PodSilent(..));
    // After 100 ms, and after 200 ms and 400 ms more.
    let count = machine.told.iter().filter(told).count();
    assert!((1..=3).contains(&count), "{count} times");
}

#[test]
fn the_deadline_and_a_signal_undo_a_start_that_takes_too_long() {
    let mut machine = Machine::new();
    machine.apply(&input(&[("a-0", "run")])).unwrap();
    let uid = machine.uid("a-0");
    let mut silent = input(&[("a-0", "silent")]);
    silent.options.timeout = Some(Duration::from_millis(100));
    let (late, failures) = cause(machine.apply(&silent).unwrap_err());
    assert!(
        matches!(
            late,
            Error::TimedOut {
                what: "the start",
                ..
            }
        ),
        "{late:?}"
    );
    assert_eq!((failures, machine.uid("a-0")), (0, uid.clone()));

    silent.options.timeout = None;
    let raise = &mut |event| {
        if matches!(event, Event::PodStarting(_)) {
            raise_interrupt();
        }
    };
    // Starting the old one again is interrupted too, which does not end it.
    let error = apply(&machine.manager, &machine.images, &silent, raise).unwrap_err();
    let (interrupted, _) = cause(error);
    assert!(
        matches!(interrupted, Error::Interrupted { signal: 2 }),
        "{interrupted:?}"
    );
    eventually("the old pod runs", || {
        machine.dir("a-0").has_executor().unwrap()
    });
    assert_eq!(machine.uid("a-0"), uid);
}

#[test]
fn two_applies_at_once_take_turns() {
    let machine = Machine::new();
    let run = |pods: [(&'static str, &'static str); 3]| {
        let layout = machine.manager.layout.clone();
        std::thread::spawn(move || {
            let mut own = Machine::new();
            own.manager.layout = layout;
            let mut input = input(&pods);
            input.options.replace = Replace::All;
            let result = own.apply(&input).map(|_| ());
            // The pods are the other machine's to remove.
            own.manager.layout = own.scratch.layout();
            result
        })
    };
    let threads = [
        run([("a-0", "run 1"), ("b-0", "run 1"), ("c-0", "run 1")]),
        run([("c-0", "run 2"), ("b-0", "run 2"), ("a-0", "run 2")]),
    ];
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    let last = machine.behaviour("a-0");
    for name in ["a-0", "b-0", "c-0"] {
        assert_eq!(machine.behaviour(name), last);
        machine.pid(name);
    }
}

#[test]
fn readiness_and_the_end_are_waited_for() {
    let mut machine = Machine::new();
    let mut wait = |name: &str, does: &str, wait, timeout| {
        let mut input = input(&[(name, does)]);
        input.options.wait = wait;
        input.options.timeout = Some(Duration::from_millis(timeout));
        machine.apply(&input).map(|_| ())
    };
    wait("a-0", "run", WaitFor::Ready, 20_000).unwrap();
    wait("a-0", "run", WaitFor::Complete, 20_000).unwrap();
    wait("b-0", "complete", WaitFor::Complete, 20_000).unwrap();
    wait("b-0", "complete", WaitFor::Ready, 20_000).unwrap();
    let late = wait("c-0", "unready", WaitFor::Ready, 500).unwrap_err();
    assert!(
        matches!(
            late,
            Error::TimedOut {
                what: "readiness",
                ..
            }
        ),
        "{late:?}"
    );
    // It is left to be looked at.
    machine.pid("c-0");
    machine.kill("c-0");
    let died = wait::wait(
        &machine.manager,
        &[key("c-0")],
        Condition::Ready,
        None,
        &mut |_| {},
    );
    assert!(matches!(died, Err(Error::Workload { .. })), "{died:?}");
}

#[test]
fn nothing_is_stopped_before_every_image_is_there() {
    let mut machine = Machine::new();
    machine.apply(&input(&[("a-0", "run")])).unwrap();
    let pid = machine.pid("a-0");
    let reference = |name: &str| Reference::parse(name).unwrap();
    let with_image = |pod: &str, image: &str, policy| {
        let mut plan = plan(pod, "run 2");
        plan.containers[0].image = image.into();
        plan.containers[0].reference = reference(image);
        plan.containers[0].pull_policy = policy;
        plan
    };
    let mut next = input(&[("a-0", "run 2")]);
    next.plans
        .push(with_image("b-0", "gone:1", PullPolicy::IfNotPresent));
    next.plans
        .push(with_image("c-0", "there:1", PullPolicy::IfNotPresent));
    machine.images.there.insert(reference("there:1"));
    let Error::Images(missing) = machine.apply(&next).unwrap_err() else {
        panic!("images are missing")
    };
    assert_eq!(missing.len(), 1);
    assert_eq!(
        (missing[0].reason, &missing[0].reference),
        ("ErrImagePull", &reference("gone:1"))
    );
    assert_eq!(missing[0].users[0].0, key("b-0"));
    assert_eq!(machine.images.pulled.borrow().len(), 2);
    // Both were begun before one of them ended.
    let pulling = machine
        .told
        .iter()
        .take_while(|event| matches!(event, Event::ImagePulling(_)));
    assert_eq!(pulling.count(), 2);

    next.plans = vec![
        plan("a-0", "run 2"),
        with_image("b-0", "gone:1", PullPolicy::Never),
    ];
    let Error::Images(missing) = machine.apply(&next).unwrap_err() else {
        panic!("images are missing")
    };
    assert_eq!(
        missing[0].to_string(),
        "ErrImageNeverPull: Container image \"gone:1\" is not present with pull policy of Never"
    );
    assert_eq!(machine.pid("a-0"), pid);
}

#[test]
fn another_owners_pod_is_not_taken_over() {
    let mut machine = Machine::new();
    machine.apply(&input(&[("web-0", "run")])).unwrap();
    let mut other = input(&[("web-0", "run")]);
    other.plans[0].owner = object_key("StatefulSet", "apps", "web");
    other.sources = SourceSet::new(["/other.yaml".to_owned()]);
    let error = machine.apply(&other).unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    // The same file may say it differently.
    other.sources = SourceSet::new(["/test.yaml".to_owned()]);
    machine.apply(&other).unwrap();
    assert_eq!(
        machine.view("web-0").unwrap().record.owner.kind,
        "StatefulSet"
    );
}

#[test]
fn a_pod_whose_executor_died_is_started_again_and_one_that_ended_is_not() {
    let mut machine = Machine::new();
    let input = input(&[("a-0", "run"), ("job-0", "complete")]);
    machine.apply(&input).unwrap();
    machine.kill("a-0");
    eventually("the job ends", || {
        !machine.dir("job-0").has_executor().unwrap()
    });
    let expected = [
        ("deployment.apps/a", Change::Unchanged),
        ("deployment.apps/job", Change::Unchanged),
        ("pod/a-0", Change::Configured),
        ("pod/job-0", Change::Unchanged),
    ];
    check(&mut machine, &input, &expected);
    machine.pid("a-0");
}

#[test]
fn what_the_files_name_no_longer_is_pruned() {
    let mut machine = Machine::new();
    machine
        .apply(&input(&[("a-0", "run"), ("b-0", "run")]))
        .unwrap();
    let mut elsewhere = input(&[("c-0", "run")]);
    elsewhere.sources = SourceSet::new(["/other.yaml".to_owned()]);
    machine.apply(&elsewhere).unwrap();
    let mut less = input(&[("a-0", "run")]);
    machine.apply(&less).unwrap();
    machine.pid("b-0");
    less.options.prune = Prune::Yes;
    machine.apply(&less).unwrap();
    assert!(!machine.dir("b-0").exists());
    assert!(
        machine
            .told
            .contains(&Event::Deleted(object_key("Deployment", "apps", "b")))
    );
    machine.pid("a-0");
    machine.pid("c-0");
}

#[test]
fn a_corrupt_record_stands_in_its_own_way_only() {
    let mut machine = Machine::new();
    machine
        .apply(&input(&[("a-0", "run"), ("b-0", "run")]))
        .unwrap();
    let path = machine.dir("a-0").paths().record();
    crate::sys::fs::replace(&path, 0o600, b"{").unwrap();
    let error = machine
        .apply(&input(&[("a-0", "run")]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("`kplay delete pod a-0 --force`"), "{error}");
    let (views, errors) = view::list(&machine.manager.layout).unwrap();
    assert_eq!((views.len(), errors.len()), (1, 1));
    machine.apply(&input(&[("b-0", "run")])).unwrap();

    let pid = machine.pid("a-0");
    let target = [Target::Object(object_key("Pod", "", "a-0"))];
    delete(
        &machine.manager,
        &target,
        delete_options(Grace::Kill),
        &mut |_| {},
    )
    .unwrap();
    assert!(!machine.dir("a-0").exists());
    let ended = std::fs::metadata(format!("/proc/{pid}/exe")).is_err();
    assert!(
        ended,
        "the executor of a pod with a corrupt record is ended too"
    );
    let error = machine.apply(&input(&[("a-0", "run")]));
    assert!(error.is_ok(), "{error:?}");
}

#[test]
fn a_pod_that_has_not_started_yet_is_waited_for_though_it_stays() {
    let mut machine = Machine::new();
    let mut slow = input(&[("a-0", "slow")]);
    slow.options.timeout = Some(Duration::from_millis(100));
    slow.options.rollback = Rollback::No;
    for _ in 0..2 {
        let late = machine.apply(&slow).unwrap_err();
        assert!(matches!(late, Error::TimedOut { .. }), "{late:?}");
    }
    let pid = machine.pid("a-0");
    let (empty, _) = std::io::pipe().unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    let streams = client::ExecIo::Streams {
        stdin: empty.as_fd(),
        stdout: writer.as_fd(),
        stderr: writer.as_fd(),
    };
    let command = Exec {
        container: None,
        command: vec!["start".into()],
        tty: None,
    };
    client::exec(&machine.dir("a-0"), command, &streams)
        .unwrap()
        .wait()
        .unwrap();
    machine.apply(&slow).unwrap();
    assert_eq!(machine.pid("a-0"), pid);
}

#[test]
fn a_failure_shows_again_what_had_ended() {
    let mut machine = Machine::new();
    let job = input(&[("job-0", "complete")]);
    machine.apply(&job).unwrap();
    eventually("the job ends", || {
        !machine.dir("job-0").has_executor().unwrap()
    });
    let before = machine.view("job-0").unwrap();
    let error = machine
        .apply(&input(&[("job-0", "start-error")]))
        .unwrap_err();
    let (_, failures) = cause(error);
    assert_eq!(failures, 0);
    let after = machine.view("job-0").unwrap();
    assert_eq!((after.record, after.status), (before.record, before.status));
    let expected = [
        ("deployment.apps/job", Change::Unchanged),
        ("pod/job-0", Change::Unchanged),
    ];
    check(&mut machine, &job, &expected);
}

#[test]
fn a_pull_has_the_secrets_of_all_pods_that_want_the_image() {
    let mut machine = Machine::new();
    let secret = |name: &str| PullSecret {
        name: name.into(),
        form: SecretForm::DockerCfg,
        content: Vec::new(),
    };
    let mut input = input(&[("a-0", "run"), ("b-0", "run"), ("c-0", "run")]);
    for plan in &mut input.plans {
        plan.containers[0].image = "there:1".into();
        plan.containers[0].reference = Reference::parse("there:1").unwrap();
    }
    machine
        .images
        .there
        .insert(Reference::parse("there:1").unwrap());
    input.pull_secrets = [
        (key("a-0"), vec![secret("x"), secret("y")]),
        (key("c-0"), vec![secret("y"), secret("z")]),
        (key("d-0"), vec![secret("another pod's")]),
    ]
    .into();
    machine.apply(&input).unwrap();
    assert_eq!(*machine.images.shown.borrow(), ["x", "y", "z"]);
}
