//! Profiles of the machine, sysctls, and whose groups count.

use crate::harness::script_pod;
use crate::{Kplay, fixtures};

const LOCALHOST: &str =
    "securityContext: {seccompProfile: {type: Localhost, localhostProfile: team/strict.json}},";

#[test]
fn a_seccomp_profile_of_the_machine() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    // In Docker's form, of which a part only counts for containers with a capability.
    kplay.file(
        "root/seccomp/team/strict.json",
        r#"{"defaultAction": "SCMP_ACT_ALLOW",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
              {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
              {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
              {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
               "excludes": {"caps": ["CAP_SYS_ADMIN"]}}]}"#,
    );
    let script = "grep ^Seccomp: /proc/self/status; mkdir /x; kill -0 1 && echo signalled; kill -USR1 1 || echo survived; \
                  hostname new; true";
    let refused = "Seccomp:\t2\nmkdir: can't create directory '/x': No space left on device\nsignalled\n\
                   sh: can't kill pid 1: Operation not permitted\nsurvived\n\
                   hostname: sethostname: Function not implemented\n";
    assert_eq!(
        kplay.script_in(LOCALHOST, "", &format!("exec 2>&1; {script}")),
        refused
    );
    let admin = "securityContext: {capabilities: {add: [sys_admin]}},";
    assert_eq!(
        kplay.script_in(LOCALHOST, admin, "hostname new; hostname"),
        "new\n"
    );
    // An exec is confined as the container is; a privileged container is not.
    let stays = format!("{LOCALHOST} terminationGracePeriodSeconds: 0,");
    kplay
        .apply(&script_pod("stays", &stays, "", "sleep 1000"))
        .succeeds();
    let run = kplay.run(["exec", "stays", "--", "mkdir", "/x"]);
    run.fails(1, &["No space left on device"]);
    let privileged = "securityContext: {privileged: true},";
    assert_eq!(
        kplay.script_in(LOCALHOST, privileged, "mkdir /x && echo made"),
        "made\n"
    );
}

#[test]
fn a_seccomp_profile_that_cannot_be_used() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let check = |words: &[&str]| {
        kplay
            .apply(&script_pod("confined", LOCALHOST, "", "true"))
            .fails(4, words);
        kplay.assert_nothing_left();
    };
    let place = kplay.dir().join("root/seccomp/team/strict.json");
    let place = place.to_str().expect("a readable path");
    check(&[
        "CreateContainerError",
        "cannot load seccomp profile \"team/strict.json\"",
        "root/seccomp\"",
        "\"/var/lib/kubelet/seccomp\"",
    ]);
    kplay.file(
        "root/seccomp/team/strict.json",
        "{\n  \"defaultAction\": \"SCMP_ACT_NO\"\n}",
    );
    check(&[place, "unknown variant `SCMP_ACT_NO`", "line 2 column 32"]);
    kplay.file(
        "root/seccomp/team/strict.json",
        r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
    );
    check(&[place, "SCMP_ACT_NOTIFY"]);
}

#[test]
fn sysctls_that_a_kubelet_refuses() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let sysctls = "securityContext: {sysctls: [{name: net.core.somaxconn, value: '77'}, {name: kernel/shm_rmid_forced, value: '1'}]},";
    let pod = script_pod(
        "tuned",
        sysctls,
        "",
        "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced",
    );
    kplay.apply(&pod).fails(
        3,
        &[
            "net.core.somaxconn",
            "SysctlForbidden",
            "--allowed-unsafe-sysctls",
        ],
    );
    kplay
        .apply_with(
            &pod,
            ["--wait=complete", "--allowed-unsafe-sysctls=net.core.*"],
        )
        .succeeds();
    assert_eq!(kplay.run(["logs", "tuned"]).succeeds(), "77\n1\n");
    kplay.run(["delete", "pod", "tuned"]).succeeds();
    // What a pod has without asking, and a value that the kernel does not take.
    let log = kplay.script(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range",
    );
    assert_eq!(log, "0\n0\t2147483647\n");
    let wrong = "securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: many}]},";
    kplay.apply(&script_pod("wrong", wrong, "", "true")).fails(
        4,
        &[
            "FailedCreatePodSandBox",
            "\"many\"",
            "/proc/sys/net/ipv4/tcp_syncookies",
            "Invalid argument",
        ],
    );
    kplay.run(["get", "pods"]).succeeds();
}

#[test]
fn groups_and_users_of_the_image() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.load(fixtures::settings_archive());
    let groups = |pod: &str, container: &str| {
        let manifest = script_pod("groups", pod, container, "id -u; id -g; id -G")
            .replace("localhost/busybox:1", "localhost/settings:1");
        kplay.apply_with(&manifest, ["--wait=complete"]).succeeds();
        let log = kplay.run(["logs", "groups"]).succeeds();
        kplay.run(["delete", "pod", "groups"]).succeeds();
        log
    };
    assert_eq!(groups("", ""), "1234\n2345\n2345 3456\n");
    let strict = "securityContext: {supplementalGroupsPolicy: Strict},";
    assert_eq!(groups(strict, ""), "1234\n2345\n2345\n");
    let more = "securityContext: {supplementalGroupsPolicy: Strict, supplementalGroups: [7000], fsGroup: 6000},";
    assert_eq!(groups(more, ""), "1234\n2345\n2345 6000 7000\n");
    let number = "securityContext: {runAsUser: 1234},";
    assert_eq!(groups("", number), "1234\n2345\n2345 3456\n");
    let unknown = "securityContext: {runAsUser: 5},";
    assert_eq!(groups("", unknown), "5\n0\n0\n");
    let group = "securityContext: {runAsGroup: 6},";
    assert_eq!(groups("", group), "1234\n6\n6 3456\n");

    let manifest = script_pod("named", "", "securityContext: {runAsNonRoot: true},", "id")
        .replace("localhost/busybox:1", "localhost/settings:1");
    let words = [
        "CreateContainerConfigError",
        "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root \
         (pod: \"named_default(",
        ")\", container: main)",
    ];
    kplay.apply(&manifest).fails(1, &words);
}

#[test]
fn an_apparmor_profile() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let profile = |fields: &str| format!("securityContext: {{appArmorProfile: {{{fields}}}}},");
    let unconfined = profile("type: Unconfined");
    assert_eq!(kplay.script_in(&unconfined, "", "echo runs"), "runs\n");
    let default = script_pod("default", "", &profile("type: RuntimeDefault"), "true");
    let run = kplay.apply_with(&default, ["--wait=complete"]);
    assert!(
        run.stderr
            .contains("kplay has no AppArmor profile of its own"),
        "{run}"
    );
    run.succeeds();
    kplay.run(["delete", "pod", "default"]).succeeds();
    let named = profile("type: Localhost, localhostProfile: kplay-has-no-such-profile");
    let run = kplay.apply(&script_pod("named", "", &named, "true"));
    if std::path::Path::new("/sys/module/apparmor").exists() {
        assert_ne!(run.code, Some(0), "{run}");
    } else {
        run.fails(
            4,
            &["AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host"],
        );
    }
    kplay.assert_nothing_left();
}
