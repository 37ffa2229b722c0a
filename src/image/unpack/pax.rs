//! Extended headers: what PAX records and GNU's long names say about the entry that follows them.

use crate::sys::beneath::Time;

/// What extended headers said, until an entry takes it.
#[derive(Debug, Default)]
pub(super) struct Extended {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    /// GNU's `L`: before `path`, as in Go.
    pub(super) long_path: Option<Vec<u8>>,
    /// GNU's `K`.
    pub(super) long_target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) time: Option<Time>,
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Size of a file with its holes.
    pub(super) real_size: Option<u64>,
    /// The name of a file with holes; `path` is then a placeholder.
    sparse_path: Option<Vec<u8>>,
    /// Format 1.0: the map of holes is before the content.
    pub(super) sparse_in_content: bool,
    /// Formats 0.0 and 0.1: offsets and lengths.
    pub(super) pieces: Vec<(u64, u64)>,
    next_piece: Option<u64>,
    sparse: bool,
}

impl Extended {
    /// Takes the records of a PAX header: `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
    pub(super) fn add_records(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        const BROKEN: &str = "a PAX record that breaks the format";
        while !bytes.is_empty() {
            let space = bytes
                .iter()
                .take(20)
                .position(|byte| *byte == b' ')
                .ok_or(BROKEN)?;
            let length = number(&bytes[..space]).ok_or(BROKEN)?;
            let length = usize::try_from(length).map_err(|_| BROKEN)?;
            let record = bytes.get(space + 1..length).ok_or(BROKEN)?;
            let record = record.strip_suffix(b"\n").ok_or(BROKEN)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(BROKEN)?;
            self.add(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    /// The path, by the header that comes first.
    pub(super) fn path(&mut self) -> Option<Vec<u8>> {
        let placeholder = self.path.take();
        self.long_path
            .take()
            .or(self.sparse_path.take())
            .or(placeholder)
    }

    /// The link's target, by the header that comes first.
    pub(super) fn target(&mut self) -> Option<Vec<u8>> {
        self.long_target.take().or(self.target.take())
    }

    /// Whether the file has holes.
    pub(super) fn is_sparse(&self) -> bool {
        self.sparse
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const NUMBER: &str = "a PAX record that is no number";
        let parsed = || number(value).ok_or(NUMBER);
        match key {
            // An empty value takes back what was said before.
            b"path" => self.path = some(value),
            b"linkpath" => self.target = some(value),
            b"size" if value.is_empty() => self.size = None,
            b"size" => self.size = Some(parsed()?),
            b"uid" if value.is_empty() => self.uid = None,
            b"uid" => self.uid = Some(parsed()?),
            b"gid" if value.is_empty() => self.gid = None,
            b"gid" => self.gid = Some(parsed()?),
            // A time that is no number is not worth refusing an image for.
            b"mtime" => self.time = time(value),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attributes.push((name.to_vec(), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.add_sparse(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn add_sparse(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const NUMBER: &str = "a map of holes that is no number";
        self.sparse = true;
        match key {
            b"name" => self.sparse_path = some(value),
            b"realsize" | b"size" => self.real_size = Some(number(value).ok_or(NUMBER)?),
            b"major" => self.sparse_in_content = value == b"1",
            b"offset" => self.next_piece = Some(number(value).ok_or(NUMBER)?),
            b"numbytes" => {
                let offset = self.next_piece.take().ok_or(NUMBER)?;
                self.pieces.push((offset, number(value).ok_or(NUMBER)?));
            }
            b"map" => {
                let numbers: Option<Vec<u64>> =
                    value.split(|byte| *byte == b',').map(number).collect();
                let (pairs, []) = numbers.as_deref().ok_or(NUMBER)?.as_chunks::<2>() else {
                    return Err(NUMBER);
                };
                self.pieces = pairs
                    .iter()
                    .map(|[offset, bytes]| (*offset, *bytes))
                    .collect();
            }
            _ => {}
        }
        Ok(())
    }
}

/// A decimal number without sign.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    // `parse` takes a `+`.
    let text = std::str::from_utf8(digits).ok()?;
    text.starts_with(|c: char| c.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Seconds with an optional fraction, possibly before 1970.
fn time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let mut digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.try_fold(0_u32, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + u32::from(digit - b'0'))
    })?;
    // The kernel counts the fraction upwards, also before 1970.
    Some(match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Time {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
        (_, nanoseconds) => Time {
            seconds,
            nanoseconds,
        },
    })
}

fn some(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_fraction_and_may_be_before_1970() {
        let check = |text: &str, expected: Option<(i64, u32)>| {
            let found = time(text.as_bytes()).map(|t| (t.seconds, t.nanoseconds));
            assert_eq!(found, expected, "{text:?}");
        };
        check("12", Some((12, 0)));
        check("12.5", Some((12, 500_000_000)));
        check("12.1234567899", Some((12, 123_456_789)));
        check("-1.25", Some((-2, 750_000_000)));
        check("-0.5", Some((-1, 500_000_000)));
        check("x", None);
        check("1.x", None);
    }

    #[test]
    fn records_are_counted_not_split() {
        let check = |text: &[u8], expected: Result<Option<&[u8]>, ()>| {
            let mut extended = Extended::default();
            let read = extended.add_records(text);
            let found = read.map(|()| extended.attributes.first().map(|a| a.1.clone()));
            assert_eq!(
                found.map_err(drop),
                expected.map(|o| o.map(<[u8]>::to_vec)),
                "{text:?}"
            );
        };
        check(b"25 SCHILY.xattr.user.a=1\n", Ok(Some(b"1")));
        check(b"27 SCHILY.xattr.user.a=1\n2\n", Ok(Some(b"1\n2")));
        check(b"9 other=\n", Ok(None));
        check(b"99 path=a\n", Err(()));
        check(b"9 path=ab", Err(()));
        check(b"-9 path=a\n", Err(()));
        check(b"18446744073709551615 a=b\n", Err(()));
        check(b"2 x=y\n", Err(()));
        check(b"11 size=-1\n", Err(()));
    }
}
