//! Waiting for what happens, with a deadline, which is a later one where everything is slower.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

/// How long anything on a machine may take, when it also runs other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the kernel is the one of `tests/uml/boot.sh`.
pub(crate) fn is_under_uml() -> bool {
    static UML: LazyLock<bool> = LazyLock::new(|| {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("the kernel's words");
        cpuinfo.contains("User Mode Linux")
    });
    *UML
}

/// What is as long as `time` on a machine: under user-mode Linux processes are slow to start.
pub(crate) fn stretched(time: Duration) -> Duration {
    time * if is_under_uml() { 6 } else { 1 }
}

/// How often to look at what the kernel cannot announce (`/proc`, cgroup files).
const GLANCE: Duration = Duration::from_millis(20);

/// Waits until `condition` holds: looks whenever something changes in the folder `watched`, and now and then.
///
/// # Panics
/// It does not hold within [`PATIENCE`].
#[track_caller]
pub(crate) fn until_in(watched: &Path, what: &str, mut condition: impl FnMut() -> bool) {
    let (start, limit) = (Instant::now(), stretched(PATIENCE));
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .expect("inotify works");
    let flags = inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::DELETE
        | inotify::WatchFlags::MODIFY;
    // The folder may not exist yet: then the glances are all there is.
    let _watch = inotify::add_watch(&inotify, watched, flags);
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
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
    let (start, limit) = (Instant::now(), stretched(limit));
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
    let timeout = Timespec::try_from(stretched(timeout)).expect("a short time");
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// Whether something can be read from a file within `limit`.
pub(crate) fn readable(file: &std::fs::File, limit: Duration) -> bool {
    let timeout = Timespec::try_from(stretched(limit)).expect("a short time");
    let mut fds = [PollFd::new(file, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}
