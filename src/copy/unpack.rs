//! An archive as files beneath a folder. Neither a name nor a link in it leads out of that folder, whatever is there
//! already and whoever changes it meanwhile: no link is followed on the way to a file.
//!
//! Folders that are there keep their mode. In the place of a file or link comes what is new; a folder in the way of a file,
//! or the other way round, is an error.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use tar::{Archive, Entry, EntryType};

use super::name::{Top, is_folders, shown};
use super::{Fault, Job, Report};
use crate::sys::beneath::{self, Folder, Kind, Name, Root, Time};

/// Unpacks; what came of it is in the report.
pub(super) fn run(root: &Root, job: &Job, top: &Top, stream: File) -> Report {
    let mut report = Report::default();
    let target = match Target::find(root, job, top) {
        Ok(target) => target,
        Err(fault) => {
            report.fault = Some(fault);
            return report;
        }
    };
    let mut unpacker = Unpacker {
        job,
        top,
        target,
        parent: None,
        temporary: format!(".kplay-cp-{}", std::process::id()).into_bytes(),
        made: Vec::new(),
        report,
    };
    let unpacked = unpacker.all(stream);
    // Also of what is there after an error.
    let finished = unpacker.finish();
    let mut report = unpacker.report;
    report.fault = unpacked.and(finished).err();
    report
}

/// Where everything goes.
struct Target {
    folder: Folder,
    /// What stands in the place of the archive's one name, if that changes.
    name: Option<Vec<u8>>,
    /// DST was said to be a folder, and is not there.
    must_be_folder: bool,
    has_top: bool,
}

impl Target {
    fn find(root: &Root, job: &Job, top: &Top) -> Result<Self, Fault> {
        let path = job.directory.join(&job.path);
        let told = shown(&job.label, job.path.as_os_str().as_bytes());
        let must_be_folder = is_folders(job.path.as_os_str().as_bytes());
        let missing = match root.folder(path.as_os_str().as_bytes()) {
            Ok(folder) => {
                return Ok(Self {
                    folder,
                    name: None,
                    must_be_folder: false,
                    has_top: *top != Top::Foreign,
                });
            }
            Err(error) => error,
        };
        let is_new = matches!(
            missing.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        );
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Fault::at("open", &told, &missing));
        };
        if !is_new || *top == Top::Foreign {
            return Err(match missing.kind() {
                io::ErrorKind::NotADirectory => Fault::Refused(format!("`{told}` is no folder")),
                _ => Fault::at("open", &told, &missing),
            });
        }
        let folder = root.folder(parent.as_os_str().as_bytes());
        let folder = folder.map_err(|error| {
            let told = job.path.parent().unwrap_or(parent).as_os_str();
            let told = if told.is_empty() {
                job.directory.as_os_str()
            } else {
                told
            };
            let told = shown(&job.label, told.as_bytes());
            match error.kind() {
                io::ErrorKind::NotADirectory => Fault::Refused(format!("`{told}` is no folder")),
                _ => Fault::at("open", &told, &error),
            }
        })?;
        Ok(Self {
            folder,
            name: Some(name.as_bytes().to_vec()),
            must_be_folder,
            has_top: true,
        })
    }
}

/// A folder that was made, and gets its mode when all is in it.
struct Made {
    path: Vec<Vec<u8>>,
    mode: u32,
    time: Time,
}

struct Unpacker<'a> {
    job: &'a Job,
    top: &'a Top,
    target: Target,
    /// The last folder that was written into, by its path: files come folder by folder.
    parent: Option<(Vec<Vec<u8>>, Folder)>,
    /// What a file is called until it is whole.
    temporary: Vec<u8>,
    made: Vec<Made>,
    report: Report,
}

