//! How often something is tried that may pass, and how long is waited in between.

use std::slice::Iter;
use std::time::{Duration, Instant};

use super::fault::Fault;
use crate::model::cause::chain;

/// The usual waits before another try of what may pass: 12 seconds together.
pub const RETRY_WAITS: &[Duration] = &[
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(8),
];
/// How long a registry may say nothing in the middle of an answer.
pub const SILENCE: Duration = Duration::from_secs(20);
/// How long a registry is waited for that says when to come again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The same where there is another place to ask.
const LONGEST_WAIT_BESIDE_OTHERS: Duration = Duration::from_secs(2);
/// How long nothing may come, all tries together: answers that are waited for in vain take long.
const LONGEST: Duration = Duration::from_secs(120);
/// Waits for a registry that never answered: an address may be wrong.
const WAITS_FOR_STRANGERS: usize = 2;

/// What went wrong and is no failure yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In words.
    pub fault: String,
    pub then: Then,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The same place is asked again, after this time.
    Again(Duration),
    /// The next mirror is asked, or the registry.
    Elsewhere,
}

/// Is told of trouble.
pub(super) type Tell<'a> = &'a dyn Fn(Trouble);

/// How much patience there is with a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Before each further try.
    waits: &'static [Duration],
    /// When the registry says how long.
    longest: Duration,
}

impl Patience {
    /// With the last place that can be asked.
    pub(super) fn with_the_last(waits: &'static [Duration]) -> Self {
        let longest = LONGEST_WAIT;
        Self { waits, longest }
    }

    /// With one that others can stand in for.
    pub(super) fn with_one_of_several(waits: &'static [Duration]) -> Self {
        let waits = waits.get(..1).unwrap_or_default();
        let longest = LONGEST_WAIT_BESIDE_OTHERS;
        Self { waits, longest }
    }

    /// With what may not even be there.
    pub(super) fn with_strangers(self) -> Self {
        let waits = self.waits.get(..WAITS_FOR_STRANGERS).unwrap_or(self.waits);
        Self { waits, ..self }
    }
}

/// The tries of one request.
pub(super) struct Tries<'a> {
    patience: Patience,
    left: Iter<'static, Duration>,
    /// When something came last.
    since: Instant,
    tell: Tell<'a>,
}

impl<'a> Tries<'a> {
    pub(super) fn new(patience: Patience, tell: Tell<'a>) -> Self {
        Self {
            patience,
            left: patience.waits.iter(),
            since: Instant::now(),
            tell,
        }
    }

    /// Takes note that something came: patience starts anew.
    pub(super) fn progressed(&mut self) {
        *self = Self::new(self.patience, self.tell);
    }

    /// Waits for another try.
    ///
    /// # Errors
    /// It has been tried often enough, or the registry wants to be left alone for longer.
    pub(super) async fn wait(&mut self, fault: Fault) -> Result<(), Fault> {
        let asked = fault.comes_again().unwrap_or_default();
        if asked > self.patience.longest || self.since.elapsed() > LONGEST {
            return Err(fault);
        }
        let Some(usual) = self.left.next() else {
            return Err(fault);
        };
        let wait = asked.max(*usual);
        let fault = chain(&fault);
        tracing::debug!(fault, ?wait, "tried again");
        (self.tell)(Trouble {
            fault,
            then: Then::Again(wait),
        });
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
