//! Talks to a running executor over its control socket. The server side is the executor's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::error::Error;
use crate::model::names::{ContainerName, PodKey};
use crate::protocol::{Attach, Exec, Opened, Reply, Request};
use crate::state::pod_dir::PodDir;
use crate::sys::fd;
use crate::sys::socket::{Blocking, Connection, Packet};

/// What a command in a container reads and writes.
#[derive(Debug)]
pub enum ExecIo<'a> {
    /// Descriptors of the caller's, of which the command gets copies. Without `Exec::tty`.
    Streams {
        stdin: BorrowedFd<'a>,
        stdout: BorrowedFd<'a>,
        stderr: BorrowedFd<'a>,
    },
    /// A terminal of its own. With `Exec::tty`.
    Terminal,
}

/// A command that runs in a container. Readable (in poll's sense) when it has ended; dropped, it runs on.
#[derive(Debug)]
pub struct ExecSession {
    pod: PodKey,
    connection: Connection,
    terminal: Option<OwnedFd>,
}

/// Sends a request. The executor answers on the connection and then closes it.
///
/// # Errors
/// [`Error::NotRunning`] if nobody listens; [`Error::Control`].
pub fn send(dir: &PodDir, request: &Request) -> Result<Connection, Error> {
    send_with(dir, request, &[])
}

fn send_with(dir: &PodDir, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Connection, Error> {
    let pod = dir.key().clone();
    let connection = match Connection::connect(&dir.paths().control_socket()) {
        Ok(connection) => connection,
        Err(error) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    Error::NotRunning { pod }
                }
                kind => Error::Control {
                    pod,
                    source: io::Error::new(kind, error),
                },
            });
        }
    };
    let packet = serde_json::to_vec(request).expect("a request has no maps");
    match connection.send(&packet, fds) {
        Ok(()) => Ok(connection),
        Err(source) => Err(Error::Control { pod, source }),
    }
}

/// Makes an executor read its launch file again, and waits until the pod is as that says.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::Refused`] with the reason, [`Error::Control`].
pub fn refresh(dir: &PodDir) -> Result<(), Error> {
    let session = ExecSession {
        pod: dir.key().clone(),
        connection: send(dir, &Request::Refresh)?,
        terminal: None,
    };
    match session.receive()?.0 {
        Reply::Refreshed => Ok(()),
        Reply::Refused { reason, message } => Err(Error::Refused { reason, message }),
        Reply::ExecStarted
        | Reply::ExecExited { .. }
        | Reply::Attached { .. }
        | Reply::AttachEnded
        | Reply::Opened(_)
        | Reply::Connected => Err(session.broken()),
    }
}

/// The files of a running container.
#[derive(Debug)]
pub struct Files {
    pub root: OwnedFd,
    /// Its user namespace, if that is not kplay's.
    pub users: Option<OwnedFd>,
    pub opened: Opened,
}

/// Gets at the files of a running container.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::Refused`] with the reason, [`Error::Control`].
pub fn open(dir: &PodDir, container: Option<ContainerName>) -> Result<Files, Error> {
    let session = ExecSession {
        pod: dir.key().clone(),
        connection: send(dir, &Request::Open { container })?,
        terminal: None,
    };
    let (reply, fds) = session.receive()?;
    let mut fds = fds.into_iter();
    match (reply, fds.next()) {
        (Reply::Opened(opened), Some(root)) => Ok(Files {
            root,
            users: fds.next(),
            opened,
        }),
        (Reply::Refused { reason, message }, _) => Err(Error::Refused { reason, message }),
        (
            Reply::Opened(_)
            | Reply::Refreshed
            | Reply::Attached { .. }
            | Reply::AttachEnded
            | Reply::Connected
            | Reply::ExecStarted
            | Reply::ExecExited { .. },
            _,
        ) => Err(session.broken()),
    }
}

/// Starts a command in a container.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::Refused`] with the reason, [`Error::Control`].
///
/// # Panics
/// `io` does not fit `exec.tty`.
pub fn exec(dir: &PodDir, exec: Exec, io: &ExecIo<'_>) -> Result<ExecSession, Error> {
    let fds = match io {
        ExecIo::Streams {
            stdin,
            stdout,
            stderr,
        } => vec![*stdin, *stdout, *stderr],
        ExecIo::Terminal => Vec::new(),
    };
    assert_eq!(exec.tty.is_some(), fds.is_empty(), "a terminal or streams");
    let wants_terminal = exec.tty.is_some();
    let mut session = ExecSession {
        pod: dir.key().clone(),
        connection: send_with(dir, &Request::Exec(exec), &fds)?,
        terminal: None,
    };
    let (reply, mut fds) = session.receive()?;
    match reply {
        Reply::ExecStarted if fds.len() == usize::from(wants_terminal) => {
            session.terminal = fds.pop();
            Ok(session)
        }
        Reply::ExecStarted
        | Reply::ExecExited { .. }
        | Reply::Refreshed
        | Reply::Attached { .. }
        | Reply::AttachEnded
        | Reply::Opened(_)
        | Reply::Connected => Err(session.broken()),
        Reply::Refused { reason, message } => Err(Error::Refused { reason, message }),
    }
}

