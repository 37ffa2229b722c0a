//! emptyDir, hostPath, ConfigMap, Secret, downward API and projected volumes, as a container sees them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::Kplay;
use crate::harness::{script_pod, text};

const DATA: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: map}
data: {a.txt: text of a, b.txt: text of b}
binaryData: {raw: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: secret}
data: {password: aHVudGVyMg==}
---
";

/// The log of a pod that has `volume` (YAML) at /v and runs `script`.
#[track_caller]
fn seen(kplay: &Kplay, volume: &str, pod: &str, container: &str, script: &str) -> String {
    let pod = script_pod(
        "volume",
        &format!("volumes: [{{name: v, {volume}}}], {pod}"),
        &format!("volumeMounts: [{{name: v, mountPath: /v}}], {container}"),
        script,
    );
    let run = kplay.apply_with(&format!("{DATA}{pod}"), ["--wait=complete"]);
    run.succeeds();
    kplay.run(["logs", "volume"]).succeeds()
}

#[test]
fn an_empty_dir_belongs_to_everybody() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let script = "stat -c '%a %u %g' /v; touch /v/x && echo writable";
    let check = |volume: &str, pod: &str, expected: &str| {
        assert_eq!(
            seen(&kplay, volume, pod, "", script),
            expected,
            "{volume} {pod}"
        );
    };
    let user = "securityContext: {runAsUser: 1000, runAsGroup: 1000},";
    check("emptyDir: {}", user, "777 0 0\nwritable\n");
    // As any tmpfs.
    check("emptyDir: {medium: Memory}", user, "1777 0 0\nwritable\n");
    let group = "securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 4000},";
    check("emptyDir: {}", group, "2777 0 4000\nwritable\n");
    check("emptyDir: {mode: 01777}", user, "1777 0 0\nwritable\n");
    let root = "";
    check("emptyDir: {mode: 0750}", root, "750 0 0\nwritable\n");
    check(
        "emptyDir: {medium: Memory, mode: 0700}",
        root,
        "700 0 0\nwritable\n",
    );
    // The group's may come to it.
    check("emptyDir: {mode: 0700}", group, "2770 0 4000\nwritable\n");
}

#[test]
fn an_empty_dir_in_memory_has_its_size() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let log = seen(
        &kplay,
        "emptyDir: {medium: Memory, sizeLimit: 1Mi}",
        "",
        "",
        "grep ' /v ' /proc/mounts | cut -d ' ' -f 3; dd if=/dev/zero of=/v/x bs=1M count=2 2>&1 | grep -o 'No space left on device'",
    );
    assert_eq!(log, "tmpfs\nNo space left on device\n");
}

#[test]
fn an_empty_dir_in_memory_is_no_larger_than_the_pod() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let size = "df -k /v | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2";
    let limit = "resources: {limits: {memory: 64Mi}},";
    let check = |volume: &str, container: &str, expected: &str| {
        assert_eq!(
            seen(&kplay, volume, "", container, size).trim(),
            expected,
            "{volume} {container}"
        );
    };
    check("emptyDir: {medium: Memory}", limit, "65536");
    check("emptyDir: {medium: Memory, sizeLimit: 1Gi}", limit, "65536");
    check("emptyDir: {medium: Memory, sizeLimit: 1Mi}", "", "1024");
}

#[test]
fn a_volume_inside_of_a_config_map() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "nested",
        "volumes: [{name: map, configMap: {name: map}}, {name: secret, secret: {secretName: secret}}, \
         {name: free, emptyDir: {}}],",
        "volumeMounts: [{name: free, mountPath: /a/b/c}, {name: map, mountPath: /a}, \
         {name: secret, mountPath: /s}, {name: free, mountPath: /s/free/, subPath: part}],",
        "cat /a/a.txt /s/password; echo; touch /a/b/c/x && ls /a/b/c; touch /s/free/y && ls /a/b/c/part; \
         touch /a/x /s/x 2>/dev/null || echo read-only",
    );
    kplay
        .apply_with(&format!("{DATA}{pod}"), ["--wait=complete"])
        .succeeds();
    assert_eq!(
        kplay.run(["logs", "nested"]).succeeds(),
        "text of ahunter2\npart\nx\ny\nread-only\n"
    );
}

