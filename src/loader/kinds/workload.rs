//! Controllers to the one pod that is played for them.

use std::collections::BTreeMap;

use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::super::node::{At, Value};
use super::super::object::Kind;
use super::super::report::Report;
use super::super::selector::{Operator, Requirement, Selector};

/// What a workload says about its pod.
#[derive(Debug)]
pub(in super::super) struct Workload {
    pub(super) kind: Kind,
    /// The pod's labels and annotations.
    pub(super) metadata: ObjectMeta,
    pub(super) spec: core::PodSpec,
    /// Where `metadata` and `spec` of the pod are in the document.
    pub(super) template: &'static str,
    /// Where the workload's own fields are.
    pub(super) controller: &'static str,
    pub(super) selector: Option<LabelSelector>,
    /// A StatefulSet's `serviceName`.
    pub(super) service_name: Option<String>,
    /// A StatefulSet's `volumeClaimTemplates`.
    pub(super) claims: Vec<core::PersistentVolumeClaim>,
    /// A Job's `activeDeadlineSeconds` and `backoffLimit`.
    pub(super) deadline: Option<i64>,
    pub(super) backoff_limit: Option<i32>,
    /// Whether it is a Job whose pods have an index (`completionMode: Indexed`); the one that is played has 0.
    pub(super) indexed: bool,
    /// A Job's `suspend`: it has no pods.
    pub(in super::super) suspended: bool,
    /// The number in the pod's name: a StatefulSet's `ordinals.start`.
    pub(super) ordinal: i32,
}

/// Where a pod of an indexed Job has its index, and the variable that is made from it.
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
const COMPLETION_INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

impl Workload {
    fn new(kind: Kind, template: core::PodTemplateSpec) -> Option<Self> {
        Some(Self {
            kind,
            metadata: template.metadata.unwrap_or_default(),
            spec: template.spec?,
            template: "spec.template",
            controller: "spec",
            selector: None,
            service_name: None,
            claims: Vec::new(),
            deadline: None,
            backoff_limit: None,
            indexed: false,
            suspended: false,
            ordinal: 0,
        })
    }

    /// Whether the pod's end is its purpose.
    pub(super) fn runs_to_completion(&self) -> bool {
        matches!(self.kind, Kind::Job | Kind::CronJob)
    }

    /// The pod's name for the workload's.
    pub(super) fn pod_name(&self, name: &str) -> String {
        match self.kind {
            Kind::Pod => name.to_owned(),
            _ => format!("{name}-{}", self.ordinal),
        }
    }

    /// Where the pod's `spec` is.
    pub(super) fn spec_at<'a>(&self, at: At<'a>) -> At<'a> {
        match self.template {
            "" => at.key("spec"),
            path => at.path(path).key("spec"),
        }
    }

    /// What the controller writes into the pods that it makes.
    pub(super) fn complete(&self, name: &str, spec: &mut core::PodSpec) {
        if self.kind == Kind::StatefulSet {
            spec.hostname = Some(self.pod_name(name));
            if self.service_name.is_some() {
                spec.subdomain.clone_from(&self.service_name);
            }
        }
        if self.indexed {
            spec.hostname = Some(self.pod_name(name));
            let init = spec.init_containers.iter_mut().flatten();
            init.chain(&mut spec.containers)
                .for_each(add_completion_index);
        }
    }

    /// The labels that the controller adds. The `controller-uid` is known when the workload is recorded.
    pub(super) fn added_labels(
        &self,
        name: &str,
        spec: &core::PodSpec,
    ) -> Vec<(&'static str, String)> {
        let hash = || template_hash(&self.metadata, spec);
        match self.kind {
            Kind::Deployment => vec![("pod-template-hash", hash())],
            Kind::DaemonSet => vec![
                ("controller-revision-hash", hash()),
                ("pod-template-generation", "1".to_owned()),
            ],
            Kind::StatefulSet => vec![
                ("apps.kubernetes.io/pod-index", self.ordinal.to_string()),
                ("controller-revision-hash", format!("{name}-{}", hash())),
                ("statefulset.kubernetes.io/pod-name", self.pod_name(name)),
            ],
            Kind::Job | Kind::CronJob => {
                let mut labels = vec![
                    ("batch.kubernetes.io/job-name", name.to_owned()),
                    ("job-name", name.to_owned()),
                ];
                labels.extend(self.index().map(|index| (COMPLETION_INDEX, index)));
                labels
            }
            _ => Vec::new(),
        }
    }

    /// The annotations that the controller adds.
    pub(super) fn added_annotations(&self) -> Option<(&'static str, String)> {
        Some((COMPLETION_INDEX, self.index()?))
    }

    fn index(&self) -> Option<String> {
        self.indexed.then(|| "0".to_owned())
    }
}

/// A container's own variable of that name stays.
fn add_completion_index(container: &mut core::Container) {
    let variables = container.env.get_or_insert_default();
    if variables
        .iter()
        .any(|variable| variable.name == COMPLETION_INDEX_VARIABLE)
    {
        return;
    }
    variables.push(core::EnvVar {
        name: COMPLETION_INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(core::EnvVarSource {
            field_ref: Some(core::ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
            }),
            ..core::EnvVarSource::default()
        }),
    });
}

