use super::*;
use crate::model::plan::Resources;
use crate::model::status::QosClass;
use crate::spec::fixtures::{amounts, container, pod};

const GI: u64 = 1 << 30;

/// A container with requests and limits, each CPU in thousandths and memory in bytes.
fn with(name: &str, requests: (u64, u64), limits: (u64, u64)) -> ContainerPlan {
    let mut container = container(name);
    container.resources = Resources {
        requests: amounts(requests.0, requests.1),
        limits: amounts(limits.0, limits.1),
    };
    container
}

fn init(name: &str, requests: (u64, u64), limits: (u64, u64)) -> ContainerPlan {
    ContainerPlan {
        role: ContainerRole::Init,
        ..with(name, requests, limits)
    }
}

fn sidecar(name: &str, requests: (u64, u64), limits: (u64, u64)) -> ContainerPlan {
    ContainerPlan {
        role: ContainerRole::Sidecar,
        ..with(name, requests, limits)
    }
}

const NONE: (u64, u64) = (0, 0);

#[test]
fn the_qos_class_is_over_all_containers() {
    let check = |inits: &[ContainerPlan], mains: &[ContainerPlan], expected| {
        assert_eq!(pod(inits.to_vec(), mains.to_vec()).qos_class(), expected);
    };
    let full = (100, GI);
    check(&[], &[with("a", NONE, NONE)], QosClass::BestEffort);
    check(&[], &[with("a", full, full)], QosClass::Guaranteed);
    check(
        &[],
        &[with("a", full, full), with("b", (5, 5), (5, 5))],
        QosClass::Guaranteed,
    );
    check(
        &[init("i", full, full)],
        &[with("a", full, full)],
        QosClass::Guaranteed,
    );
    check(
        &[init("i", NONE, NONE)],
        &[with("a", full, full)],
        QosClass::Burstable,
    );
    check(
        &[init("i", full, NONE)],
        &[with("a", NONE, NONE)],
        QosClass::Burstable,
    );
    check(
        &[],
        &[with("a", full, full), with("b", NONE, NONE)],
        QosClass::Burstable,
    );
    check(&[], &[with("a", (50, GI), full)], QosClass::Burstable);
    check(&[], &[with("a", (100, 0), (100, 0))], QosClass::Burstable);
    check(&[], &[with("a", NONE, (0, 1))], QosClass::Burstable);
    // Only the sums must be equal.
    check(
        &[],
        &[with("a", (1, GI), (2, GI)), with("b", (2, GI), (1, GI))],
        QosClass::Guaranteed,
    );
    // Zero is none.
    let mut zero = container("a");
    zero.resources.requests.cpu_milli = Some(0);
    check(&[], &[zero], QosClass::BestEffort);
}

#[test]
fn the_kernel_kills_best_effort_first() {
    let score = |pod: &PodPlan, container: &ContainerPlan| oom_score_adj(pod, container, 4 * GI);
    let single = |container: ContainerPlan| {
        let pod = pod(Vec::new(), vec![container]);
        score(&pod, &pod.containers[0])
    };
    assert_eq!(single(with("a", NONE, NONE)), 1000);
    assert_eq!(single(with("a", (1, GI), (1, GI))), -997);
    assert_eq!(single(with("a", (100, 0), NONE)), 999);
    assert_eq!(single(with("a", (0, 1), NONE)), 999);
    assert_eq!(single(with("a", (0, GI), NONE)), 750);
    assert_eq!(single(with("a", (0, 4 * GI), NONE)), 3);
    assert_eq!(single(with("a", (0, u64::MAX), NONE)), 3);
    let mixed = pod(
        vec![sidecar("s", (0, GI / 4), NONE), init("i", NONE, NONE)],
        vec![with("a", (0, GI), NONE), with("b", (0, 2 * GI), NONE)],
    );
    // The sidecar is killed no sooner than the main container with the smallest request.
    assert_eq!(score(&mixed, &mixed.init_containers[0]), 750);
    assert_eq!(score(&mixed, &mixed.init_containers[1]), 999);
    let large = pod(
        vec![sidecar("s", (0, 2 * GI), NONE)],
        vec![with("a", (0, GI), NONE)],
    );
    assert_eq!(score(&large, &large.init_containers[0]), 500);
    assert_eq!(oom_score_adj(&large, &large.containers[0], 0), 3);
}

