//! A pod's life: order of start and end, restarts, deadlines, shared namespaces.

use std::fs;
use std::path::Path;

use crate::Kplay;
use crate::harness::{container, script_pod, text};
use crate::hooks::Diary;
use crate::wait;

#[test]
fn init_containers_run_one_after_another() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay
        .apply_with(
            "
apiVersion: v1
kind: Pod
metadata: {name: ordered}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: one, image: 'localhost/busybox:1', command: [sh, -c, 'echo one >> /v/log; sleep 0.2; echo end-of-one >> /v/log'], volumeMounts: [{name: v, mountPath: /v}]}
  - {name: two, image: 'localhost/busybox:1', command: [sh, -c, 'echo two >> /v/log'], volumeMounts: [{name: v, mountPath: /v}]}
  containers:
  - {name: main, image: 'localhost/busybox:1', command: [cat, /v/log], volumeMounts: [{name: v, mountPath: /v}]}
",
            ["--wait=complete"],
        )
        .succeeds();
    let log = kplay.run(["logs", "ordered"]).succeeds();
    assert_eq!(log, "one\nend-of-one\ntwo\n");
    let pod = kplay.pod("ordered");
    let one = container(&pod["status"], "one");
    assert_eq!(one["ready"], true);
    assert_eq!(one["state"]["terminated"]["exitCode"], 0);
}

#[test]
fn a_failing_init_container_fails_a_pod_that_never_restarts() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "broken",
        "initContainers: [{name: setup, image: 'localhost/busybox:1', command: [sh, -c, 'echo why; exit 7']}],",
        "",
        "echo never",
    );
    kplay.apply(&pod).fails(1, &["broken", "setup", "7"]);
    // It ran and failed: it stays, so that somebody can look at it.
    let pod = kplay.pod("broken");
    assert_eq!(pod["status"]["phase"], "Failed");
    let setup = container(&pod["status"], "setup");
    assert_eq!(setup["state"]["terminated"]["exitCode"], 7);
    let main = container(&pod["status"], "main");
    assert_eq!(main["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(
        kplay.run(["logs", "broken", "-c", "setup"]).succeeds(),
        "why\n"
    );
    kplay.run(["delete", "pod", "broken"]).succeeds();
    kplay.assert_nothing_left();
}

fn with_inits(policy: &str, diary: &Diary, inits: &[String], main: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: set}}\nspec: {{restartPolicy: {policy}, {}, \
         initContainers: [{}], containers: [{}]}}\n",
        diary.volumes(),
        inits.join(", "),
        diary.container("main", "", main)
    )
}

#[test]
fn a_failing_init_container_ends_the_sidecars_before_it() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let side = "trap 'say side is asked to stop; exit 3' TERM; say side; stay";
    let setup = "until grep -q ' side$' /v/diary; do sleep 0.05; done; exit 7";
    let inits = [
        diary.container("side", "restartPolicy: Always,", side),
        diary.container("setup", "", setup),
    ];
    kplay
        .apply(&with_inits("Never", &diary, &inits, "say main"))
        .fails(1, &["setup", "7"]);
    let status = &kplay.until_ended("set")["status"];
    assert_eq!(status["phase"], "Failed");
    assert_eq!(diary.words(), ["side", "side is asked to stop"]);
    let code = |name: &str| container(status, name)["state"]["terminated"]["exitCode"].clone();
    assert_eq!((code("side"), code("setup")), (3.into(), 7.into()));
    let main = &container(status, "main")["state"]["waiting"]["reason"];
    assert_eq!(main, "PodInitializing");
}