impl Unpacker<'_> {
    fn all(&mut self, stream: File) -> Result<(), Fault> {
        let mut archive = Archive::new(BufReader::with_capacity(1 << 17, stream));
        let mut is_first = true;
        for entry in archive.entries().map_err(|e| of_archive(&e))? {
            let mut entry = entry.map_err(|e| of_archive(&e))?;
            if is_first {
                self.begin(entry.header().entry_type())?;
            }
            is_first = false;
            self.entry(&mut entry)?;
        }
        if is_first && self.target.has_top {
            return Err(Fault::Ended);
        }
        // What follows is padding, and somebody waits until it is read.
        let rest = io::copy(&mut archive.into_inner(), &mut io::sink());
        rest.map(drop).map_err(|error| Fault::of_stream(&error))
    }

    /// Whether what comes can be what DST is to be.
    fn begin(&self, kind: EntryType) -> Result<(), Fault> {
        if !self.target.must_be_folder || kind == EntryType::Directory {
            return Ok(());
        }
        let told = shown(&self.job.label, self.job.path.as_os_str().as_bytes());
        Err(Fault::NotFound(told))
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Fault> {
        let path = entry.path_bytes().into_owned();
        let mut parts = self.parts(&path)?;
        let kind = entry.header().entry_type();
        let Some(last) = parts.pop() else {
            // The folder that is there.
            return Ok(());
        };
        let told = self.told(&parts, &last);
        let name = Name::parse(&last).ok_or_else(|| leaves(&told))?;
        let target = match kind {
            EntryType::Link | EntryType::Symlink => {
                let target = entry.link_name_bytes();
                target.map(std::borrow::Cow::into_owned).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let time = Time {
            seconds: entry
                .header()
                .mtime()
                .ok()
                .and_then(|time| time.try_into().ok())
                .unwrap_or_default(),
            nanoseconds: 0,
        };
        let mode = entry.header().mode().map_err(|e| of_archive(&e))?;
        let linked = match kind {
            EntryType::Link => Some(self.parts(&target)?),
            _ => None,
        };
        self.enter(&parts)?;
        let Some((_, folder)) = &self.parent else {
            return Ok(());
        };
        let failed = |error: io::Error| Fault::at("write", &told, &error);
        let there = folder.kind(name).map_err(failed)?;
        let temporary = Name::parse(&self.temporary).ok_or_else(|| leaves(&told))?;
        match kind {
            EntryType::Directory => {
                match there {
                    Some(Kind::Folder) => return Ok(()),
                    Some(Kind::Symlink | Kind::Whiteout | Kind::Other) => {
                        return Err(Fault::Refused(format!(
                            "`{told}` is there, and no folder: remove it first"
                        )));
                    }
                    None => folder.make_folder(name, 0o700).map_err(failed)?,
                }
                parts.push(last);
                self.made.push(Made {
                    path: parts,
                    mode: mode & 0o1777,
                    time,
                });
                self.report.written += 1;
                return Ok(());
            }
            EntryType::Regular
            | EntryType::Continuous
            | EntryType::GNUSparse
            | EntryType::Symlink
            | EntryType::Link => {}
            _ => {
                let text = format!("`{told}` is a device or a FIFO, and not copied");
                self.report.notes.add(text);
                return Ok(());
            }
        }
        if there == Some(Kind::Folder) {
            return Err(Fault::Refused(format!(
                "`{told}` is a folder, and would become a file: remove it first"
            )));
        }
        if there.is_some() && folder.is_mount(name).map_err(failed)? {
            return Err(Fault::Refused(format!(
                "`{told}` is a mount of its own, in whose place nothing can come"
            )));
        }
        let made = match &linked {
            Some(linked) => link(&self.target.folder, linked, folder, temporary).map_err(failed),
            None if kind == EntryType::Symlink => folder
                .make_symlink(temporary, &target)
                .and_then(|()| folder.set_time(temporary, time))
                .map_err(failed),
            None => write(entry, folder, temporary, mode & 0o777, time, &told),
        };
        let placed = made.and_then(|()| folder.replace(temporary, name).map_err(failed));
        // Two names of one file are not renamed to each other.
        if placed.is_err() || linked.is_some() {
            let removed = folder.remove(temporary);
            if let (Ok(()), Err(error)) = (&placed, removed) {
                return Err(failed(error));
            }
        }
        self.report.written += u64::from(placed.is_ok());
        placed
    }

    /// Where an entry goes, beneath the target.
    fn parts(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, Fault> {
        let mut parts = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(leaves(&String::from_utf8_lossy(path))),
                part => parts.push(part.to_vec()),
            }
        }
        if let Some(name) = &self.target.name {
            match (self.top, parts.first_mut()) {
                (Top::Named(_), Some(first)) => first.clone_from(name),
                (Top::Named(_) | Top::Contents | Top::Foreign, _) => parts.insert(0, name.clone()),
            }
        }
        Ok(parts)
    }

    /// Opens the folder that something is to be put into; an archive of somebody else may not have said that there is one.
    fn enter(&mut self, parts: &[Vec<u8>]) -> Result<(), Fault> {
        if self.parent.as_ref().is_some_and(|(path, _)| path == parts) {
            return Ok(());
        }
        self.parent = None;
        let opened = match self.target.folder.folder(&parts.join(&b'/')) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.target.has_top => {
                self.make_all(parts)?;
                self.target.folder.folder(&parts.join(&b'/'))
            }
            opened => opened,
        };
        let folder = opened.map_err(|error| self.no_folder(parts, &error))?;
        self.parent = Some((parts.to_vec(), folder));
        Ok(())
    }

    fn make_all(&self, parts: &[Vec<u8>]) -> Result<(), Fault> {
        for (count, part) in parts.iter().enumerate() {
            let above = parts.get(..count).unwrap_or_default();
            let made = self.target.folder.folder(&above.join(&b'/'));
            let made = made.and_then(|folder| {
                let name = Name::parse(part).ok_or(io::ErrorKind::InvalidInput)?;
                match folder.kind(name)? {
                    Some(_) => Ok(()),
                    None => folder.make_folder(name, 0o755),
                }
            });
            made.map_err(|error| self.no_folder(parts, &error))?;
        }
        Ok(())
    }

    fn no_folder(&self, parts: &[Vec<u8>], error: &io::Error) -> Fault {
        let told = match parts.split_last() {
            Some((last, above)) => self.told(above, last),
            None => shown(&self.job.label, self.job.path.as_os_str().as_bytes()),
        };
        match error.kind() {
            io::ErrorKind::NotADirectory => Fault::Refused(format!(
                "a link or file is in the way to `{told}`, where a folder would have to be: remove it first"
            )),
            _ => Fault::at("open", &told, error),
        }
    }

    /// How something beneath the target is told.
    fn told(&self, parts: &[Vec<u8>], last: &[u8]) -> String {
        let path = self.job.path.as_os_str().as_bytes();
        let base = match &self.target.name {
            // The first part is DST's own name.
            Some(_) if parts.is_empty() => return shown(&self.job.label, path),
            Some(_) => parts.get(1..).unwrap_or_default(),
            None => parts,
        };
        let mut told = path.strip_suffix(b"/").unwrap_or(path).to_vec();
        for part in base.iter().map(Vec::as_slice).chain([last]) {
            told.push(b'/');
            told.extend_from_slice(part);
        }
        shown(&self.job.label, &told)
    }

    /// Gives the folders that were made what they are to have in the end, the inner ones first.
    fn finish(&mut self) -> Result<(), Fault> {
        let mut result = Ok(());
        for made in self.made.drain(..).rev() {
            let Some((last, above)) = made.path.split_last() else {
                continue;
            };
            let set = self.target.folder.folder(&above.join(&b'/'));
            let set = set.and_then(|folder| {
                let name = Name::parse(last).ok_or(io::ErrorKind::InvalidInput)?;
                // By a descriptor, so that no link that has come there is followed.
                let folder = folder.folder(name.as_bytes())?.reopen()?;
                beneath::set_file_time(&folder, made.time)?;
                beneath::set_file_mode(&folder, made.mode)
            });
            if let Err(error) = set {
                let told = shown(&self.job.label, &made.path.join(&b'/'));
                result = Err(Fault::at("set the mode of", &told, &error));
            }
        }
        result
    }
}

