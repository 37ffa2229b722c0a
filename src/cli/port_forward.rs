//! `port-forward`: ports of this machine that lead to a pod's, as long as the command runs.

use clap::Args;

use super::error::{Done, Error};
use super::exec::machine;
use super::session::Session;
use crate::manager::port_forward::{self, Addresses, Destination, Notice, PortPair};
use crate::model::cause::chain;
use crate::output;
use crate::sys::poll::Interrupt;

/// Flags of `port-forward`.
#[derive(Debug, Args)]
pub(crate) struct PortForwardArgs {
    /// Forward to this pod: its name, TYPE/NAME (also svc/NAME), or a workload's name
    #[arg(value_name = "POD")]
    pod: String,
    /// Forward these ports of the pod or Service, numbers or names; without LOCAL from the same number, and from a
    /// free one if it is empty
    #[arg(value_name = "[LOCAL:]REMOTE", required = true)]
    ports: Vec<PortPair>,
    /// Listen at these addresses of this machine
    #[arg(
        long,
        value_name = "ADDRESS,…",
        value_delimiter = ',',
        default_value = "localhost"
    )]
    address: Vec<Addresses>,
}

/// Forwards until a signal comes.
///
/// # Errors
/// There is no such pod or port, or an address cannot be listened at; the signal.
pub(crate) fn run(arguments: &PortForwardArgs, session: &Session) -> Result<Done, Error> {
    let interrupt = Interrupt::install().map_err(machine("handle signals"))?;
    let destination = Destination::parse(&session.namespace, &arguments.pod)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(machine("start the event loop"))?;
    let signal = runtime.block_on(async {
        let mut printed = Ok(());
        let listening = port_forward::listen(
            &session.layout,
            &destination,
            &arguments.ports,
            &arguments.address,
            &mut |address, port| {
                let line = format!("Forwarding from {address} -> {port}");
                printed = std::mem::replace(&mut printed, Ok(())).and(session.ui.line(&line));
            },
        )?;
        printed?;
        let notify = |notice| tell(&notice, session);
        tokio::select! {
            () = port_forward::serve(&session.layout, &destination, listening, &notify) => Ok(0),
            signal = interrupt.wait() => signal.map_err(machine("take a signal")),
        }
    })?;
    Err(Error::Signal(signal))
}

fn tell(notice: &Notice, session: &Session) {
    let ui = &session.ui;
    match notice {
        Notice::Accepted { local } if !ui.is_quiet() => {
            match ui.line(&format!("Handling connection for {local}")) {
                Ok(()) | Err(output::Error::Closed) => {}
                // The connection matters more.
                Err(error) => tracing::debug!(error = chain(&error), "not told"),
            }
        }
        Notice::Accepted { .. } => {}
        Notice::Ended {
            from,
            pod,
            port,
            after,
            fault,
        } => {
            let how = match fault {
                None => "closed".to_owned(),
                Some(error) => format!("broken: {error}"),
            };
            let seconds = after.as_secs_f64();
            ui.detail(&format!(
                "connection from {from} to port {port} of the pod `{}`: {how}, after {seconds:.1} s",
                pod.name
            ));
        }
        Notice::Refused { local, error } => ui.error_text(&format!(
            "cannot forward a connection to port {local}: {}",
            chain(error)
        )),
        Notice::Exhausted(error) => {
            ui.warning(&format!("cannot take connections, trying again: {error}"));
        }
    }
}
