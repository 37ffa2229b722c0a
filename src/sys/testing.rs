//! What unit tests share.

use std::time::{Duration, Instant};

/// Waits for something that no event tells of, for at most ten seconds. So it is with what is closed: a process that another
/// test is just starting has copies of all that is open until it executes its program.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}
