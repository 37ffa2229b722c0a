//! Resources in the kernel's terms: cgroup numbers, quality of service, OOM scores
//! (`cm/helpers_linux.go`, `qos/policy.go`, `kuberuntime_container_linux.go`). Pure.

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

/// The limits of one container.
#[must_use]
pub fn of_container(container: &ContainerPlan) -> CgroupLimits {
    limits(
        container.resources.requests.cpu_milli,
        container.resources.limits,
    )
}

/// The limits of the pod: a limit only if every container has it.
#[must_use]
pub fn of_pod(plan: &PodPlan) -> CgroupLimits {
    let all = |get: fn(&ResourceAmounts) -> Option<u64>| {
        plan.all_containers()
            .all(|container| get(&container.resources.limits).is_some())
            .then(|| needed(plan, |container| get(&container.resources.limits)))
    };
    let limits_of_pod = ResourceAmounts {
        cpu_milli: all(|amounts| amounts.cpu_milli),
        memory: all(|amounts| amounts.memory),
        ephemeral_storage: None,
    };
    let requested = needed(plan, |container| container.resources.requests.cpu_milli);
    limits(Some(requested), limits_of_pod)
}

/// The version 2 weight of a pod's cgroup, 1–10000, as a kubelet computes it: linear, unlike a container's, which is
/// the runtime's (`getCPUWeight`). Pods are weighed against pods, containers against containers.
#[must_use]
pub fn pod_cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(MIN_SHARES, MAX_SHARES) - MIN_SHARES) * 9999 / (MAX_SHARES - MIN_SHARES)
}

/// max(main containers and sidecars together, each init container with the sidecars before it).
fn needed(plan: &PodPlan, get: impl Fn(&ContainerPlan) -> Option<u64>) -> u64 {
    let amount = |container: &ContainerPlan| get(container).unwrap_or_default();
    let (mut sidecars, mut peak) = (0, 0);
    for container in &plan.init_containers {
        match container.role {
            ContainerRole::Sidecar => sidecars += amount(container),
            ContainerRole::Init | ContainerRole::Main => {
                peak = peak.max(sidecars + amount(container));
            }
        }
    }
    let together: u64 = plan.containers.iter().map(amount).sum();
    peak.max(together + sidecars)
}

fn limits(requested_cpu: Option<u64>, limits: ResourceAmounts) -> CgroupLimits {
    let requested = requested_cpu.or(limits.cpu_milli).unwrap_or_default();
    CgroupLimits {
        cpu_shares: (requested * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES),
        cpu_quota_us: limits
            .cpu_milli
            .filter(|milli| *milli > 0)
            .map(|milli| (milli * CPU_PERIOD_US / 1000).max(MIN_QUOTA_US)),
        memory_bytes: limits.memory.filter(|bytes| *bytes > 0),
    }
}

/// The pod's quality of service (`GetPodQOS`): over all containers, init containers included.
#[must_use]
pub fn qos_class(plan: &PodPlan) -> QosClass {
    let amounts = |amounts: &ResourceAmounts| [amounts.cpu_milli, amounts.memory];
    let set = |value: &Option<u64>| value.is_some_and(|value| value > 0);
    let none = plan.all_containers().all(|container| {
        !amounts(&container.resources.requests).iter().any(set)
            && !amounts(&container.resources.limits).iter().any(set)
    });
    if none {
        return QosClass::BestEffort;
    }
    let guaranteed = plan.all_containers().all(|container| {
        let limits = amounts(&container.resources.limits);
        let requests = amounts(&container.resources.requests);
        limits.iter().all(set)
            && requests
                .iter()
                .zip(&limits)
                .all(|(request, limit)| request.is_none() || request == limit)
    });
    if guaranteed {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// `oom_score_adj` of a container on a machine with this much memory (`GetContainerOOMScoreAdjust`).
#[must_use]
pub fn oom_score_adj(plan: &PodPlan, container: &ContainerPlan, capacity_bytes: u64) -> i32 {
    match qos_class(plan) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let score = |container: &ContainerPlan| {
                let request = container.resources.requests.memory.unwrap_or_default();
                let used = u128::from(request) * 1000 / u128::from(capacity_bytes.max(1));
                1000 - i32::try_from(used).unwrap_or(1000)
            };
            let own = score(container);
            // A sidecar is no likelier victim than the smallest main container.
            let wanted = match container.role {
                ContainerRole::Sidecar => plan
                    .containers
                    .iter()
                    .map(score)
                    .fold(own, std::cmp::Ord::min),
                ContainerRole::Init | ContainerRole::Main => own,
            };
            wanted.clamp(3, 999)
        }
    }
}

/// A `resourceFieldRef`'s value: the amount in milli-units over the divisor, rounded up.
#[must_use]
pub fn field_value(amount_milli: u128, divisor_milli: u64) -> u128 {
    amount_milli.div_ceil(u128::from(divisor_milli.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_and_memory_in_the_kernels_units() {
        let check = |request: Option<u64>, limit: Option<u64>, shares: u64, quota: Option<u64>| {
            let amounts = ResourceAmounts {
                cpu_milli: limit,
                ..ResourceAmounts::default()
            };
            let limits = limits(request, amounts);
            assert_eq!((limits.cpu_shares, limits.cpu_quota_us), (shares, quota));
        };
        check(None, None, 2, None);
        check(Some(100), None, 102, None);
        check(Some(1), None, 2, None);
        check(None, Some(500), 512, Some(50_000));
        check(Some(250), Some(2000), 256, Some(200_000));
        check(None, Some(5), 5, Some(1000));
        check(Some(1_000_000), None, MAX_SHARES, None);
    }

    #[test]
    fn pod_weights() {
        let check = |shares: u64, weight: u64| assert_eq!(pod_cpu_weight(shares), weight);
        check(0, 1);
        check(MIN_SHARES, 1);
        check(1024, 39);
        check(MAX_SHARES, 10_000);
        check(MAX_SHARES + 1, 10_000);
    }

    #[test]
    fn a_field_is_rounded_up() {
        assert_eq!(field_value(250, 1000), 1);
        assert_eq!(field_value(250, 1), 250);
        assert_eq!(field_value(2000, 1000), 2);
        assert_eq!(field_value(64 * 1024 * 1024 * 1000, 1024 * 1024 * 1000), 64);
    }
}
