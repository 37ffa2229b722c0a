//! The logs of several containers while they are written: `logs -f` and `up`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use super::error::Error;
use crate::model::names::PodKey;
use crate::model::status::{ContainerState, ContainerStatus, Phase};
use crate::state::layout::Layout;
use crate::state::logs::{self, Line, Options, Reader, Timestamps};
use crate::state::pod_dir::PodDir;
use crate::state::view::{self, PodView};
use crate::sys::watch::Watch;

/// A container's log.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) pod: PodKey,
    pub(crate) container: String,
    /// The container's log folder.
    pub(crate) dir: PathBuf,
    /// Printed before each line.
    pub(crate) prefix: String,
}

/// How much of a container's life is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The run that is there, or the first to come.
    OneRun,
    /// All runs from then on, until the pod has ended.
    AllRuns,
}

/// Logs that are shown as they grow.
#[derive(Debug)]
pub(crate) struct Follow {
    layout: Layout,
    watch: Watch,
    sources: Vec<Followed>,
    options: Options,
    timestamps: Timestamps,
    extent: Extent,
}

#[derive(Debug)]
struct Followed {
    source: Source,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    NotStarted,
    Reading { run: u32, reader: Box<Reader> },
    Done,
}

impl Follow {
    /// Begins to watch; nothing is missed from now on.
    ///
    /// # Errors
    /// The machine has no watches left.
    pub(crate) fn new(
        layout: &Layout,
        sources: Vec<Source>,
        options: Options,
        timestamps: Timestamps,
        extent: Extent,
    ) -> Result<Self, Error> {
        let followed = |source| Followed {
            source,
            progress: Progress::NotStarted,
        };
        Ok(Self {
            layout: layout.clone(),
            watch: Watch::new().map_err(|source| Error::Machine {
                what: "watch the logs",
                source,
            })?,
            sources: sources.into_iter().map(followed).collect(),
            options,
            timestamps,
            extent,
        })
    }

    /// What becomes readable when there may be more.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Shows what there is by now. Returns whether there will be no more.
    ///
    /// # Errors
    /// A log cannot be read, or nobody reads the output.
    pub(crate) fn step(&mut self, out: &mut dyn Write) -> Result<bool, Error> {
        self.watch.drain().map_err(|source| Error::Machine {
            what: "watch the logs",
            source,
        })?;
        self.watch_folders()?;
        // Looked at before the logs are read: what is written before an end is read below.
        let mut views = BTreeMap::new();
        for followed in &self.sources {
            let key = &followed.source.pod;
            if !views.contains_key(key) {
                let dir = PodDir::new(&self.layout, key);
                views.insert(key.clone(), view::view(&dir)?);
            }
        }
        let mut all_done = true;
        for followed in &mut self.sources {
            let view = views.get(&followed.source.pod).and_then(Option::as_ref);
            let mut show = show(&followed.source.prefix, self.timestamps, &mut *out);
            followed.progress.advance(
                &followed.source,
                Seen::of(view, &followed.source.container),
                self.options,
                self.extent,
                &mut show,
            )?;
            all_done &= matches!(followed.progress, Progress::Done);
        }
        out.flush().map_err(|e| Error::Logs(logs::Error::Output(e)))?;
        Ok(all_done)
    }

    /// Watches what is there by now; a folder that comes later is announced by one that is watched.
    fn watch_folders(&self) -> Result<(), Error> {
        let pods = self.layout.pods_run();
        let others = self.sources.iter().flat_map(|followed| {
            let paths = self.layout.pod(&followed.source.pod);
            [paths.run().to_owned(), followed.source.dir.clone()]
        });
        for folder in std::iter::once(pods).chain(others) {
            match self.watch.add(&folder) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(Error::File)?,
            }
        }
        Ok(())
    }
}

/// What a container does, as far as its log is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It does not run, and may be started.
    Waiting,
    Running,
    /// It does not run; its pod goes on.
    Ended,
    /// Its pod has ended or is gone.
    PodEnded,
}

impl Seen {
    fn of(view: Option<&PodView>, container: &str) -> Self {
        let Some(view) = view else {
            return Self::PodEnded;
        };
        if matches!(view.status.phase, Phase::Succeeded | Phase::Failed) {
            return Self::PodEnded;
        }
        let Some(status) = find_status(view, container) else {
            return Self::Waiting;
        };
        match &status.state {
            ContainerState::Running(_) => Self::Running,
            ContainerState::Terminated(_) => Self::Ended,
            // It backs off: the run that is there is over.
            ContainerState::Waiting(_) if status.last_state.terminated.is_some() => Self::Ended,
            ContainerState::Waiting(_) => Self::Waiting,
        }
    }
}

/// The status of a container of either list.
pub(crate) fn find_status<'a>(view: &'a PodView, container: &str) -> Option<&'a ContainerStatus> {
    view.status
        .init_container_statuses
        .iter()
        .chain(&view.status.container_statuses)
        .find(|status| status.name == container)
}

type Each<'a> = &'a mut dyn FnMut(&Line<'_>) -> io::Result<()>;

/// What writes a line with its prefix.
pub(crate) fn show<'a>(
    prefix: &'a str,
    timestamps: Timestamps,
    out: &'a mut dyn Write,
) -> impl FnMut(&Line<'_>) -> io::Result<()> + 'a {
    move |line| {
        if line.starts {
            out.write_all(prefix.as_bytes())?;
        }
        line.write_to(out, timestamps)
    }
}

impl Progress {
    fn advance(
        &mut self,
        source: &Source,
        seen: Seen,
        mut options: Options,
        extent: Extent,
        each: Each<'_>,
    ) -> Result<(), Error> {
        loop {
            let runs = logs::restarts(&source.dir).map_err(Error::File)?;
            match self {
                Self::Done => return Ok(()),
                Self::NotStarted => match runs.last() {
                    Some(run) => {
                        *self = Self::Reading {
                            run: *run,
                            reader: Box::new(Reader::open(&source.dir, *run, &options)?),
                        };
                    }
                    None => {
                        if seen == Seen::PodEnded {
                            *self = Self::Done;
                        }
                        return Ok(());
                    }
                },
                Self::Reading { run, reader } => {
                    reader.read(each)?;
                    let next = runs.iter().copied().find(|later| later > run);
                    match (extent, next) {
                        (Extent::AllRuns, Some(next)) => {
                            reader.finish(each)?;
                            // What is new is shown whole.
                            options.tail = None;
                            *self = Self::Reading {
                                run: next,
                                reader: Box::new(Reader::open(&source.dir, next, &options)?),
                            };
                        }
                        (Extent::OneRun, Some(_)) => {
                            reader.finish(each)?;
                            *self = Self::Done;
                        }
                        (_, None) => {
                            let over = match extent {
                                Extent::OneRun => matches!(seen, Seen::Ended | Seen::PodEnded),
                                Extent::AllRuns => seen == Seen::PodEnded,
                            };
                            if over {
                                reader.finish(each)?;
                                *self = Self::Done;
                            }
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}
