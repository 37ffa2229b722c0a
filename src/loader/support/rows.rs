//! The rows of the table, by the object that they are about.

use super::Row;
use super::Verdict::{Ignored, Refused};
use super::When::{Is, Not, Set};

const SCHEDULING: &str = "there is one machine and nothing to schedule";
const NO_CLUSTER: &str = "there is no API server";
const ONE_POD: &str = "one pod is played";
const NO_CONTROLLER: &str = "no controller watches the pod";
const PROBES: &str = "probes are not run yet";
const HOOKS: &str = "hooks are not run yet";
const ONCE: &str = "the job is played once, now";

/// Below a pod's `spec`.
pub(in crate::loader) const POD: &[Row] = &[
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
pub(in crate::loader) const CONTAINER: &[Row] = &[
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
pub(in crate::loader) const VOLUME: &[Row] = &[
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

pub(super) const DEPLOYMENT: &[Row] = &[
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

pub(super) const REPLICA_SET: &[Row] = &[
    ("spec.minReadySeconds", Set, Ignored, NO_CONTROLLER),
    ("spec.replicas", Not("1"), Ignored, ONE_POD),
    (
        "spec.selector",
        Set,
        Ignored,
        "it is checked, but no controller looks for pods",
    ),
];

pub(super) const DAEMON_SET: &[Row] = &[
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

pub(super) const STATEFUL_SET: &[Row] = &[
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
pub(super) const JOB: &[Row] = &[
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

pub(super) const CRON_JOB: &[Row] = &[
    ("spec.concurrencyPolicy", Set, Ignored, ONCE),
    ("spec.failedJobsHistoryLimit", Set, Ignored, ONCE),
    ("spec.schedule", Set, Ignored, ONCE),
    ("spec.startingDeadlineSeconds", Set, Ignored, ONCE),
    ("spec.successfulJobsHistoryLimit", Set, Ignored, ONCE),
    ("spec.suspend", Is("true"), Ignored, ONCE),
    ("spec.timeZone", Set, Ignored, ONCE),
];
