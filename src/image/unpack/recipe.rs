//! What a layer's archive was besides the content of its files, so that the very same archive, and so the same digest,
//! can be made of the unpacked layer again.
//!
//! ```text
//! recipe.zst = zstd(MAGIC record… end)
//! record     = 0 LENGTH bytes                 as they were: headers, padding, what follows the archive's end
//!            | 1 LENGTH path OFFSET LENGTH    a piece of a file's content
//!            | 2 LENGTH path NUMBER BEFORE    what was there with the first BEFORE pieces of content is `kept/NUMBER`
//! end        = 3 LENGTH                       of the archive
//! ```
//!
//! Numbers are LEB128. A file that a later entry of the same layer replaces is kept beside the layer, because its bytes
//! are in the archive too; that is rare.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use super::archive::Source;
use super::tar_split;
use crate::sys::beneath::{self, Root};

/// The recipe's file beside the layer's folder.
pub(in super::super) const FILE: &str = "recipe.zst";
/// The folder beside the layer's for what was replaced.
pub(super) const KEPT: &str = "kept";

const MAGIC: &[u8] = b"kplay recipe 1\n";
const VERBATIM: u8 = 0;
const CONTENT: u8 = 1;
const REPLACED: u8 = 2;
const END: u8 = 3;

/// Headers compress to a few percent at the fastest level already, and a pull must not wait for them.
const LEVEL: i32 = 1;
/// Most verbatim bytes of a record.
const VERBATIM_BYTES: usize = 64 << 10;
/// Bytes of a path: that of an extended header.
const MOST_PATH: u64 = 1 << 20;

/// A source that writes the recipe of what is read from it. Errors are told at the end.
pub(super) struct Recorder<S> {
    source: S,
    out: Option<Output>,
    failed: Option<io::Error>,
    verbatim: Vec<u8>,
    content: Option<Piece>,
    bytes: u64,
    contents: u64,
}

/// Records are small, and each call of the encoder costs.
type Output = BufWriter<zstd::stream::write::Encoder<'static, BufWriter<File>>>;

/// A piece of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) path: Vec<u8>,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl<S: Source> Recorder<S> {
    pub(super) fn new(source: S, file: File) -> io::Result<Self> {
        let mut encoder = zstd::stream::write::Encoder::new(BufWriter::new(file), LEVEL)?;
        encoder.include_checksum(true)?;
        let mut out = BufWriter::with_capacity(VERBATIM_BYTES, encoder);
        out.write_all(MAGIC)?;
        Ok(Self {
            source,
            out: Some(out),
            failed: None,
            verbatim: Vec::with_capacity(VERBATIM_BYTES),
            content: None,
            bytes: 0,
            contents: 0,
        })
    }

    /// Completes the recipe of a source that was read to its end.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush();
        let bytes = self.bytes;
        self.write(|out| {
            out.write_all(&[END])?;
            write_number(out, bytes)
        });
        match (self.failed, self.out) {
            (Some(error), _) => Err(error),
            (None, Some(out)) => {
                let encoder = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                encoder.finish()?.into_inner().map(drop).map_err(Into::into)
            }
            (None, None) => Ok(()),
        }
    }

    fn flush(&mut self) {
        if self.verbatim.is_empty() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.verbatim);
        for some in bytes.chunks(VERBATIM_BYTES) {
            self.write(|out| {
                out.write_all(&[VERBATIM])?;
                write_bytes(out, some)
            });
        }
        bytes.clear();
        self.verbatim = bytes;
    }

    fn write(&mut self, write: impl FnOnce(&mut Output) -> io::Result<()>) {
        if let Some(out) = &mut self.out
            && let Err(error) = write(out)
        {
            self.failed = Some(error);
            self.out = None;
        }
    }
}

impl<S: Source> Read for Recorder<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let length = bytes.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl<S: Source> BufRead for Recorder<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        match &mut self.content {
            Some(piece) => piece.bytes += bytes as u64,
            None => match self.source.fill_buf() {
                // What is there is not read again.
                Ok(there) => self.verbatim.extend_from_slice(&there[..bytes]),
                Err(error) => self.failed = Some(error),
            },
        }
        self.source.consume(bytes);
        if self.verbatim.len() >= VERBATIM_BYTES {
            self.flush();
        }
    }
}

impl<S: Source> Source for Recorder<S> {
    fn content_starts(&mut self, path: &[u8], offset: u64) {
        let path = path.to_vec();
        self.content = Some(Piece {
            path,
            offset,
            bytes: 0,
        });
    }

