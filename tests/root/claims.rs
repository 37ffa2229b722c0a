//! PersistentVolumeClaims: named folders that outlive their pods, and paths that PersistentVolumes offer.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::Kplay;
use crate::harness::{in_ci, script_pod, text};

fn claim(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec: {{accessModes: [ReadWriteOnce], \
         resources: {{requests: {{storage: 1Gi}}}}, {more}}}\n---\n"
    )
}

/// A pod called `user` that has the claim `data` at /data.
fn user(pod: &str, mount: &str, script: &str) -> String {
    script_pod(
        "user",
        &format!("volumes: [{{name: v, persistentVolumeClaim: {{claimName: data}}}}], {pod}"),
        &format!("volumeMounts: [{{name: v, mountPath: /data, {mount}}}],"),
        script,
    )
}

/// A disk of the machine, made of a file; given back at the end.
#[derive(Debug)]
struct Disk(String);

impl Disk {
    /// `None` where the kernel has none to give.
    fn of(file: &Path) -> Option<Self> {
        let command = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output();
        let output = command.expect("losetup runs");
        if !output.status.success() {
            assert!(!in_ci(), "CI has loop devices: {output:?}");
            eprintln!("skipped: no loop device: {output:?}");
            return None;
        }
        let path = String::from_utf8(output.stdout).expect("a path");
        Some(Self(path.trim().to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["-d", &self.0]).status();
        if !detached.is_ok_and(|status| status.success()) {
            eprintln!("{} is left", self.0);
        }
    }
}

/// Runs a pod to its end and takes it away again.
#[track_caller]
fn log(kplay: &Kplay, manifest: &str) -> String {
    kplay.apply_with(manifest, ["--wait=complete"]).succeeds();
    let log = kplay.run(["logs", "user"]).succeeds();
    kplay.run(["delete", "pod", "user"]).succeeds();
    log
}

#[test]
fn a_claims_folder_outlives_its_pods_until_it_is_deleted() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let folder = kplay.root().join("volumes/default/data");
    let claim = claim("data", "");
    let write = user(
        "securityContext: {runAsUser: 1000},",
        "",
        "stat -c '%a %u %g' /data; echo kept > /data/file",
    );
    let read = user("", "", "cat /data/file 2>/dev/null || echo nothing");
    assert_eq!(log(&kplay, &format!("{claim}{write}")), "777 0 0\n");
    // The claim is recorded: a pod may name it without having it in its file.
    assert_eq!(log(&kplay, &read), "kept\n");
    let table = kplay.run(["get", "pvc"]).succeeds();
    assert!(table.contains("data"), "{table}");
    assert!(table.contains("Bound"), "{table}");

    kplay.run(["delete", "pvc", "data"]).succeeds();
    assert!(folder.join("file").exists());
    kplay
        .apply(&read)
        .fails(3, &["the PersistentVolumeClaim `data` does not exist"]);
    assert_eq!(log(&kplay, &format!("{claim}{read}")), "kept\n");

    kplay.run(["delete", "pvc", "data", "--volumes"]).succeeds();
    assert!(!folder.exists());
    assert_eq!(log(&kplay, &format!("{claim}{read}")), "nothing\n");
    // Others of the machine do not get in.
    let parent = folder.parent().expect("a folder");
    let mode = fs::metadata(parent).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
}

#[test]
fn a_claim_in_use_is_not_deleted() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = user("terminationGracePeriodSeconds: 0,", "", "sleep 1000");
    kplay
        .apply(&format!("{}{pod}", claim("data", "")))
        .succeeds();
    kplay
        .run(["delete", "pvc", "data", "--volumes"])
        .fails(4, &["in use by the pod", "kplay delete pod user"]);
    assert!(kplay.root().join("volumes/default/data").exists());
    // With its user it goes.
    kplay
        .run(["delete", "pvc/data", "pod/user", "--volumes"])
        .succeeds();
    assert!(!kplay.root().join("volumes/default/data").exists());
}

#[test]
fn what_a_failed_apply_made_is_undone() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "user",
        "volumes: [{name: v, persistentVolumeClaim: {claimName: data}}, {name: h, hostPath: {path: /no/such, type: Directory}}],",
        "volumeMounts: [{name: v, mountPath: /data}],",
        "true",
    );
    kplay
        .apply(&format!("{}{pod}", claim("data", "")))
        .fails(4, &["/no/such is not a directory"]);
    assert!(!kplay.root().join("volumes/default/data").exists());
    assert_eq!(
        kplay.run(["get", "pvc", "-o", "name"]).succeeds(),
        "",
        "the claim is not recorded"
    );
}

