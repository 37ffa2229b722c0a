//! The end of a container's run.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{Run, remove_cgroup};
use crate::executor::attach::Audience;
use crate::executor::context::Message;
use crate::executor::lifecycle::{Event, Exit};
use crate::executor::{process, termination};
use crate::model::cause::chain;
use crate::runtime::Runtime;
use crate::sys::cgroup::Cgroup;
use crate::sys::inhabitants;
use crate::sys::pidfd::{self, PidFd};
use crate::sys::process::Kept;

/// How long a container's output may stay open after its processes have been killed: only a process that left its
/// cgroup can hold it.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// Waits for the end of a run.
pub(super) struct Watch<R> {
    pub(super) run: Run<R>,
    pub(super) process: Rc<PidFd>,
    pub(super) cgroup: Rc<Cgroup>,
    pub(super) pumps: Vec<JoinHandle<()>>,
    pub(super) audience: Rc<Audience>,
    pub(super) _kept: Kept,
}

impl<R: Runtime + 'static> Watch<R> {
    pub(super) async fn until_the_end(self) {
        let exit = match process::wait(&self.process).await {
            Ok(exit) => exit,
            Err(error) => {
                tracing::error!(%error, "cannot wait for a container");
                pidfd::Exit::Code(255)
            }
        };
        let out_of_memory = self.killed_for_memory(exit);
        // What the container's first process leaves behind does not outlive it, as with containerd.
        if let Err(error) = self.cgroup.kill() {
            tracing::error!(error = chain(&error), "cannot kill a container's processes");
        }
        if self.run.may_leave_processes()
            && let Err(error) = inhabitants::kill_all(&self.run.dir())
        {
            tracing::error!(%error, "cannot kill a container's processes");
        }
        for pump in self.pumps {
            let abort = pump.abort_handle();
            if tokio::time::timeout(LAST_OUTPUT, pump).await.is_err() {
                abort.abort();
            }
        }
        self.audience.end().await;
        let run = self.run;
        let message = termination::message(&run.context, run.plan(), run.attempt, &run.dir(), exit);
        run.context.live.borrow_mut().remove(&run.index);
        remove_cgroup(&self.cgroup);
        run.clean_up();
        let exit = Exit {
            code: exit.code().into(),
            signal: match exit {
                pidfd::Exit::Code(_) => None,
                pidfd::Exit::Signal(signal) => Some(signal),
            },
            out_of_memory,
            message,
        };
        run.context.send(Message::Lifecycle(Event::Exited {
            container: run.index,
            exit,
        }));
    }

    fn killed_for_memory(&self, exit: pidfd::Exit) -> bool {
        exit.code() == 137 && self.cgroup.oom_kills().is_ok_and(|kills| kills > 0)
    }
}

impl<R: Runtime + 'static> Run<R> {
    /// Whether processes may be left when the first one has ended, and no cgroup knows of them.
    fn may_leave_processes(&self) -> bool {
        let pod = &self.context.launch.plan;
        self.context.hierarchies.version().is_none()
            && (pod.host_pid || pod.share_process_namespace)
    }
}
