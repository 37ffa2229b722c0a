//! A run's files as one text, in the order in which they were written.
//!
//! Every file has a number that stays: a rotated one has it in its name, the current one gets the next. The writer may
//! rotate, compress and remove files meanwhile.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::{compressed_file, current_file, rotated_file, rotations};
use crate::sys::fs;

/// A file that is open.
#[derive(Debug)]
pub(super) enum Source {
    Plain(File),
    Compressed(Box<GzDecoder<File>>),
}

impl Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Plain(file) => file.read(buffer),
                Self::Compressed(file) => file.read(buffer),
            };
            match read {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// What it is, as long as it is not compressed.
    pub(super) fn plain(&self) -> Option<&File> {
        match self {
            Self::Plain(file) => Some(file),
            Self::Compressed(_) => None,
        }
    }

    /// All of it: for a compressed file, which has no more than a file before its rotation.
    pub(super) fn whole(mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match &mut self {
            Self::Plain(file) => file.read_to_end(&mut bytes)?,
            Self::Compressed(file) => file.read_to_end(&mut bytes)?,
        };
        Ok(bytes)
    }

    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        if let Self::Plain(file) = self {
            return io::Seek::seek(file, io::SeekFrom::Start(bytes)).map(|_| ());
        }
        let mut buffer = [0; 8192];
        while bytes > 0 {
            let most = buffer
                .len()
                .min(usize::try_from(bytes).unwrap_or(usize::MAX));
            match self.read(&mut buffer[..most])? {
                0 => break,
                len => bytes -= len as u64,
            }
        }
        Ok(())
    }
}

/// The files of a run, of which at most one is open.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    restart: u32,
    open: Option<Source>,
    next: Place,
}

/// A place in a run's files; their order is that of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Of a file; where none is open, of the first that may be next.
    pub(super) number: u64,
    /// Bytes before it in that file.
    pub(super) at: u64,
}

impl Files {
    /// None of them is open.
    pub(super) fn new(dir: &Path, restart: u32) -> Self {
        Self {
            dir: dir.to_owned(),
            restart,
            open: None,
            next: Place { number: 0, at: 0 },
        }
    }

    /// Where the text ends now. The writer may be faster than any reader.
    pub(super) fn end(&self) -> fs::Result<Place> {
        let path = current_file(&self.dir, self.restart);
        if let Some((number, source)) = open_current(&self.dir, self.restart)?
            && let Some(file) = source.plain()
        {
            let metadata = file.metadata();
            let metadata = metadata.map_err(|e| fs::Error::new("look at", path, e))?;
            let at = metadata.len();
            return Ok(Place { number, at });
        }
        // It is being rotated, or there is no text yet.
        let newest = rotations(&self.dir, self.restart)?.pop();
        let number = newest.map_or(0, |newest| newest + 1);
        Ok(Place { number, at: 0 })
    }

    /// Begins at this place; at the next file, if that is gone by now.
    pub(super) fn begin(&mut self, Place { number, at }: Place) -> fs::Result<()> {
        if let Some((found, mut source)) = self.find(number)? {
            let at = if found == number { at } else { 0 };
            source.skip(at).map_err(|e| self.failed(e))?;
            self.open = Some(source);
            self.next = Place { number: found, at };
        }
        Ok(())
    }

    /// Reads on, not beyond `end`; 0 is the end for now.
    pub(super) fn read(&mut self, buffer: &mut [u8], end: Place) -> fs::Result<usize> {
        while self.next < end {
            if let Some(mut source) = self.open.take() {
                let left = match self.next.number == end.number {
                    true => usize::try_from(end.at - self.next.at).unwrap_or(usize::MAX),
                    false => usize::MAX,
                };
                let most = buffer.len().min(left);
                let buffer = &mut buffer[..most];
                let mut len = source.read(buffer).map_err(|e| self.failed(e))?;
                let is_over = len == 0 && self.is_rotated(&source)?;
                if is_over {
                    // Nobody writes to it any more, but somebody may have, between the read and now.
                    len = source.read(buffer).map_err(|e| self.failed(e))?;
                }
                if len > 0 || !is_over {
                    self.open = Some(source);
                    self.next.at += len as u64;
                    return Ok(len);
                }
                self.next = Place {
                    number: self.next.number + 1,
                    at: 0,
                };
            } else if let Some((number, source)) = self.find(self.next.number)? {
                self.next = Place { number, at: 0 };
                self.open = Some(source);
            } else {
                break;
            }
        }
        Ok(0)
    }

    /// The numbers of the files that there are up to a place, from the first.
    pub(super) fn numbers_to(&self, end: Place) -> fs::Result<Vec<u64>> {
        let mut numbers = rotations(&self.dir, self.restart)?;
        numbers.retain(|number| *number < end.number);
        numbers.push(end.number);
        Ok(numbers)
    }

    /// The file with this number, or the first after it.
    pub(super) fn find(&self, number: u64) -> fs::Result<Option<(u64, Source)>> {
        loop {
            // In this order: what has been rotated by the time that the current one is opened is listed.
            let current = open_current(&self.dir, self.restart)?;
            let is_older =
                |found: &u64| current.as_ref().is_none_or(|(current, _)| found < current);
            let rotated = rotations(&self.dir, self.restart)?.into_iter();
            let Some(found) = rotated.filter(is_older).find(|found| *found >= number) else {
                return Ok(current.filter(|(found, _)| *found >= number));
            };
            // One that was removed in between is looked for no further.
            if let Some(source) = open_rotated(&self.dir, self.restart, found)? {
                return Ok(Some((found, source)));
            }
        }
    }

    fn is_rotated(&self, source: &Source) -> fs::Result<bool> {
        let Some(file) = source.plain() else {
            return Ok(true);
        };
        let path = current_file(&self.dir, self.restart);
        let Some(current) = open(&path)? else {
            return Ok(true);
        };
        Ok(inode(&current, &path)? != inode(file, &path)?)
    }

    pub(super) fn failed(&self, source: io::Error) -> fs::Error {
        fs::Error::new("read", current_file(&self.dir, self.restart), source)
    }
}

/// The file that is written to, with the number that it will have.
fn open_current(dir: &Path, restart: u32) -> fs::Result<Option<(u64, Source)>> {
    let path = current_file(dir, restart);
    loop {
        let Some(file) = open(&path)? else {
            return Ok(None);
        };
        let newest = rotations(dir, restart)?.pop();
        // It may have been rotated in between.
        let is_current = match open(&path)? {
            Some(again) => inode(&again, &path)? == inode(&file, &path)?,
            None => false,
        };
        if is_current {
            return Ok(Some((
                newest.map_or(1, |newest| newest + 1),
                Source::Plain(file),
            )));
        }
    }
}

/// A rotated file, if it is there, whether it has been compressed or not.
fn open_rotated(dir: &Path, restart: u32, number: u64) -> fs::Result<Option<Source>> {
    if let Some(file) = open(&rotated_file(dir, restart, number))? {
        return Ok(Some(Source::Plain(file)));
    }
    let compressed = open(&compressed_file(dir, restart, number))?;
    Ok(compressed.map(|file| Source::Compressed(Box::new(GzDecoder::new(file)))))
}

/// Opens a file, if it is there.
pub(super) fn open(path: &Path) -> fs::Result<Option<File>> {
    match std::fs::OpenOptions::new().read(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(fs::Error::new("open", path, e)),
    }
}

fn inode(file: &File, path: &Path) -> fs::Result<u64> {
    match file.metadata() {
        Ok(metadata) => Ok(metadata.ino()),
        Err(e) => Err(fs::Error::new("look at", path, e)),
    }
}
