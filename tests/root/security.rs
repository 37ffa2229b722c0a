//! What a container may not do, and what a manifest can change about it.

use std::fs;

use crate::Kplay;
use crate::harness::script_pod;

/// containerd's default capabilities.
const DEFAULT_CAPABILITIES: u64 = 0x0000_0000_a804_25fb;

/// Those that this process could hand on at all.
fn own_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("our own status");
    field(&status, "CapBnd")
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let digits = line.unwrap_or_default().trim_start_matches(':').trim();
    u64::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("{name} of {status}: {e}"))
}

#[test]
fn capabilities() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let check = |container: &str, expected: u64| {
        let status = kplay.script_in("", container, "cat /proc/self/status");
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(
                field(&status, set),
                expected & own_capabilities(),
                "{set} {container}"
            );
        }
        assert_eq!(field(&status, "CapInh"), 0, "{container}");
        assert_eq!(field(&status, "CapAmb"), 0, "{container}");
    };
    check("", DEFAULT_CAPABILITIES);
    check("securityContext: {capabilities: {drop: [ALL]}},", 0);
    check(
        "securityContext: {capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}},",
        1 << 10,
    );
    check(
        "securityContext: {capabilities: {add: [CHOWN], drop: [CHOWN]}},",
        DEFAULT_CAPABILITIES & !1,
    );
    check(
        "securityContext: {capabilities: {add: [SYS_TIME]}},",
        DEFAULT_CAPABILITIES | 1 << 25,
    );
    check("securityContext: {privileged: true},", own_capabilities());
    // Another user than root has none, also of those that were added.
    let other = "securityContext: {runAsUser: 1000, capabilities: {add: [SYS_TIME]}},";
    let status = kplay.script_in("", other, "cat /proc/self/status");
    assert_eq!(field(&status, "CapEff"), 0);
    assert_ne!(field(&status, "CapBnd"), 0);
}

#[test]
fn seccomp_and_new_privileges() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let check = |pod: &str, container: &str, expected: &str| {
        let script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -s '\\t\\n' '  '";
        assert_eq!(
            kplay.script_in(pod, container, script).trim(),
            expected,
            "{pod}{container}"
        );
    };
    check("", "", "NoNewPrivs: 0 Seccomp: 2");
    check(
        "",
        "securityContext: {allowPrivilegeEscalation: false},",
        "NoNewPrivs: 1 Seccomp: 2",
    );
    check(
        "",
        "securityContext: {privileged: true},",
        "NoNewPrivs: 0 Seccomp: 0",
    );
    check(
        "securityContext: {seccompProfile: {type: Unconfined}},",
        "",
        "NoNewPrivs: 0 Seccomp: 0",
    );
    check(
        "securityContext: {seccompProfile: {type: Unconfined}},",
        "securityContext: {seccompProfile: {type: RuntimeDefault}},",
        "NoNewPrivs: 0 Seccomp: 2",
    );
    // What the profile is for.
    assert_eq!(
        kplay.script("unshare -U true 2>/dev/null || echo refused"),
        "refused\n"
    );
}

#[test]
fn a_setuid_program_gains_nothing_without_escalation() {
    let Some(kplay) = Kplay::new() else {
        return;
    };
    let container = |name: &str, security: &str, call: &str| {
        format!(
            "{{name: {name}, image: kplay.local/toolbox, securityContext: {{{security}}}, {call}, volumeMounts: [{{name: v, mountPath: /v}}]}}"
        )
    };
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: setuid}}\nspec: {{restartPolicy: Never, volumes: [{{name: v, emptyDir: {{}}}}], \
         initContainers: [{}], containers: [{}, {}]}}\n",
        container("make", "runAsUser: 0", "args: [setuid-copy, /v/toolbox]"),
        container(
            "allowed",
            "runAsUser: 1000, runAsGroup: 1000",
            "command: [/v/toolbox, id]"
        ),
        container(
            "refused",
            "runAsUser: 1000, runAsGroup: 1000, allowPrivilegeEscalation: false",
            "command: [/v/toolbox, id]"
        ),
    );
    kplay.apply_with(&manifest, ["--wait=complete"]).succeeds();
    let log = |name: &str| kplay.run(["logs", "setuid", "-c", name]).succeeds();
    assert_eq!(log("allowed"), "uid=1000 gid=1000 groups=1000 euid=0\n");
    assert_eq!(log("refused"), "uid=1000 gid=1000 groups=1000\n");
}

