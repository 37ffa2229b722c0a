//! Pods that take more of the disk than they may.

use serde_json::Value;

use crate::Kplay;
use crate::harness::{script_pod, text};

/// Writes 3 MiB to a file, says so, and stays.
fn write(path: &str) -> String {
    format!("dd if=/dev/zero of={path} bs=1M count=3 2>/dev/null; while :; do sleep 1000; done")
}

#[track_caller]
fn evicted(pod: &Value, message: &str) {
    let status = &pod["status"];
    assert_eq!(status["phase"], "Failed", "{status}");
    assert_eq!(status["reason"], "Evicted");
    assert_eq!(text(&status["message"]), message);
}

#[test]
fn too_much_local_storage_ends_a_pod() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let volume = |name: &str, limit: &str| {
        script_pod(
            name,
            &format!("volumes: [{{name: v, emptyDir: {{sizeLimit: {limit}}}}}],"),
            "volumeMounts: [{name: v, mountPath: /v}],",
            &write("/v/x"),
        )
    };
    let alone = script_pod(
        "alone",
        "",
        "resources: {limits: {ephemeral-storage: 1Mi}},",
        &write("/x"),
    );
    let first = "{name: first, image: 'localhost/busybox:1', command: [sleep, '1000'], \
                 resources: {limits: {ephemeral-storage: 100Mi}}}";
    let one_of_two = script_pod(
        "one-of-two",
        "terminationGracePeriodSeconds: 0,",
        "resources: {limits: {ephemeral-storage: 2Mi}},",
        &write("/x"),
    )
    .replace("containers: [", &format!("containers: [{first}, "));
    // A sidecar's limit counts beside the others', and an init container's does not.
    let sidecar = script_pod(
        "with-sidecar",
        "initContainers: [{name: side, restartPolicy: Always, image: 'localhost/busybox:1', command: [sleep, '1000'], \
         resources: {limits: {ephemeral-storage: 1Mi}}}, {name: init, image: 'localhost/busybox:1', command: ['true'], \
         resources: {limits: {ephemeral-storage: 512Ki}}}],",
        "resources: {limits: {ephemeral-storage: 1Mi}},",
        "dd if=/dev/zero of=/x bs=512k count=1; exec sleep 1000",
    );
    let manifest = [
        sidecar,
        volume("canonical", "1024Ki"),
        volume("volume", "1Mi"),
        volume("large-enough", "100Mi"),
        alone,
        one_of_two,
    ]
    .join("---\n");
    kplay.apply(&manifest).succeeds();
    evicted(
        &kplay.until_ended("volume"),
        "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ",
    );
    evicted(
        &kplay.until_ended("alone"),
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
    );
    evicted(
        &kplay.until_ended("one-of-two"),
        "Container main exceeded its local ephemeral storage limit \"2Mi\". ",
    );
    // As the API server would have written the limit.
    evicted(
        &kplay.until_ended("canonical"),
        "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ",
    );
    assert_eq!(kplay.phase("large-enough"), "Running");
    assert_eq!(kplay.phase("with-sidecar"), "Running");
    let grow = "dd if=/dev/zero of=/y bs=512k count=4";
    kplay
        .run(["exec", "with-sidecar", "-c", "main", "--", "sh", "-c", grow])
        .succeeds();
    evicted(
        &kplay.until_ended("with-sidecar"),
        "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ",
    );
    let events = kplay.run(["describe", "pod", "volume"]).succeeds();
    assert!(events.contains("Evicted"), "{events}");
}
