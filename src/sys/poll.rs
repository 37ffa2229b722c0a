//! Waiting for several descriptors at once, with a deadline; and for the signals that end a command.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::stop::Stop;

/// Waits until at least one descriptor can be read (its end counts), and returns the indices of those. Empty: the
/// deadline has passed.
///
/// # Errors
/// What the kernel says.
pub fn readable(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<Vec<usize>> {
    let polled = fds
        .iter()
        .map(|fd| (*fd, PollFlags::IN))
        .collect::<Vec<_>>();
    ready(&polled, deadline)
}

/// Waits until the first can be read or the second written to (their ends count), and says whether the first can.
pub(super) fn readable_or_writable(
    read: BorrowedFd<'_>,
    written: BorrowedFd<'_>,
) -> io::Result<bool> {
    let polled = [(read, PollFlags::IN), (written, PollFlags::OUT)];
    Ok(ready(&polled, None)?.contains(&0))
}

fn ready(fds: &[(BorrowedFd<'_>, PollFlags)], deadline: Option<Instant>) -> io::Result<Vec<usize>> {
    loop {
        let mut polled: Vec<PollFd<'_>> = fds
            .iter()
            .map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match rustix::event::poll(&mut polled, left.map(timespec).as_ref()) {
            Ok(0) => return Ok(Vec::new()),
            Ok(_) => {
                return Ok((0..)
                    .zip(&polled)
                    .filter(|(_, fd)| !fd.revents().is_empty())
                    .map(|(index, _)| index)
                    .collect());
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    // Longer than a year is for ever; a `Timespec` that overflows is an error of the call.
    let duration = duration.min(Duration::from_secs(366 * 24 * 3600));
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// A descriptor whose readiness to be read a tokio runtime waits for. It must not block.
///
/// # Errors
/// It cannot be waited for, as a file on disk, or there is no runtime.
pub fn asynchronous<T: OwnsFd>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: an `OwnsFd` names the same open descriptor until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// What owns one descriptor, which it keeps open and does not exchange as long as it lives.
#[expect(private_bounds, reason = "only types of which this is known")]
pub trait OwnsFd: AsRawFd + Known {}

impl<T: AsRawFd + Known> OwnsFd for T {}

trait Known {}

impl Known for OwnedFd {}
impl Known for super::socket::Listener {}
impl Known for super::socket::Connection {}
impl Known for super::watch::Watch {}

/// SIGINT, SIGTERM and SIGHUP as something to wait for, so that a command can undo what it did. As long as it
/// exists they do not end the calling thread, nor threads that it starts. Made before any other thread.
#[derive(Debug)]
pub struct Interrupt {
    signals: SignalFd,
    before: SigSet,
}

impl Interrupt {
    /// Holds the signals back from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn install() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        let before = SigSet::thread_get_mask()?;
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { signals, before })
    }

    /// The number of a signal that has come and was not taken yet.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take(&self) -> io::Result<Option<i32>> {
        let signal = self.signals.read_signal()?;
        Ok(signal.map(|signal| signal.ssi_signo.cast_signed()))
    }

    /// What tells work that one has come. It is not taken by that.
    ///
    /// # Errors
    /// No more files can be open.
    pub fn stop(&self) -> io::Result<Stop> {
        Ok(Stop::when(self.as_fd().try_clone_to_owned()?))
    }

    /// Waits for a signal, within a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn wait(&self) -> io::Result<i32> {
        let signals = asynchronous(self.as_fd().try_clone_to_owned()?)?;
        loop {
            let mut ready = signals.readable().await?;
            match self.take()? {
                Some(signal) => return Ok(signal),
                None => ready.clear_ready(),
            }
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Err(error) = self.before.thread_set_mask() {
            // The mask was valid when it was read, so this cannot happen; nothing could be done about it either.
            tracing::warn!(%error, "cannot restore the signal mask");
        }
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

/// Sends SIGINT to the calling thread, as if it had come from the terminal.
#[cfg(test)]
pub(crate) fn raise_interrupt() {
    nix::sys::signal::raise(Signal::SIGINT).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_pipe_is_readable_and_a_deadline_ends_the_wait() {
        let (reader, writer) = std::io::pipe().unwrap();
        let (other, _other_writer) = std::io::pipe().unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(1));
        let fds = [other.as_fd(), reader.as_fd()];
        assert_eq!(readable(&fds, soon()).unwrap(), Vec::<usize>::new());
        drop(writer);
        assert_eq!(readable(&fds, None).unwrap(), [1]);
    }

    #[test]
    fn a_signal_is_taken_once() {
        let interrupt = Interrupt::install().unwrap();
        assert_eq!(interrupt.take().unwrap(), None);
        raise_interrupt();
        readable(&[interrupt.as_fd()], None).unwrap();
        assert_eq!(interrupt.take().unwrap(), Some(2));
        assert_eq!(interrupt.take().unwrap(), None);
    }
}
