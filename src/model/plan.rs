//! What a manifest asks for, checked and resolved: the loader makes plans, the executor runs them.
//!
//! A plan holds no reference to another object: the content of ConfigMaps and Secrets is in it already, which is
//! why plans are kept on tmpfs with mode 0600. What only the running pod knows (its address, its uid) is named
//! by [`FieldRef`] and filled in by the executor.

mod hooks;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::names::{ContainerName, Namespace, ObjectKey, PodKey, PodName, VolumeName};
use super::reference::Reference;
pub use hooks::{HookAction, Hooks};
pub use restart::{ExitCodes, RestartAction, RestartRule, Restarts};

mod probe;
mod resources;
mod restart;

pub use self::probe::{Check, HttpGet, Probe, Probes, Transport};
pub use self::resources::{OnResize, ResizePolicy, ResourceAmounts, Resources, most_at_once};

/// One pod, ready to run on any machine that has its images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPlan {
    pub namespace: Namespace,
    pub name: PodName,
    /// The object of the manifest that asked for the pod: the pod itself, or its Deployment, Job, …
    pub owner: ObjectKey,
    /// Whether the pod's end is its purpose (Jobs): `--wait=complete` and `get` ask for this.
    pub runs_to_completion: bool,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The `v1.Pod` (apiVersion, kind, metadata, spec with defaults) that `get -o json` shows.
    pub manifest: serde_json::Value,
    /// The pod's short host name, at most 63 characters. The machine's own with `host_network`.
    pub hostname: String,
    /// `SUBDOMAIN.NAMESPACE.svc.cluster.local`, if the pod has a subdomain.
    pub domain: Option<String>,
    /// `setHostnameAsFQDN`: whether programs in the pod find the host name with its domain.
    pub hostname_as_fqdn: bool,
    /// `spec.serviceAccountName`.
    pub service_account: String,
    /// `enableServiceLinks`: whether containers have variables for the Services of the namespace.
    pub service_links: bool,
    pub restart_policy: RestartPolicy,
    /// Seconds between the stop signal and SIGKILL.
    pub termination_grace_period: u32,
    /// Seconds from the pod's start after which it is failed with `DeadlineExceeded`.
    pub active_deadline: Option<u64>,
    /// How often the containers of an `OnFailure` Job may be restarted before it fails.
    pub backoff_limit: Option<u32>,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// `hostUsers: false`: the pod's users are not the machine's.
    pub own_users: bool,
    pub share_process_namespace: bool,
    pub security: PodSecurity,
    /// Of the pod as a whole, beside what its containers have each.
    pub resources: Option<Resources>,
    /// The limits of huge pages of the pod as a whole, in bytes by the size of a page. A container without its own has
    /// them too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub huge_pages: BTreeMap<u64, u64>,
    pub dns: Dns,
    pub host_aliases: Vec<HostAlias>,
    pub volumes: Vec<Volume>,
    /// In start order; sidecars are among them ([`ContainerRole::Sidecar`]).
    pub init_containers: Vec<ContainerPlan>,
    /// In start order. At least one.
    pub containers: Vec<ContainerPlan>,
}

impl PodPlan {
    /// The key of the pod's records.
    #[must_use]
    pub fn key(&self) -> PodKey {
        PodKey {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// The host name with the pod's domain.
    #[must_use]
    pub fn fqdn(&self) -> Option<String> {
        let domain = self.domain.as_ref()?;
        Some(format!("{}.{domain}", self.hostname))
    }

    /// What `uname -n` says in the pod, and so HOSTNAME and `/etc/hostname`.
    #[must_use]
    pub fn kernel_hostname(&self) -> String {
        let fqdn = self.fqdn().filter(|_| self.hostname_as_fqdn);
        fqdn.unwrap_or_else(|| self.hostname.clone())
    }

    /// All containers, init containers first, in start order.
    pub fn all_containers(&self) -> impl Iterator<Item = &ContainerPlan> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// The names of the claims that are volumes.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.volumes
            .iter()
            .filter_map(|volume| match &volume.source {
                VolumeSource::Claim { name, .. } => Some(name.as_str()),
                VolumeSource::EmptyDir { .. }
                | VolumeSource::HostPath { .. }
                | VolumeSource::Image { .. }
                | VolumeSource::Files { .. } => None,
            })
    }

    /// The volumes that are claims with a folder of kplay's own, and the claims' names.
    pub fn claim_folders(&self) -> impl Iterator<Item = (&VolumeName, &str)> {
        self.volumes
            .iter()
            .filter_map(|volume| match &volume.source {
                VolumeSource::Claim {
                    name,
                    storage: ClaimStorage::Folder,
                    ..
                } => Some((&volume.name, name.as_str())),
                _ => None,
            })
    }
}

/// `restartPolicy`: after which exits a container is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

/// When a container runs, relative to the others of its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerRole {
    /// Runs alone and must succeed before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: started in order, runs until the main containers are done.
    Sidecar,
    /// A member of `spec.containers`.
    Main,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPlan {
    pub name: ContainerName,
    pub role: ContainerRole,
    /// `image` as the manifest has it; status repeats it.
    pub image: String,
    /// The same, normalised.
    pub reference: Reference,
    pub pull_policy: PullPolicy,
    /// `command`: replaces the image's entrypoint and its arguments.
    pub command: Option<Vec<String>>,
    /// `args`: replaces the image's arguments.
    pub args: Option<Vec<String>>,
    pub working_dir: Option<String>,
    /// `envFrom` first, then `env`, in the manifest's order; a later variable of the same name wins.
    pub env: Vec<EnvVar>,
    pub ports: Vec<ContainerPort>,
    pub mounts: Vec<VolumeMount>,
    /// `volumeDevices`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<VolumeDevice>,
    pub resources: Resources,
    /// The limits of huge pages, in bytes by the size of a page.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub huge_pages: BTreeMap<u64, u64>,
    pub resize_policy: ResizePolicy,
    pub security: ContainerSecurity,
    pub probes: Probes,
    /// `terminationMessagePath`, absolute.
    pub termination_message_path: PathBuf,
    pub termination_message_policy: TerminationMessagePolicy,
    pub restarts: Restarts,
    pub hooks: Hooks,
    /// `lifecycle.stopSignal`: a signal's name. The image's own if `None`.
    pub stop_signal: Option<String>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
}

/// `imagePullPolicy`, with the default already chosen by the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    pub name: String,
    pub value: EnvValue,
}

