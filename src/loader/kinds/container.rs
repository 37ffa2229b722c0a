//! One container to its plan.

use std::collections::HashSet;

use k8s_openapi::api::core::v1 as core;

use super::super::node::At;
use super::super::report::Report;
use super::pod::{PodScope, choice};
use super::resources::NeverRestarts;
use super::{env, hooks, ports, probe, resources, restarts, security};
use crate::model::names::{ContainerName, VolumeName};
use crate::model::plan::{
    ClaimStorage, ContainerPlan, ContainerRole, MountAccess, Probes, Propagation, PullPolicy,
    SubPath, TerminationMessagePolicy, Volume, VolumeDevice, VolumeMount, VolumeSource,
};
use crate::model::reference::Reference;

/// Makes the plan; `None` if anything that it cannot be without is wrong.
pub(super) fn convert(
    container: &core::Container,
    at: At<'_>,
    role: ContainerRole,
    pod: &PodScope<'_>,
) -> Option<ContainerPlan> {
    let report = pod.scope.report;
    let name = name(container, at, report);
    let reference = reference(container, at, report);
    check_init(role, at, report);
    check_process(container, at, report);
    let pull_policy = pull_policy(container, at, report);
    let termination_message_policy = message_policy(container, at, report);
    let message_path = container.termination_message_path.as_deref();
    let host_network = pod.spec.host_network == Some(true);
    let declared = container.ports.as_deref().unwrap_or_default();
    let requirements = container.resources.clone().unwrap_or_default();
    let env = env::convert(container, at, pod);
    let ports = ports::convert(declared, host_network, at.field("ports"), report);
    let mounts = mounts(container, at.field("volumeMounts"), pod);
    let devices = devices(container, at.field("volumeDevices"), pod);
    let resources = resources::convert(&requirements, at.field("resources"), report);
    let huge_pages = resources::huge_pages(&requirements, at.field("resources"), report);
    let never_restarts = match pod.spec.restart_policy.as_deref() {
        Some("Never") => NeverRestarts::Yes,
        _ => NeverRestarts::No,
    };
    let resize_policy = resources::resize_policy(container, never_restarts, at, report);
    let security = security::container(container, pod.spec, at.key("securityContext"), report);
    let restarts = restarts::convert(container, at, report);
    let (hooks, stop_signal) = hooks::convert(container, at, pod);
    let probes = match role {
        ContainerRole::Init => Probes::default(),
        ContainerRole::Sidecar | ContainerRole::Main => probe::convert(container, at, pod),
    };
    Some(ContainerPlan {
        name: name?,
        role,
        image: container.image.clone()?,
        reference: reference?,
        pull_policy: pull_policy?,
        command: container
            .command
            .clone()
            .filter(|command| !command.is_empty()),
        args: container.args.clone().filter(|args| !args.is_empty()),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        env,
        ports,
        mounts,
        devices,
        resources,
        huge_pages,
        resize_policy,
        security,
        probes,
        termination_message_path: message_path.unwrap_or_default().into(),
        termination_message_policy: termination_message_policy?,
        restarts,
        hooks,
        stop_signal,
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
    })
}

/// What a process cannot be started with.
fn check_process(container: &core::Container, at: At<'_>, report: &Report) {
    for (field, path) in [
        (
            "terminationMessagePath",
            &container.termination_message_path,
        ),
        ("workingDir", &container.working_dir),
    ] {
        let path = path.as_deref().unwrap_or_default();
        if !path.is_empty() && (!path.starts_with('/') || path.contains('\0')) {
            let message = format!("`{field}` must be an absolute path, is `{path}`");
            report.error(at.field(field), message);
        }
    }
    for (field, words) in [("command", &container.command), ("args", &container.args)] {
        let words = words.iter().flatten().enumerate();
        for (index, _) in words.filter(|(_, word)| word.contains('\0')) {
            let message = format!("`{field}` must not have a NUL character");
            report.error(at.field(field).index(index), message);
        }
    }
}

