//! What an archive or folder holds, by name.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::Error;
use crate::image::error::Error as ImageError;
use crate::image::layer::{Bound, Compression};
use crate::image::store::{Store, Temporary};
use crate::image::unpack::MalformedArchive;
use crate::image::unpack::archive::{Archive, Kind};
use crate::image::unpack::path::{clean, link_target, split};
use crate::sys::beneath::{self, Root};
use crate::sys::fs::Error as FileError;

/// Entries of an archive of images; real ones have some hundreds.
const MOST_ENTRIES: usize = 100_000;
/// Bytes of all their names; real ones have some thousands.
const MOST_NAME_BYTES: usize = 32 << 20;
/// Links to links within an archive; `docker save` has one.
const MOST_LINKS: usize = 8;
/// A folder or an archive.
pub(super) enum Contents {
    Folder(Root),
    Archive {
        file: Arc<File>,
        places: HashMap<Vec<u8>, Place>,
        /// Where the file is, if it is the store's.
        _spool: Option<Temporary>,
    },
}

/// A file of them.
pub(super) struct Content {
    pub(super) reader: Box<dyn Read + Send>,
    /// Bytes.
    pub(super) size: u64,
}

/// Where an entry's bytes are.
pub(super) enum Place {
    Bytes { offset: u64, size: u64 },
    Link(Vec<u8>),
}

impl Contents {
    pub(super) fn of_path(path: &Path, store: &Store) -> Result<Self, Error> {
        let path = path.to_owned();
        // A FIFO waits for who writes.
        let opened = store.unless(move || beneath::open_file(&path))?;
        let file = opened.map_err(ImageError::from)?;
        if file.metadata().map_err(Error::Read)?.is_dir() {
            return Ok(Self::Folder(Root::of(file)));
        }
        let mut start = [0; 8];
        let length = file.read_at(&mut start, 0);
        match length.map(|length| Compression::sniff(&start[..length])) {
            Ok(Compression::None) => Self::of_archive(file, None),
            // A FIFO has no positions.
            Ok(_) | Err(_) => Self::of_reader(&mut store.stop().waiting_reader(file), store),
        }
    }

    pub(super) fn of_reader(reader: &mut dyn Read, store: &Store) -> Result<Self, Error> {
        let temporary = store.temporary()?;
        let path = temporary.path().join("archive");
        let failed = |e| ImageError::from(FileError::new("write", &path, e));
        let mut file = beneath::make_spool(&path).map_err(ImageError::from)?;
        spool(reader, &mut file, Bound::USUAL, failed)?;
        Self::of_archive(file, Some(temporary))
    }

    fn of_archive(file: File, spool: Option<Temporary>) -> Result<Self, Error> {
        let length = file.metadata().map_err(Error::Read)?.len();
        let mut reader = file.try_clone().map_err(Error::Read)?;
        io::Seek::rewind(&mut reader).map_err(Error::Read)?;
        let mut archive = Archive::new(BufReader::with_capacity(1 << 13, reader));
        let (mut places, mut name_bytes) = (HashMap::new(), 0);
        while let Some(entry) = archive.next()? {
            // Skipping over content does not notice that the file is too short for it.
            if entry.offset.saturating_add(entry.size) > length {
                return Err(MalformedArchive::Truncated.into());
            }
            let Some(path) = clean(&entry.path) else {
                continue;
            };
            let place = match entry.kind {
                Kind::File => Place::Bytes {
                    offset: entry.offset,
                    size: entry.size,
                },
                Kind::Symlink => Place::Link(link_target(split(&path).0, &entry.target)),
                Kind::HardLink => Place::Link(clean(&entry.target).unwrap_or_default()),
                _ => continue,
            };
            name_bytes += path.len() + entry.target.len();
            places.insert(path, place);
            if places.len() > MOST_ENTRIES || name_bytes > MOST_NAME_BYTES {
                return Err(Error::TooManyEntries(MOST_ENTRIES));
            }
        }
        Ok(Self::Archive {
            file: Arc::new(file),
            places,
            _spool: spool,
        })
    }

    /// A file's bytes, if there is such a file.
    pub(super) fn small(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(Content { reader, size }) = self.open(name)? else {
            return Ok(None);
        };
        if size > most {
            return Err(Error::TooBig {
                name: name.to_owned(),
                most,
            });
        }
        let mut bytes = Vec::new();
        reader
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(Error::Read)?;
        Ok(Some(bytes))
    }

