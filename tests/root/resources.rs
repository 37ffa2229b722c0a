//! What containers and pods may use, as their cgroups say.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::Kplay;
use crate::harness::script_pod;
use crate::leftovers;

#[track_caller]
fn read(cgroup: &Path, file: &str) -> String {
    let path = cgroup.join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("no {path:?}: {e}"))
}

/// The number with which a cgroup's file begins; none for `max`.
#[track_caller]
fn number(cgroup: &Path, file: &str) -> Option<u64> {
    let text = read(cgroup, file);
    let word = text.split_whitespace().next().unwrap_or_default();
    let number = || {
        word.parse()
            .unwrap_or_else(|e| panic!("{file} is {text:?}: {e}"))
    };
    (word != "max" && word != "-1").then(number)
}

/// The number after a word in a cgroup's file.
#[track_caller]
fn keyed(cgroup: &Path, file: &str, key: &str) -> u64 {
    let text = read(cgroup, file);
    let mut words = text.split_whitespace();
    words.find(|word| *word == key);
    let number = words.next().and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no {key} in {file}: {text}"))
}

/// The bytes of memory that a cgroup may have, if they are limited.
#[track_caller]
fn memory(cgroup: &Path) -> Option<u64> {
    if leftovers::is_v2() {
        return number(cgroup, "memory.max");
    }
    number(cgroup, "memory.limit_in_bytes").filter(|bytes| *bytes < UNLIMITED)
}

/// The bytes of huge pages of a size that a cgroup may have, if they are limited.
#[track_caller]
fn huge_pages(cgroup: &Path, size: &str) -> Option<u64> {
    number(cgroup, &format!("hugetlb.{size}.max"))
}

/// The microseconds of each tenth of a second in which a cgroup may run, if they are limited.
#[track_caller]
fn quota(cgroup: &Path) -> Option<u64> {
    let file = if leftovers::is_v2() {
        "cpu.max"
    } else {
        "cpu.cfs_quota_us"
    };
    number(cgroup, file)
}

/// How much a cgroup weighs beside others: shares of version 1, or version 2's weight.
#[track_caller]
fn weight(cgroup: &Path) -> Option<u64> {
    let file = if leftovers::is_v2() {
        "cpu.weight"
    } else {
        "cpu.shares"
    };
    number(cgroup, file)
}

/// What it should weigh.
fn weighs(shares: u64, weight: u64) -> Option<u64> {
    Some(if leftovers::is_v2() { weight } else { shares })
}

const STAYS: &str = "terminationGracePeriodSeconds: 0,";
const MI: u64 = 1 << 20;
/// What version 1 says of a cgroup without a limit.
const UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;

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
    assert_eq!(memory(free.parent().expect("the pod's")), Some(96 * MI));
    assert_eq!(
        (memory(&free), memory(&main)),
        (Some(96 * MI), Some(32 * MI))
    );
    let free = kplay.cgroup("cpu", "whole", "free");
    let whole = free.parent().expect("the pod's");
    let cpu = |cgroup: &Path| (weight(cgroup), quota(cgroup));
    // A kubelet weighs pods, and runc containers, each in its way.
    assert_eq!(cpu(whole), (weighs(512, 20), Some(200_000)));
    assert_eq!(cpu(&free), (weighs(2048, 174), Some(200_000)));
}

