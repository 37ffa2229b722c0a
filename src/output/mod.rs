//! What a person or a script reads.
//!
//! [`Ui`] decides stream, colour, width and verbosity once; only this module prints. stdout carries data, stderr
//! carries talk. The other files turn values into text and are pure: [`table`] and [`pods`], [`kinds`] for `get`,
//! [`object`] for `-o json|yaml`, [`diagnostic`] for faults in manifests, [`report`] for what a command did.
//! Nothing here reads state.
#![forbid(unsafe_code)]

pub(crate) mod claims;
pub(crate) mod describe;
pub(crate) mod diagnostic;
pub(crate) mod disk;
pub(crate) mod doctor;
pub(crate) mod duration;
pub(crate) mod endpoints;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod images;
pub(crate) mod jsonpath;
pub(crate) mod kinds;
pub(crate) mod manual;
pub(crate) mod object;
mod page;
pub(crate) mod pods;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod service;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod unit;
pub(crate) mod usage;
pub(crate) mod volumes;
pub(crate) mod workload;
mod yaml;

use std::io::{self, IsTerminal as _, Write as _};

use style::{Colour, Style, tame};

/// Why data could not be printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The reader has gone (`kplay get pods | head -1`): no failure.
    #[error("the reader of standard output has gone")]
    Closed,
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
    #[error("cannot print the object as YAML")]
    Yaml(#[source] serde_yaml::Error),
    #[error("cannot print the object as JSON")]
    Json(#[source] serde_json::Error),
}

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColourChoice {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    Auto,
    Always,
    Never,
}

/// How much is told on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// `-q`: errors.
    Quiet,
    Normal,
    /// `-v`: also the causes and steps that usually interest nobody.
    Verbose,
}

/// What the person who started kplay decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) colour: ColourChoice,
    pub(crate) verbosity: Verbosity,
    /// The terminal's width, if there is one.
    pub(crate) columns: Option<u16>,
}

/// The two streams, and how to write on them.
#[derive(Debug)]
pub(crate) struct Ui {
    out: Colour,
    err: Colour,
    err_is_terminal: bool,
    width: usize,
    verbosity: Verbosity,
}

/// The width of lines that are not on a terminal.
const DEFAULT_WIDTH: usize = 120;

impl Ui {
    /// Looks at the streams once.
    pub(crate) fn new(settings: Settings) -> Self {
        let wanted = |terminal: bool| match settings.colour {
            ColourChoice::Always => Colour::On,
            ColourChoice::Auto if terminal && terminal_takes_colour() => Colour::On,
            ColourChoice::Auto | ColourChoice::Never => Colour::Off,
        };
        let err_is_terminal = io::stderr().is_terminal();
        Self {
            out: wanted(io::stdout().is_terminal()),
            err: wanted(err_is_terminal),
            err_is_terminal,
            width: settings
                .columns
                .map_or(DEFAULT_WIDTH, |columns| usize::from(columns).max(40)),
            verbosity: settings.verbosity,
        }
    }

    /// The colour of stdout.
    pub(crate) fn out_colour(&self) -> Colour {
        self.out
    }

    /// Whether only errors are told.
    pub(crate) fn is_quiet(&self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// Whether progress may be drawn on stderr.
    pub(crate) fn draws_progress(&self) -> bool {
        self.err_is_terminal && self.verbosity > Verbosity::Quiet
    }

    /// Writes data to stdout.
    ///
    /// # Errors
    /// It cannot be written, or nobody reads it any more.
    pub(crate) fn data(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|e| match e.kind() {
                io::ErrorKind::BrokenPipe => Error::Closed,
                _ => Error::Write(e),
            })
    }

    /// Stdout for much data; to be flushed at its end.
    pub(crate) fn stream(&self) -> impl io::Write {
        io::BufWriter::with_capacity(64 * 1024, io::stdout().lock())
    }

    /// Writes one line of data to stdout.
    ///
    /// # Errors
    /// As [`Ui::data`].
    pub(crate) fn line(&self, text: &str) -> Result<(), Error> {
        self.data(format!("{text}\n").as_bytes())
    }

    /// Tells an error and its causes.
    pub(crate) fn error(&self, error: &dyn std::error::Error) {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.labelled(Style::Error, "error", &text);
    }

    /// Tells what went wrong, in words that are no error value.
    pub(crate) fn error_text(&self, text: &str) {
        self.labelled(Style::Error, "error", text);
    }

    /// Tells of something that is probably wrong.
    pub(crate) fn warning(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.labelled(Style::Warning, "warning", text);
        }
    }

    /// Tells something good to know.
    pub(crate) fn note(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.labelled(Style::Note, "note", text);
        }
    }

    /// Says what to do about the error before it.
    pub(crate) fn hint(&self, text: &str) {
        self.labelled(Style::Hint, "hint", text);
    }

    /// Tells a step that was done, in plain words.
    pub(crate) fn talk(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            say(&format!("{}\n", tame(text)));
        }
    }

    /// Asks a question; the answer is the caller's to read.
    pub(crate) fn ask(&self, text: &str) {
        say(&tame(text));
    }

    /// Tells a step that interests only those who asked with `-v`.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbosity > Verbosity::Normal {
            say(&format!("{}\n", tame(text)));
        }
    }

    /// Tells what clap says is wrong with the command line.
    pub(crate) fn usage(&self, coloured: &str, plain: &str) {
        say(match self.err {
            Colour::On => coloured,
            Colour::Off => plain,
        });
    }

    /// Writes help, which was asked for, to stdout.
    ///
    /// # Errors
    /// As [`Ui::data`].
    pub(crate) fn help(&self, coloured: &str, plain: &str) -> Result<(), Error> {
        let text = match self.out {
            Colour::On => coloured,
            Colour::Off => plain,
        };
        self.data(text.as_bytes())
    }

    /// Tells of a bug in kplay.
    pub(crate) fn bug(&self, panic: &str) {
        self.labelled(Style::Error, "bug in kplay", panic);
        self.hint(
            "this should not have happened: please report it, with these lines and what you did",
        );
    }

    fn labelled(&self, style: Style, label: &str, text: &str) {
        let label = self.err.paint(style, label);
        say(&format!("{label}: {}\n", tame(text)));
    }
}

/// Writes to stderr. When that fails there is nobody left to tell.
fn say(text: &str) {
    io::stderr().lock().write_all(text.as_bytes()).ok();
}

/// `NO_COLOR` with any content, and terminals that say they cannot.
fn terminal_takes_colour() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}
