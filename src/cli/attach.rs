//! `attach`: what a container prints from now on, and its standard input.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use clap::Args;

use super::error::{Done, Error};
use super::exec::{attend, duplicate, machine, named, resize, resolve};
use super::session::Session;
use crate::manager::client::{self, AttachIo};
use crate::protocol::Attach;
use crate::state::pod_dir::PodDir;
use crate::sys::poll::Interrupt;
use crate::sys::pump::{self, Channel};
use crate::sys::terminal::{RawMode, Resizes};

/// Flags of `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Attach to this pod: its name, TYPE/NAME, or a workload's name
    #[arg(value_name = "POD")]
    pod: String,
    /// Attach to this container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Hand standard input to the container
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Use the container's terminal
    #[arg(short, long)]
    tty: bool,
}

/// Copies until the container has ended, which is success however it ended, as with kubectl.
///
/// # Errors
/// The pod or container is not there or not running.
pub(crate) fn run(arguments: &AttachArgs, session: &Session) -> Result<Done, Error> {
    let interrupt = Interrupt::install().map_err(machine("handle signals"))?;
    let (key, container) = resolve(&arguments.pod, arguments.container.as_deref(), session)?;
    let dir = PodDir::new(&session.layout, &key);
    let stdout = pump::output_pipe().map_err(machine("make a pipe"))?;
    let stderr = pump::output_pipe().map_err(machine("make a pipe"))?;
    // Watched before the size is set, so that no change is missed.
    let resizes = Resizes::watch().map_err(machine("watch the terminal"))?;
    let wanted = Attach {
        container: Some(container.clone()),
        stdin: arguments.stdin,
    };
    let io = AttachIo {
        stdout: stdout.theirs.as_fd(),
        stderr: stderr.theirs.as_fd(),
    };
    let attached = client::attach(&dir, wanted, &io).map_err(|e| named(e, &key))?;
    drop((stdout.theirs, stderr.theirs));
    let mut channels = vec![
        Channel::new(stdout.ours, duplicate(io::stdout())?),
        Channel::new(stderr.ours, duplicate(io::stderr())?),
    ];
    if arguments.tty && !attached.has_terminal {
        let message = format!("Unable to use a TTY - container {container} did not allocate one");
        session.ui.talk(&message);
    }
    let mut raw = None;
    let mut terminal = None;
    if let Some(input) = attached.input {
        if attached.has_terminal {
            resize(&input)?;
            terminal = Some(duplicate(&input)?);
            if arguments.stdin && io::stdin().is_terminal() {
                session
                    .ui
                    .talk("If you don't see a command prompt, try pressing enter.");
                raw = Some(RawMode::enter().map_err(machine("set the terminal's mode"))?);
            }
        } else {
            pump::make_nonblocking(&input).map_err(machine("write without waiting"))?;
        }
        if arguments.stdin {
            channels.push(Channel::new(duplicate(io::stdin())?, input));
        }
    } else if arguments.stdin {
        let message = format!("container {container} does not take standard input (any more)");
        session.ui.talk(&message);
    }
    let window = terminal.as_ref().map(|terminal| (&resizes, terminal));
    let ended = attend(attached.session, &mut channels, &interrupt, window);
    drop(raw);
    Ok(Done::With(ended?))
}