/// Where a variable's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvValue {
    /// `value`: `$(NAME)` in it is expanded with the variables before it.
    Template(String),
    /// From a ConfigMap or a Secret: taken as it is.
    Literal(String),
    /// `fieldRef`.
    Field(FieldRef),
    /// `resourceFieldRef`, of this container unless another one is named.
    Resource {
        container: Option<ContainerName>,
        resource: ResourceField,
        /// In milli-units (`1` is 1000). The value is divided by it and rounded up.
        divisor_milli: u64,
    },
    /// `fileKeyRef`: read when the container starts.
    File {
        /// An emptyDir.
        volume: VolumeName,
        /// Relative to the volume, without `..`.
        path: PathBuf,
        key: String,
        /// Whether a missing file or key only leaves the variable unset.
        optional: bool,
    },
}

/// A field of the running pod, in the downward API's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FieldRef {
    Name,
    Namespace,
    Uid,
    /// `metadata.labels`: all of them, sorted `key="value"` lines (volumes only).
    Labels,
    Label(String),
    /// `metadata.annotations`: as `Labels` (volumes only).
    Annotations,
    Annotation(String),
    NodeName,
    ServiceAccountName,
    HostIp,
    HostIps,
    PodIp,
    PodIps,
}

/// Which resource a `resourceFieldRef` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResourceField {
    LimitsCpu,
    LimitsMemory,
    LimitsEphemeralStorage,
    RequestsCpu,
    RequestsMemory,
    RequestsEphemeralStorage,
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPort {
    pub name: Option<String>,
    pub container_port: u16,
    /// Where it is published on the host; from `hostPort` or `--publish`.
    pub host_port: Option<u16>,
    pub host_ip: Option<std::net::IpAddr>,
    pub protocol: Protocol,
}

/// A transport protocol of a port.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Protocol {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
}

/// One entry of `volumeMounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    pub volume: VolumeName,
    /// Absolute, as the manifest has it.
    pub mount_path: PathBuf,
    pub access: MountAccess,
    pub propagation: Propagation,
    /// Which part of the volume is mounted; all of it if `None`.
    pub sub_path: Option<SubPath>,
}

/// One entry of `volumeDevices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDevice {
    /// A claim that is a [`ClaimStorage::Device`].
    pub volume: VolumeName,
    /// Where the device file is in the container; absolute.
    pub path: PathBuf,
}

/// What a container may do with a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountAccess {
    #[default]
    ReadWrite,
    /// Not with what is mounted below it.
    ReadOnly,
    /// `recursiveReadOnly`: with what is mounted below it, too.
    RecursiveReadOnly,
}

/// `mountPropagation`: which later mounts are seen where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    None,
    /// The container sees what is mounted below the volume.
    HostToContainer,
    /// And everybody else sees what the container mounts there.
    Bidirectional,
}

/// A part of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubPath {
    /// `subPath`, relative and without `..`.
    Path(PathBuf),
    /// `subPathExpr`: `$(NAME)` in it is a variable of the container.
    Template(String),
}

