//! SIGKILL for anybody at any moment: the next `kplay delete` leaves nothing, and `get` tells the truth meanwhile.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::Kplay;
use crate::harness::{container, script_pod};
use crate::hooks::{Diary, shell};
use crate::leftovers;
use crate::wait;

fn kill(pid: u32) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a pid");
    // It may have ended by itself.
    kill_process(pid, Signal::KILL).ok();
}

/// A pod with a sidecar, a volume and two main containers that stay.
fn pod(name: &str) -> String {
    script_pod(
        name,
        "terminationGracePeriodSeconds: 0, volumes: [{name: v, emptyDir: {medium: Memory}}], \
         initContainers: [{name: side, restartPolicy: Always, image: 'localhost/busybox:1', \
         command: [sleep, '1000']}],",
        "volumeMounts: [{name: v, mountPath: /v}],",
        "sleep 1000 & sleep 1000",
    )
    .replace(
        "containers: [{name: main",
        "containers: [{name: other, image: 'localhost/busybox:1', command: [sleep, '1000']}, {name: main",
    )
}

/// The uid of a pod, from what its executor was given.
fn uid(kplay: &Kplay, name: &str) -> String {
    let launch = fs::read(kplay.run_dir(name).join("launch.json")).expect("the launch");
    let launch: serde_json::Value = serde_json::from_slice(&launch).expect("JSON");
    crate::harness::text(&launch["uid"])
}

/// Every process of a pod but its executor.
fn members(uid: &str) -> Vec<u32> {
    leftovers::processes()
        .iter()
        .filter(|process| process.cgroups.contains(uid))
        .filter(|process| !process.command.contains("internal execute"))
        .map(|process| process.pid)
        .collect()
}

#[track_caller]
fn delete_cleans(kplay: &Kplay) {
    kplay.run(["delete", "--all", "--force"]).succeeds();
    kplay.assert_nothing_left();
}

#[test]
fn an_executor_that_is_killed_takes_its_pod_along() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("web")).succeeds();
    let uid = uid(&kplay, "web");
    assert!(members(&uid).len() >= 4, "three containers and pause");
    kill(kplay.executor("web"));
    wait::until("the pod's processes are gone", || members(&uid).is_empty());
    let status = &kplay.pod("web")["status"];
    assert_eq!(status["phase"], "Failed", "{status}");
    for container in status["containerStatuses"].as_array().expect("containers") {
        assert!(container["state"]["running"].is_null(), "{container}");
        assert_eq!(container["ready"], false, "{container}");
    }
    let table = kplay.run(["get", "pods"]).succeeds();
    assert!(!table.contains("Running"), "{table}");
    let exec = kplay.run(["exec", "web", "--", "true"]);
    assert!(!matches!(exec.code, Some(0 | 70 | 101)), "{exec}");
    delete_cleans(&kplay);
}

#[test]
fn many_processes_end_with_their_pod() {
    let Some(kplay) = Kplay::new() else {
        return;
    };
    // With the container's pid namespace they end by themselves; without, each has to be found. Only SIGKILL ends them.
    for (name, namespace) in [("own", ""), ("shared", "shareProcessNamespace: true, ")] {
        kplay
            .apply(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{{namespace}terminationGracePeriodSeconds: 1, \
                 containers: [{{name: main, image: kplay.local/toolbox, args: [fork-bomb, '200']}}]}}\n"
            ))
            .succeeds();
        wait::until("all processes are there", || {
            let log = kplay.run(["logs", name]).succeeds();
            log == "200 processes\n"
        });
        let start = std::time::Instant::now();
        kplay.run(["delete", "pod", name]).succeeds();
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
        kplay.assert_nothing_left();
    }
}

#[test]
fn any_command_cleans_up_after_a_killed_executor() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("web")).succeeds();
    let uid = uid(&kplay, "web");
    let executor = kplay.executor("web");
    kill(executor);
    assert!(wait::ended(executor, wait::PATIENCE));
    kplay.run(["get", "pods"]).succeeds();
    assert_eq!(leftovers::of_uid(&uid), Vec::<String>::new());
    delete_cleans(&kplay);
}

