//! `delete` and `down`.

use std::path::Path;

use clap::Args;

use super::apply;
use super::error::{Done, Error};
use super::inventory::{Inventory, Scope};
use super::manifests::{self, Publishing, ReadingArgs};
use super::resource;
use super::session::Session;
use super::values::GoDuration;
use crate::loader::Origin;
use crate::manager::delete::{self, DeleteOptions, Missing, Target, Volumes, Wait};
use crate::manager::report::pod_object;
use crate::manager::resolve::Kind;
use crate::manager::stop::{Force, Grace};
use crate::manager::{Event, Manager};
use crate::model::diagnostic::{Diagnostic, Severity};
use crate::output::report::{self, Deed, Reality};
use crate::state::lock::Subject;
use crate::state::pod_dir::PodDir;

/// Flags of `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Delete what these files name, or these objects: `TYPE NAME…`, `TYPE/NAME`
    #[arg(value_name = "FILE|TYPE NAME|TYPE/NAME")]
    what: Vec<String>,
    /// Delete what this file or folder names; `-` is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    filenames: Vec<String>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Delete all objects of the type, or of all types
    #[arg(long)]
    all: bool,
    /// Delete in all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Give the pods so many seconds to end; -1 is their own time
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    grace_period: Option<i64>,
    /// Kill the pods at once
    #[arg(long)]
    force: bool,
    /// Delete the content of claims, too
    #[arg(long)]
    volumes: bool,
    /// Do not mind what is not there
    #[arg(long)]
    ignore_not_found: bool,
    /// Return when everything is gone; `false` returns at once
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set)]
    wait: bool,
}

/// Flags of `down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    manifests: manifests::ManifestArgs,
    /// Delete the content of claims, too
    #[arg(short = 'v', long)]
    volumes: bool,
    /// Give the pods so much time to end
    #[arg(long, value_name = "DURATION")]
    timeout: Option<GoDuration>,
}

/// Deletes what is named.
///
/// # Errors
/// Something is not there, or cannot be removed.
pub(crate) fn run(arguments: &DeleteArgs, session: &Session) -> Result<Done, Error> {
    let targets = arguments.targets(session)?;
    let force = if arguments.force {
        Force::Yes
    } else {
        Force::No
    };
    let options = DeleteOptions {
        grace: Grace::from_flags(arguments.grace_period, force),
        volumes: volumes(arguments.volumes),
        missing: if arguments.ignore_not_found {
            Missing::Ignore
        } else {
            Missing::Error
        },
        wait: if arguments.wait {
            Wait::ForEnd
        } else {
            Wait::No
        },
    };
    let deed = if arguments.force {
        Deed::ForceDeleted
    } else {
        Deed::Deleted
    };
    delete(&apply::manager(session)?, &targets, options, deed, session)
}

/// Deletes what manifests name; what is not there is as it should be.
///
/// # Errors
/// A manifest is wrong, or something cannot be removed.
pub(crate) fn run_down(arguments: &DownArgs, session: &Session) -> Result<Done, Error> {
    let names = arguments.manifests.names()?;
    let volumes = volumes(arguments.volumes);
    let targets = of_files(&names, &arguments.manifests.reading, volumes, session)?;
    let options = DeleteOptions {
        grace: match arguments.timeout {
            None => Grace::Own,
            // As `--grace-period`, whole seconds and at least one.
            Some(GoDuration(time)) => {
                let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
                Grace::from_flags(Some(seconds), Force::No)
            }
        },
        volumes,
        missing: Missing::Ignore,
        wait: Wait::ForEnd,
    };
    let manager = apply::manager(session)?;
    delete(&manager, &targets, options, Deed::Deleted, session)
}

fn volumes(delete: bool) -> Volumes {
    if delete {
        Volumes::Delete
    } else {
        Volumes::Keep
    }
}

/// Deletes the targets and prints a line for each. A workload's line stands for its pods, too.
///
/// # Errors
/// Something is not there, or cannot be removed.
pub(crate) fn delete(
    manager: &Manager,
    targets: &[Target],
    options: DeleteOptions,
    deed: Deed,
    session: &Session,
) -> Result<Done, Error> {
    let inventory = Inventory::read(session, &Scope::All)?;
    let is_owned = |key| {
        let mut pods = inventory.pods.iter();
        pods.any(|pod| pod_object(&pod.key) == key && pod.view.record.owner.kind != "Pod")
    };
    let asked_for = |key| targets.contains(&Target::Object(key));
    let mut printed = Ok(());
    let deleted = delete::delete(manager, targets, options, &mut |event| {
        session.note(&event);
        match event {
            Event::Deleted(key) if is_owned(key.clone()) && !asked_for(key.clone()) => {
                session.ui.detail(&report::deed(&key, deed, Reality::Done));
            }
            Event::Deleted(key) => {
                let line = session.ui.line(&report::deed(&key, deed, Reality::Done));
                if printed.is_ok() {
                    printed = line;
                }
            }
            Event::Waiting(subject) => session.ui.talk(&waiting_for(&subject)),
            other => session.ui.detail(&format!("{other:?}")),
        }
    });
    deleted?;
    printed?;
    Ok(Done::Well)
}