#[test]
fn a_read_only_claim_and_parts_named_by_variables() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let manifest = format!(
        "{}{}",
        claim("data", ""),
        script_pod(
            "user",
            "volumes: [{name: v, persistentVolumeClaim: {claimName: data}}, \
             {name: ro, persistentVolumeClaim: {claimName: data, readOnly: true}}],",
            "env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: SUB, value: of-$(POD)}], \
             volumeMounts: [{name: v, mountPath: /data, subPathExpr: logs/$(SUB)}, {name: ro, mountPath: /all}],",
            "echo x > /data/file; ls /all/logs; touch /all/y 2>/dev/null || echo read-only",
        )
    );
    assert_eq!(log(&kplay, &manifest), "of-user\nread-only\n");
    let file = kplay.root().join("volumes/default/data/logs/of-user/file");
    assert!(file.exists());

    let unset = user("", "subPathExpr: $(NONE)", "true");
    let said = kplay.apply(&unset).fails(1, &["missing value for NONE"]);
    assert!(said.contains("CreateContainerConfigError"), "{said}");
}

#[test]
fn a_group_gets_a_claims_content_once_if_that_is_the_policy() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let folder = kplay.root().join("volumes/default/data");
    let pod = |policy: &str| {
        let context = format!("fsGroup: 4000, fsGroupChangePolicy: {policy}");
        user(
            &format!("securityContext: {{{context}}},"),
            "",
            "stat -c '%a %g' /data /data/* 2>/dev/null; true",
        )
    };
    let first = format!("{}{}", claim("data", ""), pod("OnRootMismatch"));
    assert_eq!(log(&kplay, &first), "2777 4000\n");
    // Somebody else's file in a volume whose root is right.
    fs::write(folder.join("file"), "").expect("a file");
    std::os::unix::fs::chown(folder.join("file"), None, Some(7)).expect("root may");
    fs::set_permissions(folder.join("file"), fs::Permissions::from_mode(0o600)).expect("a mode");
    assert_eq!(log(&kplay, &pod("OnRootMismatch")), "2777 4000\n600 7\n");
    assert_eq!(log(&kplay, &pod("Always")), "2777 4000\n660 4000\n");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("a mode");
    std::os::unix::fs::chown(folder.join("file"), None, Some(7)).expect("root may");
    assert_eq!(
        log(&kplay, &pod("OnRootMismatch")),
        "2777 4000\n660 4000\n",
        "the root is not right"
    );
}

#[test]
fn persistent_volumes_are_paths_of_the_machine() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.file("pv/file", "of the machine");
    let volume = |source: &str| {
        format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: disk}}\nspec: {{storageClassName: manual, \
             capacity: {{storage: 5Gi}}, accessModes: [ReadWriteOnce], {source}}}\n---\n"
        )
    };
    let group = "securityContext: {fsGroup: 4000},";
    let script = "cat /data/file; stat -c ' %g' /data";
    let classed = claim("data", "storageClassName: manual");
    let pod = user(group, "", script);
    // A group is not for the machine's own files.
    let manifest = format!("{}{classed}{pod}", volume("hostPath: {path: ./pv}"));
    assert_eq!(log(&kplay, &manifest), "of the machine 0\n");
    let json = kplay.run(["get", "pvc", "data", "-o", "json"]).succeeds();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(text(&json["spec"]["volumeName"]), "disk");
    assert_eq!(text(&json["status"]["phase"]), "Bound");
    // What it has, not what it wants.
    assert_eq!(text(&json["status"]["capacity"]["storage"]), "5Gi");
    let disk = kplay.run(["get", "pv", "--no-headers"]).succeeds();
    let words: Vec<&str> = disk.split_whitespace().collect();
    assert_eq!(
        words[..7],
        [
            "disk",
            "5Gi",
            "RWO",
            "Retain",
            "Bound",
            "default/data",
            "manual"
        ]
    );
    let hint = "`kplay get persistentvolume/disk -o yaml`";
    kplay.run(["describe", "pv", "disk"]).fails(2, &[hint]);
    // What is bound stays, and applying again changes nothing.
    let again = kplay.apply_with(&manifest, ["--wait=complete"]).succeeds();
    assert!(
        again.contains("persistentvolumeclaim/data unchanged"),
        "{again}"
    );
    kplay.run(["delete", "--all", "--force"]).succeeds();

    let path = kplay.dir().join("pv");
    let affinity = "nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: \
                    [{key: kubernetes.io/hostname, operator: In, values: [node]}]}]}}";
    let local = |path: &std::path::Path| {
        volume(&format!("local: {{path: {}}}, {affinity}", path.display()))
    };
    let manifest = format!("{}{classed}{pod}", local(&path));
    assert_eq!(log(&kplay, &manifest), "of the machine 4000\n");
    assert_eq!(fs::metadata(&path).expect("it is there").gid(), 4000);
    kplay
        .run(["delete", "--all", "--force", "--volumes"])
        .succeeds();
    assert!(path.join("file").exists(), "it is the machine's");

    let missing = format!("{}{classed}{pod}", local(&kplay.dir().join("none")));
    kplay
        .apply(&missing)
        .fails(4, &["MountVolume.SetUp failed", "none\" does not exist"]);
}

