//! The event loop: the only code that acts. Everything that happens becomes a [`Message`]; the state machine in
//! [`lifecycle`](super::lifecycle) says what to do about it; this does it and writes the pod's status.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::clock;
use super::container::{self, Live};
use super::context::{Context, Message};
use super::hook;
use super::lifecycle::{Action, Cause, Event, Hook, Index, Pod, Stage};
use super::neighbours::Announced;
use super::pod::{self, PodResources};
use super::progress::Channel;
use super::status;
use crate::model::cause::chain;
use crate::model::event::{EventType, PodEvent};
use crate::model::status::PodStatus;
use crate::protocol::{Launch, LaunchFailure, Progress};
use crate::runtime::Runtime;
use crate::state::view::EXECUTOR_DIED;
use crate::sys::memory;

/// How long nothing has to happen before the executor gives back the memory that it does not need at rest.
const REST: Duration = Duration::from_millis(500);

/// A running pod.
pub(super) struct Driver<'a, R: Runtime + 'static> {
    context: Rc<Context<R>>,
    messages: UnboundedReceiver<Message>,
    manager: &'a mut Channel,
    resources: PodResources,
    machine: Pod,
    facts: status::Facts,
    status: PodStatus,
    announced: Announced,
    /// When to try again to write a status that could not be written.
    retry: Option<Duration>,
}

/// How long after a failed write of the status the next one is tried: a disk that was full may have place again.
const RETRY: Duration = Duration::from_secs(1);

impl<'a, R: Runtime + 'static> Driver<'a, R> {
    /// A pod whose resources are there and none of whose containers has been started.
    pub(super) fn new(
        context: Rc<Context<R>>,
        messages: UnboundedReceiver<Message>,
        manager: &'a mut Channel,
        resources: PodResources,
    ) -> Self {
        let launch = &context.launch;
        let machine = Pod::new(&launch.plan, &launch.uid, clock::now());
        let facts = status_facts(&context, launch);
        Self {
            context,
            messages,
            manager,
            resources,
            machine,
            facts,
            status: PodStatus::default(),
            announced: Announced::default(),
            retry: None,
        }
    }

    /// Runs the pod to its end and writes its last status.
    pub(super) async fn run(mut self) {
        self.watch_sandbox();
        self.handle(Event::Tick).await;
        // When to give back memory, if something was done since the last time.
        let mut rest = Some(clock::now().monotonic + REST);
        while !matches!(self.machine.stage, Stage::Over(_)) {
            let tick = self.machine.next_tick().into_iter().chain(self.retry).min();
            tokio::select! {
                message = self.messages.recv() => match message {
                    Some(Message::Lifecycle(event)) => self.handle(event).await,
                    Some(Message::Event(event)) => {
                        self.report(&event);
                        // A failing probe tells one each time, for which nothing is worth giving back.
                        continue;
                    }
                    Some(Message::Refreshed) => self.refreshed(),
                    Some(Message::OtherImage(recorded)) => {
                        self.refreshed();
                        drop(recorded);
                    }
                    Some(Message::Busy) => {}
                    // The context holds a sender.
                    None => break,
                },
                () = sleep_until(tick) => self.handle(Event::Tick).await,
                () = sleep_until(rest) => {
                    rest = None;
                    if let Err(error) = memory::release() {
                        tracing::warn!(%error, "cannot give memory back");
                    }
                    continue;
                }
            }
            rest = Some(clock::now().monotonic + REST);
        }
        self.resources.release(&self.context).await;
        self.publish();
    }

    fn refreshed(&mut self) {
        let launch = self.context.current();
        self.facts = status_facts(&self.context, &launch);
        self.publish();
    }

    async fn handle(&mut self, event: Event) {
        // Whoever looks for this process does not find it any more, so it must not go on.
        let lost = (!self.context.dir.is_there()).then_some(Event::Stop {
            grace: Some(Duration::ZERO),
            cause: Cause::Deleted,
        });
        for event in lost.into_iter().chain([event]) {
            for action in self.machine.on(event, clock::now()) {
                self.act(action).await;
            }
        }
        let ending = self.machine.stage != Stage::Active;
        self.context
            .ending
            .send_if_modified(|now| std::mem::replace(now, ending) != ending);
        if !matches!(self.machine.stage, Stage::Over(_)) {
            self.publish();
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Start { container, attempt } => self.start(container, attempt),
            Action::PostStart(container) => self.run_hook(container, Hook::PostStart),
            Action::PreStop(container) => self.run_hook(container, Hook::PreStop),
            Action::Probe { container, kind } => container::probe(&self.context, container, kind),
            Action::LeaveReadiness(container) => self.leave_readiness(container),
            Action::Stop(container) => self.signal(container, container::Wish::Stop),
            Action::Kill(container) => self.signal(container, container::Wish::Kill),
            Action::Report {
                r#type,
                reason,
                message,
                container,
            } => {
                let event = self.context.event(r#type, reason, message, container);
                self.report(&event);
            }
            Action::Tell(progress) => self.tell(&progress),
            Action::RestartSandbox => self.restart_sandbox().await,
            Action::End => {}
        }
    }

    fn start(&mut self, index: Index, attempt: u32) {
        let context = Rc::clone(&self.context);
        tokio::task::spawn_local(async move {
            let event = match container::start(&context, index, attempt).await {
                Ok(id) => Event::Started {
                    container: index,
                    id,
                },
                Err(fault) => Event::NotStarted {
                    container: index,
                    fault,
                },
            };
            context.send(Message::Lifecycle(event));
        });
    }

    /// Runs a hook beside everything else. Its end is told even when nobody waits for it any more.
    fn run_hook(&self, container: Index, hook: Hook) {
        let Some(id) = self.context.live.borrow().get(&container).map(Live::id) else {
            // It has ended, and its exit is on the way.
            return;
        };
        let context = Rc::clone(&self.context);
        tokio::task::spawn_local(async move {
            let outcome = hook::run(&context, container, hook).await;
            context.send(Message::Lifecycle(Event::Hooked {
                container,
                id,
                hook,
                outcome,
            }));
        });
    }

    fn leave_readiness(&self, container: Index) {
        if let Some(live) = self.context.live.borrow_mut().get_mut(&container) {
            live.probes.leave_readiness();
        }
    }

    fn signal(&self, index: Index, wish: container::Wish) {
        let live = self.context.live.borrow();
        if let Some(container) = live.get(&index)
            && let Err(error) = container.signal(wish)
        {
            // Its process is a child of this one, so only a broken kernel refuses; the grace period still ends.
            tracing::error!(container = index, %error, "cannot signal a container");
        }
    }

    async fn restart_sandbox(&mut self) {
        match self.resources.renew_sandbox(&self.context).await {
            Ok(()) => {
                // It has other addresses.
                self.facts = status_facts(&self.context, &self.context.current());
                self.watch_sandbox();
                self.context.send(Message::Lifecycle(Event::SandboxReady));
            }
            Err(error) => {
                let message = chain(&error);
                let event =
                    self.context
                        .event(EventType::Warning, "FailedCreatePodSandBox", message, None);
                self.report(&event);
                self.context.send(Message::Lifecycle(Event::SandboxFailed));
            }
        }
    }

    /// Notices when the pause process ends.
    fn watch_sandbox(&self) {
        let context = Rc::clone(&self.context);
        tokio::task::spawn_local(async move {
            pod::sandbox_end(&context).await;
            context.send(Message::Lifecycle(Event::SandboxGone));
        });
    }

    fn report(&mut self, event: &PodEvent) {
        self.context.record(event);
        self.tell(&Progress::Event(event.clone()));
    }

    fn tell(&mut self, progress: &Progress) {
        if matches!(progress, Progress::Started | Progress::Failed(_)) {
            // Whoever is told finds the status that belongs to it.
            self.publish();
        }
        self.manager.tell(progress);
    }

    /// Writes the status if it says something new.
    fn publish(&mut self) {
        let status = status::of(
            &self.machine,
            &self.facts,
            &self.context.observed.borrow(),
            &self.status,
            clock::now().wall,
        );
        self.announced
            .update(&self.context, &self.machine.stage, &status);
        self.retry = None;
        if status == self.status {
            return;
        }
        match self.context.dir.write_status(&status) {
            Ok(()) => self.status = status,
            // Readers see the status before this one meanwhile.
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot write the status");
                self.retry = Some(clock::now().monotonic + RETRY);
            }
        }
    }
}

