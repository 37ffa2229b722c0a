//! What containers and pods may use.

use serde::{Deserialize, Serialize};

use super::{ContainerPlan, ContainerRole, PodPlan};
use crate::model::status::QosClass;

/// `resources`; a container's with a missing request taken from the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    pub requests: ResourceAmounts,
    pub limits: ResourceAmounts,
}

/// Amounts of what kplay can account for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceAmounts {
    /// Thousandths of a CPU.
    pub cpu_milli: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes.
    pub ephemeral_storage: Option<u64>,
}

/// `resizePolicy`: what a change of each resource means for a running container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizePolicy {
    pub cpu: OnResize,
    pub memory: OnResize,
}

/// What happens to a running container when a resource of it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnResize {
    /// It goes on with the new limit.
    #[default]
    NotRequired,
    RestartContainer,
}

impl PodPlan {
    /// How much of something its containers have at the time when it is most: the main containers and the sidecars
    /// together, or an init container and the sidecars before it.
    pub fn most_at_once(&self, get: impl Fn(&ContainerPlan) -> Option<u64>) -> u64 {
        most_at_once(&self.init_containers, &self.containers, get)
    }

    /// What the pod requests: as it says itself, or else its containers together. A pod that only has a limit requests that.
    #[must_use]
    pub fn requested(&self, get: fn(&ResourceAmounts) -> Option<u64>) -> u64 {
        let of_containers = || {
            let mut all = self.all_containers();
            all.any(|container| get(&container.resources.requests).is_some())
                .then(|| self.most_at_once(|container| get(&container.resources.requests)))
        };
        let pods = self.resources.unwrap_or_default();
        let own = get(&pods.requests).or_else(of_containers);
        own.or(get(&pods.limits)).unwrap_or_default()
    }

    /// The pod's quality of service (`GetPodQOS`): by what it has itself, or else over all containers, init containers
    /// included. Only the sums are compared; a request that is not there is the limit.
    #[must_use]
    pub fn qos_class(&self) -> QosClass {
        let positive = |amount: Option<u64>| amount.filter(|amount| *amount > 0);
        let has_none = |amounts: &ResourceAmounts| {
            positive(amounts.cpu_milli).is_none() && positive(amounts.memory).is_none()
        };
        let parts: Vec<Resources> = match self.resources {
            Some(own) => {
                let requests = ResourceAmounts {
                    cpu_milli: Some(self.requested(|amounts| amounts.cpu_milli)),
                    memory: Some(self.requested(|amounts| amounts.memory)),
                    ephemeral_storage: None,
                };
                vec![Resources { requests, ..own }]
            }
            None => self.all_containers().map(|c| c.resources).collect(),
        };
        let is_guaranteed = |get: fn(&ResourceAmounts) -> Option<u64>| {
            let (mut requests, mut limits) = (0_u64, 0_u64);
            for part in &parts {
                let Some(limit) = positive(get(&part.limits)) else {
                    return false;
                };
                let request = positive(get(&part.requests)).unwrap_or(limit);
                requests = requests.saturating_add(request);
                limits = limits.saturating_add(limit);
            }
            requests == limits
        };
        if parts
            .iter()
            .all(|part| has_none(&part.requests) && has_none(&part.limits))
        {
            QosClass::BestEffort
        } else if is_guaranteed(|amounts| amounts.cpu_milli)
            && is_guaranteed(|amounts| amounts.memory)
        {
            QosClass::Guaranteed
        } else {
            QosClass::Burstable
        }
    }
}

/// As [`PodPlan::most_at_once`], of these containers.
pub fn most_at_once(
    init_containers: &[ContainerPlan],
    containers: &[ContainerPlan],
    get: impl Fn(&ContainerPlan) -> Option<u64>,
) -> u64 {
    let amount = |container: &ContainerPlan| get(container).unwrap_or_default();
    let (mut sidecars, mut peak) = (0_u64, 0);
    for container in init_containers {
        match container.role {
            ContainerRole::Sidecar => sidecars = amount(container).saturating_add(sidecars),
            ContainerRole::Init | ContainerRole::Main => {
                peak = peak.max(amount(container).saturating_add(sidecars));
            }
        }
    }
    let all = containers.iter().map(amount);
    peak.max(all.fold(sidecars, u64::saturating_add))
}