#[test]
fn a_block_device_is_in_the_container_that_claims_it() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let file = kplay.file("disk.img", vec![b'x'; 1 << 20]);
    let Some(disk) = Disk::of(&file) else { return };
    // As the links in /dev/disk.
    let link = kplay.dir().join("disk");
    std::os::unix::fs::symlink(&disk.0, &link).expect("a link");
    let volume = |path: &Path| {
        format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: disk}}\nspec: {{storageClassName: manual, \
             capacity: {{storage: 5Gi}}, accessModes: [ReadWriteOnce], volumeMode: Block, local: {{path: {}}}, \
             nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: \
             [{{key: kubernetes.io/hostname, operator: In, values: [node]}}]}}]}}}}}}\n---\n",
            path.display()
        )
    };
    let claim = claim("data", "storageClassName: manual, volumeMode: Block");
    let pod = |access: &str, fields: &str, script: &str| {
        let claim = format!("persistentVolumeClaim: {{claimName: data, {access}}}");
        let volumes = format!("volumes: [{{name: v, {claim}}}],");
        script_pod("user", &volumes, fields, script)
    };
    let used = "volumeDevices: [{name: v, devicePath: /dev/xvda}],";
    let write = "[ -b /dev/xvda ] && head -c 3 /dev/xvda; echo new | dd of=/dev/xvda conv=fsync 2>/dev/null; \
                 head -c 3 /dev/xvda";
    let manifest = format!("{}{claim}{}", volume(&link), pod("", used, write));
    assert_eq!(log(&kplay, &manifest), "xxxnew");
    let there = || fs::read(&file).expect("the disk").starts_with(b"new\n");
    assert!(there(), "the file is the disk");
    let table = kplay
        .run(["get", "pvc", "-o", "wide", "--no-headers"])
        .succeeds();
    assert!(table.trim_end().ends_with("Block"), "{table}");

    // Who has it to read only, or not at all, cannot help itself.
    let number = fs::metadata(&disk.0).expect("the disk").rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let read =
        "head -c 3 /dev/block/data; (echo old > /dev/block/data) 2>/dev/null || echo ' refused'";
    let elsewhere = used.replace("/dev/xvda", "/dev/block/data");
    assert_eq!(
        log(&kplay, &pod("readOnly: true", &elsewhere, read)),
        "new refused\n"
    );
    let make =
        format!("mknod disk b {major} {minor} && head -c 3 disk 2>/dev/null || echo refused");
    assert_eq!(log(&kplay, &pod("", "", &make)), "refused\n");
    assert!(there(), "nobody has written");
    // To a privileged one all are open.
    let privileged = format!("securityContext: {{privileged: true}}, {used}");
    assert_eq!(
        log(&kplay, &pod("", &privileged, "head -c 3 /dev/xvda")),
        "new"
    );

    kplay.run(["delete", "--all", "--force"]).succeeds();
    let manifest = format!("{}{claim}{}", volume(&file), pod("", used, "true"));
    kplay.apply(&manifest).fails(4, &["is not a block device"]);
}

