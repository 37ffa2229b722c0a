//! Finds the last lines of a log without reading all of it.

use std::io;
use std::os::unix::fs::FileExt as _;

use super::files::{Files, Place, Source};
use super::{Record, Streams, Tag};
use crate::sys::fs;

/// How much is looked at first.
const FIRST: u64 = 64 * 1024;

/// Where the last `lines` lines before `end` begin; `None` if there are not more than that.
///
/// Where both streams have very long lines at the same time, the first line may lack its beginning.
pub(super) fn start(
    files: &Files,
    lines: usize,
    streams: Streams,
    end: Place,
) -> fs::Result<Option<Place>> {
    let mut count = Count {
        streams,
        // The line end before the first wanted line is looked for, too.
        left: lines.saturating_add(1),
        at_end: true,
    };
    for number in files.numbers_to(end)?.into_iter().rev() {
        let Some((found, source)) = files.find(number)? else {
            continue;
        };
        if found != number {
            // It was removed in between.
            continue;
        }
        let most = match number == end.number {
            true => end.at,
            false => u64::MAX,
        };
        let started = start_in(source, most, &mut count).map_err(|e| files.failed(e))?;
        if let Some(at) = started {
            return Ok(Some(Place { number, at }));
        }
    }
    Ok(None)
}

/// Counts lines from the end.
#[derive(Clone, Copy)]
struct Count {
    streams: Streams,
    left: usize,
    /// Whether no wanted record was met yet: a line at the end counts without being ended.
    at_end: bool,
}

impl Count {
    /// Takes the next record towards the beginning; returns whether what is after it is what is wanted.
    fn add(&mut self, line: &[u8]) -> bool {
        let Some(record) = Record::parse(line).filter(|r| self.streams.have(r.stream)) else {
            return false;
        };
        let at_end = std::mem::replace(&mut self.at_end, false);
        if record.tag == Tag::Full || at_end {
            self.left -= 1;
        }
        self.left == 0
    }
}

/// Looks in larger and larger parts before the end of a file, or of its first `most` bytes; a compressed file has to be
/// read from its beginning.
fn start_in(source: Source, most: u64, count: &mut Count) -> io::Result<Option<u64>> {
    let Some(file) = source.plain() else {
        let mut whole = source.whole()?;
        whole.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        let found = last_lines(&whole, true, count);
        return Ok(found.map(|at| at as u64));
    };
    let len = file.metadata()?.len().min(most);
    let mut window = FIRST;
    loop {
        let begin = len.saturating_sub(window);
        let mut bytes = vec![0; usize::try_from(len - begin).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, begin)?;
        let mut counted = *count;
        if let Some(at) = last_lines(&bytes, begin == 0, &mut counted) {
            return Ok(Some(begin + at as u64));
        }
        if begin == 0 {
            *count = counted;
            return Ok(None);
        }
        window *= 4;
    }
}

fn last_lines(bytes: &[u8], whole: bool, count: &mut Count) -> Option<usize> {
    // What has no end yet is being written: it comes after all lines.
    let mut end = bytes.iter().rposition(|byte| *byte == b'\n')?;
    loop {
        let newline = bytes[..end].iter().rposition(|byte| *byte == b'\n');
        let begin = match newline {
            Some(at) => at + 1,
            None if whole => 0,
            None => return None,
        };
        if count.add(&bytes[begin..end]) {
            return Some(end + 1);
        }
        end = newline?;
    }
}
