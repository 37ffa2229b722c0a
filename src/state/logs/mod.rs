//! A container's log, in the format and the places of the Container Runtime Interface.
//!
//! ```text
//! LOGS/NS_NAME_UID/CONTAINER/     one folder per container
//!   0.log                         its first run
//!   1.log.1.gz  1.log.2  1.log    its second run, rotated twice: the higher, the newer
//! ```
//!
//! Rotated files are compressed when there is time, the newest one last: somebody may still be reading it.
//!
//! A record is one line: `2016-10-06T00:17:09.669794202Z stdout F text`. Times are UTC with nine digits, so that they
//! sort as text. The tag says whether the container's line ends here (`F`) or goes on in the next record of its
//! stream (`P`): lines of more than [`MAX_TEXT`] bytes are split, and a last line without an end is one `P`.
//!
//! The writer is in the executor. Here is what writer and readers must agree on, and the [`Reader`].

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::sys::fs;

mod compression;
mod files;
pub mod links;
mod read;
mod tail;
#[cfg(test)]
mod tests;

pub use compression::Compression;
pub use read::{Error, Follower, Line, Options, Reader, Streams, Timestamps, read};

/// The longest text of a record, in bytes.
pub const MAX_TEXT: usize = 16 * 1024;

/// What a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Its name in a record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Whether a record ends the container's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    Full,
    Partial,
}

/// The file that a container's run number `restart` (0 is the first) writes to.
#[must_use]
pub fn current_file(dir: &Path, restart: u32) -> PathBuf {
    dir.join(format!("{restart}.log"))
}

/// A rotated file of that run. Higher numbers are newer.
#[must_use]
pub fn rotated_file(dir: &Path, restart: u32, number: u64) -> PathBuf {
    dir.join(format!("{restart}.log.{number}"))
}

/// The same after it has been compressed.
#[must_use]
pub fn compressed_file(dir: &Path, restart: u32, number: u64) -> PathBuf {
    dir.join(format!("{restart}.log.{number}.gz"))
}

/// The runs that have a log, oldest first: the last is the current one, the one before it the previous.
///
/// # Errors
/// The folder is there and cannot be read.
pub fn restarts(dir: &Path) -> fs::Result<Vec<u32>> {
    let mut restarts: Vec<u32> = fs::list(dir)?
        .iter()
        .filter_map(|name| parse_name(name))
        .map(|(restart, _)| restart)
        .collect();
    restarts.sort_unstable();
    restarts.dedup();
    Ok(restarts)
}

/// The numbers of a run's rotated files, compressed or not, oldest first.
///
/// # Errors
/// The folder is there and cannot be read.
pub fn rotations(dir: &Path, restart: u32) -> fs::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = fs::list(dir)?
        .iter()
        .filter_map(|name| parse_name(name))
        .filter(|(of, _)| *of == restart)
        .filter_map(|(_, number)| number)
        .collect();
    numbers.sort_unstable();
    // A file that has just been compressed is there twice for a moment.
    numbers.dedup();
    Ok(numbers)
}

/// Removes a rotated file, compressed or not.
///
/// # Errors
/// It cannot be removed.
pub fn remove_rotated(dir: &Path, restart: u32, number: u64) -> fs::Result<()> {
    fs::remove_file(&rotated_file(dir, restart, number))?;
    fs::remove_file(&compressed_file(dir, restart, number))
}

/// Removes all files of a run.
///
/// # Errors
/// One cannot be removed.
pub fn remove(dir: &Path, restart: u32) -> fs::Result<()> {
    let names: Vec<OsString> = fs::list(dir)?;
    for name in names {
        if parse_name(&name).is_some_and(|(of, _)| of == restart) {
            fs::remove_file(&dir.join(name))?;
        }
    }
    Ok(())
}

fn parse_name(name: &OsStr) -> Option<(u32, Option<u64>)> {
    let (restart, rest) = name.to_str()?.split_once(".log")?;
    let number = match rest.strip_prefix('.') {
        Some(number) => Some(number.strip_suffix(".gz").unwrap_or(number).parse().ok()?),
        None if rest.is_empty() => None,
        None => return None,
    };
    Some((restart.parse().ok()?, number))
}

/// A time as records have it: `2016-10-06T00:17:09.669794202Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp([u8; Self::LEN]);

impl Timestamp {
    /// Its length in bytes.
    pub const LEN: usize = 30;

    /// Formats a time. Times before 1970 are 1970, those after 9999 the end of 9999.
    #[must_use]
    pub fn new(time: SystemTime) -> Self {
        const LAST: Duration = Duration::new(253_402_300_799, 999_999_999);
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default().min(LAST);
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = date(days);
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        digits(&mut text[..4], year);
        digits(&mut text[5..7], month);
        digits(&mut text[8..10], day);
        digits(&mut text[11..13], second / 3600);
        digits(&mut text[14..16], second / 60 % 60);
        digits(&mut text[17..19], second % 60);
        digits(&mut text[20..29], u64::from(since.subsec_nanos()));
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

fn digits(text: &mut [u8], mut value: u64) {
    for byte in text.iter_mut().rev() {
        // A remainder of 10 fits.
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a day since 1970. Counts from March, so that the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day)
}

/// A record, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record<'a> {
    time: &'a str,
    stream: Stream,
    tag: Tag,
    text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes a line without its end apart; `None` if it is no record.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let (time, rest) = split_word(line)?;
        let (stream, rest) = split_word(rest)?;
        let (tags, text) = split_word(rest)?;
        Some(Self {
            time: std::str::from_utf8(time)
                .ok()
                .filter(|t| t.ends_with('Z'))?,
            stream: match stream {
                b"stdout" => Stream::Stdout,
                b"stderr" => Stream::Stderr,
                _ => return None,
            },
            // More tags may follow one day, after a `:`.
            tag: match tags.split(|byte| *byte == b':').next()? {
                b"F" => Tag::Full,
                b"P" => Tag::Partial,
                _ => return None,
            },
            text,
        })
    }
}

fn split_word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    Some((&bytes[..space], &bytes[space + 1..]))
}
