//! A timer that is a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Becomes readable when its time has come, and stays so until it is set again. Counts no time in which the machine
/// sleeps.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// One that is not set.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Sets it to a time from now. Not a moment is a moment: nothing at all would take it back.
    ///
    /// # Errors
    /// The time is longer than the kernel can count.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        let after = after.max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(after).map_err(io::Error::other)?;
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_ready(timer: &Timer, within: Duration) -> bool {
        let within = Timespec::try_from(within).unwrap();
        let mut fds = [PollFd::new(timer, PollFlags::IN)];
        poll(&mut fds, Some(&within)).unwrap() == 1
    }

    #[test]
    fn once_each_time_it_is_set() {
        const PATIENCE: Duration = Duration::from_secs(30);
        let timer = Timer::new().unwrap();
        assert!(!is_ready(&timer, Duration::ZERO));
        for after in [Duration::ZERO, Duration::from_millis(20)] {
            let start = Instant::now();
            timer.set(after).unwrap();
            assert!(is_ready(&timer, PATIENCE));
            assert!(start.elapsed() >= after);
        }
        assert!(is_ready(&timer, Duration::ZERO), "until it is set again");
        timer.set(PATIENCE * 1000).unwrap();
        assert!(!is_ready(&timer, Duration::ZERO));
    }
}
