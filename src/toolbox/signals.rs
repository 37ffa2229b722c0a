//! SIGTERM and SIGINT for a process 1, which the kernel protects from signals that it does not handle.

use std::io;

use nix::sys::signal::{SigSet, Signal};

use super::Error;

/// What SIGTERM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnTerm {
    /// Ends the process with this code.
    Exit(u8),
    /// Nothing: only SIGKILL ends the process.
    Ignore,
}

/// The exit code of a process that SIGTERM ended, as a shell counts.
pub(super) const TERMINATED: OnTerm = OnTerm::Exit(128 + 15);

/// Handles both signals from now on. To be called before there are other threads: they take over that the signals
/// are blocked, so that only the waiting thread gets them.
pub(super) fn handle(on_term: OnTerm) -> Result<(), Error> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals
        .thread_block()
        .map_err(Error::system("block signals"))?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || wait(signals, on_term))
        .map_err(|e: io::Error| Error::System("start a thread", e))?;
    Ok(())
}

fn wait(signals: SigSet, on_term: OnTerm) {
    while let Ok(signal) = signals.wait() {
        match on_term {
            OnTerm::Exit(_) if signal == Signal::SIGINT => exit(128 + 2),
            OnTerm::Exit(code) => exit(code),
            OnTerm::Ignore => {}
        }
    }
}

/// Ends the process, whatever its other threads are doing.
#[expect(clippy::exit, reason = "an applet is the whole process")]
pub(super) fn exit(code: u8) -> ! {
    std::process::exit(code.into())
}

/// [`exit`] as a plain function.
pub(super) fn exit_with(code: u8) {
    exit(code)
}