#[test]
fn a_stateful_set_keeps_its_claims() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let set = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: localhost/busybox:1
        command: [sh, -c, 'echo $HOSTNAME >> /data/starts; wc -l < /data/starts; sleep 1000']
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data, labels: {tier: db}}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";
    let file = kplay.dir().join("manifest.yaml");
    let delete = |flags: &[&str]| {
        let file = file.to_str().expect("a readable path");
        let args: Vec<&str> = [&["delete", file], flags].concat();
        kplay.run(args).succeeds()
    };
    let starts = |expected: &str| {
        crate::wait::holds_within(crate::wait::PATIENCE, || {
            kplay.run(["logs", "db-0"]).stdout.trim() == expected
        })
    };
    assert_eq!(kplay.apply(set).succeeds(), "statefulset.apps/db created\n");
    assert!(starts("1"));
    let claim = kplay
        .run(["get", "pvc", "data-db-0", "-o", "json"])
        .succeeds();
    let claim: Value = serde_json::from_str(&claim).expect("JSON");
    assert_eq!(claim["metadata"]["labels"]["tier"], "db");
    assert_eq!(claim["metadata"]["labels"]["app"], "db");
    delete(&[]);
    let claims = || kplay.run(["get", "pvc", "-o", "name"]).succeeds();
    assert_eq!(claims(), "persistentvolumeclaim/data-db-0\n");
    kplay.apply_with(set, ["--prune"]).succeeds();
    assert!(starts("2"), "the data is there again");
    delete(&["--volumes"]);
    assert_eq!(claims(), "");
    assert!(!kplay.root().join("volumes/default/data-db-0").exists());

    // The claims of a set that is gone already go by its file, too.
    kplay.apply(set).succeeds();
    assert!(starts("1"));
    delete(&[]);
    let down = ["down", file.to_str().expect("a readable path"), "-v"];
    kplay.run(down).succeeds();
    assert_eq!(claims(), "");
}

/// A pod `web` with the ephemeral volume `scratch` at /data.
fn ephemeral(labels: &str, script: &str) -> String {
    script_pod(
        "web",
        &format!(
            "volumes: [{{name: scratch, ephemeral: {{volumeClaimTemplate: {{metadata: {{labels: {{{labels}}}}}, spec: \
             {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}}}}}], \
             terminationGracePeriodSeconds: 0,"
        ),
        "volumeMounts: [{name: scratch, mountPath: /data}],",
        script,
    )
}

#[test]
fn an_ephemeral_volumes_claim_comes_and_goes_with_its_pod() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let folder = kplay.root().join("volumes/default/web-scratch");
    let claims = || kplay.run(["get", "pvc", "-o", "name"]).succeeds();
    let claim = || -> Value {
        let json = kplay.run(["get", "pvc", "web-scratch", "-o", "json"]);
        serde_json::from_str(&json.succeeds()).expect("JSON")
    };
    let script = "ls /data | wc -l; touch /data/file; sleep 1000";
    assert_eq!(
        kplay.apply(&ephemeral("a: b", script)).succeeds(),
        "pod/web created\n"
    );
    let (first, pod) = (claim(), kplay.pod("web"));
    assert_eq!(first["metadata"]["labels"]["a"], "b");
    let owner = &first["metadata"]["ownerReferences"][0];
    assert_eq!(owner["kind"], "Pod");
    assert_eq!(owner["uid"], pod["metadata"]["uid"]);
    assert!(pod["spec"]["volumes"][0]["ephemeral"].is_object(), "{pod}");
    let seen = |expected: &str| {
        crate::wait::holds_within(crate::wait::PATIENCE, || {
            folder.join("file").exists() && kplay.run(["logs", "web"]).stdout.trim() == expected
        })
    };
    assert!(seen("0"));

    assert_eq!(
        kplay.apply(&ephemeral("a: b", script)).succeeds(),
        "pod/web unchanged\n"
    );
    assert_eq!(claim(), first);
    kplay
        .run(["delete", "pvc", "web-scratch"])
        .fails(4, &["in use by the pod"]);
    // A pod that is replaced finds it empty.
    kplay.apply(&ephemeral("a: c", script)).succeeds();
    assert!(seen("0"));
    let second = claim();
    assert_eq!(second["metadata"]["labels"]["a"], "c");
    assert_ne!(second["metadata"]["ownerReferences"], *owner);
    // So does one that is started again after its replacement has failed.
    let host = "volumes: [{name: h, hostPath: {path: /no/such, type: Directory}}, ";
    kplay
        .apply(&ephemeral("a: d", script).replace("volumes: [", host))
        .fails(4, &["/no/such is not a directory"]);
    // Its log goes on where it was.
    assert!(seen("0\n0"));
    assert_eq!(claim(), second);

    kplay.run(["delete", "pod", "web", "--force"]).succeeds();
    assert_eq!(claims(), "");
    assert!(!folder.exists());
}

