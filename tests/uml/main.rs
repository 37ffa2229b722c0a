//! cgroup v2 and AppArmor, on whatever machine: the built binary under user-mode Linux.
//!
//! `boot.sh` boots it, `checks.sh` plays pods in it and prints what it finds, and [`FACTS`] is what it should find. One
//! boot serves all that can be checked in it: that, and every process in it, is slow. Without root, or where the kernel's package is not to be had,
//! the test says "skipped", which is a failure in CI.
//!
//! `suite.sh` runs the root tests in it, as root and as a user: those whose matter is cgroups or ids
//! ([`OF_ROOT`], [`OF_USERS`]), with `KPLAY_TEST_UML=probes,services` those of these modules, and with `KPLAY_TEST_UML=all`
//! all, which takes many times as long. As root it runs the unit tests of cgroups, too.
#![expect(clippy::print_stderr, reason = "what libtest shows of a failed test")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What `boot.sh` exits with where it cannot boot.
const UNAVAILABLE: i32 = 77;

/// Longest that everything may take, in seconds; on an idle machine it takes up to three minutes.
const TIMEOUT: &str = "900";

/// Modules of the root tests that root runs every time, and what of others is about devices, or about who
/// else is root.
const OF_ROOT: &[&str] = &[
    "claims::a_block",
    "containers",
    "resources",
    "rootless::root_of_a_user_namespace_plays_pods_as_well",
    "user",
];

/// Modules of the root tests that a user runs every time.
const OF_USERS: &[&str] = &["resources", "rootless", "user"];

/// Longest that these may take, in seconds; on an idle machine they take about two minutes.
const TIMEOUT_OF_SUITE: &str = "1200";

/// Longest that all of them may take, in seconds.
const TIMEOUT_OF_ALL: &str = "7200";