/// A value that is the same for equal templates, in the form of Kubernetes' own: FNV-1a with 32 bits, whose digits are
/// written in letters that spell no words. Theirs is made of Go's way to print the template, and is another one.
fn template_hash(metadata: &ObjectMeta, spec: &core::PodSpec) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let json = serde_json::to_vec(&(metadata, spec)).unwrap_or_default();
    let hash = json.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    let letter = |digit: u8| char::from(LETTERS[usize::from(digit) % LETTERS.len()]);
    hash.to_string().bytes().map(letter).collect()
}

pub(super) fn pod(pod: core::Pod) -> Workload {
    Workload {
        kind: Kind::Pod,
        metadata: pod.metadata,
        spec: pod.spec.unwrap_or_default(),
        template: "",
        controller: "",
        selector: None,
        service_name: None,
        claims: Vec::new(),
        deadline: None,
        backoff_limit: None,
        indexed: false,
        suspended: false,
        ordinal: 0,
    }
}

pub(super) fn deployment(object: apps::Deployment) -> Option<Workload> {
    let spec = object.spec;
    Some(Workload {
        selector: Some(spec.selector),
        ..Workload::new(Kind::Deployment, spec.template)?
    })
}

pub(super) fn replica_set(object: apps::ReplicaSet) -> Option<Workload> {
    let spec = object.spec;
    Some(Workload {
        selector: Some(spec.selector),
        ..Workload::new(Kind::ReplicaSet, spec.template?)?
    })
}

pub(super) fn replication_controller(object: core::ReplicationController) -> Option<Workload> {
    let spec = object.spec?;
    let selector = spec.selector.map(|labels| LabelSelector {
        match_labels: Some(labels),
        ..LabelSelector::default()
    });
    Some(Workload {
        selector,
        ..Workload::new(Kind::ReplicationController, spec.template?)?
    })
}

pub(super) fn daemon_set(object: apps::DaemonSet) -> Option<Workload> {
    let spec = object.spec;
    Some(Workload {
        selector: Some(spec.selector),
        ..Workload::new(Kind::DaemonSet, spec.template)?
    })
}

pub(super) fn stateful_set(object: apps::StatefulSet) -> Option<Workload> {
    let spec = object.spec;
    Some(Workload {
        selector: Some(spec.selector),
        service_name: spec.service_name.filter(|name| !name.is_empty()),
        ordinal: spec
            .ordinals
            .and_then(|ordinals| ordinals.start)
            .unwrap_or(0),
        claims: spec.volume_claim_templates.unwrap_or_default(),
        ..Workload::new(Kind::StatefulSet, spec.template)?
    })
}

pub(super) fn job(object: batch::Job) -> Option<Workload> {
    of_job(Kind::Job, object.spec?)
}

pub(super) fn cron_job(object: batch::CronJob) -> Option<Workload> {
    Some(Workload {
        template: "spec.jobTemplate.spec.template",
        controller: "spec.jobTemplate.spec",
        ..of_job(Kind::CronJob, object.spec.job_template.spec?)?
    })
}

fn of_job(kind: Kind, spec: batch::JobSpec) -> Option<Workload> {
    Some(Workload {
        deadline: spec.active_deadline_seconds,
        backoff_limit: Some(spec.backoff_limit.unwrap_or(6)),
        indexed: spec.completion_mode.as_deref() == Some("Indexed"),
        suspended: spec.suspend == Some(true),
        ..Workload::new(kind, spec.template)?
    })
}

/// Checks the fields of the controller that are honoured.
pub(super) fn check(
    workload: &Workload,
    at: At<'_>,
    labels: &BTreeMap<String, String>,
    report: &Report,
) {
    let controller = at.path(workload.controller);
    let negative = |at: At<'_>, field: &str| {
        if at
            .field(field)
            .node
            .is_some_and(|node| matches!(node.value, Value::Int(n) if n < 0))
        {
            report.error(at.field(field), format!("`{field}` must not be negative"));
        }
    };
    negative(controller.field("ordinals"), "start");
    for field in [
        "replicas",
        "minReadySeconds",
        "activeDeadlineSeconds",
        "backoffLimit",
        "parallelism",
        "completions",
    ] {
        negative(controller, field);
    }
    let retries = controller.field("backoffLimit");
    let never = workload.spec.restart_policy.as_deref() == Some("Never");
    if never && retries.exists() && workload.backoff_limit != Some(0) {
        let message = "`backoffLimit` is ignored: with `restartPolicy: Never` each retry would be a new pod, and one pod is played";
        report.note(controller.key("backoffLimit"), message);
    }
    match workload.kind {
        Kind::Deployment | Kind::ReplicaSet | Kind::DaemonSet => {
            check_selector(workload, controller, labels, report);
        }
        Kind::StatefulSet => {
            check_selector(workload, controller, labels, report);
            check_retention(controller, report);
        }
        // Without a selector it is the template's labels, which always match if there are any.
        Kind::ReplicationController if workload.selector.is_some() || labels.is_empty() => {
            check_selector(workload, controller, labels, report);
        }
        Kind::Job => check_job(workload, controller, report),
        Kind::CronJob => {
            check_job(workload, controller, report);
            check_schedule(at, report);
        }
        _ => {}
    }
}