#[test]
fn a_claim_of_another_is_not_for_an_ephemeral_volume() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = ephemeral("", "true");
    let said = [
        "the PersistentVolumeClaim `web-scratch` was not created for pod `web` (pod is not owner)",
    ];
    let claim = claim("web-scratch", "");
    kplay.apply(&format!("{claim}{pod}")).fails(3, &said);
    kplay.apply(&claim).succeeds();
    kplay.apply(&pod).fails(3, &said);
}

#[test]
fn volumes_are_listed_and_removed() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let disk = "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: disk}\nspec: {capacity: {storage: 5Gi}, \
                accessModes: [ReadOnlyMany], hostPath: {path: /usr}}\n---\n";
    let pod = user("terminationGracePeriodSeconds: 0,", "", "sleep 1000");
    let manifest = format!(
        "{disk}{}{}{}{pod}",
        claim("data", ""),
        claim("idle", ""),
        claim("old", "")
    );
    kplay.apply(&manifest).succeeds();
    let folder = |name: &str| kplay.root().join("volumes/default").join(name);
    kplay.run(["delete", "pvc", "old"]).succeeds();
    assert!(folder("old").exists());

    let names = || kplay.run(["volume", "ls", "-o", "name"]).succeeds();
    assert_eq!(
        names(),
        "persistentvolume/disk\npersistentvolumeclaim/data\npersistentvolumeclaim/idle\npersistentvolumeclaim/old\n"
    );
    let table = kplay.run(["volume", "ls"]).succeeds();
    let row = |name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{table}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    let path = |name: &str| folder(name).display().to_string();
    assert_eq!(
        row("disk")[1..5],
        ["PersistentVolume", "Available", "<none>", "/usr"]
    );
    let claim = "PersistentVolumeClaim";
    assert_eq!(row("data")[1..5], [claim, "Bound", "user", &path("data")]);
    assert_eq!(
        row("old")[1..5],
        [claim, "Released", "<none>", &path("old")]
    );
    let found = kplay.run(["volume", "inspect", "data"]).succeeds();
    let found: Value = serde_json::from_str(&found).expect("JSON");
    assert_eq!(found[0]["usedBy"][0], "default/user");
    assert_eq!(found[0]["object"]["kind"], claim);

    kplay
        .run(["volume", "rm", "data"])
        .fails(4, &["in use by the pod `default/user`"]);
    // Nobody is asked who is not at a terminal.
    kplay.run(["volume", "prune"]).fails(2, &["--force"]);
    assert_eq!(
        kplay.run(["volume", "prune", "--force"]).succeeds(),
        "idle\nold\n"
    );
    assert!(folder("data").exists() && !folder("idle").exists() && !folder("old").exists());
    assert_eq!(
        kplay
            .run(["volume", "rm", "-f", "data", "pv/disk", "none"])
            .succeeds(),
        "disk\ndata\n"
    );
    assert_eq!(names(), "");
    assert!(!folder("data").exists());
    kplay.run(["get", "pod", "user"]).fails(5, &["not found"]);
}

#[test]
fn a_stateful_set_may_take_its_claims_with_it() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let set = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete}
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: localhost/busybox:1, command: [sleep, '1000']}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";
    let folder = kplay.root().join("volumes/default/data-db-0");
    kplay.apply(set).succeeds();
    assert!(folder.exists());
    // Not with the pod alone.
    kplay.run(["delete", "pod", "db-0"]).succeeds();
    assert!(folder.exists());
    kplay.run(["delete", "statefulset", "db"]).succeeds();
    assert!(!folder.exists());
    assert_eq!(kplay.run(["get", "pvc", "-o", "name"]).succeeds(), "");
}
