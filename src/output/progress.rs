//! Progress of pulls: on a terminal a line for all and one for each layer on its way, redrawn, and only when it takes
//! longer than 250 ms; elsewhere one line per finished image.
//!
//! ```text
//! pulling docker.io/library/postgres:17: 48.1MB of 152MB, 22.5MB/s
//!   fd674058ff8f  [===========>                ]   12.1MB of 28.2MB   8.10MB/s
//!   a5f0e3b6b91d  [============================]   35.9MB of 35.9MB   unpacking
//!   77d4d92cb0c1  another command pulls it
//!   and 6 more
//! ```
//!
//! What is on the screen is taken away by the rows that it takes at the width that the terminal has then: a line that
//! was drawn before the window became narrower takes several.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::style::tame;
use super::{Ui, images, say};

/// Before this nobody wonders what happens.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often the lines are redrawn.
const REDRAW: Duration = Duration::from_millis(100);
/// Most lines of layers.
const MOST_LAYERS: usize = 8;
/// The terminal's, if it does not say.
const USUAL: Size = (24, 80);

/// Rows and columns of the terminal.
pub(crate) type Size = (usize, usize);

/// What a pull has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many layers of so many bytes are to come.
    Resolved { layers: usize, bytes: u64 },
    /// Another command is at this layer.
    Waiting { layer: String },
    /// This layer is asked for.
    Started { layer: String, bytes: u64 },
    /// So many bytes more came.
    Received { layer: String, bytes: u64 },
    /// The layer is there.
    Done { layer: String },
    /// Something went wrong that is tried again.
    Trouble(String),
}

/// One image on its way.
#[derive(Debug, Default)]
struct Image {
    /// Layers that have not begun.
    left: usize,
    bytes: u64,
    received: u64,
    /// In the order in which they began.
    layers: Vec<Layer>,
    /// Until something comes again.
    trouble: Option<String>,
}

/// A layer that is on its way, or is waited for.
#[derive(Debug)]
struct Layer {
    digest: String,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting,
    Coming {
        since: Instant,
        bytes: u64,
        received: u64,
    },
}

/// The progress of all images of a command.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    ui: &'a Ui,
    /// What is done to the images: `pulling`.
    doing: &'static str,
    /// Asked at every redraw: windows change.
    size: fn() -> Option<Size>,
    started: Instant,
    drawn: Option<Instant>,
    /// How long each line on the screen is.
    lengths: Vec<usize>,
    images: BTreeMap<String, Image>,
}

impl<'a> Progress<'a> {
    /// Progress that has nothing to show yet.
    pub(crate) fn new(ui: &'a Ui, doing: &'static str, size: fn() -> Option<Size>) -> Self {
        Self {
            ui,
            doing,
            size,
            started: Instant::now(),
            drawn: None,
            lengths: Vec::new(),
            images: BTreeMap::new(),
        }
    }

    /// Takes note of what a pull did, and redraws the lines when it is time.
    pub(crate) fn update(&mut self, image: &str, step: Step) {
        let now = Instant::now();
        if let Step::Trouble(text) = &step {
            self.clear();
            self.ui.detail(&format!("{} {image}: {text}", self.doing));
        }
        let of = self.images.entry(image.to_owned()).or_default();
        of.take(step, now);
        let due = match self.drawn {
            None => now - self.started > PATIENCE,
            Some(last) => now - last > REDRAW,
        };
        if self.ui.draws_progress() && due {
            let size = (self.size)().unwrap_or(USUAL);
            let lines = lines(self.doing, &self.images, now, now - self.started, size);
            let mut text = erasure(&self.lengths, size.1);
            text.push_str(&lines.join("\r\n"));
            say(&text);
            self.lengths = lines.iter().map(|line| line.chars().count()).collect();
            self.drawn = Some(now);
        }
    }

    /// Takes note that an image is complete, and says so.
    pub(crate) fn finish(&mut self, image: &str) {
        self.images.remove(image);
        self.clear();
        self.ui.talk(&format!("pulled {image}"));
    }

    /// Takes note that an image does not come; the error is told at the end.
    pub(crate) fn give_up(&mut self, image: &str) {
        self.images.remove(image);
        self.clear();
    }

