//! `exec`: a command in a container, with the caller's streams or a terminal of its own.
//!
//! The caller's descriptors never get into the container: what is read and written there are pipes (or a terminal)
//! that kplay copies from and to.

use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, OwnedFd};

use clap::Args;

use super::error::{Done, Error};
use super::inventory::{self, Inventory, Pod, Scope};
use super::session::Session;
use super::target;
use crate::manager::client::{self, ExecIo, ExecSession};
use crate::model::names::{ContainerName, Namespace, PodKey, PodName};
use crate::protocol::Exec;
use crate::state::pod_dir::PodDir;
use crate::state::view;
use crate::sys::poll::Interrupt;
use crate::sys::pump::{self, Channel, Pipe};
use crate::sys::terminal::{self, RawMode, Resizes, Size};

/// Flags of `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Run in this pod: its name, TYPE/NAME, or a workload's name
    #[arg(value_name = "POD")]
    pod: String,
    /// Run in this container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Hand standard input to the command
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run this
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<String>,
}

/// What the command gets for its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stdin {
    Nothing,
    Ours,
}

/// Runs a command and ends with its exit code.
///
/// # Errors
/// The pod or container is not there or not running, or the command cannot be started.
pub(crate) fn run(arguments: &ExecArgs, session: &Session) -> Result<Done, Error> {
    let interrupt = Interrupt::install().map_err(machine("handle signals"))?;
    let (key, container) = resolve(&arguments.pod, arguments.container.as_deref(), session)?;
    let dir = PodDir::new(&session.layout, &key);
    let stdin = if arguments.stdin {
        Stdin::Ours
    } else {
        Stdin::Nothing
    };
    let tty = arguments.tty && arguments.can_have_tty(session);
    let exec = |tty: Option<(u16, u16)>| Exec {
        container: Some(container.clone()),
        command: arguments.command.clone(),
        tty,
    };
    let code = if tty {
        // Watched before the size is asked for, so that no change is missed.
        let resizes = Resizes::watch().map_err(machine("watch the terminal"))?;
        let size = terminal::size(io::stdout()).or_else(|| terminal::size(io::stdin()));
        let asked = size.map_or((24, 80), |size| (size.rows, size.columns));
        let remote = client::exec(&dir, exec(Some(asked)), &ExecIo::Terminal);
        let remote = remote.map_err(|e| named(e, &key))?;
        on_terminal(remote, stdin, &resizes, &interrupt)?
    } else {
        on_pipes(&dir, exec(None), stdin, &interrupt)?
    };
    Ok(Done::With(code))
}

/// A refusal without the pod's name gets it.
pub(super) fn named(error: crate::manager::Error, key: &PodKey) -> Error {
    use crate::manager::Error as E;
    match error {
        E::Refused { reason, message } if !message.contains(key.name.as_str()) => E::Refused {
            reason,
            message: format!("pod `{}`: {message}", key.name),
        }
        .into(),
        other => other.into(),
    }
}

pub(super) fn machine(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Machine { what, source }
}

impl ExecArgs {
    /// As kubectl: a terminal for the command takes one on this side.
    fn can_have_tty(&self, session: &Session) -> bool {
        let stdin_fits = !self.stdin || io::stdin().is_terminal();
        if !stdin_fits {
            session
                .ui
                .talk("Unable to use a TTY - input is not a terminal or the right kind of file");
        }
        stdin_fits
    }
}

/// The pod, and the container's name.
pub(super) fn resolve(
    pod: &str,
    container: Option<&str>,
    session: &Session,
) -> Result<(PodKey, ContainerName), Error> {
    resolve_in(&session.namespace, pod, container, session)
}

/// The pod in this namespace, and the container's name.
pub(super) fn resolve_in(
    namespace: &Namespace,
    pod: &str,
    container: Option<&str>,
    session: &Session,
) -> Result<(PodKey, ContainerName), Error> {
    // The usual case reads one pod instead of all.
    if let Ok(name) = PodName::parse(pod) {
        let key = PodKey {
            namespace: namespace.clone(),
            name,
        };
        if let Some(view) = view::view(&PodDir::new(&session.layout, &key))? {
            let pod = inventory::pod(view, "");
            return Ok((key, container_of(&pod, container, session)?));
        }
    }
    let inventory = Inventory::read(session, &Scope::Namespace(namespace.clone()))?;
    let pod = target::one_pod(&inventory, pod, session)?;
    Ok((pod.key.clone(), container_of(pod, container, session)?))
}

