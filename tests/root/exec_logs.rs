//! `exec` and `logs`.

use std::fs;

use crate::Kplay;
use crate::harness::{script_pod, text};
use crate::wait;

#[test]
fn exec_has_the_commands_streams_and_exit_code() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod("box", "terminationGracePeriodSeconds: 0,", "", "sleep 1000");
    kplay.apply(&pod).succeeds();
    let run = kplay.run([
        "exec",
        "box",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 42",
    ]);
    assert_eq!(
        (run.code, run.stdout.as_str(), run.stderr.as_str()),
        (Some(42), "out\n", "err\n")
    );
    kplay.run(["exec", "box", "--", "true"]).succeeds();
    let killed = kplay.run(["exec", "box", "--", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(killed.code, Some(137), "{killed}");
    kplay
        .run(["exec", "box", "--", "no-such-program"])
        .fails(127, &["no-such-program"]);
    kplay
        .run(["exec", "box", "--", "/etc/passwd"])
        .fails(126, &["/etc/passwd"]);
    kplay
        .run(["exec", "box", "-c", "absent", "--", "true"])
        .fails(5, &["absent", "main"]);
    kplay
        .run(["exec", "absent", "--", "true"])
        .fails(5, &["absent"]);
    let echoed = kplay
        .command(["exec", "-i", "box", "--", "cat"])
        .stdin("through and back")
        .run()
        .succeeds();
    assert_eq!(echoed, "through and back");
    // Without -i there is nothing to read.
    let nothing = kplay
        .command(["exec", "box", "--", "cat"])
        .stdin("not for it")
        .run()
        .succeeds();
    assert_eq!(nothing, "");
}

#[test]
fn exec_carries_large_input_and_output_unchanged() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod("box", "terminationGracePeriodSeconds: 0,", "", "sleep 1000");
    kplay.apply(&pod).succeeds();
    let bytes: Vec<u8> = (0..4_000_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
    let back = kplay
        .command(["exec", "-i", "box", "--", "cat"])
        .stdin(bytes.clone())
        .run()
        .succeeds();
    assert!(
        back.as_bytes() == bytes,
        "{} of {} bytes",
        back.len(),
        bytes.len()
    );
}

#[test]
fn exec_into_a_container_that_has_ended() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay
        .apply_with(&script_pod("over", "", "", "true"), ["--wait=complete"])
        .succeeds();
    let run = kplay.run(["exec", "over", "--", "true"]);
    assert!(!matches!(run.code, Some(0 | 70 | 101)), "{run}");
    assert!(run.stderr.contains("over"), "{run}");
}

#[test]
fn the_log_file_is_in_cri_format() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let script =
        "echo out; echo err >&2; head -c 20000 /dev/zero | tr '\\0' x; echo; printf unfinished";
    kplay
        .apply_with(&script_pod("format", "", "", script), ["--wait=complete"])
        .succeeds();
    let uid = text(&kplay.pod("format")["metadata"]["uid"]);
    let file = kplay
        .root()
        .join(format!("logs/default_format_{uid}/main/0.log"));
    let log = fs::read_to_string(&file).unwrap_or_else(|e| panic!("cannot read {file:?}: {e}"));
    let mut lines = Vec::new();
    for line in log.lines() {
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        let [time, stream, tag, message] = parts[..] else {
            panic!("{line}")
        };
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert!(
            time.contains('.') && time.ends_with('Z'),
            "nanoseconds, UTC: {time}"
        );
        lines.push((stream, tag, message.len(), message.trim_matches('x')));
    }
    // The two streams are two pipes: what order their lines have is open.
    let errors: Vec<_> = lines.iter().filter(|line| line.0 == "stderr").collect();
    assert_eq!(errors, [&("stderr", "F", 3, "err")]);
    lines.retain(|line| line.0 == "stdout");
    assert_eq!(
        lines,
        [
            ("stdout", "F", 3, "out"),
            ("stdout", "P", 16384, ""),
            ("stdout", "F", 20000 - 16384, ""),
            ("stdout", "P", 10, "unfinished"),
        ]
    );
    let shown = kplay.run(["logs", "format"]);
    let shown = shown.stdout.replacen("err\n", "", 1);
    assert!(shown.contains("x\nunfinished"), "parts are joined");
}

#[test]
fn logs_and_their_flags() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod("talk", "", "", "for i in 1 2 3; do echo line $i; done").replace(
        "containers: [",
        "containers: [{name: other, image: 'localhost/busybox:1', command: [echo, another]}, ",
    );
    kplay.apply_with(&pod, ["--wait=complete"]).succeeds();
    let check = |args: &[&str], expected: &str| {
        let all = ["logs", "talk"]
            .iter()
            .chain(args)
            .map(|arg| (*arg).to_owned());
        assert_eq!(kplay.run(all).succeeds(), expected, "{args:?}");
    };
    check(&["-c", "main"], "line 1\nline 2\nline 3\n");
    check(&["-c", "main", "--tail", "1"], "line 3\n");
    check(&["-c", "main", "--tail=0"], "");
    check(&["-c", "other", "--prefix"], "[pod/talk/other] another\n");
    let all = kplay.run(["logs", "talk", "--all-containers"]).succeeds();
    assert_eq!(all.lines().count(), 4, "{all}");
    let stamped = kplay
        .run(["logs", "talk", "-c", "other", "--timestamps"])
        .succeeds();
    assert!(stamped.ends_with("Z another\n"), "{stamped}");
    kplay
        .run(["logs", "talk", "-c", "absent"])
        .fails(5, &["absent", "main"]);
    kplay.run(["logs", "absent"]).fails(5, &["absent"]);
}

