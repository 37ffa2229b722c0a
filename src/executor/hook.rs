//! Runs a container's hooks (`kubelet/lifecycle/handlers.go`).
//!
//! It says only whether a hook succeeded and what is wrong with it; when a hook runs and what its failure means is in
//! [`lifecycle`](super::lifecycle).

use std::rc::Rc;
use std::time::Duration;

use super::command;
use super::context::{Context, Message};
use super::dial::Network;
use super::http::{self, Agent};
use super::lifecycle::{Hook, Index, Outcome};
use crate::model::cause::chain;
use crate::model::event::EventType;
use crate::model::plan::{ContainerPlan, HookAction, HttpGet, Transport};
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
        Some(HookAction::HttpGet(get)) => ask(context, container, plan, get).await,
        Some(HookAction::Sleep { seconds }) => {
            tokio::time::sleep(Duration::from_secs((*seconds).into())).await;
            Ok(())
        }
        Some(HookAction::TcpSocket) => {
            Err("Cannot run handler: invalid handler: a hook cannot use `tcpSocket`".into())
        }
    }
}

/// Any answer is a success, whatever its status and however its body ends.
async fn ask<R: Runtime>(
    context: &Rc<Context<R>>,
    container: Index,
    plan: &ContainerPlan,
    get: &HttpGet,
) -> Outcome {
    let failed = |error: &dyn std::error::Error| {
        let (name, path) = (plan.name.as_str(), &get.path);
        let (pod, error) = (name_of_pod(context), chain(error));
        format!(
            "HTTP lifecycle hook ({path}) for Container {name:?} in Pod {pod:?} failed - error: {error}"
        )
    };
    let network = Network::of(context).map_err(|error| failed(&error))?;
    let mut answer = http::get(&network, get, Agent::Lifecycle, None).await;
    if matches!(&answer, Err(error) if error.is_plain_answer()) {
        let plain = HttpGet {
            transport: Transport::Plain,
            headers: without_credentials(&get.headers),
            ..get.clone()
        };
        answer = http::get(&network, &plain, Agent::Lifecycle, None).await;
        if answer.is_ok() {
            let message =
                "request to HTTPS lifecycle hook got HTTP response, retry with HTTP succeeded";
            let (kind, message) = (EventType::Warning, message.to_owned());
            let event = context.event(kind, "LifecycleHTTPFallback", message, Some(container));
            context.send(Message::Event(event));
        }
    }
    match answer {
        Ok(_) | Err(http::Error::Body(_)) => Ok(()),
        Err(error) => Err(failed(&error)),
    }
}

/// What may be sent in the clear.
fn without_credentials(headers: &[(String, String)]) -> Vec<(String, String)> {
    let is_secret = |name: &str| name.eq_ignore_ascii_case("authorization");
    let others = headers.iter().filter(|(name, _)| !is_secret(name));
    others.cloned().collect()
}

/// `pod_namespace(uid)`
fn name_of_pod<R>(context: &Context<R>) -> String {
    let plan = &context.launch.plan;
    format!("{}_{}({})", plan.name, plan.namespace, context.launch.uid)
}

async fn execute<R: Runtime>(
    context: &Rc<Context<R>>,
    container: Index,
    plan: &ContainerPlan,
    words: &[String],
) -> Outcome {
    let failed = |error: String, output: &[u8]| {
        format!(
            "Exec lifecycle hook ([{}]) for Container {:?} in Pod {:?} failed - error: {error}, message: {:?}",
            words.join(" "),
            plan.name.as_str(),
            name_of_pod(context),
            String::from_utf8_lossy(output),
        )
    };
    let outcome = command::run(context, container, words.to_vec()).await;
    context.send(Message::Busy);
    match outcome {
        Ok(done) if done.code == 0 => Ok(()),
        Ok(done) => {
            let error = format!("command '{}' exited with {}", words.join(" "), done.code);
            Err(failed(error, &done.output))
        }
        Err(error) => Err(failed(chain(&error), b"")),
    }
}
