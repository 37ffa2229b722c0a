//! Flag values that are more than a text: each is checked while the command line is read.

use std::str::FromStr;
use std::time::Duration;

/// A duration as Go writes it: `30s`, `5m`, `1h30m`, `1.5s`, `250ms`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoDuration(pub(crate) Duration);

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidDuration {
    #[error("not a duration such as `30s`, `5m` or `1h30m`")]
    Form,
    #[error("a unit is missing: `s`, `m` or `h`")]
    NoUnit,
    #[error("must not be negative")]
    Negative,
    #[error("too long")]
    TooLong,
}

impl FromStr for GoDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        if text.starts_with('-') {
            return Err(InvalidDuration::Negative);
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(InvalidDuration::Form);
        }
        let mut sum = Duration::ZERO;
        while !rest.is_empty() {
            let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
            let (unit, after) = split(after, |c| c.is_alphabetic());
            sum = sum
                .checked_add(part(number, unit)?)
                .ok_or(InvalidDuration::TooLong)?;
            rest = after;
        }
        Ok(Self(sum))
    }
}

/// The longest start of which every character is wanted, and the rest.
fn split(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !wanted(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn part(number: &str, unit: &str) -> Result<Duration, InvalidDuration> {
    let number: f64 = number.parse().map_err(|_| InvalidDuration::Form)?;
    let seconds = match unit {
        "" => return Err(InvalidDuration::NoUnit),
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(InvalidDuration::Form),
    };
    // Go counts nanoseconds in 63 bits: 292 years.
    let total = number * seconds;
    if total > 9.2e9 {
        return Err(InvalidDuration::TooLong);
    }
    Duration::try_from_secs_f64(total).map_err(|_| InvalidDuration::Form)
}

/// `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not `NAME=VALUE`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_as_in_go() {
        let check = |text: &str, expected: Result<u64, InvalidDuration>| {
            let actual = text.parse().map(|GoDuration(d)| d.as_millis());
            assert_eq!(actual, expected.map(u128::from), "{text:?}");
        };
        check("30s", Ok(30_000));
        check("5m", Ok(300_000));
        check("1h30m", Ok(5_400_000));
        check("1.5s", Ok(1500));
        check("+250ms", Ok(250));
        check("0", Ok(0));
        check("0s", Ok(0));
        check("", Err(InvalidDuration::Form));
        check("30", Err(InvalidDuration::NoUnit));
        check("1h30", Err(InvalidDuration::NoUnit));
        check("s", Err(InvalidDuration::Form));
        check("1d", Err(InvalidDuration::Form));
        check("1..5s", Err(InvalidDuration::Form));
        check("-1s", Err(InvalidDuration::Negative));
        check("9999999h", Err(InvalidDuration::TooLong));
    }
}
