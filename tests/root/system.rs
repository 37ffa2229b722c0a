//! kplay as a whole: whether the machine is fit, what it has, and the end of everything.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Kplay;
use crate::harness::{Run, script_pod};
use crate::{leftovers, user, wait};

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run}"))
}

/// The verdict of a check.
fn verdict<'a>(doctor: &'a Value, name: &str) -> &'a str {
    let checks = doctor["checks"].as_array().expect("a list");
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no {name} in {doctor:#}"));
    check["verdict"].as_str().expect("a word")
}

/// What trials could leave: links, mounts, cgroups, folders.
fn traces(kplay: &Kplay) -> Vec<String> {
    let mut found = Vec::new();
    for file in ["/proc/net/dev", "/proc/self/mounts"] {
        let text = fs::read_to_string(file).expect("readable");
        let names = text.lines().filter_map(|line| {
            let word = line
                .split_whitespace()
                .nth(usize::from(file.ends_with("mounts")))?;
            (word.contains("kplay") && word.contains("doctor")).then(|| word.to_owned())
        });
        found.extend(names);
    }
    for pods in cgroups_of_pods() {
        let names = names_in(&pods).into_iter();
        found.extend(names.filter(|name| name.contains("doctor")));
    }
    // The harness's own is no trace.
    let own = |name: &String| name != "no-storage.conf";
    found.extend(names_in(kplay.dir()).into_iter().filter(own));
    found.sort();
    found
}

/// Where some of the cgroups of root's pods are.
fn cgroups_of_pods() -> Vec<PathBuf> {
    let hierarchies = match leftovers::is_v2() {
        true => [""].as_slice(),
        false => &["memory", "unified"],
    };
    let root = Path::new("/sys/fs/cgroup");
    let pods = hierarchies.iter().map(|one| root.join(one).join("kplay"));
    pods.collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_machine_that_runs_the_tests_is_fit_and_nothing_of_the_look_is_left() {
    let Some(kplay) = Kplay::new() else { return };
    // Of one that was killed: no process has this number.
    fs::create_dir(kplay.dir().join(".kplay-doctor-99999999")).expect("a folder");
    if user::chosen().is_none() {
        for pods in cgroups_of_pods() {
            let cgroup = pods.join("doctor-99999999");
            // The last pod of another test may just take what is above it along.
            wait::until("there is a cgroup", || fs::create_dir_all(&cgroup).is_ok());
        }
    }
    let run = kplay.run(["system", "doctor", "-o", "json"]);
    assert_eq!(run.code, Some(0), "{run}");
    let doctor = json(&run);
    assert_eq!(doctor["podsCanRun"], true, "{run}");
    for name in [
        "kernel",
        "user",
        "namespaces",
        "proc",
        "overlay",
        "bridge",
        "seccomp",
        "cgroups",
    ] {
        assert_eq!(verdict(&doctor, name), "ok", "{run}");
    }
    assert_eq!(traces(&kplay), [""; 0]);
    let people = kplay.run(["system", "doctor"]).succeeds();
    assert!(people.contains("ok        overlay"), "{people}");
}

#[test]
fn what_is_in_the_way_is_said_by_the_doctor_and_by_apply() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = kplay.file("pod.yaml", script_pod("pod", "", "", "sleep 1000"));
    // A root without rights, as in a container whose engine hides a part of /proc: nobody may show it by another one.
    let script = "mount --bind /dev/null /proc/version \
                  && exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \"$0\" \"$@\"";
    let container = ["unshare", "--mount", "sh", "-c", script];
    let run = kplay
        .command(["system", "doctor", "-o", "json"])
        .through(container)
        .run();
    assert_eq!(run.code, Some(4), "{run}");
    let doctor = json(&run);
    assert_eq!(doctor["podsCanRun"], false, "{run}");
    assert_eq!(verdict(&doctor, "proc"), "fails", "{run}");
    let apply = [std::ffi::OsString::from("apply"), pod.into()];
    let apply = kplay.command(apply).through(container).run();
    apply.fails(4, &["proc: ", "/proc"]);
    assert_eq!(kplay.leftovers(), [""; 0]);
}

#[test]
fn who_is_not_root_is_told_of_ids() {
    let Some(kplay) = Kplay::new() else { return };
    // Nobody has this number, and so no subordinate ids.
    const USER: u32 = 54_321;
    std::os::unix::fs::chown(kplay.dir(), Some(USER), Some(USER)).expect("root may");
    let user = [
        "setpriv",
        "--reuid=54321",
        "--regid=54321",
        "--clear-groups",
    ];
    let run = kplay
        .command(["system", "doctor", "-o", "json"])
        .through(user)
        .run();
    let doctor = json(&run);
    for name in [
        "user",
        "user namespaces",
        "namespaces",
        "proc",
        "overlay",
        "bridge",
    ] {
        assert_eq!(verdict(&doctor, name), "ok", "{run}");
    }
    assert_eq!(verdict(&doctor, "subordinate ids"), "limited", "{run}");
    let remedy = "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 54321";
    assert!(run.stdout.contains(remedy), "{run}");
    assert_eq!(traces(&kplay), [""; 0]);
    assert_eq!(run.code, Some(0), "{run}");
}

#[test]
fn info_counts() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay
        .apply(&script_pod("web", "", "", "sleep 1000"))
        .succeeds();
    let run = kplay.run(["system", "info", "-o", "json"]);
    let info = json(&run);
    assert_eq!(info["pods"]["Running"], 1, "{run}");
    assert_eq!(
        info["root"].as_str().map(Path::new),
        Some(kplay.root().as_path())
    );
    // The test's and the toolbox.
    assert!(info["images"]["count"].as_u64() >= Some(1), "{run}");
    let people = kplay.run(["system", "info"]).succeeds();
    assert!(people.contains("1 Running"), "{people}");
}

