//! Runs a container's hooks (`kubelet/lifecycle/handlers.go`).
//!
//! It says only whether a hook succeeded and what is wrong with it; when a hook runs and what its failure means is in
//! [`lifecycle`](super::lifecycle).

use std::rc::Rc;
use std::time::Duration;

use super::command;
use super::context::Context;
use super::lifecycle::{Hook, Index, Outcome};
use crate::model::plan::{ContainerPlan, HookAction};
use crate::runtime::Runtime;

/// Runs the hook to its end, however long that takes.
pub(super) async fn run<R: Runtime>(
    context: &Rc<Context<R>>,
    container: Index,
    hook: Hook,
) -> Outcome {
    let plan = context.container_plan(container);
    let action = match hook {
        Hook::PostStart => &plan.hooks.post_start,
        Hook::PreStop => &plan.hooks.pre_stop,
    };
    match action {
        None => Ok(()),
        Some(HookAction::Exec { command }) => execute(context, container, plan, command).await,
        Some(HookAction::Sleep { seconds }) => {
            tokio::time::sleep(Duration::from_secs((*seconds).into())).await;
            Ok(())
        }
        Some(HookAction::TcpSocket) => {
            Err("Cannot run handler: invalid handler: a hook cannot use `tcpSocket`".into())
        }
    }
}

async fn execute<R: Runtime>(
    context: &Rc<Context<R>>,
    container: Index,
    plan: &ContainerPlan,
    words: &[String],
) -> Outcome {
    let failed = |error: String, output: &[u8]| {
        let plan_of_pod = &context.launch.plan;
        format!(
            "Exec lifecycle hook ([{}]) for Container {:?} in Pod \"{}_{}({})\" failed - error: {error}, message: {:?}",
            words.join(" "),
            plan.name.as_str(),
            plan_of_pod.name,
            plan_of_pod.namespace,
            context.launch.uid,
            String::from_utf8_lossy(output),
        )
    };
    match command::run(context, container, words.to_vec()).await {
        Ok(done) if done.code == 0 => Ok(()),
        Ok(done) => {
            let error = format!("command '{}' exited with {}", words.join(" "), done.code);
            Err(failed(error, &done.output))
        }
        Err(error) => Err(failed(crate::model::cause::chain(&error), b"")),
    }
}
