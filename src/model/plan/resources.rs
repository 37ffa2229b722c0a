//! What containers and pods may use.

use serde::{Deserialize, Serialize};

use super::{ContainerPlan, ContainerRole, PodPlan};

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