/// What the machine mounts below a hostPath after the container's start stays the machine's.
#[test]
fn later_mounts_of_the_machine_are_not_seen() {
    use rustix::mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
    };

    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let folder = kplay.dir().join("shared");
    fs::create_dir_all(folder.join("later")).expect("a folder");
    mount_bind(&folder, &folder).expect("a mount");
    mount_change(&folder, MountPropagationFlags::SHARED).expect("a shared mount");
    let pod = script_pod(
        "private",
        &format!(
            "terminationGracePeriodSeconds: 0, volumes: [{{name: v, hostPath: {{path: {}}}}}],",
            folder.display()
        ),
        "volumeMounts: [{name: v, mountPath: /v}],",
        "sleep 1000",
    );
    let run = kplay.apply(&pod);
    let later = folder.join("later");
    mount("tmpfs", &later, "tmpfs", MountFlags::empty(), None).expect("a mount");
    fs::write(later.join("file"), "of the machine").expect("a file");
    let seen = kplay.run(["exec", "private", "--", "ls", "/v/later"]);
    // Before anything can fail: a mount that stays would be found in other tests.
    unmount(&later, UnmountFlags::DETACH).expect("unmounted");
    unmount(&folder, UnmountFlags::DETACH).expect("unmounted");
    run.succeeds();
    assert_eq!(seen.succeeds(), "");
}

#[test]
fn mounts_on_what_is_the_runtimes_own() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let devices = || {
        let entries = fs::read_dir("/dev").expect("a folder").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let before = devices();
    let refused = |host_path: &str, mount_path: &str, words: &[&str]| {
        let pod = script_pod(
            "own",
            &format!("volumes: [{{name: v, hostPath: {{path: {host_path}}}}}],"),
            &format!("volumeMounts: [{{name: v, mountPath: {mount_path}}}],"),
            "true",
        );
        kplay.apply(&pod).fails(1, words);
        kplay.assert_nothing_left();
    };
    refused("/dev", "/dev", &["cannot mount a volume on `/dev`"]);
    refused("/proc", "/proc", &["inside `/proc`"]);
    refused("/tmp", "/proc/sys/kernel", &["inside `/proc`"]);
    assert_eq!(devices(), before);
    let log = kplay.script_in(
        "volumes: [{name: v, emptyDir: {}}, {name: host, hostPath: {path: /dev}}],",
        "volumeMounts: [{name: v, mountPath: /dev/shm}, {name: v, mountPath: /dev/foo}, \
         {name: host, mountPath: /host/dev}], terminationMessagePath: /dev/message,",
        "touch /dev/shm/x; ls /dev/foo; echo m > /dev/message; [ -c /host/dev/null ] && echo null",
    );
    assert_eq!(log, "x\nnull\n");
    assert_eq!(devices(), before);
}

#[test]
fn containers_share_a_volume_and_sub_paths_of_it() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "shared",
        "volumes: [{name: v, emptyDir: {}}], initContainers: [{name: writer, image: 'localhost/busybox:1', \
         volumeMounts: [{name: v, mountPath: /all}], command: [sh, -c, 'mkdir /all/in; echo deep > /all/in/file; \
         ln -s /etc /all/escape']}],",
        "volumeMounts: [{name: v, mountPath: /v, readOnly: true}, {name: v, mountPath: v2, subPath: in}, \
         {name: v, mountPath: /v3, subPath: made/new}],",
        "cat /v/in/file /v2/file; touch /v/x 2>/dev/null || echo read-only; touch /v3/y; ls /v/made/new",
    );
    kplay.apply_with(&pod, ["--wait=complete"]).succeeds();
    assert_eq!(
        kplay.run(["logs", "shared"]).succeeds(),
        "deep\ndeep\nread-only\ny\n"
    );
}

