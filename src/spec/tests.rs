use std::collections::BTreeSet;

use super::*;
use crate::model::plan::{MountAccess, Propagation};

fn device(path: &str) -> HostDevice {
    HostDevice {
        path: path.into(),
        kind: DeviceKind::Block,
        major: 8,
        minor: 0,
        mode: 0o660,
        uid: 0,
        gid: 6,
    }
}

fn spec(change: impl FnOnce(&mut ContainerPlan), user: u32) -> Spec {
    mounted(change, user, &["/a/b", "/a"]).expect("a valid specification")
}

fn mounted(
    change: impl FnOnce(&mut ContainerPlan),
    user: u32,
    destinations: &[&str],
) -> Result<Spec, Error> {
    described(change, user, destinations, namespaces())
}

/// Those of a pod whose users are the machine's.
fn namespaces() -> Namespaces {
    let join = |name: &str| NamespaceChoice::Join(format!("/proc/7/ns/{name}").into());
    Namespaces {
        network: join("net"),
        ipc: join("ipc"),
        uts: NamespaceChoice::Host,
        pid: NamespaceChoice::New,
        user: NamespaceChoice::Host,
    }
}

fn described(
    change: impl FnOnce(&mut ContainerPlan),
    user: u32,
    destinations: &[&str],
    namespaces: Namespaces,
) -> Result<Spec, Error> {
    let mut plan = fixtures::container("web");
    change(&mut plan);
    let host = HostFacts {
        capabilities: BTreeSet::from(["CHOWN".to_owned(), "SYS_ADMIN".to_owned()]),
        oom_score_floor: Some(-500),
        open_files: 4096,
        masked_paths: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".into()],
        cgroup2_options: vec!["nsdelegate".into()],
        ids: None,
    };
    let bind = |destination: &&str| BindMount {
        source: "/source".into(),
        destination: destination.into(),
        access: match *destination {
            "/a" => MountAccess::ReadOnly,
            _ => MountAccess::ReadWrite,
        },
        programs: Programs::Run,
        propagation: Propagation::None,
        owners: Owners::ByNumber,
    };
    container(&ContainerInput {
        plan: &plan,
        args: vec!["/web".into()],
        env: vec!["A=1".into()],
        working_dir: Path::new("/"),
        user: ResolvedUser {
            uid: user,
            gid: 5,
            additional_gids: vec![6],
        },
        rootfs: Path::new("/rootfs"),
        namespaces,
        mounts: destinations.iter().map(bind).collect(),
        shared_memory: Path::new("/shm"),
        oom_score_adj: -997,
        sys: None,
        cgroup2: true,
        host: &host,
        devices: vec![
            device("/dev/sda"),
            device("/dev/ptmx"),
            device("/dev/shm/odd"),
        ],
    })
}

