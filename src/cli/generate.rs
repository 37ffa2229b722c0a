//! `generate systemd`: units that play manifests at boot.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::error::{Done, Error};
use super::manifests::{self, ManifestArgs, Publishing, ReadingArgs};
use super::quadlet;
use super::session::Session;
use crate::output::unit::{INSTANCE, Manager, Unit};
use crate::sys::identity;

/// What is written.
#[derive(Debug, Subcommand)]
pub(crate) enum GenerateCommand {
    /// Print a systemd unit that plays manifests
    ///
    /// With root it is for the system's manager: put it into /etc/systemd/system, then `systemctl enable --now` it.
    /// Without root it is for yours: ~/.config/systemd/user, and `systemctl --user`.
    ///
    /// FILE may be a `.kube` file as podman's Quadlet has them. Those in /etc/kplay/systemd or ~/.config/kplay/systemd become
    /// services by themselves if kplay is linked as /etc/systemd/system-generators/kplay-generator, or as
    /// /etc/systemd/user-generators/kplay-generator for users.
    Systemd(SystemdArgs),
}

/// Flags of `generate systemd`.
#[derive(Debug, Args)]
pub(crate) struct SystemdArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    /// Print the template kplay@.service, of which `systemd-escape FILE` is an instance
    #[arg(long)]
    template: bool,
    /// Give these flags to `kplay up`, too
    #[arg(last = true, value_name = "UP FLAGS")]
    up: Vec<String>,
}

/// Runs a command that writes.
///
/// # Errors
/// The manifests are wrong.
pub(crate) fn run(command: &GenerateCommand, session: &Session) -> Result<Done, Error> {
    let GenerateCommand::Systemd(arguments) = command;
    let text = match arguments.template {
        true => template(arguments, session)?.text(),
        false => of_files(arguments, session)?,
    };
    session.ui.data(text.as_bytes())?;
    Ok(Done::Well)
}

/// kplay itself has this much time more than its slowest pod.
const MARGIN: u64 = 30;
/// What pods have by themselves.
const GRACE: u64 = 30;

fn of_files(arguments: &SystemdArgs, session: &Session) -> Result<String, Error> {
    let names = arguments.manifests.names()?;
    let (global, words) = own_words()?;
    if let Some(file) = names.iter().find(|name| quadlet::is_named(name)) {
        if words.len() > 1 || !arguments.up.is_empty() {
            return Err(Error::usage(format!(
                "`{file}` says all itself: no other file and no flag can go with it"
            )));
        }
        return Ok(quadlet::service(Path::new(file), global, session)?.text);
    }
    if names.iter().any(|name| name == "-") {
        return Err(Error::usage(
            "a unit has no standard input: name the manifests' file",
        ));
    }
    let mut unit = of_manifests(&names, &arguments.manifests.reading, global, session)?;
    unit.folder = Some(text(&current_dir()?)?);
    unit.manifests = words;
    unit.up.clone_from(&arguments.up);
    Ok(unit.text())
}

/// A unit of these files. How they are read is to be said in its words.
///
/// # Errors
/// They are wrong.
pub(super) fn of_manifests(
    names: &[String],
    reading: &ReadingArgs,
    global: Vec<String>,
    session: &Session,
) -> Result<Unit, Error> {
    let loaded = manifests::load_valid(names, reading, Publishing::as_declared(), session)?;
    let graces = loaded
        .objects
        .iter()
        .filter_map(|object| object.plan.as_ref())
        .map(|plan| u64::from(plan.termination_grace_period));
    let current = current_dir()?;
    let absolute = |name: &String| {
        let path = current.join(name);
        path.exists().then(|| path.display().to_string())
    };
    let mut mounts: Vec<String> = names.iter().filter_map(absolute).collect();
    mounts.push(session.layout.root().display().to_string());
    Ok(Unit {
        description: format!("kplay: {}", names.join(", ")).replace('%', "%%"),
        stop_seconds: graces.max().unwrap_or(GRACE) + MARGIN,
        mounts,
        ..common(global, session)?
    })
}

