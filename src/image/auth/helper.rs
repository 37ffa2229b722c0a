//! Programs that keep credentials: `docker-credential-NAME get|store|erase`.
//!
//! The request goes to standard input, the answer comes from standard output as JSON. The environment is kplay's own.

use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Credentials;
use crate::sys::process;

/// How long a helper may take: it may ask a person to open a keyring.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much it may say.
const MOST_OUTPUT: u64 = 256 << 10;
/// The user name of a secret that is an identity token.
const TOKEN_USER: &str = "<token>";

/// What is wrong with a helper.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("there is no such program in PATH")]
    Missing,
    #[error("its name may have only letters, digits, `.`, `_` and `-`")]
    Name,
    #[error("it cannot be run")]
    Run(#[source] io::Error),
    #[error("it does not end within {} seconds", PATIENCE.as_secs())]
    Slow,
    #[error("its answer cannot be used")]
    Answer,
    /// What it wrote, which is a message then.
    #[error("{0}")]
    Said(String),
}

#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Asks for the credentials of a server; `None` if the helper has none.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Credentials>, Fault> {
    let answer = match run(name, "get", server.as_bytes().to_vec()) {
        Err(Fault::Said(message)) if says_none(&message) => return Ok(None),
        other => other?,
    };
    let kept: Kept = serde_json::from_slice(&answer).map_err(|_| Fault::Answer)?;
    Ok(match (kept.username.as_str(), kept.secret) {
        (_, secret) if secret.is_empty() => None,
        (TOKEN_USER, token) => Some(Credentials::Identity { token }),
        (username, password) => Some(Credentials::password(username, &password)),
    })
}

/// Gives a server's credentials to the helper.
pub(super) fn store(name: &str, server: &str, username: &str, secret: &str) -> Result<(), Fault> {
    let kept = Kept {
        server: server.to_owned(),
        username: username.to_owned(),
        secret: secret.to_owned(),
    };
    let request = serde_json::to_vec(&kept).map_err(|_| Fault::Answer)?;
    run(name, "store", request).map(drop)
}

/// Makes the helper forget a server; says whether it knew it.
pub(super) fn erase(name: &str, server: &str) -> Result<bool, Fault> {
    match run(name, "erase", server.as_bytes().to_vec()) {
        Err(Fault::Said(message)) if says_none(&message) => Ok(false),
        other => other.map(|_| true),
    }
}

/// The sentence of Docker's helpers.
fn says_none(message: &str) -> bool {
    message.contains("credentials not found")
}

fn run(name: &str, verb: &str, request: Vec<u8>) -> Result<Vec<u8>, Fault> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(Fault::Name);
    }
    let mut command = Command::new(format!("docker-credential-{name}"));
    command
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let child = process::spawn_with_default_signals(&mut command);
    let mut child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Fault::Missing,
        _ => Fault::Run(error),
    })?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (send, receive) = mpsc::channel();
    // Ends with the helper, which is ended if it is slow; what a child of the helper holds open is left to itself.
    std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A helper need not read.
            stdin.write_all(&request).ok();
        }
        let mut answer = Vec::new();
        let read = stdout.map_or(Ok(0), |stdout| {
            stdout.take(MOST_OUTPUT + 1).read_to_end(&mut answer)
        });
        // Nobody waits any more for one that is too slow.
        send.send(read.map(|_| answer)).ok();
    });
    let answer = receive.recv_timeout(PATIENCE);
    let is_whole = matches!(&answer, Ok(Ok(bytes)) if bytes.len() as u64 <= MOST_OUTPUT);
    if !is_whole {
        // It may have ended by itself.
        child.kill().ok();
    }
    let status = child.wait().map_err(Fault::Run)?;
    match answer {
        Err(_) => Err(Fault::Slow),
        Ok(Err(error)) => Err(Fault::Run(error)),
        Ok(Ok(_)) if !is_whole => Err(Fault::Answer),
        Ok(Ok(answer)) if status.success() => Ok(answer),
        Ok(Ok(answer)) => Err(Fault::Said(message(&answer, status))),
    }
}

fn message(answer: &[u8], status: std::process::ExitStatus) -> String {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or_default().trim();
    let line: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
    match line.is_empty() {
        true => format!("it ends with {status}"),
        false => format!("it says: {line}"),
    }
}
