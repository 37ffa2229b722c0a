//! Reads a run's log across its rotated files, also while it is written.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::SystemTime;

use super::files::{Files, Place};
use super::{Record, Stream, Tag, Timestamp, tail};
use crate::sys::fs;
use crate::sys::poll;
use crate::sys::watch::Watch;

/// Why a log cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] fs::Error),
    /// Also when the reader of the output went away.
    #[error("cannot write the log")]
    Output(#[source] io::Error),
    #[error("cannot wait for the log to grow")]
    Wait(#[source] io::Error),
}

/// What of a log is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Only the last lines that there are at the beginning.
    pub tail: Option<usize>,
    /// Only lines that were written at this time or later.
    pub since: Option<SystemTime>,
    pub streams: Streams,
}

/// Which streams are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    Both,
    Only(Stream),
}

impl Streams {
    pub(super) fn have(self, stream: Stream) -> bool {
        match self {
            Self::Both => true,
            Self::Only(only) => only == stream,
        }
    }
}

/// Whether lines are shown with their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    Shown,
    Hidden,
}

/// A line that a container wrote, or a part of one: very long lines come in parts.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When its beginning was written.
    pub time: &'a str,
    pub stream: Stream,
    /// Without the line end.
    pub text: &'a [u8],
    /// Whether the line begins here.
    pub starts: bool,
    /// Whether the container ended the line here.
    pub ends: bool,
}

impl Line<'_> {
    /// Writes the line as `kubectl logs` shows it.
    ///
    /// # Errors
    /// The output takes no more.
    pub fn write_to(&self, out: &mut dyn Write, timestamps: Timestamps) -> io::Result<()> {
        if self.starts && timestamps == Timestamps::Shown {
            out.write_all(self.time.as_bytes())?;
            out.write_all(b" ")?;
        }
        out.write_all(self.text)?;
        if self.ends {
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// What takes the lines.
type Each<'a> = &'a mut dyn FnMut(&Line<'_>) -> io::Result<()>;

/// Shows the log of a run as it is now.
///
/// # Errors
/// It cannot be read, or `each` failed.
pub fn read(dir: &Path, restart: u32, options: &Options, each: Each<'_>) -> Result<(), Error> {
    let mut reader = Reader::open(dir, restart, options)?;
    reader.read_to(reader.opened, each)?;
    reader.finish(each)
}

/// Shows a log from its beginning (or `tail`, or `since`), a part at a time.
#[derive(Debug)]
pub struct Reader {
    files: Files,
    /// The log's end at that time.
    opened: Place,
    since: Option<Timestamp>,
    streams: Streams,
    /// What was read and has no end yet.
    torn: Vec<u8>,
    stdout: Joined,
    stderr: Joined,
}

/// How much is read at once.
const CHUNK: usize = 256 * 1024;

/// Lines longer than this are shown in parts.
const MAX_JOINED: usize = 1024 * 1024;

impl Reader {
    /// Finds where to begin. A log that is not there yet is an empty one.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn open(dir: &Path, restart: u32, options: &Options) -> Result<Self, Error> {
        let mut files = Files::new(dir, restart);
        let opened = files.end()?;
        if let Some(lines) = options.tail
            && let Some(start) = tail::start(&files, lines, options.streams, opened)?
        {
            files.begin(start)?;
        }
        Ok(Self {
            files,
            opened,
            since: options.since.map(Timestamp::new),
            streams: options.streams,
            torn: Vec::new(),
            stdout: Joined::default(),
            stderr: Joined::default(),
        })
    }

    /// Shows all lines that have ended by now and were not shown yet; not what is written meanwhile, which may go on
    /// for ever.
    ///
    /// # Errors
    /// The files cannot be read, or `each` failed.
    pub fn read(&mut self, each: Each<'_>) -> Result<(), Error> {
        self.read_to(self.files.end()?, each)
    }

    fn read_to(&mut self, end: Place, each: Each<'_>) -> Result<(), Error> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let len = self.files.read(&mut chunk, end)?;
            if len == 0 {
                return Ok(());
            }
            self.take(&chunk[..len], each).map_err(Error::Output)?;
        }
    }

    /// Shows what is left: the beginning of lines that were never ended.
    ///
    /// # Errors
    /// `each` failed.
    pub fn finish(&mut self, each: Each<'_>) -> Result<(), Error> {
        for (stream, joined) in [
            (Stream::Stdout, &mut self.stdout),
            (Stream::Stderr, &mut self.stderr),
        ] {
            joined.show(stream, false, each).map_err(Error::Output)?;
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], each: Each<'_>) -> io::Result<()> {
        let mut torn = std::mem::take(&mut self.torn);
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if torn.is_empty() {
                self.record(&rest[..end], each)?;
            } else {
                torn.extend_from_slice(&rest[..end]);
                self.record(&torn, each)?;
                torn.clear();
            }
            rest = &rest[end + 1..];
        }
        // What is longer than any record is none, and is not worth its memory.
        if torn.len() <= MAX_JOINED {
            torn.extend_from_slice(rest);
        }
        self.torn = torn;
        Ok(())
    }

    /// Shows a record, or keeps it until its line ends. What is no record is passed over, as kubectl does.
    fn record(&mut self, line: &[u8], each: Each<'_>) -> io::Result<()> {
        let Some(record) = Record::parse(line) else {
            tracing::debug!(len = line.len(), "a line of the log is no record");
            return Ok(());
        };
        if !self.streams.have(record.stream) {
            return Ok(());
        }
        let joined = match record.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        // A line counts by its beginning.
        let early = self
            .since
            .is_some_and(|since| record.time.as_bytes() < since.as_bytes().as_slice());
        if joined.is_new() && record.tag == Tag::Full {
            return if early {
                Ok(())
            } else {
                each(&Line {
                    time: record.time,
                    stream: record.stream,
                    text: record.text,
                    starts: true,
                    ends: true,
                })
            };
        }
        joined.add(&record, early);
        match record.tag {
            Tag::Full => joined.show(record.stream, true, each),
            Tag::Partial if joined.text.len() > MAX_JOINED => {
                joined.show(record.stream, false, each)
            }
            Tag::Partial => Ok(()),
        }
    }
}

