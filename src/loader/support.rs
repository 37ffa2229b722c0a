//! Which fields are not honoured, as a table: nothing is dropped in silence.
//!
//! What is in neither table is honoured, checked, or has no meaning at run time (names, labels).

use super::node::{At, Node, Value};
use super::object::Kind;
use super::report::Report;
use crate::model::diagnostic::{Diagnostic, Severity};

/// What is told about a field that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// "`field` is ignored: why".
    Ignored,
    /// "`field` is not supported yet: why"; nothing is played.
    Refused,
}

/// When a field counts as set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// It has a value; an empty list or mapping is none.
    Set,
    /// It is this.
    Is(&'static str),
    /// It is anything but this.
    Not(&'static str),
}

use Verdict::{Ignored, Refused};
use When::{Is, Not, Set};

/// One row: the field's path (`[]` is every item), when it counts, what is told, and why.
pub(super) type Row = (&'static str, When, Verdict, &'static str);

const SCHEDULING: &str = "there is one machine and nothing to schedule";
const NO_CLUSTER: &str = "there is no API server";
const ONE_POD: &str = "one pod is played";
const NO_CONTROLLER: &str = "no controller watches the pod";
const PROBES: &str = "probes are not run yet";
const HOOKS: &str = "hooks are not run yet";
const ONCE: &str = "the job is played once, now";

/// Below a pod's `spec`.
pub(super) const POD: &[Row] = &[
    ("affinity", Set, Ignored, SCHEDULING),
    (
        "automountServiceAccountToken",
        Is("true"),
        Ignored,
        NO_CLUSTER,
    ),
    (
        "ephemeralContainers",
        Set,
        Ignored,
        "they are added to running pods only",
    ),
    ("evictionResponders", Set, Ignored, SCHEDULING),
    (
        "hostUsers",
        Is("false"),
        Ignored,
        "user namespaces are not supported yet",
    ),
    (
        "imagePullSecrets",
        Set,
        Ignored,
        "credentials come from the machine's own files",
    ),
    ("nodeName", Set, Ignored, SCHEDULING),
    ("nodeSelector", Set, Ignored, SCHEDULING),
    (
        "os.name",
        Not("linux"),
        Refused,
        "kplay runs Linux containers",
    ),
    ("overhead", Set, Ignored, SCHEDULING),
    ("preemptionPolicy", Set, Ignored, SCHEDULING),
    ("priority", Set, Ignored, SCHEDULING),
    ("priorityClassName", Set, Ignored, SCHEDULING),
    (
        "readinessGates",
        Set,
        Ignored,
        "nothing sets their conditions",
    ),
    ("resourceClaims", Set, Refused, "devices are not allocated"),
    ("resources", Set, Ignored, "only containers have limits yet"),
    ("runtimeClassName", Set, Ignored, "there is one runtime"),
    (
        "schedulerName",
        Not("default-scheduler"),
        Ignored,
        SCHEDULING,
    ),
    ("schedulingGates", Set, Ignored, SCHEDULING),
    ("schedulingGroup", Set, Ignored, SCHEDULING),
    (
        "securityContext.appArmorProfile",
        Set,
        Ignored,
        "AppArmor profiles are not applied yet",
    ),
    (
        "securityContext.fsGroupChangePolicy",
        Not("Always"),
        Ignored,
        "it matters for claims only",
    ),
    (
        "securityContext.seLinuxChangePolicy",
        Set,
        Ignored,
        "SELinux labels are not set yet",
    ),
    (
        "securityContext.seLinuxOptions",
        Set,
        Ignored,
        "SELinux labels are not set yet",
    ),
    (
        "securityContext.seccompProfile.type",
        Is("Localhost"),
        Refused,
        "profiles of the machine are not read",
    ),
    (
        "securityContext.supplementalGroupsPolicy",
        Not("Merge"),
        Ignored,
        "the image's groups are always added",
    ),
    (
        "securityContext.windowsOptions",
        Set,
        Refused,
        "kplay runs Linux containers",
    ),
    ("serviceAccount", Not("default"), Ignored, NO_CLUSTER),
    ("serviceAccountName", Not("default"), Ignored, NO_CLUSTER),
    (
        "setHostnameAsFQDN",
        Is("true"),
        Ignored,
        "the host name is the short one",
    ),
    (
        "subdomain",
        Set,
        Ignored,
        "names in the cluster's domain are not resolved yet",
    ),
    ("tolerations", Set, Ignored, SCHEDULING),
    ("topologySpreadConstraints", Set, Ignored, SCHEDULING),
    (
        "containers[].restartPolicy",
        Set,
        Ignored,
        "the pod's `restartPolicy` holds for all",
    ),
    (
        "initContainers[].restartPolicy",
        Not("Always"),
        Ignored,
        "the pod's `restartPolicy` holds for all",
    ),
    ("volumes[].emptyDir.mode", Set, Ignored, "the mode is 0777"),
    (
        "volumes[].configMap.defaultUser",
        Set,
        Ignored,
        "the files belong to root",
    ),
    (
        "volumes[].secret.defaultUser",
        Set,
        Ignored,
        "the files belong to root",
    ),
    (
        "volumes[].downwardAPI.defaultUser",
        Set,
        Ignored,
        "the files belong to root",
    ),
    (
        "volumes[].projected.defaultUser",
        Set,
        Ignored,
        "the files belong to root",
    ),
    (
        "volumes[].configMap.items[].user",
        Set,
        Ignored,
        "the files belong to root",
    ),
    (
        "volumes[].secret.items[].user",
        Set,
        Ignored,
        "the files belong to root",
    ),
    (
        "volumes[].downwardAPI.items[].user",
        Set,
        Ignored,
        "the files belong to root",
    ),
    (
        "volumes[].projected.sources[].configMap.items[].user",
        Set,
        Ignored,
        "the files belong to root",
    ),
    (
        "volumes[].projected.sources[].secret.items[].user",
        Set,
        Ignored,
        "the files belong to root",
    ),
    (
        "volumes[].projected.sources[].downwardAPI.items[].user",
        Set,
        Ignored,
        "the files belong to root",
    ),
];

/// Below each of `containers` and `initContainers`.
pub(super) const CONTAINER: &[Row] = &[
    (
        "env[].valueFrom.fileKeyRef",
        Set,
        Refused,
        "variables are not read from files of volumes",
    ),
    ("lifecycle.postStart", Set, Ignored, HOOKS),
    ("lifecycle.preStop", Set, Ignored, HOOKS),
    (
        "lifecycle.stopSignal",
        Set,
        Ignored,
        "the image's stop signal is sent",
    ),
    ("livenessProbe", Set, Ignored, PROBES),
    ("readinessProbe", Set, Ignored, PROBES),
    (
        "resizePolicy",
        Set,
        Ignored,
        "running containers are not resized",
    ),
    (
        "resources.claims",
        Set,
        Refused,
        "devices are not allocated",
    ),
    (
        "restartPolicyRules",
        Set,
        Ignored,
        "the pod's `restartPolicy` holds for all",
    ),
    (
        "securityContext.appArmorProfile",
        Set,
        Ignored,
        "AppArmor profiles are not applied yet",
    ),
    (
        "securityContext.procMount",
        Not("Default"),
        Ignored,
        "/proc is always masked",
    ),
    (
        "securityContext.seLinuxOptions",
        Set,
        Ignored,
        "SELinux labels are not set yet",
    ),
    (
        "securityContext.seccompProfile.type",
        Is("Localhost"),
        Refused,
        "profiles of the machine are not read",
    ),
    (
        "securityContext.windowsOptions",
        Set,
        Refused,
        "kplay runs Linux containers",
    ),
    ("startupProbe", Set, Ignored, PROBES),
    (
        "volumeDevices",
        Set,
        Refused,
        "claims are not supported yet",
    ),
    (
        "volumeMounts[].bindMountOptions",
        Set,
        Ignored,
        "mounts have the usual options",
    ),
    (
        "volumeMounts[].mountPropagation",
        Not("None"),
        Ignored,
        "mounts are private to the container",
    ),
    (
        "volumeMounts[].recursiveReadOnly",
        Not("Disabled"),
        Ignored,
        "mounts below a read-only mount stay as they are",
    ),
    ("volumeMounts[].subPathExpr", Set, Refused, "use `subPath`"),
];

/// Below `volumes[]` and `volumes[].projected.sources[]`: the sources that cannot be mounted.
pub(super) const VOLUME: &[Row] = &[
    ("awsElasticBlockStore", Set, Refused, ""),
    ("azureDisk", Set, Refused, ""),
    ("azureFile", Set, Refused, ""),
    ("cephfs", Set, Refused, ""),
    ("cinder", Set, Refused, ""),
    ("csi", Set, Refused, ""),
    ("ephemeral", Set, Refused, "claims are not supported yet"),
    ("fc", Set, Refused, ""),
    ("flexVolume", Set, Refused, ""),
    ("flocker", Set, Refused, ""),
    ("gcePersistentDisk", Set, Refused, ""),
    ("gitRepo", Set, Refused, ""),
    ("glusterfs", Set, Refused, ""),
    ("image", Set, Refused, ""),
    ("iscsi", Set, Refused, ""),
    ("nfs", Set, Refused, ""),
    (
        "persistentVolumeClaim",
        Set,
        Refused,
        "use `hostPath` or `emptyDir`",
    ),
    ("photonPersistentDisk", Set, Refused, ""),
    ("portworxVolume", Set, Refused, ""),
    ("quobyte", Set, Refused, ""),
    ("rbd", Set, Refused, ""),
    ("scaleIO", Set, Refused, ""),
    ("storageos", Set, Refused, ""),
    ("vsphereVolume", Set, Refused, ""),
    // Of projected volumes.
    ("clusterTrustBundle", Set, Refused, NO_CLUSTER),
    ("podCertificate", Set, Refused, NO_CLUSTER),
    ("serviceAccountToken", Set, Refused, NO_CLUSTER),
];

const DEPLOYMENT: &[Row] = &[
    ("spec.minReadySeconds", Set, Ignored, NO_CONTROLLER),
    ("spec.paused", Is("true"), Ignored, NO_CONTROLLER),
    ("spec.progressDeadlineSeconds", Set, Ignored, NO_CONTROLLER),
    ("spec.replicas", Not("1"), Ignored, ONE_POD),
    ("spec.revisionHistoryLimit", Set, Ignored, NO_CONTROLLER),
    (
        "spec.selector",
        Set,
        Ignored,
        "it is checked, but no controller looks for pods",
    ),
    ("spec.strategy", Set, Ignored, NO_CONTROLLER),
];

const REPLICA_SET: &[Row] = &[
    ("spec.minReadySeconds", Set, Ignored, NO_CONTROLLER),
    ("spec.replicas", Not("1"), Ignored, ONE_POD),
    (
        "spec.selector",
        Set,
        Ignored,
        "it is checked, but no controller looks for pods",
    ),
];

const DAEMON_SET: &[Row] = &[
    ("spec.minReadySeconds", Set, Ignored, NO_CONTROLLER),
    ("spec.revisionHistoryLimit", Set, Ignored, NO_CONTROLLER),
    (
        "spec.selector",
        Set,
        Ignored,
        "it is checked, but no controller looks for pods",
    ),
    ("spec.updateStrategy", Set, Ignored, NO_CONTROLLER),
];

const STATEFUL_SET: &[Row] = &[
    ("spec.minReadySeconds", Set, Ignored, NO_CONTROLLER),
    (
        "spec.ordinals",
        Set,
        Ignored,
        "the one pod has the ordinal 0",
    ),
    (
        "spec.persistentVolumeClaimRetentionPolicy",
        Set,
        Ignored,
        "claims are not supported yet",
    ),
    ("spec.podManagementPolicy", Set, Ignored, ONE_POD),
    ("spec.replicas", Not("1"), Ignored, ONE_POD),
    ("spec.revisionHistoryLimit", Set, Ignored, NO_CONTROLLER),
    (
        "spec.selector",
        Set,
        Ignored,
        "it is checked, but no controller looks for pods",
    ),
    (
        "spec.serviceName",
        Set,
        Ignored,
        "names in the cluster's domain are not resolved yet",
    ),
    ("spec.updateStrategy", Set, Ignored, NO_CONTROLLER),
    (
        "spec.volumeClaimTemplates",
        Set,
        Refused,
        "use `hostPath` or `emptyDir` volumes",
    ),
];

/// Below a Job's `spec`, wherever that is.
const JOB: &[Row] = &[
    ("backoffLimitPerIndex", Set, Ignored, ONE_POD),
    ("completionMode", Not("NonIndexed"), Ignored, ONE_POD),
    ("completions", Not("1"), Ignored, ONE_POD),
    ("managedBy", Set, Ignored, NO_CONTROLLER),
    ("manualSelector", Set, Ignored, NO_CONTROLLER),
    ("maxFailedIndexes", Set, Ignored, ONE_POD),
    ("parallelism", Not("1"), Ignored, ONE_POD),
    ("podFailurePolicy", Set, Ignored, NO_CONTROLLER),
    ("podReplacementPolicy", Set, Ignored, NO_CONTROLLER),
    ("scheduling", Set, Ignored, SCHEDULING),
    ("selector", Set, Ignored, "no controller looks for pods"),
    ("successPolicy", Set, Ignored, ONE_POD),
    ("suspend", Is("true"), Ignored, "the job is played"),
    (
        "ttlSecondsAfterFinished",
        Set,
        Ignored,
        "the pod stays until it is deleted",
    ),
];

const CRON_JOB: &[Row] = &[
    ("spec.concurrencyPolicy", Set, Ignored, ONCE),
    ("spec.failedJobsHistoryLimit", Set, Ignored, ONCE),
    ("spec.schedule", Set, Ignored, ONCE),
    ("spec.startingDeadlineSeconds", Set, Ignored, ONCE),
    ("spec.successfulJobsHistoryLimit", Set, Ignored, ONCE),
    ("spec.suspend", Is("true"), Ignored, ONCE),
    ("spec.timeZone", Set, Ignored, ONCE),
];

/// Tells what is ignored or refused of a controller's own fields.
pub(super) fn controller(kind: Kind, at: At<'_>, report: &Report) {
    let rows = match kind {
        Kind::Deployment => DEPLOYMENT,
        Kind::ReplicaSet | Kind::ReplicationController => REPLICA_SET,
        Kind::DaemonSet => DAEMON_SET,
        Kind::StatefulSet => STATEFUL_SET,
        Kind::Job => return rows_of(JOB, at.field("spec"), report),
        Kind::CronJob => {
            rows_of(CRON_JOB, at, report);
            return rows_of(JOB, at.path("spec.jobTemplate.spec"), report);
        }
        _ => return,
    };
    rows_of(rows, at, report);
}

/// Tells what is ignored or refused of a pod's `spec`.
pub(super) fn pod(spec: At<'_>, report: &Report) {
    rows_of(POD, spec, report);
    for list in ["initContainers", "containers"] {
        for container in spec.field(list).items() {
            rows_of(CONTAINER, container, report);
        }
    }
    for volume in spec.field("volumes").items() {
        rows_of(VOLUME, volume, report);
        for source in volume.path("projected.sources").items() {
            rows_of(VOLUME, source, report);
        }
    }
}

/// What is said of an object that has no effect; `None` for those that need none.
pub(super) fn object(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Service => Some("is recorded, but Services are not reachable yet"),
        Kind::PersistentVolumeClaim | Kind::PersistentVolume => {
            Some("is recorded, but claims are not supported yet")
        }
        Kind::ServiceAccount => Some("is recorded only: there is no API server"),
        Kind::Namespace => Some("is recorded only: namespaces need not be made"),
        _ => None,
    }
}

