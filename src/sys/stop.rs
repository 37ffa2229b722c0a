//! Giving up in the middle of long work, from whatever thread it is done by.
//!
//! A signal that an [`Interrupt`](super::poll::Interrupt) holds back stays pending until it is taken, and as long as it
//! is pending every thread of the process can see it: nothing has to be told to anybody.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use super::poll::{asynchronous, readable, readable_or_writable};

/// A pipe with any room takes so much at once (`PIPE_BUF`).
const ROOM: usize = 4096;

/// Whether work is to be given up. Without more, it never is.
#[derive(Clone, Debug, Default)]
pub struct Stop(Option<Arc<OwnedFd>>);

/// Why work was given up.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Stopped;

impl From<Stopped> for io::Error {
    fn from(stopped: Stopped) -> Self {
        // Not `Interrupted`: what was interrupted by that would be tried again.
        Self::other(stopped)
    }
}

impl Stop {
    /// Work is given up when this can be read, or has ended.
    #[must_use]
    pub fn when(readable: OwnedFd) -> Self {
        Self(Some(Arc::new(readable)))
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// The work is to be given up.
    pub fn check(&self) -> Result<(), Stopped> {
        let Some(fd) = &self.0 else { return Ok(()) };
        match readable(&[fd.as_fd()], Some(Instant::now())) {
            Ok(ready) if !ready.is_empty() => Err(Stopped),
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "cannot look for signals");
                Ok(())
            }
        }
    }

    /// Waits until something can be read, or has ended.
    fn wait_for(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let Some(stop) = &self.0 else { return Ok(()) };
        let ready = readable(&[stop.as_fd(), fd], None)?;
        match ready.contains(&0) {
            true => Err(Stopped.into()),
            false => Ok(()),
        }
    }

    /// Does what may wait for ever for other processes, such as for a lock. What is given up goes on waiting in a thread
    /// of its own, until the process ends.
    ///
    /// # Errors
    /// The work is to be given up, or no thread can be made.
    pub fn unless<T: Send + 'static>(
        &self,
        wait: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        if self.0.is_none() {
            return Ok(wait());
        }
        let (ended, end) = io::pipe()?;
        let waiting = std::thread::Builder::new()
            .name("wait".into())
            .spawn(move || {
                let _end = end;
                wait()
            })?;
        self.wait_for(ended.as_fd())?;
        match waiting.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Waits until the work is to be given up, within a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn wanted(&self) -> io::Result<()> {
        match &self.0 {
            Some(fd) => {
                let fd = asynchronous(fd.try_clone()?)?;
                fd.readable().await.map(drop)
            }
            None => std::future::pending().await,
        }
    }

    /// Reads from something until the work is to be given up.
    pub fn reader<R: Read>(&self, inner: R) -> Reader<R> {
        let stop = self.clone();
        Reader { inner, stop }
    }

    /// Reads from a descriptor on which bytes may never come.
    pub fn waiting_reader(&self, file: File) -> WaitingReader {
        let stop = self.clone();
        WaitingReader { file, stop }
    }

    /// Writes to something until the work is to be given up.
    pub fn writer<W: Write>(&self, inner: W) -> Writer<W> {
        let stop = self.clone();
        Writer { inner, stop }
    }

    /// Writes to a descriptor that may take nothing for ever, and that nobody else writes to.
    pub fn waiting_writer(&self, file: File) -> WaitingWriter {
        // What is on a disk is always ready.
        let waits = self.0.is_some() && !file.metadata().is_ok_and(|file| file.is_file());
        let (most, stop) = (if waits { ROOM } else { usize::MAX }, self.clone());
        WaitingWriter { file, most, stop }
    }

    /// Reads from standard input, which nobody else reads.
    ///
    /// # Errors
    /// There is none.
    pub fn standard_input(&self) -> io::Result<WaitingReader> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(self.waiting_reader(input.into()))
    }
}

/// What is read as long as the work goes on.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    stop: Stop,
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.inner.read(buffer)
    }
}

/// As [`Reader`], of what may block.
#[derive(Debug)]
pub struct WaitingReader {
    file: File,
    stop: Stop,
}

impl Read for WaitingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.wait_for(self.file.as_fd())?;
        self.file.read(buffer)
    }
}

/// What is written to as long as the work goes on.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    stop: Stop,
}

impl<W> Writer<W> {
    /// What it writes to.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// As [`Writer`], to what may block.
#[derive(Debug)]
pub struct WaitingWriter {
    file: File,
    /// Bytes that it takes at once, if it takes any.
    most: usize,
    stop: Stop,
}

impl Write for WaitingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(stop) = &self.stop.0
            && readable_or_writable(stop.as_fd(), self.file.as_fd())?
        {
            return Err(Stopped.into());
        }
        self.file.write(&bytes[..bytes.len().min(self.most)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given_up(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|error| error.is::<Stopped>())
    }

    #[test]
    fn what_waits_is_given_up_and_what_has_come_is_not() {
        let (asked, ask) = io::pipe().expect("a pipe");
        let stop = Stop::when(asked.into());
        let (full, filled) = io::pipe().expect("a pipe");
        let mut writer = stop.waiting_writer(OwnedFd::from(filled).into());
        writer.write_all(b"x").expect("there is room");
        let (input, mut output) = io::pipe().expect("a pipe");
        let mut reader = stop.waiting_reader(OwnedFd::from(input).into());
        output.write_all(b"x").expect("a byte");
        let mut byte = [0];
        assert_eq!(reader.read(&mut byte).expect("a byte"), 1);
        assert_eq!(stop.unless(|| 7).expect("at once"), 7);
        assert_eq!(stop.reader(&b"x"[..]).read(&mut byte).expect("a byte"), 1);
        // More than a pipe holds, which nobody reads before it is given up.
        let filling = std::thread::spawn(move || {
            let filled = writer.write_all(&[0; 1 << 21]);
            (writer, filled.expect_err("given up"))
        });
        // A thread that asks for it while others wait.
        let asking = std::thread::spawn(move || drop(ask));
        let (held, _holder) = io::pipe().expect("a pipe");
        let waits = move || (&held).read(&mut [0]).expect("for ever");
        assert!(given_up(&stop.unless(waits).expect_err("given up")));
        assert!(given_up(&reader.read(&mut byte).expect_err("given up")));
        let error = stop.reader(&b"x"[..]).read(&mut byte);
        assert!(given_up(&error.expect_err("given up")));
        let error = stop.writer(io::sink()).write(b"x");
        assert!(given_up(&error.expect_err("given up")));
        assert!(Stop::default().check().is_ok() && stop.check().is_err());
        asking.join().expect("no panic");
        let (writer, error) = filling.join().expect("no panic");
        assert!(given_up(&error));
        drop((writer, full));
    }
}
