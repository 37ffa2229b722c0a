//! `attach`: a container's output from now on, and its standard input.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use crate::Kplay;
use crate::harness::script_pod;

#[test]
fn standard_input_stays_open_for_the_next_client() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "talk",
        "terminationGracePeriodSeconds: 0,",
        "stdin: true,",
        "echo before; while read line; do echo got $line; echo heard $line >&2; done; echo closed",
    );
    kplay.apply(&pod).succeeds();
    // Two at once see the same; what was printed before they came is in the log alone.
    let mut watching = kplay.command(["attach", "talk", "-i"]).spawn();
    let mut watcher_input = watching.stdin.take().expect("a pipe");
    let mut watched = BufReader::new(watching.stdout.take().expect("a pipe"));
    let next = |output: &mut dyn std::io::BufRead| {
        let mut line = String::new();
        output.read_line(&mut line).expect("a pipe");
        line
    };
    writeln!(watcher_input, "zero").expect("a pipe");
    assert_eq!(next(&mut watched), "got zero\n");
    for word in ["one", "two"] {
        let mut client = kplay.command(["attach", "talk", "-i"]).spawn();
        let mut input = client.stdin.take().expect("a pipe");
        let mut output = BufReader::new(client.stdout.take().expect("a pipe"));
        let mut errors = BufReader::new(client.stderr.take().expect("a pipe"));
        writeln!(input, "{word}").expect("a pipe");
        assert_eq!(next(&mut output), format!("got {word}\n"));
        assert_eq!(next(&mut errors), format!("heard {word}\n"));
        assert_eq!(next(&mut watched), format!("got {word}\n"));
        client.kill().expect("our own child");
        client.wait().expect("our own child");
    }
    assert_eq!(
        kplay
            .run(["logs", "talk"])
            .succeeds()
            .lines()
            .collect::<Vec<_>>(),
        [
            "before",
            "got zero",
            "heard zero",
            "got one",
            "heard one",
            "got two",
            "heard two"
        ]
    );
    kplay.run(["delete", "pod", "talk"]).succeeds();
    // The end of the container is the end of the client.
    let mut rest = String::new();
    watched.read_to_string(&mut rest).expect("a pipe");
    assert_eq!(rest, "");
    assert_eq!(watching.wait().expect("our own child").code(), Some(0));
}

#[test]
fn standard_input_that_is_there_once_ends_with_its_client() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "once",
        "",
        "stdin: true, stdinOnce: true,",
        "cat; echo end; exit 3",
    );
    kplay.apply(&pod).succeeds();
    let run = kplay
        .command(["attach", "once", "-i"])
        .stdin("one\ntwo\n")
        .run();
    // How the container ended is not how the looking ended.
    assert_eq!(run.succeeds(), "one\ntwo\nend\n");
    let pod = kplay.until_ended("once");
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["exitCode"], 3, "{state}");
    assert_eq!(kplay.run(["logs", "once"]).succeeds(), "one\ntwo\nend\n");
    kplay
        .run(["attach", "once"])
        .fails(4, &["once", "is not running"]);
}

#[test]
fn nothing_to_write_into() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let fields = "volumes: [{name: v, emptyDir: {}}], terminationGracePeriodSeconds: 0,";
    let mount = "volumeMounts: [{name: v, mountPath: /v}],";
    let script =
        "read line; echo read ended: $?; until [ -e /v/go ]; do sleep 0.02; done; echo last words";
    kplay
        .apply(&script_pod("deaf", fields, mount, script))
        .succeeds();
    let mut client = kplay.command(["attach", "deaf", "-it"]).spawn();
    let mut told = BufReader::new(client.stderr.take().expect("a pipe"));
    let mut lines = String::new();
    told.read_line(&mut lines).expect("a pipe");
    told.read_line(&mut lines).expect("a pipe");
    assert!(
        lines.contains("TTY") && lines.contains("standard input"),
        "{lines}"
    );
    kplay.shell("deaf", "touch /v/go");
    let mut output = String::new();
    client
        .stdout
        .take()
        .expect("a pipe")
        .read_to_string(&mut output)
        .expect("a pipe");
    assert_eq!(output, "last words\n");
    assert_eq!(client.wait().expect("our own child").code(), Some(0));
    kplay.run(["attach", "nobody"]).fails(5, &["nobody"]);
    kplay
        .run(["attach", "deaf", "-c", "none"])
        .fails(5, &["none"]);
}