#[test]
fn requests_limits_and_whom_the_kernel_kills_first() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let check = |name: &str, container: &str, qos: &str, weighs, cpu, bytes| {
        let score = "cat /proc/self/oom_score_adj; sleep 1000";
        kplay
            .apply(&script_pod(name, STAYS, container, score))
            .succeeds();
        assert_eq!(kplay.pod(name)["status"]["qosClass"], qos);
        let cgroup = kplay.cgroup("cpu", name, "main");
        assert_eq!(
            (weight(&cgroup), quota(&cgroup)),
            (weighs, cpu),
            "{container}"
        );
        let cgroup = kplay.cgroup("memory", name, "main");
        assert_eq!(memory(&cgroup), bytes, "{container}");
        let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
            .expect("our own score")
            .trim()
            .parse()
            .expect("a number");
        let log = kplay.shell(name, "cat /proc/1/oom_score_adj");
        (log.trim().parse::<i32>().expect("a number"), own)
    };
    let (score, _) = check("least", "", "BestEffort", weighs(2, 1), None, None);
    assert_eq!(score, 1000);
    let (score, _) = check(
        "some",
        "resources: {requests: {cpu: 100m, memory: 1Mi}, limits: {cpu: 250m}},",
        "Burstable",
        weighs(102, 17),
        Some(25_000),
        None,
    );
    assert_eq!(score, 999);
    let (score, own) = check(
        "most",
        "resources: {limits: {cpu: 500m, memory: 64Mi}},",
        "Guaranteed",
        weighs(512, 59),
        Some(50_000),
        Some(64 * MI),
    );
    // -997, as far as this process may lower it.
    assert!(score == -997 || score == own, "{score}");
    let pause = kplay.pids("least", "_sandbox")[0];
    let score = fs::read_to_string(format!("/proc/{pause}/oom_score_adj")).expect("its score");
    let score: i32 = score.trim().parse().expect("a number");
    assert!(score == -998 || score == own, "{score}");
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
    let check = |cpu: u64, bytes: u64| {
        let cgroup = kplay.cgroup("cpu", "resized", "main");
        assert_eq!(quota(&cgroup), Some(cpu));
        assert_eq!(quota(cgroup.parent().expect("the pod's")), Some(cpu));
        let cgroup = kplay.cgroup("memory", "resized", "main");
        assert_eq!(memory(&cgroup), Some(bytes));
        assert_eq!(memory(cgroup.parent().expect("the pod's")), Some(bytes));
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
    // Its spec is another one, and its status is about that.
    let generations = |pod: &serde_json::Value| {
        let conditions = pod["status"]["conditions"].as_array().expect("conditions");
        let mut told: Vec<u64> = conditions
            .iter()
            .chain([&pod["status"]])
            .filter_map(|what| what["observedGeneration"].as_u64())
            .collect();
        told.dedup();
        (pod["metadata"]["generation"].as_u64(), told)
    };
    assert_eq!(generations(&before), (Some(1), vec![1]));
    assert_eq!(generations(&after), (Some(2), vec![2]));
    assert_eq!(kplay.apply(&more).succeeds(), "pod/resized unchanged\n");
    let less = resizable(
        "cpu: 50m, memory: 8Mi",
        "cpu: 100m, memory: 16Mi",
        "NotRequired",
    );
    kplay.apply(&less).succeeds();
    check(10_000, 16 * MI);
    let pod = kplay.until("resized", "says what it has", |status| {
        status["observedGeneration"] == 3
    });
    assert_eq!(identity(&before), identity(&pod));
    assert_eq!(generations(&pod), (Some(3), vec![3]));

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
    assert_eq!(memory(&cgroup), Some(64 * MI));
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
    assert_eq!(memory(&cgroup), Some(64 * MI));
}

#[test]
fn a_processor_is_used_as_far_as_its_limit() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let limited = "resources: {limits: {cpu: 100m}},";
    kplay
        .apply(&script_pod("busy", STAYS, limited, "sleep 1000"))
        .succeeds();
    let cgroup = kplay.cgroup("cpu", "busy", "main");
    let used = || match leftovers::is_v2() {
        true => keyed(&cgroup, "cpu.stat", "usage_usec"),
        false => {
            let cgroup = kplay.cgroup("cpuacct", "busy", "main");
            number(&cgroup, "cpuacct.usage").expect("a number") / 1000
        }
    };
    let (start, before) = (Instant::now(), used());
    // Two processes that could use two processors.
    let busy = "timeout 3 sh -c '(while :; do :; done) & while :; do :; done'; true";
    kplay.shell("busy", busy);
    let tenth = u64::try_from(start.elapsed().as_micros()).expect("a short time") / 10;
    let used = used() - before;
    // A tenth, as far as the machine has it to give and the time goes to the loops; the kernel hands it out in pieces.
    assert!(used < tenth * 5 / 4, "{used} of {tenth}");
    assert!(used > tenth / 4, "{used} of {tenth}");
    let stopped = keyed(&cgroup, "cpu.stat", "nr_throttled");
    assert!(stopped > 0, "it wanted more");
}

