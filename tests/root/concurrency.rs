//! Several commands at once neither corrupt anything nor wait for each other for ever.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Output};

use crate::Kplay;
use crate::harness::script_pod;
use crate::hooks::Diary;
use crate::wait;

fn pod(name: &str, value: &str) -> String {
    script_pod(
        name,
        "terminationGracePeriodSeconds: 0,",
        &format!("env: [{{name: VALUE, value: '{value}'}}],"),
        "echo value $VALUE; sleep 1000",
    )
}

/// The end of each; the harness' own limit does not hold here, but the test runner's does.
fn all(children: Vec<Child>) -> Vec<Output> {
    children
        .into_iter()
        .map(|child| child.wait_with_output().expect("our own child"))
        .collect()
}

#[track_caller]
fn assert_all_succeed(outputs: &[Output]) {
    for output in outputs {
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn two_applies_of_overlapping_files() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let first = kplay.file(
        "first.yaml",
        format!("{}---\n{}", pod("both", "first"), pod("one", "1")),
    );
    let second = kplay.file(
        "second.yaml",
        format!("{}---\n{}", pod("two", "2"), pod("both", "second")),
    );
    for round in 0..5 {
        let applies = [&first, &second]
            .map(|file| kplay.command(["apply".as_ref(), file.as_os_str()]).spawn());
        assert_all_succeed(&all(applies.into()));
        kplay.note_pods();
        let names = kplay.run(["get", "pods", "-o", "name"]).succeeds();
        assert_eq!(names, "pod/both\npod/one\npod/two\n");
        let value = kplay.shell("both", "echo $VALUE");
        assert!(value == "first\n" || value == "second\n", "{value}");
        // What the record says is what runs.
        let pod = kplay.pod("both");
        assert_eq!(
            pod["spec"]["containers"][0]["env"][0]["value"].as_str(),
            Some(value.trim()),
            "round {round}"
        );
    }
    kplay.run(["delete", "--all"]).succeeds();
    kplay.assert_nothing_left();
}

#[test]
fn the_same_apply_many_times_at_once() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let file = kplay.file("pod.yaml", pod("one", "1"));
    let applies = (0..6)
        .map(|_| kplay.command(["apply".as_ref(), file.as_os_str()]).spawn())
        .collect();
    let outputs = all(applies);
    assert_all_succeed(&outputs);
    let created = outputs
        .iter()
        .filter(|output| output.stdout == b"pod/one created\n")
        .count();
    assert_eq!(created, 1, "one made it, the others found it: {outputs:?}");
}

#[test]
fn apply_and_delete_at_once() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let file = kplay.file("pod.yaml", pod("one", "1"));
    for _ in 0..5 {
        let apply = kplay.command(["apply".as_ref(), file.as_os_str()]).spawn();
        let delete = kplay
            .command(["delete", "pod", "one", "--ignore-not-found"])
            .spawn();
        assert_all_succeed(&all(vec![apply, delete]));
        kplay.note_pods();
    }
    let deletes = (0..3)
        .map(|_| kplay.command(["delete", "--all"]).spawn())
        .collect();
    assert_all_succeed(&all(deletes));
    kplay.assert_nothing_left();
}

#[test]
fn a_second_delete_gives_a_pod_less_time() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let stubborn = script_pod(
        "one",
        "terminationGracePeriodSeconds: 600,",
        "",
        "trap 'echo asked' TERM; while :; do sleep 0.05; done",
    );
    for hurry in [
        ["--force", "--ignore-not-found"],
        ["--grace-period=2", "--ignore-not-found"],
    ] {
        kplay.apply(&stubborn).succeeds();
        let first = kplay.command(["delete", "pod", "one"]).spawn();
        let note = kplay.run_dir("one").join("deleting");
        wait::until_in(&kplay.run_dir("one"), "it is being deleted", || {
            note.exists()
        });
        let second = kplay
            .command(["delete", "pod", "one"].into_iter().chain(hurry))
            .spawn();
        assert_all_succeed(&all(vec![first, second]));
        kplay.assert_nothing_left();
    }
}

#[test]
fn a_delete_that_waits_for_an_apply_says_so() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: slow}}\nspec: {{terminationGracePeriodSeconds: 0, {}, \
         initContainers: [{}], containers: [{}]}}\n",
        diary.volumes(),
        diary.container(
            "init",
            "",
            "say init; until [ -e /v/go ]; do sleep 0.05; done"
        ),
        diary.container("main", "", "exec sleep 1000"),
    );
    let file = kplay.file("slow.yaml", manifest);
    let apply = kplay.command(["apply".as_ref(), file.as_os_str()]).spawn();
    diary.until("init");
    kplay.note_pods();
    let mut delete = kplay.command(["delete", "pod", "slow"]).spawn();
    let mut lines = BufReader::new(delete.stderr.take().expect("a pipe")).lines();
    let line = lines.next().expect("it waits").expect("text");
    assert_eq!(
        line,
        "waiting for another command that is at work on pod/slow"
    );
    kplay.file("shared/go", "");
    assert_all_succeed(&all(vec![apply, delete]));
    kplay.assert_nothing_left();
}

#[test]
fn images_loaded_at_once_and_a_pod_of_them() {
    let Some(kplay) = Kplay::new() else { return };
    let archive = crate::fixtures::busybox_archive();
    let loads = (0..4)
        .map(|_| {
            kplay
                .command(["load".as_ref(), "-i".as_ref(), archive.as_os_str()])
                .spawn()
        })
        .collect();
    assert_all_succeed(&all(loads));
    kplay.apply(&pod("one", "1")).succeeds();
    assert_eq!(kplay.shell("one", "echo $VALUE"), "1\n");
}

#[test]
fn many_execs_at_once() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("one", "1")).succeeds();
    let execs = (0..12)
        .map(|i| {
            kplay
                .command([
                    "exec".into(),
                    "one".into(),
                    "--".into(),
                    "echo".into(),
                    i.to_string(),
                ])
                .spawn()
        })
        .collect();
    for (i, output) in all(execs).into_iter().enumerate() {
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{i}\n"));
    }
}
