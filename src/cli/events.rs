//! `events`, and `--events-file`.

use std::collections::HashMap;
use std::os::fd::AsFd as _;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::error::{Done, Error};
use super::inventory::{Inventory, Pod, Scope};
use super::session::Session;
use super::target;
use crate::model::event::EventType;
use crate::output::events::{self, Columns, Shown};
use crate::output::object::{self, Notation};
use crate::output::table::Headers;
use crate::state::layout::Layout;
use crate::state::pod_dir::{self, Found, PodDir};
use crate::sys::fs;
use crate::sys::poll::{self, Interrupt};
use crate::sys::watch::Watch;

/// Flags of `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Show the events of this pod only: its name, TYPE/NAME, or a workload's name
    #[arg(long = "for", value_name = "POD")]
    of: Option<String>,
    /// Go on, and show what happens
    #[arg(short, long)]
    watch: bool,
    /// Print in this form
    #[arg(short, long, value_name = "FORM", value_enum)]
    output: Option<Form>,
    /// Show only events of these types
    #[arg(
        long,
        value_name = "TYPE",
        value_enum,
        ignore_case = true,
        value_delimiter = ','
    )]
    types: Vec<TypeArg>,
    /// Show the events of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print no column names
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TypeArg {
    #[value(name = "Normal")]
    Normal,
    #[value(name = "Warning")]
    Warning,
}

/// Shows events, those that happened last at the end.
///
/// # Errors
/// The pod is not there, or its events cannot be read.
pub(crate) fn run(arguments: &EventsArgs, session: &Session) -> Result<Done, Error> {
    if arguments.watch {
        return arguments.watch(session);
    }
    let scope = arguments.scope(session);
    let inventory = Inventory::read(session, &scope)?;
    let found = arguments.read(&inventory, session)?;
    let text = match arguments.output {
        None if found.is_empty() => {
            session.ui.talk("No events found");
            return Ok(Done::Well);
        }
        None => events::table(&found, arguments.columns(), Timestamp::now()),
        Some(form) => object::text(
            &object::list(found.iter().map(events::object).collect()),
            form.notation(),
        )?,
    };
    session.ui.data(text.as_bytes())?;
    Ok(Done::Well)
}

/// The events of these pods, those that happened last at the end.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn of_pods<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    layout: &Layout,
) -> Result<Vec<Shown<'a>>, Error> {
    let mut all = Vec::new();
    for pod in pods {
        let events = PodDir::new(layout, &pod.key).events()?;
        all.extend(events.into_iter().map(|series| Shown {
            pod: &pod.json,
            series,
        }));
    }
    all.sort_by_key(|shown| shown.series.event.time);
    Ok(all)
}

impl Form {
    fn notation(self) -> Notation {
        match self {
            Self::Json => Notation::Json,
            Self::Yaml => Notation::Yaml,
        }
    }
}

impl EventsArgs {
    fn scope(&self, session: &Session) -> Scope {
        if self.all_namespaces {
            Scope::All
        } else {
            Scope::Namespace(session.namespace.clone())
        }
    }

    fn columns(&self) -> Columns {
        Columns {
            headers: if self.no_headers {
                Headers::Hidden
            } else {
                Headers::Shown
            },
            namespaces: self.all_namespaces,
        }
    }

    fn read<'a>(
        &self,
        inventory: &'a Inventory,
        session: &Session,
    ) -> Result<Vec<Shown<'a>>, Error> {
        let pods: Vec<&Pod> = match &self.of {
            Some(name) => target::pods(inventory, name)?,
            None => inventory.pods.iter().collect(),
        };
        let mut found = of_pods(pods, &session.layout)?;
        if !self.types.is_empty() {
            found.retain(|shown| {
                self.types.contains(&match shown.series.event.r#type {
                    EventType::Normal => TypeArg::Normal,
                    EventType::Warning => TypeArg::Warning,
                })
            });
        }
        Ok(found)
    }

    /// Shows what there is and what comes, until a signal.
    fn watch(&self, session: &Session) -> Result<Done, Error> {
        let failed = |source| Error::Machine {
            what: "watch the events",
            source,
        };
        let interrupt = Interrupt::install().map_err(failed)?;
        let watch = Watch::new().map_err(failed)?;
        let scope = self.scope(session);
        let mut columns = self.columns();
        // By pod and number: how often it had happened when it was shown.
        let mut shown: HashMap<(String, u64), u32> = HashMap::new();
        let mut is_first = true;
        loop {
            watch.drain().map_err(failed)?;
            self.watch_folders(&watch, session)?;
            let inventory = Inventory::read(session, &scope)?;
            let found = match self.read(&inventory, session) {
                // The pod that is watched may go, and come again.
                Err(Error::NotFound { .. }) if !is_first => Vec::new(),
                found => found?,
            };
            is_first = false;
            let mut new = found;
            new.retain(|event| {
                let uid = object::metadata(event.pod, "uid").to_owned();
                let count = event.series.count;
                shown.insert((uid, event.series.number), count) != Some(count)
            });
            if !new.is_empty() {
                self.print(&new, columns, session)?;
                columns.headers = Headers::Hidden;
            }
            poll::readable(&[watch.as_fd(), interrupt.as_fd()], None).map_err(failed)?;
            if let Some(signal) = interrupt.take().map_err(failed)? {
                return Err(Error::Signal(signal));
            }
        }
    }

    fn print(&self, new: &[Shown<'_>], columns: Columns, session: &Session) -> Result<(), Error> {
        let text = match self.output {
            None => events::table(new, columns, Timestamp::now()),
            Some(form) => {
                let mut text = String::new();
                for event in new {
                    if form == Form::Yaml {
                        text.push_str("---\n");
                    }
                    text.push_str(&object::text(&events::object(event), form.notation())?);
                }
                text
            }
        };
        Ok(session.ui.data(text.as_bytes())?)
    }

    /// Watches what is there by now; a folder that comes later is announced by the one above it.
    fn watch_folders(&self, watch: &Watch, session: &Session) -> Result<(), Error> {
        let parent = session.layout.pods_data();
        fs::create_dir_all(&parent, 0o700).map_err(Error::File)?;
        watch.add(&parent).map_err(Error::File)?;
        for found in pod_dir::list(&session.layout)? {
            let Found::Pod(dir) = found else {
                continue;
            };
            match watch.add(dir.paths().data()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(Error::File)?,
            }
        }
        Ok(())
    }
}