const EVERYTHING: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: { name: settings }
data: { a: b }
---
apiVersion: v1
kind: Secret
metadata: { name: secret }
stringData: { a: b }
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: data }
spec:
  accessModes: [ReadWriteOnce]
  resources: { requests: { storage: 1Mi } }
---
apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  containers:
    - name: web
      image: localhost/busybox:1
      command: [sh, -c, 'echo kept >/data/file; sleep 1000']
      volumeMounts: [{ name: data, mountPath: /data }]
  volumes: [{ name: data, persistentVolumeClaim: { claimName: data } }]
";

#[test]
fn a_reset_leaves_nothing_but_what_is_not_kplays() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let refused = kplay.run(["system", "reset"]);
    refused.fails(2, &["--force"]);
    kplay.apply(EVERYTHING).succeeds();
    kplay.note_pods();
    let mine = kplay.file("root/mine", "not kplay's");
    // A pod of which nothing can be read.
    let broken = kplay.file("root/pods/default_broken/record.json", "{");
    if let Some(user) = crate::user::chosen() {
        user.give(broken.parent().expect("the pod's folder"));
    }
    let run = kplay.run(["system", "reset", "--force"]);
    assert!(run.stderr.contains("root/mine"), "{run}");
    assert!(run.succeeds().contains("pod \"web\""));
    assert_eq!(kplay.leftovers(), [""; 0]);
    assert!(
        !kplay.runroot().exists(),
        "{:?}",
        names_in(&kplay.runroot())
    );
    assert_eq!(names_in(&kplay.root()), ["mine"]);
    assert!(mine.exists() && !broken.exists());
    // And it can be begun anew.
    fs::remove_file(mine).expect("removable");
    kplay.run(["system", "reset", "-f"]).succeeds();
    assert!(!kplay.root().exists());
    assert_eq!(kplay.run(["get", "pods"]).succeeds(), "");
}

#[test]
fn top_shows_what_containers_use() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let busy = "resources: { limits: { cpu: 200m, memory: 64Mi } },";
    let script = "(while :; do :; done) & wait";
    kplay
        .apply(&script_pod("busy", "", busy, script))
        .succeeds();
    kplay
        .apply(&script_pod("idle", "", "", "sleep 1000"))
        .succeeds();
    let run = kplay.run(["top", "pods", "-o", "json"]);
    let list = json(&run);
    assert_eq!(list["kind"], "PodMetricsList", "{run}");
    let usage = |pod: &str| {
        let items = list["items"].as_array().expect("a list");
        let item = items.iter().find(|item| item["metadata"]["name"] == pod);
        item.unwrap_or_else(|| panic!("no {pod}: {run}"))["containers"][0]["usage"].clone()
    };
    let number = |value: &Value, unit: &str| -> u64 {
        let text = value.as_str().expect("a quantity");
        text.strip_suffix(unit)
            .and_then(|text| text.parse().ok())
            .expect("a number")
    };
    // A fifth of a processor, if the machine has as much of it left.
    let cores = number(&usage("busy")["cpu"], "n");
    assert!((20_000_000..300_000_000).contains(&cores), "{run}");
    assert!(number(&usage("idle")["cpu"], "n") < 50_000_000, "{run}");
    assert!(number(&usage("busy")["memory"], "Ki") < 64 << 10, "{run}");
    assert_eq!(usage("busy")["pids"], "2", "{run}");
    assert_eq!(usage("idle")["pids"], "1", "{run}");
    let people = kplay.run(["top", "busy", "--no-headers"]).succeeds();
    assert!(
        people.starts_with("busy ") && people.lines().count() == 1,
        "{people}"
    );
    kplay.run(["top", "nobody"]).fails(5, &["nobody"]);
}

#[test]
fn a_service_manager_is_told_when_all_pods_are_ready() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let manifest = script_pod(
        "web",
        "terminationGracePeriodSeconds: 1,",
        READY_LATER,
        "sleep 1; touch /ready; sleep 1000",
    );
    let path = kplay.file("web.yaml", manifest);
    let address = kplay.dir().join("notify");
    let manager = UnixDatagram::bind(&address).expect("a socket");
    manager
        .set_read_timeout(Some(wait::PATIENCE))
        .expect("a timeout");
    let up = [std::ffi::OsString::from("up"), path.into()];
    let mut up = kplay.command(up).env("NOTIFY_SOCKET", address).spawn();
    let mut buffer = [0; 256];
    let mut told = Vec::new();
    while !told
        .last()
        .is_some_and(|text: &String| text.starts_with("READY=1"))
    {
        let length = manager.recv(&mut buffer).expect("it is told in time");
        told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert_eq!(
        told.first().map(String::as_str),
        Some("STATUS=0 of 1 pods are ready"),
        "{told:?}"
    );
    assert_eq!(
        kplay.pod("web")["status"]["containerStatuses"][0]["ready"],
        true
    );
    let pid = rustix::process::Pid::from_child(&up);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
    let length = manager.recv(&mut buffer).expect("it is told in time");
    assert_eq!(&buffer[..length], b"STOPPING=1");
    assert!(wait::ended(up.id(), wait::PATIENCE));
    assert_eq!(up.wait().expect("our own child").code(), Some(143));
    drop(manager);
    kplay.assert_nothing_left();
}

const READY_LATER: &str =
    "readinessProbe: { exec: { command: [test, -e, /ready] }, periodSeconds: 1 },";
