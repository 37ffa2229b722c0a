//! Those who look at what a running container prints (`attach`).
//!
//! ```text
//! pump ──▶ log
//!   └────▶ Audience ──▶ a queue per viewer and stream ──▶ a task that writes into the viewer's pipe
//! ```
//!
//! The container never waits for a viewer: one that leaves more unread than [`MOST_UNREAD`] is sent away. Standard
//! input is none of the executor's work: a viewer gets the end of the pipe (or the terminal) that it may write into.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::sync::Notify;

use super::log::Stream;
use crate::sys::fd;

/// What a viewer may leave unread of a stream, in bytes, beside what is in its pipe.
const MOST_UNREAD: usize = 4 * 1024 * 1024;

/// How long a viewer may take to read the rest after the container's end: the pod's may follow.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Everybody who looks at one run of a container.
#[derive(Debug, Default)]
pub(super) struct Audience {
    viewers: RefCell<Vec<Rc<Viewer>>>,
    /// Told when a viewer has left.
    left: Notify,
}

/// One client.
#[derive(Debug, Default)]
pub(super) struct Viewer {
    stdout: Queue,
    stderr: Queue,
}

/// What a viewer has yet to be given of one stream.
#[derive(Debug, Default)]
struct Queue {
    unread: RefCell<Vec<u8>>,
    /// Nothing more will come.
    ended: Cell<bool>,
    /// The viewer has left too much unread.
    overrun: Cell<bool>,
    changed: Notify,
}

/// Why a viewer sees no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// The container has ended, and all is told.
    Ended,
    /// The viewer closed its side.
    Left,
    /// It read too slowly.
    TooSlow,
}

impl Audience {
    /// Shows everybody what the container has printed. Costs nothing when nobody looks.
    pub(super) fn show(&self, stream: Stream, bytes: &[u8]) {
        for viewer in self.viewers.borrow().iter() {
            viewer.queue(stream).push(bytes);
        }
    }

    /// Lets a client look from now on, with pipes for both streams, until one of the reasons to part. Dropping the
    /// future lets it go.
    pub(super) async fn attend(
        self: Rc<Self>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> io::Result<Parting> {
        let viewer = Rc::new(Viewer::default());
        self.viewers.borrow_mut().push(Rc::clone(&viewer));
        let _seat = Seat {
            audience: &self,
            viewer: &viewer,
        };
        let mut out = pin!(viewer.stdout.deliver(stdout));
        let mut err = pin!(viewer.stderr.deliver(stderr));
        tokio::select! {
            parting = &mut out => match parting? {
                Parting::Ended => err.await,
                parting => Ok(parting),
            },
            parting = &mut err => match parting? {
                Parting::Ended => out.await,
                parting => Ok(parting),
            },
        }
    }

    /// Tells everybody that the container prints nothing more, and waits a little until they have read all.
    pub(super) async fn end(&self) {
        for viewer in self.viewers.borrow().iter() {
            viewer.stdout.end();
            viewer.stderr.end();
        }
        let all_left = async {
            while !self.viewers.borrow().is_empty() {
                self.left.notified().await;
            }
        };
        if tokio::time::timeout(LAST_WORDS, all_left).await.is_err() {
            tracing::debug!("a viewer does not read");
        }
    }
}

impl Viewer {
    fn queue(&self, stream: Stream) -> &Queue {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}

/// A viewer's place in the audience, for as long as it is there.
struct Seat<'a> {
    audience: &'a Audience,
    viewer: &'a Rc<Viewer>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut viewers = self.audience.viewers.borrow_mut();
        viewers.retain(|viewer| !Rc::ptr_eq(viewer, self.viewer));
        self.audience.left.notify_one();
    }
}

impl Queue {
    fn push(&self, bytes: &[u8]) {
        let mut unread = self.unread.borrow_mut();
        if self.ended.get() || self.overrun.get() {
            return;
        }
        if unread.len() + bytes.len() > MOST_UNREAD {
            self.overrun.set(true);
            *unread = Vec::new();
        } else {
            unread.extend_from_slice(bytes);
        }
        self.changed.notify_one();
    }

    fn end(&self) {
        self.ended.set(true);
        self.changed.notify_one();
    }

    /// Writes what comes until nothing more will.
    async fn deliver(&self, pipe: OwnedFd) -> io::Result<Parting> {
        fd::set_nonblocking(&pipe)?;
        let pipe = fd::watch(pipe, Interest::WRITABLE)?;
        loop {
            let bytes = std::mem::take(&mut *self.unread.borrow_mut());
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let written = tokio::select! {
                    written = pipe.async_io(Interest::WRITABLE, |pipe| fd::write(pipe, rest)) => written,
                    () = self.changed.notified() => Ok(0),
                };
                match written {
                    Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                    Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Parting::Left),
                    Err(e) => return Err(e),
                }
                if self.overrun.get() {
                    return Ok(Parting::TooSlow);
                }
            }
            if self.overrun.get() {
                return Ok(Parting::TooSlow);
            }
            let nothing = self.unread.borrow().is_empty();
            match (nothing, self.ended.get()) {
                (false, _) => {}
                (true, true) => return Ok(Parting::Ended),
                (true, false) => self.changed.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    fn read(fd: OwnedFd) -> Vec<u8> {
        let mut bytes = Vec::new();
        std::fs::File::from(fd).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn all_is_told_from_now_on_and_to_the_end() {
        run(async {
            let audience = Rc::new(Audience::default());
            audience.show(Stream::Stdout, b"before");
            let (out_read, out) = fd::pipe().unwrap();
            let (err_read, err) = fd::pipe().unwrap();
            let attending = tokio::task::spawn_local(Rc::clone(&audience).attend(out, err));
            tokio::task::yield_now().await;
            // More than a pipe takes at once: the reader comes later.
            let large = vec![b'x'; 1_000_000];
            audience.show(Stream::Stdout, &large);
            audience.show(Stream::Stderr, b"error");
            let reader = std::thread::spawn(move || (read(out_read), read(err_read)));
            audience.end().await;
            assert_eq!(attending.await.unwrap().unwrap(), Parting::Ended);
            let (out, err) = reader.join().unwrap();
            assert!(out == large);
            assert_eq!(err, b"error");
        });
    }

    #[test]
    fn who_does_not_read_is_sent_away_and_who_goes_is_forgotten() {
        run(async {
            let audience = Rc::new(Audience::default());
            let attend = || {
                let ((out_read, out), (err_read, err)) = (fd::pipe().unwrap(), fd::pipe().unwrap());
                let attending = tokio::task::spawn_local(Rc::clone(&audience).attend(out, err));
                (attending, out_read, err_read)
            };
            let (gone, gone_out, _gone_err) = attend();
            tokio::task::yield_now().await;
            drop(gone_out);
            audience.show(Stream::Stdout, b"x");
            assert_eq!(gone.await.unwrap().unwrap(), Parting::Left);

            let (slow, _slow_out, _slow_err) = attend();
            tokio::task::yield_now().await;
            let chunk = vec![0; 64 * 1024];
            for _ in 0..=2 * MOST_UNREAD / chunk.len() {
                audience.show(Stream::Stdout, &chunk);
                tokio::task::yield_now().await;
            }
            assert_eq!(slow.await.unwrap().unwrap(), Parting::TooSlow);
            assert!(audience.viewers.borrow().is_empty());
        });
    }
}
