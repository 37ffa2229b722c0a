//! One file, or a tree of them, as an archive. What changes while it is read is told; the archive is sound in any case.

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use std::collections::HashMap;
use std::ffi::OsStr;

use tar::{Builder, EntryType, GnuExtSparseHeader, Header};

use super::name::{Top, shown};
use super::{Fault, Job, Report};
use crate::sys::beneath::{self, Folder, Found, Name, Root};

/// How deep folders may be in each other: each level is a descriptor.
const DEEPEST: usize = 500;

/// More ranges than any file has that is worth to be kept sparse.
const MOST_RANGES: usize = 100_000;

/// Packs; what came of it is in the report.
pub(super) fn run(root: &Root, job: &Job, top: &Top, stream: File) -> Report {
    let mut packer = Packer {
        job,
        archive: Builder::new(BufWriter::with_capacity(1 << 17, stream)),
        links: HashMap::new(),
        report: Report::default(),
    };
    let packed = packer.pack(root, top);
    let mut report = packer.report;
    report.fault = packed.err();
    if report.fault.is_none() {
        let ended = packer
            .archive
            .into_inner()
            .and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error));
        report.fault = ended.err().map(|error| Fault::of_stream(&error));
    }
    report
}

struct Packer<'a> {
    job: &'a Job,
    archive: Builder<BufWriter<File>>,
    /// Where files with several names are in the archive, by device and number.
    links: HashMap<(u64, u64), Vec<u8>>,
    report: Report,
}

/// A folder that is being packed.
struct Level {
    folder: Folder,
    device: u64,
    names: std::vec::IntoIter<Vec<u8>>,
    /// In the archive.
    path: Vec<u8>,
    /// In SRC.
    source: Vec<u8>,
}

impl Packer<'_> {
    fn pack(&mut self, root: &Root, top: &Top) -> Result<(), Fault> {
        let path = self.job.directory.join(&self.job.path);
        let path = path.as_os_str().as_bytes();
        let told = shown(&self.job.label, self.job.path.as_os_str().as_bytes());
        let failed = |error: io::Error| Fault::at("read", &told, &error);
        let found = root.look(path).map_err(failed)?;
        let metadata = found.metadata().map_err(failed)?;
        if found.is_of_kernel().map_err(failed)? {
            return Err(Fault::Refused(format!(
                "`{told}` is the kernel's, which cannot be copied"
            )));
        }
        let source = self.job.path.as_os_str().as_bytes().to_vec();
        if metadata.is_dir() {
            return self.tree(found, &metadata, top.prefix(), source, failed);
        }
        if !metadata.is_file() {
            return Err(Fault::Refused(format!(
                "`{told}` is {}, which cannot be copied",
                kind(&metadata)
            )));
        }
        let file = found.open().map_err(failed)?;
        self.file(file, &metadata, top.prefix(), &told)
    }

    fn tree(
        &mut self,
        found: Found,
        metadata: &Metadata,
        path: &[u8],
        source: Vec<u8>,
        failed: impl Fn(io::Error) -> Fault,
    ) -> Result<(), Fault> {
        let folder = found.into_folder().map_err(&failed)?;
        let names = folder.names().map_err(&failed)?;
        self.folder(metadata, path)?;
        let mut levels = vec![Level {
            folder,
            device: metadata.dev(),
            names: names.into_iter(),
            path: path.to_vec(),
            source,
        }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let next = self.entry(level, &name)?;
            if levels.len() == DEEPEST && next.is_some() {
                return Err(Fault::Refused(format!(
                    "more than {DEEPEST} folders are in each other in `{}`",
                    shown(&self.job.label, self.job.path.as_os_str().as_bytes())
                )));
            }
            levels.extend(next);
        }
        Ok(())
    }

    /// Packs one name of a folder; a folder itself is returned, to be gone into.
    fn entry(&mut self, level: &Level, name: &[u8]) -> Result<Option<Level>, Fault> {
        let join = |folder: &[u8]| {
            let slash: &[u8] = if folder.ends_with(b"/") { b"" } else { b"/" };
            [folder, slash, name].concat()
        };
        let (path, source) = (join(&level.path), join(&level.source));
        let told = shown(&self.job.label, &source);
        let looked = Name::parse(name)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
            .and_then(|name| {
                let found = level.folder.look(name)?;
                let metadata = found.metadata()?;
                Ok((name, found, metadata))
            });
        let (name, found, metadata) = match looked {
            Ok(looked) => looked,
            // Removed since its folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return self.fail(&told, &error),
        };
        let kind_of = metadata.file_type();
        if kind_of.is_dir() {
            if metadata.dev() != level.device && found.is_of_kernel().unwrap_or_default() {
                self.note(format!("`{told}` is the kernel's, and not copied"));
                return Ok(None);
            }
            let opened = found.into_folder();
            let opened = opened.and_then(|folder| Ok((folder.names()?, folder)));
            let (names, folder) = match opened {
                Ok(opened) => opened,
                Err(error) => return self.fail(&told, &error),
            };
            self.folder(&metadata, &path)?;
            return Ok(Some(Level {
                folder,
                device: metadata.dev(),
                names: names.into_iter(),
                path,
                source,
            }));
        }
        if kind_of.is_symlink() {
            return match level.folder.link_target(name) {
                Ok(target) => self.link(EntryType::Symlink, &metadata, &path, &target),
                Err(error) => return self.fail(&told, &error),
            }
            .map(|()| None);
        }
        if !kind_of.is_file() {
            self.note(format!("`{told}` is {}, and not copied", kind(&metadata)));
            return Ok(None);
        }
        let id = (metadata.dev(), metadata.ino());
        if let Some(first) = self.links.get(&id).cloned() {
            self.link(EntryType::Link, &metadata, &path, &first)?;
            return Ok(None);
        }
        match found.open() {
            Ok(file) => self.file(file, &metadata, &path, &told)?,
            Err(error) => return self.fail(&told, &error),
        }
        if metadata.nlink() > 1 {
            self.links.insert(id, path);
        }
        Ok(None)
    }

    fn folder(&mut self, metadata: &Metadata, path: &[u8]) -> Result<(), Fault> {
        let mut header = header(EntryType::Directory, metadata);
        let path = [path, b"/"].concat();
        let added = self
            .archive
            .append_data(&mut header, as_path(&path), io::empty());
        self.report.written += 1;
        added.map_err(|error| Fault::of_stream(&error))
    }

    fn link(
        &mut self,
        kind: EntryType,
        metadata: &Metadata,
        path: &[u8],
        target: &[u8],
    ) -> Result<(), Fault> {
        let mut header = header(kind, metadata);
        // What fits is written as it is; the other way would tidy it.
        let added = if header.set_link_name_literal(target).is_ok() {
            self.archive
                .append_data(&mut header, as_path(path), io::empty())
        } else {
            self.archive
                .append_link(&mut header, as_path(path), as_path(target))
        };
        self.report.written += 1;
        added.map_err(|error| Fault::of_stream(&error))
    }

    fn file(
        &mut self,
        mut file: File,
        metadata: &Metadata,
        path: &[u8],
        told: &str,
    ) -> Result<(), Fault> {
        let failed = |error: &io::Error| Fault::at("read", told, error);
        let size = metadata.len();
        let mut header = header(EntryType::Regular, metadata);
        let mut ranges: Vec<Range<u64>> = std::iter::once(0..size).collect();
        let mut map = Vec::new();
        // A file that fills its blocks has no holes.
        if metadata.blocks().saturating_mul(512) < size {
            let found = beneath::content(&file, size).map_err(|error| failed(&error))?;
            if found.len() <= MOST_RANGES {
                ranges = found;
                map = make_sparse(&mut header, &ranges, size);
            }
        }
        header.set_size(ranges.iter().map(|range| range.end - range.start).sum());
        file.seek(SeekFrom::Start(0))
            .map_err(|error| failed(&error))?;
        let mut content = Exact {
            file,
            ranges: ranges.into_iter(),
            left: 0,
            changed: None,
        };
        let added = self.archive.append_data(
            &mut header,
            as_path(path),
            io::Cursor::new(map).chain(&mut content),
        );
        added.map_err(|error| Fault::of_stream(&error))?;
        self.report.written += 1;
        if let Some(why) = content.changed {
            let text = match why {
                None => format!("`{told}` became shorter while it was read"),
                Some(error) => format!("cannot read all of `{told}`: {error}"),
            };
            self.report.failures.add(text);
        }
        Ok(())
    }

    fn note(&mut self, text: String) {
        self.report.notes.add(text);
    }

    fn fail(&mut self, told: &str, error: &io::Error) -> Result<Option<Level>, Fault> {
        let text = format!("cannot read `{told}`: {error}");
        self.report.failures.add(text);
        Ok(None)
    }
}