/// What `checks.sh` must find, in its order.
const FACTS: &[(&str, &str)] = &[
    // ROOT is a small tmpfs, which cannot have mapped ids.
    (
        "doctor",
        "0, limited idmapped mounts limited nftables limited space",
    ),
    ("doctor on cgroups", "version 2 with cpu, io, memory, pids"),
    ("left by the doctor", "0"),
    ("top", "limited/half 1 1 1 limited/one 1 1 2"),
    ("at most a half", "yes"),
    ("limits", "pod/limited created pod/unlimited created"),
    // A guaranteed pod is right below all, one that asks for nothing in a class that weighs nearly nothing.
    ("classes", ". besteffort"),
    ("besteffort cpu.weight", "1"),
    ("all cpu.weight", "100"),
    ("all memory.max", "max"),
    // As a kubelet leaves them unless the node is told otherwise.
    ("limited memory.min", "0"),
    ("limited memory.low", "0"),
    ("limited memory.high", "max"),
    ("limited/half memory.min", "0"),
    ("limited/half memory.low", "0"),
    ("limited/half memory.high", "max"),
    // 1.5 processors: the sum of the containers', weighed as a kubelet weighs pods.
    ("limited cpu.weight", "59"),
    ("limited cpu.max", "150000 100000"),
    ("limited memory.max", "100663296"),
    ("limited memory.swap.max", "0"),
    ("limited memory.oom.group", "0"),
    ("limited pids.max", "max"),
    // It has children with limits, so it must have no processes.
    ("limited cgroup.procs", ""),
    ("limited cgroup.subtree_control", "cpu io memory pids"),
    // As runc weighs containers: one processor is 100.
    ("limited/half cpu.weight", "59"),
    ("limited/half cpu.max", "50000 100000"),
    ("limited/half memory.max", "67108864"),
    ("limited/half memory.swap.max", "0"),
    ("limited/half memory.oom.group", "1"),
    ("limited/half pids.max", "max"),
    ("limited/one cpu.weight", "100"),
    ("limited/one cpu.max", "100000 100000"),
    ("limited/one memory.max", "33554432"),
    ("limited/one memory.swap.max", "0"),
    ("limited/one memory.oom.group", "1"),
    ("limited/one pids.max", "max"),
    ("limited/pause cpu.weight", "1"),
    ("unlimited cpu.weight", "1"),
    ("unlimited cpu.max", "max 100000"),
    ("unlimited memory.max", "max"),
    ("unlimited memory.swap.max", "max"),
    ("unlimited memory.oom.group", "0"),
    ("unlimited pids.max", "max"),
    ("unlimited/only cpu.weight", "1"),
    ("unlimited/only cpu.max", "max 100000"),
    ("unlimited/only memory.max", "max"),
    // As a kubelet that says nothing of swap.
    ("unlimited/only memory.swap.max", "0"),
    ("unlimited/only memory.oom.group", "1"),
    ("unlimited/only pids.max", "max"),
    ("kplay's own processes", ""),
    // Where they were started: what a pod may use does not count for its executor.
    ("executors", "0::/user.slice/session.scope"),
    // A container sees its own cgroup as the root, and cannot change it.
    ("own cgroup", "0::/"),
    (
        "own mount",
        "/ /sys/fs/cgroup ro nosuid nodev noexec relatime cgroup2 cgroup2",
    ),
    ("own limit", "67108864"),
    (
        "a new cgroup",
        "mkdir: can't create directory '/sys/fs/cgroup/new': Read-only file system (1)",
    ),
    (
        "a new limit",
        "sh: can't create /sys/fs/cgroup/memory.max: Read-only file system (1)",
    ),
    ("write /dev/null", ""),
    ("read /dev/urandom", "8"),
    ("make a block device", ""),
    (
        "open a block device",
        "cat: can't open '/disk': Operation not permitted (1)",
    ),
    ("make /dev/kmsg", ""),
    ("open /dev/kmsg", "head: /kmsg: Operation not permitted (1)"),
    ("make another null", ""),
    ("write another null", ""),
    ("open as privileged", "1"),
    // `apply --wait=complete` fails, and the whole container died, the shell too.
    (
        "out of memory",
        "apply exits with 1, the container with 137, OOMKilled",
    ),
    ("log of the killed", ""),
    ("alive without executors", "/busybox sleep 1000"),
    (
        "delete without executors",
        "pod \"limited\" deleted pod \"unlimited\" deleted",
    ),
    ("cgroups left after killed", "0"),
    ("processes left after killed", "none"),
    ("whole", "pod/whole created"),
    ("burstable cpu.weight", "20"),
    ("burstable cpu.max", "max 100000"),
    ("burstable memory.max", "max"),
    ("burstable pids.max", "max"),
    ("second", "pod/second created"),
    ("burstable with second cpu.weight", "40"),
    ("burstable without second cpu.weight", "20"),
    ("whole cpu.weight", "20"),
    ("whole cpu.max", "200000 100000"),
    ("whole memory.max", "100663296"),
    ("whole memory.swap.max", "0"),
    ("whole memory.oom.group", "0"),
    ("whole/free cpu.max", "200000 100000"),
    ("whole/free memory.max", "100663296"),
    ("whole/free memory.swap.max", "0"),
    ("whole/free memory.oom.group", "1"),
    ("whole/held cpu.max", "40000 100000"),
    ("whole/held memory.max", "33554432"),
    ("whole/held memory.swap.max", "0"),
    ("more", "pod/whole configured"),
    ("more whole cpu.max", "300000 100000"),
    ("more whole memory.max", "134217728"),
    ("more whole memory.swap.max", "0"),
    ("more burstable cpu.weight", "39"),
    ("more whole/free cpu.max", "300000 100000"),
    ("more whole/free memory.max", "134217728"),
    ("more whole/free memory.swap.max", "0"),
    ("more whole/held cpu.max", "60000 100000"),
    ("more whole/held memory.max", "67108864"),
    ("more whole/held memory.swap.max", "0"),
    ("less", "pod/whole configured"),
    ("less whole cpu.max", "200000 100000"),
    ("less whole memory.max", "100663296"),
    ("less whole memory.swap.max", "0"),
    ("less whole/held cpu.max", "40000 100000"),
    ("less whole/held memory.max", "33554432"),
    ("less whole/held memory.swap.max", "0"),
    ("the same pod", "yes, restarts 0 0"),
    (
        "network",
        "service/web created pod/web created pod/client created",
    ),
    // No masquerading, and no addresses for Services.
    ("network limits", "2"),
    ("forwarding", "1"),
    // The resolver is at port 53 itself, where nothing can lead there.
    ("by udp", "1"),
    ("by tcp", "1"),
    ("pod to pod", ""),
    ("machine to pod", ""),
    (
        "host network",
        "service/addressed created pod/guest created",
    ),
    ("host network limits", "has no nftables for IP"),
    ("bridges left", "0"),
    ("cgroups left after network", "0"),
    ("processes left after network", "none"),
    ("users", "pod/mapped created"),
    ("who it is", "uid=0 gid=0 groups=0"),
    ("ids", "0 1879048192 65536"),
    ("a file of its own", ""),
    // The mount maps the ids, not the file system.
    ("on disk", "0"),
    ("cgroups left after users", "0"),
    ("processes left after users", "none"),
    // Whoever comes into a container later is confined as it is; kplay has no profile of its own for the others.
    ("load a profile", ""),
    ("app armor", "pod/armored created"),
    ("profile of confined", "kplay-uml (enforce)"),
    ("profile of what runs in confined", "kplay-uml (enforce)"),
    ("profile of beside", "kplay-uml (enforce)"),
    ("profile of what runs in beside", "kplay-uml (enforce)"),
    ("profile of privileged", "kplay-uml (enforce)"),
    ("profile of what runs in privileged", "kplay-uml (enforce)"),
    ("profile of open", "unconfined"),
    ("profile of what runs in open", "unconfined"),
    ("profile of default", "unconfined"),
    ("profile of what runs in default", "unconfined"),
    ("a file of the confined", ""),
    (
        "a forbidden file of the confined",
        "toolbox: cannot open \"/space/secret\": Permission denied (os error 13) (1)",
    ),
    ("a forbidden file of the open", ""),
    (
        "a profile that is not there",
        "CreateContainerError: apparmor profile not found kplay-none",
    ),
    ("cgroups left after app armor", "0"),
    ("processes left after app armor", "none"),
    ("hello", "configmap/hello created pod/hello created"),
    ("page", "hello from hello"),
    ("log", "tick 1"),
    ("exec", "HOSTNAME=hello"),
    (
        "delete hello",
        "pod \"hello\" deleted configmap \"hello\" deleted",
    ),
    ("cgroups left after hello", "0"),
    ("processes left after hello", "none"),
    ("controllers of a container", "memory pids"),
    (
        "no limits there",
        "configmap/hello created pod/hello created",
    ),
    ("exec there", "text"),
    ("processes there", "0, moved"),
    ("limits there", "pod/limited created"),
    ("limited there memory.max", "67108864"),
    ("limited there pids.max", "max"),
    // Nobody gives it the controller `cpu`.
    (
        "other limits there",
        "this machine has no cgroup controller `cpu`, which the limit `cpu_period_us` needs",
    ),
    ("cgroups left after refused", "0"),
    ("processes left after refused", "none"),
];