fn check_retention(at: At<'_>, report: &Report) {
    for field in ["whenDeleted", "whenScaled"] {
        let place = at.path("persistentVolumeClaimRetentionPolicy").field(field);
        let text = place.node.and_then(|node| node.as_str());
        if let Some(text) = text.filter(|text| !["", "Retain", "Delete"].contains(text)) {
            let message = format!("`{field}` must be `Retain` or `Delete`, is `{text}`");
            report.error(place, message);
        }
    }
}

fn check_job(workload: &Workload, at: At<'_>, report: &Report) {
    let policy = at.field("podFailurePolicy");
    if policy.exists() && workload.spec.restart_policy.as_deref() != Some("Never") {
        let hint = "set `restartPolicy: Never` in the template";
        let message = "`podFailurePolicy` needs pods that are not restarted";
        report.error_hint(at.key("podFailurePolicy"), message, hint);
    }
    if workload.suspended {
        let message = "the job has no pod as long as it is suspended";
        report.note(at.key("suspend"), message);
    }
    let mode = at.field("completionMode");
    let text = mode.node.and_then(|node| node.as_str());
    if let Some(text) = text.filter(|text| !["NonIndexed", "Indexed"].contains(text)) {
        let message = format!("`completionMode` must be `NonIndexed` or `Indexed`, is `{text}`");
        report.error(mode, message);
    } else if workload.indexed && !at.field("completions").exists() {
        let hint = "say how many pods there are to be: their indices are counted from 0";
        report.error_hint(mode, "`completionMode: Indexed` needs `completions`", hint);
    }
}

fn check_selector(
    workload: &Workload,
    at: At<'_>,
    labels: &BTreeMap<String, String>,
    report: &Report,
) {
    let selector = workload.selector.clone().unwrap_or_default();
    let has = |count: Option<usize>| count.is_some_and(|count| count > 0);
    if !has(selector.match_labels.as_ref().map(BTreeMap::len))
        && !has(selector.match_expressions.as_ref().map(Vec::len))
    {
        let hint = match workload.kind {
            Kind::ReplicationController => "add labels to `template.metadata.labels`",
            _ => "add `matchLabels` with the labels of the template",
        };
        report.error_hint(at.key("selector"), "`selector` is missing or empty", hint);
        return;
    }
    let before = report.errors();
    let requirements = requirements(selector, at.field("selector"), report);
    if report.errors() == before && !Selector::new(requirements).matches(labels) {
        let message = "`selector` does not match the labels of the pod template";
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("`{key}: {value}`"))
            .collect();
        let hint = match labels.is_empty() {
            true => "add the labels to `template.metadata.labels`".to_owned(),
            false => format!("the template has {}", labels.join(", ")),
        };
        report.error_hint(at.key("selector"), message, hint);
    }
}

/// What a selector requires, where it is sound.
pub(super) fn requirements(
    selector: LabelSelector,
    at: At<'_>,
    report: &Report,
) -> Vec<Requirement> {
    let pairs = selector.match_labels.unwrap_or_default();
    let mut requirements: Vec<Requirement> = pairs
        .into_iter()
        .map(|(key, value)| Requirement {
            key,
            operator: Operator::In(vec![value]),
        })
        .collect();
    let expressions = selector.match_expressions.unwrap_or_default();
    for (index, expression) in expressions.into_iter().enumerate() {
        let values = expression.values.unwrap_or_default();
        let operator = match (expression.operator.as_str(), values.is_empty()) {
            ("In", false) => Operator::In(values),
            ("NotIn", false) => Operator::NotIn(values),
            ("Exists", true) => Operator::Exists,
            ("DoesNotExist", true) => Operator::Missing,
            _ => {
                let message = "`operator` must be `In` or `NotIn` with `values`, or `Exists` or `DoesNotExist` without";
                let place = at.field("matchExpressions").index(index);
                report.error(place.field("operator"), message);
                continue;
            }
        };
        requirements.push(Requirement {
            key: expression.key,
            operator,
        });
    }
    requirements
}

fn check_schedule(at: At<'_>, report: &Report) {
    let schedule = at.path("spec.schedule");
    let text = schedule
        .node
        .and_then(|node| node.as_str())
        .unwrap_or_default();
    if text.trim().is_empty() {
        report.error(at.key("spec").key("schedule"), "`schedule` is missing");
    } else if !text.starts_with('@') && text.split_whitespace().count() != 5 {
        report.error_hint(
            schedule,
            format!("`{text}` is not a cron schedule"),
            "it has five fields, such as `*/5 * * * *`",
        );
    }
}
