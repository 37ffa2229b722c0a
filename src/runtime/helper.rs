//! The executor's side of a helper: starts `kplay internal create` and listens to what comes of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::wire::{Answer, GO, LONGEST_ANSWER};
use super::{Error, Started};
use crate::sys::cgroup::CgroupEntry;
use crate::sys::mount::{self, Access};
use crate::sys::pidfd::{Exit, PidFd};
use crate::sys::process::{self, ParentDeath, Reaper, Session, Spawn, Spawning};
use crate::sys::signal::Signal;
use crate::sys::{self, fd, terminal};

/// The kplay binary that helpers run.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

impl Program {
    /// The binary of this very process.
    #[must_use]
    pub fn own() -> Self {
        Self("/proc/self/exe".into())
    }

    /// A binary by its path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The binary of this process by a read-only mount of it, at `target`, in this process's mount namespace: a
    /// container that gets hold of a helper through `/proc/PID/exe` cannot overwrite it (CVE-2019-5736).
    ///
    /// To be called after [`enter_private_mounts`](super::enter_private_mounts).
    ///
    /// # Errors
    /// The caller may not mount.
    pub fn read_only(target: &Path) -> Result<Self, Error> {
        // `/proc/self/exe` itself stands for a mount of the namespace that this process has left.
        let path = sys::fs::read_link(Path::new("/proc/self/exe"))?;
        Self::at(path).mounted_read_only(target)
    }

    /// As [`Program::read_only`], for this binary.
    ///
    /// # Errors
    /// The caller may not mount.
    pub fn mounted_read_only(&self, target: &Path) -> Result<Self, Error> {
        sys::fs::replace_in_memory(target, 0o500, b"")?;
        mount::bind(&self.0, target, Access::ReadOnly)?;
        Ok(Self(target.into()))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// A helper: born in its container's cgroup, it waits for its request and carries it out. Started ahead, it has its
/// place and its memory when the request comes. Killed if it is dropped before it has ended.
#[derive(Debug)]
pub(super) struct Helper {
    process: AsyncFd<PidFd>,
    /// What kept it from its program, if anything did.
    failure: Option<process::Failure>,
    socket: AsyncFd<OwnedFd>,
    exit: Option<Exit>,
    _kept: process::Kept,
}

impl Helper {
    /// Starts a helper that runs `program`. Does not wait for it.
    pub(super) fn start(
        program: &Program,
        reaper: &Rc<Reaper>,
        cgroup: &CgroupEntry,
    ) -> Result<Self, Error> {
        // Its number is not known yet when it may end.
        let _paused = reaper.pause();
        let (socket, theirs) = fd::seqpacket_pair().map_err(Error::system("make a socket"))?;
        fd::set_nonblocking(&socket).map_err(Error::system("make a socket"))?;
        let Spawning { process, failure } = process::begin(&Spawn {
            program: &program.0,
            args: &["kplay".as_ref(), "internal".as_ref(), "create".as_ref()],
            env: &[],
            fds: &[theirs.as_fd()],
            stderr: None,
            session: Session::Own,
            parent_death: ParentDeath::Kill,
            cgroup: Some(cgroup),
        })
        .map_err(Error::system(START))?;
        let kept = reaper.keep(process.pid());
        Ok(Self {
            process: fd::watch(process, Interest::READABLE)
                .map_err(Error::system("watch the helper"))?,
            failure: Some(failure),
            socket: fd::watch(socket, Interest::READABLE)
                .map_err(Error::system("watch the helper"))?,
            exit: None,
            _kept: kept,
        })
    }

    /// Hands the request over.
    fn request(&self, fds: &[OwnedFd]) -> Result<(), Error> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        match fd::send(self.socket.get_ref(), GO, &fds) {
            // It has ended: why, is seen next.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(Error::system("give the helper its request")),
        }
    }

    /// Waits until it has said something, or ended.
    async fn change(&mut self) -> Result<(), Error> {
        let said = async {
            let ready = self.socket.readable().await;
            // What has come is read next, all of it.
            ready.map(|mut ready| ready.clear_ready())
        };
        match self.exit {
            Some(_) => said.await.map_err(Error::system("watch the helper")),
            None => {
                tokio::select! {
                    said = said => said.map_err(Error::system("watch the helper")),
                    exit = end(&self.process) => exit.map(|exit| self.exit = Some(exit)),
                }
            }
        }
    }

    /// Waits for its end.
    async fn end(&mut self) -> Result<Exit, Error> {
        match self.exit {
            Some(exit) => Ok(exit),
            None => {
                let exit = end(&self.process).await?;
                self.exit = Some(exit);
                Ok(exit)
            }
        }
    }
}

async fn end(process: &AsyncFd<PidFd>) -> Result<Exit, Error> {
    let failed = || Error::system("wait for the helper");
    loop {
        let mut ready = process.readable().await.map_err(failed())?;
        if let Some(exit) = process.get_ref().try_wait().map_err(failed())? {
            return Ok(exit);
        }
        ready.clear_ready();
    }
}

/// What fails if a helper does not come to be.
const START: &str = "start the helper that creates containers";

impl Drop for Helper {
    fn drop(&mut self) {
        if self.exit.is_none()
            && let Err(error) = self.process.get_ref().signal(Signal::KILL)
        {
            tracing::warn!(%error, "a helper cannot be killed");
        }
    }
}

/// Everything that was answered.
#[derive(Default)]
struct Heard {
    waiting: Option<PidFd>,
    started: Option<(PidFd, process::Kept)>,
    terminal: Option<OwnedFd>,
    /// The first is the most precise: from the process itself, not from those who waited for it.
    failures: Vec<Error>,
    traces: Vec<String>,
}

/// What a helper is given.
pub(super) struct Order<'a> {
    /// The first is the request.
    pub(super) fds: Vec<OwnedFd>,
    /// The process's working directory, for the error.
    pub(super) directory: &'a Path,
    pub(super) terminal: Option<Terminal>,
}

