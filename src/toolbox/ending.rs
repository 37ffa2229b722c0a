//! Applets that end in a certain way.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::str::FromStr;

use nix::sys::signal::{self, Signal};

use super::arguments::Arguments;
use super::{Error, out, signals};

pub(super) fn succeed(arguments: Arguments) -> Result<u8, Error> {
    arguments.end()?;
    Ok(0)
}

pub(super) fn fail(arguments: Arguments) -> Result<u8, Error> {
    arguments.end()?;
    Ok(1)
}

pub(super) fn exit(mut arguments: Arguments) -> Result<u8, Error> {
    let code = arguments.next("CODE")?;
    arguments.end()?;
    Ok(code)
}

/// Starts processes until there are so many, or no more can be started, and keeps them.
pub(super) fn fork_bomb(mut arguments: Arguments) -> Result<u8, Error> {
    let most: usize = arguments.next("PROCESSES")?;
    arguments.end()?;
    signals::handle(signals::TERMINATED)?;
    let mut children = Vec::new();
    let refusal = loop {
        if children.len() == most {
            break None;
        }
        let child = Command::new("/proc/self/exe")
            .arg0("toolbox")
            .args(["http", "--port=0", "--ignore-term"])
            .stdout(Stdio::null())
            .spawn();
        match child {
            Ok(child) => children.push(child),
            Err(error) => break Some(error),
        }
    };
    out(|out| {
        let count = children.len();
        match refusal {
            None => writeln!(out, "{count} processes"),
            Some(error) => writeln!(out, "{count} processes, then: {error}"),
        }
    })?;
    loop {
        std::thread::park();
    }
}

/// A signal by its name, with or without `SIG`, or by its number.
struct SignalName(Signal);

impl FromStr for SignalName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(number) = text.parse::<i32>() {
            return Signal::try_from(number).map(Self).map_err(|_| ());
        }
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        format!("SIG{name}").parse().map(Self).map_err(|_| ())
    }
}

pub(super) fn kill_self(mut arguments: Arguments) -> Result<u8, Error> {
    let SignalName(signal) = arguments.next("SIGNAL")?;
    arguments.end()?;
    signal::raise(signal).map_err(Error::system("send a signal"))?;
    Ok(128 + signal as u8)
}

pub(super) fn eat_memory(mut arguments: Arguments) -> Result<u8, Error> {
    const MIB: usize = 1024 * 1024;
    let mib: usize = arguments.next("MIB")?;
    arguments.end()?;
    signals::handle(signals::TERMINATED)?;
    let mut eaten = Vec::new();
    for _ in 0..mib {
        // Not zero: such pages would come from the kernel untouched.
        eaten.push(vec![1_u8; MIB]);
    }
    out(|out| writeln!(out, "{} MiB", std::hint::black_box(&eaten).len()))?;
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_names() {
        let check = |text: &str, expected: Option<Signal>| {
            assert_eq!(
                text.parse().ok().map(|SignalName(signal)| signal),
                expected,
                "{text}"
            );
        };
        check("TERM", Some(Signal::SIGTERM));
        check("sigusr1", Some(Signal::SIGUSR1));
        check("9", Some(Signal::SIGKILL));
        for wrong in ["", "0", "99", "NOPE", "SIGSIGTERM", "SIG"] {
            check(wrong, None);
        }
    }
}