#[test]
fn a_container_is_described_as_containerd_does() {
    let spec = spec(|_| {}, 0);
    let json = serde_json::to_value(&spec).expect("serializes");
    assert_eq!(
        json["root"],
        serde_json::json!({"path": "/rootfs", "readonly": false})
    );
    assert_eq!(json["process"]["oomScoreAdj"], -500);
    assert_eq!(json["process"]["noNewPrivileges"], serde_json::Value::Null);
    assert_eq!(
        json["process"]["rlimits"],
        serde_json::json!([{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}])
    );
    assert_eq!(json["linux"]["rootfsPropagation"], "private");
    assert_eq!(json["linux"]["devices"], serde_json::Value::Null);
    let paths = |name: &str| {
        let list = json["linux"][name].as_array().expect("a list").iter();
        let mut paths: Vec<_> = list.filter_map(|path| path.as_str()).collect();
        paths.sort_unstable();
        paths.join(" ")
    };
    assert_eq!(
        paths("maskedPaths"),
        "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug \
         /proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/system/cpu/cpu0/thermal_throttle \
         /sys/devices/virtual/powercap /sys/firmware"
    );
    assert_eq!(
        paths("readonlyPaths"),
        "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"
    );
    assert_eq!(
        json["process"]["capabilities"]["effective"],
        serde_json::json!(["CAP_CHOWN"])
    );
    assert_eq!(
        json["process"]["capabilities"]["ambient"],
        serde_json::json!([])
    );
    assert_eq!(json["linux"]["resources"], serde_json::Value::Null);
    let namespaces: Vec<_> = json["linux"]["namespaces"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|ns| {
            format!(
                "{} {}",
                ns["type"].as_str().unwrap_or(""),
                ns["path"].as_str().unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(
        namespaces,
        [
            "mount -",
            "network /proc/7/ns/net",
            "ipc /proc/7/ns/ipc",
            "pid -",
            "cgroup -"
        ]
    );
    let mounts: Vec<_> = json["mounts"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|mount| mount["destination"].as_str())
        .collect();
    assert_eq!(
        mounts,
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/mqueue",
            "/sys",
            "/sys/fs/cgroup",
            "/dev/shm",
            "/a",
            "/a/b"
        ]
    );
}

#[test]
fn other_users_have_no_effective_capabilities() {
    let spec = spec(|_| {}, 1000);
    let process = process_of(&spec);
    let capabilities = process.capabilities().as_ref().expect("has capabilities");
    assert_eq!(
        capabilities
            .effective()
            .as_ref()
            .map(std::collections::HashSet::len),
        Some(0)
    );
    assert_eq!(
        capabilities
            .bounding()
            .as_ref()
            .map(std::collections::HashSet::len),
        Some(1)
    );
}

#[test]
fn a_privileged_container_sees_everything() {
    let spec = spec(|plan| plan.security.privileged = true, 0);
    let linux = spec.linux().as_ref().expect("has linux");
    assert_eq!(linux.masked_paths().as_deref(), Some(&[] as &[String]));
    assert_eq!(linux.readonly_paths().as_deref(), Some(&[] as &[String]));
    let json = serde_json::to_value(&spec).expect("serializes");
    assert_eq!(
        json["process"]["capabilities"]["bounding"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert!(!json["linux"]["namespaces"].to_string().contains("cgroup"));
    assert_eq!(
        json["linux"]["devices"],
        serde_json::json!([{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0, "fileMode": 0o660, "uid": 0, "gid": 6}])
    );
    let options = |destination: &str| {
        let mounts = spec.mounts().iter().flatten();
        let mut found = mounts.filter(|mount| mount.destination() == Path::new(destination));
        let options = found.next().and_then(|mount| mount.options().clone());
        options.unwrap_or_default().join(",")
    };
    assert_eq!(options("/sys"), "nosuid,noexec,nodev,rw");
    // What the machine's own mount has, or it would be lost there.
    assert_eq!(
        options("/sys/fs/cgroup"),
        "nosuid,noexec,nodev,relatime,rw,nsdelegate"
    );
}

#[test]
fn an_unmasked_container_sees_all_of_proc() {
    let spec = spec(|plan| plan.security.proc_mount = ProcMount::Unmasked, 0);
    let linux = spec.linux().as_ref().expect("it is set");
    for paths in [linux.masked_paths(), linux.readonly_paths()] {
        assert_eq!(paths.as_deref(), Some(&[] as &[String]));
    }
    assert_eq!(linux.devices().as_deref(), None);
}

#[test]
fn a_container_joins_the_pods_users() {
    let own = |privileged: bool, user: NamespaceChoice| {
        let mut namespaces = namespaces();
        namespaces.user = user;
        let change = |plan: &mut ContainerPlan| plan.security.privileged = privileged;
        let spec = described(change, 0, &[], namespaces).expect("it can be described");
        let json = serde_json::to_value(&spec).expect("serializes");
        let kinds = json["linux"]["namespaces"].to_string();
        let cgroups = json["mounts"].to_string().contains("nsdelegate");
        (kinds.contains("user"), kinds.contains("cgroup"), cgroups)
    };
    let join = || NamespaceChoice::Join("/proc/7/ns/user".into());
    assert_eq!(own(false, join()), (true, true, false));
    // The machine's cgroup namespace is closed to it.
    assert_eq!(own(true, join()), (true, true, false));
    assert_eq!(own(true, NamespaceChoice::Host), (false, false, true));
}

#[test]
fn escalation_is_forbidden_only_when_asked() {
    let spec = spec(
        |plan| plan.security.allow_privilege_escalation = Some(false),
        0,
    );
    assert_eq!(process_of(&spec).no_new_privileges(), Some(true));
}

#[test]
fn an_exec_is_like_the_container_with_another_command() {
    let spec = spec(|_| {}, 7);
    let process = exec_process(&spec, vec!["sh".into()], true);
    assert_eq!(process.args().as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(process.user().uid(), 7);
    assert_eq!(
        process.env().as_deref(),
        Some(&["A=1".to_owned(), "TERM=xterm".to_owned()][..])
    );
}

#[test]
fn mounts_where_none_can_be_are_refused() {
    let check = |destination: &str, expected: Option<&str>| {
        let actual = mounted(|_| {}, 0, &[destination]).err();
        assert_eq!(actual.map(|e| e.to_string()).as_deref(), expected);
    };
    let not_absolute = |path: &str| {
        format!("cannot mount on `{path}`, because it is not an absolute path without `..`")
    };
    let inside_proc =
        |path: &str| format!("cannot mount on `{path}`, because it is inside `/proc`");
    let over_dev = "cannot mount a volume on `/dev`; mount what is needed below it";
    check("/data", None);
    check("/dev/snd", None);
    check("/dev/shm", None);
    check("/proceed", None);
    check("/sys/fs/bpf", None);
    check("/dev", Some(over_dev));
    check("//dev/.", Some(over_dev));
    check("/proc", Some(&inside_proc("/proc")));
    check("/proc/sys", Some(&inside_proc("/proc/sys")));
    check("data", Some(&not_absolute("data")));
    check("/a/../proc", Some(&not_absolute("/a/../proc")));
}

#[test]
fn a_mount_takes_the_place_of_a_default_one() {
    let spec = mounted(|_| {}, 0, &["/dev/shm/", "/sys/fs/cgroup"]).expect("a valid specification");
    for destination in ["/dev/shm", "/sys/fs/cgroup"] {
        let mounts = spec.mounts().iter().flatten();
        let there = mounts.filter(|mount| mount.destination() == Path::new(destination));
        let sources: Vec<_> = there.map(|mount| mount.source().clone()).collect();
        assert_eq!(sources, [Some(PathBuf::from("/source"))], "{destination}");
    }
}
