//! `describe pod`: spec, state, mounts and events, laid out as kubectl lays them out. For people, not for scripts.

use jiff::Timestamp;
use serde_json::Value;

use super::events;
use super::object::{array, created, metadata, string};
use super::page::Page;
use super::pods::{self, or_none};
use super::style::tame;
use crate::model::event::EventSeries;
use crate::model::status::{
    ConditionStatus, ContainerState, ContainerStatus, PodStatus, Terminated,
};

/// Where the values of a page's first level start.
const VALUES: usize = 20;

/// The page of a `v1.Pod`.
pub(crate) fn pod(pod: &Value, events: &[EventSeries], now: Timestamp) -> String {
    let status = pods::status(pod);
    let mut page = Page::new(VALUES);
    head(&mut page, pod, &status);
    let init = array(pod, "/spec/initContainers");
    if !init.is_empty() {
        page.title(0, "Init Containers");
        for spec in init {
            container(&mut page, spec, &status.init_container_statuses);
        }
    }
    page.title(0, "Containers");
    for spec in array(pod, "/spec/containers") {
        container(&mut page, spec, &status.container_statuses);
    }
    conditions(&mut page, &status);
    volumes(&mut page, pod);
    page.field(0, "QoS Class", &format!("{:?}", status.qos_class));
    page.push(&events::section(events, now));
    tame(page.text()).into_owned()
}

fn head(page: &mut Page, pod: &Value, status: &PodStatus) {
    let time = |time: Option<Timestamp>| time.map_or_else(String::new, |time| time.to_string());
    let map = |pointer: &str| pod.pointer(pointer).and_then(Value::as_object);
    page.field(0, "Name", metadata(pod, "name"));
    page.field(0, "Namespace", metadata(pod, "namespace"));
    let node = format!(
        "{}/{}",
        string(pod, "/spec/nodeName"),
        status.host_ip.as_deref().unwrap_or_default()
    );
    page.field(0, "Node", node.trim_end_matches('/'));
    page.field(0, "Created", &time(created(pod)));
    page.field(0, "Start Time", &time(status.start_time));
    page.map("Labels", map("/metadata/labels"));
    page.map("Annotations", map("/metadata/annotations"));
    match metadata(pod, "deletionTimestamp") {
        "" => page.field(0, "Status", pods::phase(status.phase)),
        until => page.field(0, "Status", &format!("Terminating (until {until})")),
    }
    for (key, value) in [("Reason", &status.reason), ("Message", &status.message)] {
        if let Some(value) = value {
            page.field(0, key, value);
        }
    }
    page.field(
        0,
        "IP",
        &or_none(status.pod_ip.as_deref().unwrap_or_default()),
    );
    let ips: Vec<String> = status.pod_ips.iter().map(|ip| ip.ip.clone()).collect();
    page.items(0, "IPs", &ips);
}

fn container(page: &mut Page, spec: &Value, statuses: &[ContainerStatus]) {
    let name = string(spec, "/name");
    let status = statuses.iter().find(|status| status.name == name);
    page.title(1, name);
    if let Some(id) = status.and_then(|status| status.container_id.as_deref()) {
        page.field(2, "Container ID", id);
    }
    page.field(2, "Image", string(spec, "/image"));
    if let Some(status) = status {
        page.field(2, "Image ID", &status.image_id);
    }
    let ports: Vec<String> = array(spec, "/ports").iter().map(port).collect();
    page.field(2, "Ports", &or_none(&ports.join(", ")));
    for (key, pointer) in [("Command", "/command"), ("Args", "/args")] {
        let words = array(spec, pointer).iter().filter_map(Value::as_str);
        let words: Vec<String> = words.map(str::to_owned).collect();
        if !words.is_empty() {
            page.items(2, key, &words);
        }
    }
    if let Some(status) = status {
        state(page, "State", &status.state);
        if let Some(end) = &status.last_state.terminated {
            page.field(2, "Last State", "Terminated");
            terminated(page, end);
        }
        page.field(2, "Ready", if status.ready { "True" } else { "False" });
        page.field(2, "Restart Count", &status.restart_count.to_string());
    }
    for (key, pointer) in [
        ("Limits", "/resources/limits"),
        ("Requests", "/resources/requests"),
    ] {
        if let Some(amounts) = spec.pointer(pointer).and_then(Value::as_object) {
            page.title(2, key);
            for (resource, amount) in amounts {
                page.field(3, resource, &plain(amount));
            }
        }
    }
    for (key, pointer) in [
        ("Liveness", "/livenessProbe"),
        ("Readiness", "/readinessProbe"),
        ("Startup", "/startupProbe"),
    ] {
        if let Some(spec) = spec.pointer(pointer) {
            page.field(2, key, &probe(spec));
        }
    }
    let sources: Vec<String> = array(spec, "/envFrom").iter().map(env_source).collect();
    if !sources.is_empty() {
        page.items(2, "Environment Variables from", &sources);
    }
    let env: Vec<String> = array(spec, "/env").iter().map(variable).collect();
    page.items(2, "Environment", &env);
    let mounts: Vec<String> = array(spec, "/volumeMounts").iter().map(mount).collect();
    page.items(2, "Mounts", &mounts);
    let devices = array(spec, "/volumeDevices").iter();
    let devices = devices.map(|one| {
        let (path, volume) = (string(one, "/devicePath"), string(one, "/name"));
        format!("{path} from {volume}")
    });
    let devices: Vec<String> = devices.collect();
    if !devices.is_empty() {
        page.items(2, "Devices", &devices);
    }
}

