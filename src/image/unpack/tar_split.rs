//! What podman, Buildah and CRI-O record of a layer's archive: `tar-split.gz`, one JSON object per line.
//!
//! ```text
//! {"type":2,"payload":BASE64,…}          bytes as they were
//! {"type":1,"name":PATH,"size":BYTES,…}  the content of a file; `name_raw` (BASE64) of a name that is no UTF-8
//! ```

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};

use base64::Engine as _;
use serde::Deserialize;

use super::path::clean;
use super::recipe::{Error, Piece, Record};

/// The record beside a layer that came from another engine.
pub(in super::super) const FILE: &str = "tar-split.gz";
/// Bytes of a line; padding after an archive's end may be long.
const MOST_LINE: u64 = 64 << 20;

const CONTENT: u64 = 1;
const VERBATIM: u64 = 2;

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: u64,
    #[serde(default)]
    name: String,
    name_raw: Option<String>,
    #[serde(default)]
    size: u64,
    payload: Option<String>,
}

/// A record that is read.
pub(super) struct Reader {
    input: BufReader<flate2::read::MultiGzDecoder<File>>,
    line: Vec<u8>,
}

impl Reader {
    pub(super) fn new(file: File) -> Self {
        let inflated = flate2::read::MultiGzDecoder::new(file);
        Self {
            input: BufReader::with_capacity(1 << 16, inflated),
            line: Vec::new(),
        }
    }

    pub(super) fn record(&mut self) -> Result<Record, Error> {
        loop {
            self.line.clear();
            let mut input = self.input.by_ref().take(MOST_LINE);
            let read = input.read_until(b'\n', &mut self.line);
            if read.map_err(Error::Read)? == 0 {
                return Ok(Record::End(None));
            }
            let line: Line = serde_json::from_slice(&self.line).map_err(|_| Error::Damaged)?;
            match line.kind {
                VERBATIM => return Ok(Record::Verbatim(decode(line.payload)?)),
                CONTENT if line.size > 0 => return Ok(Record::Content(piece(line)?)),
                CONTENT => {}
                _ => return Err(Error::Damaged),
            }
        }
    }
}

fn piece(line: Line) -> Result<Piece, Error> {
    let name = match line.name_raw {
        Some(raw) => decode(Some(raw))?,
        None => line.name.into_bytes(),
    };
    Ok(Piece {
        path: clean(&name).ok_or(Error::Damaged)?,
        offset: 0,
        bytes: line.size,
    })
}

fn decode(text: Option<String>) -> Result<Vec<u8>, Error> {
    let engine = base64::engine::general_purpose::STANDARD;
    let bytes = engine.decode(text.unwrap_or_default());
    bytes.map_err(|_| Error::Damaged)
}
