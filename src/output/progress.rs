//! Progress of pulls: on a terminal a line that is redrawn, and only when it takes longer than 250 ms; elsewhere one
//! line per finished image.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Ui, images, say};

/// Before this nobody wonders what happens.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often the line is redrawn.
const REDRAW: Duration = Duration::from_millis(100);

/// How far one image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    done: u64,
    total: u64,
}

/// The progress of all images of a command.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    ui: &'a Ui,
    started: Instant,
    drawn: Option<Instant>,
    images: BTreeMap<String, Amount>,
}

impl<'a> Progress<'a> {
    /// Progress that has nothing to show yet.
    pub(crate) fn new(ui: &'a Ui) -> Self {
        Self {
            ui,
            started: Instant::now(),
            drawn: None,
            images: BTreeMap::new(),
        }
    }

    /// Takes note of an image's bytes, and redraws the line when it is time.
    pub(crate) fn update(&mut self, image: &str, done: u64, total: u64) {
        self.images.insert(image.to_owned(), Amount { done, total });
        let now = Instant::now();
        let due = match self.drawn {
            None => now - self.started > PATIENCE,
            Some(last) => now - last > REDRAW,
        };
        if self.ui.draws_progress() && due {
            self.drawn = Some(now);
            let line = line(&self.images, now - self.started);
            say(&format!("\r\x1b[K{}", fitted(&line, self.ui.width)));
        }
    }

    /// Takes note that an image is complete, and says so.
    pub(crate) fn finish(&mut self, image: &str) {
        self.images.remove(image);
        self.clear();
        self.ui.talk(&format!("pulled {image}"));
    }

    /// Takes the line away, so that something else can be printed.
    pub(crate) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            say("\r\x1b[K");
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// `pulling 2 images: 12.3MB of 40.0MB, 5.00MB/s`.
fn line(images: &BTreeMap<String, Amount>, elapsed: Duration) -> String {
    let subject = match images.len() {
        1 => images.keys().next().cloned().unwrap_or_default(),
        count => format!("{count} images"),
    };
    let done: u64 = images.values().map(|amount| amount.done).sum();
    let total: u64 = images.values().map(|amount| amount.total).sum();
    let speed = done as f64 / elapsed.as_secs_f64().max(0.001);
    format!(
        "pulling {subject}: {} of {}, {}/s",
        images::size(done),
        images::size(total),
        images::size(speed as u64),
    )
}

/// The line without what would make the terminal wrap it.
fn fitted(line: &str, width: usize) -> String {
    line.chars().take(width.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_and_how_fast() {
        let amount = |done, total| Amount { done, total };
        let mut images = BTreeMap::from([("a".to_owned(), amount(1_000_000, 4_000_000))]);
        assert_eq!(
            line(&images, Duration::from_secs(2)),
            "pulling a: 1.00MB of 4.00MB, 500kB/s"
        );
        images.insert("b".to_owned(), amount(1_000_000, 4_000_000));
        assert_eq!(
            line(&images, Duration::from_secs(2)),
            "pulling 2 images: 2.00MB of 8.00MB, 1.00MB/s"
        );
    }
}
