//! Reads tar archives: ustar, GNU and PAX, with long names, and files with holes. The `tar` crate decodes the
//! header's fields; the walk from header to header is here, because that crate reads extended headers of any size
//! into memory and knows no PAX sparse files.
//!
//! Follows Go's archive/tar where readings differ, as the other container tools do: kinds without content have
//! none, whatever their size field says.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use super::pax::{self, Extended};
use crate::sys::beneath::{Owner, Time};

const BLOCK: usize = 512;
/// Most bytes of the extended headers of an entry: PAX records with all extended attributes, or a long name.
const MOST_EXTENDED: u64 = 1 << 20;
/// Most pieces of a file with holes.
const MOST_PIECES: usize = 1 << 16;

/// An archive that breaks the format, or that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum MalformedArchive {
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    #[error("the archive has a broken header at byte {offset}: {what}")]
    Header { offset: u64, what: &'static str },
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
}

/// Where an archive comes from: buffered bytes of which some can be skipped.
pub(in super::super) trait Source: BufRead {
    /// Skips bytes; an end of the input in between is an error, now or at the next read.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            let have = self.fill_buf()?.len() as u64;
            if have == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = have.min(left);
            self.consume(step as usize);
            left -= step;
        }
        Ok(())
    }

    /// What is consumed from now on becomes the content of the file at `path`, from `offset` on.
    fn content_starts(&mut self, _path: &[u8], _offset: u64) {}

    fn content_ends(&mut self) {}

    /// How many pieces of content there were.
    fn contents(&self) -> u64 {
        0
    }

    /// What was at `path`, with the first `before` pieces of content, is kept under this number.
    fn replaced(&mut self, _path: &[u8], _number: u64, _before: u64) {}
}

impl Source for &[u8] {}

impl Source for BufReader<File> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.seek_relative(i64::try_from(bytes).map_err(io::Error::other)?)
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    File,
    /// A file with holes: its pieces (offset, bytes), and its size with the holes.
    Sparse {
        pieces: Vec<(u64, u64)>,
        size: u64,
    },
    Folder,
    Symlink,
    HardLink,
    Character {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
    Fifo,
    Unknown(char),
}

/// An entry of an archive, as it says it is.
#[derive(Clone, Debug)]
pub(in super::super) struct Entry {
    pub(in super::super) path: Vec<u8>,
    /// Of symbolic and hard links.
    pub(in super::super) target: Vec<u8>,
    pub(in super::super) kind: Kind,
    /// The lowest 12 bits.
    pub(in super::super) mode: u32,
    pub(in super::super) owner: Owner,
    pub(in super::super) time: Time,
    /// Names and values.
    pub(in super::super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes that are stored.
    pub(in super::super) size: u64,
    /// Where they are in the archive.
    pub(in super::super) offset: u64,
}

/// An archive that is being read.
#[derive(Debug)]
pub(in super::super) struct Archive<S> {
    source: S,
    position: u64,
    /// Of the current entry's content, what has not been read.
    content: u64,
    padding: u64,
}

impl<S: Source> Archive<S> {
    pub(in super::super) fn new(source: S) -> Self {
        Self {
            source,
            position: 0,
            content: 0,
            padding: 0,
        }
    }

    /// The next entry; what was left of the last one is skipped.
    pub(in super::super) fn next(&mut self) -> Result<Option<Entry>, MalformedArchive> {
        let (mut extended, mut extended_bytes) = (Extended::default(), 0_u64);
        loop {
            self.skip_content()?;
            let offset = self.position;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let broken = |what| MalformedArchive::Header { offset, what };
            let size = header
                .entry_size()
                .map_err(|_| broken("its size is no number"))?;
            if matches!(header.entry_type().as_byte(), b'x' | b'g' | b'L' | b'K') {
                // Of one entry all together: each is held until the entry comes.
                extended_bytes = extended_bytes.saturating_add(size);
                if extended_bytes > MOST_EXTENDED {
                    return Err(broken("an extended header of more than 1 MiB"));
                }
            }
            match header.entry_type().as_byte() {
                b'x' => extended
                    .add_records(&self.extended(size)?)
                    .map_err(broken)?,
                // Global records (a comment of `git archive`) say nothing about a file.
                b'g' => drop(self.extended(size)?),
                b'L' => extended.long_path = Some(until_nul(self.extended(size)?)),
                b'K' => extended.long_target = Some(until_nul(self.extended(size)?)),
                _ => return self.entry(&header, extended, size, offset).map(Some),
            }
        }
    }