fn rows_of(rows: &[Row], at: At<'_>, report: &Report) {
    for (path, when, verdict, why) in rows {
        apply(at, path, *when, *verdict, why, report);
    }
}

fn apply(at: At<'_>, path: &str, when: When, verdict: Verdict, why: &str, report: &Report) {
    if let Some((list, rest)) = path.split_once("[].") {
        for item in at.path(list).items() {
            apply(item, rest, when, verdict, why, report);
        }
        return;
    }
    let (parent, name) = match path.rsplit_once('.') {
        Some((parent, name)) => (at.path(parent), name),
        None => (at, path),
    };
    let field = parent.key(name);
    if !field.node.is_some_and(|node| holds(node, when)) {
        return;
    }
    let shown = match (when, field.node.map(|node| &node.value)) {
        (Is(_) | Not(_), Some(Value::String(text))) => format!("`{name}: {text}`"),
        (Is(_) | Not(_), Some(Value::Bool(value))) => format!("`{name}: {value}`"),
        (Is(_) | Not(_), Some(Value::Int(value))) => format!("`{name}: {value}`"),
        _ => format!("`{name}`"),
    };
    let (severity, mut message) = match verdict {
        Ignored => (Severity::Note, format!("{shown} is ignored")),
        Refused => (Severity::Error, format!("{shown} is not supported yet")),
    };
    if !why.is_empty() {
        message.push_str(": ");
        message.push_str(why);
    }
    report.push(Diagnostic::new(severity, message).at(field.place()));
}