fn current_dir() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|source| Error::Machine {
        what: "find the current folder",
        source,
    })
}

fn template(arguments: &SystemdArgs, session: &Session) -> Result<Unit, Error> {
    let args = &arguments.manifests;
    if !args.files.is_empty() || !args.filenames.is_empty() {
        return Err(Error::usage(
            "a template has no manifests of its own: its instances are their files",
        ));
    }
    let (global, mut words) = own_words()?;
    words.retain(|word| word != "--template");
    words.insert(0, INSTANCE.to_owned());
    Ok(Unit {
        description: format!("kplay: {INSTANCE}"),
        stop_seconds: GRACE + MARGIN,
        manifests: words,
        up: arguments.up.clone(),
        ..common(global, session)?
    })
}

fn common(global: Vec<String>, session: &Session) -> Result<Unit, Error> {
    let program = std::env::current_exe().map_err(|source| Error::Machine {
        what: "find kplay's own file",
        source,
    })?;
    let mut all = Vec::new();
    // What the environment says here is not said there.
    let named = [
        ("--root", "KPLAY_ROOT", session.layout.root()),
        ("--runroot", "KPLAY_RUNROOT", session.layout.runroot()),
    ];
    for (flag, variable, folder) in named {
        let is_given = global.iter().any(|word| word.starts_with(flag));
        if !is_given && std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
            all.push(format!("{flag}={}", folder.display()));
        }
    }
    all.extend(global);
    Ok(Unit {
        description: String::new(),
        program: text(&program)?,
        global: all,
        manifests: Vec::new(),
        up: Vec::new(),
        down: Vec::new(),
        source: None,
        folder: None,
        mounts: Vec::new(),
        stop_seconds: 0,
        manager: match identity::is_root() {
            true => Manager::System,
            false => Manager::User,
        },
    })
}

pub(super) fn text(path: &Path) -> Result<String, Error> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::usage(format!("{path:?} is no text, which a unit is")))
}

/// The words of this command line that stand before `generate`, and those after `systemd` up to `--`: as they were typed,
/// so that the unit's commands mean the same. `up` and `down` take them all.
fn own_words() -> Result<(Vec<String>, Vec<String>), Error> {
    let words: Result<Vec<String>, _> = std::env::args_os()
        .skip(1)
        .map(|w| w.into_string())
        .collect();
    let words =
        words.map_err(|word| Error::usage(format!("{word:?} is no text, which a unit is")))?;
    Ok(split_words(words))
}

fn split_words(words: Vec<String>) -> (Vec<String>, Vec<String>) {
    let position = |wanted: &str| words.iter().position(|word| word == wanted);
    let generate = position("generate").unwrap_or(0);
    let after = words.get(generate + 1..).unwrap_or_default();
    // Other global flags may stand between the two.
    let systemd = after.iter().position(|word| word == "systemd").unwrap_or(0);
    let (between, rest) = after.split_at(systemd);
    let own = rest.iter().skip(1).take_while(|word| *word != "--");
    let global = words.iter().take(generate).chain(between).cloned();
    (global.collect(), own.cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_command_line_are_kept() {
        let check = |line: &str, global: &[&str], own: &[&str]| {
            let words = line.split(' ').map(str::to_owned).collect();
            let (found_global, found_own) = split_words(words);
            assert_eq!(found_global, global, "{line}");
            assert_eq!(found_own, own, "{line}");
        };
        check("generate systemd web.yaml", &[], &["web.yaml"]);
        check(
            "--root /r generate systemd -f generate -n test -- --replace",
            &["--root", "/r"],
            &["-f", "generate", "-n", "test"],
        );
        check("generate -q systemd systemd", &["-q"], &["systemd"]);
    }
}
