//! What containers and pods may use, as their cgroups say.

use std::fs;
use std::path::Path;

use crate::Kplay;
use crate::harness::script_pod;
use crate::leftovers;

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
        "resources: {limits: {memory: 32Mi}}, env: [{name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}, \
         {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}],",
        "sleep 1000",
    )
    .replace(
        "containers: [",
        "containers: [{name: free, image: 'localhost/busybox:1', command: [sleep, '1000']}, ",
    );
    kplay.apply(&pod).succeeds();
    let recorded = kplay.pod("whole");
    assert_eq!(recorded["status"]["qosClass"], "Burstable");
    assert_eq!(
        recorded["spec"]["resources"]["requests"],
        serde_json::json!({"cpu": "500m", "memory": "32Mi"})
    );
    // A container's own limit, or else the pod's.
    let print = [
        "exec",
        "whole",
        "-c",
        "main",
        "--",
        "sh",
        "-c",
        "echo $CPU $MEMORY",
    ];
    assert_eq!(kplay.run(print).succeeds(), "2 32\n");
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

/// A pod that stays, with these resources and this policy for memory.
fn resizable(requests: &str, limits: &str, memory: &str) -> String {
    let container = format!(
        "resources: {{requests: {{{requests}}}, limits: {{{limits}}}}}, \
         resizePolicy: [{{resourceName: memory, restartPolicy: {memory}}}],"
    );
    script_pod(
        "resized",
        "terminationGracePeriodSeconds: 1,",
        &container,
        "trap exit TERM; sleep 1000 & wait",
    )
    .replace(
        "restartPolicy: Never,  terminationGracePeriodSeconds",
        "restartPolicy: Always, terminationGracePeriodSeconds",
    )
    .replace("{restartPolicy: Never,", "{restartPolicy: Always,")
}

#[test]
fn a_running_pod_is_resized() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let identity = |pod: &serde_json::Value| {
        let status = &pod["status"]["containerStatuses"][0];
        (
            pod["metadata"]["uid"].clone(),
            status["containerID"].clone(),
        )
    };
    let (cpu, memory) = ("cpu.cfs_quota_us", "memory.limit_in_bytes");
    let check = |quota: i64, bytes: i64| {
        for cgroup in [
            kplay.cgroup("cpu", "resized", "main"),
            kplay.cgroup("memory", "resized", "main"),
        ] {
            let (file, expected) = match cgroup.join(cpu).exists() {
                true => (cpu, quota),
                false => (memory, bytes),
            };
            assert_eq!(number(&cgroup, file), expected);
            assert_eq!(number(cgroup.parent().expect("the pod's"), file), expected);
        }
    };
    kplay
        .apply(&resizable(
            "cpu: 100m, memory: 16Mi",
            "cpu: 200m, memory: 32Mi",
            "NotRequired",
        ))
        .succeeds();
    let before = kplay.pod("resized");
    check(20_000, 32 * MI);

    // More of both, then less of both.
    let more = resizable(
        "cpu: 100m, memory: 16Mi",
        "cpu: 400m, memory: 64Mi",
        "NotRequired",
    );
    assert_eq!(kplay.apply(&more).succeeds(), "pod/resized configured\n");
    check(40_000, 64 * MI);
    let after = kplay.until("resized", "says what it has", |status| {
        status["containerStatuses"][0]["resources"]["limits"]["memory"] == "64Mi"
    });
    assert_eq!(identity(&before), identity(&after));
    let status = &after["status"]["containerStatuses"][0];
    assert_eq!(status["allocatedResources"]["cpu"], "100m");
    assert_eq!(status["restartCount"], 0);
    assert_eq!(
        after["spec"]["containers"][0]["resources"]["limits"]["cpu"],
        "400m"
    );
    assert_eq!(kplay.apply(&more).succeeds(), "pod/resized unchanged\n");
    let less = resizable(
        "cpu: 50m, memory: 8Mi",
        "cpu: 100m, memory: 16Mi",
        "NotRequired",
    );
    kplay.apply(&less).succeeds();
    check(10_000, 16 * MI);
    assert_eq!(identity(&before), identity(&kplay.pod("resized")));

    // Of another quality of service it is another pod.
    let guaranteed = resizable(
        "cpu: 100m, memory: 16Mi",
        "cpu: 100m, memory: 16Mi",
        "NotRequired",
    );
    kplay.apply(&guaranteed).succeeds();
    let replaced = kplay.pod("resized");
    assert_ne!(identity(&before).0, identity(&replaced).0);
    assert_eq!(replaced["status"]["qosClass"], "Guaranteed");
}

