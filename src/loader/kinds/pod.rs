//! A workload's pod to its plan.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::decode::closest;
use super::super::node::At;
use super::super::object::{Kind, check_annotations, check_labels};
use super::super::report::Report;
use super::super::resolve::Index;
use super::super::{Options, support};
use super::workload::{self, Workload};
use super::{
    claim, container, defaults, host, pod_resources, profiles, resources, security, volume,
    volume_files,
};
use crate::model::names::{ObjectKey, PodName};
use crate::model::plan::{ContainerPlan, ContainerRole, PodPlan, RestartPolicy};

/// What a plan is made with, beside the object itself.
pub(in super::super) struct Scope<'a> {
    pub(in super::super) options: &'a Options,
    pub(in super::super) index: &'a Index,
    pub(in super::super) report: &'a Report,
    /// The object that is played.
    pub(in super::super) key: &'a ObjectKey,
}

/// What the containers of a pod share.
pub(super) struct PodScope<'a> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) spec: &'a PodSpec,
    pub(super) name: String,
    /// Names that mounts may use.
    pub(super) volumes: HashSet<&'a str>,
    /// All containers that `resourceFieldRef` may name.
    pub(super) containers: HashMap<&'a str, &'a Container>,
}

/// Makes the plan; `None` if anything is wrong, which is in the report then.
pub(in super::super) fn plan(workload: Workload, at: At<'_>, scope: &Scope<'_>) -> Option<PodPlan> {
    let report = scope.report;
    let before = report.errors();
    let template = match workload.template {
        "" => at,
        path => at.path(path),
    };
    let spec_at = workload.spec_at(at);
    support::fields(&scope.key.kind, at, report);
    let labels = workload.metadata.labels.clone().unwrap_or_default();
    workload::check(&workload, at, &labels, report);
    if workload.kind != Kind::Pod {
        check_labels(template.path("metadata.labels"), report);
        check_annotations(template.path("metadata.annotations"), report);
    }
    let mut spec = workload.spec.clone();
    set_images(&mut spec, scope);
    let added = workload.added_labels(&scope.key.name, &spec);
    workload.complete(&scope.key.name, &mut spec);
    claim::add_volumes(&mut spec, &workload, &scope.key.name);
    profiles::of_annotations(
        workload.metadata.annotations.iter().flatten(),
        &mut spec,
        template.path("metadata.annotations"),
        report,
    );
    defaults::apply(&mut spec);
    volume::resolve_paths(&mut spec, &spec_at.file.base_dir);
    let added = added
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    let labels = labels.into_iter().chain(added).collect();
    let plan = convert(&workload, spec, labels, spec_at, scope);
    plan.filter(|_| report.errors() == before)
}

fn set_images(spec: &mut PodSpec, scope: &Scope<'_>) {
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        for (name, image) in &scope.options.set_image {
            if container.name == name.as_str() {
                container.image = Some(image.clone());
            }
        }
    }
}

