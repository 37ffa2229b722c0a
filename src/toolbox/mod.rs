//! The applets of the embedded image: small programs to see what a pod sees and to fail on demand.
//!
//! The image's only file is a copy of this binary as `/toolbox`; the first argument names the applet. What runs here
//! runs as process 1 of a container, for which signals have no default action, so that every applet that stays
//! takes SIGTERM itself.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage; 143 when SIGTERM ended it (`http`: 0).
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "the toolbox names nothing else in this crate, `sys` included"
)]

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod arguments;
mod clock;
mod echo;
mod ending;
mod fetch;
mod files;
mod grpc_health;
mod http;
mod identity;
mod lookup;
mod print;
mod say;
mod signals;
mod sink;
mod stat;

use arguments::Arguments;

/// Why an applet did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("cannot {verb} {path:?}")]
    File {
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

impl Error {
    /// For `map_err`: a file that could not be worked on.
    fn file(verb: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::File {
            verb,
            path: path.to_owned(),
            source,
        }
    }

    /// For `map_err`: a system call of `nix` that failed.
    fn system(what: &'static str) -> impl Fn(nix::Error) -> Self {
        move |errno| Self::System(what, errno.into())
    }
}

/// One applet.
struct Applet {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    /// Returns the exit code.
    run: fn(Arguments) -> Result<u8, Error>,
}

/// All applets, in the order of `help`.
const APPLETS: &[Applet] = &[
    applet("http", http::USAGE, "serve what the pod sees", http::run),
    applet(
        "grpc-health",
        grpc_health::USAGE,
        "answer grpc.health.v1",
        grpc_health::run,
    ),
    applet(
        "tcp-echo",
        "--port PORT",
        "send back what a connection sends",
        echo::tcp,
    ),
    applet(
        "tcp-sink",
        "--port PORT",
        "take what a connection sends, and say how much it was",
        sink::run,
    ),
    applet("udp-echo", "--port PORT", "send back datagrams", echo::udp),
    applet(
        "say",
        say::USAGE,
        "send a text, print what comes back",
        say::run,
    ),
    applet(
        "lookup",
        lookup::USAGE,
        "look a name up, as programs do",
        lookup::run,
    ),
    applet("fetch", fetch::USAGE, "print a web page", fetch::run),
    applet("print", print::USAGE, "print the texts", print::print),
    applet(
        "fill-log",
        "BYTES",
        "print lines, BYTES in all",
        print::fill_log,
    ),
    applet(
        "tick",
        clock::TICK,
        "print a line per interval, by default a second",
        clock::tick,
    ),
    applet(
        "sleep",
        "SECONDS|infinity",
        "do nothing; fractions are fine",
        clock::sleep,
    ),
    applet(
        "cat",
        "[FILE…]",
        "print files, or standard input",
        files::cat,
    ),
    applet("ls", "[DIR]", "list a folder", files::ls),
    applet(
        "stat",
        "[--no-follow] PATH…",
        "print mode, owner, type, size and file system",
        stat::stat,
    ),
    applet(
        "write",
        "FILE TEXT",
        "replace a file by a line",
        files::write,
    ),
    applet(
        "append",
        "FILE TEXT",
        "append a line to a file",
        files::append,
    ),
    applet(
        "wait-file",
        "PATH",
        "wait until a file is there",
        files::wait_file,
    ),
    applet(
        "setuid-copy",
        "FILE",
        "copy this program, to run as the file's owner",
        files::setuid_copy,
    ),
    applet("env", "", "print the environment, sorted", identity::env),
    applet("id", "", "print user and groups, as numbers", identity::id),
    applet("caps", "", "print the capabilities", identity::caps),
    applet(
        "seccomp",
        "",
        "print the seccomp mode and no_new_privs",
        identity::seccomp,
    ),
    applet("mounts", "", "print what is mounted", identity::mounts),
    applet(
        "eat-memory",
        "MIB",
        "take memory and keep it",
        ending::eat_memory,
    ),
    applet(
        "fork-bomb",
        "PROCESSES",
        "start processes that only SIGKILL ends, and keep them",
        ending::fork_bomb,
    ),
    applet("exit", "CODE", "exit with a code", ending::exit),
    applet("kill-self", "SIGNAL", "die by a signal", ending::kill_self),
    applet("true", "", "succeed", ending::succeed),
    applet("false", "", "fail", ending::fail),
    applet("help", "", "print this list", help),
];

const fn applet(
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(Arguments) -> Result<u8, Error>,
) -> Applet {
    Applet {
        name,
        arguments,
        about,
        run,
    }
}

/// Whether a program that was started under this name is the toolbox.
#[must_use]
pub fn is_named_by(argv0: &OsStr) -> bool {
    Path::new(argv0).file_name() == Some(OsStr::new("toolbox"))
}

/// Runs the applet that the first argument names; `arguments` are those after the program's own name.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let code = match run(arguments.into_iter().collect()) {
        Ok(code) => code,
        // Whoever read the output has seen enough.
        Err(Error::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            report(&error);
            match error {
                Error::Usage(_) => 2,
                Error::File { .. } | Error::System(..) | Error::Output(_) => 1,
            }
        }
    };
    ExitCode::from(code)
}

