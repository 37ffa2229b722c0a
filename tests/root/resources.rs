//! What containers and pods may use, as their cgroups say.

use std::fs;
use std::path::Path;

use crate::Kplay;
use crate::harness::script_pod;

/// A number in a cgroup's file.
#[track_caller]
fn number(cgroup: &Path, file: &str) -> i64 {
    let path = cgroup.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("no {path:?}: {e}"));
    let number = text.trim().parse();
    number.unwrap_or_else(|e| panic!("{path:?} is {text:?}: {e}"))
}

const STAYS: &str = "terminationGracePeriodSeconds: 0,";
const MI: i64 = 1 << 20;
/// What version 1 says of a cgroup without a limit.
const UNLIMITED: i64 = 0x7fff_ffff_ffff_f000;

#[test]
fn what_a_pod_has_as_a_whole() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let whole = format!(
        "{STAYS} resources: {{requests: {{cpu: 500m}}, limits: {{cpu: '2', memory: 96Mi}}}},"
    );
    let pod = script_pod(
        "whole",
        &whole,
        "resources: {limits: {memory: 32Mi}},",
        "sleep 1000",
    )
    .replace(
        "containers: [",
        "containers: [{name: free, image: 'localhost/busybox:1', command: [sleep, '1000']}, ",
    );
    kplay.apply(&pod).succeeds();
    assert_eq!(kplay.pod("whole")["status"]["qosClass"], "Burstable");
    let (free, main) = (
        kplay.cgroup("memory", "whole", "free"),
        kplay.cgroup("memory", "whole", "main"),
    );
    let limit = "memory.limit_in_bytes";
    assert_eq!(number(free.parent().expect("the pod's"), limit), 96 * MI);
    assert_eq!(
        (number(&free, limit), number(&main, limit)),
        (96 * MI, 32 * MI)
    );
    let free = kplay.cgroup("cpu", "whole", "free");
    let whole = free.parent().expect("the pod's");
    let cpu = |cgroup: &Path| {
        (
            number(cgroup, "cpu.shares"),
            number(cgroup, "cpu.cfs_quota_us"),
        )
    };
    assert_eq!(cpu(whole), (512, 200_000));
    assert_eq!(cpu(&free), (2048, 200_000));
}

#[test]
fn requests_limits_and_whom_the_kernel_kills_first() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let check = |name: &str, container: &str, qos: &str, shares: i64, quota: i64, memory: i64| {
        let score = "cat /proc/self/oom_score_adj; sleep 1000";
        kplay
            .apply(&script_pod(name, STAYS, container, score))
            .succeeds();
        assert_eq!(kplay.pod(name)["status"]["qosClass"], qos);
        let cpu = kplay.cgroup("cpu", name, "main");
        assert_eq!(number(&cpu, "cpu.shares"), shares, "{container}");
        assert_eq!(number(&cpu, "cpu.cfs_quota_us"), quota, "{container}");
        let memory_cgroup = kplay.cgroup("memory", name, "main");
        assert_eq!(
            number(&memory_cgroup, "memory.limit_in_bytes"),
            memory,
            "{container}"
        );
        // Processes are not limited.
        let pids = kplay.cgroup("pids", name, "main").join("pids.max");
        assert_eq!(fs::read_to_string(pids).expect("a limit"), "max\n");
        let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
            .expect("our own score")
            .trim()
            .parse()
            .expect("a number");
        let log = kplay.shell(name, "cat /proc/1/oom_score_adj");
        (log.trim().parse::<i32>().expect("a number"), own)
    };
    let (score, _) = check("least", "", "BestEffort", 2, -1, UNLIMITED);
    assert_eq!(score, 1000);
    let (score, _) = check(
        "some",
        "resources: {requests: {cpu: 100m, memory: 1Mi}, limits: {cpu: 250m}},",
        "Burstable",
        102,
        25_000,
        UNLIMITED,
    );
    assert_eq!(score, 999);
    let (score, own) = check(
        "most",
        "resources: {limits: {cpu: 500m, memory: 64Mi}},",
        "Guaranteed",
        512,
        50_000,
        64 * MI,
    );
    // -997, as far as this process may lower it.
    assert!(score == -997 || score == own, "{score}");
}

#[test]
fn a_pod_that_is_too_large_for_the_machine() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let large = "resources: {requests: {cpu: '1000', memory: 1Mi}},";
    let run = kplay.apply_with(&script_pod("large", "", large, "true"), ["--wait=complete"]);
    assert!(
        run.stderr
            .contains("the pod requests 1000000m of cpu, and this machine has "),
        "{run}"
    );
    run.succeeds();
}