#[test]
fn a_killed_executors_pod_can_be_applied_again() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("web")).succeeds();
    let old = uid(&kplay, "web");
    let executor = kplay.executor("web");
    kill(executor);
    assert!(wait::ended(executor, wait::PATIENCE));
    kplay.apply(&pod("web")).succeeds();
    assert_eq!(kplay.phase("web"), "Running");
    assert_eq!(leftovers::of_uid(&old), Vec::<String>::new());
    delete_cleans(&kplay);
}

#[test]
fn everything_of_a_pod_killed_at_once() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("web")).succeeds();
    let all = members(&uid(&kplay, "web"));
    let executor = kplay.executor("web");
    for pid in all {
        kill(pid);
    }
    kill(executor);
    assert!(wait::ended(executor, wait::PATIENCE));
    assert_eq!(kplay.phase("web"), "Failed");
    delete_cleans(&kplay);
}

#[test]
fn a_container_that_is_killed() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("web")).succeeds();
    let cgroup = kplay.cgroup("pids", "web", "main").join("cgroup.procs");
    kill(kplay.pids("web", "main")[0]);
    let after = kplay.until("web", "main has ended", |status| {
        status["containerStatuses"][0]["state"]["terminated"].is_object()
    });
    let main = &after["status"]["containerStatuses"][0];
    assert_eq!(main["name"], "main");
    assert_eq!(main["state"]["terminated"]["exitCode"], 137);
    assert_eq!(
        after["status"]["phase"], "Running",
        "the other one still runs"
    );
    // Its other process went with it.
    wait::until("main's cgroup is empty", || {
        fs::read_to_string(&cgroup).unwrap_or_default().is_empty()
    });
    // A sidecar is restarted.
    let side = kplay.pids("web", "side")[0];
    kill(side);
    kplay.until("web", "the sidecar runs again", |status| {
        let side = &status["initContainerStatuses"][0];
        side["restartCount"] == 1 && side["state"]["running"].is_object()
    });
    delete_cleans(&kplay);
}

#[test]
fn a_pause_that_is_killed() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("web")).succeeds();
    let uid = uid(&kplay, "web");
    let pause = kplay.pids("web", "_sandbox");
    assert_eq!(pause.len(), 1, "{pause:?}");
    kill(pause[0]);
    // Namespaces that containers hold would survive it, but the next container could not join them: the pod is
    // over, and says so.
    let after = kplay.until_ended("web");
    assert_eq!(after["status"]["phase"], "Failed");
    wait::until("the pod's processes are gone", || members(&uid).is_empty());
    delete_cleans(&kplay);
}

/// As a kubelet that finds another sandbox: hooks run, containers are asked to stop, sidecars last.
#[test]
fn what_was_in_a_lost_sandbox_ends_as_with_its_pod() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let hook = format!(
        "lifecycle: {{preStop: {{exec: {{command: {}}}}}}},",
        shell("say hook")
    );
    let main = diary.container(
        "main",
        &hook,
        "trap 'say main is asked to stop; exit 0' TERM; [ -e /dev/shm/mine ] && say shared memory is kept; \
         touch /dev/shm/mine; say main; stay",
    );
    let side = diary.container(
        "side",
        "restartPolicy: Always,",
        "trap 'say side is asked to stop; exit 0' TERM; say side; stay",
    );
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{terminationGracePeriodSeconds: 60, {}, \
         initContainers: [{side}], containers: [{main}]}}\n",
        diary.volumes(),
    );
    kplay.apply(&manifest).succeeds();
    diary.until("main");
    kill(kplay.pids("web", "_sandbox")[0]);
    let after = kplay.until("web", "runs in another sandbox", |status| {
        let main = container(status, "main");
        main["restartCount"] == 1 && main["state"]["running"].is_object()
    });
    let status = &after["status"];
    for name in ["main", "side"] {
        let last = &container(status, name)["lastState"]["terminated"];
        assert_eq!(last["exitCode"], 0, "{last}");
    }
    wait::until("both have begun again", || diary.words().len() == 7);
    let words = diary.words();
    let end = ["hook", "main is asked to stop", "side is asked to stop"];
    assert_eq!(words[2..5], end, "{words:?}");
    for begin in [&words[..2], &words[5..]] {
        // Who is started first does not have to say so first.
        assert!(begin.contains(&"side".to_owned()) && begin.contains(&"main".to_owned()));
    }
    kplay.run(["delete", "pod", "web"]).succeeds();
}

