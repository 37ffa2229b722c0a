//! What unit tests share.

use std::process::Command;
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

/// Whether the test of this name has a process of its own, whose limits and children are nobody else's; if not, it is run
/// in one.
#[track_caller]
pub fn alone(test: &str) -> bool {
    const ALONE: &str = "KPLAY_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().expect("a program"))
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("it starts");
    // A name that fits no test would run nothing, and succeed.
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}
