//! Which container is started next, and what comes of it (`kuberuntime_manager.go:SyncPod`, `computePodActions`).

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Action, Ended, Fault, Halt, Health, Index, Member, Now, Outcome, Pod, PostStart, Progress,
    Stage, State,
};
use crate::model::event::EventType;
use crate::model::plan::ContainerRole;
use crate::protocol::FailureClass;

/// How soon a container or a sandbox that could not be created is tried again (the kubelet's sync period).
pub(super) const FAULT_RETRY: Duration = Duration::from_secs(10);
/// The waits after pulls that failed, each twice the one before it (`imageBackOffPeriod`, `MaxImageBackOff`).
const PULL_RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// What such a wait is called.
const IMAGE_BACK_OFF: &str = "ImagePullBackOff";

impl Pod {
    /// Starts one container, if one is due and no other is being started.
    pub(super) fn start_next(&mut self, now: Now, actions: &mut Vec<Action>) {
        let mut due = self.next_starts().filter(|(_, due)| *due <= now.monotonic);
        let first = due.next();
        let behind = first
            .into_iter()
            .chain(due)
            .find(|(index, _)| Some(*index) > self.cursor);
        if let Some((container, _)) = behind.or(first) {
            self.start(container, now, actions);
        }
    }

    /// The containers that may be started before any other event, in order, and when. None while one is being
    /// started.
    pub(super) fn next_starts(&self) -> impl Iterator<Item = (Index, Duration)> {
        let busy = self.members.iter().any(Member::is_starting);
        let mut blocked = busy;
        let reachable = self
            .members
            .iter()
            .enumerate()
            .take_while(move |(index, _)| {
                let reached = !blocked;
                blocked |= !self.lets_the_next_start(*index);
                reached
            });
        reachable.filter_map(|(index, member)| Some((index, member.start_due()?)))
    }

    /// Whether the containers behind one may start. A sidecar that ends is not waited for again once one of them has run.
    fn lets_the_next_start(&self, index: Index) -> bool {
        let member = &self.members[index];
        match member.role {
            ContainerRole::Init => matches!(&member.state, State::Ended(ended) if ended.code == 0),
            ContainerRole::Sidecar => {
                let mut behind = self.members.iter().skip(index + 1);
                member.is_started() || behind.any(|other| other.has_run)
            }
            ContainerRole::Main => true,
        }
    }

    fn start(&mut self, container: Index, now: Now, actions: &mut Vec<Action>) {
        self.cursor = Some(container);
        let member = &mut self.members[container];
        if let State::BackOff {
            finished, ended, ..
        } = std::mem::replace(&mut member.state, State::Starting)
        {
            member.back_off.restarted(finished, now.monotonic);
            member.last = Some(ended);
            member.restarts += 1;
        }
        actions.push(Action::Start {
            container,
            attempt: member.restarts,
        });
    }

    pub(super) fn started(
        &mut self,
        container: Index,
        id: String,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(member) = self.members.get_mut(container) else {
            return;
        };
        // Nobody begins anything with a container of a pod that ends.
        let active = self.stage == Stage::Active;
        let hooked = active && member.hooks.post_start.is_some();
        let post_start = if hooked {
            PostStart::Runs
        } else {
            PostStart::Done
        };
        member.failed_pulls = 0;
        member.state = State::Running {
            id,
            started: now.wall,
            post_start,
            health: Health::new(&member.probes),
            halt: Halt::No,
            comes_back: false,
        };
        actions.push(Action::Report {
            r#type: EventType::Normal,
            reason: "Started",
            message: format!("Started container {}", member.name),
            container: Some(container),
        });
        if hooked {
            actions.push(Action::PostStart(container));
        } else if active {
            self.up(container, actions);
            self.begin_probes(container, actions);
        }
    }

    /// The postStart hook of the present run returned.
    pub(super) fn post_start_over(
        &mut self,
        container: Index,
        outcome: Outcome,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let State::Running {
            post_start, halt, ..
        } = &mut self.members[container].state
        else {
            return;
        };
        if *post_start != PostStart::Runs {
            return;
        }
        match outcome {
            Ok(()) => {
                *post_start = PostStart::Done;
                let goes_on = *halt == Halt::No;
                self.up(container, actions);
                if goes_on {
                    self.begin_probes(container, actions);
                }
            }
            // Who ends the container ends its hook.
            Err(_) if *halt != Halt::No => {}
            Err(message) => {
                *post_start = PostStart::Failed(message.clone());
                self.post_start_failed(container, message, actions);
                let reason = "FailedPostStartHook".to_owned();
                self.stop_container(container, self.grace, reason, now, actions);
            }
        }
    }

