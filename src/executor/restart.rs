//! Whether a container is started again, and after which delay. Pure.
//!
//! Whether: `container/helpers.go:ShouldContainerBeRestarted`, `computeInitContainerActions`. The delay, as the kubelet
//! counts it: `kuberuntime_manager.go:doBackOff`, `client-go/util/flowcontrol/backoff.go`.
//!
//! The first restart is immediate; then 10 s, 20 s, … 300 s after the last exit. A run that ended more than ten
//! minutes after the last restart starts the sequence again.

use std::time::Duration;

use crate::model::plan::{ContainerRole, RestartAction, RestartPolicy, Restarts};

const INITIAL: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
const RESET: Duration = Duration::from_secs(600);

/// What follows the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    Again,
    /// All containers of the pod run again, from the first init container on.
    All,
}

/// What follows the end of a run with this exit code: the container's rules decide, then its own policy, then its
/// pod's.
pub(super) fn next(role: ContainerRole, own: &Restarts, pod: RestartPolicy, code: i32) -> Next {
    let action = own.action_after(code);
    if action == Some(RestartAction::RestartAllContainers) {
        return Next::All;
    }
    let failed = code != 0;
    let again = match (role, own.policy.unwrap_or(pod)) {
        (ContainerRole::Sidecar, _) => true,
        // One that succeeded has done its work, whatever its rules say.
        (ContainerRole::Init, _) if !failed => false,
        _ if action == Some(RestartAction::Restart) => true,
        (ContainerRole::Init, policy) => policy != RestartPolicy::Never,
        (ContainerRole::Main, RestartPolicy::Always) => true,
        (ContainerRole::Main, RestartPolicy::OnFailure) => failed,
        (ContainerRole::Main, RestartPolicy::Never) => false,
    };
    if again { Next::Again } else { Next::Nothing }
}

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
    use crate::model::plan::{ExitCodes, RestartRule};

    fn own(policy: Option<RestartPolicy>, rules: &[(RestartAction, ExitCodes)]) -> Restarts {
        let rules = rules.iter().cloned();
        Restarts {
            policy,
            rules: rules
                .map(|(action, codes)| RestartRule { action, codes })
                .collect(),
        }
    }

    #[test]
    fn policies_decide() {
        use Next::{Again, Nothing};
        use RestartPolicy::{Always, Never, OnFailure};
        let check = |role, policy, pod, expected: [Next; 2]| {
            let own = own(policy, &[]);
            let found = [0, 3].map(|code| next(role, &own, pod, code));
            assert_eq!(found, expected, "{role:?} {policy:?} in {pod:?}");
        };
        let (init, sidecar, main) = (
            ContainerRole::Init,
            ContainerRole::Sidecar,
            ContainerRole::Main,
        );
        check(main, None, Always, [Again, Again]);
        check(main, None, OnFailure, [Nothing, Again]);
        check(main, None, Never, [Nothing, Nothing]);
        check(init, None, Always, [Nothing, Again]);
        check(init, None, OnFailure, [Nothing, Again]);
        check(init, None, Never, [Nothing, Nothing]);
        // The container's own wins, in both directions.
        check(main, Some(Always), Never, [Again, Again]);
        check(main, Some(OnFailure), Never, [Nothing, Again]);
        check(main, Some(Never), Always, [Nothing, Nothing]);
        check(init, Some(OnFailure), Never, [Nothing, Again]);
        check(init, Some(Never), Always, [Nothing, Nothing]);
        check(sidecar, Some(Always), Never, [Again, Again]);
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        use RestartAction::{Restart, RestartAllContainers};
        let check = |role, rules: &[(RestartAction, ExitCodes)], code, expected| {
            let own = own(Some(RestartPolicy::Never), rules);
            let found = next(role, &own, RestartPolicy::Always, code);
            assert_eq!(found, expected, "{role:?} {rules:?} {code}");
        };
        let main = ContainerRole::Main;
        let in_42 = (Restart, ExitCodes::In(vec![1, 42]));
        let not_3 = (RestartAllContainers, ExitCodes::NotIn(vec![3]));
        check(main, std::slice::from_ref(&in_42), 42, Next::Again);
        check(main, std::slice::from_ref(&in_42), 2, Next::Nothing);
        check(main, &[in_42.clone(), not_3.clone()], 42, Next::Again);
        check(main, &[not_3.clone(), in_42.clone()], 42, Next::All);
        check(main, &[not_3.clone(), in_42], 3, Next::Nothing);
        check(main, &[(Restart, ExitCodes::In(vec![0]))], 0, Next::Again);
        check(main, &[(Restart, ExitCodes::In(vec![]))], 0, Next::Nothing);
        check(main, &[(Restart, ExitCodes::NotIn(vec![]))], 0, Next::Again);
        let init = ContainerRole::Init;
        check(init, &[(Restart, ExitCodes::In(vec![0]))], 0, Next::Nothing);
        check(init, &[(Restart, ExitCodes::In(vec![3]))], 3, Next::Again);
        check(init, std::slice::from_ref(&not_3), 3, Next::Nothing);
        check(ContainerRole::Sidecar, &[not_3], 1, Next::All);
    }

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
