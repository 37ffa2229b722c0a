//! Noticing that the executor of another pod was killed, and cannot say itself that its pod is gone.
//!
//! All executors stand in a ring, in the order of their pods' keys, and each waits for the end of the next one only:
//! one descriptor, however many pods there are. Whoever sees an end removes what the dead one has told, which all the
//! others see as any other change; then the one behind it is the next. Of several that die at once the first one's
//! predecessor clears away one after the other.

use std::ops::Bound;

use crate::executor::context::Context;
use crate::executor::error::{Error, system};
use crate::executor::process;
use crate::model::cause::chain;
use crate::model::names::PodKey;
use crate::state::endpoints;
use crate::sys::lockfile;
use crate::sys::pidfd::PidFd;

/// The executor behind this one in the ring.
#[derive(Debug)]
pub(super) struct Next {
    key: PodKey,
    process: PidFd,
}

/// Waits until it ends; for ever if there is none.
pub(super) async fn end_of(next: Option<&Next>) {
    let Some(next) = next else {
        return std::future::pending().await;
    };
    if let Err(error) = process::ended(&next.process).await {
        tracing::error!(%error, pod = %next.key, "cannot wait for the end of another executor");
        std::future::pending::<()>().await;
    }
}

/// The next one, now that others may have come or gone.
pub(super) fn watch<R>(context: &Context<R>, before: Option<Next>) -> Option<Next> {
    let key = key_after(context)?;
    if before.as_ref().is_some_and(|next| next.key == key) {
        return before;
    }
    open(context, key, None)
}

/// The next one, now that it has ended.
pub(super) fn after_end<R>(context: &Context<R>, ended: Next) -> Option<Next> {
    // Its pod may have been started anew.
    open(context, ended.key, Some(ended.process.pid()))
}

fn open<R>(context: &Context<R>, key: PodKey, ended: Option<i32>) -> Option<Next> {
    match try_open(context, key.clone(), ended) {
        Ok(next) => next,
        // It ends without being seen until the next command: no worse than without all this.
        Err(error) => {
            tracing::warn!(error = chain(&error), pod = %key, "cannot watch another executor");
            None
        }
    }
}

/// Opens the executor of this pod. If there is none, what it has told is removed, and this process will hear of that.
fn try_open<R>(
    context: &Context<R>,
    key: PodKey,
    ended: Option<i32>,
) -> Result<Option<Next>, Error> {
    let lock = context.paths().of_neighbour(&key).executor_lock();
    let is_dead = || endpoints::remove_of_dead(&context.launch.endpoints, &key, &lock);
    if is_dead()? {
        return Ok(None);
    }
    let pid = lockfile::pid(&lock)?.and_then(|pid| i32::try_from(pid).ok());
    // An executor that was just born may not have written its number; what it tells next is heard.
    let Some(pid) = pid.filter(|pid| Some(*pid) != ended) else {
        return Ok(None);
    };
    let opened = PidFd::open(pid);
    // That the lock is held after the process was opened proves that it was not another one's by then.
    if is_dead()? {
        return Ok(None);
    }
    let process = opened.map_err(system("open another executor"))?;
    Ok(Some(Next { key, process }))
}

/// The key that comes after this pod's, in a ring.
fn key_after<R>(context: &Context<R>) -> Option<PodKey> {
    let own = context.launch.plan.key();
    let cluster = context.cluster.borrow();
    let behind = (Bound::Excluded(&own), Bound::Unbounded);
    let mut ring = cluster.peers.range(behind).chain(&cluster.peers);
    let next = ring.next().map(|(key, _)| key.clone());
    next.filter(|key| *key != own)
}
