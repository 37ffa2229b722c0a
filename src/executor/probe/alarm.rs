//! What wakes a worker.

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::sys::fd;
use crate::sys::timer::Timer;

/// Wakes one worker again and again. The event loop's own timers wake the process twice for a time that is more than
/// 64 ms away: once to look closer. For a pod that does nothing but answer probes that is a third of its waking.
#[derive(Debug)]
pub(super) struct Alarm(Option<AsyncFd<Timer>>);

impl Alarm {
    pub(super) fn new() -> Self {
        let timer = Timer::new().and_then(|timer| fd::watch(timer, Interest::READABLE));
        if let Err(error) = &timer {
            // The event loop's timers do as well.
            tracing::warn!(%error, "cannot make a timer");
        }
        Self(timer.ok())
    }

    pub(super) async fn sleep_until(&self, due: Instant) {
        let after = due.saturating_duration_since(Instant::now());
        if after.is_zero() {
            return;
        }
        if self.ring(after).await.is_err() {
            tokio::time::sleep_until(due).await;
        }
    }

    async fn ring(&self, after: std::time::Duration) -> io::Result<()> {
        let timer = self.0.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        timer.get_ref().set(after)?;
        timer.readable().await?.clear_ready();
        Ok(())
    }
}