/// kplay gives a pod as many processes as the machine has, as a kubelet does without `podPidsLimit`. All of them are in the
/// pod's cgroup, so that who bounds that bounds the pod.
#[test]
fn a_bound_of_processes_holds_for_all_of_a_pod() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let stay = "trap exit TERM; sleep 1000 & wait";
    for name in ["bounded", "free"] {
        kplay.apply(&script_pod(name, STAYS, "", stay)).succeeds();
    }
    let container = kplay.cgroup("pids", "bounded", "main");
    let pod = container.parent().expect("the pod's");
    for cgroup in [&container, pod] {
        assert_eq!(number(cgroup, "pids.max"), None);
    }
    fs::write(pod.join("pids.max"), "20").expect("root may");
    let bomb = "for i in $(seq 40); do sleep 1000 & done; true";
    let said = kplay.run(["exec", "bounded", "--", "sh", "-c", bomb]);
    assert!(said.stderr.contains("can't fork"), "{said}");
    // Who was refused has ended, and perhaps who waited for it.
    let current = number(pod, "pids.current").expect("a number");
    assert!((15..=20).contains(&current), "{current}");
    assert_eq!(kplay.shell("free", bomb), "");
    assert_eq!(kplay.phase("bounded"), "Running");
    kplay.run(["delete", "--all"]).succeeds();
    kplay.assert_nothing_left();
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
    let limit = |cgroup: &str, size| huge_pages(&folder.join(cgroup), size);
    for cgroup in ["", "main-0"] {
        assert_eq!(limit(cgroup, "2MB"), Some(4 * MI), "{cgroup}");
        assert_eq!(limit(cgroup, "2MB.rsvd"), Some(4 * MI), "{cgroup}");
        assert_eq!(limit(cgroup, "1GB"), Some(0), "{cgroup}");
    }
    assert_eq!(limit("none-0", "2MB"), Some(0));
    assert_eq!(limit("none-0", "1GB.rsvd"), Some(0));
}

#[test]
fn huge_pages_of_the_pod_are_for_all_of_it() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let fields = format!("{STAYS} resources: {{limits: {{memory: 64Mi, hugepages-2Mi: 8Mi}}}},");
    let own = "resources: {limits: {memory: 32Mi, hugepages-2Mi: 4Mi}},";
    let pod = script_pod("huge", &fields, own, "sleep 1000").replace(
        "containers: [",
        "containers: [{name: none, image: 'localhost/busybox:1', command: [sleep, '1000']}, ",
    );
    let too_little = pod.replace("hugepages-2Mi: 8Mi", "hugepages-2Mi: 2Mi");
    kplay.apply(&too_little).fails(
        3,
        &["the pod's limit of hugepages-2Mi is less than that of its containers together"],
    );
    let file = kplay.file("huge.yaml", &pod);
    let apply = kplay.command([std::ffi::OsString::from("apply"), file.into()]);
    apply
        .through(["unshare", "--mount", "sh", "-ec", WITH_HUGE_PAGES, "sh"])
        .run()
        .succeeds();
    kplay.note_pods();
    assert_eq!(
        kplay.pod("huge")["spec"]["resources"]["requests"]["hugepages-2Mi"],
        "8Mi"
    );
    let Some(folder) = huge_pages_of(&kplay, "huge") else {
        eprintln!("skipped: no controller of huge pages is mounted");
        return;
    };
    for (cgroup, megabytes) in [("", 8), ("main-0", 4), ("none-0", 8)] {
        let limit = huge_pages(&folder.join(cgroup), "2MB");
        assert_eq!(limit, Some(megabytes * MI), "{cgroup}");
    }
}

/// The pod's cgroup in the version 2 hierarchy, if that has the controller of huge pages.
fn huge_pages_of(kplay: &Kplay, pod: &str) -> Option<std::path::PathBuf> {
    let uid = kplay.pod(pod)["metadata"]["uid"].as_str()?.to_owned();
    let mut roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(Path::new)
        .into_iter();
    let there = roots.any(|root| {
        let controllers = fs::read_to_string(root.join("cgroup.controllers"));
        controllers.is_ok_and(|list| list.split_whitespace().any(|name| name == "hugetlb"))
    });
    there.then(|| leftovers::cgroup_of("unified", &uid))
}