fn pull_policy(container: &core::Container, at: At<'_>, report: &Report) -> Option<PullPolicy> {
    let text = container.image_pull_policy.as_deref().unwrap_or_default();
    let place = at.field("imagePullPolicy");
    choice(text, &PULL_POLICIES, "imagePullPolicy", place, report)
}

pub(super) const PULL_POLICIES: [(&str, PullPolicy); 3] = [
    ("Always", PullPolicy::Always),
    ("IfNotPresent", PullPolicy::IfNotPresent),
    ("Never", PullPolicy::Never),
];

fn message_policy(
    container: &core::Container,
    at: At<'_>,
    report: &Report,
) -> Option<TerminationMessagePolicy> {
    let text = container
        .termination_message_policy
        .as_deref()
        .unwrap_or_default();
    let policies = [
        ("File", TerminationMessagePolicy::File),
        (
            "FallbackToLogsOnError",
            TerminationMessagePolicy::FallbackToLogsOnError,
        ),
    ];
    let place = at.field("terminationMessagePolicy");
    choice(text, &policies, "terminationMessagePolicy", place, report)
}

fn name(container: &core::Container, at: At<'_>, report: &Report) -> Option<ContainerName> {
    if container.name.is_empty() {
        report.error(at, "a container must have a `name`");
        return None;
    }
    let parsed = ContainerName::parse(&container.name);
    parsed
        .map_err(|error| {
            report.error(
                at.field("name"),
                format!("the container name `{}` {error}", container.name),
            );
        })
        .ok()
}

fn reference(container: &core::Container, at: At<'_>, report: &Report) -> Option<Reference> {
    let image = container.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        report.error(
            at.field("image"),
            format!("container `{}` must have an `image`", container.name),
        );
        return None;
    }
    let place = at.field("image");
    if image.trim() != image {
        report.error(
            place,
            format!("the image `{image}` must not start or end with a space"),
        );
        return None;
    }
    Reference::parse(image)
        .map_err(|error| {
            report.error(
                place,
                format!("the image `{image}` cannot be used: {error}"),
            );
        })
        .ok()
}

/// What only containers that stay may have.
fn check_init(role: ContainerRole, at: At<'_>, report: &Report) {
    if role != ContainerRole::Init {
        return;
    }
    for field in [
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
    ] {
        if at.field(field).exists() {
            let message = format!("an init container may not have `{field}`");
            report.error_hint(
                at.key(field),
                message,
                "only one with `restartPolicy: Always` (a sidecar) may",
            );
        }
    }
}

fn mounts(container: &core::Container, at: At<'_>, pod: &PodScope<'_>) -> Vec<VolumeMount> {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let report = pod.scope.report;
    let mut paths = HashSet::new();
    let mut converted = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let place = at.index(index);
        let path = mount.mount_path.as_str();
        check_path("mountPath", path, place, report);
        if !path.is_empty() && !paths.insert(path.trim_end_matches('/')) {
            report.error(
                place.field("mountPath"),
                format!("two volumes are mounted at `{path}`"),
            );
        }
        check_volume_name(&mount.name, place, place.field("name"), pod);
        let propagation = propagation(mount, container, place, report);
        if let Ok(volume) = VolumeName::parse(&mount.name) {
            converted.push(VolumeMount {
                volume,
                mount_path: from_the_root(path).into(),
                access: access(mount, propagation, place, report),
                propagation,
                sub_path: sub_path(mount, place, report),
            });
        }
    }
    converted
}