fn run(mut arguments: VecDeque<OsString>) -> Result<u8, Error> {
    let Some(name) = arguments.pop_front() else {
        return Err(Error::Usage(format!("which applet?\n{}", list())));
    };
    match APPLETS.iter().find(|applet| name == applet.name) {
        Some(applet) => (applet.run)(Arguments::new(applet.name, applet.arguments, arguments)),
        None => Err(Error::Usage(format!(
            "there is no applet {name:?}\n{}",
            list()
        ))),
    }
}

fn list() -> String {
    let line = |applet: &Applet| {
        let call = format!("{} {}", applet.name, applet.arguments);
        format!("  {call:<58} {}\n", applet.about)
    };
    let lines: String = APPLETS.iter().map(line).collect();
    format!("applets:\n{}", lines.trim_end())
}

fn help(arguments: Arguments) -> Result<u8, Error> {
    arguments.end()?;
    out(|out| writeln!(out, "usage: toolbox APPLET [ARGUMENT…]\n{}", list()))
}

/// Writes to standard output; succeeds.
fn out(write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) -> Result<u8, Error> {
    let mut out = io::stdout().lock();
    write(&mut out)
        .and_then(|()| out.flush())
        .map_err(Error::Output)?;
    Ok(0)
}

/// Writes an error and its causes to standard error.
fn report(error: &Error) {
    let mut text = format!("toolbox: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    // There is nowhere left to say that this failed.
    writeln!(io::stderr(), "{text}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            ("toolbox", true),
            ("/toolbox", true),
            ("bin/toolbox", true),
            ("kplay", false),
            ("/toolbox/kplay", false),
            ("", false),
        ] {
            assert_eq!(is_named_by(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn usage() {
        for (arguments, expected) in [
            (&[][..], "which applet?"),
            (&["nonsense"], "there is no applet \"nonsense\""),
            (&["sleep"], "`sleep` needs SECONDS"),
            (&["sleep", "x"], "SECONDS cannot be \"x\""),
            (&["exit", "256"], "CODE cannot be \"256\""),
            (&["true", "x"], "`true` takes no \"x\""),
            (&["http", "--prot", "1"], "`http` takes no \"--prot\""),
            (&["http", "--port"], "`--port` needs a value"),
            (&["lookup"], "`lookup` needs NAME"),
            (&["lookup", "a", "NONSENSE"], "TYPE cannot be \"NONSENSE\""),
            (&["lookup", "a..b"], "NAME cannot be \"a..b\""),
            (&["say", "db:1"], "`say` needs TEXT"),
            (&["fetch", "a b"], "URL cannot be \"a b\""),
            (
                &["fetch", "--timeout", "0", "a"],
                "--timeout cannot be \"0\"",
            ),
            (&["kill-self", "9x"], "SIGNAL cannot be \"9x\""),
        ] {
            let error =
                run(arguments.iter().map(OsString::from).collect()).expect_err("wrong usage");
            assert!(
                error.to_string().starts_with(expected),
                "{arguments:?}: {error}"
            );
            assert!(matches!(error, Error::Usage(_)));
        }
    }

    #[test]
    fn simple_applets() {
        let run = |arguments: &[&str]| run(arguments.iter().map(OsString::from).collect()).ok();
        assert_eq!(run(&["true"]), Some(0));
        assert_eq!(run(&["false"]), Some(1));
        assert_eq!(run(&["exit", "42"]), Some(42));
        assert_eq!(run(&["help"]), Some(0));
    }
}
