//! One layer's way from compressed bytes to a folder, as a stream:
//!
//! ```text
//! compressed ─ inflate, count, hash ─▶ blocks ─ hash, unpack ─▶ folder
//!              (the caller's thread)            (a thread for this layer)
//! ```
//!
//! Both digests and the size are checked before anything may be used; of several faults the one that caused the
//! others is reported.

#[cfg(test)]
mod tests;

use std::io::{self, BufRead, Cursor, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::unpack::archive::Source;
use super::unpack::{self, Limits, Place};

/// Bytes of a block between the two threads. Larger than most files, smaller than the processor's cache.
const BLOCK: usize = 128 << 10;
/// Blocks between the two threads: 2 MiB, so that one can go on while the other waits for the disk.
const BLOCKS: usize = 16;

/// As many bytes as [`Compression`] is known by.
const ENOUGH_TO_SNIFF: u64 = 8;

/// How many bytes compressed ones may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// So many in any case.
    pub(super) free: u64,
    /// So many for each compressed byte beyond that.
    pub(super) ratio: u64,
    /// More in no case.
    pub(super) most: u64,
}

impl Bound {
    /// Layers of real images have 2 to 10 bytes for each compressed one.
    pub(super) const USUAL: Self = Self {
        free: 4 << 30,
        ratio: 100,
        most: 1 << 40,
    };

    pub(super) fn of(self, compressed: u64) -> u64 {
        let more = compressed.saturating_mul(self.ratio);
        self.free.saturating_add(more).min(self.most)
    }
}

/// Why a layer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("its content has the digest {actual}")]
    Digest { actual: Digest },
    #[error(
        "its uncompressed content has the digest {actual}, and the configuration says {expected}"
    )]
    DiffId { expected: Digest, actual: Digest },
    #[error("it ends after {actual} of {expected} bytes")]
    Truncated { expected: u64, actual: u64 },
    #[error("it has more than the {expected} bytes that the manifest says")]
    TooLong { expected: u64 },
    #[error(
        "it is compressed with {0}, which registries do not serve; gzip and zstd are supported"
    )]
    Compression(&'static str),
    #[error("its compressed data is damaged")]
    Inflate(#[source] io::Error),
    #[error(
        "it has more than {most} bytes when uncompressed, which is more than such a layer may have"
    )]
    Bomb { most: u64 },
    #[error("cannot read it")]
    Read(#[source] io::Error),
    #[error("cannot start a thread to unpack it")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
}

/// What a layer has to be.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// Digest and size of the compressed bytes; an archive of `docker save` does not tell them.
    pub(super) blob: Option<(Digest, u64)>,
    pub(super) diff_id: Digest,
    /// Uncompressed bytes allowed; `None` is the usual bound.
    pub(super) most_bytes: Option<u64>,
}

/// Reads a layer to its end, unpacks it, and returns its uncompressed size in bytes.
///
/// # Errors
/// Why it cannot be used; what was written is then to be removed.
pub(super) fn unpack_verified(
    compressed: impl BufRead,
    expected: &Expected,
    place: &Place<'_>,
) -> Result<u64, Error> {
    let (send, receive) = sync_channel(BLOCKS);
    let (give_back, take_back) = channel();
    std::thread::scope(|scope| {
        let mut blocks = Blocks::new(receive, give_back);
        let unpacked = std::thread::Builder::new()
            .name("unpack".into())
            .spawn_scoped(scope, move || {
                let result = unpack::unpack(&mut blocks, place, &Limits::USUAL);
                (result, blocks.hash)
            })
            .map_err(Error::Thread)?;
        let inflated = inflate(compressed, expected, &send, &take_back);
        drop(send);
        let (unpacked, hash) = match unpacked.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // Input that is wrong makes the archive look wrong: the input's fault comes first.
        let size = inflated?;
        unpacked?;
        let actual = Digest::from_hash(hash);
        if actual == expected.diff_id {
            Ok(size)
        } else {
            let expected = expected.diff_id.clone();
            Err(Error::DiffId { expected, actual })
        }
    })
}

/// Sends the uncompressed bytes as blocks; checks the compressed ones. Returns how many were sent.
fn inflate(
    mut compressed: impl BufRead,
    expected: &Expected,
    send: &SyncSender<Vec<u8>>,
    take_back: &Receiver<Vec<u8>>,
) -> Result<u64, Error> {
    // The first bytes may come one by one.
    let mut start = Vec::new();
    let read = compressed
        .by_ref()
        .take(ENOUGH_TO_SNIFF)
        .read_to_end(&mut start);
    read.map_err(Error::Read)?;
    let compression = Compression::sniff(&start);
    let mut input = Counted {
        inner: Cursor::new(start).chain(compressed),
        hash: Sha256::new(),
        bytes: 0,
        most: expected.blob.as_ref().map_or(u64::MAX, |(_, size)| *size),
    };
    let sent = match compression {
        Compression::None => send_blocks(&mut input, expected, send, take_back, None),
        Compression::Gzip => {
            let mut inflated = flate2::bufread::MultiGzDecoder::new(&mut input);
            let counted = |d: &flate2::bufread::MultiGzDecoder<&mut Counted<_>>| d.get_ref().bytes;
            send_blocks(&mut inflated, expected, send, take_back, Some(&counted))
        }
        Compression::Zstd => {
            let inflated = zstd::stream::read::Decoder::with_buffer(&mut input);
            let mut inflated = inflated.map_err(Error::Inflate)?;
            let counted = |d: &zstd::stream::read::Decoder<'_, &mut Counted<_>>| d.get_ref().bytes;
            send_blocks(&mut inflated, expected, send, take_back, Some(&counted))
        }
        Compression::Other(name) => return Err(Error::Compression(name)),
    };
    match sent {
        // The rest is read for its digest: bytes damaged on the way are the cause of data that cannot be inflated.
        Ok(_) | Err(Error::Inflate(_)) => {
            check_blob(&mut input, expected)?;
            sent
        }
        Err(_) => sent,
    }
}

