//! What changes in a pod while it runs: metadata, the content of ConfigMaps and Secrets, resources.
//!
//! The files are new at once; what a container has from its start (variables, parts of volumes) is new when it is started
//! again, as with a kubelet. The cgroups that are there get new limits; containers whose `resizePolicy` asks for it are
//! restarted instead, and have the new ones then. On the way no container may have more than its pod: so the pod's cgroup
//! comes first with the larger of old and new, and last with the new.

use std::rc::Rc;

use super::context::{Context, Message};
use super::error::Error;
use super::lifecycle::{Event, Index};
use super::pod::{cgroup_limits, pod_limits, weigh_class};
use super::{read_launch, volumes};
use crate::model::cause::chain;
use crate::model::plan::{ContainerPlan, OnResize, PodPlan, Resources};
use crate::protocol::Launch;
use crate::spec::resources;
use crate::sys::cgroup::Limits;

/// Takes over what the launch file says now.
///
/// # Errors
/// It cannot be read, is another pod's, a file cannot be written, or the kernel refuses a limit; then the pod is as
/// before, but for files.
pub(super) fn run<R>(context: &Context<R>) -> Result<(), Error> {
    let launch = read_launch(context.paths().run())?;
    if launch.uid != context.launch.uid {
        return Err(Error::AnotherPod { uid: launch.uid });
    }
    let new = Rc::new(launch);
    let old = context.current.replace(Rc::clone(&new));
    if let Err(error) = resize(context, &old, &new).and_then(|()| volumes::refresh(context)) {
        context.current.replace(Rc::clone(&old));
        if let Err(error) = resize(context, &new, &old) {
            // The first failure is the one to tell.
            tracing::warn!(error = chain(&error), "cannot undo a resize");
        }
        return Err(error);
    }
    restart_where_asked(context, &old.plan, &new.plan);
    context.send(Message::Refreshed);
    Ok(())
}

fn resize<R>(context: &Context<R>, old: &Launch, new: &Launch) -> Result<(), Error> {
    let (before, after) = (pod_limits(&old.plan), pod_limits(&new.plan));
    if let Some(cgroup) = context.hierarchies.find(&context.launch.cgroup) {
        cgroup.set(&larger(&before, &after))?;
    }
    for (index, live) in context.live.borrow().iter() {
        let (Some(old), Some(container)) = (nth(&old.plan, *index), nth(&new.plan, *index)) else {
            continue;
        };
        if !restarts(old, container) {
            let limits = resources::of_container(&new.plan, container);
            live.set_limits(&cgroup_limits(limits))?;
        }
    }
    if let Some(cgroup) = context.hierarchies.find(&context.launch.cgroup) {
        cgroup.set(&after)?;
        weigh_class(&cgroup);
    }
    Ok(())
}

/// Limits within which both are. What only one of them limits stays as it is.
fn larger(a: &Limits, b: &Limits) -> Limits {
    let both = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a.max(b));
    Limits {
        cpu_quota_us: both(a.cpu_quota_us, b.cpu_quota_us),
        cpu_period_us: both(a.cpu_period_us, b.cpu_period_us),
        memory_bytes: both(a.memory_bytes, b.memory_bytes),
        ..b.clone()
    }
}

fn nth(plan: &PodPlan, index: Index) -> Option<&ContainerPlan> {
    plan.all_containers().nth(index)
}

/// Whether a resource has changed for which the container is to be restarted.
fn restarts(old: &ContainerPlan, new: &ContainerPlan) -> bool {
    let cpu = |r: Resources| (r.requests.cpu_milli, r.limits.cpu_milli);
    let memory = |r: Resources| (r.requests.memory, r.limits.memory);
    let (before, after) = (old.resources, new.resources);
    let asks = |policy, changed| policy == OnResize::RestartContainer && changed;
    asks(new.resize_policy.cpu, cpu(before) != cpu(after))
        || asks(new.resize_policy.memory, memory(before) != memory(after))
}

fn restart_where_asked<R>(context: &Context<R>, old: &PodPlan, new: &PodPlan) {
    for (index, live) in context.live.borrow().iter() {
        if let (Some(old), Some(container)) = (nth(old, *index), nth(new, *index))
            && restarts(old, container)
        {
            context.send(Message::Lifecycle(Event::RestartContainer {
                container: *index,
                id: live.id(),
                message: format!("Container {} resize requires restart", container.name),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::{ContainerRole, ResizePolicy, ResourceAmounts};
    use crate::model::testing;

    #[test]
    fn who_is_restarted() {
        let container = |cpu: u64, memory: u64, policy: ResizePolicy| {
            let mut container = testing::container("main", ContainerRole::Main);
            container.resources.limits = ResourceAmounts {
                cpu_milli: Some(cpu),
                memory: Some(memory),
                ephemeral_storage: None,
            };
            container.resize_policy = policy;
            container
        };
        let check = |policy: ResizePolicy, (cpu, memory): (u64, u64), expected: bool| {
            let (old, new) = (container(1, 1, policy), container(cpu, memory, policy));
            assert_eq!(restarts(&old, &new), expected, "{policy:?} {cpu} {memory}");
        };
        let on_memory = ResizePolicy {
            memory: OnResize::RestartContainer,
            ..ResizePolicy::default()
        };
        check(ResizePolicy::default(), (2, 2), false);
        check(on_memory, (2, 1), false);
        check(on_memory, (1, 2), true);
    }

    #[test]
    fn both_fit_into_the_larger() {
        let limits = |quota: Option<u64>, memory: Option<u64>| Limits {
            cpu_quota_us: quota,
            memory_bytes: memory,
            ..Limits::default()
        };
        let check = |a: Limits, b: Limits, expected: Limits| assert_eq!(larger(&a, &b), expected);
        check(
            limits(Some(1), Some(5)),
            limits(Some(2), Some(3)),
            limits(Some(2), Some(5)),
        );
        check(
            limits(None, Some(5)),
            limits(Some(2), Some(5)),
            limits(None, Some(5)),
        );
    }
}