#[test]
fn a_resize_that_needs_a_restart() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay
        .apply(&resizable(
            "memory: 16Mi",
            "memory: 32Mi",
            "RestartContainer",
        ))
        .succeeds();
    let before = kplay.pod("resized");
    kplay
        .apply(&resizable(
            "memory: 16Mi",
            "memory: 64Mi",
            "RestartContainer",
        ))
        .succeeds();
    let after = kplay.until("resized", "runs again", |status| {
        let container = &status["containerStatuses"][0];
        container["restartCount"] == 1 && !container["state"]["running"].is_null()
    });
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    let cgroup = kplay.cgroup("memory", "resized", "main");
    assert_eq!(number(&cgroup, "memory.limit_in_bytes"), 64 * MI);
    let events = kplay.run(["describe", "pod", "resized"]).succeeds();
    assert!(
        events.contains("Container main resize requires restart"),
        "{events}"
    );
}

#[test]
fn a_resize_that_the_kernel_refuses() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay
        .apply(&resizable("memory: 16Mi", "memory: 64Mi", "NotRequired"))
        .succeeds();
    let before = kplay.pod("resized");
    kplay.shell(
        "resized",
        "dd if=/dev/zero of=/dev/shm/held bs=1M count=24 2>/dev/null",
    );
    let run = kplay.apply(&resizable("memory: 4Mi", "memory: 8Mi", "NotRequired"));
    assert_ne!(run.code, Some(0), "{run}");
    assert!(
        run.stderr.contains("cannot set a limit of the cgroup"),
        "{run}"
    );
    let after = kplay.pod("resized");
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(
        after["spec"]["containers"][0]["resources"]["limits"]["memory"],
        "64Mi"
    );
    let cgroup = kplay.cgroup("memory", "resized", "main");
    assert_eq!(number(&cgroup, "memory.limit_in_bytes"), 64 * MI);
}

#[test]
fn a_memory_limit_too_low_for_the_start_is_named() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let tight = "resources: {limits: {memory: 512Ki}},";
    let said = kplay
        .apply_with(&script_pod("tight", "", tight, "true"), ["--no-rollback"])
        .fails(
            1,
            &["container init was OOM-killed (memory limit too low?)"],
        );
    assert!(said.contains("524288 bytes"), "{said}");
    let pod = kplay.until_ended("tight");
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(end["reason"], "StartError", "{pod}");
    assert_eq!(end["exitCode"], 128, "{pod}");
}

/// Makes kplay believe that the machine has huge pages.
const WITH_HUGE_PAGES: &str = "for pool in /sys/kernel/mm/hugepages/*; do \
     mkdir -p pools/${pool##*/}; echo 8 > pools/${pool##*/}/nr_hugepages; done; \
     mount --bind pools /sys/kernel/mm/hugepages; exec \"$@\"";

#[test]
fn huge_pages_are_those_that_were_asked_for() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "huge",
        STAYS,
        "resources: {limits: {memory: 32Mi, hugepages-2Mi: 4Mi}},",
        "sleep 1000",
    )
    .replace(
        "containers: [",
        "containers: [{name: none, image: 'localhost/busybox:1', command: [sleep, '1000']}, ",
    );
    let file = kplay.file("huge.yaml", &pod);
    let apply = kplay.command([std::ffi::OsString::from("apply"), file.into()]);
    apply
        .through(["unshare", "--mount", "sh", "-ec", WITH_HUGE_PAGES, "sh"])
        .run()
        .succeeds();
    kplay.note_pods();
    let Some(folder) = huge_pages_of(&kplay, "huge") else {
        eprintln!("skipped: no controller of huge pages is mounted");
        return;
    };
    let limit = |cgroup: &str, size: &str| {
        let path = folder.join(cgroup).join(format!("hugetlb.{size}.max"));
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"))
    };
    let asked = format!("{}\n", 4 << 20);
    for cgroup in ["", "main-0"] {
        assert_eq!(limit(cgroup, "2MB"), asked, "{cgroup}");
        assert_eq!(limit(cgroup, "2MB.rsvd"), asked, "{cgroup}");
        assert_eq!(limit(cgroup, "1GB"), "0\n", "{cgroup}");
    }
    assert_eq!(limit("none-0", "2MB"), "0\n");
    assert_eq!(limit("none-0", "1GB.rsvd"), "0\n");
}

/// The pod's cgroup in the version 2 hierarchy, if that has the controller of huge pages.
fn huge_pages_of(kplay: &Kplay, pod: &str) -> Option<std::path::PathBuf> {
    let uid = kplay.pod(pod)["metadata"]["uid"].as_str()?.to_owned();
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let root = roots.into_iter().find(|root| {
        let controllers = fs::read_to_string(root.join("cgroup.controllers"));
        controllers.is_ok_and(|list| list.split_whitespace().any(|name| name == "hugetlb"))
    })?;
    let mut places = leftovers::places_of(&uid)
        .into_iter()
        .map(|place| root.join(place));
    places.find(|cgroup| cgroup.exists())
}