fn holds(node: &Node, when: When) -> bool {
    let is = |text: &str| match &node.value {
        Value::String(value) => **value == *text,
        Value::Bool(value) => value.to_string() == text,
        Value::Int(value) => value.to_string() == text,
        _ => false,
    };
    match (&node.value, when) {
        (Value::Null, _) => false,
        (Value::String(text), Set | Not(_)) if text.is_empty() => false,
        (Value::Seq(items), Set) => !items.is_empty(),
        (Value::Map(entries), Set) => !entries.is_empty(),
        (_, Set) => true,
        (_, Is(text)) => is(text),
        (_, Not(text)) => !is(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::decode;
    use super::super::node::File;
    use super::super::yaml;
    use super::*;
    use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core};

    /// `a[].b.c` under a prefix, as a document in which the field is null.
    fn document(prefix: &str, path: &str) -> String {
        let whole = [prefix, path].join("");
        whole
            .split('.')
            .rev()
            .fold("null".to_owned(), |inner, part| {
                match part.strip_suffix("[]") {
                    Some(list) => format!("{{{list}: [{inner}]}}"),
                    None => format!("{{{part}: {inner}}}"),
                }
            })
    }

    fn check<T: serde::de::DeserializeOwned>(rows: &[Row], prefix: &str) {
        for (path, ..) in rows {
            let text = document(prefix, path);
            let file = File::new("t", std::path::PathBuf::new(), &text);
            let report = Report::default();
            let nodes = yaml::parse(&file, &text, None, &report);
            let _object: Option<T> = decode(At::root(&file, &nodes[0]), &report);
            assert_eq!(report.finish(&[]), [], "{path}");
        }
    }

    #[test]
    fn every_path_is_a_field_of_kubernetes() {
        check::<core::PodTemplateSpec>(POD, "spec.");
        check::<core::PodTemplateSpec>(CONTAINER, "spec.containers[].");
        let (projected, volumes) = VOLUME.split_at(VOLUME.len() - 3);
        check::<core::PodTemplateSpec>(projected, "spec.volumes[].");
        check::<core::PodTemplateSpec>(volumes, "spec.volumes[].projected.sources[].");
        let without_spec = |rows: &[Row]| -> Vec<Row> {
            let strip = |path: &'static str| path.strip_prefix("spec.").unwrap();
            rows.iter()
                .map(|(path, when, verdict, why)| (strip(path), *when, *verdict, *why))
                .collect()
        };
        check::<apps::DeploymentSpec>(&without_spec(DEPLOYMENT), "");
        check::<apps::ReplicaSetSpec>(&without_spec(REPLICA_SET), "");
        check::<apps::DaemonSetSpec>(&without_spec(DAEMON_SET), "");
        check::<apps::StatefulSetSpec>(&without_spec(STATEFUL_SET), "");
        check::<batch::JobSpec>(JOB, "");
        check::<batch::CronJobSpec>(&without_spec(CRON_JOB), "");
    }
}
