//! `cp`: files into and out of containers, and from one to another.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::error::{Done, Error};
use super::exec::{duplicate, machine, named, resolve_in};
use super::resource;
use super::session::Session;
use crate::copy::{Deed, Fault, Job, Place, Report, Told, Top, Worker};
use crate::manager::client;
use crate::model::names::Namespace;
use crate::state::pod_dir::PodDir;
use crate::sys::poll::{self, Interrupt};
use crate::sys::pump::{self, Channel};
use crate::sys::{beneath, fd};

/// Flags of `cp`.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Copy this: a path here, POD:PATH, or `-` for an archive (tar) on standard input
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Copy to this: a path here, POD:PATH, or `-` for an archive on standard output
    #[arg(value_name = "DST")]
    destination: PathBuf,
    /// Copy from or to this container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
}

/// What SRC or DST names.
#[derive(Debug, PartialEq, Eq)]
enum Spot<'a> {
    Here(&'a Path),
    Pod { pod: &'a str, path: &'a Path },
    Stream,
}

impl<'a> Spot<'a> {
    /// A path with a colon in it is one when it begins with `/` or `.`, as docker has it.
    fn parse(argument: &'a Path) -> Result<Self, Error> {
        let bytes = argument.as_os_str().as_bytes();
        if bytes == b"-" {
            return Ok(Self::Stream);
        }
        let colon = bytes.iter().position(|byte| *byte == b':');
        let Some(colon) = colon.filter(|_| !matches!(bytes.first(), Some(b'/' | b'.'))) else {
            return Ok(Self::Here(argument));
        };
        let (pod, path) = bytes.split_at(colon);
        let path = path.get(1..).unwrap_or_default();
        match std::str::from_utf8(pod) {
            Ok(pod) if !pod.is_empty() && !path.is_empty() => Ok(Self::Pod {
                pod,
                path: Path::new(OsStr::from_bytes(path)),
            }),
            _ => Err(Error::usage(format!(
                "`{}` is not POD:PATH; a path here that has a colon begins with `./`",
                argument.display()
            ))),
        }
    }
}

/// One side, with what it takes to work there.
struct Side {
    root: OwnedFd,
    users: Option<OwnedFd>,
    /// Whose deed is still to be said.
    job: Job,
}

/// Copies.
///
/// # Errors
/// Something is not there, or may not be read or written.
pub(crate) fn run(arguments: &CpArgs, session: &Session) -> Result<Done, Error> {
    let source = Spot::parse(&arguments.source)?;
    let destination = Spot::parse(&arguments.destination)?;
    if !matches!(source, Spot::Pod { .. }) && !matches!(destination, Spot::Pod { .. }) {
        return Err(Error::usage("SRC or DST must be POD:PATH"));
    }
    if destination == Spot::Stream && io::stdout().is_terminal() {
        return Err(Error::usage(
            "an archive is nothing for a terminal: redirect standard output",
        ));
    }
    into_itself(&source, &destination)?;
    let interrupt = Interrupt::install().map_err(machine("handle signals"))?;
    let top = match &source {
        Spot::Here(path) | Spot::Pod { path, .. } => Top::of(path),
        Spot::Stream => Top::Foreign,
    };
    let container = arguments.container.as_deref();
    let from = side(&source, container, Deed::Pack(top.clone()), session)?;
    let to = side(&destination, container, Deed::Unpack(top), session)?;
    let mut copy = Copy::start(from, to)?;
    let interrupted = copy.attend(&interrupt)?;
    let [packed, unpacked] = copy.end()?;
    tell(
        interrupted,
        packed,
        unpacked,
        &arguments.destination,
        session,
    )
}

/// What is in it would be copied for ever.
fn into_itself(source: &Spot<'_>, destination: &Spot<'_>) -> Result<(), Error> {
    if let (Spot::Pod { pod: from, path: a }, Spot::Pod { pod: to, path: b }) =
        (source, destination)
        && from == to
        && b.starts_with(a)
    {
        return Err(Error::usage(format!(
            "`{from}:{}` cannot be copied into itself",
            a.display()
        )));
    }
    Ok(())
}