type CompressedBytes<'a, D> = Option<&'a dyn Fn(&D) -> u64>;

fn send_blocks<D: Read>(
    inflated: &mut D,
    expected: &Expected,
    send: &SyncSender<Vec<u8>>,
    take_back: &Receiver<Vec<u8>>,
    compressed: CompressedBytes<'_, D>,
) -> Result<u64, Error> {
    let mut sent = 0_u64;
    loop {
        let mut block = take_back.try_recv().unwrap_or_default();
        block.resize(BLOCK, 0);
        let length = fill_block(inflated, &mut block)?;
        block.truncate(length);
        sent += length as u64;
        let most = expected
            .most_bytes
            .unwrap_or_else(|| Bound::USUAL.of(compressed.map_or(sent, |bytes| bytes(inflated))));
        if sent > most {
            return Err(Error::Bomb { most });
        }
        // A receiver that has gone has an error of its own to tell.
        if length == 0 || send.send(block).is_err() {
            return Ok(sent);
        }
    }
}

fn fill_block(inflated: &mut impl Read, block: &mut [u8]) -> Result<usize, Error> {
    let mut length = 0;
    while length < block.len() {
        match inflated.read(&mut block[length..]) {
            Ok(0) => break,
            Ok(bytes) => length += bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(own_error(e)),
        }
    }
    Ok(length)
}

/// Tells an error of the input, which [`Counted`] wraps, from one of the decoder.
fn own_error(error: io::Error) -> Error {
    match error.downcast::<InputError>() {
        Ok(InputError::TooLong { expected }) => Error::TooLong { expected },
        Ok(InputError::Read(e)) => Error::Read(e),
        Err(e) => Error::Inflate(e),
    }
}

fn check_blob<R: BufRead>(input: &mut Counted<R>, expected: &Expected) -> Result<(), Error> {
    loop {
        let length = input.fill_buf().map_err(own_error)?.len();
        if length == 0 {
            break;
        }
        input.consume(length);
    }
    let Some((digest, size)) = &expected.blob else {
        return Ok(());
    };
    if input.bytes < *size {
        return Err(Error::Truncated {
            expected: *size,
            actual: input.bytes,
        });
    }
    let actual = Digest::from_hash(input.hash.clone());
    if actual == *digest {
        Ok(())
    } else {
        Err(Error::Digest { actual })
    }
}

/// How bytes are compressed, by how they start: media types are often wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    Other(&'static str),
}

impl Compression {
    pub(super) fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A frame that zstd skips; zstd:chunked puts one first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Other("xz"),
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            _ => Self::None,
        }
    }
}

/// Counts and hashes what is read, and stops at a limit.
struct Counted<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
    most: u64,
}

#[derive(Debug, thiserror::Error)]
enum InputError {
    #[error("more than {expected} bytes")]
    TooLong { expected: u64 },
    #[error("cannot read the input")]
    Read(#[source] io::Error),
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let length = bytes.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bytes = self.inner.fill_buf();
        let bytes = bytes.map_err(|e| io::Error::other(InputError::Read(e)))?;
        if self.bytes + bytes.len() as u64 > self.most {
            let expected = self.most;
            return Err(io::Error::other(InputError::TooLong { expected }));
        }
        Ok(bytes)
    }

    fn consume(&mut self, bytes: usize) {
        if bytes > 0
            // What is there is not read again.
            && let Ok(there) = self.inner.fill_buf()
        {
            self.hash.update(&there[..bytes]);
            self.bytes += bytes as u64;
        }
        self.inner.consume(bytes);
    }
}

/// The receiving end: hashes each block and gives its memory back.
struct Blocks {
    receive: Receiver<Vec<u8>>,
    give_back: Sender<Vec<u8>>,
    block: Vec<u8>,
    at: usize,
    hash: Sha256,
}

impl Blocks {
    fn new(receive: Receiver<Vec<u8>>, give_back: Sender<Vec<u8>>) -> Self {
        Self {
            receive,
            give_back,
            block: Vec::new(),
            at: 0,
            hash: Sha256::new(),
        }
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let length = bytes.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Blocks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.block.len()
            && let Ok(block) = self.receive.recv()
        {
            self.hash.update(&block);
            self.at = 0;
            let used = std::mem::replace(&mut self.block, block);
            // The sender may have gone, and then nobody needs it.
            self.give_back.send(used).ok();
        }
        Ok(&self.block[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl Source for &mut Blocks {}