#[test]
fn a_sub_path_does_not_leave_its_volume() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let secret = kplay.file("outside/secret", "not for the pod");
    let outside = secret.parent().expect("a folder");
    let volume = kplay.dir().join("volume");
    fs::create_dir(&volume).expect("a folder");
    std::os::unix::fs::symlink(outside, volume.join("escape")).expect("a link");
    let pod = script_pod(
        "escape",
        &format!(
            "volumes: [{{name: v, hostPath: {{path: {}}}}}],",
            volume.display()
        ),
        "volumeMounts: [{name: v, mountPath: /v, subPath: escape}],",
        "cat /v/secret",
    );
    let run = kplay.apply_with(&pod, ["--wait=complete"]);
    assert_ne!(run.code, Some(0), "{run}");
    let log = kplay.run(["logs", "escape"]);
    assert!(!log.stdout.contains("not for the pod"), "{log}");
}

/// Somebody who can write to the volume exchanges the part and a link to the outside all the time.
#[test]
fn a_sub_path_that_is_swapped_does_not_leave_its_volume() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::sync::atomic::{AtomicBool, Ordering};

    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.file("outside/marker", "outside");
    kplay.file("volume/part/marker", "inside");
    let volume = kplay.dir().join("volume");
    let (part, link) = (volume.join("part"), volume.join("link"));
    std::os::unix::fs::symlink(kplay.dir().join("outside"), &link).expect("a link");
    let pod = script_pod(
        "swapped",
        &format!(
            "volumes: [{{name: v, hostPath: {{path: {}}}}}],",
            volume.display()
        ),
        "volumeMounts: [{name: v, mountPath: /v, subPath: part}],",
        "cat /v/marker",
    );
    let done = AtomicBool::new(false);
    let logs: Vec<String> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &part, CWD, &link, RenameFlags::EXCHANGE).expect("a swap");
            }
        });
        // Finding the link is refused, so about half of the pods do not start.
        let mut logs = Vec::new();
        for _ in 0..16 {
            if kplay.apply_with(&pod, ["--wait=complete"]).code == Some(0) {
                logs.push(kplay.run(["logs", "swapped"]).stdout);
                let deleted = kplay.run(["delete", "pod", "swapped"]);
                assert_eq!(deleted.code, Some(0), "{deleted}");
            }
        }
        done.store(true, Ordering::Relaxed);
        logs
    });
    assert!(!logs.is_empty());
    assert!(logs.iter().all(|log| log == "inside"), "{logs:?}");
}

#[test]
fn config_maps_and_secrets_are_files_that_change_at_once() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let check = |volume: &str, pod: &str, script: &str, expected: &str| {
        assert_eq!(seen(&kplay, volume, pod, "", script), expected, "{volume}");
    };
    let content = "cd /v; for f in *; do echo $f $(readlink $f) $(stat -L -c '%a %u:%g' $f) $(od -An -tx1 -N 3 $f); done";
    check(
        "configMap: {name: map}",
        "",
        content,
        "a.txt ..data/a.txt 644 0:0 74 65 78\nb.txt ..data/b.txt 644 0:0 74 65 78\nraw ..data/raw 644 0:0 00 01 02\n",
    );
    check(
        "configMap: {name: map, defaultMode: 0400, items: [{key: a.txt, path: sub/first}, {key: b.txt, path: second, mode: 0640}]}",
        "",
        "cd /v; ls; cat sub/first second; stat -L -c %a sub/first second; readlink ..data | cut -c 1-4",
        "second\nsub\ntext of atext of b400\n640\n..20\n",
    );
    check(
        "configMap: {name: absent, optional: true}",
        "",
        "ls /v | wc -l",
        "0\n",
    );
    check(
        "configMap: {name: map, optional: true, items: [{key: absent, path: x}, {key: a.txt, path: present}]}",
        "",
        "ls /v",
        "present\n",
    );
    check(
        "secret: {secretName: secret}",
        "",
        "cat /v/password; echo; grep ' /v ' /proc/mounts | cut -d ' ' -f 3; grep ' /v ' /proc/mounts | grep -o ' ro,'; \
         touch /v/x 2>/dev/null || echo read-only",
        "hunter2\ntmpfs\n ro,\nread-only\n",
    );
    check(
        "secret: {secretName: secret, defaultMode: 0400}",
        "securityContext: {runAsUser: 1000, fsGroup: 4000},",
        "cat /v/password; echo; stat -L -c '%a %g' /v/password",
        "hunter2\n440 4000\n",
    );
}