fn side(
    spot: &Spot<'_>,
    container: Option<&str>,
    deed: Deed,
    session: &Session,
) -> Result<Option<Side>, Error> {
    Ok(match spot {
        Spot::Stream => None,
        Spot::Here(path) => Some(Side {
            root: beneath::open_file(Path::new("/"))?.into(),
            users: None,
            job: Job {
                deed,
                path: path.to_path_buf(),
                directory: std::env::current_dir().map_err(machine("find this folder"))?,
                label: String::new(),
                person: None,
            },
        }),
        Spot::Pod { pod, path } => {
            let (namespace, name) = split(pod, session)?;
            let (key, container) = resolve_in(&namespace, name, container, session)?;
            let dir = PodDir::new(&session.layout, &key);
            let files = client::open(&dir, Some(container)).map_err(|e| named(e, &key))?;
            Some(Side {
                root: files.root,
                users: files.users,
                job: Job {
                    deed,
                    path: path.to_path_buf(),
                    directory: files.opened.directory,
                    label: format!("{pod}:"),
                    person: Some(files.opened.person),
                },
            })
        }
    })
}

/// `NAMESPACE/POD`, as kubectl's; what begins with a type that kplay knows is `TYPE/NAME`.
fn split<'a>(pod: &'a str, session: &Session) -> Result<(Namespace, &'a str), Error> {
    match pod.split_once('/') {
        Some((namespace, name)) if resource::find_typed(pod).is_none() => {
            let namespace = Namespace::parse(namespace)
                .map_err(|fault| Error::usage(format!("`{pod}`: the namespace {fault}")))?;
            Ok((namespace, name))
        }
        Some(_) | None => Ok((session.namespace.clone(), pod)),
    }
}

/// A copy under way.
struct Copy {
    packer: Option<Worker>,
    unpacker: Option<Worker>,
    /// Standard input, for an unpacker without a packer.
    input: Vec<Channel>,
}

impl Copy {
    fn start(from: Option<Side>, to: Option<Side>) -> Result<Self, Error> {
        let start = |side: Option<Side>, stream: &OwnedFd| {
            side.map(|side| {
                let place = Place {
                    root: side.root.as_fd(),
                    users: side.users.as_ref().map(|users| users.as_fd()),
                    stream: stream.as_fd(),
                };
                Worker::start(&side.job, &place).map_err(machine("start a process that copies"))
            })
            .transpose()
        };
        let pipe = || fd::pipe().map_err(machine("make a pipe"));
        if to.is_none() {
            return Ok(Self {
                packer: start(from, &duplicate(io::stdout())?)?,
                unpacker: None,
                input: Vec::new(),
            });
        }
        let (reader, writer) = pipe()?;
        let unpacker = start(to, &reader)?;
        drop(reader);
        let packer = start(from, &writer)?;
        let mut input = Vec::new();
        if packer.is_none() {
            pump::make_nonblocking(&writer).map_err(machine("make a pipe"))?;
            input.push(Channel::new(duplicate(io::stdin())?, writer));
        }
        Ok(Self {
            packer,
            unpacker,
            input,
        })
    }

    /// Waits until both ends have ended, or for a signal: then nothing more is read.
    fn attend(&mut self, interrupt: &Interrupt) -> Result<Option<i32>, Error> {
        // Who writes ends last, and at once when there is nothing more to read.
        let Some(last) = self.unpacker.as_ref().or(self.packer.as_ref()) else {
            return Ok(None);
        };
        let fds = [last.as_fd(), interrupt.as_fd()];
        loop {
            let ready = if self.input.iter().all(Channel::is_done) {
                self.input.clear();
                poll::readable(&fds, None)
            } else {
                pump::run_until(&mut self.input, &fds)
            };
            let ready = ready.map_err(machine("copy the streams"))?;
            if ready.contains(&1)
                && let Some(signal) = interrupt.take().map_err(machine("handle signals"))?
            {
                self.input.clear();
                if let Some(packer) = &self.packer {
                    packer.kill().map_err(machine("stop copying"))?;
                }
                return Ok(Some(signal));
            }
            if ready.contains(&0) {
                // What is left of the input is nobody's.
                self.input.clear();
                return Ok(None);
            }
        }
    }