/// Where a container's output goes from now on.
#[derive(Debug)]
pub struct AttachIo<'a> {
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
}

/// A container that is looked at. Readable (in poll's sense) when it has ended.
#[derive(Debug)]
pub struct AttachSession {
    pub session: ExecSession,
    /// What can be written into: the terminal, or standard input if it was asked for and is to be had.
    pub input: Option<OwnedFd>,
    pub has_terminal: bool,
}

/// Looks at a running container.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::Refused`] with the reason, [`Error::Control`].
pub fn attach(dir: &PodDir, wanted: Attach, io: &AttachIo<'_>) -> Result<AttachSession, Error> {
    let session = ExecSession {
        pod: dir.key().clone(),
        connection: send_with(dir, &Request::Attach(wanted), &[io.stdout, io.stderr])?,
        terminal: None,
    };
    let (reply, mut fds) = session.receive()?;
    match reply {
        Reply::Attached { terminal } => Ok(AttachSession {
            session,
            input: fds.pop(),
            has_terminal: terminal,
        }),
        Reply::Refused { reason, message } => Err(Error::Refused { reason, message }),
        Reply::ExecStarted
        | Reply::ExecExited { .. }
        | Reply::AttachEnded
        | Reply::Refreshed
        | Reply::Opened(_)
        | Reply::Connected => Err(session.broken()),
    }
}

/// Has the executor connect to a port of the pod's own loopback, and takes the connection over. Within a tokio runtime.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::Refused`] with the reason, [`Error::Control`].
pub async fn connect(dir: &PodDir, port: u16) -> Result<TcpStream, Error> {
    let pod = dir.key();
    let connection = send(dir, &Request::Connect { port })?;
    let received = async {
        connection.set_blocking(Blocking::No)?;
        let connection = fd::watch(connection, Interest::READABLE)?;
        connection
            .async_io(Interest::READABLE, Connection::receive)
            .await
    };
    let (reply, mut fds) = understand(pod, received.await)?;
    match (reply, fds.pop()) {
        (Reply::Connected, Some(fd)) => TcpStream::from_std(fd.into()).map_err(control(pod)),
        (Reply::Refused { reason, message }, _) => Err(Error::Refused { reason, message }),
        (
            Reply::Connected
            | Reply::Refreshed
            | Reply::Attached { .. }
            | Reply::AttachEnded
            | Reply::Opened(_)
            | Reply::ExecStarted
            | Reply::ExecExited { .. },
            _,
        ) => Err(control(pod)(io::ErrorKind::InvalidData.into())),
    }
}

/// What the executor of a pod said.
fn understand(
    pod: &PodKey,
    received: io::Result<Option<Packet>>,
) -> Result<(Reply, Vec<OwnedFd>), Error> {
    let Packet { bytes, fds } = received
        .and_then(|packet| packet.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
        .map_err(control(pod))?;
    let reply = serde_json::from_slice(&bytes).map_err(|e| control(pod)(e.into()))?;
    Ok((reply, fds))
}

fn control(pod: &PodKey) -> impl FnOnce(io::Error) -> Error {
    let pod = pod.clone();
    move |source| Error::Control { pod, source }
}

impl ExecSession {
    /// The master side of the command's terminal, once, if it has one.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Waits for the command's end and returns its exit code: 128 + n for a signal. 0 at the end of what was looked at.
    ///
    /// # Errors
    /// [`Error::Control`] if the executor ended before the command was seen to.
    pub fn wait(self) -> Result<u8, Error> {
        match self.receive()?.0 {
            Reply::ExecExited { code } => Ok(code),
            Reply::Refused { reason, message } => Err(Error::Refused { reason, message }),
            Reply::AttachEnded => Ok(0),
            Reply::ExecStarted
            | Reply::Refreshed
            | Reply::Attached { .. }
            | Reply::Opened(_)
            | Reply::Connected => Err(self.broken()),
        }
    }

    fn receive(&self) -> Result<(Reply, Vec<OwnedFd>), Error> {
        understand(&self.pod, self.connection.receive())
    }

    fn broken(&self) -> Error {
        control(&self.pod)(io::ErrorKind::InvalidData.into())
    }
}

impl AsFd for ExecSession {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::manager::testing::{Machine, input};

    #[test]
    fn a_command_gets_the_callers_streams_and_its_code_comes_back() {
        let mut machine = Machine::new();
        machine.apply(&input(&[("web-0", "run")])).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let (empty, _) = io::pipe().unwrap();
        let command = Exec {
            container: None,
            command: vec!["echo".into(), "hello".into()],
            tty: None,
        };
        let streams = ExecIo::Streams {
            stdin: empty.as_fd(),
            stdout: writer.as_fd(),
            stderr: writer.as_fd(),
        };
        let session = exec(&machine.dir("web-0"), command.clone(), &streams).unwrap();
        assert_eq!(session.wait().unwrap(), 7);
        machine.kill("web-0");
        let dead = exec(&machine.dir("web-0"), command, &streams).unwrap_err();
        assert!(matches!(dead, Error::NotRunning { .. }), "{dead:?}");
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "echo hello");
    }
}
