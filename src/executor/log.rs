//! Writes what containers print, as [`state::logs`](crate::state::logs) describes it: containerd's splitting, byte for byte.
//!
//! A chunk that was read from a container's pipe becomes one `write(2)` (two or more only where short lines blow it
//! up), with one time for all its lines. Nothing is allocated per line, and nothing is held between chunks but
//! the line that has not ended yet.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::state::logs::{self, Compression, MAX_TEXT, Tag, Timestamp};
use crate::sys::append::AppendFile;
use crate::sys::fs;

pub use crate::state::logs::Stream;

#[cfg(test)]
mod tests;

/// A file is rotated before it would be larger than this, in bytes.
const MAX_FILE: u64 = 10 * 1024 * 1024;

/// How many files a run keeps, the current one included.
const MAX_FILES: u64 = 5;

/// Records are handed to the kernel at the latest when there are this many bytes.
const MAX_WRITE: usize = 256 * 1024;

/// The log of one run of a container.
#[derive(Debug)]
pub struct LogWriter {
    file: LogFile,
    compressing: bool,
    has_failed: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl LogWriter {
    /// Opens the log of run number `restart` in the container's folder, which is made if it is not there.
    ///
    /// # Errors
    /// The folder or the file cannot be made.
    pub fn open(dir: &Path, restart: u32) -> fs::Result<Self> {
        Ok(Self {
            file: LogFile::open(dir, restart)?,
            compressing: false,
            has_failed: false,
            stdout: Vec::new(),
            stderr: Vec::new(),
        })
    }

    /// Writes what was read from one of the container's streams at the time `now`.
    ///
    /// # Errors
    /// Some lines could not be written and are lost. The log can be written to further.
    pub fn write_chunk(&mut self, stream: Stream, bytes: &[u8], now: SystemTime) -> fs::Result<()> {
        let (file, pending) = self.parts(stream);
        let mut batch = Batch::new(file, stream, now, bytes.len());
        let mut rest = bytes;
        while let Some(end) = find_newline(rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if pending.is_empty() {
                batch.line(line);
            } else {
                pending.extend_from_slice(line);
                batch.line(pending);
                clear(pending);
            }
        }
        pending.extend_from_slice(rest);
        let written = batch.pieces(pending, goes_on);
        pending.drain(..written);
        batch.finish()
    }

    /// Writes what a stream has left when it was closed: a line without an end.
    ///
    /// # Errors
    /// It could not be written and is lost.
    pub fn finish(&mut self, stream: Stream, now: SystemTime) -> fs::Result<()> {
        let (file, pending) = self.parts(stream);
        if pending.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(file, stream, now, pending.len());
        let (piece, rest) = pending.split_at(pending.len().min(MAX_TEXT));
        batch.record(Tag::Partial, piece);
        if !rest.is_empty() {
            batch.record(Tag::Partial, rest);
        }
        *pending = Vec::new();
        batch.finish()
    }

    /// Whether it is the first time that something is lost.
    pub fn is_first_failure(&mut self) -> bool {
        !std::mem::replace(&mut self.has_failed, true)
    }

    /// Whether somebody should begin to compress: nobody does yet.
    pub fn begin_compressing(&mut self) -> bool {
        !std::mem::replace(&mut self.compressing, true)
    }

    /// Whoever compressed has done so.
    pub fn end_compressing(&mut self) {
        self.compressing = false;
    }

    /// The oldest file that is to be compressed: a rotated one that is not the newest.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn next_to_compress(&self) -> fs::Result<Option<u64>> {
        let LogFile { dir, restart, .. } = &self.file;
        let mut numbers = logs::rotations(dir, *restart)?;
        numbers.pop();
        let is_plain = |number: &u64| logs::rotated_file(dir, *restart, *number).exists();
        Ok(numbers.into_iter().find(is_plain))
    }

    /// Begins to compress a file; `None` if it is gone.
    ///
    /// # Errors
    /// A file cannot be opened or made.
    pub fn compress(&self, number: u64) -> fs::Result<Option<Compression>> {
        Compression::begin(&self.file.dir, self.file.restart, number, MODE)
    }

    /// How many files have been rotated.
    #[must_use]
    pub fn rotations(&self) -> u64 {
        self.file.next - 1
    }

    fn parts(&mut self, stream: Stream) -> (&mut LogFile, &mut Vec<u8>) {
        match stream {
            Stream::Stdout => (&mut self.file, &mut self.stdout),
            Stream::Stderr => (&mut self.file, &mut self.stderr),
        }
    }
}

/// Finds a line's end. The standard library's fast search is only to be had through `BufRead`, and is not worth its
/// call for the shortest lines.
fn find_newline(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<{ size_of::<u64>() }>();
    for (index, word) in words.iter().take(NEAR).enumerate() {
        // Zero where the newlines are; the lowest bit that is set belongs to the first zero.
        let word = u64::from_le_bytes(*word) ^ (ONES * u64::from(b'\n'));
        let found = word.wrapping_sub(ONES) & !word & (ONES << 7);
        if found != 0 {
            return Some(index * size_of::<u64>() + found.trailing_zeros() as usize / 8);
        }
    }
    let mut rest = bytes;
    let skipped = std::io::BufRead::skip_until(&mut rest, b'\n').unwrap_or_default();
    let last = skipped.checked_sub(1)?;
    (bytes[last] == b'\n').then_some(last)
}