#[test]
fn what_crashes_while_a_pod_is_initialized_starts_alone() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let times = |word: &str| format!("$(grep -c ' {word}$' /v/diary)");
    // The sidecar crashes once when the last init container runs, which fails once when it is back.
    let side = format!(
        "trap 'exit 0' TERM; say side; [ {} = 2 ] || {{ until [ {} = 1 ]; do sleep 0.05; done; exit 1; }}; stay",
        times("side"),
        times("setup")
    );
    let setup = format!(
        "say setup; [ {} = 2 ] && exit 0; until [ {} = 2 ]; do sleep 0.05; done; exit 1",
        times("setup"),
        times("side")
    );
    let inits = [
        diary.container("first", "", "say first"),
        diary.container("side", "restartPolicy: Always,", &side),
        diary.container("setup", "", &setup),
    ];
    let manifest = with_inits("OnFailure", &diary, &inits, "say main");
    kplay.apply_with(&manifest, ["--wait=complete"]).succeeds();
    assert_eq!(
        diary.words(),
        ["first", "side", "setup", "side", "setup", "main"]
    );
    let status = &kplay.pod("set")["status"];
    assert_eq!(status["phase"], "Succeeded");
    let restarts = |name: &str| container(status, name)["restartCount"].clone();
    let all = ["first", "side", "setup", "main"].map(restarts);
    assert_eq!(all, [0, 1, 1, 0].map(serde_json::Value::from));
}

#[test]
fn restarts_and_their_back_off() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod("crash", "", "", "echo run; exit 3").replace("Never", "OnFailure");
    // Whether apply sees the pod started or already in back-off is a race that the container runs against itself.
    let code = kplay.apply(&pod).code;
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
    let pod = kplay.until("crash", "waits for its second restart", |status| {
        container(status, "main")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    let main = container(&pod["status"], "main");
    // The first restart is immediate, the second one waits for 10 s.
    assert_eq!(main["restartCount"], 1, "{main}");
    let uid = text(&pod["metadata"]["uid"]);
    assert_eq!(
        main["state"]["waiting"]["message"],
        format!("back-off 10s restarting failed container=main pod=crash_default({uid})")
    );
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(pod["status"]["phase"], "Running");
    let table = kplay.run(["get", "pods"]).succeeds();
    assert!(table.contains("CrashLoopBackOff"), "{table}");
    assert_eq!(kplay.run(["logs", "crash"]).succeeds(), "run\n");
    assert_eq!(
        kplay.run(["logs", "crash", "--previous"]).succeeds(),
        "run\n"
    );
}

#[test]
fn what_is_restarted_after_success() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let once = script_pod("once", "", "", "true").replace("Never", "OnFailure");
    kplay.apply_with(&once, ["--wait=complete"]).succeeds();
    assert_eq!(kplay.phase("once"), "Succeeded");
    let always = script_pod("always", "", "", "true").replace("Never", "Always");
    let code = kplay.apply(&always).code;
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
    let pod = kplay.until("always", "is restarted", |status| {
        container(status, "main")["restartCount"] == 1
    });
    assert_eq!(pod["status"]["phase"], "Running");
}

#[test]
fn a_restart_loses_the_containers_files_and_keeps_the_volumes() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "again",
        "volumes: [{name: v, emptyDir: {}}],",
        "volumeMounts: [{name: v, mountPath: /v}],",
        "[ -e /own ] && echo own file kept; [ -e /v/kept ] && { echo volume kept; exit 0; }; \
         touch /own /v/kept; exit 1",
    )
    .replace("Never", "OnFailure");
    kplay.apply_with(&pod, ["--wait=complete"]).succeeds();
    assert_eq!(kplay.run(["logs", "again"]).succeeds(), "volume kept\n");
}

