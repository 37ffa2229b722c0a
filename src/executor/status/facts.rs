//! What a status says that does not change while the pod lives, from the pod's manifest.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::image::Image;
use crate::model::names::ContainerName;
use crate::model::plan::{ContainerPlan, PodPlan};
use crate::model::status::{
    Generation, QosClass, ResourceList, ResourceRequirements, VolumeMountStatus,
};

/// Of the pod.
#[derive(Debug)]
pub(in crate::executor) struct Facts {
    pub(super) generation: Generation,
    pub(super) host_ip: Option<String>,
    pub(super) pod_ips: Vec<String>,
    pub(super) qos_class: QosClass,
    /// `spec.readinessGates`
    pub(super) readiness_gates: Vec<String>,
    /// In the members' order.
    pub(super) containers: Vec<ContainerFacts>,
}

/// Of one container.
#[derive(Debug)]
pub(in crate::executor) struct ContainerFacts {
    /// As the manifest has it.
    pub(super) image: String,
    pub(super) image_id: String,
    pub(super) resources: ResourceRequirements,
    pub(super) volume_mounts: Vec<VolumeMountStatus>,
}

impl Facts {
    /// The facts of a pod with these images and addresses on a machine with this one.
    pub(in crate::executor) fn new(
        plan: &PodPlan,
        generation: Generation,
        images: &BTreeMap<ContainerName, Image>,
        host_ip: Option<String>,
        pod_ips: Vec<String>,
        qos_class: QosClass,
    ) -> Self {
        let gates = array(&plan.manifest, "/spec/readinessGates").iter();
        Self {
            generation,
            host_ip,
            pod_ips,
            qos_class,
            readiness_gates: gates.map(|gate| text(gate, "conditionType")).collect(),
            containers: plan
                .all_containers()
                .map(|container| ContainerFacts::new(plan, container, images))
                .collect(),
        }
    }
}

impl ContainerFacts {
    fn new(
        pod: &PodPlan,
        container: &ContainerPlan,
        images: &BTreeMap<ContainerName, Image>,
    ) -> Self {
        let image = images.get(&container.name);
        let manifest = ["/spec/initContainers", "/spec/containers"]
            .into_iter()
            .flat_map(|list| array(&pod.manifest, list))
            .find(|found| text(found, "name") == container.name.as_str())
            .unwrap_or(&Value::Null);
        Self {
            image: container.image.clone(),
            image_id: image.map_or_else(String::new, |image| image.id.clone()),
            resources: ResourceRequirements {
                limits: amounts(manifest, "/resources/limits"),
                requests: amounts(manifest, "/resources/requests"),
            },
            volume_mounts: array(manifest, "/volumeMounts")
                .iter()
                .map(volume_mount)
                .collect(),
        }
    }
}

fn volume_mount(mount: &Value) -> VolumeMountStatus {
    let is_read_only = mount.get("readOnly").and_then(Value::as_bool) == Some(true);
    let recursive = match text(mount, "recursiveReadOnly").as_str() {
        "Enabled" | "IfPossible" => "Enabled",
        _ => "Disabled",
    };
    VolumeMountStatus {
        name: text(mount, "name"),
        mount_path: text(mount, "mountPath"),
        read_only: is_read_only.then_some(true),
        recursive_read_only: is_read_only.then(|| recursive.into()),
    }
}

fn amounts(container: &Value, pointer: &str) -> Option<ResourceList> {
    let map = container.pointer(pointer)?.as_object()?;
    let amount = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let amounts = map
        .iter()
        .map(|(name, value)| (name.clone(), amount(value)));
    Some(amounts.collect()).filter(|amounts: &ResourceList| !amounts.is_empty())
}

fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    let array = value.pointer(pointer).and_then(Value::as_array);
    array.map_or(&[], Vec::as_slice)
}

fn text(value: &Value, key: &str) -> String {
    let text = value.get(key).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}
