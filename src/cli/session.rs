//! What every command is given: where state is, and how to talk.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use super::app::{ColorArg, GlobalArgs, LogFormat};
use super::error::Error;
use super::events_file::EventsFile;
use crate::image::Store;
use crate::manager::rootless::{self, Member};
use crate::manager::{self, Event, sweep};
use crate::model::cause::chain;
use crate::model::names::Namespace;
use crate::output::report::{self, Deed, Reality};
use crate::output::{ColourChoice, Settings, Ui, Verbosity};
use crate::state::layout::Layout;
use crate::sys::{identity, terminal};

/// One run of the command line.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) ui: Ui,
    pub(crate) layout: Layout,
    pub(crate) network: Network,
    /// `-n`.
    pub(crate) namespace: Namespace,
    events: Option<EventsFile>,
    member: Option<Member>,
}

/// Whether registries may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Allowed,
    /// `--offline`.
    Forbidden,
}

impl Session {
    /// Decides what holds for the whole run.
    ///
    /// # Errors
    /// A folder's path cannot be made absolute.
    pub(crate) fn new(global: &GlobalArgs, verbose: u8) -> Result<Self, Error> {
        if verbose > 1 {
            trace(global.log_format);
        }
        Ok(Self {
            ui: Ui::new(Settings {
                colour: match global.color {
                    ColorArg::Auto => ColourChoice::Auto,
                    ColorArg::Always => ColourChoice::Always,
                    ColorArg::Never => ColourChoice::Never,
                },
                verbosity: match (global.quiet, verbose) {
                    (true, _) => Verbosity::Quiet,
                    (false, 0) => Verbosity::Normal,
                    (false, _) => Verbosity::Verbose,
                },
                columns: terminal::size(std::io::stderr()).map(|size| size.columns),
            }),
            layout: layout(global.root.as_deref(), global.runroot.as_deref())?,
            member: None,
            network: if global.offline {
                Network::Forbidden
            } else {
                Network::Allowed
            },
            namespace: global.namespace.clone(),
            events: global
                .events_file
                .as_deref()
                .map(EventsFile::open)
                .transpose()?,
        })
    }

    /// Becomes root of the user's namespace, where this is not root's. To be called before anything that may make a
    /// thread.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn enter(&mut self) -> Result<(), Error> {
        let member = rootless::enter(&self.layout).map_err(manager::Error::from)?;
        if let Some(why) = member.as_ref().and_then(|member| member.alone.as_ref()) {
            self.ui.note(&format!(
                "{why}: pods have one user, root, who is you; images and volumes with files of others, and programs that change \
                 their user, do not work"
            ));
        }
        self.member = member;
        Ok(())
    }

    /// Puts an event into the file that was asked for, if one was.
    pub(crate) fn note(&self, event: &Event) {
        if let Some(file) = &self.events {
            file.add(event);
        }
    }

    /// Cleans up after commands and executors that were killed. A failure stands in nobody's way here: the command
    /// that touches the pod meets it again, and tells.
    pub(crate) fn sweep(&self) {
        let report = &mut |event| {
            self.note(&event);
            if let Event::Deleted(key) = event {
                let text = report::deed(&key, Deed::Deleted, Reality::Done);
                self.ui
                    .detail(&format!("{text}, as an earlier command wanted"));
            }
        };
        let failed = |error: &dyn std::error::Error| {
            tracing::warn!(error = chain(error), "cannot clean up after a crash");
        };
        match sweep::sweep(&self.layout, report) {
            Ok(errors) => errors.iter().for_each(|error| failed(error)),
            Err(error) => failed(&error),
        }
    }

    /// Asks whether to do what the question tells, as podman does.
    ///
    /// # Errors
    /// There is nobody to ask, or the answer cannot be read.
    pub(crate) fn agrees(&self, question: &str, what: &str) -> Result<bool, Error> {
        if !io::stdin().is_terminal() {
            return Err(Error::usage(format!(
                "there is nobody to ask whether to remove {what}: `--force` does without"
            )));
        }
        self.ui.ask(&format!(
            "{question}\nAre you sure you want to continue? [y/N] "
        ));
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        read.map_err(|source| Error::Machine {
            what: "read the answer",
            source,
        })?;
        Ok(answer.trim().to_lowercase().starts_with('y'))
    }

    /// The image store.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub(crate) fn store(&self) -> Result<Store, Error> {
        Ok(Store::open(&self.layout.images())?)
    }
}

/// The folders that are named, or the usual ones of who runs this.
fn layout(root: Option<&Path>, runroot: Option<&Path>) -> Result<Layout, Error> {
    if let (Some(root), Some(runroot)) = (root, runroot) {
        return Ok(Layout::new(absolute(root)?, absolute(runroot)?));
    }
    let usual = if identity::is_root() {
        Layout::of_root()
    } else {
        let variable = |name: &str| std::env::var_os(name);
        Layout::of_user(identity::uid(), variable, Path::exists).ok_or_else(|| {
            Error::usage("neither HOME nor XDG_DATA_HOME is set: say with `--root` and `--runroot` where state is to be kept")
        })?
    };
    let chosen = |named: Option<&Path>, usual: &Path| named.map_or(Ok(usual.into()), absolute);
    Ok(Layout::new(
        chosen(root, usual.root())?,
        chosen(runroot, usual.runroot())?,
    ))
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::Machine {
        what: "find the state's folder",
        source,
    })
}

/// Shows what developers ask for. Set up only when it is asked for: it would be a part of every command's time.
fn trace(format: LogFormat) {
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // That a message cannot be written cannot be written either, and would be a panic.
        .log_internal_errors(false)
        .with_max_level(tracing::Level::DEBUG);
    match format {
        LogFormat::Text => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
