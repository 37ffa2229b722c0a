//! Copies between descriptors in one thread: standard streams on one side, a container's on the other.
//!
//! A [`Channel`] has a direction. The other side's pipes may be as slow as they like: nothing here blocks while
//! another channel could go on. Descriptors that are shared with other processes (the caller's) stay in blocking
//! mode, which is why at most [`SAFE`] bytes are written to one that is ready.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// What a pipe takes without blocking when it says that it can be written to (`PIPE_BUF`).
const SAFE: usize = 4096;
/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// Bytes from one descriptor to another. Each end is closed as soon as it is of no more use.
#[derive(Debug)]
pub struct Channel {
    from: Option<OwnedFd>,
    to: Option<OwnedFd>,
    buffer: Vec<u8>,
    written: usize,
}

impl Channel {
    /// A channel that has moved nothing yet.
    #[must_use]
    pub fn new(from: OwnedFd, to: OwnedFd) -> Self {
        Self {
            from: Some(from),
            to: Some(to),
            buffer: Vec::new(),
            written: 0,
        }
    }

    /// Whether everything has arrived, or can not arrive any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.to.is_none()
    }

    /// What to wait for next.
    fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let to = self.to.as_ref()?;
        if self.written < self.buffer.len() {
            return Some((to.as_fd(), PollFlags::OUT));
        }
        let from = self.from.as_ref()?;
        Some((from.as_fd(), PollFlags::IN))
    }

    /// Moves bytes, now that [`Channel::interest`] is ready.
    fn proceed(&mut self) -> io::Result<()> {
        if self.written < self.buffer.len() {
            self.write()
        } else {
            self.read()
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(from) = &self.from else {
            return Ok(());
        };
        self.buffer.resize(CHUNK, 0);
        self.written = 0;
        let got = match rustix::io::read(from, &mut self.buffer) {
            Ok(got) => got,
            Err(Errno::AGAIN | Errno::INTR) => {
                self.buffer.clear();
                return Ok(());
            }
            // A terminal's master says so when nobody has the other side open any more.
            Err(Errno::IO) => 0,
            Err(e) => return Err(e.into()),
        };
        self.buffer.truncate(got);
        if got == 0 {
            self.from = None;
            self.to = None;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(to) = &self.to else {
            return Ok(());
        };
        let rest = self.buffer.get(self.written..).unwrap_or_default();
        let chunk = rest.get(..SAFE).unwrap_or(rest);
        match rustix::io::write(to, chunk) {
            Ok(count) => {
                self.written += count;
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            // Nobody reads it any more: the rest is of no use, and the source should notice, too.
            Err(Errno::PIPE | Errno::IO) => {
                self.from = None;
                self.to = None;
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }
}

/// Waits until one of `fds` can be read, and moves bytes meanwhile. Returns the indices of those; empty when none is
/// ready but all channels are done.
///
/// # Errors
/// A descriptor cannot be read or written.
pub fn run_until(channels: &mut [Channel], fds: &[BorrowedFd<'_>]) -> io::Result<Vec<usize>> {
    loop {
        let ready = turn(channels, fds, Patience::Endless)?;
        if !ready.is_empty() || (fds.is_empty() && channels.iter().all(Channel::is_done)) {
            return Ok(ready);
        }
    }
}

/// Moves what is there right now, and what follows without a pause: the last output of a process that has ended.
/// A process that it left behind may keep the other end open for ever, so nothing is waited for but a slow reader.
///
/// # Errors
/// A descriptor cannot be read or written.
pub fn drain(channels: &mut [Channel]) -> io::Result<()> {
    loop {
        let full = channels
            .iter()
            .any(|channel| !channel.is_done() && channel.written < channel.buffer.len());
        let before: Vec<(usize, bool)> = channels.iter().map(state).collect();
        let patience = if full {
            Patience::Endless
        } else {
            Patience::None
        };
        turn(channels, &[], patience)?;
        if !full && before == channels.iter().map(state).collect::<Vec<_>>() {
            return Ok(());
        }
    }
}

fn state(channel: &Channel) -> (usize, bool) {
    (channel.buffer.len() - channel.written, channel.is_done())
}

/// How long to wait.
#[derive(Clone, Copy)]
enum Patience {
    Endless,
    None,
}

/// One wait, and what can be done after it. Returns which of `fds` can be read.
fn turn(
    channels: &mut [Channel],
    fds: &[BorrowedFd<'_>],
    patience: Patience,
) -> io::Result<Vec<usize>> {
    let (others, active) = wait(channels, fds, patience)?;
    for index in active {
        if let Some(channel) = channels.get_mut(index) {
            channel.proceed()?;
        }
    }
    Ok(others)
}

/// Indices of the ready ones among `fds`, and among the channels.
fn wait(
    channels: &[Channel],
    fds: &[BorrowedFd<'_>],
    patience: Patience,
) -> io::Result<(Vec<usize>, Vec<usize>)> {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let mut waiting = Vec::new();
    for (index, channel) in channels.iter().enumerate() {
        if let Some((fd, flags)) = channel.interest() {
            polled.push(PollFd::from_borrowed_fd(fd, flags));
            waiting.push(index);
        }
    }
    if polled.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let timeout = match patience {
        Patience::Endless => None,
        Patience::None => Some(Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    };
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    let (first, rest) = polled.split_at(fds.len());
    let ready = |fds: &[PollFd<'_>]| -> Vec<usize> {
        (0..)
            .zip(fds)
            .filter(|(_, fd)| is_ready(fd))
            .map(|(i, _)| i)
            .collect()
    };
    let active = ready(rest)
        .into_iter()
        .filter_map(|position| waiting.get(position).copied())
        .collect();
    Ok((ready(first), active))
}

/// A pipe whose kplay end does not block; the other end is for a container.
#[derive(Debug)]
pub struct Pipe {
    pub ours: OwnedFd,
    pub theirs: OwnedFd,
}

/// A pipe to feed a container's standard input.
///
/// # Errors
/// Too many descriptors are open.
pub fn input_pipe() -> io::Result<Pipe> {
    let (reader, writer) = io::pipe()?;
    pipe(writer.into(), reader.into())
}

/// A pipe to read a container's output from.
///
/// # Errors
/// Too many descriptors are open.
pub fn output_pipe() -> io::Result<Pipe> {
    let (reader, writer) = io::pipe()?;
    pipe(reader.into(), writer.into())
}

fn pipe(ours: OwnedFd, theirs: OwnedFd) -> io::Result<Pipe> {
    make_nonblocking(&ours)?;
    Ok(Pipe { ours, theirs })
}

/// Makes kplay's end of a pipe one that does not block.
///
/// # Errors
/// The descriptor does not allow it.
pub fn make_nonblocking(ours: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&ours)?;
    Ok(rustix::fs::fcntl_setfl(&ours, flags | OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::thread;

    /// `cat`, which blocks on its output while its input is full.
    fn echo(mut input: io::PipeReader, mut output: io::PipeWriter) {
        io::copy(&mut input, &mut output).expect("copies");
    }

    #[test]
    fn both_directions_flow_at_once() {
        let (source, mut feed) = io::pipe().expect("a pipe");
        let (mut result, sink) = io::pipe().expect("a pipe");
        let input = input_pipe().expect("a pipe");
        let output = output_pipe().expect("a pipe");
        let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let expected = sent.clone();
        let feeder = thread::spawn(move || feed.write_all(&sent).expect("writes"));
        let cat = thread::spawn(move || echo(input.theirs.into(), output.theirs.into()));
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            result.read_to_end(&mut all).expect("reads");
            all
        });
        let mut channels = [
            Channel::new(source.into(), input.ours),
            Channel::new(output.ours, sink.into()),
        ];
        assert_eq!(
            run_until(&mut channels, &[]).expect("pumps"),
            Vec::<usize>::new()
        );
        drop(channels);
        assert!(reader.join().expect("ends") == expected);
        feeder.join().expect("ends");
        cat.join().expect("ends");
    }

    #[test]
    fn what_is_there_is_drained_and_no_more_is_waited_for() {
        let output = output_pipe().expect("a pipe");
        let (mut result, sink) = io::pipe().expect("a pipe");
        let mut theirs = io::PipeWriter::from(output.theirs);
        theirs.write_all(&[7; 10_000]).expect("fits");
        let mut channels = [Channel::new(output.ours, sink.into())];
        // `theirs` is still open: somebody who was left behind.
        drain(&mut channels).expect("drains");
        drop(channels);
        let mut all = Vec::new();
        result.read_to_end(&mut all).expect("reads");
        assert_eq!(all.len(), 10_000);
        drop(theirs);
    }

    #[test]
    fn a_reader_that_has_gone_ends_the_channel() {
        let (source, mut feed) = io::pipe().expect("a pipe");
        let input = input_pipe().expect("a pipe");
        drop(input.theirs);
        feed.write_all(b"x").expect("fits");
        let mut channels = [Channel::new(source.into(), input.ours)];
        assert_eq!(
            run_until(&mut channels, &[]).expect("pumps"),
            Vec::<usize>::new()
        );
        assert!(channels[0].is_done());
    }
}
