//! The image of a container that starts: by its pull policy the one that is there, or the one that its registry has now
//! (the kubelet's `image_manager.go:EnsureImageExists`). At a pod's launch the manager has seen to it; this is about
//! later starts.
//!
//! Who pulls is another process, which ends with this one, and is ended when the pod is.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use tokio::io::Interest;

use super::context::{Context, Message};
use super::error::{StartFailure, system};
use super::lifecycle::Index;
use crate::model::event::EventType;
use crate::model::image::Image;
use crate::model::plan::{ContainerPlan, PullPolicy};
use crate::model::reference::Reference;
use crate::protocol::{PullAnswer, Pulling, Registries};
use crate::sys::fd;
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, Kept, ParentDeath, Session, Spawn, Spawning};
use crate::sys::signal::Signal;

/// Where an image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is there.
    Present,
    Pull,
    /// It is not there, and may not be pulled.
    Never,
    /// It is not there, and registries may not be asked.
    Offline,
}

/// Whether an image is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Here,
    Gone,
}

fn way(policy: PullPolicy, registries: Registries, found: Found) -> Way {
    match (policy, registries, found) {
        (PullPolicy::Always, Registries::Allowed, _)
        | (PullPolicy::IfNotPresent, Registries::Allowed, Found::Gone) => Way::Pull,
        (_, _, Found::Here) => Way::Present,
        (PullPolicy::Never, _, Found::Gone) => Way::Never,
        (_, Registries::Forbidden, Found::Gone) => Way::Offline,
    }
}

/// The image that a container starts with.
pub(super) async fn of_start<R>(
    context: &Rc<Context<R>>,
    index: Index,
    attempt: u32,
) -> Result<Image, StartFailure> {
    let plan = context.container_plan(index);
    let image = context.image(plan);
    let image = image.ok_or_else(|| StartFailure::Config("the image is missing".into()))?;
    let launch = Rc::clone(&context.launch);
    let Some(pulling) = launch.pulling.as_ref().filter(|_| attempt > 0) else {
        return Ok(image);
    };
    let present = Image {
        pull: None,
        ..image
    };
    if is_own(&plan.reference) {
        return Ok(present);
    }
    let found = match present.layers.iter().all(|layer| layer.is_dir()) {
        true => Found::Here,
        // Somebody has removed it by force.
        false => Found::Gone,
    };
    let policy = pulling.policy.unwrap_or(plan.pull_policy);
    let name = plan.image.clone();
    match way(policy, pulling.registries, found) {
        Way::Present => Ok(present),
        Way::Never => Err(StartFailure::NeverPulled { image: name }),
        Way::Offline => Err(StartFailure::Pull {
            image: name,
            message: "it is not on this machine, and the pod was started with `--offline`".into(),
        }),
        Way::Pull => {
            let message = format!("Pulling image \"{name}\"");
            let event = context.event(EventType::Normal, "Pulling", message, Some(index));
            context.send(Message::Event(event));
            pulled(context, plan, pulling).await
        }
    }
}

/// kplay's own images are made by kplay, under whatever tag.
fn is_own(reference: &Reference) -> bool {
    reference.registry == "kplay.local"
}

async fn pulled<R>(
    context: &Rc<Context<R>>,
    plan: &ContainerPlan,
    pulling: &Pulling,
) -> Result<Image, StartFailure> {
    let mut ending = context.ending.subscribe();
    let failed = |message: String| StartFailure::Pull {
        image: plan.image.clone(),
        message,
    };
    let puller = Puller::start(context, plan, pulling)?;
    let answer = tokio::select! {
        answer = puller.answer() => answer?,
        _ = ending.wait_for(|ending| *ending) => return Err(failed("the pod is ended".into())),
    };
    let image = match answer {
        Some(PullAnswer::Pulled(image)) => *image,
        Some(PullAnswer::Failed { message }) => return Err(failed(message)),
        Some(PullAnswer::InvalidName { message }) => {
            let image = plan.image.clone();
            return Err(StartFailure::InvalidName { image, message });
        }
        None => return Err(failed("what pulls it ended early".into())),
    };
    let mut images = context.pulled.borrow_mut();
    images.insert(plan.name.clone(), image.clone());
    drop(images);
    context.send(Message::OtherImage(puller.release()));
    Ok(image)
}

/// A process that pulls an image, and keeps it from being removed until it may end.
struct Puller {
    process: PidFd,
    _kept: Kept,
    answer: tokio::io::unix::AsyncFd<OwnedFd>,
    /// Its end lets go of the image.
    hold: Option<OwnedFd>,
}

impl Puller {
    fn start<R>(
        context: &Context<R>,
        plan: &ContainerPlan,
        pulling: &Pulling,
    ) -> Result<Self, StartFailure> {
        const START: &str = "start what pulls the image";
        // Its number is not known yet when it may end.
        let _paused = context.reaper.pause();
        let (answer, theirs) = fd::pipe().map_err(system(START))?;
        let (waits, hold) = fd::pipe().map_err(system(START))?;
        fd::set_nonblocking(&answer).map_err(system(START))?;
        let program = PathBuf::from("/proc/self/exe");
        let environment = pulling.environment.iter();
        let environment: Vec<&OsStr> = environment.map(OsStr::new).collect();
        let Spawning { process, failure } = process::begin(&Spawn {
            program: &program,
            args: &[
                "kplay".as_ref(),
                "internal".as_ref(),
                "pull".as_ref(),
                context.paths().run().as_os_str(),
                plan.name.as_str().as_ref(),
            ],
            env: &environment,
            fds: &[theirs.as_fd(), waits.as_fd()],
            stderr: None,
            session: Session::Own,
            parent_death: ParentDeath::Kill,
            cgroup: None,
        })
        .map_err(system(START))?;
        // What keeps it from its program ends its answer too.
        drop(failure);
        Ok(Self {
            _kept: context.reaper.keep(process.pid()),
            process,
            answer: fd::watch(answer, Interest::READABLE).map_err(system("hear what pulls"))?,
            hold: Some(hold),
        })
    }

    /// What it says; nothing if it ends without a word.
    async fn answer(&self) -> Result<Option<PullAnswer>, StartFailure> {
        let failed = || system("hear what pulls the image");
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let mut ready = self.answer.readable().await.map_err(failed())?;
            match fd::read(self.answer.get_ref(), &mut buffer) {
                Ok(0) => return Ok(serde_json::from_slice(&bytes).ok()),
                Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(e) => return Err(failed()(e).into()),
            }
        }
    }

    /// It may end once this is closed.
    fn release(mut self) -> OwnedFd {
        self.hold.take().expect("it is taken once")
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        // One that was released ends by itself; nobody waits for it but the reaper.
        if self.hold.is_some()
            && let Err(error) = self.process.signal(Signal::KILL)
        {
            tracing::warn!(%error, "what pulls an image cannot be killed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_decide() {
        use Found::{Gone, Here};
        use PullPolicy::{Always, IfNotPresent, Never};
        use Registries::{Allowed, Forbidden};
        let check = |policy, found, online, offline| {
            let ways = [Allowed, Forbidden].map(|registries| way(policy, registries, found));
            assert_eq!(ways, [online, offline], "{policy:?} {found:?}");
        };
        check(Always, Here, Way::Pull, Way::Present);
        check(Always, Gone, Way::Pull, Way::Offline);
        check(IfNotPresent, Here, Way::Present, Way::Present);
        check(IfNotPresent, Gone, Way::Pull, Way::Offline);
        check(Never, Here, Way::Present, Way::Present);
        check(Never, Gone, Way::Never, Way::Never);
    }
}
