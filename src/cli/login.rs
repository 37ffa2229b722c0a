//! `login` and `logout`: credentials for registries, in podman's files and words.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use clap::Args;

use super::error::{Done, Error};
use super::registry::{AuthfileArgs, Hidden, TlsArgs, proxies};
use super::session::{Network, Session};
use crate::image::auth::{self, LoggedOut, Removed};
use crate::image::{self, Credentials, RegistryFault};
use crate::sys::terminal::RawMode;

/// SIGINT, as which Ctrl-C counts while the terminal is raw.
const INTERRUPT: i32 = 2;

/// Flags of `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Log in at this registry, or for what is below a path there
    #[arg(value_name = "REGISTRY[/PATH]", value_parser = key)]
    registry: Key,
    /// Log in as this user
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// Log in with this password
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<Hidden>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password", requires = "username")]
    password_stdin: bool,
    #[command(flatten)]
    files: AuthfileArgs,
    #[command(flatten)]
    tls: TlsArgs,
    /// Print as whom one is logged in, and do nothing
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    get_login: bool,
}

/// Flags of `logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// Forget the credentials of this registry, or of a path there
    #[arg(value_name = "REGISTRY[/PATH]", value_parser = key, required_unless_present = "all", conflicts_with = "all")]
    registry: Option<Key>,
    /// Forget those of all registries
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    files: AuthfileArgs,
}

/// A registry, or a path there.
#[derive(Clone, Debug)]
struct Key(String);

fn key(text: &str) -> Result<Key, String> {
    let bare = text.strip_prefix("https://");
    let bare = bare
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    let bare = bare.trim_end_matches('/');
    let fits = |c: char| c.is_ascii_alphanumeric() || ".:_-/[]".contains(c);
    match !bare.is_empty() && !bare.starts_with('/') && bare.chars().all(fits) {
        true => Ok(Key(bare.to_owned())),
        false => Err("not `HOST[:PORT]` or `HOST[:PORT]/PATH`".to_owned()),
    }
}

impl Key {
    fn registry(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }
}

/// Logs in, and keeps the credentials.
///
/// # Errors
/// The registry does not take them, or they cannot be kept.
pub(crate) fn login(arguments: &LoginArgs, session: &Session) -> Result<Done, Error> {
    let key = &arguments.registry;
    let places = arguments.files.places();
    let stored = auth::stored(&places, &key.0).map_err(image::Error::from)?;
    let stored = stored.map(|login| login.credentials);
    let user = stored.as_ref().and_then(Credentials::username);
    if arguments.get_login {
        let user = user.ok_or_else(|| Error::Refused(format!("not logged into {}", key.0)))?;
        session.ui.line(user)?;
        return Ok(Done::Well);
    }
    if session.network == Network::Forbidden {
        let message = "nobody can log in with `--offline`";
        return Err(Error::Refused(message.to_owned()));
    }
    if let (Some(stored), None, None) = (&stored, &arguments.username, &arguments.password) {
        session.ui.talk(&format!(
            "Authenticating with existing credentials for {}",
            key.0
        ));
        match verify(arguments, stored)? {
            Answer::Taken => {
                session.ui.line(&format!(
                    "Existing credentials are valid. Already logged in to {}",
                    key.registry()
                ))?;
                return Ok(Done::Well);
            }
            Answer::Refused => session
                .ui
                .talk("Existing credentials are invalid, please enter valid username and password"),
        }
    }
    let username = match &arguments.username {
        Some(username) => username.clone(),
        None => ask_name(user, session)?,
    };
    let password = match &arguments.password {
        Some(Hidden(password)) => password.clone(),
        None if arguments.password_stdin => password_from_stdin()?,
        None => ask_password(session)?,
    };
    match verify(arguments, &Credentials::password(&username, &password))? {
        Answer::Taken => {}
        Answer::Refused => {
            return Err(Error::Refused(format!(
                "error logging into \"{}\": invalid username/password",
                key.registry()
            )));
        }
    }
    let Some(path) = places.first() else {
        return Err(Error::Refused(
            "there is no place for credentials".to_owned(),
        ));
    };
    auth::save(path, &key.0, &username, &password).map_err(image::Error::from)?;
    session.ui.line("Login Succeeded!")?;
    Ok(Done::Well)
}