/// What becomes of a new terminal.
#[derive(Clone, Copy)]
pub(super) struct Terminal {
    pub(super) uid: u32,
    pub(super) rows: u16,
    pub(super) columns: u16,
}

impl Terminal {
    fn prepare(self, terminal: &OwnedFd) -> Result<(), Error> {
        terminal::give_to(terminal, self.uid)
            .map_err(Error::system("give the terminal to its user"))?;
        terminal::set_size(terminal, self.rows, self.columns)
            .map_err(Error::system("set the terminal's size"))
    }
}

/// Has a helper carry out its order, and waits until the process that it starts has executed its program, or until all
/// involved have given up.
pub(super) async fn run(
    mut helper: Helper,
    reaper: &Rc<Reaper>,
    order: Order<'_>,
) -> Result<Started, Error> {
    let Order {
        fds,
        directory,
        terminal,
    } = order;
    // Children of unknown numbers come into being from here on.
    let paused = reaper.pause();
    helper.request(&fds)?;
    // Only others hold these now, so that their ends of file mean something.
    drop(fds);
    let heard = listen(&mut helper, reaper, terminal).await?;
    let exit = helper.end().await?;
    drop(paused);
    reaper
        .reap()
        .map_err(Error::system("reap what the helper left"))?;
    if let Some(failure) = helper.failure.take()
        && let Some(source) = failure.wait().map_err(Error::system(START))?
    {
        return Err(Error::system(START)(source));
    }
    heard.conclude(exit, directory)
}

async fn listen(
    helper: &mut Helper,
    reaper: &Rc<Reaper>,
    terminal: Option<Terminal>,
) -> Result<Heard, Error> {
    let mut heard = Heard::default();
    let mut buffer = vec![0; LONGEST_ANSWER];
    loop {
        let received = match fd::receive(helper.socket.get_ref(), &mut buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                if helper.exit.is_some() {
                    // It has said all that it could.
                    heard.end_who_waits()?;
                }
                helper.change().await?;
                continue;
            }
            // A peer that was killed with a message unread.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(heard),
            received => received.map_err(Error::system("read from the helper"))?,
        };
        let (length, passed) = received;
        if length == 0 {
            return Ok(heard);
        }
        let passed = passed.into_iter().next();
        let answer = serde_json::from_slice(&buffer[..length]).map_err(|source| Error::System {
            what: "understand the helper",
            source: source.into(),
        })?;
        if let (Answer::Terminal, Some(plan), Some(slave)) = (&answer, terminal, &passed) {
            plan.prepare(slave)?;
            fd::send(helper.socket.get_ref(), GO, &[])
                .map_err(Error::system("answer the helper"))?;
        }
        heard.take(answer, passed, reaper)?;
    }
}

