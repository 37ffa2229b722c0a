//! Resources in the kernel's terms: cgroup numbers, quality of service, OOM scores
//! (`cm/helpers_linux.go`, `qos/policy.go`, `kuberuntime_container_linux.go`). Pure.
//!
//! Memory is limited, and neither throttled (`memory.high`) nor reserved (`memory.min`, `memory.low`): so it is with a kubelet of
//! 1.37, whose `MemoryQoS` is on and does nothing unless the node's `memoryThrottlingFactor` or `memoryReservationPolicy` is set.

use std::collections::BTreeMap;

use crate::model::plan::{ContainerPlan, ContainerRole, PodPlan, ResourceAmounts};
use crate::model::status::QosClass;

/// The period of CPU quotas, in microseconds.
pub const CPU_PERIOD_US: u64 = 100_000;
/// The CPU shares of what requests nothing.
pub const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const MIN_QUOTA_US: u64 = 1000;

/// What a cgroup is limited to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Relative weight, 2–262144 (v1's unit; 1 CPU is 1024).
    pub cpu_shares: u64,
    /// Microseconds per [`CPU_PERIOD_US`].
    pub cpu_quota_us: Option<u64>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
}

/// The limits of one container. One without a limit has its pod's.
#[must_use]
pub fn of_container(plan: &PodPlan, container: &ContainerPlan) -> CgroupLimits {
    let own = container.resources.limits;
    let pods = plan.resources.unwrap_or_default().limits;
    let amounts = ResourceAmounts {
        cpu_milli: own.cpu_milli.or(pods.cpu_milli),
        memory: own.memory.or(pods.memory),
        ephemeral_storage: None,
    };
    limits(container.resources.requests.cpu_milli, amounts)
}

/// The limits of the pod: its own, or those of its containers together if every one has one.
#[must_use]
pub fn of_pod(plan: &PodPlan) -> CgroupLimits {
    let pods = plan.resources.unwrap_or_default().limits;
    let all = |get: fn(&ResourceAmounts) -> Option<u64>| {
        let of_containers = || {
            // A limit of nothing is none.
            plan.all_containers()
                .all(|container| get(&container.resources.limits).is_some_and(|limit| limit > 0))
                .then(|| plan.most_at_once(|container| get(&container.resources.limits)))
        };
        get(&pods).or_else(of_containers)
    };
    let limits_of_pod = ResourceAmounts {
        cpu_milli: all(|amounts| amounts.cpu_milli),
        memory: all(|amounts| amounts.memory),
        ephemeral_storage: None,
    };
    limits(
        Some(plan.requested(|amounts| amounts.cpu_milli)),
        limits_of_pod,
    )
}

/// The huge pages that a pod may have, in bytes by the size of a page: as it says itself, or its containers together.
#[must_use]
pub fn huge_pages_of_pod(plan: &PodPlan) -> BTreeMap<u64, u64> {
    let sizes = plan
        .all_containers()
        .flat_map(|container| container.huge_pages.keys());
    let of = |size: &u64| plan.most_at_once(|container| container.huge_pages.get(size).copied());
    let mut all: BTreeMap<u64, u64> = sizes.map(|size| (*size, of(size))).collect();
    all.extend(&plan.huge_pages);
    all
}

/// The huge pages that a container may have: its own, and of other sizes the pod's.
#[must_use]
pub fn huge_pages_of_container(plan: &PodPlan, container: &ContainerPlan) -> BTreeMap<u64, u64> {
    let mut all = plan.huge_pages.clone();
    all.extend(&container.huge_pages);
    all
}

/// The version 2 weight of a pod's cgroup, 1–10000, as a kubelet computes it: linear, unlike a container's, which is
/// the runtime's (`getCPUWeight`). Pods are weighed against pods, containers against containers.
#[must_use]
pub fn pod_cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(MIN_SHARES, MAX_SHARES) - MIN_SHARES) * 9999 / (MAX_SHARES - MIN_SHARES)
}

fn limits(requested_cpu: Option<u64>, limits: ResourceAmounts) -> CgroupLimits {
    let requested = requested_cpu.or(limits.cpu_milli).unwrap_or_default();
    CgroupLimits {
        cpu_shares: (requested.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES),
        cpu_quota_us: limits
            .cpu_milli
            .filter(|milli| *milli > 0)
            .map(|milli| (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(MIN_QUOTA_US)),
        memory_bytes: limits.memory.filter(|bytes| *bytes > 0),
    }
}

/// `oom_score_adj` of a container on a machine with this much memory (`GetContainerOOMScoreAdjust`).
#[must_use]
pub fn oom_score_adj(plan: &PodPlan, container: &ContainerPlan, capacity_bytes: u64) -> i32 {
    match plan.qos_class() {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = |container: &ContainerPlan| container.resources.requests.memory;
            let own = request(container).unwrap_or_default();
            let request = match container.role {
                // No likelier a victim than the main container with the smallest request.
                ContainerRole::Sidecar => {
                    let smallest = plan.containers.iter().map(request).min().flatten();
                    own.max(smallest.unwrap_or_default())
                }
                ContainerRole::Init | ContainerRole::Main => own,
            };
            let request = request.saturating_add(unassigned_memory(plan));
            let part = u128::from(request) * 1000 / u128::from(capacity_bytes.max(1));
            let part = i32::try_from(part).unwrap_or(i32::MAX);
            1000_i32.saturating_sub(part).clamp(3, 999)
        }
    }
}

/// Each container's part of what the pod requests beyond its containers (`remainingPodMemReqPerContainer`).
fn unassigned_memory(plan: &PodPlan) -> u64 {
    if plan.resources.is_none() {
        return 0;
    }
    let of_containers = plan.most_at_once(|container| container.resources.requests.memory);
    let rest = plan
        .requested(|amounts| amounts.memory)
        .saturating_sub(of_containers);
    rest / (plan.all_containers().count() as u64).max(1)
}

/// A `resourceFieldRef`'s value: the amount in milli-units over the divisor, rounded up.
#[must_use]
pub fn field_value(amount_milli: u128, divisor_milli: u64) -> u128 {
    amount_milli.div_ceil(u128::from(divisor_milli.max(1)))
}

#[cfg(test)]
mod tests;