fn leaves(told: &str) -> Fault {
    Fault::Refused(format!("`{told}` in the archive leads out of the folder"))
}

fn of_archive(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Fault::Refused(format!("the archive cannot be read: {error}"))
        }
        _ => Fault::of_stream(error),
    }
}

fn link(root: &Folder, linked: &[Vec<u8>], folder: &Folder, name: Name<'_>) -> io::Result<()> {
    let (last, above) = linked.split_last().ok_or(io::ErrorKind::InvalidInput)?;
    let target = Name::parse(last).ok_or(io::ErrorKind::InvalidInput)?;
    folder.make_link(name, &root.folder(&above.join(&b'/'))?, target)
}

/// Writes a file whole.
fn write(
    entry: &mut Entry<'_, impl Read>,
    folder: &Folder,
    name: Name<'_>,
    mode: u32,
    time: Time,
    told: &str,
) -> Result<(), Fault> {
    let failed = |error: io::Error| Fault::at("write", told, &error);
    let mut file = folder.make_file(name, 0o600).map_err(failed)?;
    let size = entry.size();
    let mut buffer = vec![0; BLOCK];
    let (mut at, mut written) = (0_u64, 0_u64);
    loop {
        let count = match entry.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|error| Fault::of_stream(&error))?,
        };
        let Some(block) = buffer.get(..count).filter(|block| !block.is_empty()) else {
            break;
        };
        // Zeros become holes.
        if count >= HOLE && ZEROS.get(..count) == Some(block) {
            at += count as u64;
            continue;
        }
        if at > written {
            file.seek(SeekFrom::Start(at)).map_err(failed)?;
        }
        file.write_all(block).map_err(failed)?;
        at += count as u64;
        written = at;
    }
    if at < size {
        return Err(Fault::Ended);
    }
    if at > written {
        file.set_len(at).map_err(failed)?;
    }
    beneath::set_file_time(&file, time).map_err(failed)?;
    beneath::set_file_mode(&file, mode).map_err(failed)
}

/// Compared as a whole, which is fast.
static ZEROS: [u8; BLOCK] = [0; BLOCK];
const BLOCK: usize = 1 << 17;

/// The shortest run of zeros that becomes a hole.
const HOLE: usize = 4096;