fn state(page: &mut Page, key: &str, state: &ContainerState) {
    match state {
        ContainerState::Waiting(waiting) => {
            page.field(2, key, "Waiting");
            page.field(3, "Reason", &waiting.reason);
            if let Some(message) = &waiting.message {
                page.field(3, "Message", message);
            }
        }
        ContainerState::Running(running) => {
            page.field(2, key, "Running");
            page.field(3, "Started", &running.started_at.to_string());
        }
        ContainerState::Terminated(end) => {
            page.field(2, key, "Terminated");
            terminated(page, end);
        }
    }
}

fn terminated(page: &mut Page, end: &Terminated) {
    page.field(3, "Reason", &end.reason);
    if let Some(message) = &end.message {
        page.field(3, "Message", message);
    }
    page.field(3, "Exit Code", &end.exit_code.to_string());
    if let Some(signal) = end.signal {
        page.field(3, "Signal", &signal.to_string());
    }
    for (key, time) in [("Started", end.started_at), ("Finished", end.finished_at)] {
        if let Some(time) = time {
            page.field(3, key, &time.to_string());
        }
    }
}

fn conditions(page: &mut Page, status: &PodStatus) {
    if status.conditions.is_empty() {
        return;
    }
    page.title(0, "Conditions");
    page.item(1, "Type                        Status");
    for condition in &status.conditions {
        let value = match condition.status {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
        };
        page.item(1, &format!("{:27} {value}", condition.r#type));
    }
}

fn volumes(page: &mut Page, pod: &Value) {
    let volumes = array(pod, "/spec/volumes");
    if volumes.is_empty() {
        page.field(0, "Volumes", "<none>");
        return;
    }
    page.title(0, "Volumes");
    for volume in volumes {
        page.title(1, string(volume, "/name"));
        let source = volume
            .as_object()
            .into_iter()
            .flatten()
            .find(|(key, _)| *key != "name");
        let Some((kind, source)) = source else {
            continue;
        };
        page.field(2, "Type", kind);
        for (key, value) in source.as_object().into_iter().flatten() {
            page.field(2, key, &plain(value));
        }
    }
}

fn port(port: &Value) -> String {
    let protocol = match string(port, "/protocol") {
        "" => "TCP",
        protocol => protocol,
    };
    let inner = port.get("containerPort").map(plain).unwrap_or_default();
    match port.get("hostPort").map(plain) {
        Some(host) => format!("{inner}/{protocol} (host {host})"),
        None => format!("{inner}/{protocol}"),
    }
}

fn mount(mount: &Value) -> String {
    let read_only = mount.get("readOnly") == Some(&Value::Bool(true));
    let sub_path = match string(mount, "/subPath") {
        "" => String::new(),
        path => format!(",path=\"{path}\""),
    };
    format!(
        "{} from {} ({}{sub_path})",
        string(mount, "/mountPath"),
        string(mount, "/name"),
        if read_only { "ro" } else { "rw" },
    )
}

fn env_source(source: &Value) -> String {
    let (kind, reference) = match source.get("secretRef") {
        Some(secret) => ("Secret", Some(secret)),
        None => ("ConfigMap", source.get("configMapRef")),
    };
    let name = reference.map_or("", |reference| string(reference, "/name"));
    let optional = reference.and_then(|reference| reference.get("optional"));
    let optional = optional == Some(&Value::Bool(true));
    let prefix = match string(source, "/prefix") {
        "" => String::new(),
        prefix => format!(" with prefix '{prefix}'"),
    };
    format!("{name}  {kind}{prefix}  Optional: {optional}")
}

/// `NAME: value`, or where the value comes from: never the content of a Secret.
fn variable(variable: &Value) -> String {
    let name = string(variable, "/name");
    let Some(from) = variable.get("valueFrom").and_then(Value::as_object) else {
        return format!("{name}: {}", string(variable, "/value"));
    };
    let sources: Vec<String> = from
        .iter()
        .map(|(source, reference)| {
            let text = |key: &str| reference.get(key).and_then(Value::as_str);
            match source.as_str() {
                "fieldRef" => format!("({})", text("fieldPath").unwrap_or_default()),
                "resourceFieldRef" => format!("({})", text("resource").unwrap_or_default()),
                source => format!(
                    "<set to the key `{}` of {} `{}`>",
                    text("key").unwrap_or_default(),
                    source.trim_end_matches("KeyRef"),
                    text("name").unwrap_or_default()
                ),
            }
        })
        .collect();
    format!("{name}: {}", sources.join(" "))
}

fn probe(spec: &Value) -> String {
    let number = |key: &str, default: u64| spec.get(key).and_then(Value::as_u64).unwrap_or(default);
    let action = spec
        .as_object()
        .into_iter()
        .flatten()
        .find(|(key, _)| matches!(key.as_str(), "exec" | "httpGet" | "tcpSocket" | "grpc"))
        .map_or_else(String::new, |(kind, action)| {
            format!("{kind} {}", plain(action))
        });
    format!(
        "{action} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3),
    )
}

/// A text without quotes, anything else as JSON.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_described_for_people() {
        let described = pod(
            &json!({
                "kind": "Pod",
                "metadata": { "name": "web", "namespace": "default",
                    "labels": { "a": "b", "c": "d" },
                    "creationTimestamp": "2026-01-01T00:00:00Z" },
                "spec": {
                    "nodeName": "here",
                    "volumes": [{ "name": "v", "emptyDir": {} }],
                    "containers": [{
                        "name": "c", "image": "i", "args": ["x", "y\nz\n"],
                        "ports": [{ "containerPort": 80, "hostPort": 8080 }],
                        "envFrom": [
                            { "configMapRef": { "name": "m" }, "prefix": "X_" },
                            { "secretRef": { "name": "s", "optional": true } },
                        ],
                        "env": [{ "name": "P", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }],
                        "volumeMounts": [{ "name": "v", "mountPath": "/v", "readOnly": true }],
                        "volumeDevices": [{ "name": "d", "devicePath": "/dev/xvda" }],
                    }],
                },
                "status": { "phase": "Running", "podIP": "10.0.0.2", "containerStatuses": [{
                    "name": "c", "ready": true, "image": "i", "imageID": "sha256:0",
                    "state": { "running": { "startedAt": "2026-01-01T00:00:01Z" } },
                }]},
            }),
            &[],
            Timestamp::UNIX_EPOCH,
        );
        let expected = "\
Name:               web
Namespace:          default
Node:               here
Created:            2026-01-01T00:00:00Z
Start Time:
Labels:             a=b
                    c=d
Annotations:        <none>
Status:             Running
IP:                 10.0.0.2
IPs:                <none>
Containers:
  c:
    Image:          i
    Image ID:       sha256:0
    Ports:          80/TCP (host 8080)
    Args:
      x
      y
      z

    State:          Running
      Started:      2026-01-01T00:00:01Z
    Ready:          True
    Restart Count:  0
    Environment Variables from:
      m  ConfigMap with prefix 'X_'  Optional: false
      s  Secret  Optional: true
    Environment:
      P: <set to the key `k` of secret `s`>
    Mounts:
      /v from v (ro)
    Devices:
      /dev/xvda from d
Volumes:
  v:
    Type:           emptyDir
QoS Class:          BestEffort
Events:  <none>
";
        assert_eq!(described, expected);
    }
}