#[test]
fn another_sandbox_runs_the_init_containers_again_and_nothing_that_is_done() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let containers = [
        diary.container("done", "", "say done"),
        diary.container(
            "main",
            "",
            "trap 'say asked to stop' TERM; [ -e /v/kept ] && say again; touch /v/kept; say main; stay",
        ),
    ];
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{restartPolicy: OnFailure, \
         terminationGracePeriodSeconds: 0, {}, initContainers: [{}], containers: [{}]}}\n",
        diary.volumes(),
        diary.container("init", "", "say init"),
        containers.join(", ")
    );
    kplay.apply(&manifest).succeeds();
    diary.until("main");
    let before = kplay.until("web", "one container is done", |status| {
        container(status, "done")["state"]["terminated"]["exitCode"] == 0
    });
    kill(kplay.pids("web", "_sandbox")[0]);
    let after = kplay.until("web", "runs in another sandbox", |status| {
        let main = container(status, "main");
        main["restartCount"] == 1 && main["state"]["running"].is_object()
    });
    diary.until("again");
    let words = diary.words();
    let count = |word: &str| words.iter().filter(|found| *found == word).count();
    assert_eq!((count("init"), count("done")), (2, 1), "{words:?}");
    assert_eq!(words[3], "init", "{words:?}");
    assert_eq!(words[4], "again", "{words:?}");
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    let status = &after["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(container(status, "init")["restartCount"], 1);
    assert_eq!(container(status, "done")["restartCount"], 0);
    let description = kplay.run(["describe", "pod", "web"]).succeeds();
    let event = "Pod sandbox changed, it will be killed and re-created.";
    assert!(description.contains(event), "{description}");
    delete_cleans(&kplay);
}

/// Lets a command run for this long, then kills it.
fn kill_after(mut child: Child, limit: Duration) {
    wait::ended(child.id(), limit);
    child.kill().expect("our own child");
    child.wait().expect("our own child");
}

/// Moments of an apply or a delete, which take some 100 ms: more of them early, where more happens.
fn moments() -> impl Iterator<Item = Duration> {
    (0..14).map(|i| Duration::from_millis(3 * i * i / 2))
}

#[test]
fn apply_killed_at_any_moment() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let file = kplay.file("web.yaml", pod("web"));
    for moment in moments() {
        let apply = kplay.command(["apply".as_ref(), file.as_os_str()]).spawn();
        kill_after(apply, moment);
        kplay.note_pods();
        let get = kplay.run(["get", "pods", "-o", "json"]);
        assert_eq!(get.code, Some(0), "after {moment:?}: {get}");
        delete_cleans(&kplay);
    }
    kplay.apply(&pod("web")).succeeds();
}

#[test]
fn apply_after_an_apply_that_was_killed() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let file = kplay.file("web.yaml", pod("web"));
    for moment in moments().step_by(3) {
        let apply = kplay.command(["apply".as_ref(), file.as_os_str()]).spawn();
        kill_after(apply, moment);
        kplay.note_pods();
        kplay.apply(&pod("web")).succeeds();
        assert_eq!(kplay.shell("web", "echo alive"), "alive\n");
        delete_cleans(&kplay);
    }
}

#[test]
fn delete_killed_at_any_moment() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    for moment in moments().step_by(2) {
        kplay.apply(&pod("web")).succeeds();
        let delete = kplay.command(["delete", "pod", "web"]).spawn();
        kill_after(delete, moment);
        let get = kplay.run(["get", "pods", "-o", "json"]);
        assert_eq!(get.code, Some(0), "after {moment:?}: {get}");
        delete_cleans(&kplay);
    }
}