/// The same where systemd is the first process.
const FACTS_UNDER_SYSTEMD: &[(&str, &str)] = &[
    (
        "from a terminal",
        "pod/limited created pod/limited created pod/unlimited created",
    ),
    (
        "executors from a terminal",
        "0::/kplay-pods.scope/_executor",
    ),
    ("end of the terminal", ""),
    ("scope", "-.slice yes infinity"),
    ("another unit", ""),
    ("reload", ""),
    ("another systemd", ""),
    ("limited cpu.max", "150000 100000"),
    ("limited memory.max", "100663296"),
    ("limited cgroup.subtree_control", "cpu io memory pids"),
    ("top", "2"),
    ("whole", "pod/whole created"),
    (
        "executors",
        "3 0::/kplay-pods.scope/_executor 1 0::/system.slice/job.service",
    ),
    // One stands in for the executor that stays with its service.
    ("who keeps it", "4"),
    (
        "delete",
        "pod \"limited\" force deleted pod \"unlimited\" force deleted pod \"whole\" force deleted",
    ),
    ("delete other", "pod \"limited\" force deleted"),
    ("scope left", "0, inactive"),
    ("again", "pod/limited created pod/unlimited created"),
    (
        "delete again",
        "pod \"limited\" deleted pod \"unlimited\" deleted",
    ),
    ("scope left again", "0"),
    ("cgroups left after delete", "0"),
    ("processes left after delete", "none"),
];

