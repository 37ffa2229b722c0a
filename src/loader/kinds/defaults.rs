//! The API server's defaults, so that the manifest that is kept says what holds.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, PodSpec, Probe, Volume};

use super::pod_resources;
use crate::model::reference::Reference;

/// Fills in what the API server fills in. Runs before validation, as there.
pub(super) fn apply(spec: &mut PodSpec) {
    let text = |value: &str| Some(value.to_owned());
    spec.restart_policy = spec
        .restart_policy
        .take()
        .filter(|policy| !policy.is_empty())
        .or(text("Always"));
    spec.dns_policy = spec
        .dns_policy
        .take()
        .filter(|policy| !policy.is_empty())
        .or(text("ClusterFirst"));
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    spec.scheduler_name
        .get_or_insert_with(|| "default-scheduler".to_owned());
    spec.security_context.get_or_insert_default();
    default_service_account(spec);
    let host_network = spec.host_network == Some(true);
    for volume in spec.volumes.iter_mut().flatten() {
        default_volume(volume);
    }
    for container in spec
        .init_containers
        .iter_mut()
        .flatten()
        .chain(&mut spec.containers)
    {
        default_container(container, host_network);
    }
    pod_resources::apply(spec);
}

/// The old name of the field stands in for the new one and always says the same; without either, admission says
/// `default`.
fn default_service_account(spec: &mut PodSpec) {
    let given = |name: &mut Option<String>| name.take().filter(|name| !name.is_empty());
    let old = given(&mut spec.service_account);
    let name = given(&mut spec.service_account_name).or(old);
    spec.service_account_name = name.or_else(|| Some("default".to_owned()));
    spec.service_account.clone_from(&spec.service_account_name);
}

fn default_container(container: &mut Container, host_network: bool) {
    if container
        .image_pull_policy
        .as_deref()
        .unwrap_or_default()
        .is_empty()
    {
        let image = container.image.as_deref().unwrap_or_default();
        container.image_pull_policy = Some(pull_policy(image).to_owned());
    }
    let path = container
        .termination_message_path
        .take()
        .filter(|path| !path.is_empty());
    container.termination_message_path = path.or_else(|| Some("/dev/termination-log".to_owned()));
    let policy = container
        .termination_message_policy
        .take()
        .filter(|policy| !policy.is_empty());
    container.termination_message_policy = policy.or_else(|| Some("File".to_owned()));
    for port in container.ports.iter_mut().flatten() {
        let protocol = port.protocol.take().filter(|protocol| !protocol.is_empty());
        port.protocol = protocol.or_else(|| Some("TCP".to_owned()));
        if host_network && port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
    }
    let resources = container.resources.get_or_insert_default();
    if let Some(limits) = &resources.limits {
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests
                .entry(name.clone())
                .or_insert_with(|| limit.clone());
        }
    }
    for variable in container.env.iter_mut().flatten() {
        let source = variable.value_from.as_mut();
        if let Some(field) = source.and_then(|source| source.field_ref.as_mut()) {
            field.api_version.get_or_insert_with(|| "v1".to_owned());
        }
    }
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(default_probe);
    let hooks = container.lifecycle.as_mut();
    let hooks = hooks.map(|hooks| [&mut hooks.post_start, &mut hooks.pre_stop]);
    let gets = hooks.into_iter().flatten().flatten();
    gets.filter_map(|hook| hook.http_get.as_mut())
        .for_each(default_http_get);
}

/// By the tag.
fn pull_policy(image: &str) -> &'static str {
    match Reference::parse(image) {
        Ok(reference) if reference.tag.as_deref() == Some("latest") => "Always",
        _ => "IfNotPresent",
    }
}

fn default_probe(probe: &mut Probe) {
    let or = |value: &mut Option<i32>, default| {
        if value.unwrap_or(0) == 0 {
            *value = Some(default);
        }
    };
    or(&mut probe.timeout_seconds, 1);
    or(&mut probe.period_seconds, 10);
    or(&mut probe.success_threshold, 1);
    or(&mut probe.failure_threshold, 3);
    if let Some(get) = &mut probe.http_get {
        default_http_get(get);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn default_http_get(get: &mut HTTPGetAction) {
    let or = |value: &mut Option<String>, default: &str| {
        if value.as_deref().unwrap_or_default().is_empty() {
            *value = Some(default.to_owned());
        }
    };
    or(&mut get.path, "/");
    or(&mut get.scheme, "HTTP");
}

/// 0644.
const FILE_MODE: i32 = 0o644;

fn default_volume(volume: &mut Volume) {
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.image {
        let image = source.reference.as_deref().unwrap_or_default();
        let given = source
            .pull_policy
            .take()
            .filter(|policy| !policy.is_empty());
        source.pull_policy = given.or_else(|| Some(pull_policy(image).to_owned()));
    }
    let nothing = Volume {
        name: volume.name.clone(),
        ..Volume::default()
    };
    if *volume == nothing {
        volume.empty_dir = Some(k8s_openapi::api::core::v1::EmptyDirVolumeSource::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_pulled_by_their_tags() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("registry.example.com:5000/nginx", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("registry.example.com:5000/nginx:v1-latest", "IfNotPresent"),
            (&format!("nginx@{digest}"), "IfNotPresent"),
            (&format!("nginx:1@{digest}"), "IfNotPresent"),
            (&format!("nginx:latest@{digest}"), "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
