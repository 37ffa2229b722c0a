//! How many results of a kind in a row make a verdict (`prober/worker.go:doProbe`). Pure.

use super::Kind;
use crate::model::plan::Probe;

/// The results of one probe of one run of a container.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    kind: Kind,
    success_threshold: u32,
    failure_threshold: u32,
    /// What holds: whether the probe succeeds. Nothing holds before the first verdict of a startup probe.
    verdict: Option<bool>,
    last: Option<bool>,
    /// How often in a row the last result has come.
    run: u32,
}

/// What a result led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// What held still holds.
    Nothing,
    /// This holds now, and the probe goes on.
    News(bool),
    /// This holds for the rest of the run: there is nothing more to ask.
    Last(bool),
}

impl Tally {
    /// Before the first check. A container lives, but is not ready, before its probes say something else.
    pub(super) fn new(kind: Kind, probe: &Probe) -> Self {
        Self {
            kind,
            success_threshold: probe.success_threshold,
            failure_threshold: probe.failure_threshold,
            verdict: match kind {
                Kind::Startup => None,
                Kind::Liveness => Some(true),
                Kind::Readiness => Some(false),
            },
            last: None,
            run: 0,
        }
    }

    /// Takes in one result.
    pub(super) fn take(&mut self, succeeded: bool) -> Turn {
        if self.last != Some(succeeded) {
            self.last = Some(succeeded);
            self.run = 0;
        }
        self.run = self.run.saturating_add(1);
        let threshold = if succeeded {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        if self.run < threshold || self.verdict == Some(succeeded) {
            return Turn::Nothing;
        }
        self.verdict = Some(succeeded);
        match self.kind {
            Kind::Readiness => Turn::News(succeeded),
            Kind::Startup | Kind::Liveness => Turn::Last(succeeded),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Turn::{Last, News, Nothing};
    use super::*;
    use crate::model::plan::Check;

    fn tally(kind: Kind, success_threshold: u32, failure_threshold: u32) -> Tally {
        let check = Check::Exec {
            command: Vec::new(),
        };
        let probe = Probe {
            check,
            initial_delay: 0,
            timeout: 1,
            period: 1,
            success_threshold,
            failure_threshold,
            termination_grace_period: None,
        };
        Tally::new(kind, &probe)
    }

    /// `+` is a success, `-` a failure.
    #[track_caller]
    fn check(mut tally: Tally, results: &str, expected: &[Turn]) {
        let turns: Vec<Turn> = results
            .chars()
            .map(|result| tally.take(result == '+'))
            .collect();
        assert_eq!(turns, expected, "{results}");
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        check(
            tally(Kind::Readiness, 1, 3),
            "+--+---+",
            &[
                News(true),
                Nothing,
                Nothing,
                Nothing,
                Nothing,
                Nothing,
                News(false),
                News(true),
            ],
        );
        check(
            tally(Kind::Readiness, 2, 1),
            "-+-++-",
            &[Nothing, Nothing, Nothing, Nothing, News(true), News(false)],
        );
        check(
            tally(Kind::Liveness, 1, 3),
            "--+---",
            &[Nothing, Nothing, Nothing, Nothing, Nothing, Last(false)],
        );
        check(tally(Kind::Startup, 1, 2), "-+", &[Nothing, Last(true)]);
        check(tally(Kind::Startup, 1, 2), "--", &[Nothing, Last(false)]);
        check(tally(Kind::Startup, 1, 1), "+", &[Last(true)]);
    }

    proptest! {
        /// Against the rule as a person would say it: the last verdict is the last result that came often enough in a
        /// row, and each verdict differs from the one before it.
        #[test]
        fn verdicts_follow_from_the_history(
            results in proptest::collection::vec(any::<bool>(), 0..60),
            success_threshold in 1_u32..5,
            failure_threshold in 1_u32..5,
            kind in prop_oneof![Just(Kind::Startup), Just(Kind::Liveness), Just(Kind::Readiness)],
        ) {
            let mut tally = tally(kind, success_threshold, failure_threshold);
            let mut verdict = match kind {
                Kind::Startup => None,
                Kind::Liveness => Some(true),
                Kind::Readiness => Some(false),
            };
            for end in 1..=results.len() {
                let result = results[end - 1];
                let run = results[..end].iter().rev().take_while(|one| **one == result).count();
                let threshold = if result { success_threshold } else { failure_threshold };
                let expected = run >= threshold as usize && verdict != Some(result);
                let turn = tally.take(result);
                prop_assert_eq!(turn != Nothing, expected);
                if expected {
                    verdict = Some(result);
                    prop_assert!(turn == News(result) || turn == Last(result));
                    prop_assert_eq!(turn == News(result), kind == Kind::Readiness);
                    if kind != Kind::Readiness {
                        break;
                    }
                }
            }
        }
    }
}