#[test]
fn shares_and_quotas_are_a_kubelets() {
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
    check(None, Some(0), 2, None);
    check(None, Some(1), 2, Some(1000));
    check(None, Some(500), 512, Some(50_000));
    check(Some(250), Some(2000), 256, Some(200_000));
    check(Some(256_000), None, MAX_SHARES, None);
    check(Some(u64::MAX), None, MAX_SHARES, None);
}

#[test]
fn a_containers_limits_are_its_own() {
    let check = |requests: (u64, u64), limits: (u64, u64), shares, quota, memory| {
        let pod = pod(Vec::new(), vec![with("a", requests, limits)]);
        let actual = of_container(&pod, &pod.containers[0]);
        let expected = CgroupLimits {
            cpu_shares: shares,
            cpu_quota_us: quota,
            memory_bytes: memory,
        };
        assert_eq!(actual, expected);
    };
    check(NONE, NONE, 2, None, None);
    check((500, GI), NONE, 512, None, None);
    check((500, GI), (1000, 2 * GI), 512, Some(100_000), Some(2 * GI));
    check(NONE, (1000, 0), 1024, Some(100_000), None);
}

#[test]
fn a_pods_limits_are_those_of_the_time_when_it_uses_most() {
    let check = |inits: &[ContainerPlan],
                 mains: &[ContainerPlan],
                 expected: (u64, Option<u64>, Option<u64>)| {
        let limits = of_pod(&pod(inits.to_vec(), mains.to_vec()));
        assert_eq!(
            (limits.cpu_shares, limits.cpu_quota_us, limits.memory_bytes),
            expected
        );
    };
    let a = |n: u64| with("a", (1000 * n, n), (1000 * n, n));
    check(&[], &[with("a", NONE, NONE)], (2, None, None));
    check(&[], &[a(1), a(2)], (3072, Some(300_000), Some(3)));
    // A limit counts only if all have one.
    check(
        &[],
        &[a(1), with("b", (1000, 0), (0, 5))],
        (2048, None, Some(6)),
    );
    check(&[init("i", NONE, NONE)], &[a(1)], (1024, None, None));
    // Init containers run alone.
    check(
        &[init("i", (5000, 5), (5000, 5))],
        &[a(1), a(2)],
        (5120, Some(500_000), Some(5)),
    );
    check(
        &[init("i", (2000, 2), (2000, 2))],
        &[a(1), a(2)],
        (3072, Some(300_000), Some(3)),
    );
    // Sidecars run with what is started after them.
    let s = sidecar("s", (1000, 1), (1000, 1));
    let i = init("i", (5000, 5), (5000, 5));
    check(
        &[s.clone(), i.clone()],
        &[a(1)],
        (6144, Some(600_000), Some(6)),
    );
    check(
        &[i.clone(), s.clone()],
        &[a(1)],
        (5120, Some(500_000), Some(5)),
    );
    check(&[s.clone(), i, s], &[a(5)], (7168, Some(700_000), Some(7)));
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

/// A pod with requests and limits of its own.
fn whole(requests: (u64, u64), limits: (u64, u64), containers: &[ContainerPlan]) -> PodPlan {
    let resources = Resources {
        requests: amounts(requests.0, requests.1),
        limits: amounts(limits.0, limits.1),
    };
    PodPlan {
        resources: Some(resources),
        ..pod(Vec::new(), containers.to_vec())
    }
}

#[test]
fn a_pods_own_resources_count_before_its_containers() {
    let none = with("a", NONE, NONE);
    let small = with("b", (500, GI), (1000, GI));
    let check = |plan: &PodPlan, shares: u64, quota: Option<u64>, memory: Option<u64>, class| {
        let limits = of_pod(plan);
        let found = (limits.cpu_shares, limits.cpu_quota_us, limits.memory_bytes);
        assert_eq!((found, plan.qos_class()), ((shares, quota, memory), class));
    };
    // One container without a limit does not undo it.
    let both = [none.clone(), small.clone()];
    let (full, burstable) = ((2000, 4 * GI), QosClass::Burstable);
    check(
        &whole(full, full, &both),
        2048,
        Some(200_000),
        Some(4 * GI),
        QosClass::Guaranteed,
    );
    // What the containers request, if the pod says nothing itself.
    check(
        &whole(NONE, full, &both),
        512,
        Some(200_000),
        Some(4 * GI),
        burstable,
    );
    // Its limit, if they say nothing either.
    check(
        &whole(NONE, full, std::slice::from_ref(&none)),
        2048,
        Some(200_000),
        Some(4 * GI),
        QosClass::Guaranteed,
    );
    check(
        &whole((1000, GI), NONE, std::slice::from_ref(&none)),
        1024,
        None,
        None,
        burstable,
    );
    check(
        &whole((0, GI), (0, 2 * GI), &both),
        512,
        None,
        Some(2 * GI),
        burstable,
    );

    // A container without a limit may use all of the pod's, and weighs as much.
    let plan = whole(NONE, full, &both);
    let of = |index: usize| {
        let limits = of_container(&plan, &plan.containers[index]);
        (limits.cpu_shares, limits.cpu_quota_us, limits.memory_bytes)
    };
    assert_eq!(of(0), (2048, Some(200_000), Some(4 * GI)));
    assert_eq!(of(1), (512, Some(100_000), Some(GI)));
}

#[test]
fn memory_that_only_the_pod_requests_protects_its_containers_alike() {
    let score = |requests: (u64, u64), containers: &[ContainerPlan]| {
        let plan = whole(requests, NONE, containers);
        oom_score_adj(&plan, &plan.containers[0], 8 * GI)
    };
    let (none, one) = (with("a", NONE, NONE), with("b", (0, GI), NONE));
    assert_eq!(score((0, 4 * GI), std::slice::from_ref(&none)), 500);
    assert_eq!(score((0, 5 * GI), &[none.clone(), one.clone()]), 750);
    assert_eq!(score((0, 5 * GI), &[one, none.clone()]), 625);
    assert_eq!(score((1000, 0), &[none]), 999);
}

#[test]
fn huge_pages_of_the_pod_are_for_containers_without_their_own() {
    const MI: u64 = 1 << 20;
    let of = |amounts: &[(u64, u64)]| -> BTreeMap<u64, u64> { amounts.iter().copied().collect() };
    let having = |name: &str, amounts: &[(u64, u64)]| ContainerPlan {
        huge_pages: of(amounts),
        ..container(name)
    };
    let mut plan = pod(
        vec![ContainerPlan {
            role: ContainerRole::Init,
            ..having("i", &[(2 * MI, 8 * MI)])
        }],
        vec![
            having("a", &[(2 * MI, 4 * MI), (GI, GI)]),
            having("b", &[(2 * MI, 6 * MI)]),
            container("c"),
        ],
    );
    assert_eq!(huge_pages_of_pod(&plan), of(&[(2 * MI, 10 * MI), (GI, GI)]));
    assert_eq!(huge_pages_of_container(&plan, &plan.containers[2]), of(&[]));
    plan.huge_pages = of(&[(2 * MI, 16 * MI), (64 << 10, MI)]);
    let of_pod = [(2 * MI, 16 * MI), (GI, GI), (64 << 10, MI)];
    assert_eq!(huge_pages_of_pod(&plan), of(&of_pod));
    let of_container = |index: usize| huge_pages_of_container(&plan, &plan.containers[index]);
    assert_eq!(of_container(1), of(&[(2 * MI, 6 * MI), (64 << 10, MI)]));
    assert_eq!(of_container(2), of(&[(2 * MI, 16 * MI), (64 << 10, MI)]));
}

#[test]
fn a_limit_of_nothing_is_no_limit_of_the_pod() {
    let none = ContainerPlan {
        resources: Resources {
            limits: ResourceAmounts {
                cpu_milli: Some(0),
                memory: Some(0),
                ephemeral_storage: None,
            },
            ..Resources::default()
        },
        ..container("none")
    };
    let limits = of_pod(&pod(
        Vec::new(),
        vec![none, with("a", (500, GI), (500, GI))],
    ));
    assert_eq!((limits.cpu_quota_us, limits.memory_bytes), (None, None));
}
