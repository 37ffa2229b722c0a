//! What containers print, on its way into their logs.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;

use super::attach::Audience;
use super::context::{Context, Message};
use super::lifecycle::Index;
use super::log::{LogWriter, Stream};
use super::process;
use crate::model::cause::chain;
use crate::model::event::EventType;
use crate::state::logs;
use crate::sys::fs;

/// How long a rotated file is left alone before one is compressed: the period in which a kubelet looks.
const REST: Duration = Duration::from_secs(10);

/// Copies one stream of a container into its log until it is closed.
pub(super) fn pump<R: 'static>(
    context: Rc<Context<R>>,
    log: Rc<RefCell<LogWriter>>,
    audience: Rc<Audience>,
    container: Index,
    (stream, fd): (Stream, OwnedFd),
) -> JoinHandle<()> {
    tokio::task::spawn_local(async move {
        let mut rotations = log.borrow().rotations();
        let read = process::read_all(fd, &context.buffer, |bytes| {
            audience.show(stream, bytes);
            let written = log
                .borrow_mut()
                .write_chunk(stream, bytes, SystemTime::now());
            note(&context, &log, container, written);
            let rotated = log.borrow().rotations();
            if rotated > rotations {
                rotations = rotated;
                compress(&context, &log);
            }
        })
        .await;
        let written = log.borrow_mut().finish(stream, SystemTime::now());
        note(&context, &log, container, written);
        if let Err(error) = read {
            tracing::error!(%error, "cannot read a container's output");
        }
    })
}

/// A full disk must not stop the container: its output is lost, as with a kubelet. That is said once in its run, however
/// much it prints.
fn note<R>(
    context: &Context<R>,
    log: &RefCell<LogWriter>,
    container: Index,
    written: Result<(), fs::Error>,
) {
    let Err(error) = written else {
        return;
    };
    if log.borrow_mut().is_first_failure() {
        let cause = chain(&error);
        tracing::error!(error = cause, "cannot write a log");
        let message = format!("What the container prints is lost: {cause}");
        let event = context.event(EventType::Warning, "FailedLog", message, Some(container));
        context.send(Message::Event(event));
    }
}

/// Compresses rotated files, at leisure: one that is written full within moments is gone before it is its turn.
fn compress<R: 'static>(context: &Rc<Context<R>>, log: &Rc<RefCell<LogWriter>>) {
    if !log.borrow_mut().begin_compressing() {
        return;
    }
    let (context, log) = (Rc::clone(context), Rc::clone(log));
    tokio::task::spawn_local(async move {
        if let Err(error) = compress_all(&log).await {
            // It takes more space than it has to, and is tried again after the next rotation.
            tracing::warn!(error = chain(&error), "cannot compress a log");
        }
        log.borrow_mut().end_compressing();
        // It took memory, which is given back at rest.
        context.send(Message::Busy);
    });
}

async fn compress_all(log: &RefCell<LogWriter>) -> Result<(), fs::Error> {
    loop {
        tokio::time::sleep(REST).await;
        let Some(number) = log.borrow().next_to_compress()? else {
            return Ok(());
        };
        let compression = log.borrow().compress(number)?;
        if let Some(mut compression) = compression {
            while !compression.step()? {
                // Others have their turn between the parts.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Removes the logs of all runs but this one and the one before it, which `logs --previous` shows.
pub(super) fn forget_old_runs(dir: &Path, attempt: u32) -> Result<(), fs::Error> {
    for run in logs::restarts(dir)? {
        if run.saturating_add(1) < attempt {
            logs::remove(dir, run)?;
        }
    }
    Ok(())
}