/// The records of a line that has not ended.
#[derive(Debug, Default)]
struct Joined {
    state: JoinedState,
    time: String,
    text: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum JoinedState {
    /// The next record begins a line.
    #[default]
    New,
    /// The line began; none of it was shown.
    Begun,
    /// A part of it was shown.
    Shown,
    /// The line is not wanted.
    Unwanted,
}

impl Joined {
    fn is_new(&self) -> bool {
        self.state == JoinedState::New
    }

    fn add(&mut self, record: &Record<'_>, early: bool) {
        if self.is_new() {
            self.time.clear();
            self.time.push_str(record.time);
            self.state = if early {
                JoinedState::Unwanted
            } else {
                JoinedState::Begun
            };
        }
        if self.state != JoinedState::Unwanted {
            self.text.extend_from_slice(record.text);
        }
    }

    fn show(&mut self, stream: Stream, ends: bool, each: Each<'_>) -> io::Result<()> {
        let starts = match self.state {
            JoinedState::New => return Ok(()),
            JoinedState::Begun => true,
            JoinedState::Shown => false,
            JoinedState::Unwanted => {
                if ends {
                    self.state = JoinedState::New;
                }
                return Ok(());
            }
        };
        self.state = if ends {
            JoinedState::New
        } else {
            JoinedState::Shown
        };
        let text = std::mem::take(&mut self.text);
        each(&Line {
            time: &self.time,
            stream,
            text: &text,
            starts,
            ends,
        })
    }
}

/// A reader that can wait for more.
///
/// ```text
/// loop {
///     let ended = …;                     // asked first: what is written before the end is read below
///     follower.read(each)?;
///     if ended { break follower.finish(each) }
///     follower.wait(Some(status.as_fd()))?;
/// }
/// ```
#[derive(Debug)]
pub struct Follower {
    reader: Reader,
    changes: Watch,
}

impl Follower {
    /// As [`Reader::open`]; from now on nothing is missed.
    ///
    /// # Errors
    /// The container's folder is not there yet, or cannot be watched or read.
    pub fn open(dir: &Path, restart: u32, options: &Options) -> Result<Self, Error> {
        let changes = Watch::new().map_err(Error::Wait)?;
        changes.add(dir)?;
        Ok(Self {
            reader: Reader::open(dir, restart, options)?,
            changes,
        })
    }

    /// As [`Reader::read`].
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read(&mut self, each: Each<'_>) -> Result<(), Error> {
        // Forgotten before the read: what happens during it is seen by the next wait.
        self.changes.drain().map_err(Error::Wait)?;
        self.reader.read(each)
    }

    /// As [`Reader::finish`].
    ///
    /// # Errors
    /// As [`Reader::finish`].
    pub fn finish(&mut self, each: Each<'_>) -> Result<(), Error> {
        self.reader.finish(each)
    }

    /// Blocks until the log may have more, or `other` is readable: whatever tells that the container has ended.
    /// An event loop waits for [`AsFd`] instead.
    ///
    /// # Errors
    /// A descriptor cannot be waited for.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let fds: Vec<_> = [self.changes.as_fd()].into_iter().chain(other).collect();
        poll::readable(&fds, None).map(drop).map_err(Error::Wait)
    }
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}