#[test]
fn projected_volumes_and_the_downward_api() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let volume = "projected: {defaultMode: 0444, sources: [{configMap: {name: map, items: [{key: a.txt, path: a}]}}, \
                  {secret: {name: secret}}, {downwardAPI: {items: [\
                  {path: name, fieldRef: {fieldPath: metadata.name}}, \
                  {path: labels, fieldRef: {fieldPath: metadata.labels}}, \
                  {path: limit, resourceFieldRef: {containerName: main, resource: limits.memory, divisor: 1Mi}}]}}]}";
    let pod = script_pod(
        "volume, labels: {b: two, a: one}",
        &format!("volumes: [{{name: v, {volume}}}],"),
        "resources: {limits: {memory: 64Mi}}, volumeMounts: [{name: v, mountPath: /v}],",
        "cd /v; for f in a password name labels limit; do echo \"$f=\"; cat $f; echo; done; stat -L -c %a name",
    );
    let run = kplay.apply_with(&format!("{DATA}{pod}"), ["--wait=complete"]);
    run.succeeds();
    assert_eq!(
        kplay.run(["logs", "volume"]).succeeds(),
        "a=\ntext of a\npassword=\nhunter2\nname=\nvolume\nlabels=\na=\"one\"\nb=\"two\"\nlimit=\n64\n444\n"
    );
}

#[test]
fn what_each_kind_of_files_may_say() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let modes = "cd /v; for f in *; do echo $f $(stat -L -c '%a %u:%g' $f) $(cat $f); done";
    let check = |volume: &str, expected: &str| {
        assert_eq!(seen(&kplay, volume, "", "", modes), expected, "{volume}");
    };
    check(
        "secret: {secretName: secret, defaultMode: 0444, items: [{key: password, path: word}]}",
        "word 444 0:0 hunter2\n",
    );
    check(
        "secret: {secretName: secret, items: [{key: password, path: word, mode: 0400}, {key: none, path: x}], optional: true}",
        "word 400 0:0 hunter2\n",
    );
    check(
        "downwardAPI: {defaultMode: 0440, items: [{path: name, fieldRef: {fieldPath: metadata.name}}, \
         {path: none, mode: 0400, fieldRef: {fieldPath: \"metadata.labels['none']\"}}, \
         {path: request, resourceFieldRef: {containerName: main, resource: requests.cpu, divisor: 1m}}]}",
        "name 440 0:0 volume\nnone 400 0:0\nrequest 440 0:0 0\n",
    );
    check(
        "projected: {defaultMode: 0640, sources: [\
         {secret: {name: secret}}, \
         {secret: {name: absent, optional: true}}, {configMap: {name: absent, optional: true}}, \
         {configMap: {name: map, items: [{key: a.txt, path: password, mode: 0400}, {key: b.txt, path: b}]}}, \
         {secret: {name: secret, items: [{key: none, path: x}], optional: true}}]}",
        // Of two files at the same path the later one counts, with its mode.
        "b 640 0:0 text of b\npassword 400 0:0 text of a\n",
    );
}

