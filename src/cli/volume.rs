//! `volume ls|inspect|rm|prune`: what is kept for pods.

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::Value;

use super::apply;
use super::error::{Done, Error};
use super::inventory::Scope;
use super::resource;
use super::session::Session;
use crate::manager::delete::{self, DeleteOptions, Missing, Target, Volumes, Wait};
use crate::manager::report::pod_object;
use crate::manager::stop::Grace;
use crate::manager::storage::{self, Status, Stored};
use crate::manager::{self, Event};
use crate::model::cause::chain;
use crate::output::object::{self, Notation};
use crate::output::report::{self, Deed, Reality};
use crate::output::table::Headers;
use crate::output::volumes::{self, Row};

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// List claims, PersistentVolumes, and folders whose claim was deleted
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Print all about volumes, as JSON
    Inspect(InspectArgs),
    /// Remove claims with their folders, and PersistentVolumes but not their paths
    #[command(alias = "remove")]
    Rm(RmArgs),
    /// Remove the claims that no pod uses, and all folders of such claims
    Prune(PruneArgs),
}

/// Flags of `volume ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Print in this format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
    /// Show all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print no column names
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Yaml,
    Name,
}

/// Flags of `volume inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Print these: a claim's or a PersistentVolume's name, `pvc/NAME` or `pv/NAME`
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Flags of `volume rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Remove these: a claim's or a PersistentVolume's name, `pvc/NAME` or `pv/NAME`
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Delete the pods that use them, too; what is not there is no error
    #[arg(short, long)]
    force: bool,
}

/// Flags of `volume prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Look at all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// Runs a command about volumes.
///
/// # Errors
/// State cannot be read; a volume is not there, or is used by a pod.
pub(crate) fn run(command: &VolumeCommand, session: &Session) -> Result<Done, Error> {
    match command {
        VolumeCommand::Ls(arguments) => ls(arguments, session),
        VolumeCommand::Inspect(arguments) => inspect(arguments, session),
        VolumeCommand::Rm(arguments) => rm(arguments, session),
        VolumeCommand::Prune(arguments) => prune(arguments, session),
    }
}

fn scope(all_namespaces: bool, session: &Session) -> Scope {
    match all_namespaces {
        true => Scope::All,
        false => Scope::Namespace(session.namespace.clone()),
    }
}

fn read(scope: &Scope, session: &Session) -> Result<Vec<Stored>, Error> {
    let (mut all, unreadable) = storage::list(&session.layout)?;
    for error in &unreadable {
        session.ui.warning(&chain(error));
    }
    all.retain(|one| scope.has(&one.key.namespace));
    Ok(all)
}

fn row(stored: Stored) -> Row {
    let record = stored.record.as_ref();
    Row {
        status: stored.status.as_str(),
        created: record.map(|record| record.created),
        object: record.map(|record| object::stamped(&record.manifest, &record.uid, record.created)),
        key: stored.key,
        path: stored.path,
        users: stored.users,
    }
}

fn ls(arguments: &LsArgs, session: &Session) -> Result<Done, Error> {
    let scope = scope(arguments.all_namespaces, session);
    let rows: Vec<Row> = read(&scope, session)?.into_iter().map(row).collect();
    let headers = match arguments.no_headers {
        true => Headers::Hidden,
        false => Headers::Shown,
    };
    let lines = |text: fn(&Row) -> String| rows.iter().map(|row| text(row) + "\n").collect();
    let text = match arguments.output {
        Some(Format::Json) => object::text(&volumes::list(&rows), Notation::Json)?,
        Some(Format::Yaml) => object::text(&volumes::list(&rows), Notation::Yaml)?,
        Some(Format::Name) => lines(|row| row.key.to_string()),
        None if session.ui.is_quiet() => lines(|row| row.key.name.clone()),
        None if rows.is_empty() => {
            session.ui.talk("No volumes found");
            return Ok(Done::Well);
        }
        None => volumes::table(&rows, headers, arguments.all_namespaces, Timestamp::now()),
    };
    session.ui.data(text.as_bytes())?;
    Ok(Done::Well)
}

/// Those that are named, and that some are not there.
fn named(names: &[String], session: &Session) -> Result<(Vec<Stored>, Vec<Error>), Error> {
    let all = read(&scope(false, session), session)?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for text in names {
        let (kind, name) = match resource::find_typed(text) {
            Some((kind, name)) => (Some(kind.kind), name),
            None => (None, text.as_str()),
        };
        // Claims come first.
        let mut all_of_it = all.iter().filter(|one| one.key.name == name);
        match all_of_it.find(|one| kind.is_none_or(|kind| kind == one.key.kind)) {
            Some(one) => found.push(one.clone()),
            None => missing.push(not_found(name, &all)),
        }
    }
    found.sort_by(|a: &Stored, b| a.key.cmp(&b.key));
    found.dedup_by(|a, b| a.key == b.key);
    Ok((found, missing))
}