fn devices(container: &core::Container, at: At<'_>, pod: &PodScope<'_>) -> Vec<VolumeDevice> {
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    let report = pod.scope.report;
    let mounts = container.volume_mounts.iter().flatten();
    let mut paths: HashSet<&str> = mounts.map(|mount| mount.mount_path.as_str()).collect();
    let mut names = HashSet::new();
    let mut converted = Vec::new();
    if pod.spec.host_users == Some(false) && !devices.is_empty() {
        let message = "`volumeDevices` does not go with `hostUsers: false`";
        report.error(at, message);
    }
    for (index, device) in devices.iter().enumerate() {
        let place = at.index(index);
        let path = device.device_path.as_str();
        check_path("devicePath", path, place, report);
        if !path.is_empty() && !paths.insert(path) {
            let message = format!("something else is at `{path}` already");
            report.error(place.field("devicePath"), message);
        }
        check_volume_name(&device.name, place, place.field("name"), pod);
        if !device.name.is_empty() && !names.insert(device.name.as_str()) {
            let message = format!("the volume `{}` is there twice", device.name);
            report.error(place.field("name"), message);
        }
        if let Ok(volume) = VolumeName::parse(&device.name) {
            converted.push(VolumeDevice {
                volume,
                path: path.into(),
            });
        }
    }
    converted
}

/// Whether what is mounted is a file system, and what is a device a block device, as far as the volumes are known.
pub(super) fn check_modes(
    container: &core::Container,
    volumes: &[Volume],
    at: At<'_>,
    report: &Report,
) {
    let source = |name: &str| {
        let volume = volumes.iter().find(|volume| volume.name.as_str() == name);
        volume.map(|volume| &volume.source)
    };
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if let Some(VolumeSource::Claim {
            storage: ClaimStorage::Device { .. },
            ..
        }) = source(&mount.name)
        {
            let message = format!(
                "the volume `{}` has `volumeMode: Block` and cannot be mounted",
                mount.name
            );
            let hint = "name it in `volumeDevices`, with a `devicePath`";
            let place = at.field("volumeMounts").index(index).field("name");
            report.error_hint(place, message, hint);
        }
    }
    for (index, device) in container.volume_devices.iter().flatten().enumerate() {
        let fault = match source(&device.name) {
            None
            | Some(VolumeSource::Claim {
                storage: ClaimStorage::Device { .. },
                ..
            }) => continue,
            Some(VolumeSource::Claim { .. }) => "has `volumeMode: Filesystem` and is no device",
            Some(
                VolumeSource::EmptyDir { .. }
                | VolumeSource::HostPath { .. }
                | VolumeSource::Image { .. }
                | VolumeSource::Files { .. },
            ) => "is no device: only a claim can be one",
        };
        let message = format!("the volume `{}` {fault}", device.name);
        let place = at.field("volumeDevices").index(index).field("name");
        let hint = "bind a claim with `volumeMode: Block` to a PersistentVolume of type `local`";
        report.error_hint(place, message, hint);
    }
}

fn access(
    mount: &core::VolumeMount,
    propagation: Propagation,
    at: At<'_>,
    report: &Report,
) -> MountAccess {
    let text = mount.recursive_read_only.as_deref().unwrap_or("Disabled");
    // Whatever runs containers here can do it.
    let values = [("Disabled", false), ("IfPossible", true), ("Enabled", true)];
    let place = at.field("recursiveReadOnly");
    let recursive = choice(text, &values, "recursiveReadOnly", place, report) == Some(true);
    let read_only = mount.read_only == Some(true);
    if recursive && !read_only {
        report.error(place, "`recursiveReadOnly` needs `readOnly: true`");
    }
    if recursive && propagation != Propagation::None {
        report.error(place, "`recursiveReadOnly` excludes `mountPropagation`");
    }
    match (read_only, recursive) {
        (true, true) => MountAccess::RecursiveReadOnly,
        (true, false) => MountAccess::ReadOnly,
        (false, _) => MountAccess::ReadWrite,
    }
}