#[test]
fn labels_and_annotations_are_lines_of_quoted_values() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "told, labels: {b: two, a: one}, annotations: {z: \"x \\\"y\\\"\\n\u{200b}\", a/b: 'it''s'}",
        "volumes: [{name: v, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, \
         {path: annotations, fieldRef: {fieldPath: metadata.annotations}}]}}],",
        "volumeMounts: [{name: v, mountPath: /v}],",
        "cat /v/labels; echo '|'; cat /v/annotations; echo '|'; grep ' /v ' /proc/mounts | cut -d ' ' -f 3",
    );
    kplay.apply_with(&pod, ["--wait=complete"]).succeeds();
    assert_eq!(
        kplay.run(["logs", "told"]).succeeds(),
        "a=\"one\"\nb=\"two\"|\na/b=\"it's\"\nz=\"x \\\"y\\\"\\n\\u200b\"|\ntmpfs\n"
    );
}

#[test]
fn what_is_in_memory_is_not_swapped_out() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let options = |volume: &str| {
        let script = "grep ' /v ' /proc/mounts | cut -d ' ' -f 3,4 | tr ',' ' '";
        seen(&kplay, volume, "", "", script)
    };
    let is_known = {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a version");
        let mut numbers = release
            .split(['.', '-'])
            .map_while(|part| part.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(6), Some(4))
    };
    for volume in ["emptyDir: {medium: Memory}", "secret: {secretName: secret}"] {
        let options = options(volume);
        let mut words = options.split_whitespace();
        assert_eq!(words.next(), Some("tmpfs"), "{volume}");
        assert_eq!(words.any(|word| word == "noswap"), is_known, "{options}");
    }
    assert!(!options("configMap: {name: map}").contains("noswap"));
}

#[test]
fn an_empty_dir_of_huge_pages() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let check = |medium: &str, limit: &str, size: &str| {
        let log = seen(
            &kplay,
            &format!("emptyDir: {{medium: {medium}}}"),
            "",
            &format!("resources: {{limits: {{memory: 32Mi, {limit}}}}},"),
            "grep ' /v ' /proc/mounts | cut -d ' ' -f 3,4; stat -c %a /v",
        );
        assert!(log.starts_with("hugetlbfs "), "{log}");
        assert!(log.contains(&format!("pagesize={size}")), "{log}");
        assert!(log.ends_with("\n777\n"), "{log}");
    };
    check("HugePages", "hugepages-2Mi: 2Mi", "2M");
    check(
        "HugePages-1Gi",
        "hugepages-2Mi: 2Mi, hugepages-1Gi: 1Gi",
        "1024M",
    );
}

#[test]
fn host_paths_and_their_types() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let dir = kplay.dir().join("host");
    kplay.file("host/file", "of the host");
    let path = |name: &str| dir.join(name).display().to_string();
    let accepted = |name: &str, kind: &str, script: &str, expected: &str| {
        let volume = format!("hostPath: {{path: {}, type: '{kind}'}}", path(name));
        assert_eq!(
            seen(&kplay, &volume, "", "", script),
            expected,
            "{name} {kind}"
        );
    };
    accepted(
        "",
        "Directory",
        "cat /v/file; touch /v/from-the-pod",
        "of the host",
    );
    assert!(dir.join("from-the-pod").exists());
    accepted("file", "File", "cat /v", "of the host");
    accepted(
        "made",
        "DirectoryOrCreate",
        "stat -c '%F %a' /v",
        "directory 755\n",
    );
    accepted("unset", "", "stat -c '%F %a' /v", "directory 755\n");
    accepted(
        "made-file",
        "FileOrCreate",
        "stat -c '%F %a' /v",
        "regular empty file 644\n",
    );
    let meta = fs::metadata(dir.join("made-file")).expect("it was made");
    assert_eq!((meta.permissions().mode() & 0o777, meta.uid()), (0o644, 0));
    let refused = |name: &str, kind: &str| {
        let pod = script_pod(
            "refused",
            &format!(
                "volumes: [{{name: v, hostPath: {{path: {}, type: {kind}}}}}],",
                path(name)
            ),
            "volumeMounts: [{name: v, mountPath: /v}],",
            "true",
        );
        kplay
            .apply(&pod)
            .fails(4, &["hostPath type check failed", &path(name)]);
        assert_eq!(
            kplay
                .run(["get", "pods", "-o", "name", "-l", "none=none"])
                .succeeds(),
            ""
        );
    };
    refused("file", "Directory");
    refused("absent", "Directory");
    refused("made", "File");
    refused("absent", "File");
    refused("file", "Socket");
    refused("file", "CharDevice");
    refused("file", "BlockDevice");
    assert!(!dir.join("absent").exists());
}

