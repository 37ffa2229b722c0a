//! How volumes are mounted: images as volumes, read-only with all below, mounts that are seen elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use crate::Kplay;
use crate::harness::script_pod;

/// A folder of the machine whose mounts are shared. What is mounted there goes when this is dropped.
struct Shared(PathBuf);

impl Shared {
    fn new(kplay: &Kplay) -> Self {
        let folder = kplay.dir().join("shared");
        fs::create_dir_all(folder.join("below")).expect("a folder");
        mount_bind(&folder, &folder).expect("a mount");
        let shared = Self(folder);
        mount_change(&shared.0, MountPropagationFlags::SHARED).expect("a shared mount");
        shared
    }

    fn tmpfs(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).expect("a folder");
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), None).expect("a mount");
        path
    }

    fn pod(&self, name: &str, mount: &str, script: &str) -> String {
        script_pod(
            name,
            &format!(
                "terminationGracePeriodSeconds: 0, volumes: [{{name: v, hostPath: {{path: {}}}}}],",
                self.0.display()
            ),
            &format!("volumeMounts: [{{name: v, mountPath: /v, {mount}}}],"),
            script,
        )
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // With all below it, whatever a test has left there.
        while unmount(self.0.join("below"), UnmountFlags::DETACH).is_ok() {}
        if let Err(error) = unmount(&self.0, UnmountFlags::DETACH) {
            // The test may have failed already; a panic here would hide why.
            eprintln!("cannot unmount {:?}: {error}", self.0);
        }
    }
}

const KEEP: &str = "while :; do sleep 1000; done";

#[test]
fn an_image_is_a_volume() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = |name: &str, mount: &str, script: &str| {
        script_pod(
            name,
            "terminationGracePeriodSeconds: 0, volumes: [{name: v, image: {reference: 'localhost/busybox:1'}}],",
            &format!("volumeMounts: [{{name: v, mountPath: /image, {mount}}}],"),
            script,
        )
    };
    let see = "ls /image/bin/busybox; touch /image/x 2>/dev/null || echo read-only; \
               /image/bin/busybox true 2>/dev/null || echo not run";
    kplay
        .apply_with(&pod("whole", "", see), ["--wait=complete"])
        .succeeds();
    assert_eq!(
        kplay.run(["logs", "whole"]).succeeds(),
        "/image/bin/busybox\nread-only\nnot run\n"
    );
    kplay
        .apply_with(
            &pod("part", "subPath: bin", "ls /image/busybox"),
            ["--wait=complete"],
        )
        .succeeds();
    let said = kplay
        .apply(&pod("missing", "subPath: no/such", "true"))
        .fails(1, &["CreateContainerConfigError"]);
    assert!(said.contains("subPath"), "{said}");

    let absent = "volumes: [{name: v, image: {reference: 'localhost/none:1', pullPolicy: Never}}],";
    kplay
        .apply(&script_pod("absent", absent, "", "true"))
        .fails(4, &["volume `v` of the pod", "pull policy of Never"]);
}

#[test]
fn read_only_is_for_what_is_below_too_if_asked() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let shared = Shared::new(&kplay);
    let below = shared.tmpfs("below");
    let script =
        "touch /v/x 2>/dev/null && echo top; touch /v/below/x 2>/dev/null && echo below; true";
    let check = |mount: &str, expected: &str| {
        let pod = shared.pod("deep", mount, script);
        let run = kplay.apply_with(&pod, ["--wait=complete"]);
        let log = kplay.run(["logs", "deep"]);
        run.succeeds();
        assert_eq!(log.succeeds(), expected, "{mount}");
        kplay.run(["delete", "pod", "deep"]).succeeds();
    };
    check("readOnly: true", "below\n");
    check("readOnly: true, recursiveReadOnly: Enabled", "");
    check("readOnly: true, recursiveReadOnly: IfPossible", "");
    check("", "top\nbelow\n");
    assert!(below.join("x").exists());
}

#[test]
fn mounts_of_the_machine_are_seen_if_asked() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let shared = Shared::new(&kplay);
    let mount = "mountPropagation: HostToContainer, readOnly: true";
    kplay.apply(&shared.pod("sees", mount, KEEP)).succeeds();
    let below = shared.tmpfs("below");
    fs::write(below.join("file"), "of the machine").expect("a file");
    assert_eq!(
        kplay.shell(
            "sees",
            "cat /v/below/file; touch /v/x 2>/dev/null || echo ' read-only'"
        ),
        "of the machine read-only\n"
    );
    // Its own mounts stay its own.
    let privileged = shared
        .pod("hides", "mountPropagation: HostToContainer", KEEP)
        .replace("command:", "securityContext: {privileged: true}, command:");
    kplay.apply(&privileged).succeeds();
    kplay.shell(
        "hides",
        "mkdir /v/own; mount -t tmpfs none /v/own; touch /v/own/x",
    );
    assert_eq!(
        fs::read_dir(shared.0.join("own"))
            .expect("it was made")
            .count(),
        0
    );
    assert_eq!(kplay.shell("sees", "ls /v/own"), "");
}