/// How many words are looked at first.
const NEAR: usize = 4;

/// A one in every byte.
const ONES: u64 = u64::MAX / 255;

/// Empties a buffer, and gives back what a very long line took.
fn clear(pending: &mut Vec<u8>) {
    pending.clear();
    pending.shrink_to(2 * MAX_TEXT);
}

/// The records of one chunk.
struct Batch<'a> {
    file: &'a mut LogFile,
    /// `TIME STREAM F `
    header: [u8; HEADER],
    out: Vec<u8>,
    failure: Option<fs::Error>,
}

/// The length of a record without its text and line end.
const HEADER: usize = Timestamp::LEN + " stdout F ".len();

impl<'a> Batch<'a> {
    fn new(file: &'a mut LogFile, stream: Stream, now: SystemTime, len: usize) -> Self {
        let mut header = [b' '; HEADER];
        header[..Timestamp::LEN].copy_from_slice(Timestamp::new(now).as_bytes());
        header[Timestamp::LEN + 1..HEADER - 3].copy_from_slice(stream.name().as_bytes());
        header[HEADER - 2] = b'F';
        Self {
            file,
            header,
            out: Vec::with_capacity((len + len / 2 + 2 * HEADER).min(MAX_WRITE)),
            failure: None,
        }
    }

    /// A line that has ended, without its `\n`.
    fn line(&mut self, line: &[u8]) {
        let line = match line {
            [start @ .., b'\r'] => start,
            whole => whole,
        };
        if line.len() <= MAX_TEXT {
            self.record(Tag::Full, line);
            return;
        }
        let written = self.pieces(line, |line| line.len() > MAX_TEXT);
        self.record(Tag::Full, &line[written..]);
    }

    /// Writes full records as long as the line has more than its last one; returns their length.
    fn pieces(&mut self, line: &[u8], has_more: fn(&[u8]) -> bool) -> usize {
        let mut written = 0;
        while has_more(&line[written..]) {
            self.record(Tag::Partial, &line[written..written + MAX_TEXT]);
            written += MAX_TEXT;
        }
        written
    }

    fn record(&mut self, tag: Tag, text: &[u8]) {
        let len = HEADER + text.len() + 1;
        if self.out.len() + len > MAX_WRITE {
            self.flush();
        }
        let begin = self.out.len();
        self.out.reserve(len);
        self.out.extend_from_slice(&self.header);
        if tag == Tag::Partial {
            self.out[begin + HEADER - 2] = b'P';
        }
        self.out.extend_from_slice(text);
        self.out.push(b'\n');
    }

    fn flush(&mut self) {
        if let Err(e) = self.file.append(&self.out) {
            // As containerd: what the container prints next is taken nevertheless, so that it does not block.
            self.failure.get_or_insert(e);
        }
        self.out.clear();
    }

    fn finish(mut self) -> fs::Result<()> {
        if !self.out.is_empty() {
            self.flush();
        }
        self.failure.map_or(Ok(()), Err)
    }
}

/// Whether a line that has not ended needs another record. A `\r` after a full one may yet belong to the line's end.
fn goes_on(line: &[u8]) -> bool {
    line.len() > MAX_TEXT && line[MAX_TEXT..] != *b"\r"
}

/// The files of one run.
#[derive(Debug)]
struct LogFile {
    file: AppendFile,
    dir: PathBuf,
    restart: u32,
    /// The number of the next rotated file.
    next: u64,
}

/// As containerd's: readable by the owner's group.
const MODE: u32 = 0o640;

impl LogFile {
    fn open(dir: &Path, restart: u32) -> fs::Result<Self> {
        fs::create_dir_all(dir, 0o755)?;
        let mut file = AppendFile::open(&logs::current_file(dir, restart), MODE)?;
        if file.last_byte()?.is_some_and(|byte| byte != b'\n') {
            // The machine went down within a write.
            file.append(b"\n")?;
        }
        let newest = logs::rotations(dir, restart)?.pop();
        Ok(Self {
            file,
            dir: dir.to_owned(),
            restart,
            next: newest.map_or(1, |number| number + 1),
        })
    }

    fn append(&mut self, records: &[u8]) -> fs::Result<()> {
        let full = self.file.len() + records.len() as u64 > MAX_FILE;
        let rotated = if full && !self.file.is_empty() {
            self.rotate()
        } else {
            Ok(())
        };
        // A file that is too long is better than a line that is lost.
        self.file.append(records).and(rotated)
    }

    fn rotate(&mut self) -> fs::Result<()> {
        let old = logs::rotated_file(&self.dir, self.restart, self.next);
        self.file.rotate(&old, MODE)?;
        self.next += 1;
        match self.next.checked_sub(MAX_FILES) {
            Some(oldest) => logs::remove_rotated(&self.dir, self.restart, oldest),
            None => Ok(()),
        }
    }
}
