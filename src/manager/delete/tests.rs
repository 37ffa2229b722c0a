use std::collections::BTreeMap;

use super::*;
use crate::manager::launch;
use crate::manager::report::Event;
use crate::manager::sweep::sweep;
use crate::manager::testing::{Machine, delete_options, eventually, input, object};
use crate::manager::wait::{self, Condition};
use crate::model::status::Phase;
use crate::state::testing::{key, object_key};
use crate::state::view::EXECUTOR_DIED;
use crate::sys::cgroup::Hierarchies;

fn pod(name: &str) -> Target {
    Target::Object(object_key("Pod", "", name))
}

fn deployment(name: &str) -> Target {
    Target::Object(object_key("Deployment", "apps", name))
}

/// What was deleted, in order.
fn gone(
    machine: &Machine,
    targets: &[Target],
    options: DeleteOptions,
) -> Result<Vec<String>, Error> {
    let mut gone = Vec::new();
    delete(&machine.manager, targets, options, &mut |event| {
        if let Event::Deleted(key) = event {
            gone.push(key.to_string());
        }
    })?;
    Ok(gone)
}

#[test]
fn a_workload_goes_with_its_pods_and_a_pod_without_its_workload() {
    let mut machine = Machine::new();
    machine
        .apply(&input(&[("a-0", "run"), ("a-1", "run"), ("b-0", "run")]))
        .unwrap();
    let options = delete_options(Grace::Own);
    let expected = ["pod/a-0", "pod/a-1", "deployment.apps/a"];
    assert_eq!(
        gone(&machine, &[deployment("a")], options).unwrap(),
        expected
    );
    assert_eq!(gone(&machine, &[pod("b-0")], options).unwrap(), ["pod/b-0"]);
    let missing = gone(&machine, &[pod("b-0"), deployment("b")], options).unwrap_err();
    assert_eq!(missing.to_string(), "pods \"b-0\" not found");
    let missing = gone(&machine, &[deployment("b"), pod("x")], options).unwrap_err();
    assert!(matches!(missing, Error::Several(errors) if errors.len() == 2));
    let ignored = DeleteOptions {
        missing: Missing::Ignore,
        ..options
    };
    assert!(
        gone(&machine, &[deployment("b")], ignored)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_hanging_executor_is_killed() {
    let mut machine = Machine::new();
    machine
        .apply(&input(&[("a-0", "hang"), ("b-0", "run")]))
        .unwrap();
    let pid = machine.pid("a-0");
    let all = [Target::AllOf {
        kind: "Pod",
        namespace: Namespace::default(),
    }];
    let deleted = gone(&machine, &all, delete_options(Grace::Kill)).unwrap();
    assert_eq!(deleted, ["pod/a-0", "pod/b-0"]);
    assert!(std::fs::metadata(format!("/proc/{pid}/exe")).is_err());
}

#[test]
fn an_executor_whose_lock_file_was_overwritten_is_found_all_the_same() {
    let mut machine = Machine::new();
    machine.apply(&input(&[("a-0", "run")])).unwrap();
    let pid = machine.pid("a-0");
    crate::sys::append::line(&machine.dir("a-0").paths().executor_lock(), b"?").unwrap();
    let deleted = gone(&machine, &[pod("a-0")], delete_options(Grace::Kill)).unwrap();
    assert_eq!(deleted, ["pod/a-0"]);
    assert!(std::fs::metadata(format!("/proc/{pid}/exe")).is_err());
}

#[test]
fn a_pod_has_an_executor_from_its_launch_on() {
    let machine = Machine::new();
    let plan = crate::manager::testing::plan("a-0", "silent");
    let layout = &machine.manager.layout;
    let locks = Locks::try_pod(layout, &plan.key()).unwrap().unwrap();
    let dir = locks.pod(&plan.key()).unwrap();
    let (record, launch) = launch::new_pod(layout, &plan, BTreeMap::new(), None).unwrap();
    let launching = launch::start(&machine.manager, &dir, &record, &launch).unwrap();
    assert!(dir.has_executor().unwrap());
    let pid = machine.pid("a-0");
    // The command dies.
    drop((launching, locks));
    let deleted = gone(&machine, &[pod("a-0")], delete_options(Grace::Kill)).unwrap();
    assert_eq!(deleted, ["pod/a-0"]);
    assert!(std::fs::metadata(format!("/proc/{pid}/exe")).is_err());
}

#[test]
fn a_pod_that_cannot_be_marked_is_deleted_all_the_same() {
    let mut machine = Machine::new();
    machine.apply(&input(&[("a-0", "run")])).unwrap();
    // As with a full disk, the note cannot be written.
    fs::create_dir_all(&machine.dir("a-0").paths().deleting().join("x"), 0o700).unwrap();
    let options = DeleteOptions {
        wait: Wait::No,
        ..delete_options(Grace::Own)
    };
    assert_eq!(gone(&machine, &[pod("a-0")], options).unwrap(), ["pod/a-0"]);
    assert!(!machine.dir("a-0").exists());
}

#[test]
fn a_dead_executor_leaves_nothing_after_the_next_command() {
    let mut machine = Machine::new();
    machine
        .apply(&input(&[("a-0", "leave"), ("b-0", "leave")]))
        .unwrap();
    let cgroup = |name: &str| {
        let path = format!("kplay/besteffort/{}", machine.uid(name));
        Hierarchies::open().unwrap().find(&path)
    };
    assert_eq!(cgroup("a-0").unwrap().pids().unwrap().len(), 1);
    for name in ["a-0", "b-0"] {
        machine.kill(name);
        let status = machine.view(name).unwrap().status;
        assert_eq!(status.reason.as_deref(), Some(EXECUTOR_DIED));
    }
    let path = machine.uid("a-0");
    assert_eq!(
        gone(&machine, &[pod("a-0")], delete_options(Grace::Own)).unwrap(),
        ["pod/a-0"]
    );
    let hierarchies = Hierarchies::open().unwrap();
    let path = format!("kplay/besteffort/{path}");
    assert!(hierarchies.find(&path).is_none());

    assert!(cgroup("b-0").is_some());
    for _ in 0..2 {
        assert!(
            sweep(&machine.manager.layout, &mut |_| {})
                .unwrap()
                .is_empty()
        );
        assert!(cgroup("b-0").is_none());
        assert!(machine.view("b-0").is_some());
    }
}

#[test]
fn a_deletion_that_is_not_waited_for_is_finished_by_the_next_command() {
    let mut machine = Machine::new();
    machine.apply(&input(&[("a-0", "run")])).unwrap();
    let options = DeleteOptions {
        wait: Wait::No,
        ..delete_options(Grace::Own)
    };
    assert_eq!(gone(&machine, &[pod("a-0")], options).unwrap(), ["pod/a-0"]);
    assert!(machine.view("a-0").unwrap().deleting.is_some());
    eventually("the executor ends", || {
        !machine.dir("a-0").has_executor().unwrap()
    });
    let waiter = {
        let layout = machine.manager.layout.clone();
        std::thread::spawn(move || {
            let manager = crate::manager::testing::manager(layout);
            wait::wait(
                &manager,
                &[key("a-0")],
                Condition::Deleted,
                None,
                &mut |_| {},
            )
        })
    };
    let mut told = Vec::new();
    sweep(&machine.manager.layout, &mut |event| told.push(event)).unwrap();
    assert_eq!(told, [Event::Deleted(object_key("Pod", "", "a-0"))]);
    waiter.join().unwrap().unwrap();
    assert!(!machine.dir("a-0").exists());
}

#[test]
fn a_job_remembers_how_its_pod_ended() {
    let mut machine = Machine::new();
    let job = object_key("Job", "batch", "a");
    let apply = |machine: &mut Machine, does: &str, suspend: bool| {
        let mut input = input(&[("a-0", does)]);
        input.plans[0].owner = job.clone();
        input.objects[0].key = job.clone();
        let spec = serde_json::json!({ "suspend": suspend });
        input.objects[0].manifest = serde_json::json!({ "kind": "Job", "spec": spec });
        machine.apply(&input).unwrap();
    };
    let noted = |machine: &Machine| {
        let record = crate::state::object::read(&machine.manager.layout, &job).unwrap();
        let ended = record.expect("the Job stays").ended;
        ended.map(|ended| (ended.phase, ended.reason))
    };
    let succeeded = Some((Phase::Succeeded, None));
    let own = delete_options(Grace::Own);

    apply(&mut machine, "complete", false);
    assert_eq!(noted(&machine), None);
    gone(&machine, &[pod("a-0")], own).unwrap();
    assert_eq!(noted(&machine), succeeded);
    // Another run is another end.
    apply(&mut machine, "hang", false);
    assert_eq!(noted(&machine), None);
    gone(&machine, &[pod("a-0")], delete_options(Grace::Kill)).unwrap();
    let died = Some((Phase::Failed, Some(EXECUTOR_DIED.to_owned())));
    assert_eq!(noted(&machine), died);
    // Of a command that did not wait, the next one notes it.
    apply(&mut machine, "run", false);
    let options = DeleteOptions {
        wait: Wait::No,
        ..own
    };
    gone(&machine, &[pod("a-0")], options).unwrap();
    eventually("the executor has ended", || {
        sweep(&machine.manager.layout, &mut |_| {}).unwrap();
        !machine.dir("a-0").exists()
    });
    assert_eq!(noted(&machine), succeeded);
    // A Job that is suspended has not ended.
    apply(&mut machine, "hang", true);
    gone(&machine, &[pod("a-0")], delete_options(Grace::Kill)).unwrap();
    assert_eq!(noted(&machine), None);
    gone(&machine, &[Target::Object(job.clone())], own).unwrap();
}

#[test]
fn half_a_pod_is_deleted_too() {
    let mut machine = Machine::new();
    let options = delete_options(Grace::Own);
    machine
        .apply(&input(&[("a-0", "run"), ("b-0", "run")]))
        .unwrap();
    // A reboot.
    machine.kill("a-0");
    fs::remove_dir_all(machine.dir("a-0").paths().run()).unwrap();
    let status = machine.view("a-0").unwrap().status;
    assert_eq!(status.reason.as_deref(), Some(EXECUTOR_DIED));
    assert_eq!(gone(&machine, &[pod("a-0")], options).unwrap(), ["pod/a-0"]);
    // A deletion that was cut off in the worst place.
    fs::remove_dir_all(machine.dir("b-0").paths().data()).unwrap();
    assert_eq!(gone(&machine, &[pod("b-0")], options).unwrap(), ["pod/b-0"]);
}

#[test]
fn volumes_go_only_when_asked() {
    let mut machine = Machine::new();
    let mut with_claim = input(&[]);
    with_claim
        .objects
        .push(object("PersistentVolumeClaim", "", "data", "x"));
    let folder = machine.manager.layout.volume(&Namespace::default(), "data");
    let claim = [Target::Object(object_key(
        "PersistentVolumeClaim",
        "",
        "data",
    ))];
    for volumes in [Volumes::Keep, Volumes::Delete] {
        machine.apply(&with_claim).unwrap();
        fs::create_dir_all(&folder, 0o700).unwrap();
        let options = DeleteOptions {
            volumes,
            ..delete_options(Grace::Own)
        };
        assert_eq!(
            gone(&machine, &claim, options).unwrap(),
            ["persistentvolumeclaim/data"]
        );
        assert_eq!(folder.exists(), volumes == Volumes::Keep);
    }
}

#[test]
fn grace_is_read_as_kubectl_reads_it() {
    use crate::manager::stop::Force;
    let check = |seconds, force, expected| {
        assert_eq!(
            Grace::from_flags(seconds, force),
            expected,
            "{seconds:?} {force:?}"
        );
    };
    check(None, Force::No, Grace::Own);
    check(Some(-1), Force::No, Grace::Own);
    check(Some(0), Force::No, Grace::Seconds(1));
    check(Some(5), Force::No, Grace::Seconds(5));
    check(None, Force::Yes, Grace::Kill);
    check(Some(0), Force::Yes, Grace::Kill);
}