/// Pods of a unit.
const FACTS_OF_A_SERVICE: &[(&str, &str)] = &[
    ("start", ""),
    ("ready", "true"),
    ("status", "1 of 1 pods are ready"),
    ("executor", "0::/system.slice/web.service"),
    ("again", "active, Running"),
    ("another pod", "yes"),
    ("stop", ""),
    ("result", "inactive success"),
    ("cgroups left after service", "0"),
    ("processes left after service", "none"),
    ("start an instance", ""),
    ("instance", "Running"),
    ("stop the instance", ""),
    ("cgroups left after instance", "0"),
    ("processes left after instance", "none"),
    ("generated", "generated, ../written.service"),
    ("start the generated", ""),
    ("the generated", "Running"),
    ("stop the generated", ""),
    ("cgroups left after generated", "0"),
    ("processes left after generated", "none"),
];

/// Of a user who may divide the cgroup above the own one; first of one who may not.
const FACTS_OF_USER: &[(&str, &str)] = &[
    ("nothing given", "pod/limited created"),
    ("not enforced", "1"),
    ("end", "pod \"limited\" deleted"),
    ("cgroups left after nothing given", "0"),
    ("processes left after nothing given", "none"),
    ("given", "pod/limited created"),
    ("given, its folder", "kplay-UID"),
    ("given, pod memory.max", "67108864"),
    ("given, container memory.max", "67108864"),
    ("given, container memory.oom.group", "1"),
    ("given, own limit", "67108864"),
    ("given, counted", "1"),
    ("given, exceed it", "(137)"),
    // It has not been given the controller `cpu`.
    ("given, not enforced", "1"),
    ("given, delete", "pod \"limited\" deleted"),
    ("given, cgroups left", "0"),
    ("cgroups left after given", "0"),
    ("processes left after given", "none"),
];

/// Of a user who has systemd.
const FACTS_OF_USER_UNDER_SYSTEMD: &[(&str, &str)] = &[
    ("generated", "generated"),
    ("scope", "pod/limited created"),
    ("scope, its folder", "kplay-UID.scope"),
    ("scope, pod memory.max", "67108864"),
    ("scope, pod cpu.max", "50000 100000"),
    ("scope, container memory.max", "67108864"),
    ("scope, container cpu.max", "50000 100000"),
    ("scope, container memory.oom.group", "1"),
    ("scope, own limit", "67108864"),
    ("scope, counted", "1"),
    ("scope, exceed it", "(137)"),
    ("scope, not enforced", "0"),
    ("scope, delete", "pod \"limited\" deleted"),
    ("scope, cgroups left", "0"),
    ("cgroups left after scope", "0"),
    ("processes left after scope", "none"),
];

/// Of a user who logs out, without lingering and with it.
const FACTS_OF_LOGINS: &[(&str, &str)] = &[
    ("session", "/run/user/UID"),
    ("told", "1"),
    ("cgroups left after logout", "0"),
    ("processes left after logout", "none"),
    ("after logout", "limited 0/1 Error 0"),
    ("delete after logout", "pod \"limited\" deleted"),
    ("linger", ""),
    ("not told", "0"),
    ("lives", "1"),
    (
        "where",
        "0::/user.slice/user-UID.slice/user@UID.service/app.slice",
    ),
    ("another session", "uid=0 gid=0 groups=0"),
    ("no session", "uid=0 gid=0 groups=0"),
    ("logs from no session", ""),
    ("delete from no session", "pod \"limited\" deleted"),
    ("cgroups left after linger", "0"),
    ("processes left after linger", "none"),
    (
        "images without namespaces",
        "error: cannot make a user namespace for your pods: the kernel refuses a user namespace: the sysctl \
         `user.max_user_namespaces` allows no more error: user namespaces: cannot be made: the sysctl \
         `user.max_user_namespaces` allows none hint: sudo sysctl -w user.max_user_namespaces=15000 (4)",
    ),
    (
        "doctor without namespaces",
        "sysctl -w user.max_user_namespaces=15000",
    ),
];