    /// The hook of a run that ends or has ended failed.
    pub(super) fn post_start_failed(
        &mut self,
        container: Index,
        message: String,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::Report {
            r#type: EventType::Warning,
            reason: "FailedPostStartHook",
            // What the hook said may be secret.
            message: "PostStartHook failed".into(),
            container: Some(container),
        });
        let class = FailureClass::Workload;
        self.fail_launch(class, container, "PostStartHookError", message, actions);
    }

    /// A container counts as started.
    pub(super) fn up(&mut self, container: Index, actions: &mut Vec<Action>) {
        self.members[container].has_run = true;
        let all_run = self
            .mains()
            .all(|main| main.has_run || matches!(main.state, State::Ended(_)));
        if all_run {
            self.tell(Progress::Started, actions);
        }
    }

    /// Calls long waits for images what they are.
    pub(super) fn say_more(&mut self, now: Now, actions: &mut Vec<Action>) {
        let due = self.members.iter_mut().enumerate();
        for (container, member) in due {
            let State::Faulty {
                reason,
                message,
                then,
                ..
            } = &mut member.state
            else {
                continue;
            };
            let Some((_, later)) = then.take_if(|(at, _)| *at <= now.monotonic) else {
                continue;
            };
            let short = later.split(": ").next().unwrap_or_default().to_owned();
            (*reason, *message) = (IMAGE_BACK_OFF, later);
            let mut report = |r#type, reason, message| {
                actions.push(Action::Report {
                    r#type,
                    reason,
                    message,
                    container: Some(container),
                });
            };
            report(EventType::Normal, "BackOff", short);
            report(
                EventType::Warning,
                "Failed",
                format!("Error: {IMAGE_BACK_OFF}"),
            );
        }
    }

    pub(super) fn not_started(
        &mut self,
        container: Index,
        fault: Fault,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(member) = self.members.get_mut(container) else {
            return;
        };
        let (class, reason, message) = match fault {
            Fault::Pull { image, message } => {
                let (first, longest) = PULL_RETRY;
                let factor = 1 << member.failed_pulls.min(5);
                let wait = (first * factor).min(longest);
                member.failed_pulls += 1;
                let reason = "ErrImagePull";
                let later = format!("Back-off pulling image \"{image}\": {reason}: {message}");
                member.state = State::Faulty {
                    retry: now.monotonic + wait,
                    reason,
                    message: message.clone(),
                    // A kubelet looks at the pod again after its period, and finds that it has to wait.
                    then: (wait > FAULT_RETRY).then(|| (now.monotonic + FAULT_RETRY, later)),
                };
                actions.push(Action::Report {
                    r#type: EventType::Warning,
                    reason: "Failed",
                    message: format!("Failed to pull image \"{image}\": {message}"),
                    container: Some(container),
                });
                (FailureClass::Machine, reason, reason.to_owned())
            }
            Fault::Image {
                reason,
                event,
                message,
            } => {
                member.state = faulty(now, reason, message.clone());
                actions.push(Action::Report {
                    r#type: EventType::Warning,
                    reason: event,
                    message,
                    container: Some(container),
                });
                (FailureClass::Machine, reason, reason.to_owned())
            }
            Fault::Create {
                reason,
                message,
                class,
            } => {
                member.state = faulty(now, reason, message.clone());
                (class, reason, message)
            }
            Fault::Start { id, message } => {
                let class = FailureClass::Start;
                // Before what follows from it: that an init container has ended says less.
                self.tell_fault(class, container, "StartError", message.clone(), actions);
                let ended = Ended {
                    code: 128,
                    signal: None,
                    reason: "StartError",
                    message: Some(message),
                    started: Timestamp::UNIX_EPOCH,
                    finished: now.wall,
                    id,
                };
                let next = self.next_after(container, ended.code);
                return self.ended(container, ended, next, None, now, actions);
            }
        };
        self.tell_fault(class, container, reason, message, actions);
    }

    fn tell_fault(
        &mut self,
        class: FailureClass,
        container: Index,
        reason: &'static str,
        message: String,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::Report {
            r#type: EventType::Warning,
            reason: "Failed",
            message: format!("Error: {message}"),
            container: Some(container),
        });
        self.fail_launch(class, container, reason, message, actions);
    }
}

/// What is tried again soon.
fn faulty(now: Now, reason: &'static str, message: String) -> State {
    State::Faulty {
        retry: now.monotonic + FAULT_RETRY,
        reason,
        message,
        then: None,
    }
}