#[test]
fn mounts_of_a_container_are_seen_on_the_machine_if_asked() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let shared = Shared::new(&kplay);
    let pod = shared
        .pod(
            "shows",
            "mountPropagation: Bidirectional",
            &format!("mount -t tmpfs none /v/below; echo of the pod > /v/below/file; {KEEP}"),
        )
        .replace("command:", "securityContext: {privileged: true}, command:");
    kplay.apply(&pod).succeeds();
    let file = shared.0.join("below/file");
    assert!(crate::wait::holds_within(crate::wait::PATIENCE, || {
        fs::read_to_string(&file).is_ok_and(|text| text == "of the pod\n")
    }));
    kplay.run(["delete", "pod", "shows"]).succeeds();
    // As with a kubelet, it is for the container to take it away.
    assert!(file.exists());

    let refused = shared.pod("plain", "mountPropagation: Bidirectional", KEEP);
    kplay
        .apply(&refused)
        .fails(3, &["only a privileged container"]);
}

#[test]
fn a_mount_that_is_not_shared_is_named() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let shared = Shared::new(&kplay);
    mount_change(&shared.0, MountPropagationFlags::PRIVATE).expect("a private mount");
    let pod = shared.pod("alone", "mountPropagation: HostToContainer", KEEP);
    kplay
        .apply(&pod)
        .fails(4, &["but it is not a shared or slave mount"]);
}

/// What a sidecar mounts, others of its pod find: the way of file systems in user space.
#[test]
fn containers_of_a_pod_share_mounts_in_its_volumes() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: pair}}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{{name: v, emptyDir: {{}}}}, {{name: own, emptyDir: {{}}}}]
  containers:
  - name: mounts
    image: localhost/busybox:1
    securityContext: {{privileged: true}}
    command: [sh, -c, 'mkdir /v/m; mount -t tmpfs none /v/m; echo mounted > /v/m/file; {KEEP}']
    volumeMounts: [{{name: v, mountPath: /v, mountPropagation: Bidirectional}}]
  - name: sees
    image: localhost/busybox:1
    command: [sh, -c, '{KEEP}']
    volumeMounts:
    - {{name: own, mountPath: /v/own}}
    - {{name: v, mountPath: /v, mountPropagation: HostToContainer}}
"
    );
    kplay.apply(&manifest).succeeds();
    let sees = |script: &str| kplay.run(["exec", "pair", "-c", "sees", "--", "sh", "-c", script]);
    assert!(crate::wait::holds_within(crate::wait::PATIENCE, || {
        sees("cat /v/m/file").stdout == "mounted\n"
    }));
    // What is mounted below it is there, and once.
    let count = "touch /v/own/x && grep -c ' /v' /proc/mounts";
    assert_eq!(sees(count).succeeds(), "3\n");
    kplay.run(["delete", "pod", "pair"]).succeeds();
    kplay.assert_nothing_left();
    assert!(!Path::new("/v").exists());
}

#[test]
fn a_hostile_image_leads_no_mount_astray() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.load(crate::fixtures::hostile_archive());
    let pod = |path: &str, script: &str| {
        script_pod(
            "hostile",
            "volumes: [{name: v, emptyDir: {}}],",
            &format!("volumeMounts: [{{name: v, mountPath: {path}}}],"),
            script,
        )
        .replace("busybox:1", "hostile:1")
    };
    let refused = |path: &str, words: &str| {
        let said = kplay.apply(&pod(path, "true")).fails(1, &[words]);
        assert!(said.contains("CreateContainerError"), "{path}: {said}");
    };
    let inside = "because it is inside /proc";
    refused("/to-proc", inside);
    refused("/to-sys-of-proc", inside);
    refused("/to-proc/sys/kernel", inside);
    refused("/to-root/proc", inside);
    refused("/to-dev", "on /dev");
    refused("/to-root/dev", "on /dev");
    let plays = |path: &str, script: &str, expected: &str| {
        kplay
            .apply_with(&pod(path, script), ["--wait=complete"])
            .succeeds();
        assert_eq!(
            kplay.run(["logs", "hostile"]).succeeds(),
            expected,
            "{path}"
        );
        kplay.run(["delete", "pod", "hostile"]).succeeds();
    };
    // It stays in the container.
    let out = "touch /out/x; ls /tmp/kplay-hostile";
    plays("/out", out, "x\n");
    assert!(!Path::new("/tmp/kplay-hostile").exists());
    // As with runc: what the container could mount there by the real name.
    plays(
        "/to-dev/mine",
        "touch /dev/mine/x; ls /to-dev/mine; test -c /dev/null && echo null",
        "x\nnull\n",
    );
    plays("/to-sys", "touch /sys/x; ls /sys", "x\n");
}

#[test]
fn a_link_in_a_volume_leads_no_mount_astray() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "astray",
        "volumes: [{name: outer, emptyDir: {}}, {name: inner, emptyDir: {}}], \
         initContainers: [{name: link, image: 'localhost/busybox:1', command: [ln, -s, /proc/sys, /outer/inner], \
         volumeMounts: [{name: outer, mountPath: /outer}]}],",
        "volumeMounts: [{name: outer, mountPath: /outer}, {name: inner, mountPath: /outer/inner}],",
        "true",
    );
    kplay
        .apply_with(&pod, ["--wait=complete"])
        .fails(1, &["because it is inside /proc"]);
}