/// Of jobs as CI's machines run them.
const FACTS_OF_JOBS: &[(&str, &str)] = &[
    (
        "job, doctor",
        "0, limited limits limited nftables limited way out limited ports limited space limited linger",
    ),
    ("job", "pod/limited created"),
    (
        "job, where",
        "0::/system.slice/hosted-compute-agent.service",
    ),
    ("job, not enforced", "1"),
    ("job, exec", "uid=0 gid=0 groups=0"),
    ("job, delete", "pod \"limited\" deleted"),
    ("cgroups left after job", "0"),
    ("processes left after job", "none"),
    ("sudo", "pod/limited created"),
    (
        "sudo, where",
        "0::/system.slice/hosted-compute-agent.service",
    ),
    ("sudo, container memory.max", "67108864"),
    ("sudo, container cpu.max", "50000 100000"),
    ("sudo, not enforced", "0"),
    ("sudo, exec", "uid=0 gid=0 groups=0"),
    ("sudo, delete", "pod \"limited\" deleted"),
    ("cgroups left after sudo", "0"),
    ("processes left after sudo", "none"),
    (
        "lingering job, doctor",
        "0, limited nftables limited way out limited ports limited space",
    ),
    ("lingering job", "pod/limited created"),
    (
        "lingering job, where",
        "0::/user.slice/user-UID.slice/user@UID.service/app.slice/kplay-POD.scope/_executor",
    ),
    ("lingering job, container memory.max", "67108864"),
    ("lingering job, container cpu.max", "50000 100000"),
    ("lingering job, not enforced", "0"),
    ("lingering job, exec", "uid=0 gid=0 groups=0"),
    ("lingering job, delete", "pod \"limited\" deleted"),
    ("cgroups left after lingering job", "0"),
    ("processes left after lingering job", "none"),
    ("lingering sudo", "pod/limited created"),
    (
        "lingering sudo, where",
        "0::/system.slice/hosted-compute-agent.service",
    ),
    ("lingering sudo, container memory.max", "67108864"),
    ("lingering sudo, container cpu.max", "50000 100000"),
    ("lingering sudo, not enforced", "0"),
    ("lingering sudo, exec", "uid=0 gid=0 groups=0"),
    ("lingering sudo, delete", "pod \"limited\" deleted"),
    ("cgroups left after lingering sudo", "0"),
    ("processes left after lingering sudo", "none"),
    ("root's in the user's folder", "0"),
    ("restrict", ""),
    (
        "restricted",
        "error: cannot make a user namespace for your pods: cannot open the user namespace: Permission \
         denied (os error 13) error: namespaces: cannot be made: Operation not permitted (os error 1) \
         hint: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (4)",
    ),
    (
        "restricted, doctor",
        "4, fails namespaces limited way out limited ports limited space",
    ),
    (
        "restricted, mend",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("cgroups left after restricted", "0"),
    ("processes left after restricted", "none"),
];

#[test]
fn pods_of_a_user_who_logs_out() {
    check_logins(&["logged_out"], FACTS_OF_LOGINS);
}

#[test]
fn pods_of_a_job_of_ci() {
    check_logins(&["as_runner"], FACTS_OF_JOBS);
}

#[test]
fn pods_of_a_user() {
    check(&[], &["of_user"], FACTS_OF_USER);
}

#[test]
fn pods_of_a_user_with_systemd() {
    let facts = FACTS_OF_USER_UNDER_SYSTEMD;
    check(&["--systemd"], &["of_user_under_systemd"], facts);
}

#[test]
fn pods_on_cgroup_v2() {
    check(&[], &[], FACTS);
}

#[test]
fn systemd_leaves_pods_alone() {
    check(&["--systemd"], &["under_systemd"], FACTS_UNDER_SYSTEMD);
}

#[test]
fn systemd_plays_pods() {
    check(&["--systemd"], &["as_service"], FACTS_OF_A_SERVICE);
}

/// As root, beneath a login's session.
#[test]
fn root_tests_as_root() {
    let units = built(&["--lib"], "kplay");
    let units = ["--units".as_ref(), units.as_os_str()];
    suite(&[], &units, OF_ROOT);
}

/// As a user whose limits are those of scopes of the user's systemd.
#[test]
fn root_tests_as_user() {
    let user = ["--as", "kplay-test-one"].map(OsStr::new);
    suite(&["--systemd"], &user, OF_USERS);
}

/// What takes logind.
fn check_logins(function: &[&str], facts: &[(&str, &str)]) {
    if !Path::new("/usr/bin/dbus-daemon").exists() {
        assert!(std::env::var_os("CI").is_none(), "CI has a bus");
        eprintln!("skipped: needs dbus, which logind speaks through");
        return;
    }
    check(&["--systemd"], function, facts);
}

/// Boots, runs `checks.sh`, and compares what it finds.
fn check(boot: &[&str], function: &[&str], facts: &[(&str, &str)]) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = booted(&[&["--timeout", TIMEOUT], boot].concat(), "checks.sh");
    let Some(found) = succeeds(
        command
            .arg(env!("CARGO_BIN_EXE_kplay"))
            .arg(repository)
            .args(function),
    ) else {
        return;
    };
    let faults = faults(facts, &found);
    assert!(
        faults.is_empty(),
        "{faults:#?}\nof all that was found:\n{found}"
    );
}

