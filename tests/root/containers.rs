//! What a container finds: variables, command, working directory, users, resources, files of the pod.

use std::fs;

use crate::Kplay;
use crate::fixtures;
use crate::leftovers;

#[test]
fn command_and_args_meet_entrypoint_and_cmd() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.load(fixtures::settings_archive());
    let cases = [
        ("", "entrypoint cmd"),
        ("args: [mine]", "entrypoint mine"),
        ("command: [echo]", ""),
        ("command: [echo, program], args: [mine]", "program mine"),
        // An empty list is no list.
        ("command: [], args: []", "entrypoint cmd"),
    ];
    for (fields, expected) in cases {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: rule}}\nspec: {{restartPolicy: Never, \
             containers: [{{name: main, image: 'localhost/settings:1', {fields}}}]}}\n"
        );
        kplay.apply_with(&manifest, ["--wait=complete"]).succeeds();
        let log = kplay.run(["logs", "rule"]).succeeds();
        assert_eq!(log, format!("{expected}\n"), "{fields}");
    }
}

#[test]
fn the_images_settings_hold_until_the_manifest_says_otherwise() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.load(fixtures::settings_archive());
    let check = |pod: &str, container: &str, script: &str, expected: &str| {
        let manifest = crate::harness::script_pod("settings", pod, container, script)
            .replace("localhost/busybox:1", "localhost/settings:1");
        kplay.apply_with(&manifest, ["--wait=complete"]).succeeds();
        assert_eq!(
            kplay.run(["logs", "settings"]).succeeds(),
            expected,
            "{pod} {container}"
        );
    };
    let script = "pwd; id; echo $FROM_IMAGE $BOTH $HOME";
    check(
        "",
        "",
        script,
        "/srv/work\nuid=1234(app) gid=2345(app) groups=2345(app),3456(extra)\nimage image /home/app\n",
    );
    check(
        "securityContext: {runAsUser: 0},",
        "workingDir: /made/for/it, env: [{name: BOTH, value: pod}],",
        script,
        "/made/for/it\nuid=0(root) gid=0(root) groups=0(root)\nimage pod /root\n",
    );
    // What is not there is made, and is root's. The image's variables are not the manifest's to refer to.
    check(
        "",
        "workingDir: /made/for/it, env: [{name: REFERS, value: 'to $(FROM_IMAGE)'}],",
        "id -u; pwd; stat -c '%a %u:%g' /made . ; echo \"$REFERS\"",
        "1234\n/made/for/it\n755 0:0\n755 0:0\nto $(FROM_IMAGE)\n",
    );
    check(
        "securityContext: {runAsUser: 4000, runAsGroup: 5000, fsGroup: 6000, supplementalGroups: [7000]},",
        "securityContext: {runAsUser: 4001},",
        "id -u; id -g; id -G",
        "4001\n5000\n5000 6000 7000\n",
    );
    // A uid that the image knows has the image's group, another one group 0.
    check("", "securityContext: {runAsUser: 1234},", "id -g", "2345\n");
    check("", "securityContext: {runAsUser: 4000},", "id -g", "0\n");
}

#[test]
fn memory_beyond_the_limit_kills() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = crate::harness::script_pod(
        "greedy",
        "",
        "resources: {limits: {memory: 32Mi}},",
        // tail keeps its last line in memory, and this one has no end.
        "tail /dev/zero",
    );
    kplay
        .apply_with(&pod, ["--wait=complete"])
        .fails(1, &["OOMKilled"]);
    let pod = kplay.pod("greedy");
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["exitCode"], 137, "{state}");
    assert_eq!(state["reason"], "OOMKilled", "{state}");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
}

#[test]
fn limits_are_in_the_cgroup_files() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = crate::harness::script_pod(
        "bound",
        "terminationGracePeriodSeconds: 0,",
        "resources: {requests: {cpu: 100m}, limits: {cpu: 500m, memory: 64Mi}},",
        "sleep 1000",
    );
    kplay.apply(&pod).succeeds();
    let read = |controller: &str, file: &str| {
        let path = kplay.cgroup(controller, "bound", "main").join(file);
        fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("cannot read {path:?}: {e}"))
            .trim()
            .to_owned()
    };
    if leftovers::is_v2() {
        assert_eq!(read("memory", "memory.max"), "67108864");
        assert_eq!(read("memory", "memory.oom.group"), "1");
        assert_eq!(read("cpu", "cpu.max"), "50000 100000");
        assert_eq!(read("cpu", "cpu.weight"), "17");
    } else {
        assert_eq!(read("memory", "memory.limit_in_bytes"), "67108864");
        assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(read("cpu", "cpu.cfs_period_us"), "100000");
        assert_eq!(read("cpu", "cpu.shares"), "102");
    }
}

#[test]
fn a_container_writes_to_itself_only() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let log = kplay.script("ls /written 2>/dev/null; echo x > /written; cat /written");
    assert_eq!(log, "x\n");
    assert_eq!(kplay.script("ls /written 2>/dev/null; echo none"), "none\n");
}
