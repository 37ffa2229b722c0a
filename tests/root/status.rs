//! `status`, as a kubelet would report it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Kplay;
use crate::harness::{script_pod, text};

/// Type → status and reason.
fn conditions(pod: &Value) -> BTreeMap<String, (String, Option<String>)> {
    let list = pod["status"]["conditions"].as_array().expect("conditions");
    list.iter()
        .map(|condition| {
            let reason = condition["reason"].as_str().map(str::to_owned);
            (
                text(&condition["type"]),
                (text(&condition["status"]), reason),
            )
        })
        .collect()
}

#[test]
fn a_running_pods_status() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay
        .apply(
            "
apiVersion: v1
kind: Pod
metadata: {name: whole}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {supplementalGroups: [4000], fsGroup: 5000}
  volumes: [{name: v, emptyDir: {}}, {name: w, emptyDir: {}}]
  initContainers:
  - {name: z-first, image: 'localhost/busybox:1', command: ['true']}
  - {name: a-proxy, image: 'localhost/busybox:1', restartPolicy: Always, command: [sleep, '1000']}
  containers:
  - name: web
    image: localhost/busybox:1
    command: [sleep, '1000']
    securityContext: {runAsUser: 1000, runAsGroup: 2000}
    resources: {limits: {memory: 64Mi}, requests: {cpu: 10m}}
    volumeMounts: [{name: v, mountPath: /v}, {name: w, mountPath: /w, readOnly: true}]
  - {name: app, image: 'localhost/busybox:1', command: [sleep, '1000']}
",
        )
        .succeeds();
    let pod = kplay.pod("whole");
    let status = &pod["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["qosClass"], "Burstable");
    assert_eq!(pod["metadata"]["generation"], 1);
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["hostIPs"][0]["ip"], status["hostIP"]);
    let started = text(&status["startTime"]);
    assert_eq!(started.len(), "2026-01-01T00:00:00Z".len(), "{started}");
    let names = |list: &str| -> Vec<String> {
        let all = status[list].as_array().expect("statuses");
        all.iter().map(|one| text(&one["name"])).collect()
    };
    // Init containers as in the manifest, the others by name.
    assert_eq!(names("initContainerStatuses"), ["z-first", "a-proxy"]);
    assert_eq!(names("containerStatuses"), ["app", "web"]);
    let first = &status["initContainerStatuses"][0];
    assert_eq!(
        (&first["ready"], &first["started"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(first["state"]["terminated"]["reason"], "Completed");
    let web = &status["containerStatuses"][1];
    assert_eq!(
        (&web["ready"], &web["started"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(web["lastState"], json!({}));
    assert!(text(&web["containerID"]).starts_with("kplay://"), "{web}");
    assert!(text(&web["imageID"]).contains("sha256:"), "{web}");
    assert_eq!(web["stopSignal"], "SIGTERM");
    assert_eq!(web["user"]["linux"]["uid"], 1000);
    assert_eq!(web["user"]["linux"]["gid"], 2000);
    assert_eq!(
        web["user"]["linux"]["supplementalGroups"],
        json!([2000, 4000, 5000])
    );
    let ids = kplay.run(["exec", "whole", "-c", "web", "--", "id", "-G"]);
    assert_eq!(ids.succeeds(), "2000 4000 5000\n");
    // A missing request is the limit's.
    assert_eq!(
        web["allocatedResources"],
        json!({ "cpu": "10m", "memory": "64Mi" })
    );
    assert_eq!(web["resources"]["limits"], json!({ "memory": "64Mi" }));
    assert_eq!(status["containerStatuses"][0]["resources"], json!({}));
    assert_eq!(
        web["volumeMounts"],
        json!([
            { "name": "v", "mountPath": "/v" },
            { "name": "w", "mountPath": "/w", "readOnly": true, "recursiveReadOnly": "Disabled" },
        ])
    );
    for (r#type, (status, reason)) in conditions(&pod) {
        assert_eq!((status.as_str(), reason), ("True", None), "{type}");
    }
}

#[test]
fn a_readiness_gate_that_nobody_sets_keeps_a_pod_from_being_ready() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let gate =
        "terminationGracePeriodSeconds: 0, readinessGates: [{conditionType: example.com/lb}],";
    kplay
        .apply(&script_pod("gated", gate, "", "sleep 1000"))
        .succeeds();
    let pod = kplay.pod("gated");
    let conditions = conditions(&pod);
    let reason = Some("ReadinessGatesNotReady".to_owned());
    assert_eq!(conditions["Ready"], ("False".into(), reason));
    assert_eq!(conditions["ContainersReady"].0, "True");
}

#[test]
fn what_a_pod_that_has_ended_says() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let two = script_pod("two", "", "", "exit 3").replace(
        "containers: [",
        "containers: [{name: good, image: 'localhost/busybox:1', command: ['true']}, ",
    );
    kplay
        .apply_with(&two, ["--wait=complete"])
        .fails(1, &["two"]);
    let pod = kplay.pod("two");
    assert_eq!(pod["status"]["phase"], "Failed");
    let conditions = conditions(&pod);
    let failed = ("False".to_owned(), Some("PodFailed".to_owned()));
    assert_eq!(conditions["Ready"], failed);
    assert_eq!(conditions["ContainersReady"], failed);
    assert_eq!(conditions["Initialized"], ("True".into(), None));
    assert_eq!(conditions["PodReadyToStartContainers"].0, "False");
    let good = &pod["status"]["containerStatuses"][0];
    assert_eq!(good["state"]["terminated"]["exitCode"], 0);
    assert_eq!(good["ready"], false);
}
