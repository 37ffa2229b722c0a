//! `resources` of a container: amounts that are accounted for, and the rules between them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::super::decode::closest;
use super::super::node::At;
use super::super::report::Report;
use super::pod::choice;
use crate::model::diagnostic::{Diagnostic, Severity};
use crate::model::plan::{
    ContainerPlan, OnResize, ResizePolicy, ResourceAmounts, Resources, most_at_once,
};
use crate::model::quantity::Quantity;

/// What the names of huge pages begin with; the size of a page follows.
const HUGE_PAGES: &str = "hugepages-";

const KNOWN: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// What the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
}

/// Writes the amounts of a pod as an API server does.
pub(super) fn write(spec: &mut PodSpec) {
    let init = spec.init_containers.iter_mut().flatten();
    let containers = init.chain(&mut spec.containers);
    let of_containers = containers.filter_map(|container| container.resources.as_mut());
    let lists = of_containers
        .chain(&mut spec.resources)
        .flat_map(|resources| [&mut resources.limits, &mut resources.requests]);
    let amounts = lists.flatten().flat_map(BTreeMap::values_mut);
    let volumes = spec.volumes.iter_mut().flatten();
    let sizes = volumes.filter_map(|volume| volume.empty_dir.as_mut()?.size_limit.as_mut());
    for amount in amounts.chain(sizes) {
        // Another fault if it is none.
        if let Ok(text) = Quantity::canonical(&amount.0) {
            amount.0 = text;
        }
    }
}

type Get = fn(&ResourceAmounts) -> Option<u64>;

/// The resources that count for pods, as amounts are written and as they are read.
const OF_PODS: [(&str, Get); 2] = [
    ("cpu", |amounts| amounts.cpu_milli),
    ("memory", |amounts| amounts.memory),
];

/// Reads and checks the resources of a pod as a whole. `at` is the pod's `spec`.
pub(super) fn of_pod(
    spec: &PodSpec,
    init_containers: &[ContainerPlan],
    containers: &[ContainerPlan],
    at: At<'_>,
    report: &Report,
) -> Option<Resources> {
    let requirements = spec.resources.as_ref()?;
    let place = at.field("resources");
    let resources = convert(requirements, place, report);
    for (list, amounts) in [
        ("requests", &requirements.requests),
        ("limits", &requirements.limits),
    ] {
        for name in amounts.iter().flatten().map(|(name, _)| name) {
            if name == "ephemeral-storage" {
                let message =
                    "a pod as a whole has no `ephemeral-storage`: only its containers have";
                report.error(place.field(list).key(name), message);
            }
            let at_name = place.field(list);
            if name.starts_with(HUGE_PAGES) && at_name.field(name).exists() {
                let message =
                    format!("`{name}` of a pod as a whole is ignored: its containers' count");
                report.note(at_name.key(name), message);
            }
        }
    }
    for (name, get) in OF_PODS {
        let sum = most_at_once(init_containers, containers, |c| get(&c.resources.requests));
        if get(&resources.requests).is_some_and(|pods| pods < sum) {
            let message = format!("the pod requests less {name} than its containers together");
            report.error(place.field("requests").field(name), message);
        }
        // A request of the pod's own has been compared with the limit.
        let own_request = place.field("requests").field(name).exists();
        if !own_request && get(&resources.limits).is_some_and(|limit| limit < sum) {
            let message = format!(
                "the pod's limit of {name} is less than what its containers request together"
            );
            report.error(place.field("limits").field(name), message);
        }
        for container in init_containers.iter().chain(containers) {
            let limits = (get(&container.resources.limits), get(&resources.limits));
            if let (Some(own), Some(pods)) = limits
                && own > pods
            {
                let message = format!(
                    "the pod's limit of {name} is less than that of its container `{}`",
                    container.name
                );
                report.error(place.field("limits").field(name), message);
            }
        }
    }
    let is_empty = resources == Resources::default();
    (!is_empty).then_some(resources)
}

/// Warns of a pod that no scheduler would place on this machine. `at` is the pod's `spec`.
pub(super) fn check_capacity(
    pods: Option<Resources>,
    init_containers: &[ContainerPlan],
    containers: &[ContainerPlan],
    capacity: Capacity,
    at: At<'_>,
    report: &Report,
) {
    for ((name, get), there) in OF_PODS
        .into_iter()
        .zip([capacity.cpu_milli, capacity.memory])
    {
        let own = pods.and_then(|pods| get(&pods.requests));
        let requested = own.unwrap_or_else(|| {
            most_at_once(init_containers, containers, |c| get(&c.resources.requests))
        });
        if requested <= there {
            continue;
        }
        let amount = |amount: u64| match name {
            "cpu" => format!("{amount}m"),
            _ => format!("{}Mi", amount >> 20),
        };
        let message = format!(
            "the pod requests {} of {name}, and this machine has {}: a scheduler would not place it here",
            amount(requested),
            amount(there)
        );
        report.push(Diagnostic::new(Severity::Warning, message).at(at.place()));
    }
}

