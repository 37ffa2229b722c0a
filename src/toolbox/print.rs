//! Applets that print what they are told.

use std::io::{self, Write};

use super::arguments::Arguments;
use super::{Error, out};

pub(super) const USAGE: &str = "[--stderr] [--no-newline] TEXT…";

pub(super) fn print(mut arguments: Arguments) -> Result<u8, Error> {
    let (mut stderr, mut end) = (false, "\n");
    while let Some(option) = arguments.option() {
        match &*option {
            "--stderr" => stderr = true,
            "--no-newline" => end = "",
            other => return Err(arguments.unknown(other)),
        }
    }
    let rest = arguments.rest();
    let texts: Vec<_> = rest.iter().map(|text| text.to_string_lossy()).collect();
    let line = texts.join(" ") + end;
    if stderr {
        io::stderr()
            .write_all(line.as_bytes())
            .map_err(Error::Output)?;
        return Ok(0);
    }
    out(|out| out.write_all(line.as_bytes()))
}

pub(super) fn fill_log(mut arguments: Arguments) -> Result<u8, Error> {
    let bytes = arguments.next("BYTES")?;
    arguments.end()?;
    let mut out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    fill(&mut out, bytes)
        .and_then(|()| out.flush())
        .map_err(Error::Output)?;
    Ok(0)
}

/// Writes numbered lines of 80 bytes, the last one shorter and without an end.
fn fill(out: &mut impl Write, bytes: u64) -> io::Result<()> {
    const LINE: u64 = 80;
    for number in 0..bytes / LINE {
        writeln!(out, "{number:012} {}", "x".repeat(66))?;
    }
    // Less than a line.
    out.write_all(&b"x".repeat((bytes % LINE) as usize))
}

#[cfg(test)]
mod tests {
    #[test]
    fn as_many_bytes_as_asked_for() {
        for bytes in [0, 1, 79, 80, 81, 1000] {
            let mut out = Vec::new();
            super::fill(&mut out, bytes).unwrap();
            assert_eq!(out.len() as u64, bytes);
            let text = String::from_utf8(out).unwrap();
            assert!(text.split_inclusive('\n').all(|line| line.len() <= 80));
        }
    }
}
