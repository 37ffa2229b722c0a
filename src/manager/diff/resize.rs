//! Resources of a running pod: what an API server lets change in place. Requests and limits of CPU and memory may, of
//! main containers, of sidecars and of the pod as a whole, as long as none is taken away and the pod's quality of
//! service stays.

use serde_json::Value;

use crate::model::plan::{ContainerRole, PodPlan, Resources};

/// Whether two plans differ only in resources, and in such a way that the running pod can be given the new ones.
pub(super) fn is_enough(old: &PodPlan, new: &PodPlan) -> bool {
    if old == new || old.qos_class() != new.qos_class() {
        return false;
    }
    let mut alike = new.clone();
    let containers = alike
        .init_containers
        .iter_mut()
        .chain(&mut alike.containers);
    for (container, old) in containers.zip(old.all_containers()) {
        if old.role != ContainerRole::Init && may_become(old.resources, container.resources) {
            container.resources = old.resources;
        }
    }
    if let (Some(of_old), Some(of_new)) = (old.resources, new.resources)
        && may_become(of_old, of_new)
    {
        alike.resources = old.resources;
    }
    if alike.containers.len() == old.containers.len()
        && alike.init_containers.len() == old.init_containers.len()
    {
        take_resources(&old.manifest, &mut alike.manifest);
    }
    alike == *old
}

fn may_become(old: Resources, new: Resources) -> bool {
    let stays = |old: Option<u64>, new: Option<u64>| old.is_none() || new.is_some();
    [(old.requests, new.requests), (old.limits, new.limits)]
        .into_iter()
        .all(|(old, new)| {
            stays(old.cpu_milli, new.cpu_milli)
                && stays(old.memory, new.memory)
                && old.ephemeral_storage == new.ephemeral_storage
        })
}

/// Makes the resources in a manifest those of another, which has as many containers. What they come to has been
/// compared in the plans.
fn take_resources(old: &Value, new: &mut Value) {
    take(old.get("spec"), new.get_mut("spec"));
    for list in ["/spec/initContainers", "/spec/containers"] {
        let old = old.pointer(list).and_then(Value::as_array);
        let new = new.pointer_mut(list).and_then(Value::as_array_mut);
        for (old, new) in old.into_iter().flatten().zip(new.into_iter().flatten()) {
            take(Some(old), Some(new));
        }
    }
}

fn take(old: Option<&Value>, new: Option<&mut Value>) {
    const FIELD: &str = "resources";
    let Some(new) = new.and_then(Value::as_object_mut) else {
        return;
    };
    match old.and_then(|old| old.get(FIELD)) {
        Some(resources) => new.insert(FIELD.to_owned(), resources.clone()),
        None => new.remove(FIELD),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::plan::ResourceAmounts;
    use crate::model::testing;

    fn amounts(cpu_milli: Option<u64>, memory: Option<u64>) -> ResourceAmounts {
        ResourceAmounts {
            cpu_milli,
            memory,
            ephemeral_storage: None,
        }
    }

    /// A Burstable pod that requests 100m, and may use 200m and 64 bytes.
    fn plan(change: impl FnOnce(&mut PodPlan)) -> PodPlan {
        let mut plan = testing::plan("web");
        plan.init_containers = vec![
            testing::container("init", ContainerRole::Init),
            testing::container("sidecar", ContainerRole::Sidecar),
        ];
        plan.containers[0].resources = Resources {
            requests: amounts(Some(100), Some(64)),
            limits: amounts(Some(200), Some(64)),
        };
        change(&mut plan);
        let main = &plan.containers[0].resources.limits;
        let resources = json!({"limits": {"cpu": main.cpu_milli, "memory": main.memory}});
        plan.manifest = json!({"spec": {"containers": [{"name": "main", "resources": resources}]}});
        plan
    }

    #[test]
    fn what_may_change_in_place() {
        let check = |expected: bool, change: &dyn Fn(&mut PodPlan)| {
            assert_eq!(is_enough(&plan(|_| {}), &plan(change)), expected);
        };
        let main = |plan: &mut PodPlan, requests, limits| {
            plan.containers[0].resources = Resources { requests, limits };
        };
        check(false, &|_| {});
        check(true, &|p| {
            main(
                p,
                amounts(Some(100), Some(64)),
                amounts(Some(300), Some(64)),
            );
        });
        check(true, &|p| {
            main(p, amounts(Some(50), Some(32)), amounts(Some(100), Some(32)));
        });
        // A limit is taken away.
        check(false, &|p| {
            main(p, amounts(Some(100), Some(64)), amounts(None, Some(64)));
        });
        check(true, &|p| {
            p.init_containers[1].resources.requests = amounts(Some(1), None);
        });
        check(false, &|p| {
            p.init_containers[0].resources.requests = amounts(Some(1), None);
        });
        check(false, &|p| {
            p.containers[0].resources.limits.ephemeral_storage = Some(1);
        });
        check(false, &|p| {
            main(
                p,
                amounts(Some(100), Some(64)),
                amounts(Some(300), Some(64)),
            );
            p.containers[0].args = Some(vec!["new".into()]);
        });
        check(false, &|p| p.resources = Some(Resources::default()));
        let alone = |plan: &mut PodPlan| plan.init_containers.clear();
        let guaranteed = |plan: &mut PodPlan| {
            alone(plan);
            let all = amounts(Some(200), Some(64));
            main(plan, all, all);
        };
        assert!(!is_enough(&plan(alone), &plan(guaranteed)));
    }
}
