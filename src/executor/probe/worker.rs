//! Checks a container again and again.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::super::context::{Context, Message};
use super::super::dial::Network;
use super::super::lifecycle::{Event, Index};
use super::alarm::Alarm;
use super::tally::{Tally, Turn};
use super::{Fault, Kind, Outcome, exec, grpc, http, tcp};
use crate::model::cause::chain;
use crate::model::event::EventType;
use crate::model::plan::{Check, ContainerPlan, Probe};
use crate::runtime::Runtime;

/// How long after its start a container cannot fail a check.
const SETTLE: Duration = Duration::from_secs(1);
/// The first pause between checks meanwhile; each one is twice as long as the one before.
const EARLY_PAUSE: Duration = Duration::from_millis(50);

/// How often a check that could not be made is tried before its result is thrown away.
const ATTEMPTS: u32 = 3;

/// The workers of one run of a container. They end when this is dropped.
#[derive(Debug, Default)]
pub(in crate::executor) struct Workers(Vec<(Kind, AbortHandle)>);

impl Workers {
    /// Begins to probe the run with this id.
    pub(in crate::executor) fn start<R: Runtime + 'static>(
        &mut self,
        context: &Rc<Context<R>>,
        run: Run,
        kind: Kind,
    ) {
        let work = work(Rc::clone(context), run, kind);
        let handle = tokio::task::spawn_local(work).abort_handle();
        self.0.push((kind, handle));
    }

    /// Ends those whose verdict would end the container.
    pub(in crate::executor) fn leave_readiness(&mut self) {
        self.0.retain(|(kind, worker)| {
            let stays = *kind == Kind::Readiness;
            if !stays {
                worker.abort();
            }
            stays
        });
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (_, worker) in &self.0 {
            worker.abort();
        }
    }
}

/// The run of a container that is probed.
#[derive(Clone, Debug)]
pub(in crate::executor) struct Run {
    pub(in crate::executor) container: Index,
    pub(in crate::executor) id: String,
    pub(in crate::executor) started: Instant,
}

fn plan(container: &ContainerPlan, kind: Kind) -> Option<&Probe> {
    let probe = match kind {
        Kind::Startup => &container.probes.startup,
        Kind::Liveness => &container.probes.liveness,
        Kind::Readiness => &container.probes.readiness,
    };
    probe.as_ref()
}

async fn work<R: Runtime>(context: Rc<Context<R>>, run: Run, kind: Kind) {
    let Some(probe) = plan(context.container_plan(run.container), kind) else {
        return;
    };
    let mut tally = Tally::new(kind, probe);
    let alarm = Alarm::new();
    let delay = Duration::from_secs(probe.initial_delay.into());
    let settled = run.started + SETTLE;
    let mut due = (run.started + delay).max(Instant::now());
    if kind == Kind::Liveness {
        due = due.max(settled);
    }
    let mut pause = EARLY_PAUSE;
    loop {
        alarm.sleep_until(due).await;
        let early = Instant::now() < settled;
        let turn = match check(&context, &run, probe).await {
            Ok(Outcome::Failure(_)) | Err(_) if early => {
                due = (Instant::now() + pause).min(settled);
                pause *= 2;
                continue;
            }
            Ok(outcome) => {
                let succeeded = report(&context, &run, kind, outcome);
                tally.take(succeeded)
            }
            Err(Fault { state, message }) => {
                let text = format!("{kind} probe errored and resulted in {state} state: {message}");
                tell(&context, &run, "Unhealthy", text);
                Turn::Nothing
            }
        };
        if let Turn::News(succeeded) | Turn::Last(succeeded) = turn {
            context.send(Message::Lifecycle(Event::Probed {
                container: run.container,
                id: run.id.clone(),
                kind,
                succeeded,
            }));
        }
        if matches!(turn, Turn::Last(_)) {
            return;
        }
        due = (due + probe.period()).max(Instant::now());
    }
}

/// Tells what is not plain success; says whether it is success.
fn report<R>(context: &Context<R>, run: &Run, kind: Kind, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Success => true,
        Outcome::Warning(text) => {
            tell(
                context,
                run,
                "ProbeWarning",
                format!("{kind} probe warning: {text}"),
            );
            true
        }
        Outcome::Failure(text) => {
            tell(
                context,
                run,
                "Unhealthy",
                format!("{kind} probe failed: {text}"),
            );
            false
        }
    }
}

fn tell<R>(context: &Context<R>, run: &Run, reason: &str, message: String) {
    let event = context.event(EventType::Warning, reason, message, Some(run.container));
    context.send(Message::Event(event));
}

/// Makes one check, and again if it cannot be made.
async fn check<R: Runtime>(
    context: &Rc<Context<R>>,
    run: &Run,
    probe: &Probe,
) -> Result<Outcome, Fault> {
    let mut result = attempt(context, run, probe).await;
    for _ in 1..ATTEMPTS {
        if result.is_ok() {
            break;
        }
        result = attempt(context, run, probe).await;
    }
    result
}

async fn attempt<R: Runtime>(
    context: &Rc<Context<R>>,
    run: &Run,
    probe: &Probe,
) -> Result<Outcome, Fault> {
    let timeout = probe.timeout();
    let network = || Network::of(context).map_err(|error| Fault::unknown(chain(&error)));
    match &probe.check {
        Check::Exec { command } => exec::check(context, run.container, command, timeout).await,
        Check::Http(get) => http::check(&network()?, get, timeout).await,
        Check::Tcp { host, port } => {
            Ok(tcp::check(&network()?, host.as_deref(), *port, timeout).await)
        }
        Check::Grpc {
            port,
            service,
            transport,
        } => {
            let server = grpc::Server {
                port: *port,
                transport: *transport,
            };
            Ok(grpc::check(&network()?, server, service, timeout).await)
        }
    }
}