fn convert(
    workload: &Workload,
    spec: PodSpec,
    labels: BTreeMap<String, String>,
    at: At<'_>,
    scope: &Scope<'_>,
) -> Option<PodPlan> {
    let report = scope.report;
    check_names(&spec, at, report);
    let all_containers = spec.init_containers.iter().flatten();
    let all_containers = all_containers.chain(&spec.containers);
    let volumes = spec.volumes.iter().flatten();
    let pod = PodScope {
        scope,
        spec: &spec,
        name: workload.pod_name(&scope.key.name),
        volumes: volumes.map(|volume| volume.name.as_str()).collect(),
        containers: all_containers
            .map(|container| (container.name.as_str(), container))
            .collect(),
    };
    let restart_policy = restart_policy(workload, &spec, at, report);
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let init_containers = containers(init, at.field("initContainers"), &pod, init_role);
    let main = containers(&spec.containers, at.field("containers"), &pod, |_| {
        ContainerRole::Main
    });
    let huge_pages = resources::huge_pages_of_pod(&spec, &init_containers, &main, at, report);
    let resources = resources::of_pod(&spec, &init_containers, &main, at, report);
    if let Some(capacity) = scope.options.capacity {
        resources::check_capacity(resources, &init_containers, &main, capacity, at, report);
    }
    let volumes = volume::convert(&pod, at.field("volumes"));
    for (list, containers) in [("initContainers", init), ("containers", &spec.containers)] {
        for (index, one) in containers.iter().enumerate() {
            let at = at.field(list).index(index);
            volume_files::check_sub_paths(one, &volumes, at.field("volumeMounts"), report);
            container::check_modes(one, &volumes, at, report);
        }
    }
    let (termination_grace_period, active_deadline) = times(workload, &spec, at, report);
    let dns = host::dns(&spec, at, report);
    let host_aliases = host::aliases(&spec, at.field("hostAliases"), report);
    let allowed_sysctls = &scope.options.allowed_sysctls;
    let context_at = at.field("securityContext");
    let pod_security = security::pod(&spec, allowed_sysctls, context_at, report);
    let name = &pod.name;
    let names = host::names(&spec, at, name, scope);
    let mut annotations = workload.metadata.annotations.clone().unwrap_or_default();
    if let Some((key, value)) = workload.added_annotations() {
        annotations.insert(key.to_owned(), value);
    }
    let backoff_limit = workload
        .backoff_limit
        .and_then(|limit| limit.try_into().ok());
    let manifest = manifest(name, scope.key, &labels, &annotations, &spec)?;
    let names = names?;
    Some(PodPlan {
        namespace: scope.key.namespace.clone(),
        name: PodName::parse(name).ok()?,
        owner: scope.key.clone(),
        runs_to_completion: workload.runs_to_completion(),
        labels,
        annotations,
        manifest,
        hostname: names.hostname,
        domain: names.domain,
        hostname_as_fqdn: names.as_fqdn,
        service_account: spec.service_account_name.clone().unwrap_or_default(),
        service_links: spec.enable_service_links != Some(false),
        restart_policy: restart_policy?,
        termination_grace_period: termination_grace_period?,
        active_deadline,
        backoff_limit,
        host_network: spec.host_network == Some(true),
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        own_users: spec.host_users == Some(false),
        share_process_namespace: spec.share_process_namespace == Some(true),
        security: pod_security,
        resources,
        huge_pages,
        dns: dns?,
        host_aliases,
        volumes,
        init_containers,
        containers: main,
    })
}

/// Names are unique over all containers; there is at least one main container.
fn check_names(spec: &PodSpec, at: At<'_>, report: &Report) {
    if spec.containers.is_empty() {
        let key = if at.node.is_some() {
            at.key("containers")
        } else {
            at
        };
        report.error(key, "a pod must have at least one container");
    }
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        let message = "`hostPID` and `shareProcessNamespace` exclude each other";
        report.error(at.key("shareProcessNamespace"), message);
    }
    for (field, host) in [
        ("hostNetwork", spec.host_network),
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
    ] {
        if spec.host_users == Some(false) && host == Some(true) {
            report.error(
                at.key(field),
                format!("`{field}` does not go with `hostUsers: false`"),
            );
        }
    }
    let mut places: HashMap<&str, usize> = HashMap::new();
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (list, containers) in [("initContainers", init), ("containers", &spec.containers)] {
        for (index, container) in containers.iter().enumerate() {
            let place = at.field(list).index(index).field("name");
            let name = container.name.as_str();
            if let Some(line) = places
                .insert(name, place.place().line)
                .filter(|_| !name.is_empty())
            {
                report.error(
                    place,
                    format!("the container name `{name}` is already used in line {line}"),
                );
            }
        }
    }
}

fn init_role(container: &Container) -> ContainerRole {
    match container.restart_policy.as_deref() {
        Some("Always") => ContainerRole::Sidecar,
        _ => ContainerRole::Init,
    }
}

fn containers(
    containers: &[Container],
    at: At<'_>,
    pod: &PodScope<'_>,
    role: impl Fn(&Container) -> ContainerRole,
) -> Vec<ContainerPlan> {
    let all = containers.iter().enumerate();
    all.filter_map(|(index, one)| container::convert(one, at.index(index), role(one), pod))
        .collect()
}