fn propagation(
    mount: &core::VolumeMount,
    container: &core::Container,
    at: At<'_>,
    report: &Report,
) -> Propagation {
    let text = mount.mount_propagation.as_deref().unwrap_or("None");
    let values = [
        ("None", Propagation::None),
        ("HostToContainer", Propagation::HostToContainer),
        ("Bidirectional", Propagation::Bidirectional),
    ];
    let place = at.field("mountPropagation");
    let propagation = choice(text, &values, "mountPropagation", place, report);
    let context = container.security_context.as_ref();
    let privileged = context.and_then(|context| context.privileged) == Some(true);
    if propagation == Some(Propagation::Bidirectional) && !privileged {
        report.error(
            place,
            "only a privileged container may have `mountPropagation: Bidirectional`",
        );
    }
    propagation.unwrap_or_default()
}

fn sub_path(mount: &core::VolumeMount, at: At<'_>, report: &Report) -> Option<SubPath> {
    let set = |path: &Option<String>| path.clone().filter(|path| !path.is_empty());
    let (path, template) = (set(&mount.sub_path), set(&mount.sub_path_expr));
    if path.is_some() && template.is_some() {
        let message = "`subPath` and `subPathExpr` exclude each other";
        report.error(at.key("subPathExpr"), message);
    }
    for (field, text) in [("subPath", &path), ("subPathExpr", &template)] {
        if let Some(reason) = text.as_deref().and_then(relative_path_fault) {
            report.error(at.field(field), format!("`{field}` {reason}"));
        }
    }
    match (path, template) {
        (Some(path), _) => Some(SubPath::Path(path.into())),
        (None, template) => template.map(SubPath::Template),
    }
}

/// A relative `mountPath` begins at the container's root (`MakeAbsolutePath` in the kubelet).
fn from_the_root(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    }
}

/// Checks where a volume is to be: its `mountPath` or `devicePath`.
fn check_path(field: &str, path: &str, at: At<'_>, report: &Report) {
    let fault = if path.is_empty() {
        format!("a mount must have a `{field}`")
    } else if field == "devicePath" && !path.starts_with('/') {
        format!("`{field}` must be an absolute path, is `{path}`")
    } else if path.contains(':') || path.contains('\0') {
        format!("`{field}` must not have a `:`")
    } else if path.split('/').any(|part| part == "..") {
        format!("`{field}` must not have `..`")
    } else if path.trim_end_matches('/').is_empty() {
        "a volume cannot be mounted at `/`".to_owned()
    } else {
        return;
    };
    report.error(at.field(field), fault);
}

/// A volume of this pod; `at` is what names it, in `name_at`.
pub(super) fn check_volume_name(name: &str, at: At<'_>, name_at: At<'_>, pod: &PodScope<'_>) {
    if name.is_empty() {
        pod.scope
            .report
            .error(at, "a mount must have the `name` of a volume");
        return;
    }
    if pod.volumes.contains(name) {
        return;
    }
    let message = format!("there is no volume `{name}` in this pod");
    // In the manifest's order, and never more than somebody may have meant.
    let declared = pod.spec.volumes.iter().flatten().take(1000);
    let volumes: Vec<&str> = declared.map(|volume| volume.name.as_str()).collect();
    let hint = match (
        super::super::decode::closest(name, &volumes),
        volumes.as_slice(),
    ) {
        (Some(close), _) => format!("did you mean `{close}`?"),
        (None, []) => "the pod has no `volumes`".to_owned(),
        (None, volumes) => {
            let shown = volumes.iter().take(10);
            let list: Vec<String> = shown.map(|volume| format!("`{volume}`")).collect();
            format!("its volumes are {}", list.join(", "))
        }
    };
    pod.scope.report.error_hint(name_at, message, hint);
}

/// What is wrong with a path that must stay within a volume.
pub(super) fn relative_path_fault(path: &str) -> Option<&'static str> {
    if path.starts_with('/') {
        Some("must be a relative path")
    } else if path.split('/').any(|part| part == "..") {
        Some("must not have `..`")
    } else if path.contains('\0') {
        Some("must not have a NUL character")
    } else {
        None
    }
}