/// A script of this folder on a machine of its own.
fn booted(boot: &[&str], script: &str) -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/uml");
    let mut command = Command::new(here.join("boot.sh"));
    command.args(boot).arg(here.join(script));
    command
}

/// What a booted command prints; none where nothing can be booted.
fn succeeds(command: &mut Command) -> Option<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("bash is there");
    let found = String::from_utf8_lossy(&stdout).into_owned();
    let talk = String::from_utf8_lossy(&stderr);
    if status.code() == Some(UNAVAILABLE) {
        let talk = format!("{found}{talk}");
        assert!(std::env::var_os("CI").is_none(), "CI must have it: {talk}");
        eprintln!("skipped: {talk}");
        return None;
    }
    assert!(status.success(), "{status}\n{found}\n{talk}");
    Some(found)
}

/// Runs the root tests: those of these modules, unless others are asked for.
fn suite(boot: &[&str], how: &[&OsStr], modules: &[&str]) {
    let asked = std::env::var("KPLAY_TEST_UML").unwrap_or_default();
    let (timeout, modules) = match asked.as_str() {
        "" => (TIMEOUT_OF_SUITE, modules.join(",")),
        "all" => (TIMEOUT_OF_ALL, String::new()),
        // With the test that says that tests have run.
        some => (TIMEOUT_OF_ALL, format!("user,{some}")),
    };
    let modules = modules.split(',').filter(|name| !name.is_empty());
    let boot = [&["--timeout", timeout, "--memory", "3G"], boot].concat();
    let mut command = booted(&boot, "suite.sh");
    let test = |name| built(&["--test", name], name);
    command.args([test("root"), test("zz_leftovers")]).args(how);
    let one = "test user::tests_that_are_skipped_somewhere_exist ... ok";
    let filters = modules.map(|name| match name.contains("::") {
        true => name.to_owned(),
        false => format!("{name}::"),
    });
    let found = succeeds(command.args(filters));
    assert!(found.is_none_or(|found| found.contains(one)));
}

/// The program of other tests of this project. Built it is already where all tests are run.
fn built(which: &[&str], name: &str) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["test", "--no-run", "--message-format=json"])
        .args(which)
        .output()
        .expect("cargo is there");
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).expect("cargo prints JSON");
        let is_it = message["target"]["name"] == name && message["profile"]["test"] == true;
        is_it.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    programs
        .next()
        .unwrap_or_else(|| panic!("no {name} in {messages}"))
}

/// What was found and should not be, and the other way round.
fn faults(facts: &[(&str, &str)], found: &str) -> Vec<String> {
    let mut found: BTreeMap<&str, &str> = found
        .lines()
        .map(|line| line.split_once(": ").unwrap_or((line, "")))
        .map(|(name, value)| (name, value.trim_end()))
        .collect();
    let mut faults: Vec<String> = facts
        .iter()
        .filter_map(|(name, expected)| match found.remove(name) {
            Some(value) if value == *expected => None,
            other => Some(format!("{name}: {other:?} instead of {expected:?}")),
        })
        .collect();
    // A line without a name is an error of a command of the script.
    faults.extend(found.keys().map(|line| format!("besides: {line}")));
    faults
}
