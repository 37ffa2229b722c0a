//! Plans for the tests of every layer: nothing is asked for that is not set.

use std::collections::BTreeMap;

use super::names::{ContainerName, Namespace, ObjectKey, PodName};
use super::plan::{
    ContainerPlan, ContainerRole, ContainerSecurity, Dns, Hooks, PodPlan, PodSecurity, Probes,
    PullPolicy, ResizePolicy, Resources, RestartPolicy, Restarts, TerminationMessagePolicy,
};
use super::reference::Reference;

/// A container of the embedded image.
pub(crate) fn container(name: &str, role: ContainerRole) -> ContainerPlan {
    ContainerPlan {
        name: ContainerName::parse(name).expect("a valid name"),
        role,
        image: "kplay.local/toolbox".into(),
        reference: Reference::parse("kplay.local/toolbox").expect("a valid reference"),
        pull_policy: PullPolicy::IfNotPresent,
        command: None,
        args: None,
        working_dir: None,
        env: Vec::new(),
        ports: Vec::new(),
        mounts: Vec::new(),
        devices: Vec::new(),
        resources: Resources::default(),
        huge_pages: std::collections::BTreeMap::new(),
        resize_policy: ResizePolicy::default(),
        security: ContainerSecurity::default(),
        probes: Probes::default(),
        termination_message_path: "/dev/termination-log".into(),
        termination_message_policy: TerminationMessagePolicy::File,
        restarts: Restarts::default(),
        hooks: Hooks::default(),
        stop_signal: None,
        stdin: false,
        stdin_once: false,
        tty: false,
    }
}

/// A pod that asked for itself, with one main container `main`.
pub(crate) fn plan(name: &str) -> PodPlan {
    PodPlan {
        namespace: Namespace::default(),
        name: PodName::parse(name).expect("a valid name"),
        owner: ObjectKey {
            kind: "Pod".into(),
            group: String::new(),
            namespace: Namespace::default(),
            name: name.into(),
        },
        runs_to_completion: false,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        manifest: serde_json::Value::Null,
        hostname: name.into(),
        domain: None,
        hostname_as_fqdn: false,
        service_account: "default".into(),
        service_links: true,
        huge_pages: std::collections::BTreeMap::new(),
        restart_policy: RestartPolicy::Always,
        termination_grace_period: 30,
        active_deadline: None,
        backoff_limit: None,
        host_network: false,
        host_pid: false,
        host_ipc: false,
        own_users: false,
        share_process_namespace: false,
        security: PodSecurity::default(),
        resources: None,
        dns: Dns::default(),
        host_aliases: Vec::new(),
        volumes: Vec::new(),
        init_containers: Vec::new(),
        containers: vec![container("main", ContainerRole::Main)],
    }
}