    /// Up to `most` bytes of the current entry's content; empty at its end.
    pub(in super::super) fn content(&mut self, most: u64) -> Result<&[u8], MalformedArchive> {
        let most = most.min(self.content);
        if most == 0 {
            return Ok(&[]);
        }
        let bytes = fill(&mut self.source)?;
        if bytes.is_empty() {
            return Err(MalformedArchive::Truncated);
        }
        Ok(&bytes[..bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX))])
    }

    /// Marks bytes that `content` gave as read.
    pub(in super::super) fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes as u64 <= self.content);
        self.source.consume(bytes);
        self.content -= bytes as u64;
        self.position += bytes as u64;
    }

    pub(super) fn source(&mut self) -> &mut S {
        &mut self.source
    }

    pub(super) fn into_source(self) -> S {
        self.source
    }

    /// Reads what is left of the input.
    pub(in super::super) fn drain(&mut self) -> Result<(), MalformedArchive> {
        loop {
            let bytes = fill(&mut self.source)?.len();
            if bytes == 0 {
                return Ok(());
            }
            self.source.consume(bytes);
        }
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        mut extended: Extended,
        size: u64,
        offset: u64,
    ) -> Result<Entry, MalformedArchive> {
        let broken = |what| MalformedArchive::Header { offset, what };
        let path = match extended.path() {
            Some(path) => path,
            None => header.path_bytes().into_owned(),
        };
        if path.is_empty() || path.contains(&0) {
            return Err(broken("its path is empty or has a zero byte"));
        }
        let target = match extended.target() {
            Some(target) => target,
            None => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        let mut kind = kind(header, &path).map_err(broken)?;
        let stored = match kind {
            Kind::File | Kind::Sparse { .. } | Kind::Unknown(_) => extended.size.unwrap_or(size),
            _ => 0,
        };
        self.set_content(stored)
            .ok_or_else(|| broken("its size is beyond measure"))?;
        if header.entry_type().is_gnu_sparse() {
            kind = self.gnu_sparse(header, offset)?;
        } else if kind == Kind::File && extended.is_sparse() {
            kind = self.pax_sparse(&mut extended, offset)?;
        }
        let id = |own: Option<u64>, field: io::Result<u64>| -> Result<u32, MalformedArchive> {
            let id = own
                .map_or(field, Ok)
                .map_err(|_| broken("its owner is no number"))?;
            u32::try_from(id).map_err(|_| broken("its owner is beyond measure"))
        };
        Ok(Entry {
            path,
            target,
            kind,
            mode: header.mode().map_err(|_| broken("its mode is no number"))? & 0o7777,
            owner: Owner {
                uid: id(extended.uid, header.uid())?,
                gid: id(extended.gid, header.gid())?,
            },
            // A time that is no number (or before 1970) is not worth refusing an image for.
            time: extended.time.unwrap_or_else(|| Time {
                seconds: header
                    .mtime()
                    .ok()
                    .and_then(|t| i64::try_from(t).ok())
                    .unwrap_or(0),
                nanoseconds: 0,
            }),
            attributes: extended.attributes,
            size: self.content,
            offset: self.position,
        })
    }

    /// The next header that is not the end: zeros, or nothing more.
    fn header(&mut self) -> Result<Option<tar::Header>, MalformedArchive> {
        let offset = self.position;
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block).clone();
        // The sum is over the header with eight spaces in the place of the sum itself.
        let sum: u32 = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|b| u32::from(*b))
            .sum();
        match header.cksum() {
            Ok(stored) if stored == sum + 8 * 32 => Ok(Some(header)),
            _ => Err(MalformedArchive::Header {
                offset,
                what: "its checksum is wrong",
            }),
        }
    }

    /// A block outside of content; `None` at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, MalformedArchive> {
        let mut block = [0; BLOCK];
        if fill(&mut self.source)?.is_empty() {
            return Ok(None);
        }
        self.source.read_exact(&mut block).map_err(read_error)?;
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, MalformedArchive> {
        self.set_content(size);
        let mut bytes = Vec::with_capacity(size as usize);
        loop {
            let piece = self.content(u64::MAX)?;
            let length = piece.len();
            if length == 0 {
                return Ok(bytes);
            }
            bytes.extend_from_slice(piece);
            self.consume(length);
        }
    }

    fn set_content(&mut self, size: u64) -> Option<()> {
        // Rounded up it must still be a number, and a position a file can have.
        i64::try_from(size.checked_next_multiple_of(BLOCK as u64)?).ok()?;
        self.content = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Some(())
    }

    fn skip_content(&mut self) -> Result<(), MalformedArchive> {
        let bytes = self.content + self.padding;
        if bytes > 0 {
            self.source.skip(bytes).map_err(read_error)?;
        }
        self.position += bytes;
        (self.content, self.padding) = (0, 0);
        Ok(())
    }

    /// The old GNU format: pieces in the header and in blocks that follow it.
    fn gnu_sparse(&mut self, header: &tar::Header, offset: u64) -> Result<Kind, MalformedArchive> {
        let broken = |what| MalformedArchive::Header { offset, what };
        let gnu = header
            .as_gnu()
            .ok_or_else(|| broken("holes in a format that has none"))?;
        let mut pieces = Vec::new();
        let mut add = |piece: &tar::GnuSparseHeader| {
            if !piece.is_empty() {
                pieces.push((piece.offset()?, piece.length()?));
            }
            Ok(())
        };
        let numbers = |_: io::Error| broken("a hole that is no number");
        gnu.sparse.iter().try_for_each(&mut add).map_err(numbers)?;
        let mut more = gnu.is_extended();
        while more {
            let block = self.block()?.ok_or(MalformedArchive::Truncated)?;
            let mut extension = tar::GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(&block);
            extension
                .sparse
                .iter()
                .try_for_each(&mut add)
                .map_err(numbers)?;
            more = extension.is_extended();
            if self.position - offset > (MOST_PIECES * 24) as u64 {
                return Err(broken("too many holes"));
            }
        }
        let size = gnu.real_size().map_err(numbers)?;
        self.sparse(pieces, size).map_err(broken)
    }

    /// The PAX formats 0.0 and 0.1 (pieces in the records) and 1.0 (pieces before the content).
    fn pax_sparse(
        &mut self,
        extended: &mut Extended,
        offset: u64,
    ) -> Result<Kind, MalformedArchive> {
        let broken = |what| MalformedArchive::Header { offset, what };
        let size = extended
            .real_size
            .ok_or_else(|| broken("holes without a size"))?;
        let pieces = if extended.sparse_in_content {
            self.sparse_map(offset)?
        } else {
            std::mem::take(&mut extended.pieces)
        };
        self.sparse(pieces, size).map_err(broken)
    }

    /// The map of format 1.0: decimal numbers, one a line, padded to a block.
    fn sparse_map(&mut self, offset: u64) -> Result<Vec<(u64, u64)>, MalformedArchive> {
        let broken = |what| MalformedArchive::Header { offset, what };
        let start = self.position;
        let count = self.sparse_number(offset)?;
        if count > MOST_PIECES as u64 {
            return Err(broken("too many holes"));
        }
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push((self.sparse_number(offset)?, self.sparse_number(offset)?));
        }
        let read = self.position - start;
        let mut rest = read.next_multiple_of(BLOCK as u64) - read;
        while rest > 0 {
            let bytes = self.content(rest)?.len();
            if bytes == 0 {
                return Err(broken("a map of holes that does not end"));
            }
            self.consume(bytes);
            rest -= bytes as u64;
        }
        Ok(pieces)
    }

    fn sparse_number(&mut self, offset: u64) -> Result<u64, MalformedArchive> {
        let mut digits = Vec::new();
        loop {
            let byte = self.content(1)?.first().copied();
            match byte {
                Some(b'\n') => break,
                Some(digit) if digits.len() < 20 => digits.push(digit),
                _ => digits.clear(),
            }
            if digits.is_empty() {
                break;
            }
            self.consume(1);
        }
        let number = pax::number(&digits);
        let what = "a map of holes that is no number";
        let number = number.ok_or(MalformedArchive::Header { offset, what })?;
        self.consume(1);
        Ok(number)
    }

    /// Checks that pieces are in order, within the file, and as many bytes as there are.
    fn sparse(&self, pieces: Vec<(u64, u64)>, size: u64) -> Result<Kind, &'static str> {
        let mut end = 0_u64;
        let mut stored = 0_u64;
        for (offset, bytes) in &pieces {
            if *offset < end {
                return Err("holes out of order");
            }
            end = offset.checked_add(*bytes).ok_or("a hole beyond measure")?;
            stored += bytes;
        }
        if end > size || stored != self.content {
            return Err("holes that do not fit the file");
        }
        Ok(Kind::Sparse { pieces, size })
    }
}

fn kind(header: &tar::Header, path: &[u8]) -> Result<Kind, &'static str> {
    let device = || {
        let number = |field: io::Result<Option<u32>>| field.map_err(|_| "its device is no number");
        let major = number(header.device_major())?.unwrap_or(0);
        let minor = number(header.device_minor())?.unwrap_or(0);
        Ok::<_, &'static str>((major, minor))
    };
    Ok(match header.entry_type().as_byte() {
        // Before POSIX, a folder was a file whose name ends in a slash.
        0 if path.ends_with(b"/") => Kind::Folder,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => device().map(|(major, minor)| Kind::Character { major, minor })?,
        b'4' => device().map(|(major, minor)| Kind::Block { major, minor })?,
        b'5' => Kind::Folder,
        b'6' => Kind::Fifo,
        other => Kind::Unknown(char::from(other)),
    })
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn fill<S: Source>(source: &mut S) -> Result<&[u8], MalformedArchive> {
    source.fill_buf().map_err(MalformedArchive::Read)
}

fn read_error(error: io::Error) -> MalformedArchive {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        MalformedArchive::Truncated
    } else {
        MalformedArchive::Read(error)
    }
}