fn container_of(
    pod: &Pod,
    container: Option<&str>,
    session: &Session,
) -> Result<ContainerName, Error> {
    let name = target::container(pod, container, session)?;
    ContainerName::parse(name)
        .map_err(|fault| Error::Refused(format!("container `{name}`: its name {fault}")))
}

pub(super) fn duplicate(fd: impl std::os::fd::AsFd) -> Result<OwnedFd, Error> {
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(machine("copy a descriptor"))
}

fn on_pipes(dir: &PodDir, exec: Exec, stdin: Stdin, interrupt: &Interrupt) -> Result<u8, Error> {
    let mut channels = Vec::new();
    let Pipe { ours, theirs } = pump::input_pipe().map_err(machine("make a pipe"))?;
    match stdin {
        // Its end is all that the command will read.
        Stdin::Nothing => drop(ours),
        Stdin::Ours => channels.push(Channel::new(duplicate(io::stdin())?, ours)),
    }
    let stdout = pump::output_pipe().map_err(machine("make a pipe"))?;
    let stderr = pump::output_pipe().map_err(machine("make a pipe"))?;
    let io = ExecIo::Streams {
        stdin: theirs.as_fd(),
        stdout: stdout.theirs.as_fd(),
        stderr: stderr.theirs.as_fd(),
    };
    let remote = client::exec(dir, exec, &io).map_err(|e| named(e, dir.key()))?;
    // The command has its own copies; these would hide the ends of its streams.
    drop((theirs, stdout.theirs, stderr.theirs));
    channels.push(Channel::new(stdout.ours, duplicate(io::stdout())?));
    channels.push(Channel::new(stderr.ours, duplicate(io::stderr())?));
    attend(remote, &mut channels, interrupt, None)
}

fn on_terminal(
    mut remote: ExecSession,
    stdin: Stdin,
    resizes: &Resizes,
    interrupt: &Interrupt,
) -> Result<u8, Error> {
    let master = remote
        .take_terminal()
        .expect("the client returns a session with a terminal if one was asked for");
    let mut channels = vec![Channel::new(duplicate(&master)?, duplicate(io::stdout())?)];
    // Undone when this function returns, also with an error.
    let _raw = match stdin {
        Stdin::Ours => {
            channels.push(Channel::new(duplicate(io::stdin())?, duplicate(&master)?));
            Some(RawMode::enter().map_err(machine("set the terminal's mode"))?)
        }
        Stdin::Nothing => None,
    };
    attend(remote, &mut channels, interrupt, Some((resizes, &master)))
}

/// Copies until the command has ended, then what is left, and returns its exit code.
pub(super) fn attend(
    remote: ExecSession,
    channels: &mut [Channel],
    interrupt: &Interrupt,
    window: Option<(&Resizes, &OwnedFd)>,
) -> Result<u8, Error> {
    const ENDED: usize = 0;
    const SIGNAL: usize = 1;
    loop {
        let mut fds = vec![remote.as_fd(), interrupt.as_fd()];
        fds.extend(window.map(|(resizes, _)| resizes.as_fd()));
        let ready = pump::run_until(channels, &fds).map_err(machine("copy the streams"))?;
        if ready.contains(&SIGNAL)
            && let Some(signal) = interrupt.take().map_err(machine("handle signals"))?
        {
            return Err(Error::Signal(signal));
        }
        if let Some((resizes, master)) = window
            && resizes.take().map_err(machine("watch the terminal"))?
        {
            resize(master)?;
        }
        if ready.contains(&ENDED) {
            pump::drain(channels).map_err(machine("copy the streams"))?;
            return Ok(remote.wait()?);
        }
    }
}

pub(super) fn resize(master: &OwnedFd) -> Result<(), Error> {
    let Some(Size { rows, columns }) =
        terminal::size(io::stdout()).or_else(|| terminal::size(io::stdin()))
    else {
        return Ok(());
    };
    terminal::set_size(master, rows, columns).map_err(machine("resize the terminal"))
}
