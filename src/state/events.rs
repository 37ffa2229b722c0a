//! A pod's events on disk: JSON lines, one per occurrence, in a file that stays small.
//!
//! ```text
//! {"number":3,"first":"…","count":2,"time":"…","type":"Warning","reason":"BackOff","message":"…","container":"web"}
//! ```
//!
//! An event that happens again is one event with a count (client-go's `EventCorrelator`), and a line with the number
//! that it had: the last line with a number is what holds. From ten events on within ten minutes that differ only in
//! their message, they are one, too. The file is written anew, with the newest events only, when it has become large.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::Error;
use super::record::json;
use crate::model::event::{EventSeries, PodEvent};
use crate::sys::{append, fs};

/// The file is written anew when it is larger than this, in bytes.
const MAX_FILE: u64 = 128 * 1024;

/// How many events a file has after that.
const KEPT: usize = 100;

/// The longest message, in bytes.
const MAX_MESSAGE: usize = 4096;

/// From how many events on those that differ only in their message are one.
const SIMILAR: usize = 10;

/// What a message begins with that stands for several.
const COMBINED: &str = "(combined from similar events): ";

/// How long similar events belong together.
const INTERVAL: SignedDuration = SignedDuration::from_mins(10);

/// The one that writes a pod's events.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    len: u64,
    /// Whether the last line has no end: its write was cut off.
    is_torn: bool,
    next: u64,
    /// By what makes events the same.
    known: HashMap<u64, Known>,
    similar: HashMap<u64, Similar>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    number: u64,
    first: Timestamp,
    count: u32,
}

#[derive(Debug)]
struct Similar {
    messages: HashSet<u64>,
    last: Timestamp,
}

impl EventLog {
    /// Goes on with what is in the file, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read_if_there(path)?.unwrap_or_default();
        let mut log = Self {
            path: path.to_owned(),
            len: bytes.len() as u64,
            is_torn: bytes.last().is_some_and(|byte| *byte != b'\n'),
            next: 1,
            known: HashMap::new(),
            similar: HashMap::new(),
        };
        log.remember(&parse(&bytes));
        Ok(log)
    }

    /// Keeps an event; returns it with its history.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&mut self, event: &PodEvent) -> Result<EventSeries, Error> {
        let mut event = event.clone();
        cut(&mut event.message);
        let key = self.key(&mut event);
        let known = self.known.entry(key).or_insert(Known {
            number: self.next,
            first: event.time,
            count: 0,
        });
        self.next = self.next.max(known.number + 1);
        known.count = known.count.saturating_add(1);
        let series = EventSeries {
            number: known.number,
            first: known.first,
            count: known.count,
            event,
        };
        let mut line = json(&series);
        if self.is_torn {
            line.insert(0, b'\n');
        }
        // As long as it fails, on a full disk, something may be left of it.
        self.is_torn = true;
        append::line(&self.path, &line)?;
        self.is_torn = false;
        self.len += line.len() as u64 + 1;
        if self.len > MAX_FILE {
            self.compact()?;
        }
        Ok(series)
    }

    /// What makes events the same; similar ones in large numbers are told to be so.
    fn key(&mut self, event: &mut PodEvent) -> u64 {
        let message = hash(&event.message);
        let of_similar = of_similar(event);
        let similar = self.similar.entry(of_similar).or_insert_with(|| Similar {
            messages: HashSet::new(),
            last: event.time,
        });
        if event.time.duration_since(similar.last) > INTERVAL {
            similar.messages.clear();
        }
        similar.last = event.time;
        if similar.messages.len() >= SIMILAR - 1 && !similar.messages.contains(&message) {
            event.message = format!("{COMBINED}{}", event.message);
            return of_similar;
        }
        similar.messages.insert(message);
        hash(&(of_similar, message))
    }

    /// Leaves only the newest events in the file.
    fn compact(&mut self) -> Result<(), Error> {
        let events = read(&self.path)?;
        let mut lines = Vec::new();
        let mut len = 0;
        let mut kept = HashSet::new();
        for event in events.iter().rev().take(KEPT) {
            let line = json(event);
            len += line.len() as u64 + 1;
            if len > MAX_FILE / 2 {
                break;
            }
            kept.insert(event.number);
            lines.push(line);
        }
        lines.reverse();
        let mut content = lines.join(&b'\n');
        content.push(b'\n');
        fs::replace_in_memory(&self.path, 0o600, &content)?;
        self.len = content.len() as u64;
        self.known.retain(|_, known| kept.contains(&known.number));
        // Forgets at most that something was similar.
        self.similar.clear();
        Ok(())
    }

    fn remember(&mut self, events: &[EventSeries]) {
        for series in events {
            let mut event = series.event.clone();
            let key = if event.message.starts_with(COMBINED) {
                of_similar(&event)
            } else {
                self.key(&mut event)
            };
            let known = Known {
                number: series.number,
                first: series.first,
                count: series.count,
            };
            self.known.insert(key, known);
            self.next = self.next.max(series.number + 1);
        }
    }
}

/// The events of a file, each as it was last, the one that happened last at the end. A line that is being written is
/// left out.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<Vec<EventSeries>, Error> {
    Ok(parse(&fs::read_if_there(path)?.unwrap_or_default()))
}

fn parse(bytes: &[u8]) -> Vec<EventSeries> {
    let mut latest: HashMap<u64, (usize, EventSeries)> = HashMap::new();
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    for (line, text) in lines {
        if let Ok(series) = serde_json::from_slice::<EventSeries>(text) {
            latest.insert(series.number, (line, series));
        }
    }
    let mut events: Vec<(usize, EventSeries)> = latest.into_values().collect();
    events.sort_by_key(|(line, _)| *line);
    events.into_iter().map(|(_, series)| series).collect()
}

/// What similar events have in common.
fn of_similar(event: &PodEvent) -> u64 {
    hash(&(
        format!("{:?}", event.r#type),
        &event.reason,
        event.container.as_ref(),
    ))
}

fn hash(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Shortens a message at a character's end.
fn cut(message: &mut String) {
    let mut end = MAX_MESSAGE.min(message.len());
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
}

#[cfg(test)]
mod tests;