#[test]
fn exec_is_as_confined_as_the_container() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "confined",
        "terminationGracePeriodSeconds: 0,",
        "workingDir: /tmp, env: [{name: SEEN, value: 'yes'}], securityContext: {runAsUser: 1000, \
         runAsGroup: 2000, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}, \
         resources: {limits: {memory: 64Mi}},",
        "sleep 1000",
    );
    kplay.apply(&pod).succeeds();
    let status = kplay.shell("confined", "cat /proc/self/status");
    for line in [
        "Seccomp:\t2",
        "NoNewPrivs:\t1",
        "Uid:\t1000\t1000\t1000\t1000",
        "Gid:\t2000\t2000\t2000\t2000",
    ] {
        assert!(status.contains(line), "no `{line}` in\n{status}");
    }
    assert_eq!(field(&status, "CapBnd"), 0);
    assert_eq!(
        kplay.shell("confined", "pwd; echo $SEEN; echo $HOSTNAME"),
        "/tmp\nyes\nconfined\n"
    );
    let init = kplay.pids("confined", "main")[0];
    let of_init = fs::read_to_string(format!("/proc/{init}/cgroup")).expect("its cgroups");
    // Seen from inside the container, the exec's process and the first one have the same cgroups.
    let same = kplay.shell(
        "confined",
        "cmp /proc/1/cgroup /proc/self/cgroup && echo same",
    );
    assert_eq!(same, "same\n", "{of_init}");
}

#[test]
fn paths_that_are_hidden_or_read_only() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let script = "cat /proc/kcore 2>/dev/null | head -c 1 | wc -c; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | grep -c .; \
                  echo 1 2>/dev/null > /proc/sys/kernel/sysrq || echo read-only; \
                  mkdir /sys/fs/x 2>/dev/null || echo read-only";
    assert_eq!(kplay.script(script), "0\n0\nread-only\nread-only\n");
    let log = kplay.script_in(
        "",
        "securityContext: {privileged: true},",
        "grep ' /sys ' /proc/mounts | cut -d ' ' -f 4 | cut -d , -f 1; [ -e /dev/kmsg ] && echo devices",
    );
    assert_eq!(log, "rw\ndevices\n");
}

#[test]
fn a_read_only_root_filesystem() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let log = kplay.script_in(
        "volumes: [{name: v, emptyDir: {}}],",
        "volumeMounts: [{name: v, mountPath: /v}], securityContext: {readOnlyRootFilesystem: true},",
        "touch /x 2>/dev/null || echo read-only; touch /v/x && echo volume is not; echo x > /dev/null && echo devices work",
    );
    assert_eq!(log, "read-only\nvolume is not\ndevices work\n");
}

#[test]
fn root_where_nobody_may_be_root() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let check = |container: &str, words: &[&str]| {
        let pod = script_pod("rootless", "", container, "id");
        kplay.apply(&pod).fails(1, words);
        kplay.assert_nothing_left();
    };
    check(
        "securityContext: {runAsNonRoot: true},",
        &[
            "rootless",
            "main",
            "container has runAsNonRoot and image will run as root",
        ],
    );
    check(
        "securityContext: {runAsNonRoot: true, runAsUser: 0},",
        &["container's runAsUser breaks non-root policy"],
    );
    let log = kplay.script_in(
        "",
        "securityContext: {runAsNonRoot: true, runAsUser: 7},",
        "id -u",
    );
    assert_eq!(log, "7\n");
    // The pod's holds for a container that says nothing itself.
    let of_pod = "securityContext: {runAsNonRoot: true},";
    kplay
        .apply(&script_pod("rootless", of_pod, "", "id"))
        .fails(
            1,
            &["container has runAsNonRoot and image will run as root"],
        );
    let own = "securityContext: {runAsNonRoot: false},";
    assert_eq!(kplay.script_in(of_pod, own, "id -u"), "0\n");
}

#[test]
fn the_devices_that_every_container_has() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let script = "for d in null zero full random urandom tty; do [ -c /dev/$d ] && echo $d; done; \
                  for l in fd stdin stdout stderr ptmx; do [ -L /dev/$l ] && echo $l; done; \
                  mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk 2>/dev/null || echo no disks";
    assert_eq!(
        kplay.script(script),
        "null\nzero\nfull\nrandom\nurandom\ntty\nfd\nstdin\nstdout\nstderr\nptmx\nno disks\n"
    );
}