    fn end(self) -> Result<[Option<Report>; 2], Error> {
        let end = |worker: Option<Worker>| {
            worker.map_or(Ok(Some(Report::default())), |worker| {
                worker
                    .wait()
                    .map_err(machine("wait for a process that copies"))
            })
        };
        let unpacked = end(self.unpacker)?;
        Ok([end(self.packer)?, unpacked])
    }
}

/// Tells what came of it, the cause before what follows from it.
fn tell(
    interrupted: Option<i32>,
    packed: Option<Report>,
    unpacked: Option<Report>,
    destination: &Path,
    session: &Session,
) -> Result<Done, Error> {
    let written = unpacked.as_ref().map_or(0, |report| report.written);
    let incomplete = || {
        if written > 0 {
            session.ui.note(&format!(
                "what had been copied by then stays in `{}`; no file is cut off",
                destination.display()
            ));
        }
    };
    if let Some(signal) = interrupted {
        incomplete();
        return Err(Error::Signal(signal));
    }
    let (Some(packed), Some(unpacked)) = (packed, unpacked) else {
        incomplete();
        return Err(Error::Refused(
            "a process that copies was killed".to_owned(),
        ));
    };
    for report in [&packed, &unpacked] {
        every(&report.notes, |text| session.ui.note(text));
    }
    // An end that only saw the other one end has nothing to tell.
    let faults = || [&packed.fault, &unpacked.fault].into_iter().flatten();
    let fault = faults().find(|fault| **fault != Fault::Ended);
    let fault = fault.or_else(|| faults().next());
    if fault.is_some() {
        incomplete();
    }
    match fault {
        Some(Fault::NotFound(path)) => {
            return Err(Error::NotFound {
                message: Fault::NotFound(path.clone()).to_string(),
                hint: "a path in a container that does not begin with `/` is looked for where its program starts".to_owned(),
            });
        }
        // Who reads standard output has had enough.
        Some(Fault::Ended) if destination == Path::new("-") => return Ok(Done::Well),
        Some(fault) => return Err(Error::Refused(fault.to_string())),
        None => {}
    }
    let failures = &packed.failures;
    let Some((first, others)) = failures.texts.split_first() else {
        return Ok(Done::Well);
    };
    for text in others {
        session.ui.error_text(text);
    }
    if failures.more > 0 {
        session.ui.error_text(&format!("{} more", failures.more));
    }
    session.ui.note("the rest has been copied");
    Err(Error::Refused(first.clone()))
}

fn every(told: &Told, tell: impl Fn(&str)) {
    told.texts.iter().for_each(|text| tell(text));
    if told.more > 0 {
        tell(&format!("and {} more", told.more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_a_path_here_or_in_a_pod() {
        let check = |argument: &str, expected: Option<Spot<'_>>| {
            let spot = Spot::parse(Path::new(argument));
            assert_eq!(spot.ok(), expected, "{argument}");
        };
        let pod = |pod, path| {
            let path = Path::new(path);
            Some(Spot::Pod { pod, path })
        };
        check("web:/etc/passwd", pod("web", "/etc/passwd"));
        check("web:data", pod("web", "data"));
        check("deploy/web:a:b", pod("deploy/web", "a:b"));
        check("-", Some(Spot::Stream));
        check("./a:b", Some(Spot::Here(Path::new("./a:b"))));
        check("/a:b", Some(Spot::Here(Path::new("/a:b"))));
        check("a", Some(Spot::Here(Path::new("a"))));
        check("web:", None);
        check(":/a", None);
    }
}