/// Reads `resizePolicy`. `at` is the container.
pub(super) fn resize_policy(
    container: &Container,
    pod_never_restarts: NeverRestarts,
    at: At<'_>,
    report: &Report,
) -> ResizePolicy {
    let mut policy = ResizePolicy::default();
    let mut seen = Vec::new();
    for (index, entry) in container.resize_policy.iter().flatten().enumerate() {
        let place = at.field("resizePolicy").index(index);
        let values = [
            ("NotRequired", OnResize::NotRequired),
            ("RestartContainer", OnResize::RestartContainer),
        ];
        let at_policy = place.field("restartPolicy");
        let chosen = choice(
            &entry.restart_policy,
            &values,
            "restartPolicy",
            at_policy,
            report,
        );
        if chosen == Some(OnResize::RestartContainer) && pod_never_restarts == NeverRestarts::Yes {
            let message = "`RestartContainer` does not go with the pod's `restartPolicy: Never`";
            report.error(at_policy, message);
        }
        let at_name = place.field("resourceName");
        let name = entry.resource_name.as_str();
        if seen.contains(&name) {
            report.error(at_name, format!("the policy for {name} is there twice"));
        }
        seen.push(name);
        let names = [("cpu", true), ("memory", false)];
        match choice(name, &names, "resourceName", at_name, report) {
            Some(true) => policy.cpu = chosen.unwrap_or_default(),
            Some(false) => policy.memory = chosen.unwrap_or_default(),
            None => {}
        }
    }
    policy
}

/// Whether a pod's `restartPolicy` is `Never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NeverRestarts {
    Yes,
    No,
}

/// Reads requests and limits. Requests that are missing were taken from the limits already.
pub(super) fn convert(resources: &ResourceRequirements, at: At<'_>, report: &Report) -> Resources {
    let empty = BTreeMap::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    for (name, request) in requests {
        let limit = limits
            .get(name)
            .and_then(|limit| Quantity::parse(&limit.0).ok());
        let parsed = Quantity::parse(&request.0).ok();
        if let (Some(limit), Some(parsed), true) =
            (limit, parsed, at.field("requests").field(name).exists())
            && parsed > limit
        {
            let limit = &limits.get(name).map_or("", |limit| limit.0.as_str());
            let message = format!(
                "the request for {name} (`{}`) is more than its limit (`{limit}`)",
                request.0
            );
            report.error(at.field("requests").field(name), message);
        }
    }
    Resources {
        limits: amounts(limits, at.field("limits"), report),
        requests: amounts(requests, at.field("requests"), report),
    }
}

/// Reads the limits of huge pages of a container: in bytes, by the size of a page.
pub(super) fn huge_pages(
    resources: &ResourceRequirements,
    at: At<'_>,
    report: &Report,
) -> BTreeMap<u64, u64> {
    let bytes = |text: &str| {
        let quantity = Quantity::parse(text).ok()?;
        u64::try_from(quantity.value()).ok()
    };
    let of = |list: &Option<BTreeMap<String, Text>>| list.clone().unwrap_or_default();
    let (requests, limits) = (of(&resources.requests), of(&resources.limits));
    for (name, request) in requests
        .iter()
        .filter(|(name, _)| name.starts_with(HUGE_PAGES))
    {
        let limit = limits.get(name).and_then(|limit| bytes(&limit.0));
        if limit.is_none() || limit != bytes(&request.0) {
            let message = format!("the request for {name} must be its limit");
            report.error(at.field("requests").field(name), message);
        }
    }
    let mut amounts = BTreeMap::new();
    for (name, limit) in &limits {
        let place = at.field("limits").key(name);
        let Some(size) = name.strip_prefix(HUGE_PAGES) else {
            continue;
        };
        let (Some(size), Some(limit)) = (bytes(size).filter(|size| *size > 0), bytes(&limit.0))
        else {
            let message = format!("`{name}` is no amount of huge pages");
            report.error_hint(place, message, "an example is `hugepages-2Mi: 64Mi`");
            continue;
        };
        if limit % size != 0 {
            let message = format!("the limit of {name} must be a multiple of the size of a page");
            report.error(place, message);
        }
        amounts.insert(size, limit);
    }
    if !amounts.is_empty()
        && !["cpu", "memory"]
            .iter()
            .any(|name| requests.contains_key(*name))
    {
        let message = "huge pages go with a request or a limit of cpu or memory only";
        report.error(at, message);
    }
    amounts
}

fn amounts(texts: &BTreeMap<String, Text>, at: At<'_>, report: &Report) -> ResourceAmounts {
    let mut amounts = ResourceAmounts::default();
    for (name, text) in texts {
        let place = at.field(name);
        let Ok(quantity) = Quantity::parse(&text.0) else {
            continue; // Was reported where it was read.
        };
        if quantity.is_negative() {
            report.error(
                place,
                format!("{name} must not be negative, is `{}`", text.0),
            );
            continue;
        }
        let bytes = u64::try_from(quantity.value()).ok();
        match name.as_str() {
            "cpu" => amounts.cpu_milli = u64::try_from(quantity.milli()).ok(),
            "memory" => amounts.memory = bytes,
            "ephemeral-storage" => amounts.ephemeral_storage = bytes,
            // A request that came from its limit has no place of its own and is told there.
            _ if !place.exists() => {}
            name if name.starts_with(HUGE_PAGES) => {}
            name if name.contains('/') => {
                report.note(
                    at.key(name),
                    format!(
                        "`{name}` is ignored: kplay accounts for cpu, memory, ephemeral-storage and huge pages"
                    ),
                );
            }
            name => {
                let fault = Diagnostic::error(format!("there is no resource `{name}`"))
                    .at(at.key(name).place());
                report.push(match closest(name, &KNOWN) {
                    Some(known) => fault.hint(format!("did you mean `{known}`?")),
                    None => fault.hint("resources are `cpu`, `memory` and `ephemeral-storage`"),
                });
            }
        }
    }
    amounts
}