#[test]
fn an_executor_killed_while_its_pod_starts() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let file = kplay.file("web.yaml", pod("web"));
    let runroot = kplay.runroot().display().to_string();
    for moment in moments().step_by(2) {
        let apply = kplay.command(["apply".as_ref(), file.as_os_str()]).spawn();
        let mut executor = None;
        wait::holds_within(Duration::from_secs(5), || {
            executor = leftovers::processes()
                .into_iter()
                .find(|process| {
                    process.command.contains("internal execute")
                        && process.command.contains(&runroot)
                })
                .map(|process| process.pid);
            executor.is_some() || wait::ended(apply.id(), Duration::ZERO)
        });
        if let Some(executor) = executor {
            wait::ended(executor, moment);
            kill(executor);
        }
        kplay.note_pods();
        let output = apply.wait_with_output().expect("our own child");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{said}");
        // Killed before it was started: an error. Afterwards: the apply had ended well.
        assert!(output.status.code().is_some(), "{output:?}");
        delete_cleans(&kplay);
    }
}

#[test]
fn an_exec_whose_caller_is_killed() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("web")).succeeds();
    let mut exec = kplay.command(["exec", "web", "--", "sleep", "777"]).spawn();
    let uid = uid(&kplay, "web");
    wait::until("the command runs", || {
        leftovers::processes()
            .iter()
            .any(|process| process.command == "sleep 777" && process.cgroups.contains(&uid))
    });
    exec.kill().expect("our own child");
    exec.wait().expect("our own child");
    assert_eq!(kplay.shell("web", "echo alive"), "alive\n");
    delete_cleans(&kplay);
}

#[test]
fn an_executor_that_ends_while_up_runs_is_no_zombie() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let file = kplay.file("both.yaml", pod("a") + "\n---\n" + &pod("b"));
    let mut up = kplay.command(["up".as_ref(), file.as_os_str()]).spawn();
    wait::until("both pods run", || {
        let pods = kplay.run(["get", "pods"]);
        pods.stdout.matches("Running").count() == 2
    });
    let executor = kplay.executor("a");
    kill(executor);
    wait::until("the executor has been waited for", || {
        !Path::new(&format!("/proc/{executor}")).exists()
    });
    assert_eq!(up.try_wait().expect("up is our child"), None);
    kill_process(Pid::from_child(&up), Signal::INT).expect("up runs");
    assert!(!up.wait().expect("up is our child").success());
    kplay.assert_nothing_left();
}

/// Somebody removes the folder of all running pods: the next command ends what nobody can find any more.
#[test]
fn the_run_folder_is_removed_under_a_running_pod() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("web")).succeeds();
    let (executor, uid) = (kplay.executor("web"), uid(&kplay, "web"));
    // The executor may be writing in there.
    wait::until("it goes", || fs::remove_dir_all(kplay.runroot()).is_ok());
    assert_eq!(kplay.phase("web"), "Failed");
    assert!(wait::ended(executor, wait::PATIENCE), "it lives on");
    assert_eq!(members(&uid), Vec::<u32>::new());
    // Its name is free again.
    kplay.apply(&pod("web")).succeeds();
    kplay.until("web", "it runs", |status| status["phase"] == "Running");
    delete_cleans(&kplay);
}

#[test]
fn a_half_written_secret_goes_with_the_next_command() {
    let Some(kplay) = Kplay::new() else { return };
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: known}\nstringData: {a: b}\n";
    kplay.apply(secret).succeeds();
    let folder = kplay.runroot().join("objects/default/secret");
    let half = folder.join(".half.json.1.0");
    fs::write(&half, "{").expect("a file");
    kplay.run(["get", "pods"]).succeeds();
    assert!(!half.exists() && folder.join("known.json").exists());
    kplay.run(["delete", "secret", "known"]).succeeds();
}