    /// Takes the lines away, so that something else can be printed.
    pub(crate) fn clear(&mut self) {
        if self.lengths.is_empty() {
            return;
        }
        let (_, columns) = (self.size)().unwrap_or(USUAL);
        say(&erasure(&std::mem::take(&mut self.lengths), columns));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Image {
    fn take(&mut self, step: Step, now: Instant) {
        match step {
            Step::Resolved { layers, bytes } => {
                *self = Self {
                    left: layers,
                    bytes,
                    ..Self::default()
                };
            }
            Step::Waiting { layer } => self.set(layer, State::Waiting),
            Step::Started { layer, bytes } => {
                let (since, received) = (now, 0);
                self.set(
                    layer,
                    State::Coming {
                        since,
                        bytes,
                        received,
                    },
                );
            }
            Step::Received { layer, bytes } => {
                self.trouble = None;
                self.received += bytes;
                if let Some(State::Coming { received, .. }) = self.state(&layer) {
                    *received += bytes;
                }
            }
            Step::Done { layer } => self.layers.retain(|other| other.digest != layer),
            Step::Trouble(text) => self.trouble = Some(text),
        }
    }

    fn state(&mut self, digest: &str) -> Option<&mut State> {
        let mut layers = self.layers.iter_mut();
        let layer = layers.find(|layer| layer.digest == digest)?;
        Some(&mut layer.state)
    }

    fn set(&mut self, digest: String, state: State) {
        if let Some(known) = self.state(&digest) {
            // Asked for once more: what came of it was not it.
            if let State::Coming { received, .. } = std::mem::replace(known, state) {
                self.received = self.received.saturating_sub(received);
            }
            return;
        }
        self.left = self.left.saturating_sub(1);
        self.layers.push(Layer { digest, state });
    }
}

/// What takes lines of these lengths away, of which the cursor is in the last.
fn erasure(lengths: &[usize], columns: usize) -> String {
    let rows: usize = lengths
        .iter()
        .map(|length| length.div_ceil(columns.max(1)).max(1))
        .sum();
    match rows {
        0 => String::new(),
        1 => "\r\x1b[J".to_owned(),
        _ => format!("\r\x1b[{}A\x1b[J", rows - 1),
    }
}

/// All lines, as many and as long as the terminal shows.
fn lines(
    doing: &str,
    images: &BTreeMap<String, Image>,
    now: Instant,
    elapsed: Duration,
    (rows, columns): Size,
) -> Vec<String> {
    let mut lines = vec![headline(doing, images, elapsed)];
    let troubles = images.values().filter_map(|image| image.trouble.as_ref());
    lines.extend(troubles.map(|text| format!("  {}", tame(text))));
    let mut layers: Vec<&Layer> = images.values().flat_map(|image| &image.layers).collect();
    layers.sort_by_key(|layer| matches!(layer.state, State::Waiting));
    let most = MOST_LAYERS.min(rows.saturating_sub(lines.len() + 2));
    // A single layer is what the first line is about.
    let shown = match layers.len() {
        1 if images.values().all(|image| image.left == 0) => 0,
        _ => most,
    };
    let more = layers.len().saturating_sub(shown) + images.values().map(|i| i.left).sum::<usize>();
    let bars = layers.iter().take(shown);
    lines.extend(bars.map(|layer| layer_line(layer, now, columns)));
    if shown > 0 && more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines.truncate(rows.saturating_sub(1).max(1));
    lines.iter().map(|line| fitted(line, columns)).collect()
}

/// `pulling 2 images: 12.3MB of 40.0MB, 5.00MB/s`.
fn headline(doing: &str, images: &BTreeMap<String, Image>, elapsed: Duration) -> String {
    let subject = match images.len() {
        1 => images.keys().next().cloned().unwrap_or_default(),
        count => format!("{count} images"),
    };
    let received: u64 = images.values().map(|image| image.received).sum();
    let bytes: u64 = images.values().map(|image| image.bytes).sum();
    format!(
        "{doing} {subject}: {} of {}, {}",
        images::size(received),
        images::size(bytes),
        speed(received, elapsed),
    )
}

fn layer_line(layer: &Layer, now: Instant, columns: usize) -> String {
    let digest = layer.digest.trim_start_matches("sha256:");
    let name: String = digest.chars().take(12).collect();
    let State::Coming {
        since,
        bytes,
        received,
    } = layer.state
    else {
        return format!("  {name}  another command pulls it");
    };
    let pace = match received >= bytes {
        true => "unpacking".to_owned(),
        false => speed(received, now - since),
    };
    let amount = format!("{} of {}", images::size(received), images::size(bytes));
    let rest = format!("{amount:>18}  {pace:>9}");
    // Beside the rest: two spaces, the name, two spaces, the brackets, a space.
    let room = columns.saturating_sub(rest.len() + name.len() + 8).min(40);
    match room {
        ..6 => format!("  {name}  {rest}"),
        _ => format!("  {name}  [{}] {rest}", bar(received, bytes, room)),
    }
}

/// `====>     `.
fn bar(done: u64, all: u64, width: usize) -> String {
    let part = (done as f64 / all.max(1) as f64).clamp(0.0, 1.0);
    let full = (part * width as f64) as usize;
    let mut bar = "=".repeat(full);
    if full < width {
        bar.push('>');
    }
    format!("{bar:<width$}")
}

fn speed(bytes: u64, time: Duration) -> String {
    let speed = bytes as f64 / time.as_secs_f64().max(0.001);
    format!("{}/s", images::size(speed as u64))
}

/// The line without what would make the terminal wrap it.
fn fitted(line: &str, columns: usize) -> String {
    line.chars().take(columns.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What is drawn after these steps, each a second after the one before.
    fn shown(steps: &[(&str, Step)], size: Size) -> String {
        let start = Instant::now();
        let (mut images, mut now): (BTreeMap<String, Image>, _) = (BTreeMap::new(), start);
        for (image, step) in steps {
            let of = images.entry((*image).to_owned()).or_default();
            of.take(step.clone(), now);
            now += SECOND;
        }
        lines("pulling", &images, now, now - start, size).join("\n")
    }

    fn layer(letter: &str) -> String {
        format!("sha256:{}", letter.repeat(64))
    }

    fn resolved(layers: usize) -> Step {
        let bytes = 4_000_000;
        Step::Resolved { layers, bytes }
    }

    fn started(letter: &str) -> Step {
        let (layer, bytes) = (layer(letter), 2_000_000);
        Step::Started { layer, bytes }
    }

    fn received(letter: &str, bytes: u64) -> Step {
        let layer = layer(letter);
        Step::Received { layer, bytes }
    }

    #[test]
    fn lines_say_how_much_and_how_fast() {
        let one = [
            ("a", resolved(1)),
            ("a", started("1")),
            ("a", received("1", 2_000_000)),
        ];
        let check = |steps: &[(&str, Step)], size, expected: &str| {
            assert_eq!(shown(steps, size), expected, "{steps:?} {size:?}");
        };
        check(&one, (24, 80), "pulling a: 2.00MB of 4.00MB, 667kB/s");
        let waiting = Step::Waiting { layer: layer("3") };
        let several = [
            ("a", resolved(3)),
            ("b", resolved(3)),
            ("b", waiting),
            ("a", started("1")),
            ("a", started("2")),
            ("a", received("1", 1_000_000)),
            ("a", received("2", 2_000_000)),
        ];
        let wide = "\
pulling 2 images: 3.00MB of 8.00MB, 429kB/s
  111111111111  [====================>                   ]   1.00MB of 2.00MB    250kB/s
  222222222222  [========================================]   2.00MB of 2.00MB  unpacking
  333333333333  another command pulls it
  and 3 more";
        check(&several, (24, 120), wide);
        let narrow = shown(&several, (24, 40));
        assert!(narrow.lines().all(|line| line.len() < 40), "{narrow}");
        assert_eq!(narrow.lines().count(), 5, "{narrow}");
        let low = shown(&several, (4, 80));
        assert_eq!(low.lines().count(), 3, "{low}");
        let done = Step::Done { layer: layer("1") };
        let trouble = Step::Trouble("the registry burns; again in 3 s".into());
        let later = [&several[..], &[("a", done), ("b", trouble)]].concat();
        check(
            &later,
            (24, 60),
            "\
pulling 2 images: 3.00MB of 8.00MB, 333kB/s
  the registry burns; again in 3 s
  222222222222  [===========]   2.00MB of 2.00MB  unpacking
  333333333333  another command pulls it
  and 3 more",
        );
    }

    #[test]
    fn what_was_drawn_goes_whatever_the_width_is_now() {
        let check = |lengths: &[usize], columns, expected: &str| {
            assert_eq!(erasure(lengths, columns), expected, "{lengths:?} {columns}");
        };
        check(&[], 80, "");
        check(&[79], 80, "\r\x1b[J");
        check(&[79, 30, 0], 80, "\r\x1b[2A\x1b[J");
        check(&[79, 30], 40, "\r\x1b[2A\x1b[J");
        check(&[79, 79], 20, "\r\x1b[7A\x1b[J");
    }

    #[test]
    fn a_layer_that_comes_again_is_counted_once() {
        let steps = [
            ("a", resolved(1)),
            ("a", started("1")),
            ("a", received("1", 2_000_000)),
            ("a", started("1")),
            ("a", received("1", 500_000)),
        ];
        let text = shown(&steps, (24, 80));
        assert_eq!(text, "pulling a: 500kB of 4.00MB, 100kB/s");
    }
}