/// Leaves word of why a pod could not be set up, for whoever looks at it if it is not taken away.
pub(super) fn give_up<R>(context: &Context<R>, failure: &LaunchFailure) {
    let LaunchFailure {
        reason, message, ..
    } = failure;
    context.record(&context.event(EventType::Warning, reason, message.clone(), None));
    let (launch, now) = (&context.launch, clock::now());
    let mut machine = Pod::new(&launch.plan, &launch.uid, now);
    machine.stage = Stage::Over(Cause::Deleted);
    let facts = status_facts(context, launch);
    let (observed, before) = (status::Observed::new(), PodStatus::default());
    let status = PodStatus {
        // The next apply tries again.
        reason: Some(EXECUTOR_DIED.into()),
        message: Some(format!("the pod could not be set up: {reason}: {message}")),
        ..status::of(&machine, &facts, &observed, &before, now.wall)
    };
    if let Err(error) = context.dir.write_status(&status) {
        tracing::error!(error = chain(&error), "cannot write the status");
    }
}

fn status_facts<R>(context: &Context<R>, launch: &Launch) -> status::Facts {
    let mut images = launch.images.clone();
    images.extend(context.pulled.borrow().clone());
    status::Facts::new(
        &launch.plan,
        launch.generation,
        &images,
        context.facts.host_ip.map(|ip| ip.to_string()),
        context.pod_ips().iter().map(ToString::to_string).collect(),
        context.facts.qos_class,
    )
}

async fn sleep_until(tick: Option<Duration>) {
    match tick {
        Some(tick) => tokio::time::sleep(tick.saturating_sub(clock::now().monotonic)).await,
        None => std::future::pending().await,
    }
}
