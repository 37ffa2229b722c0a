//! What becomes of logs where there is much of them, or no space for them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::Kplay;
use crate::harness::{script_pod, text};
use crate::wait;

const STAYS: &str = "terminationGracePeriodSeconds: 0,";

fn log_folder(kplay: &Kplay, pod: &str) -> PathBuf {
    let uid = text(&kplay.pod(pod)["metadata"]["uid"]);
    kplay.root().join(format!("logs/default_{pod}_{uid}/main"))
}

/// A small disk where the logs are, as long as it lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(kplay: &Kplay, size: &str) -> Self {
        let path = kplay.root().join("logs");
        fs::create_dir_all(&path).expect("a folder");
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(&path);
        assert!(mount.status().expect("mount of util-linux").success());
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "{:?}",
            self.0
        );
    }
}

#[test]
fn a_pod_goes_on_when_its_logs_have_no_space() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let disk = SmallDisk::new(&kplay, "1m");
    // 2 MiB are printed in all.
    let script = "echo first; yes filler | head -c 2097152; touch /printed; sleep 1000";
    kplay
        .apply(&script_pod("full", STAYS, "", script))
        .succeeds();
    let waits = ["exec", "full", "--", "sh", "-c"];
    let waits = waits
        .into_iter()
        .chain(["until [ -e /printed ]; do sleep 0.02; done"]);
    kplay.run(waits).succeeds();
    let mut events = String::new();
    wait::until_in(&kplay.run_dir("full"), "an event of the log", || {
        events = kplay.run(["describe", "pod", "full"]).succeeds();
        events.contains("FailedLog")
    });
    assert!(
        events.contains("What the container prints is lost: "),
        "{events}"
    );
    assert!(events.contains("No space left on device"), "{events}");
    assert_eq!(events.matches("FailedLog").count(), 1, "{events}");
    let status = &kplay.pod("full")["status"]["containerStatuses"][0];
    assert_eq!(
        (&status["ready"], &status["restartCount"]),
        (&true.into(), &0.into())
    );
    let log = kplay.run(["logs", "full"]).succeeds();
    assert!(log.starts_with("first\nfiller\n"), "{}", log.len());
    assert!(log.len() < 2 << 20);
    kplay.run(["delete", "pod", "full"]).succeeds();
    drop(disk);
    kplay.assert_nothing_left();
}

#[test]
fn rotated_files_are_compressed_and_read() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    // Two files are rotated: the older one is compressed, when it has rested.
    let script = "seq 1 700000; sleep 1000";
    kplay
        .apply(&script_pod("long", STAYS, "", script))
        .succeeds();
    let folder = log_folder(&kplay, "long");
    let names = || -> Vec<String> {
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        files
            .filter_map(|file| file.file_name().into_string().ok())
            .collect()
    };
    let is_compressed = |name: &String| name.ends_with(".gz");
    wait::until_in(&folder, "a compressed file", || {
        names().iter().any(is_compressed)
    });
    let compressed = names().into_iter().find(is_compressed).expect("it stays");
    let test = Command::new("gzip")
        .arg("-t")
        .arg(folder.join(&compressed))
        .status();
    assert!(test.expect("gzip").success(), "{compressed}");
    let log = kplay.run(["logs", "long"]).succeeds();
    let mut lines = log.lines();
    assert!((1..=700_000).all(|number| lines.next() == Some(number.to_string().as_str())));
    assert_eq!(lines.next(), None);
}

#[test]
fn logs_are_found_by_their_containers_names() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let fields = format!(
        "{STAYS} volumes: [{{name: v, emptyDir: {{}}}}], \
         initContainers: [{{name: first, image: 'localhost/busybox:1', command: [echo, of the first]}}],"
    );
    // Two runs fail, the third one stays.
    let script = "echo x >> /v/runs; n=$(wc -l < /v/runs); echo run $n; [ $n -lt 3 ] && exit 1; exec sleep 1000";
    let pod = script_pod(
        "named",
        &fields,
        "volumeMounts: [{name: v, mountPath: /v}],",
        script,
    );
    kplay
        .apply(&pod.replace("restartPolicy: Never", "restartPolicy: Always"))
        .succeeds();
    let pod = kplay.until("named", "runs for the third time", |status| {
        let main = &status["containerStatuses"][0];
        main["restartCount"] == 2 && main["state"]["running"].is_object()
    });
    let id = |status: &serde_json::Value, field: &str| {
        let id = text(&status.pointer(field).expect("an id").clone());
        id.rsplit('/').next().unwrap_or_default().to_owned()
    };
    let main = &pod["status"]["containerStatuses"][0];
    let first = &pod["status"]["initContainerStatuses"][0];
    let folder = kplay.root().join("container-logs");
    let log = |container: &str, id: &str| {
        let link = folder.join(format!("named_default_{container}-{id}.log"));
        let log = fs::read_to_string(&link).unwrap_or_else(|e| panic!("{link:?}: {e}"));
        log.trim_end()
            .rsplit(" F ")
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let last = id(main, "/lastState/terminated/containerID");
    wait::until_in(&folder, "the log", || {
        log("main", &id(main, "/containerID")) == "run 3"
    });
    assert_eq!(log("main", &last), "run 2");
    assert_eq!(log("first", &id(first, "/containerID")), "of the first");
    // That of the first run is gone with its log.
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 3);
    kplay.run(["delete", "pod", "named"]).succeeds();
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
}

#[test]
fn a_flood_of_output_is_in_no_probes_way() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let probe = "livenessProbe: {exec: {command: [sh, -c, 'echo x >> /probed']}, periodSeconds: 1, \
         timeoutSeconds: 1, failureThreshold: 1},";
    kplay
        .apply(&script_pod("flood", STAYS, probe, "exec yes"))
        .succeeds();
    let probed = "until [ $(wc -l < /probed) -ge 4 ]; do sleep 0.05; done";
    let waits = ["exec", "flood", "--", "sh", "-c", probed];
    kplay.run(waits).succeeds();
    let status = &kplay.pod("flood")["status"]["containerStatuses"][0];
    assert_eq!(
        (&status["ready"], &status["restartCount"]),
        (&true.into(), &0.into())
    );
    let events = kplay.run(["describe", "pod", "flood"]).succeeds();
    assert!(!events.contains("Unhealthy"), "{events}");
}
