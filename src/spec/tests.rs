use std::collections::BTreeSet;

use super::*;
use crate::model::names::ContainerName;
use crate::model::plan::{
    ContainerRole, ContainerSecurity, PullPolicy, Resources, TerminationMessagePolicy,
};
use crate::model::reference::Reference;

fn plan() -> ContainerPlan {
    ContainerPlan {
        name: ContainerName::parse("web").expect("a valid name"),
        role: ContainerRole::Main,
        image: "web".into(),
        reference: Reference::parse("web").expect("a valid reference"),
        pull_policy: PullPolicy::Never,
        command: None,
        args: None,
        working_dir: None,
        env: Vec::new(),
        ports: Vec::new(),
        mounts: Vec::new(),
        resources: Resources::default(),
        security: ContainerSecurity::default(),
        termination_message_path: "/dev/termination-log".into(),
        termination_message_policy: TerminationMessagePolicy::File,
        stdin: false,
        stdin_once: false,
        tty: false,
    }
}

fn spec(change: impl FnOnce(&mut ContainerPlan), user: u32) -> Spec {
    let mut plan = plan();
    change(&mut plan);
    let host = HostFacts {
        capabilities: BTreeSet::from(["CHOWN".to_owned(), "SYS_ADMIN".to_owned()]),
        oom_score_floor: Some(-500),
    };
    let join = |name: &str| NamespaceChoice::Join(format!("/proc/7/ns/{name}").into());
    let bind = |destination: &str, read_only| BindMount {
        source: "/source".into(),
        destination: destination.into(),
        read_only,
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
        namespaces: Namespaces {
            network: join("net"),
            ipc: join("ipc"),
            uts: NamespaceChoice::Host,
            pid: NamespaceChoice::New,
        },
        mounts: vec![bind("/a/b", false), bind("/a", true)],
        shared_memory: Path::new("/shm"),
        oom_score_adj: -997,
        cgroup2: true,
        host: &host,
    })
    .expect("a valid specification")
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
    assert_eq!(json["process"]["rlimits"], serde_json::Value::Null);
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
    let json = serde_json::to_value(&spec).expect("serializes");
    assert_eq!(
        json["process"]["capabilities"]["bounding"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert!(!json["linux"]["namespaces"].to_string().contains("cgroup"));
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