/// A pod with two sidecars and a main container that say in `LOG` (on the host) when they start and end.
fn with_sidecars(log: &Path, main: &str) -> String {
    let member = |name: &str, rest: &str, script: &str| {
        format!(
            "{{name: {name}, image: 'localhost/busybox:1', {rest} volumeMounts: [{{name: v, mountPath: /v}}], \
             command: [sh, -c, {}]}}",
            serde_json::to_string(script).expect("a string")
        )
    };
    let stay = |name: &str| {
        format!(
            "trap 'echo end {name} >> /v/log; exit 0' TERM; echo start {name} >> /v/log; \
             while :; do sleep 0.05; done"
        )
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: party}}\nspec:\n  restartPolicy: Never\n  \
         volumes: [{{name: v, hostPath: {{path: {}}}}}]\n  initContainers:\n  - {}\n  - {}\n  - {}\n  \
         containers:\n  - {}\n",
        log.display(),
        member("first", "restartPolicy: Always,", &stay("first")),
        member("second", "restartPolicy: Always,", &stay("second")),
        member(
            "setup",
            "",
            "until grep -q 'start second' /v/log; do sleep 0.05; done; echo setup >> /v/log"
        ),
        member("main", "", main),
    )
}

#[test]
fn sidecars_outlive_the_main_containers_and_end_in_reverse() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let shared = kplay.dir().join("shared");
    let log = kplay.file("shared/log", "");
    kplay
        .apply_with(
            &with_sidecars(&shared, "echo main >> /v/log"),
            ["--wait=complete"],
        )
        .succeeds();
    let lines = fs::read_to_string(&log).expect("the log");
    let starts: Vec<&str> = lines.lines().collect();
    assert_eq!(
        starts[starts.len().saturating_sub(2)..],
        ["end second", "end first"],
        "{lines}"
    );
    let position = |line: &str| starts.iter().position(|l| *l == line);
    assert!(position("start first").is_some(), "{lines}");
    assert!(position("start second") < position("setup"), "{lines}");
    assert!(position("setup") < position("main"), "{lines}");
    // How a sidecar ends does not decide how its pod ended.
    assert_eq!(kplay.phase("party"), "Succeeded");
}

#[test]
fn deleting_ends_main_containers_first_then_sidecars_in_reverse() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let shared = kplay.dir().join("shared");
    let log = kplay.file("shared/log", "");
    let main = "trap 'echo end main >> /v/log; exit 0' TERM; echo main >> /v/log; while :; do sleep 0.05; done";
    kplay.apply(&with_sidecars(&shared, main)).succeeds();
    wait::until_in(&shared, "main has started", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("main"))
    });
    kplay.run(["delete", "pod", "party"]).succeeds();
    let lines = fs::read_to_string(&log).expect("the log");
    let last: Vec<&str> = lines.lines().rev().take(3).collect();
    assert_eq!(last, ["end first", "end second", "end main"], "{lines}");
}

#[test]
fn a_deadline_ends_the_pod_with_grace_then_with_force() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let check = |script: &str, code: i32| {
        let pod = script_pod(
            "late",
            "activeDeadlineSeconds: 1, terminationGracePeriodSeconds: 1,",
            "",
            script,
        );
        kplay
            .apply_with(&pod, ["--wait=complete"])
            .fails(1, &["DeadlineExceeded"]);
        let pod = kplay.pod("late");
        assert_eq!(pod["status"]["phase"], "Failed");
        assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
        let main = container(&pod["status"], "main");
        assert_eq!(
            main["state"]["terminated"]["exitCode"], code,
            "{script}: {main}"
        );
        kplay.run(["delete", "pod", "late"]).succeeds();
    };
    check("exec sleep 1000", 137);
    check("trap 'exit 9' TERM; while :; do sleep 0.05; done", 9);
}

#[test]
fn the_images_stop_signal() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.load(crate::fixtures::settings_archive());
    let pod = script_pod(
        "polite",
        "activeDeadlineSeconds: 1, terminationGracePeriodSeconds: 30,",
        "",
        "trap 'exit 5' INT; while :; do sleep 0.05; done",
    )
    .replace("localhost/busybox:1", "localhost/settings:1");
    kplay.apply_with(&pod, ["--wait=complete"]).fails(1, &[]);
    let pod = kplay.pod("polite");
    let main = container(&pod["status"], "main");
    assert_eq!(main["state"]["terminated"]["exitCode"], 5, "{main}");
}

