//! Waiting for what happens, with a deadline.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

/// How long anything on this machine may take, when it also runs other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often to look at what the kernel cannot announce (`/proc`, cgroup files).
const GLANCE: Duration = Duration::from_millis(20);

/// Waits until `condition` holds: looks whenever something changes in the folder `watched`, and now and then.
///
/// # Panics
/// It does not hold within [`PATIENCE`].
#[track_caller]
pub(crate) fn until_in(watched: &Path, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .expect("inotify works");
    let flags = inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::DELETE
        | inotify::WatchFlags::MODIFY;
    // The folder may not exist yet: then the glances are all there is.
    let _watch = inotify::add_watch(&inotify, watched, flags);
    while !condition() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        let timeout = Timespec::try_from(GLANCE).expect("a short time");
        let mut fds = [PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN)];
        if poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0) {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(&inotify, &mut buffer);
            while reader.next().is_ok() {}
        }
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// It does not hold within [`PATIENCE`].
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    until_in(Path::new("/nowhere"), what, condition);
}

/// Whether `condition` holds at some moment within `limit`.
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        glance();
    }
}

/// The pause between two looks at something that announces nothing.
fn glance() {
    let timeout = Timespec::try_from(GLANCE).expect("a short time");
    // Interrupted or not: the next look decides.
    poll(&mut [], Some(&timeout)).ok();
}

/// Waits for a process's end; false if it is still there after `timeout`.
pub(crate) fn ended(pid: u32, timeout: Duration) -> bool {
    let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return true;
    };
    let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return true;
    };
    let timeout = Timespec::try_from(timeout).expect("a short time");
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// Whether something can be read from a file within `limit`.
pub(crate) fn readable(file: &std::fs::File, limit: Duration) -> bool {
    let timeout = Timespec::try_from(limit).expect("a short time");
    let mut fds = [PollFd::new(file, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}