    fn content_ends(&mut self) {
        let Some(piece) = self.content.take().filter(|piece| piece.bytes > 0) else {
            return;
        };
        self.contents += 1;
        self.flush();
        self.write(|out| {
            out.write_all(&[CONTENT])?;
            write_bytes(out, &piece.path)?;
            write_number(out, piece.offset)?;
            write_number(out, piece.bytes)
        });
    }

    fn contents(&self) -> u64 {
        self.contents
    }

    fn replaced(&mut self, path: &[u8], number: u64, before: u64) {
        self.flush();
        self.write(|out| {
            out.write_all(&[REPLACED])?;
            write_bytes(out, path)?;
            write_number(out, number)?;
            write_number(out, before)
        });
    }
}

fn write_number(out: &mut impl Write, mut number: u64) -> io::Result<()> {
    while number >= 0x80 {
        out.write_all(&[number as u8 | 0x80])?;
        number >>= 7;
    }
    out.write_all(&[number as u8])
}

fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write_number(out, bytes.len() as u64)?;
    out.write_all(bytes)
}

/// Why an archive cannot be made again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("what its archive was is not recorded")]
    Unknown,
    #[error("the record of its archive is damaged")]
    Damaged,
    #[error("cannot read the record of its archive")]
    Read(#[source] io::Error),
    #[error("cannot read its file `{path}`")]
    Content { path: String, source: io::Error },
    #[error("its file `{path}` has changed")]
    Changed { path: String },
    #[error("cannot write its archive")]
    Write(#[source] io::Error),
}

pub(super) enum Record {
    Verbatim(Vec<u8>),
    Content(Piece),
    Replaced(Former),
    /// All bytes of the archive, where they are recorded.
    End(Option<u64>),
}

/// What was at a path when there were so many pieces of content.
pub(super) struct Former {
    path: Vec<u8>,
    number: u64,
    before: u64,
}

/// Where records come from.
enum Records {
    Own(Reader),
    Split(Box<tar_split::Reader>),
}

impl Records {
    fn open(layer: &Path) -> Result<Self, Error> {
        match open(&layer.join(FILE)) {
            Err(Error::Unknown) => Self::split(&layer.join(tar_split::FILE)),
            opened => Reader::new(opened?).map(Self::Own),
        }
    }

    fn split(path: &Path) -> Result<Self, Error> {
        let reader = tar_split::Reader::new(open(path)?);
        Ok(Self::Split(Box::new(reader)))
    }

    fn next(&mut self) -> Result<Record, Error> {
        match self {
            Self::Own(reader) => reader.record(),
            Self::Split(reader) => reader.record(),
        }
    }
}

fn open(path: &Path) -> Result<File, Error> {
    match beneath::open_file(path) {
        Ok(file) => Ok(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::Unknown),
        Err(e) => Err(Error::Read(io::Error::other(e))),
    }
}

/// Writes the archive of the layer whose folder is `layer/diff`. Returns its bytes.
///
/// # Errors
/// It cannot be made again, or not be written.
pub(in super::super) fn bake(layer: &Path, out: &mut dyn Write) -> Result<u64, Error> {
    let replaced = replaced(layer)?;
    let records = Records::open(layer)?;
    write(records, &replaced, &layer.join("diff"), layer, out)
}

/// Writes the archive of another engine's layer, of which `split` is the record, and `files` has at least its files.
///
/// # Errors
/// As [`bake`].
pub(in super::super) fn bake_other(
    split: &Path,
    files: &Path,
    out: &mut dyn Write,
) -> Result<u64, Error> {
    write(Records::split(split)?, &[], files, files, out)
}

/// The first bytes of such an archive.
///
/// # Errors
/// As [`bake`].
pub(in super::super) fn beginning(split: &Path, files: &Path) -> Result<Vec<u8>, Error> {
    let mut out = Beginning(Vec::new());
    match bake_other(split, files, &mut out) {
        Err(Error::Write(_)) if out.0.len() >= BEGINNING => {}
        other => drop(other?),
    }
    Ok(out.0)
}

/// Bytes that have the first entry of any usual archive, and all of its extended headers.
const BEGINNING: usize = 64 << 10;

/// Takes no more than it needs.
struct Beginning(Vec<u8>);

impl Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() >= BEGINNING {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(
    mut records: Records,
    replaced: &[Former],
    files: &Path,
    layer: &Path,
    out: &mut dyn Write,
) -> Result<u64, Error> {
    let root = Root::open(files).map_err(Error::Read)?;
    let (mut bytes, mut contents) = (0, 0);
    loop {
        match records.next()? {
            Record::Verbatim(verbatim) => {
                out.write_all(&verbatim).map_err(Error::Write)?;
                bytes += verbatim.len() as u64;
            }
            Record::Content(piece) => {
                let content = match of_replaced(replaced, contents, &piece.path) {
                    None => root.file(&piece.path),
                    Some((number, rest)) => kept(layer, number, rest),
                };
                copy(content, &piece, out)?;
                bytes += piece.bytes;
                contents += 1;
            }
            Record::Replaced(_) => {}
            Record::End(all) if all.is_none_or(|all| all == bytes) => return Ok(bytes),
            Record::End(_) => return Err(Error::Damaged),
        }
    }
}

fn replaced(layer: &Path) -> Result<Vec<Former>, Error> {
    let mut found = Vec::new();
    if !layer.join(KEPT).is_dir() {
        return Ok(found);
    }
    let mut records = Records::open(layer)?;
    loop {
        match records.next()? {
            Record::Verbatim(_) | Record::Content(_) => {}
            Record::Replaced(former) => found.push(former),
            Record::End(_) => return Ok(found),
        }
    }
}

/// Where content is that was replaced later, itself or with a folder above it.
fn of_replaced<'a>(all: &[Former], number: u64, path: &'a [u8]) -> Option<(u64, &'a [u8])> {
    all.iter()
        .filter(|former| number < former.before)
        .find_map(|former| {
            let rest = path.strip_prefix(former.path.as_slice())?;
            (rest.is_empty() || rest.starts_with(b"/")).then_some((former.number, rest))
        })
}

fn kept(layer: &Path, number: u64, rest: &[u8]) -> io::Result<File> {
    let mut path = number.to_string().into_bytes();
    path.extend_from_slice(rest);
    Root::open(&layer.join(KEPT))?.file(&path)
}

fn copy(content: io::Result<File>, piece: &Piece, out: &mut dyn Write) -> Result<(), Error> {
    let path = || super::shown(&piece.path);
    let failed = |source| {
        let path = path();
        Error::Content { path, source }
    };
    let mut file = content.map_err(failed)?;
    if piece.offset > 0 {
        io::Seek::seek(&mut file, io::SeekFrom::Start(piece.offset)).map_err(failed)?;
    }
    let mut left = piece.bytes;
    // Large enough that a file of the usual size is one read, small enough to stay in the cache.
    let mut buffer = vec![0; usize::try_from(left.min(128 << 10)).unwrap_or(128 << 10)];
    while left > 0 {
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let length = match file.read(&mut buffer[..most]) {
            Ok(0) => return Err(Error::Changed { path: path() }),
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        };
        out.write_all(&buffer[..length]).map_err(Error::Write)?;
        left -= length as u64;
    }
    Ok(())
}

/// A recipe of kplay's own that is read.
struct Reader {
    input: BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>,
}

impl Reader {
    fn new(file: File) -> Result<Self, Error> {
        let inflated = zstd::stream::read::Decoder::new(file).map_err(Error::Read)?;
        let mut input = BufReader::with_capacity(VERBATIM_BYTES, inflated);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).map_err(read_error)?;
        if magic == MAGIC {
            Ok(Self { input })
        } else {
            Err(Error::Damaged)
        }
    }

    fn record(&mut self) -> Result<Record, Error> {
        Ok(match self.byte()? {
            VERBATIM => Record::Verbatim(self.bytes(VERBATIM_BYTES as u64)?),
            CONTENT => Record::Content(Piece {
                path: self.bytes(MOST_PATH)?,
                offset: self.number()?,
                bytes: self.number()?,
            }),
            REPLACED => Record::Replaced(Former {
                path: self.bytes(MOST_PATH)?,
                number: self.number()?,
                before: self.number()?,
            }),
            END => Record::End(Some(self.number()?)),
            _ => return Err(Error::Damaged),
        })
    }

    fn byte(&mut self) -> Result<u8, Error> {
        let mut byte = [0];
        self.input.read_exact(&mut byte).map_err(read_error)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<u64, Error> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::Damaged)
    }

    fn bytes(&mut self, most: u64) -> Result<Vec<u8>, Error> {
        let length = self.number()?;
        if length > most {
            return Err(Error::Damaged);
        }
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes).map_err(read_error)?;
        Ok(bytes)
    }
}

fn read_error(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        Error::Damaged
    } else {
        Error::Read(error)
    }
}