#[test]
fn containers_of_a_pod_share_network_ipc_and_host_name() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let stay = "terminationGracePeriodSeconds: 0, initContainers: [{name: side, restartPolicy: Always, \
                image: 'localhost/busybox:1', command: [sleep, '1000']}],";
    kplay
        .apply(&script_pod("apart", stay, "", "sleep 1000"))
        .succeeds();
    let namespaces = |pod: &str, name: &str| {
        ["net", "ipc", "uts", "pid", "mnt", "cgroup"].map(|kind| {
            let pid = kplay.pids(pod, name)[0];
            fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace")
        })
    };
    let host = ["net", "ipc", "uts", "pid", "mnt", "cgroup"]
        .map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace"));
    let (main, side) = (namespaces("apart", "main"), namespaces("apart", "side"));
    assert_eq!(main[..3], side[..3], "net, ipc and uts");
    assert_ne!(main[3], side[3], "pid");
    assert_ne!(main[4], side[4], "mnt");
    for kind in 0..5 {
        assert_ne!(main[kind], host[kind]);
    }
    assert_eq!(kplay.shell("apart", "hostname"), "apart\n");
    // One `/dev/shm` for all of them, and for nobody else.
    kplay.shell("apart", "echo shared > /dev/shm/kplay-test");
    let of_side = [
        "exec",
        "apart",
        "-c",
        "side",
        "--",
        "cat",
        "/dev/shm/kplay-test",
    ];
    assert_eq!(kplay.run(of_side).succeeds(), "shared\n");
    assert!(!Path::new("/dev/shm/kplay-test").exists());
    kplay.run(["delete", "pod", "apart"]).succeeds();

    let together = format!("{stay} shareProcessNamespace: true,");
    kplay
        .apply(&script_pod("together", &together, "", "sleep 1000"))
        .succeeds();
    let seen = kplay.shell("together", "ps -o args | grep -c '[s]leep 1000'");
    assert_eq!(seen.trim(), "2", "both containers' processes are seen");
    let first = kplay.shell("together", "tr '\\0' ' ' < /proc/1/cmdline");
    assert!(!first.contains("sleep"), "pause is process 1: {first}");
    kplay.run(["delete", "pod", "together"]).succeeds();

    let hosts = format!("{stay} hostNetwork: true, hostPID: true, hostIPC: true,");
    kplay
        .apply(&script_pod("open", &hosts, "", "sleep 1000"))
        .succeeds();
    let main = namespaces("open", "main");
    assert_eq!(main[0], host[0], "net");
    assert_eq!(main[1], host[1], "ipc");
    assert_eq!(main[3], host[3], "pid");
    let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    assert_eq!(kplay.shell("open", "hostname"), name);
}

#[test]
fn sysctls_of_the_pod() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let log = kplay.script_in(
        "securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '80'}]},",
        "",
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /sys/class/net/lo/operstate; \
         ping -c 1 -W 5 127.0.0.1 > /dev/null && echo loopback is up",
    );
    assert!(log.starts_with("80\n"), "{log}");
    assert!(log.ends_with("loopback is up\n"), "{log}");
}

#[test]
fn one_container_that_does_not_start_does_not_hide_the_others() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod("half", "", "", "echo ran").replace(
        "containers: [",
        "containers: [{name: absent, image: 'localhost/busybox:1', command: [no-such-program]}, ",
    );
    kplay
        .apply_with(&pod, ["--no-rollback"])
        .fails(1, &["absent", "no-such-program"]);
    let pod = kplay.until_ended("half");
    let absent = container(&pod["status"], "absent");
    assert_eq!(absent["state"]["terminated"]["reason"], "StartError");
    assert_eq!(absent["state"]["terminated"]["exitCode"], 128);
    let main = container(&pod["status"], "main");
    assert_eq!(main["state"]["terminated"]["exitCode"], 0);
    assert_eq!(pod["status"]["phase"], "Failed");
}