/// What is told while another command has the lock of what this one is to work on.
pub(super) fn waiting_for(subject: &Subject) -> String {
    let object = match subject {
        Subject::Pod(key) => pod_object(key),
        Subject::Object(key) => key.clone(),
    };
    format!("waiting for another command that is at work on {object}")
}

impl DeleteArgs {
    fn targets(&self, session: &Session) -> Result<Vec<Target>, Error> {
        let namespace = &session.namespace;
        let scope = if self.all_namespaces {
            Scope::All
        } else {
            Scope::Namespace(namespace.clone())
        };
        let mut what = self.what.as_slice();
        let mut targets = Vec::new();
        let kinds = match what.split_first() {
            Some((first, names)) => match kinds(first) {
                Some(kinds) => {
                    what = names;
                    Some(kinds)
                }
                None => None,
            },
            None => None,
        };
        match (&kinds, self.all || self.reading.selector.is_some()) {
            (Some(kinds), true) if what.is_empty() => {
                return self.chosen(Some(kinds), &scope, session);
            }
            (None, true) if what.is_empty() && self.filenames.is_empty() => {
                return match (&self.reading.selector, &scope) {
                    (Some(_), _) => self.chosen(None, &scope, session),
                    (None, Scope::All) => Ok(vec![Target::All(None)]),
                    (None, Scope::Namespace(only)) => Ok(vec![Target::All(Some(only.clone()))]),
                };
            }
            (Some(kinds), _) => {
                if what.is_empty() {
                    return Err(Error::usage(
                        "name what to delete, or give `--all`: `kplay delete pod web`",
                    ));
                }
                for kind in kinds {
                    let objects = what.iter().map(|name| kind.object(namespace, name));
                    targets.extend(objects.map(Target::Object));
                }
                return Ok(targets);
            }
            (None, _) => {}
        }
        let mut files = self.filenames.clone();
        for text in what {
            match resource::find_typed(text).filter(|_| !Path::new(text).exists()) {
                Some((kind, name)) => targets.push(Target::Object(kind.object(namespace, name))),
                None => files.push(text.clone()),
            }
        }
        if files.is_empty() && targets.is_empty() {
            return Err(Error::usage(
                "name what to delete: `kplay delete web.yaml`, `kplay delete pod web`, `kplay delete --all`",
            ));
        }
        if !files.is_empty() {
            let volumes = volumes(self.volumes);
            targets.extend(of_files(&files, &self.reading, volumes, session)?);
        }
        Ok(targets)
    }

    /// Everything of these kinds (or of all) that has the labels.
    fn chosen(
        &self,
        kinds: Option<&[&'static Kind]>,
        scope: &Scope,
        session: &Session,
    ) -> Result<Vec<Target>, Error> {
        if let (Some(kinds), None, Scope::Namespace(namespace)) =
            (kinds, &self.reading.selector, scope)
        {
            // Also what cannot be read.
            let all = kinds.iter().map(|kind| Target::AllOf {
                kind: kind.kind,
                namespace: namespace.clone(),
            });
            return Ok(all.collect());
        }
        let inventory = Inventory::read(session, scope)?;
        let pods = inventory.pods.iter();
        let pods = pods.map(|pod| (pod_object(&pod.key), &pod.json));
        let others = inventory.objects.iter();
        let others = others.map(|object| (object.key.clone(), &object.json));
        let wanted = |kind: &str| kinds.is_none_or(|kinds| kinds.iter().any(|k| k.kind == kind));
        let selector = self.reading.selector.as_ref();
        Ok(pods
            .chain(others)
            .filter(|(key, json)| wanted(&key.kind) && super::get::is_chosen(json, selector))
            .map(|(key, _)| Target::Object(key))
            .collect())
    }
}

/// `pod`, `deploy,cm`: kinds, if that is all that a text names.
fn kinds(text: &str) -> Option<Vec<&'static Kind>> {
    text.split(',').map(Kind::parse).collect()
}

/// What files name, and with `--volumes` the claims that their templates have made. What else is to say about them is of
/// no interest here, unless nothing can be read.
fn of_files(
    names: &[String],
    reading: &ReadingArgs,
    volumes: Volumes,
    session: &Session,
) -> Result<Vec<Target>, Error> {
    let loaded = manifests::load(names, reading, Publishing::as_declared(), session)?;
    if loaded.has_errors() {
        let errors: Vec<Diagnostic> = loaded
            .diagnostics
            .into_iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .collect();
        session.ui.diagnostics(&errors);
        session
            .ui
            .hint("delete by name instead: `kplay get all` shows what there is");
        return Err(Error::Manifest);
    }
    let mut targets = Vec::new();
    for object in loaded.objects.into_iter().filter(|object| object.played) {
        let recorded = || crate::state::object::read(&session.layout, &object.key);
        let goes = match &object.origin {
            Origin::Files => true,
            Origin::Template => volumes == Volumes::Delete && recorded()?.is_some(),
            // It goes with its pod. One without was left behind by an `apply` that was killed.
            Origin::Volume(pod) => {
                !PodDir::new(&session.layout, pod).exists() && recorded()?.is_some()
            }
        };
        if goes {
            targets.push(Target::Object(object.key));
        }
    }
    Ok(targets)
}
