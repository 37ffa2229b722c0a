//! The pod's socket, server side: commands to run in containers, and the wish to end.
//!
//! The protocol is described in [`crate::protocol`]. A client that goes away does not end what it started, as with
//! `kubectl exec`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::attach::Parting;
use super::container::{Live, Once};
use super::context::{Context, Message};
use super::dial::Network;
use super::lifecycle::{Cause, Event, Index};
use super::{process, refresh};
use crate::model::names::ContainerName;
use crate::protocol::{Attach, Exec, Refusal, Reply, Request};
use crate::runtime::{self, ExecRequest, Runtime, Stdio};
use crate::sys::socket::{Blocking, Connection, Listener, Packet};

/// Serves clients until the socket is closed.
pub(super) async fn serve<R: Runtime + 'static>(context: Rc<Context<R>>, listener: Listener) {
    let listener = match crate::sys::fd::watch(listener, Interest::READABLE) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot watch the control socket");
            return;
        }
    };
    loop {
        let accepted = listener
            .async_io(Interest::READABLE, |listener| listener.accept(Blocking::No))
            .await;
        match accepted {
            Ok(connection) => {
                tokio::task::spawn_local(converse(Rc::clone(&context), connection));
            }
            Err(error) => {
                // Out of descriptors: the client sees a closed connection later than it likes, nobody else does.
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse<R: Runtime>(context: Rc<Context<R>>, connection: Connection) {
    let outcome = async {
        let connection = crate::sys::fd::watch(connection, Interest::READABLE)?;
        let received = connection
            .async_io(Interest::READABLE, Connection::receive)
            .await?;
        if let Some(packet) = received {
            answer(&context, &connection, packet).await?;
        }
        std::io::Result::Ok(())
    };
    if let Err(error) = outcome.await {
        tracing::debug!(%error, "a client went away");
    }
}

async fn answer<R: Runtime>(
    context: &Rc<Context<R>>,
    connection: &AsyncFd<Connection>,
    packet: Packet,
) -> std::io::Result<()> {
    match serde_json::from_slice(&packet.bytes) {
        Ok(Request::Stop { grace_period }) => {
            context.send(Message::Lifecycle(Event::Stop {
                grace: grace_period.map(|seconds| Duration::from_secs(seconds.into())),
                cause: Cause::Deleted,
            }));
            // The client waits for the end of file, which comes with the end of this process.
            connection
                .async_io(Interest::READABLE, Connection::receive)
                .await?;
            Ok(())
        }
        Ok(Request::Refresh) => {
            let answer = match refresh::run(context) {
                Ok(()) => Reply::Refreshed,
                Err(error) => refused(Refusal::Failed, crate::model::cause::chain(&error)),
            };
            context.send(Message::Busy);
            reply(connection, &answer, None)
        }
        Ok(Request::Exec(exec)) => execute(context, connection, exec, packet.fds).await,
        Ok(Request::Open { container }) => open(context, connection, container),
        Ok(Request::Connect { port }) => connect(context, connection, port).await,
        Ok(Request::Attach(wanted)) => attach(context, connection, wanted, packet.fds).await,
        Err(error) => {
            let message = format!("the executor does not know this request: {error}");
            reply(connection, &refused(Refusal::Failed, message), None)
        }
    }
}

/// Hands the files of a container out: what is done with them is none of this process's work.
fn open<R: Runtime>(
    context: &Context<R>,
    connection: &AsyncFd<Connection>,
    container: Option<ContainerName>,
) -> std::io::Result<()> {
    let index = match find(context, container) {
        Ok(index) => index,
        Err(refusal) => return reply(connection, &refusal, None),
    };
    let files = context.live.borrow().get(&index).map(Live::files);
    match files {
        Some(Ok(files)) => {
            let fds = [Some(&files.root), files.users.as_ref()];
            let fds: Vec<_> = fds.into_iter().flatten().map(AsFd::as_fd).collect();
            reply_with(connection, &Reply::Opened(files.opened), &fds)
        }
        // Its end is about to be noticed.
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            let message = format!("cannot open the container's files: {error}");
            reply(connection, &refused(Refusal::Failed, message), None)
        }
        Some(Err(_)) | None => {
            let name = &context.container_plan(index).name;
            let message = format!(
                "container `{name}` is not running, and its files are there only as long as it runs: what is to stay longer belongs \
                 into a volume"
            );
            reply(connection, &refused(Refusal::NotRunning, message), None)
        }
    }
}

/// Hands a connection to the pod over. It lives on without this process.
async fn connect<R: Runtime>(
    context: &Context<R>,
    connection: &AsyncFd<Connection>,
    port: u16,
) -> std::io::Result<()> {
    let Ok(network) = Network::of(context) else {
        let message = "the pod has no network yet".to_owned();
        return reply(connection, &refused(Refusal::NotRunning, message), None);
    };
    let connected = tokio::select! {
        connected = network.connect_within(port) => connected,
        // The client does not wait any more.
        gone = connection.async_io(Interest::READABLE, Connection::receive) => return gone.map(drop),
    };
    match connected {
        Ok(stream) => reply(connection, &Reply::Connected, Some(stream.as_fd())),
        Err(error) => {
            let message = crate::model::cause::chain(&error);
            reply(connection, &refused(Refusal::Failed, message), None)
        }
    }
}

/// Lets a client look at a container until that ends or the client goes.
async fn attach<R: Runtime>(
    context: &Rc<Context<R>>,
    connection: &AsyncFd<Connection>,
    wanted: Attach,
    fds: Vec<OwnedFd>,
) -> std::io::Result<()> {
    let Ok([stdout, stderr]) = <[OwnedFd; 2]>::try_from(fds) else {
        let message = "an attach comes with 2 descriptors".to_owned();
        return reply(connection, &refused(Refusal::Failed, message), None);
    };
    let index = match find(context, wanted.container) {
        Ok(index) => index,
        Err(refusal) => return reply(connection, &refusal, None),
    };
    let plan = context.container_plan(index);
    let once = if plan.stdin_once { Once::Yes } else { Once::No };
    let found = {
        let live = context.live.borrow();
        let live = live.get(&index);
        live.map(|live| (Rc::clone(&live.audience), live.input(wanted.stdin, once)))
    };
    let Some((audience, input)) = found else {
        return reply(connection, &not_running(&plan.name), None);
    };
    let input = input?;
    let terminal = plan.tty;
    let attending = audience.attend(stdout, stderr);
    reply(
        connection,
        &Reply::Attached { terminal },
        input.as_ref().map(|fd| fd.as_fd()),
    )?;
    // With `stdinOnce` the client's is now the only one.
    drop(input);
    tokio::select! {
        parting = attending => match parting? {
            // One that does not listen any more may still wait for the answer.
            Parting::Ended | Parting::Left => reply(connection, &Reply::AttachEnded, None),
            Parting::TooSlow => {
                let message = "the output was not read fast enough; the rest is in the log".to_owned();
                reply(connection, &refused(Refusal::Failed, message), None)
            }
        },
        // The client has nothing to say but that it goes.
        gone = connection.async_io(Interest::READABLE, Connection::receive) => gone.map(drop),
    }
}

async fn execute<R: Runtime>(
    context: &Rc<Context<R>>,
    connection: &AsyncFd<Connection>,
    exec: Exec,
    fds: Vec<OwnedFd>,
) -> std::io::Result<()> {
    let request = match exec_request(context, exec, fds) {
        Ok(request) => request,
        Err(refusal) => return reply(connection, &refusal, None),
    };
    let started = match context.runtime.exec(request).await {
        Ok(started) => started,
        Err(error) => return reply(connection, &not_executed(&error), None),
    };
    let _kept = started.kept;
    let terminal = started.terminal.as_ref().map(|fd| fd.as_fd());
    reply(connection, &Reply::ExecStarted, terminal)?;
    drop(started.terminal);
    let exit = process::wait(&started.process).await?;
    context.send(Message::Busy);
    reply(connection, &Reply::ExecExited { code: exit.code() }, None)
}

fn exec_request<R: Runtime>(
    context: &Context<R>,
    exec: Exec,
    fds: Vec<OwnedFd>,
) -> Result<ExecRequest, Reply> {
    let index = find(context, exec.container)?;
    let live = context.live.borrow();
    let Some(live) = live.get(&index) else {
        return Err(not_running(&context.container_plan(index).name));
    };
    let stdio = match (exec.tty, <[OwnedFd; 3]>::try_from(fds)) {
        (Some((rows, columns)), _) => Stdio::Terminal { rows, columns },
        (None, Ok([stdin, stdout, stderr])) => Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        },
        (None, Err(fds)) => {
            let message = format!("an exec comes with 3 descriptors, not {}", fds.len());
            return Err(refused(Refusal::Failed, message));
        }
    };
    live.exec_request(context.paths().oci_state(), exec.command, stdio)
        .map_err(|error| refused(Refusal::Failed, crate::model::cause::chain(&error)))
}

/// The container of a request.
fn find<R: Runtime>(context: &Context<R>, name: Option<ContainerName>) -> Result<Index, Reply> {
    let plan = &context.launch.plan;
    let name = name.or_else(|| Some(plan.containers.first()?.name.clone()));
    let Some(name) = name else {
        let message = "the pod has no containers".to_owned();
        return Err(refused(Refusal::NoSuchContainer, message));
    };
    let index = plan.all_containers().position(|c| c.name == name);
    index.ok_or_else(|| no_such_container(context, &name))
}

fn not_running(name: &ContainerName) -> Reply {
    let message = format!("container `{name}` is not running");
    refused(Refusal::NotRunning, message)
}

fn no_such_container<R: Runtime>(context: &Context<R>, name: &ContainerName) -> Reply {
    let names: Vec<_> = context
        .launch
        .plan
        .all_containers()
        .map(|container| format!("`{}`", container.name))
        .collect();
    let message = format!(
        "pod `{}` has no container `{name}`; it has {}",
        context.launch.plan.name,
        names.join(", ")
    );
    refused(Refusal::NoSuchContainer, message)
}

fn not_executed(error: &runtime::Error) -> Reply {
    let reason = match error.shell_code() {
        Some(127) => Refusal::CommandNotFound,
        Some(_) => Refusal::CannotExecute,
        None => Refusal::Failed,
    };
    refused(reason, crate::model::cause::chain(error))
}

fn refused(reason: Refusal, message: String) -> Reply {
    Reply::Refused { reason, message }
}

fn reply(
    connection: &AsyncFd<Connection>,
    reply: &Reply,
    fd: Option<BorrowedFd<'_>>,
) -> std::io::Result<()> {
    let fds: Vec<_> = fd.into_iter().collect();
    reply_with(connection, reply, &fds)
}

fn reply_with(
    connection: &AsyncFd<Connection>,
    reply: &Reply,
    fds: &[BorrowedFd<'_>],
) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(reply)?;
    connection.get_ref().send(&bytes, fds)
}