/// What a file is that cannot be copied.
fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn header(kind: EntryType, metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    // The format has no time before 1970.
    header.set_mtime(metadata.mtime().try_into().unwrap_or_default());
    header.set_size(0);
    header
}

/// Says in the header where the file has content. Returns what of this did not fit, to be put before the content.
fn make_sparse(header: &mut Header, ranges: &[Range<u64>], size: u64) -> Vec<u8> {
    // The last one says where the file ends, as GNU tar has it.
    let all: Vec<(u64, u64)> = ranges
        .iter()
        .map(|range| (range.start, range.end - range.start))
        .chain([(size, 0)])
        .collect();
    let mut rest = Vec::new();
    let Some(gnu) = header.as_gnu_mut() else {
        return rest;
    };
    let in_header = gnu.sparse.len();
    for (slot, (offset, length)) in gnu.sparse.iter_mut().zip(&all) {
        slot.set_offset(*offset);
        slot.set_length(*length);
    }
    gnu.set_real_size(size);
    gnu.set_is_extended(all.len() > in_header);
    let mut left = all.get(in_header..).unwrap_or_default();
    while !left.is_empty() {
        let mut more = GnuExtSparseHeader::new();
        let count = left.len().min(more.sparse.len());
        let (now, later) = left.split_at(count);
        for (slot, (offset, length)) in more.sparse.iter_mut().zip(now) {
            slot.set_offset(*offset);
            slot.set_length(*length);
        }
        more.set_is_extended(!later.is_empty());
        rest.extend_from_slice(more.as_bytes());
        left = later;
    }
    header.set_entry_type(EntryType::GNUSparse);
    rest
}

/// The content of a file's ranges: as long as was said, whatever happens to the file meanwhile.
struct Exact {
    file: File,
    ranges: std::vec::IntoIter<Range<u64>>,
    left: u64,
    /// It is not what it was: shorter, or not to be read.
    changed: Option<Option<io::Error>>,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let Some(range) = self.ranges.next() else {
                return Ok(0);
            };
            self.left = range.end - range.start;
            if range.start > 0 {
                self.file.seek(SeekFrom::Start(range.start))?;
            }
        }
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let buffer = &mut buffer[..most];
        let count = match &self.changed {
            Some(_) => 0,
            None => match self.file.read(buffer) {
                Ok(0) => {
                    self.changed = Some(None);
                    0
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => {
                    self.changed = Some(Some(error));
                    0
                }
                Ok(count) => count,
            },
        };
        let count = if count == 0 {
            buffer.fill(0);
            most
        } else {
            count
        };
        self.left -= count as u64;
        Ok(count)
    }
}