impl Heard {
    fn take(
        &mut self,
        answer: Answer,
        passed: Option<OwnedFd>,
        reaper: &Rc<Reaper>,
    ) -> Result<(), Error> {
        match answer {
            Answer::Waiting => self.waiting = passed.map(PidFd::passed),
            Answer::Started { pid } => {
                // Kept before it can be reaped: the reaper pauses.
                let kept = reaper.keep(pid);
                let process =
                    PidFd::open(pid).map_err(Error::system("open the started process"))?;
                self.started = Some((process, kept));
                self.terminal = passed;
            }
            // Answered already; an error if nobody wanted one, which the process reports itself.
            Answer::Terminal => {}
            Answer::CommandNotFound { program } => {
                self.failures.push(Error::CommandNotFound { program });
            }
            Answer::NotExecutable { program, errno } => self.failures.push(Error::NotExecutable {
                program,
                source: std::io::Error::from_raw_os_error(errno),
            }),
            Answer::Misplaced { detail } => self.failures.push(Error::Misplaced { detail }),
            Answer::Failed { detail } => self.failures.push(Error::Create { detail }),
            Answer::Trace { message } => self.traces.push(message),
        }
        Ok(())
    }

    /// Ends the process that waits for the helper, which has ended, to start it.
    fn end_who_waits(&mut self) -> Result<(), Error> {
        match self.waiting.take().filter(|_| self.started.is_none()) {
            Some(process) => process
                .signal(Signal::KILL)
                .map_err(Error::system("end what the helper left")),
            None => Ok(()),
        }
    }

    fn conclude(mut self, exit: Exit, directory: &Path) -> Result<Started, Error> {
        if !self.failures.is_empty() {
            let first = self.failures.remove(0);
            return Err(self.explain(first, directory));
        }
        match self.started {
            Some((process, kept)) => Ok(Started {
                process,
                terminal: self.terminal,
                kept,
            }),
            None => Err(Error::Helper {
                detail: match exit {
                    Exit::Code(code) => format!("it exited with code {code}"),
                    Exit::Signal(signal) => format!("signal {signal} ended it"),
                },
            }),
        }
    }

    /// Adds what libcontainer said on the way to its own flat words.
    fn explain(&self, error: Error, directory: &Path) -> Error {
        // The first is the innermost; later ones repeat it from further out.
        match (error, self.traces.first()) {
            (Error::Create { detail }, Some(first)) => match first.strip_prefix(CHDIR) {
                Some(errno) => Error::WorkingDirectory {
                    path: directory.to_owned(),
                    detail: errno.to_owned(),
                },
                None => Error::Create {
                    detail: format!("{first} ({detail})"),
                },
            },
            (other, _) => other,
        }
    }
}

/// What libcontainer says before the error's name when it cannot enter the working directory.
const CHDIR: &str = "failed to chdir e=";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::process::Puppet;

    /// Hears a helper to the end that ends without having started who waits for it; that one holds the socket, too.
    #[test]
    fn who_waits_for_a_helper_that_has_ended_is_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (socket, theirs) = fd::seqpacket_pair().unwrap();
            fd::set_nonblocking(&socket).unwrap();
            let (mut strings, process) = Puppet::start().unwrap();
            let (_waiting, waiting) = Puppet::start().unwrap();
            let message = serde_json::to_vec(&Answer::Waiting).unwrap();
            fd::send(&theirs, &message, &[waiting.as_fd()]).unwrap();
            drop(theirs);
            let reaper = Reaper::new();
            let mut helper = Helper {
                _kept: reaper.keep(process.pid()),
                process: fd::watch(process, Interest::READABLE).unwrap(),
                failure: None,
                socket: fd::watch(socket, Interest::READABLE).unwrap(),
                exit: None,
            };
            strings.end(Exit::Code(1)).unwrap();
            let heard = listen(&mut helper, &reaper, None);
            let heard = tokio::time::timeout(Duration::from_secs(30), heard).await;
            let heard = heard.expect("not for ever").unwrap();
            assert_eq!(waiting.wait().unwrap(), Exit::Signal(9));
            let exit = helper.end().await.unwrap();
            let error = heard.conclude(exit, Path::new("/")).unwrap_err();
            assert!(matches!(error, Error::Helper { .. }), "{error:?}");
        });
    }
}
