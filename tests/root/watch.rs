//! `get --watch`.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout};

use crate::Kplay;
use crate::harness::script_pod;
use crate::wait;

/// A command that goes on, and what it has printed.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn new(kplay: &Kplay, arguments: &str) -> Self {
        let mut child = kplay.command(arguments.split(' ')).spawn();
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    /// All lines up to one that has these words, with one space between columns.
    fn until(&mut self, words: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.expect("text");
            let columns: Vec<&str> = line.split_whitespace().collect();
            seen.push(columns.join(" "));
            if seen.last().is_some_and(|line| line.contains(words)) {
                return seen;
            }
        }
        panic!("the watch ended before `{words}`: {seen:#?}");
    }

    fn interrupt(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our own child");
        assert!(wait::ended(self.child.id(), wait::PATIENCE));
        let code = self.child.wait().expect("our own child").code();
        assert_eq!(code, Some(130));
    }
}

fn pod(name: &str) -> String {
    let script = "trap 'exit 0' TERM; sleep 1000 & wait";
    script_pod(name, "terminationGracePeriodSeconds: 5,", "", script)
}

/// Ends a pod from outside.
fn kill(kplay: &Kplay, pod: &str) {
    let pids = kplay.pids(pod, "main");
    let pid = pids.first().and_then(|pid| i32::try_from(*pid).ok());
    let pid = pid.and_then(rustix::process::Pid::from_raw);
    let pid = pid.expect("it runs");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("our own pod");
}

#[test]
fn rows_of_pods_that_change_come_and_go() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("first")).succeeds();
    let mut watching = Watching::new(&kplay, "get pods -w");
    let rows = watching.until("first");
    assert_eq!(rows[0], "NAME READY STATUS RESTARTS AGE");
    assert!(rows[1].starts_with("first 1/1 Running 0 "), "{rows:?}");
    kplay.apply(&pod("second")).succeeds();
    let rows = watching.until("second 1/1 Running 0");
    assert!(
        rows.iter().all(|row| row.starts_with("second ")),
        "{rows:?}"
    );
    kill(&kplay, "first");
    let rows = watching.until("first 0/1 Error 0");
    assert!(rows.iter().all(|row| row.starts_with("first ")), "{rows:?}");
    kplay.run(["delete", "pod", "second"]).succeeds();
    watching.until("second");
    // It is the row of its end, whatever of the end was seen before.
    kplay.apply(&pod("third")).succeeds();
    let rows = watching.until("third 1/1 Running 0");
    let ends = rows.iter().filter(|row| row.starts_with("second "));
    let is_end = |row: &&String| row.contains("Terminating") || row.contains("Completed");
    assert!(ends.clone().all(|row| is_end(&row)), "{rows:?}");
    watching.interrupt();
}

#[test]
fn a_pod_that_is_killed_with_its_executor_never_looks_new() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("stuck")).succeeds();
    let mut watching = Watching::new(&kplay, "get pods -w --no-headers");
    watching.until("stuck 1/1 Running");
    let executor = i32::try_from(kplay.executor("stuck")).ok();
    let executor = executor.and_then(rustix::process::Pid::from_raw);
    let executor = executor.expect("it runs");
    rustix::process::kill_process(executor, rustix::process::Signal::STOP).expect("our own pod");
    kplay.run(["delete", "pod", "stuck", "--force"]).succeeds();
    kplay.apply(&pod("next")).succeeds();
    let rows = watching.until("next 1/1 Running");
    let stuck: Vec<&String> = rows
        .iter()
        .filter(|row| row.starts_with("stuck "))
        .collect();
    assert!(!stuck.is_empty(), "{rows:?}");
    for row in stuck {
        assert!(
            !row.contains("Pending") && !row.contains("Creating"),
            "{rows:?}"
        );
    }
    watching.interrupt();
}

#[test]
fn objects_are_printed_whole_as_they_change() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("shown")).succeeds();
    let mut watching = Watching::new(&kplay, "get pod shown -w -o yaml");
    watching.until("phase: Running");
    let mut names = Watching::new(&kplay, "get pods --watch -o name");
    assert_eq!(names.until("pod/shown"), ["pod/shown"]);
    kill(&kplay, "shown");
    let lines = watching.until("phase: Failed");
    assert!(lines.contains(&"---".to_owned()), "{lines:?}");
    names.until("pod/shown");
    let objects = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: '1'}\n";
    let mut maps = Watching::new(&kplay, "get cm -w --no-headers");
    kplay.apply(objects).succeeds();
    let rows = maps.until("settings");
    assert!(rows[0].starts_with("settings 1 "), "{rows:?}");
    kplay
        .apply(&objects.replace("'1'", "'1', b: '2'"))
        .succeeds();
    maps.until("settings 2 ");
    for watching in [watching, names, maps] {
        watching.interrupt();
    }
}

#[test]
fn what_cannot_be_watched_is_said() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let check = |arguments: &str, code: i32, words: &str| {
        kplay.run(arguments.split(' ')).fails(code, &[words]);
    };
    check("get all -w", 2, "objects of one type only");
    check("get events -w", 2, "kplay events -w");
    check("get images -w", 2, "not watched");
    check("get images --show-labels", 2, "have no labels");
    check("get events --show-labels", 2, "have no labels");
    check("get pod nothing -w", 5, "\"nothing\" not found");
}
