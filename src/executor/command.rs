//! Commands that the executor itself runs in a container, for hooks and the like, and what they print.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

use super::context::Context;
use super::error::{SystemError, system};
use super::lifecycle::Index;
use super::process;
use crate::runtime::{self, Runtime, Stdio};
use crate::sys::cgroup;
use crate::sys::fd;
use crate::sys::pidfd::PidFd;
use crate::sys::signal::Signal;

/// How much of a command's output is kept, in bytes; a kubelet's probes keep as much.
const LONGEST: usize = 10 * 1024;

/// A command that has ended.
#[derive(Debug)]
pub(super) struct Done {
    /// 128 + signal for a signal.
    pub(super) code: u8,
    /// The beginning of what it printed, standard output and error.
    pub(super) output: Vec<u8>,
}

/// Why a command was not run to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the container is not running")]
    NotRunning,
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
}

/// Killed when it is dropped before its end.
struct Running<'a> {
    process: &'a PidFd,
    ended: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.process.signal(Signal::KILL)
        {
            tracing::warn!(%error, "cannot kill a command");
        }
    }
}

/// Runs a command in a running container, as its user, and waits for its end. It is killed if this is dropped before.
pub(super) async fn run<R: Runtime>(
    context: &Rc<Context<R>>,
    container: Index,
    words: Vec<String>,
) -> Result<Done, Error> {
    let (output, stdio) = stdio().map_err(system("make a pipe"))?;
    let request = {
        let live = context.live.borrow();
        let live = live.get(&container).ok_or(Error::NotRunning)?;
        live.exec_request(context.paths().oci_state(), words, stdio)?
    };
    let started = context.runtime.exec(request).await?;
    let mut running = Running {
        process: &started.process,
        ended: false,
    };
    let kept = RefCell::new(Vec::new());
    let take = |bytes: &[u8]| {
        let mut kept = kept.borrow_mut();
        let room = LONGEST - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    };
    let watched = output
        .as_fd()
        .try_clone_to_owned()
        .map_err(system("watch a command"))?;
    let exit = {
        let mut exit = std::pin::pin!(process::wait(&started.process));
        tokio::select! {
            exit = &mut exit => exit,
            // It may close its output and stay.
            read = process::read_all(watched, &context.buffer, take) => match read {
                Ok(()) => exit.await,
                Err(error) => Err(error),
            },
        }
    };
    running.ended = exit.is_ok();
    let exit = exit.map_err(system("wait for a command"))?;
    read_rest(&output, &context.buffer, take).map_err(system("read from a command"))?;
    Ok(Done {
        code: exit.code(),
        output: kept.into_inner(),
    })
}

/// The end of the pipe that is read, and the command's streams.
fn stdio() -> io::Result<(OwnedFd, Stdio)> {
    let (output, stdout) = fd::pipe()?;
    let stderr = stdout.try_clone()?;
    let stdin = fd::dev_null()?;
    fd::set_nonblocking(&output)?;
    let stdio = Stdio::Pipes {
        stdin,
        stdout,
        stderr,
    };
    Ok((output, stdio))
}

/// Reads what is there already. What the command left running is not waited for.
fn read_rest(output: &OwnedFd, buffer: &RefCell<Vec<u8>>, take: impl Fn(&[u8])) -> io::Result<()> {
    let mut buffer = buffer.borrow_mut();
    loop {
        match fd::read(output, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => take(&buffer[..length]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