/// A pod's volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: VolumeName,
    pub source: VolumeSource,
}

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// Empty at the pod's start, gone at its end.
    EmptyDir {
        medium: Medium,
        /// Bytes. With `Medium::Memory` the size of the tmpfs.
        size_limit: Option<u64>,
        /// Permission bits of the folder; each medium has others by default.
        mode: Option<u32>,
    },
    HostPath {
        /// Absolute; a relative one was resolved against its manifest's folder.
        path: PathBuf,
        kind: HostPathType,
    },
    /// A claim, which outlives the pod.
    Claim {
        /// Its name in the pod's namespace.
        name: String,
        storage: ClaimStorage,
        /// For all mounts.
        read_only: bool,
    },
    /// The content of an image, which is never written to.
    Image {
        /// As the manifest has it.
        image: String,
        /// The same, normalised.
        reference: Reference,
        pull_policy: PullPolicy,
    },
    /// ConfigMap, Secret, downward API or several of them: files that are written atomically, mounted read-only.
    Files {
        files: Vec<VolumeFile>,
        /// Secrets and the downward API live in memory.
        medium: Medium,
    },
}

/// What a claim is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimStorage {
    /// A folder of kplay's own.
    Folder,
    /// A PersistentVolume's `hostPath`: `fsGroup` does not reach it, as in a kubelet.
    HostPath { path: PathBuf, kind: HostPathType },
    /// A PersistentVolume's `local`: a folder that must be there.
    LocalPath { path: PathBuf },
    /// The same with `volumeMode: Block`: a block device of the machine.
    Device { path: PathBuf },
}

/// Where a volume's bytes live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Medium {
    #[default]
    Disk,
    Memory,
    /// Huge pages of this many bytes; the kernel's default size if `None`.
    HugePages(Option<u64>),
}

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPathType {
    /// No check; a missing path is made a directory (0755), as containerd does.
    #[default]
    Unset,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// One file of a [`VolumeSource::Files`] volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFile {
    /// Relative to the volume, without `..`; may have folders.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    pub content: FileContent,
}

/// A file's bytes, or what they are made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileContent {
    Bytes(#[serde(with = "base64_bytes")] Vec<u8>),
    Field(FieldRef),
    Resource {
        container: ContainerName,
        resource: ResourceField,
        divisor_milli: u64,
    },
}

/// Pod-level security that is not a container's: those parts are merged into [`ContainerSecurity`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSecurity {
    pub fs_group: Option<u32>,
    pub fs_group_change_policy: FsGroupChangePolicy,
    pub supplemental_groups: Vec<u32>,
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// Names with dots; only namespaced ones get through the loader.
    pub sysctls: BTreeMap<String, String>,
}

/// `supplementalGroupsPolicy`: whether the groups that the image gives the user count too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupplementalGroupsPolicy {
    #[default]
    Merge,
    Strict,
}

/// `fsGroupChangePolicy`: when the content of a claim is given to the group. Other volumes are the pod's own, and new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FsGroupChangePolicy {
    #[default]
    Always,
    /// Only if the root of the volume does not have it yet.
    OnRootMismatch,
}

/// A container's `securityContext`, completed from its pod's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSecurity {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub run_as_non_root: bool,
    pub privileged: bool,
    pub read_only_root_filesystem: bool,
    /// `None` and `Some(true)` leave no_new_privs off.
    pub allow_privilege_escalation: Option<bool>,
    /// Without `CAP_`, upper case; may be `ALL`.
    pub capabilities_add: Vec<String>,
    pub capabilities_drop: Vec<String>,
    pub seccomp: SeccompProfile,
    pub app_armor: AppArmorProfile,
    pub proc_mount: ProcMount,
}

/// `procMount`: whether parts of `/proc` and `/sys` are hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcMount {
    #[default]
    Masked,
    Unmasked,
}

/// `seccompProfile`. kplay's default is the runtime's profile, as on a hardened kubelet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompProfile {
    #[default]
    RuntimeDefault,
    Unconfined,
    /// A file of the machine: relative to the folder of its profiles, without `..`.
    Localhost(PathBuf),
}

/// `appArmorProfile`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppArmorProfile {
    /// kplay has none of its own: as `Unconfined`.
    #[default]
    RuntimeDefault,
    Unconfined,
    /// The name of a profile that the kernel has loaded.
    Localhost(String),
}

/// `terminationMessagePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminationMessagePolicy {
    #[default]
    File,
    FallbackToLogsOnError,
}

/// `dnsPolicy` and `dnsConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    pub policy: DnsPolicy,
    /// IP addresses in the manifest's spelling.
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    /// `ndots`, `Some("5")`; an option without value has `None`.
    pub options: Vec<(String, Option<String>)>,
}

/// `dnsPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsPolicy {
    #[default]
    ClusterFirst,
    ClusterFirstWithHostNet,
    Default,
    None,
}

/// One entry of `hostAliases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlias {
    /// An IP address in the manifest's spelling, which the hosts file keeps.
    pub ip: String,
    pub hostnames: Vec<String>,
}

mod base64_bytes {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}