fn restart_policy(
    workload: &Workload,
    spec: &PodSpec,
    at: At<'_>,
    report: &Report,
) -> Option<RestartPolicy> {
    let text = spec.restart_policy.as_deref().unwrap_or_default();
    let (kind, allowed): (_, &[&str]) = match workload.kind {
        Kind::Pod => ("a Pod", &["Always", "OnFailure", "Never"]),
        Kind::Job | Kind::CronJob => ("a Job", &["OnFailure", "Never"]),
        _ => ("this kind of workload", &["Always"]),
    };
    let place = at.field("restartPolicy");
    let policy = one_of(
        text,
        &[
            ("Always", RestartPolicy::Always),
            ("OnFailure", RestartPolicy::OnFailure),
            ("Never", RestartPolicy::Never),
        ],
    );
    if !allowed.contains(&text) {
        let written = if place.exists() {
            format!("is `{text}`")
        } else {
            "is missing, and the default is `Always`".to_owned()
        };
        let list: Vec<String> = allowed.iter().map(|value| format!("`{value}`")).collect();
        let message = format!(
            "`restartPolicy` of {kind} must be {}; it {written}",
            list.join(" or ")
        );
        report.error(place, message);
        return None;
    }
    policy
}

/// The variant that a text names.
pub(super) fn one_of<T: Copy>(text: &str, values: &[(&str, T)]) -> Option<T> {
    values
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
}

/// The variant that a text names, or a fault that says which there are.
pub(super) fn choice<T: Copy>(
    text: &str,
    values: &[(&str, T)],
    field: &str,
    at: At<'_>,
    report: &Report,
) -> Option<T> {
    let found = one_of(text, values);
    if found.is_none() {
        let names: Vec<&str> = values
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| !name.is_empty())
            .collect();
        let list: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let message = format!("`{field}` must be one of {}, is `{text}`", list.join(", "));
        match closest(text, &names) {
            Some(name) => report.error_hint(at, message, format!("did you mean `{name}`?")),
            None => report.error(at, message),
        }
    }
    found
}

/// The grace period and the deadline, in seconds.
fn times(
    workload: &Workload,
    spec: &PodSpec,
    at: At<'_>,
    report: &Report,
) -> (Option<u32>, Option<u64>) {
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    let grace = u32::try_from(grace).ok();
    if grace.is_none() {
        let message = "`terminationGracePeriodSeconds` must be between 0 and 4294967295";
        report.error(at.field("terminationGracePeriodSeconds"), message);
    }
    if spec
        .active_deadline_seconds
        .is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds))
    {
        let message = "`activeDeadlineSeconds` must be between 1 and 2147483647";
        report.error(at.field("activeDeadlineSeconds"), message);
    }
    let deadlines = [spec.active_deadline_seconds, workload.deadline]
        .into_iter()
        .flatten();
    (
        grace,
        deadlines
            .filter_map(|seconds| u64::try_from(seconds).ok())
            .min(),
    )
}

fn manifest(
    name: &str,
    key: &ObjectKey,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
) -> Option<serde_json::Value> {
    let some = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
    let mut spec = spec.clone();
    pod_resources::normalize(&mut spec);
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(key.namespace.as_str().to_owned()),
            labels: some(labels),
            annotations: some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    };
    serde_json::to_value(pod).ok()
}

/// Writes the plan's ports back into its manifest, after ports were published from outside.
pub(in super::super) fn write_ports(plan: &mut PodPlan) {
    for (index, container) in plan.containers.iter().enumerate() {
        if container.ports.is_empty() {
            continue;
        }
        let Some(serde_json::Value::Object(json)) = plan
            .manifest
            .pointer_mut(&format!("/spec/containers/{index}"))
        else {
            continue;
        };
        let ports = container.ports.iter().map(super::ports::to_json).collect();
        json.insert("ports".to_owned(), serde_json::Value::Array(ports));
    }
}
