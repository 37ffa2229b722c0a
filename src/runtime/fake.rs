//! A runtime for tests: it records what it is asked for, fails when it is told to, and its "containers" are children
//! that end when the test says so.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::{Error, ExecRequest, Prepared, Runtime, StartRequest, Started};
use crate::sys::cgroup::CgroupEntry;
use crate::sys::pidfd::Exit;
use crate::sys::process::{Puppet, Reaper};
use crate::sys::signal::Signal;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// The container's id and its command.
    Start { id: String, args: Vec<String> },
    /// The container's id and the command that was run in it.
    Exec { id: String, args: Vec<String> },
    /// The container's id.
    Forget { id: String },
}

/// The fake. The driver gets a clone, and the test keeps one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    reaper: Rc<Reaper>,
    calls: RefCell<Vec<Call>>,
    /// What the next requests come to; those beyond succeed.
    failures: RefCell<VecDeque<Option<Error>>>,
    processes: RefCell<Vec<Process>>,
}

/// A process that was started, in the order of the calls that succeeded.
#[derive(Debug)]
struct Process {
    name: String,
    puppet: Puppet,
}

impl Fake {
    /// Lets the next request that has no outcome yet succeed.
    pub(crate) fn succeed(&self) {
        self.0.failures.borrow_mut().push_back(None);
    }

    /// Lets the next request that has no outcome yet fail.
    pub(crate) fn fail(&self, error: Error) {
        self.0.failures.borrow_mut().push_back(Some(error));
    }

    /// What was asked for so far, in order.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.calls.borrow().clone()
    }

    /// Ends the latest process of the container `id` (of its commands too: `id/exec`).
    pub(crate) fn end(&self, id: &str, exit: Exit) -> io::Result<()> {
        self.latest(id, |process| process.puppet.end(exit))
    }

    /// Whether the latest process of the container `id` was sent this signal. SIGKILL ends it instead.
    pub(crate) fn was_sent(&self, id: &str, signal: Signal) -> io::Result<bool> {
        self.latest(id, |process| process.puppet.was_sent(signal))
    }

    fn latest<T>(
        &self,
        id: &str,
        act: impl FnOnce(&mut Process) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut processes = self.0.processes.borrow_mut();
        let latest = processes
            .iter_mut()
            .rev()
            .find(|process| process.name == id);
        latest.map_or(Err(io::ErrorKind::NotFound.into()), act)
    }

    fn run(&self, name: String) -> Result<Started, Error> {
        if let Some(Some(error)) = self.0.failures.borrow_mut().pop_front() {
            return Err(error);
        }
        let (puppet, process) = Puppet::start().map_err(Error::system("start a puppet"))?;
        let kept = self.0.reaper.keep(process.pid());
        self.0.processes.borrow_mut().push(Process { name, puppet });
        Ok(Started {
            process,
            terminal: None,
            kept,
        })
    }

    fn record(&self, call: Call) {
        self.0.calls.borrow_mut().push(call);
    }
}

fn args(process: Option<&oci_spec::runtime::Process>) -> Vec<String> {
    process
        .and_then(|process| process.args().clone())
        .unwrap_or_default()
}

impl Runtime for Fake {
    fn prepare(&self, _: &CgroupEntry) -> Result<Prepared, Error> {
        Ok(Prepared(None))
    }

    async fn start(&self, request: StartRequest) -> Result<Started, Error> {
        self.record(Call::Start {
            id: request.id.clone(),
            args: args(request.spec.process().as_ref()),
        });
        self.run(request.id)
    }

    async fn exec(&self, request: ExecRequest) -> Result<Started, Error> {
        self.record(Call::Exec {
            id: request.id.clone(),
            args: args(Some(&request.process)),
        });
        self.run(format!("{}/exec", request.id))
    }

    fn forget(&self, _: &Path, id: &str) -> Result<(), Error> {
        self.record(Call::Forget { id: id.to_owned() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Error, Exit, Fake, Runtime, Signal};
    use crate::runtime::{ExecRequest, SeccompProfile, Stdio};

    fn exec(id: &str) -> ExecRequest {
        ExecRequest {
            id: id.to_owned(),
            state: "/nowhere".into(),
            process: oci_spec::runtime::Process::default(),
            seccomp: SeccompProfile::Unconfined,
            cgroup: crate::sys::cgroup::CgroupEntry::default(),
            stdio: Stdio::Terminal {
                rows: 1,
                columns: 1,
            },
            tenancy: None,
        }
    }

    #[tokio::test]
    async fn does_as_it_is_told() {
        let fake = Fake::default();
        fake.succeed();
        fake.fail(Error::CommandNotFound {
            program: "sh".to_owned(),
        });
        let first = fake.exec(exec("a")).await.unwrap();
        let second = fake.exec(exec("b")).await.unwrap_err();
        assert_eq!(second.shell_code(), Some(127));
        assert_eq!(first.process.try_wait().unwrap(), None);
        first.process.signal(Signal::TERM).unwrap();
        assert!(fake.was_sent("a/exec", Signal::TERM).unwrap());
        assert!(!fake.was_sent("a/exec", Signal::HUP).unwrap());
        fake.end("a/exec", Exit::Code(7)).unwrap();
        assert_eq!(first.process.wait().unwrap(), Exit::Code(7));
        let third = fake.exec(exec("c")).await.unwrap();
        fake.end("c/exec", Exit::Signal(11)).unwrap();
        assert_eq!(third.process.wait().unwrap(), Exit::Signal(11));
        let names: Vec<String> = fake
            .calls()
            .into_iter()
            .map(|call| match call {
                Call::Exec { id, .. } | Call::Start { id, .. } | Call::Forget { id } => id,
            })
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
