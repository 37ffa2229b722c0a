//! The delay before a container is started again, as the kubelet counts it
//! (`kuberuntime_manager.go:doBackOff`, `client-go/util/flowcontrol/backoff.go`). Pure.
//!
//! The first restart is immediate; then 10 s, 20 s, … 300 s after the last exit. A run that ended more than ten
//! minutes after the last restart starts the sequence again.

use std::time::Duration;

const INITIAL: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
const RESET: Duration = Duration::from_secs(600);

/// One container's back-off. Times are durations since any fixed moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BackOff(Option<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    delay: Duration,
    updated: Duration,
}

impl BackOff {
    /// How long after `finished`, the end of its last run, the container has to wait.
    pub(super) fn delay(&self, finished: Duration) -> Duration {
        match &self.0 {
            Some(entry) if !entry.has_expired(finished) => entry.delay,
            _ => Duration::ZERO,
        }
    }

    /// Records that the container whose last run ended at `finished` is started again at `now`.
    pub(super) fn restarted(&mut self, finished: Duration, now: Duration) {
        let delay = match &self.0 {
            Some(entry) if !entry.has_expired(finished) => (entry.delay * 2).min(LONGEST),
            _ => INITIAL,
        };
        self.0 = Some(Entry {
            delay,
            updated: now,
        });
    }
}

impl Entry {
    fn has_expired(&self, finished: Duration) -> bool {
        finished.saturating_sub(self.updated) > RESET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of `length` seconds each; the delays before each restart, in seconds.
    fn delays(length: u64, count: usize) -> Vec<u64> {
        let mut back_off = BackOff::default();
        let mut now = Duration::ZERO;
        (0..count)
            .map(|_| {
                now += Duration::from_secs(length);
                let delay = back_off.delay(now);
                back_off.restarted(now, now + delay);
                now += delay;
                delay.as_secs()
            })
            .collect()
    }

    #[test]
    fn the_sequence_is_the_kubelets() {
        assert_eq!(delays(1, 9), [0, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_run_of_more_than_ten_minutes_starts_it_again() {
        assert_eq!(delays(600, 3), [0, 10, 20]);
        assert_eq!(delays(601, 3), [0, 0, 0]);
    }
}