/// Forgets credentials.
///
/// # Errors
/// There are none, or the file cannot be changed.
pub(crate) fn logout(arguments: &LogoutArgs, session: &Session) -> Result<Done, Error> {
    let places = arguments.files.places();
    let Some(path) = places.first() else {
        return Err(Error::Refused(
            "there is no place for credentials".to_owned(),
        ));
    };
    let Some(Key(key)) = &arguments.registry else {
        match auth::log_out_of_all(path).map_err(image::Error::from)? {
            Removed::Some => session
                .ui
                .line("Removed login credentials for all registries")?,
            Removed::Nothing => session.ui.line("Not logged into any registry")?,
        }
        return Ok(Done::Well);
    };
    let message = match auth::log_out(&places, path, key).map_err(image::Error::from)? {
        LoggedOut::Removed => {
            session
                .ui
                .line(&format!("Removed login credentials for {key}"))?;
            return Ok(Done::Well);
        }
        LoggedOut::NotLoggedIn => format!("not logged into {key}"),
        LoggedOut::Elsewhere(origin) => format!(
            "not logged into {key} with kplay or podman: there are credentials {origin}, which other tools made"
        ),
    };
    Err(Error::Refused(message))
}

enum Answer {
    Taken,
    Refused,
}

fn verify(arguments: &LoginArgs, credentials: &Credentials) -> Result<Answer, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Machine {
            what: "ask the registry",
            source,
        })?;
    let (registry, tls, proxies) = (arguments.registry.registry(), &arguments.tls, proxies());
    let registries = tls.registries();
    let verified = auth::verify(registry, credentials, tls.verify(), &registries, &proxies);
    match runtime.block_on(verified) {
        Ok(()) => Ok(Answer::Taken),
        Err(RegistryFault::Unauthorized { .. }) => Ok(Answer::Refused),
        Err(fault) => Err(Error::Login {
            registry: registry.to_owned(),
            source: Box::new(fault),
        }),
    }
}

fn ask_name(existing: Option<&str>, session: &Session) -> Result<String, Error> {
    needs_terminal()?;
    session.ui.ask(&match existing {
        Some(existing) => format!("Username ({existing}): "),
        None => "Username: ".to_owned(),
    });
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(unread)?;
    match (line.trim(), existing) {
        ("", Some(existing)) => Ok(existing.to_owned()),
        ("", None) => Err(Error::usage("a user name is needed")),
        (name, _) => Ok(name.to_owned()),
    }
}

/// Reads a line that is not shown. The keys that end a command do so here as well.
fn ask_password(session: &Session) -> Result<String, Error> {
    needs_terminal()?;
    // First the mode: who answers at once is not shown either.
    let typed = RawMode::enter().and_then(|_raw| {
        session.ui.ask("Password: ");
        typed_line(&mut io::stdin().lock())
    });
    session.ui.talk("");
    typed.map_err(unread)?.ok_or(Error::Signal(INTERRUPT))
}

/// What was typed up to the end of the line; `None` if it was broken off.
fn typed_line(keys: &mut impl io::BufRead) -> io::Result<Option<String>> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const ERASE: [u8; 2] = [8, 127];
    const KILL: u8 = 21;
    let mut line = Vec::new();
    for key in keys.bytes() {
        match key? {
            b'\r' | b'\n' | END => break,
            INTERRUPT => return Ok(None),
            KILL => line.clear(),
            key if ERASE.contains(&key) => {
                // The whole of a character of several bytes.
                while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {}
            }
            key => line.push(key),
        }
    }
    String::from_utf8(line)
        .map(Some)
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

fn password_from_stdin() -> Result<String, Error> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(1 << 20)
        .read_to_string(&mut text)
        .map_err(unread)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn needs_terminal() -> Result<(), Error> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Error::usage(
        "standard input is no terminal: give `--username USER --password-stdin`",
    ))
}

fn unread(source: io::Error) -> Error {
    Error::Machine {
        what: "read standard input",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_a_line() {
        let check = |keys: &[u8], expected: Option<&str>| {
            let line = typed_line(&mut &keys[..]).expect("readable");
            assert_eq!(line.as_deref(), expected, "{keys:?}");
        };
        check(b"secret\rrest", Some("secret"));
        check(b"secrey\x7ft\n", Some("secret"));
        check("sé\x7f\x7fx\r".as_bytes(), Some("x"));
        check(b"wrong\x15right\x04", Some("right"));
        check(b"sec\x03ret\r", None);
        check(b"", Some(""));
    }

    #[test]
    fn registries_as_they_are_typed() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let key = key(text).ok();
            let found = key.as_ref().map(|key| (key.0.as_str(), key.registry()));
            assert_eq!(found, expected, "{text}");
        };
        check("quay.io", Some(("quay.io", "quay.io")));
        check("https://quay.io/", Some(("quay.io", "quay.io")));
        check("[::1]:5000/a/b", Some(("[::1]:5000/a/b", "[::1]:5000")));
        check("", None);
        check("/a", None);
        check("user@host", None);
        check("a b", None);
    }
}