/// A process that somebody has stopped may have any lock.
#[test]
fn who_waits_for_a_lock_can_be_interrupted_and_who_only_looks_does_not_wait() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.apply(&pod("web")).succeeds();
    let hold = |path: &Path| {
        let file = fs::File::open(path).expect("a lock");
        flock(&file, FlockOperation::LockExclusive).expect("taken");
        file
    };
    for (lock, command) in [
        ("run/network/lock", ["delete", "--all", "--force"]),
        ("root/images/lock", ["system", "reset", "--force"]),
    ] {
        let held = hold(&kplay.dir().join(lock));
        kplay.run(["get", "pods"]).succeeds();
        let mut waiting = kplay.command(command).std();
        let mut waiting = waiting.stdout(Stdio::null()).spawn().expect("it starts");
        wait::until("it waits for the lock", || is_waiting(waiting.id()));
        let pid = Pid::from_child(&waiting);
        kill_process(pid, Signal::INT).expect("our own child");
        let status = waiting.wait().expect("our own child");
        assert_eq!(status.code(), Some(130), "{lock}");
        drop(held);
    }
    delete_cleans(&kplay);
}

/// Whether a process waits for a `flock`.
fn is_waiting(pid: u32) -> bool {
    let locks = fs::read_to_string("/proc/locks").expect("the kernel's list");
    let mut waits = locks.lines().filter(|line| line.contains("-> FLOCK"));
    waits.any(|line| line.split_whitespace().any(|word| word == pid.to_string()))
}

/// A container's first process waits until its helper starts it, for ever if nobody looks after it.
#[test]
fn a_helper_that_is_killed_while_its_container_waits() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let file = kplay.file("web.yaml", script_pod("web", "", "", "sleep 1000"));
    let caught = (0..50).any(|_| {
        let mut apply = kplay.command(["apply".as_ref(), file.as_os_str()]).std();
        let apply = apply.stdout(Stdio::null()).stderr(Stdio::null());
        let mut apply = apply.spawn().expect("it starts");
        let caught = kill_helper_of_waiting(&mut apply, &kplay.run_dir("web"));
        if caught {
            kill_after(apply, wait::PATIENCE);
            let status = kplay.run(["get", "pod", "web"]);
            assert_eq!(status.code, Some(5), "it was undone: {status}");
        } else {
            apply.wait().expect("our own child");
            delete_cleans(&kplay);
        }
        caught
    });
    assert!(caught, "no container waited");
    delete_cleans(&kplay);
}

/// Has the helper of the pod's container go on in small steps, and kills it when it is about to start the container. False
/// if it was faster.
fn kill_helper_of_waiting(apply: &mut Child, run_dir: &Path) -> bool {
    let mut executors = Vec::new();
    wait::until("there is an executor", || {
        executors = leftovers::executors_of(run_dir);
        !executors.is_empty()
    });
    let children = || -> Vec<u32> {
        let list = format!("/proc/{0}/task/{0}/children", executors[0]);
        let list = fs::read_to_string(list).unwrap_or_default();
        list.split_whitespace().flat_map(str::parse).collect()
    };
    let about = |pid: u32, file: &str| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
    };
    let helper = || {
        let create = |pid: &u32| about(*pid, "cmdline") == "kplay\0internal\0create\0";
        children().into_iter().find(create)
    };
    let mut found = None;
    wait::until("there is a helper", || {
        found = helper();
        found.is_some() || apply.try_wait().expect("our own child").is_some()
    });
    let Some(helper) = found else { return false };
    loop {
        send(helper, Signal::STOP);
        let waits = |pid: &u32| about(*pid, "stat").contains("INIT]) S ");
        if children().iter().any(waits) {
            kill(helper);
            return true;
        }
        send(helper, Signal::CONT);
        if !matches!(
            about(helper, "stat").split(' ').nth(2),
            Some("R" | "S" | "D" | "T" | "t")
        ) {
            return false;
        }
    }
}

fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // It may have ended by itself.
    kill_process(pid.expect("a pid"), signal).ok();
}