    /// As [`Self::small`], of a file that has to be there.
    pub(super) fn needed(&self, name: &str, most: u64) -> Result<Vec<u8>, Error> {
        self.small(name, most)?
            .ok_or_else(|| Error::Missing(name.to_owned()))
    }

    /// A file to be read, and its size; links are followed within the archive or folder.
    pub(super) fn open(&self, name: &str) -> Result<Option<Content>, Error> {
        match self {
            Self::Folder(root) => match root.file(name.as_bytes()) {
                Ok(file) => {
                    let size = file.metadata().map_err(Error::Read)?.len();
                    let reader = Box::new(file);
                    Ok(Some(Content { reader, size }))
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::Read(e)),
            },
            Self::Archive { file, places, .. } => {
                Ok(bytes_of(places, name).map(|(offset, size)| {
                    let (file, end) = (Arc::clone(file), offset + size);
                    let reader = Box::new(Part { file, offset, end });
                    Content { reader, size }
                }))
            }
        }
    }
}

fn bytes_of(places: &HashMap<Vec<u8>, Place>, name: &str) -> Option<(u64, u64)> {
    let mut path = clean(name.as_bytes())?;
    for _ in 0..MOST_LINKS {
        match places.get(&path)? {
            Place::Bytes { offset, size } => return Some((*offset, *size)),
            Place::Link(target) => path.clone_from(target),
        }
    }
    None
}

/// A part of a file that others read at the same time.
struct Part {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let length = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// Writes an archive, uncompressed, to a file.
fn spool(
    reader: &mut dyn Read,
    file: &mut File,
    bound: Bound,
    failed: impl Fn(io::Error) -> ImageError,
) -> Result<(), Error> {
    let read = Cell::new(0);
    let mut input = BufReader::with_capacity(
        1 << 17,
        Counted {
            reader,
            read: &read,
        },
    );
    let (mut plain, is_plain) = plain(&mut input)?;
    let mut buffer = vec![0; 1 << 17];
    let mut written = 0;
    loop {
        let length = match plain.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::Read(e)),
        };
        written += length as u64;
        let most = match is_plain {
            true => bound.most,
            false => bound.of(read.get()),
        };
        if written > most {
            let name = "archive".into();
            return Err(Error::TooBig { name, most });
        }
        file.write_all(&buffer[..length]).map_err(&failed)?;
    }
}

/// Counts what is read.
struct Counted<'a> {
    reader: &'a mut dyn Read,
    read: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.read.set(self.read.get() + length as u64);
        Ok(length)
    }
}

/// The archive itself, and whether it came so.
fn plain<'a, R: Read>(input: &'a mut BufReader<R>) -> Result<(Box<dyn Read + 'a>, bool), Error> {
    use io::BufRead as _;
    let compression = Compression::sniff(input.fill_buf().map_err(Error::Read)?);
    let plain: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => {
            Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(Error::Read)?)
        }
        Compression::Other(name) => return Err(Error::Compression(name)),
    };
    Ok((plain, compression == Compression::None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testing::{Folder, gzip, noise, zstd};

    #[test]
    fn a_compressed_archive_may_not_grow_beyond_measure() {
        let folder = Folder::new();
        let bound = Bound {
            free: 300_000,
            ratio: 10,
            most: 3_000_000,
        };
        let check = |bytes: &[u8], expected: Option<u64>| {
            let path = folder.path().join("spool");
            let mut file = beneath::make_spool(&path).expect("a file");
            let failed = |e| ImageError::from(FileError::new("write", &path, e));
            match (spool(&mut { bytes }, &mut file, bound, failed), expected) {
                (Ok(()), None) => {}
                (Err(Error::TooBig { most, .. }), Some(least)) => {
                    assert!(most >= least && most < least + 100_000, "{most}");
                    let written = file.metadata().expect("a file").len();
                    assert!(written <= most, "{written}");
                }
                (result, _) => panic!("{result:?}, not {expected:?}"),
            }
            crate::sys::fs::remove_file(&path).expect("removed");
        };
        let zeros = vec![0; 1_000_000];
        check(&zeros, None);
        check(&noise(2_000_000), None);
        check(&vec![0; 3_000_001], Some(3_000_000));
        for compress in [gzip, zstd] {
            check(&compress(&noise(2_000_000)), None);
            check(&compress(&zeros), Some(300_000));
        }
    }
}
