//! Applets that let time pass.

use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::arguments::Arguments;
use super::{Error, files, out, signals};

/// A time that a person wrote: seconds with fractions, or `infinity`.
#[derive(Debug, PartialEq)]
struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "infinity" {
            return Ok(Self(Duration::MAX));
        }
        let number = text.strip_suffix('s').unwrap_or(text);
        if !number.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
            return Err(());
        }
        let seconds = number.parse().map_err(|_| ())?;
        Duration::try_from_secs_f64(seconds)
            .map(Self)
            .map_err(|_| ())
    }
}

pub(super) fn sleep(mut arguments: Arguments) -> Result<u8, Error> {
    let Seconds(time) = arguments.next("SECONDS")?;
    arguments.end()?;
    signals::handle(signals::TERMINATED)?;
    std::thread::sleep(time);
    Ok(0)
}

pub(super) const TICK: &str = "[--append FILE] [SECONDS [TEXT]]";

pub(super) fn tick(mut arguments: Arguments) -> Result<u8, Error> {
    let mut file = None;
    while let Some(option) = arguments.option() {
        match &*option {
            "--append" => file = Some(arguments.value::<PathBuf>("--append")?),
            other => return Err(arguments.unknown(other)),
        }
    }
    let interval = arguments.next_if_any("SECONDS")?;
    let Seconds(interval) = interval.unwrap_or(Seconds(Duration::from_secs(1)));
    let text = arguments.next_if_any::<String>("TEXT")?;
    let text = text.as_deref().unwrap_or("tick");
    arguments.end()?;
    signals::handle(signals::TERMINATED)?;
    for count in 1_u64.. {
        let line = format!("{text} {count}");
        if let Some(file) = &file {
            files::append_line(file, &line)?;
        }
        out(|out| writeln!(out, "{line}"))?;
        std::thread::sleep(interval);
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds() {
        let check = |text: &str, expected: Option<f64>| {
            let parsed = text.parse().ok().map(|Seconds(time)| time);
            assert_eq!(parsed, expected.map(Duration::from_secs_f64), "{text}");
        };
        check("0", Some(0.0));
        check("1.5", Some(1.5));
        check(".25", Some(0.25));
        check("10s", Some(10.0));
        for wrong in ["", "-1", "x", "1m", "nan", "inf", "1e400"] {
            check(wrong, None);
        }
        assert_eq!("infinity".parse(), Ok(Seconds(Duration::MAX)));
    }
}
