//! Plans for tests.

use crate::model::plan::{ContainerPlan, ContainerRole, PodPlan, ResourceAmounts};
use crate::model::testing;

pub(super) fn pod(init_containers: Vec<ContainerPlan>, containers: Vec<ContainerPlan>) -> PodPlan {
    PodPlan {
        init_containers,
        containers,
        ..testing::plan("web")
    }
}

pub(super) fn container(name: &str) -> ContainerPlan {
    testing::container(name, ContainerRole::Main)
}

/// CPU in thousandths, memory in bytes; 0 is none.
pub(super) fn amounts(cpu_milli: u64, memory: u64) -> ResourceAmounts {
    ResourceAmounts {
        cpu_milli: Some(cpu_milli).filter(|amount| *amount > 0),
        memory: Some(memory).filter(|amount| *amount > 0),
        ephemeral_storage: None,
    }
}
