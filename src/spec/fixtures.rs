//! Plans for tests.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::names::{ContainerName, Namespace, ObjectKey, PodName};
use crate::model::plan::{
    ContainerPlan, ContainerRole, ContainerSecurity, Dns, PodPlan, PodSecurity, PullPolicy,
    ResourceAmounts, Resources, RestartPolicy, TerminationMessagePolicy,
};
use crate::model::reference::Reference;

pub(super) fn pod(init_containers: Vec<ContainerPlan>, containers: Vec<ContainerPlan>) -> PodPlan {
    PodPlan {
        namespace: Namespace::default(),
        name: PodName::parse("web").unwrap(),
        owner: ObjectKey {
            kind: "Pod".into(),
            group: String::new(),
            namespace: Namespace::default(),
            name: "web".into(),
        },
        runs_to_completion: false,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        manifest: Value::Null,
        hostname: "web".into(),
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
        init_containers,
        containers,
    }
}

pub(super) fn container(name: &str) -> ContainerPlan {
    ContainerPlan {
        name: ContainerName::parse(name).unwrap(),
        role: ContainerRole::Main,
        image: "app".into(),
        reference: Reference::parse("app").unwrap(),
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

/// CPU in thousandths, memory in bytes; 0 is none.
pub(super) fn amounts(cpu_milli: u64, memory: u64) -> ResourceAmounts {
    ResourceAmounts {
        cpu_milli: Some(cpu_milli).filter(|amount| *amount > 0),
        memory: Some(memory).filter(|amount| *amount > 0),
        ephemeral_storage: None,
    }
}