fn not_found(name: &str, all: &[Stored]) -> Error {
    let known = all.iter().map(|one| one.key.name.as_str());
    let hint = match resource::closest(name, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "`kplay volume ls -A` lists all".to_owned(),
    };
    Error::NotFound {
        message: format!("volumes \"{name}\" not found"),
        hint,
    }
}

/// Tells all errors but the last, which is returned.
fn all(mut errors: Vec<Error>, session: &Session) -> Result<Done, Error> {
    let Some(last) = errors.pop() else {
        return Ok(Done::Well);
    };
    errors.iter().for_each(|error| error.tell(&session.ui));
    Err(last)
}

fn inspect(arguments: &InspectArgs, session: &Session) -> Result<Done, Error> {
    let (found, missing) = named(&arguments.names, session)?;
    let objects: Vec<Value> = found
        .into_iter()
        .map(|one| volumes::object(&row(one)))
        .collect();
    let text = object::text(&Value::Array(objects), Notation::Json)?;
    session.ui.data(text.as_bytes())?;
    all(missing, session)
}

fn rm(arguments: &RmArgs, session: &Session) -> Result<Done, Error> {
    let (mut found, mut errors) = named(&arguments.names, session)?;
    let mut targets = Vec::new();
    if arguments.force {
        errors.clear();
        let users = found.iter().flat_map(|one| &one.users);
        targets.extend(users.map(|pod| Target::Object(pod_object(pod))));
    } else {
        // A claim's users are looked at again under its lock.
        found.retain(|one| {
            let user = one.users.first().filter(|_| one.key.kind == VOLUME);
            errors.extend(user.map(|pod| {
                let name = &one.key.name;
                Error::Refused(format!(
                    "the PersistentVolume `{name}` is in use by the pod `{pod}`"
                ))
            }));
            user.is_none()
        });
    }
    targets.extend(found.into_iter().map(|one| Target::Object(one.key)));
    if let Err(error) = remove(&targets, session) {
        errors.push(error);
    }
    all(errors, session)
}

const VOLUME: &str = "PersistentVolume";

fn remove(targets: &[Target], session: &Session) -> Result<(), Error> {
    let manager = apply::manager(session)?;
    let options = DeleteOptions {
        grace: Grace::Own,
        volumes: Volumes::Delete,
        missing: Missing::Ignore,
        wait: Wait::ForEnd,
    };
    let mut printed = Ok(());
    let removed = delete::delete(&manager, targets, options, &mut |event| {
        session.note(&event);
        let Event::Deleted(key) = event else {
            return;
        };
        if key.kind == "Pod" {
            let text = report::deed(&key, Deed::Deleted, Reality::Done);
            session.ui.talk(&text);
        } else if printed.is_ok() {
            printed = session.ui.line(&key.name);
        }
    });
    removed?;
    Ok(printed?)
}

fn prune(arguments: &PruneArgs, session: &Session) -> Result<Done, Error> {
    let mut unused = read(&scope(arguments.all_namespaces, session), session)?;
    unused.retain(|one| one.key.kind != VOLUME && one.users.is_empty());
    if unused.is_empty() || !(arguments.force || agreed(&unused, session)?) {
        return Ok(Done::Well);
    }
    remove_unused(unused, session)
}

/// Removes the claims of all namespaces that no pod uses.
///
/// # Errors
/// State cannot be read, something cannot be removed.
pub(crate) fn prune_all(session: &Session) -> Result<Done, Error> {
    let mut unused = read(&Scope::All, session)?;
    unused.retain(|one| one.key.kind != VOLUME && one.users.is_empty());
    remove_unused(unused, session)
}

fn remove_unused(unused: Vec<Stored>, session: &Session) -> Result<Done, Error> {
    let targets: Vec<Target> = unused
        .into_iter()
        .map(|one| Target::Object(one.key))
        .collect();
    match remove(&targets, session) {
        // A pod came in between: it is used now.
        Err(Error::Manager(error)) if is_use(&error) => Ok(Done::Well),
        removed => removed.map(|()| Done::Well),
    }
}

fn is_use(error: &manager::Error) -> bool {
    match error {
        manager::Error::InUse { .. } => true,
        manager::Error::Several(errors) => errors.iter().all(is_use),
        _ => false,
    }
}

/// Asks as podman does.
fn agreed(unused: &[Stored], session: &Session) -> Result<bool, Error> {
    let names: Vec<String> = unused
        .iter()
        .map(|one| match one.status {
            Status::Released => format!("  {} (its claim was deleted)", one.key.name),
            Status::Bound | Status::Available => format!("  {}", one.key.name),
        })
        .collect();
    let question = format!(
        "WARNING! This will remove all volumes not used by at least one pod. The following volumes will be removed:\n{}",
        names.join("\n")
    );
    session.agrees(&question, "volumes")
}
