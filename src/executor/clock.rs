//! The time.

use std::sync::OnceLock;
use std::time::Instant;

use jiff::Timestamp;

use super::lifecycle::Now;

/// This moment. The monotonic part counts from the first call.
pub(super) fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    Now {
        wall: Timestamp::now(),
        monotonic: START.get_or_init(Instant::now).elapsed(),
    }
}