#[test]
fn a_container_that_never_stops_printing_stops_nobody_else() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let grace = "terminationGracePeriodSeconds: 1,";
    let pod = script_pod("noisy", grace, "", "exec yes").replace(
        "containers: [",
        "containers: [{name: quiet, image: 'localhost/busybox:1', command: [sh, -c, 'echo one; sleep 1000']}, ",
    );
    kplay.apply(&pod).succeeds();
    let uid = text(&kplay.pod("noisy")["metadata"]["uid"]);
    let logs = kplay.root().join(format!("logs/default_noisy_{uid}/main"));
    let count = || fs::read_dir(&logs).map_or(0, Iterator::count);
    wait::until_in(&logs, "five files of logs", || count() >= 5);
    let answered = std::time::Instant::now();
    kplay
        .run(["exec", "noisy", "-c", "quiet", "--", "true"])
        .succeeds();
    assert!(answered.elapsed() < wait::PATIENCE / 3);
    let log = kplay.run(["logs", "noisy", "-c", "quiet"]).succeeds();
    assert_eq!(log, "one\n");
    // More may come while the last lines are read.
    let tail = kplay.run(["logs", "noisy", "-c", "main", "--tail=3"]);
    let tail = tail.succeeds();
    assert_eq!(tail, "y\ny\ny\n");
    for file in fs::read_dir(&logs).expect("the logs").flatten() {
        // One may have been removed in between.
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        assert!(size <= 10 * 1024 * 1024, "{file:?} has {size} bytes");
    }
    assert!(count() <= 6, "{}", count());
    kplay.run(["delete", "pod", "noisy"]).succeeds();
    kplay.assert_nothing_left();
}

#[test]
fn only_the_last_two_runs_keep_their_logs() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let data = kplay.file("data/runs", "");
    let pod = script_pod(
        "runs",
        &format!(
            "terminationGracePeriodSeconds: 0, volumes: [{{name: v, hostPath: {{path: {}}}}}],",
            data.parent().expect("a folder").display()
        ),
        "volumeMounts: [{name: v, mountPath: /v}],",
        "echo x >> /v/runs; echo run $(wc -l < /v/runs); [ $(wc -l < /v/runs) -ge 3 ] && sleep 1000; exit 1",
    )
    .replace("Never", "Always");
    // The second restart waits for 10 s.
    let code = kplay.apply(&pod).code;
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
    let status = kplay.until("runs", "runs for the third time", |status| {
        let main = &status["containerStatuses"][0];
        main["restartCount"] == 2 && main["ready"] == true
    });
    let uid = text(&status["metadata"]["uid"]);
    let logs = kplay.root().join(format!("logs/default_runs_{uid}/main"));
    let mut names: Vec<_> = fs::read_dir(&logs)
        .expect("the logs")
        .flatten()
        .map(|file| file.file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["1.log", "2.log"]);
    kplay.until("runs", "is there", |status| status["phase"] == "Running");
    let previous = kplay.run(["logs", "runs", "--previous"]).succeeds();
    assert_eq!(previous, "run 2\n");
}

#[test]
fn following_too_many_logs_is_refused() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod("two", "", "", "echo main").replace(
        "containers: [",
        "containers: [{name: other, image: 'localhost/busybox:1', command: [echo, other]}, ",
    );
    kplay.apply_with(&pod, ["--wait=complete"]).succeeds();
    let follow = ["logs", "two", "-f", "--all-containers"];
    let refused = kplay.run(follow.into_iter().chain(["--max-log-requests=1"]));
    refused.fails(2, &["follow 2 log streams", "--max-log-requests"]);
    let followed = kplay.run(follow).succeeds();
    assert_eq!(followed.lines().count(), 2, "{followed}");
}

#[test]
fn following_a_log_to_the_pods_end() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let gate = kplay.file("gate/x", "");
    let pod = script_pod(
        "slow",
        &format!(
            "volumes: [{{name: v, hostPath: {{path: {}}}}}],",
            gate.parent().expect("a folder").display()
        ),
        "volumeMounts: [{name: v, mountPath: /v}],",
        "echo before; while [ -e /v/x ]; do sleep 0.05; done; echo after",
    );
    kplay.apply(&pod).succeeds();
    let following = kplay.command(["logs", "-f", "slow"]).spawn();
    fs::remove_file(gate).expect("removable");
    let ended = following.wait_with_output().expect("our own child");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "before\nafter\n");
    assert!(ended.status.success());
}
