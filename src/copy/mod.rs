//! Copies files into and out of containers (`cp`): a process at each end, and an archive (tar) between them.
//!
//! ```text
//! kplay cp SRC DST ── starts both, waits, tells ──────────────────────┐
//!   kplay internal copy  (pack)   ── pipe, or `-` ──▶  kplay internal copy  (unpack)
//!   reads SRC                                          writes DST
//! ```
//!
//! A container's end needs nothing of its image. It works in the container's root folder, which the executor hands out,
//! with every path resolved by the kernel as if that were `/`, so no link leads out. And it is who the container's process
//! is, with the same capabilities in the same user namespace: a container can trick it into nothing that the container
//! could not do itself, as with the `tar` of `kubectl cp`. It is started anew, because entering a user namespace takes a
//! process with one thread.
//!
//! Whoever is at an end owns what is written there: the container's user, or who called. So setuid and setgid, which speak
//! of another owner, are not kept; nor are devices, sockets and FIFOs. Every file is written under another name and takes
//! its own when it is whole.
#![forbid(unsafe_code)]

mod name;
mod pack;
mod unpack;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::sys::beneath::Root;
use crate::sys::fd::MemoryUse;
use crate::sys::ids::{self, Person};
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, FIRST_FD, ParentDeath, Session, Spawn};
use crate::sys::signal::{self, Signal};
use crate::sys::{beneath, fd};

pub use name::Top;

/// What one end is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub deed: Deed,
    /// Beneath the root, or beneath `directory` if it is not absolute.
    pub path: PathBuf,
    pub directory: PathBuf,
    /// What stands before a path where one is told: `web:`.
    pub label: String,
    /// Whom to be; who called, if nobody.
    pub person: Option<Person>,
}

/// The two ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// Write what is at the path into the stream.
    Pack(Top),
    /// Write what the stream brings to the path.
    Unpack(Top),
}

/// What one end works with.
#[derive(Debug)]
pub struct Place<'a> {
    pub root: BorrowedFd<'a>,
    /// The user namespace to enter.
    pub users: Option<BorrowedFd<'a>>,
    /// What is read from, or written into.
    pub stream: BorrowedFd<'a>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What was not copied, as it cannot be.
    pub notes: Told,
    /// What should have been copied, and was not.
    pub failures: Told,
    /// Why it ended early.
    pub fault: Option<Fault>,
    /// Files, folders and links.
    pub written: u64,
}

/// The first of many texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub texts: Vec<String>,
    pub more: u64,
}

impl Told {
    /// How many are told, so that a tree full of them fits into a report.
    const MOST: usize = 20;

    fn add(&mut self, text: String) {
        if self.texts.len() < Self::MOST {
            self.texts.push(text);
        } else {
            self.more += 1;
        }
    }
}

/// Why an end stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Fault {
    #[error("`{0}` is not there")]
    NotFound(String),
    /// The other end has gone, and tells why.
    #[error("the stream ended early")]
    Ended,
    #[error("{0}")]
    Refused(String),
}

impl Fault {
    fn at(what: &str, path: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound(path.to_owned()),
            _ => Self::Refused(format!("cannot {what} `{path}`: {error}")),
        }
    }

    fn of_stream(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => Self::Ended,
            _ => Self::Refused(format!("cannot copy: {error}")),
        }
    }
}

/// An end that works. Readable when it has ended.
#[derive(Debug)]
pub struct Worker {
    process: PidFd,
    report: OwnedFd,
}

impl Worker {
    /// Starts an end.
    ///
    /// # Errors
    /// There can be no more processes.
    pub fn start(job: &Job, place: &Place<'_>) -> io::Result<Self> {
        let text = serde_json::to_vec(job)?;
        let job_file = fd::sealed_memory(c"copy", &text, MemoryUse::Data)?;
        let (report, theirs) = fd::pipe()?;
        let mut fds = vec![job_file.as_fd(), theirs.as_fd(), place.stream, place.root];
        fds.extend(place.users);
        let process = process::spawn(&Spawn {
            program: Path::new("/proc/self/exe"),
            args: &["kplay", "internal", "copy"].map(AsRef::as_ref),
            env: &[],
            fds: &fds,
            stderr: None,
            // What interrupts the caller is the caller's to tell.
            session: Session::Own,
            parent_death: ParentDeath::Survive,
            cgroup: None,
        })?;
        Ok(Self { process, report })
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&self) -> io::Result<()> {
        self.process.signal(Signal::KILL)
    }

    /// Waits for its end; nothing if it did not live to tell.
    ///
    /// # Errors
    /// The report cannot be read.
    pub fn wait(self) -> io::Result<Option<Report>> {
        let mut text = Vec::new();
        File::from(self.report).read_to_end(&mut text)?;
        self.process.wait()?;
        Ok(serde_json::from_slice(&text).ok())
    }
}

impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }
}

/// `kplay internal copy`: one end, as [`Worker::start`] starts it.
#[must_use]
pub fn main() -> ExitCode {
    let Ok(report) = fd::inherited(FIRST_FD + 1) else {
        // Started by hand; there is nobody to tell.
        return ExitCode::FAILURE;
    };
    let done = work().unwrap_or_else(|error| Report {
        fault: Some(Fault::Refused(format!("cannot copy: {error}"))),
        ..Report::default()
    });
    let told = serde_json::to_vec(&done).map(|text| File::from(report).write_all(&text));
    match told {
        Ok(Ok(())) => ExitCode::SUCCESS,
        // Nobody listens any more.
        Ok(Err(_)) | Err(_) => ExitCode::FAILURE,
    }
}

fn work() -> io::Result<Report> {
    let mut text = Vec::new();
    File::from(fd::inherited(FIRST_FD)?).read_to_end(&mut text)?;
    let job: Job = serde_json::from_slice(&text)?;
    let stream = File::from(fd::inherited(FIRST_FD + 2)?);
    let root = Root::from(fd::inherited(FIRST_FD + 3)?);
    if let Some(person) = &job.person {
        if let Ok(users) = fd::inherited(FIRST_FD + 4) {
            ids::enter(users)?;
        }
        ids::become_person(person)?;
    }
    beneath::clear_thread_umask()?;
    match &job.deed {
        Deed::Pack(top) => {
            // Its end is the other's, who cleans up; it has nothing to clean up itself.
            signal::on_parent_death(Signal::KILL)?;
            Ok(pack::run(&root, &job, top, stream))
        }
        Deed::Unpack(top) => Ok(unpack::run(&root, &job, top, stream)),
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test that cannot reach its files should panic right there"
)]
mod tests;
