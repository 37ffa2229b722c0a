//! Plans for tests.

use std::collections::BTreeMap;

use crate::model::names::{ContainerName, Namespace, ObjectKey, PodName};
use crate::model::plan::{
    ContainerPlan, ContainerRole, ContainerSecurity, Dns, PodPlan, PodSecurity, PullPolicy,
    Resources, RestartPolicy, TerminationMessagePolicy,
};
use crate::model::reference::Reference;

pub(super) fn container(name: &str, role: ContainerRole) -> ContainerPlan {
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
        resources: Resources::default(),
        security: ContainerSecurity::default(),
        termination_message_path: "/dev/termination-log".into(),
        termination_message_policy: TerminationMessagePolicy::File,
        stdin: false,
        stdin_once: false,
        tty: false,
    }
}

pub(super) fn plan(name: &str) -> PodPlan {
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
        restart_policy: RestartPolicy::Always,
        termination_grace_period: 30,
        active_deadline: None,
        backoff_limit: None,
        host_network: false,
        host_pid: false,
        host_ipc: false,
        share_process_namespace: false,
        security: PodSecurity::default(),
        dns: Dns::default(),
        host_aliases: Vec::new(),
        volumes: Vec::new(),
        init_containers: Vec::new(),
        containers: vec![container("main", ContainerRole::Main)],
    }
}