#[test]
fn a_pod_without_its_volume_that_is_left_says_why() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let folder = kplay.dir().join("late");
    let pod = script_pod(
        "late",
        &format!("volumes: [{{name: v, hostPath: {{path: {folder:?}, type: Directory}}}}],"),
        "volumeMounts: [{name: v, mountPath: /v}],",
        "sleep 1000",
    );
    kplay
        .apply_with(&pod, ["--no-rollback"])
        .fails(4, &["FailedMount", "hostPath type check failed"]);
    let status = &kplay.pod("late")["status"];
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&"Failed".into(), &"ExecutorDied".into())
    );
    let message = text(&status["message"]);
    assert!(
        message.starts_with("the pod could not be set up: FailedMount: "),
        "{message}"
    );
    assert!(message.ends_with("late is not a directory"), "{message}");
    let events = kplay.run(["events", "--for", "late"]).succeeds();
    assert!(events.contains("FailedMount"), "{events}");
    kplay.file("late/file", "");
    kplay.apply(&pod).succeeds();
    assert_eq!(kplay.phase("late"), "Running");
}

#[test]
fn a_relative_host_path_is_relative_to_its_manifest() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.file("project/data/file", "beside the manifest");
    let pod = script_pod(
        "relative",
        "volumes: [{name: v, hostPath: {path: ./data}}],",
        "volumeMounts: [{name: v, mountPath: /v}],",
        "cat /v/file",
    );
    let file = kplay.file("project/pod.yaml", pod);
    kplay
        .run([
            "apply".as_ref(),
            "--wait=complete".as_ref(),
            file.as_os_str(),
        ])
        .succeeds();
    assert_eq!(
        kplay.run(["logs", "relative"]).succeeds(),
        "beside the manifest"
    );
}

#[test]
fn a_deleted_pod_takes_its_empty_dirs_along_and_leaves_host_paths() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let host = kplay.dir().join("kept");
    let pod = script_pod(
        "writer",
        &format!(
            "volumes: [{{name: e, emptyDir: {{}}}}, {{name: h, hostPath: {{path: {}, type: DirectoryOrCreate}}}}],",
            host.display()
        ),
        "volumeMounts: [{name: e, mountPath: /e}, {name: h, mountPath: /h}],",
        "echo x > /e/x; echo y > /h/y",
    );
    kplay.apply_with(&pod, ["--wait=complete"]).succeeds();
    kplay.run(["delete", "pod", "writer"]).succeeds();
    kplay.assert_nothing_left();
    assert_eq!(fs::read_to_string(host.join("y")).expect("it stays"), "y\n");
}

#[test]
fn a_part_that_is_no_key_is_an_empty_folder_and_a_warning() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let manifest = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: conf}}\ndata: {{key: x}}\n---\n{}",
        script_pod(
            "part",
            "volumes: [{name: v, configMap: {name: conf}}],",
            "volumeMounts: [{name: v, mountPath: /key, subPath: kye}],",
            "test -d /key && ls /key | wc -l",
        )
    );
    let run = kplay.apply_with(&manifest, ["--wait=complete"]);
    let words = "the volume `v` has no file `kye`";
    assert!(run.stderr.contains(words), "{run}");
    run.succeeds();
    assert_eq!(kplay.run(["logs", "part"]).succeeds(), "0\n");
}
