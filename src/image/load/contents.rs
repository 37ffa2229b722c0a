//! What an archive or folder holds, by name.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::Error;
use crate::image::error::Error as ImageError;
use crate::image::layer::Compression;
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
/// Bytes that a compressed archive or one from a pipe may have.
const MOST_SPOOLED: u64 = 1 << 40;

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
        let mut file = beneath::open_file(path).map_err(ImageError::from)?;
        if file.metadata().map_err(Error::Read)?.is_dir() {
            return Ok(Self::Folder(Root::open(path).map_err(Error::Read)?));
        }
        let mut start = [0; 8];
        let length = file.read_at(&mut start, 0);
        match length.map(|length| Compression::sniff(&start[..length])) {
            Ok(Compression::None) => Self::of_archive(file, None),
            // A FIFO has no positions.
            Ok(_) | Err(_) => Self::of_reader(&mut file, store),
        }
    }

    pub(super) fn of_reader(reader: &mut dyn Read, store: &Store) -> Result<Self, Error> {
        let temporary = store.temporary()?;
        let path = temporary.path().join("archive");
        let failed = |e| ImageError::from(FileError::new("write", &path, e));
        let mut spool = beneath::make_spool(&path).map_err(ImageError::from)?;
        let mut input = BufReader::with_capacity(1 << 17, reader);
        let mut plain = plain(&mut input)?;
        let mut buffer = vec![0; 1 << 17];
        let mut written = 0;
        loop {
            let length = match plain.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::Read(e)),
            };
            written += length as u64;
            if written > MOST_SPOOLED {
                return Err(Error::TooBig {
                    name: "archive".into(),
                    most: MOST_SPOOLED,
                });
            }
            spool.write_all(&buffer[..length]).map_err(failed)?;
        }
        drop(plain);
        Self::of_archive(spool, Some(temporary))
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

fn plain<'a, R: Read>(input: &'a mut BufReader<R>) -> Result<Box<dyn Read + 'a>, Error> {
    use io::BufRead as _;
    Ok(
        match Compression::sniff(input.fill_buf().map_err(Error::Read)?) {
            Compression::None => Box::new(input),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Compression::Zstd => {
                Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(Error::Read)?)
            }
            Compression::Other(name) => return Err(Error::Compression(name)),
        },
    )
}
