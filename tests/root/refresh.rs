//! `apply` of a changed ConfigMap, Secret or label reaches running pods, and restarts nothing that a kubelet would not.

use crate::Kplay;
use crate::harness::{Run, text};

const KEEP: &str = "while :; do sleep 1000; done";

/// A ConfigMap, a Secret, and a pod that has both in all ways.
fn manifest(map: &str, secret: &str, labels: &str) -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: map}}
data: {{{map}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: secret}}
stringData: {{{secret}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: live, labels: {{{labels}}}}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {{fsGroup: 4000}}
  volumes:
  - {{name: map, configMap: {{name: map}}}}
  - {{name: secret, secret: {{secretName: secret, defaultMode: 0400}}}}
  - name: all
    projected:
      sources:
      - configMap: {{name: map}}
      - downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, '{KEEP}']
    env: [{{name: KEY, valueFrom: {{configMapKeyRef: {{name: map, key: key}}}}}}]
    volumeMounts:
    - {{name: map, mountPath: /map}}
    - {{name: secret, mountPath: /secret}}
    - {{name: all, mountPath: /all}}
    - {{name: map, mountPath: /part, subPath: key}}
"
    )
}

/// What tells one run of a pod from another.
fn identity(kplay: &Kplay, pod: &str) -> (String, String) {
    let json = kplay.pod(pod);
    let container = &json["status"]["containerStatuses"][0];
    assert_eq!(container["restartCount"], 0);
    (
        text(&json["metadata"]["uid"]),
        text(&container["containerID"]),
    )
}

fn says(run: &Run, word: &str) -> bool {
    run.stdout.contains(word)
}

#[test]
fn files_are_new_at_once_and_nothing_restarts() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay
        .apply(&manifest("key: old, gone: x", "password: old", "a: one"))
        .succeeds();
    let before = identity(&kplay, "live");
    // A reader that is in the middle of a set of files has all of that set.
    let held = "cd -P /map/..data && cat key && readlink /map/..data";
    let first = kplay.shell("live", held);
    let run = kplay.apply(&manifest(
        "key: new, more: why",
        "password: new",
        "a: two, b: three",
    ));
    assert!(says(&run, "configmap/map configured"), "{run}");
    assert!(says(&run, "pod/live configured"), "{run}");
    assert!(run.stderr.contains("new variables"), "{run}");
    run.succeeds();
    assert_eq!(identity(&kplay, "live"), before);
    let shell = |script: &str| kplay.shell("live", script);
    assert_eq!(
        shell("cat /map/key /map/more; ls /map"),
        "newwhykey\nmore\n"
    );
    assert_eq!(
        shell("cat /secret/password; stat -L -c ' %a %g' /secret/password"),
        "new 440 4000\n"
    );
    assert_eq!(
        shell("cat /all/key; echo; cat /all/labels"),
        "new\na=\"two\"\nb=\"three\""
    );
    assert_eq!(shell("cat /part"), "old", "a subPath does not change");
    assert_ne!(
        shell("readlink /map/..data"),
        first.lines().last().unwrap_or_default()
    );
    let labels = kplay.pod("live")["metadata"]["labels"].clone();
    assert_eq!(labels, serde_json::json!({"a": "two", "b": "three"}));
    // Once more is nothing new.
    let again = kplay.apply(&manifest(
        "key: new, more: why",
        "password: new",
        "a: two, b: three",
    ));
    assert!(says(&again, "pod/live unchanged"), "{again}");
    // What is older than its pod is new with its next container.
    let env = kplay.pids("live", "main");
    let process = rustix::process::Pid::from_raw(i32::try_from(env[0]).expect("a pid"));
    let process = process.expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("ours");
    kplay.until("live", "runs again", |status| {
        let container = &status["containerStatuses"][0];
        container["restartCount"] == 1 && container["state"]["running"].is_object()
    });
    assert_eq!(
        shell("tr '\\0' '\\n' < /proc/1/environ | grep KEY"),
        "KEY=new\n"
    );
    assert_eq!(shell("cat /part"), "new");
}

#[test]
fn what_a_pod_was_started_with_outlives_the_objects() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay
        .apply(&manifest("key: old", "password: old", "a: one"))
        .succeeds();
    kplay
        .run(["delete", "configmap/map", "secret/secret"])
        .succeeds();
    let process = i32::try_from(kplay.pids("live", "main")[0]).expect("a pid");
    let process = rustix::process::Pid::from_raw(process).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("ours");
    kplay.until("live", "runs again", |status| {
        let container = &status["containerStatuses"][0];
        container["restartCount"] == 1 && container["state"]["running"].is_object()
    });
    let shell = |script: &str| kplay.shell("live", script);
    assert_eq!(
        shell("tr '\\0' '\\n' < /proc/1/environ | grep KEY"),
        "KEY=old\n"
    );
    assert_eq!(
        shell("cat /map/key /secret/password /all/key /part"),
        "oldoldoldold"
    );
    // A new pod of the same manifest has nothing to be made of.
    let pod = manifest("key: old", "password: old", "a: one");
    let pod = pod.rsplit("---\n").next().expect("the pod");
    kplay.apply(pod).fails(3, &["map"]);
}

#[test]
fn the_pod_is_restarted_if_asked_and_if_its_template_changes() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let deployment = |value: &str, note: &str| {
        format!(
            "apiVersion: v1
kind: ConfigMap
metadata: {{name: map}}
data: {{key: {value}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}, annotations: {{checksum: '{note}'}}}}
    spec:
      terminationGracePeriodSeconds: 0
      volumes: [{{name: map, configMap: {{name: map}}}}]
      containers:
      - name: main
        image: localhost/busybox:1
        command: [sh, -c, '{KEEP}']
        volumeMounts: [{{name: map, mountPath: /map}}]
"
        )
    };
    kplay.apply(&deployment("one", "1")).succeeds();
    let first = identity(&kplay, "web-0");
    kplay.apply(&deployment("two", "1")).succeeds();
    assert_eq!(identity(&kplay, "web-0"), first);
    assert_eq!(kplay.shell("web-0", "cat /map/key"), "two");
    // As `kubectl rollout` does: a template with another annotation is another pod.
    kplay.apply(&deployment("two", "2")).succeeds();
    let second = identity(&kplay, "web-0");
    assert_ne!(second, first);
    kplay
        .apply_with(&deployment("three", "2"), ["--replace"])
        .succeeds();
    assert_ne!(identity(&kplay, "web-0"), second);
    assert_eq!(kplay.shell("web-0", "cat /map/key"), "three");
}

#[test]
fn a_failed_apply_gives_back_the_old_files() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let good = manifest("key: old", "password: old", "a: one");
    kplay.apply(&good).succeeds();
    let before = identity(&kplay, "live");
    let bad = format!(
        "{}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: bad}}\nspec: {{containers: [{{name: main, \
         image: 'localhost/busybox:1', command: [/no/such]}}]}}\n",
        manifest("key: new", "password: new", "a: two")
    );
    kplay.apply(&bad).fails(1, &["/no/such"]);
    assert_eq!(identity(&kplay, "live"), before);
    assert_eq!(
        kplay.shell("live", "cat /map/key /secret/password; cat /all/labels"),
        "oldolda=\"one\""
    );
    let again = kplay.apply(&good);
    assert!(says(&again, "pod/live unchanged"), "{again}");
}
