//! `wait`.

use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::apply;
use super::error::{Done, Error};
use super::inventory::{self, Inventory, Object, Scope};
use super::manifests::{self, Publishing, ReadingArgs};
use super::resource;
use super::session::Session;
use super::target;
use super::values::GoDuration;
use crate::manager::Event;
use crate::manager::report::pod_object;
use crate::manager::wait::{self, Condition, Verdict};
use crate::model::names::{ObjectKey, PodKey};
use crate::model::status::{ConditionStatus, Phase};
use crate::output::jsonpath::{self, JsonPath};
use crate::output::object::{array, string};
use crate::output::report::{self, Deed, Reality};
use crate::state::view::PodView;

/// Flags of `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Wait for these pods: names, TYPE/NAME, workloads' names, or files
    #[arg(value_name = "POD|FILE")]
    what: Vec<String>,
    /// Wait for the pods of this file or folder
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    filenames: Vec<String>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Wait for all pods
    #[arg(long)]
    all: bool,
    /// Wait for this: `condition=Ready`, `condition=Complete`, `condition=NAME=VALUE`, `jsonpath={.a.b}=VALUE`,
    /// `delete`
    #[arg(long = "for", value_name = "CONDITION")]
    goal: Goal,
    /// Give up after this time; 0 looks once
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: GoDuration,
}

/// `--for`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Goal {
    Known(Condition),
    /// Another condition of the pod's status.
    Condition {
        name: String,
        status: ConditionStatus,
    },
    /// A field that is there, or has this value.
    Field {
        path: JsonPath,
        value: Option<String>,
    },
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if lower == "delete" {
            return Ok(Self::Known(Condition::Deleted));
        }
        if let Some(name) = lower.strip_prefix("condition=") {
            let (name, value) = name.split_once('=').unwrap_or((name, "true"));
            let status = match value {
                "true" => ConditionStatus::True,
                "false" => ConditionStatus::False,
                "unknown" => ConditionStatus::Unknown,
                _ => return Err(format!("`{value}` is not true, false or unknown")),
            };
            return Ok(match (name, status) {
                ("", _) => return Err("the condition has no name".to_owned()),
                // A Deployment of one pod is available when that pod is ready.
                ("ready" | "available", ConditionStatus::True) => Self::Known(Condition::Ready),
                ("complete", ConditionStatus::True) => Self::Known(Condition::Complete),
                (name, status) => Self::Condition {
                    name: name.to_owned(),
                    status,
                },
            });
        }
        if let Some(path) = text.strip_prefix("jsonpath=") {
            let path = path.trim_matches(['\'', '"']);
            let end = path.find('}').map_or(path.len(), |at| at + 1);
            let (path, value) = path.split_at(end);
            let path = JsonPath::parse(path).map_err(|fault| fault.to_string())?;
            let value = value.trim_start_matches(['\'', '"']).strip_prefix('=');
            return Ok(Self::Field {
                path,
                value: value.map(|value| value.trim_matches(['\'', '"']).to_owned()),
            });
        }
        Err("not `condition=NAME`, `jsonpath={PATH}=VALUE` or `delete`".to_owned())
    }
}

impl Goal {
    fn judge(&self, view: Option<&PodView>) -> Verdict {
        match (self, view) {
            (Self::Known(condition), view) => condition.judge(view),
            (_, None) => Verdict::Never {
                reason: "NotFound".to_owned(),
                message: "it was deleted".to_owned(),
            },
            (Self::Condition { name, status }, Some(view)) => {
                let has = |name: &str| {
                    let mut conditions = view.status.conditions.iter();
                    conditions
                        .any(|one| one.r#type.eq_ignore_ascii_case(name) && one.status == *status)
                };
                // A Job fails with its pod.
                let failed = name == "failed" && *status == ConditionStatus::True;
                if has(name) || (failed && view.status.phase == Phase::Failed) {
                    Verdict::Reached
                } else {
                    unless_ended(view)
                }
            }
            (Self::Field { path, value }, Some(view)) => {
                let pod = inventory::pod(view.clone(), &crate::sys::identity::node_name());
                if is_found(path, value.as_deref(), &pod.json) {
                    Verdict::Reached
                } else {
                    unless_ended(view)
                }
            }
        }
    }

    /// Whether a Job whose pod has been removed has come to this: it stays what it was.
    fn is_met_by(&self, job: &Value) -> bool {
        let has = |name: &str, status: &str| {
            let mut conditions = array(job, "/status/conditions").iter();
            conditions.any(|one| {
                string(one, "/type").eq_ignore_ascii_case(name) && string(one, "/status") == status
            })
        };
        match self {
            Self::Known(Condition::Complete) => has("Complete", "True"),
            Self::Known(Condition::Ready | Condition::Deleted) => false,
            Self::Condition { name, status } => has(name, &format!("{status:?}")),
            Self::Field { path, value } => is_found(path, value.as_deref(), job),
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Known(Condition::Ready) => "readiness",
            Self::Known(Condition::Complete) => "the end",
            Self::Known(Condition::Deleted) => "the deletion",
            Self::Condition { .. } => "the condition",
            Self::Field { .. } => "the field",
        }
    }
}

/// Whether an object has the field, with the value if one is asked for.
fn is_found(path: &JsonPath, value: Option<&str>, object: &Value) -> bool {
    let found = path.find(object);
    match value {
        None => !found.is_empty(),
        Some(value) => found.iter().any(|found| jsonpath::text(found) == value),
    }
}

/// What has ended does not change any more.
fn unless_ended(view: &PodView) -> Verdict {
    match view.status.phase {
        Phase::Pending | Phase::Running => Verdict::NotYet,
        Phase::Succeeded | Phase::Failed => Verdict::Never {
            reason: view
                .status
                .reason
                .clone()
                .unwrap_or_else(|| "it has ended".to_owned()),
            message: view.status.message.clone().unwrap_or_default(),
        },
    }
}

/// Waits.
///
/// # Errors
/// A pod is not there or never will be as wanted, or the time has passed.
pub(crate) fn run(arguments: &WaitArgs, session: &Session) -> Result<Done, Error> {
    let manager = apply::manager(session)?;
    let Awaited { pods: awaited, met } = arguments.awaited(session)?;
    for object in &met {
        let line = report::deed(object, Deed::ConditionMet, Reality::Done);
        session.ui.line(&line)?;
    }
    let keys: Vec<PodKey> = awaited.iter().map(|(key, _)| key.clone()).collect();
    let GoDuration(timeout) = arguments.timeout;
    // A wait of more than a century is one without an end.
    let deadline = Instant::now().checked_add(timeout.min(Duration::from_secs(3_200_000_000)));
    let mut printed = Ok(());
    let mut reached = |event| {
        session.note(&event);
        if let Event::PodReached(key) = event
            && let Some((_, object)) = awaited.iter().find(|(other, _)| *other == key)
        {
            let line = report::deed(object, Deed::ConditionMet, Reality::Done);
            let line = session.ui.line(&line);
            if printed.is_ok() {
                printed = line;
            }
        }
    };
    let goal = &arguments.goal;
    wait::until(
        &manager,
        &keys,
        goal.what(),
        &mut |view| goal.judge(view),
        deadline,
        &mut reached,
    )?;
    printed?;
    Ok(Done::Well)
}

impl WaitArgs {
    fn awaited(&self, session: &Session) -> Result<Awaited, Error> {
        let namespace = &session.namespace;
        let inventory = Inventory::read(session, &Scope::Namespace(namespace.clone()))?;
        let mut awaited = Vec::new();
        let mut met = Vec::new();
        let mut files = self.filenames.clone();
        for text in &self.what {
            if is_file(text) {
                files.push(text.clone());
                continue;
            }
            match target::pods(&inventory, text) {
                Ok(pods) => awaited.extend(pods.into_iter().map(|pod| {
                    let by_owner =
                        pod.key.name.as_str() != text && pod_object(&pod.key).to_string() != *text;
                    let object = if by_owner {
                        pod.view.record.owner.clone()
                    } else {
                        pod_object(&pod.key)
                    };
                    (pod.key.clone(), object)
                })),
                // What is not there is deleted.
                Err(Error::NotFound { .. }) if self.goal == Goal::Known(Condition::Deleted) => {}
                Err(error) => {
                    let job = job_without_pod(&inventory, text);
                    let job = job.filter(|job| self.goal.is_met_by(&job.json));
                    met.push(job.ok_or(error)?.key.clone());
                }
            }
        }
        if !files.is_empty() {
            let declared = Publishing::as_declared();
            let loaded = manifests::load(&files, &self.reading, declared, session)?;
            if loaded.has_errors() {
                session.ui.diagnostics(&loaded.diagnostics);
                return Err(Error::Manifest);
            }
            let plans = loaded.objects.into_iter().filter_map(|object| object.plan);
            awaited.extend(plans.map(|plan| (plan.key(), plan.owner)));
        }
        if self.all
            || (self.what.is_empty()
                && self.filenames.is_empty()
                && self.reading.selector.is_some())
        {
            let selector = self.reading.selector.as_ref();
            let chosen = inventory.pods.iter().filter(|pod| {
                selector.is_none_or(|selector| selector.matches(&pod.view.record.labels))
            });
            awaited.extend(chosen.map(|pod| (pod.key.clone(), pod_object(&pod.key))));
        } else if self.what.is_empty() && self.filenames.is_empty() {
            return Err(Error::usage(
                "name what to wait for: `kplay wait web --for=condition=Ready`",
            ));
        }
        Ok(Awaited { pods: awaited, met })
    }
}

/// What is waited for.
#[derive(Debug)]
struct Awaited {
    /// Each with the object that is named in its line.
    pods: Vec<(PodKey, ObjectKey)>,
    /// Jobs that are as they are wanted already, and have no pod any more.
    met: Vec<ObjectKey>,
}

fn job_without_pod<'a>(inventory: &'a Inventory, text: &str) -> Option<&'a Object> {
    let (kind, name) = match resource::find_typed(text) {
        Some((kind, name)) => (Some(kind), name),
        None => (None, text),
    };
    target::without_pods(inventory, kind, name).filter(|object| object.key.kind == "Job")
}

/// Whether an argument is a file rather than a pod.
fn is_file(text: &str) -> bool {
    let has_extension = |extension: &str| {
        Path::new(text)
            .extension()
            .is_some_and(|found| found == extension)
    };
    text == "-"
        || text.contains("://")
        || ["yaml", "yml", "json"].into_iter().any(has_extension)
        || Path::new(text).is_dir() && text.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_read_as_in_kubectl() {
        let check = |text: &str, expected: Result<Goal, &str>| {
            assert_eq!(text.parse(), expected.map_err(str::to_owned), "{text}");
        };
        check("delete", Ok(Goal::Known(Condition::Deleted)));
        check("condition=Ready", Ok(Goal::Known(Condition::Ready)));
        check("condition=ready=true", Ok(Goal::Known(Condition::Ready)));
        check("condition=Complete", Ok(Goal::Known(Condition::Complete)));
        check(
            "condition=Ready=False",
            Ok(Goal::Condition {
                name: "ready".into(),
                status: ConditionStatus::False,
            }),
        );
        check("condition=x=y", Err("`y` is not true, false or unknown"));
        let path = JsonPath::parse("{.status.phase}").expect("a path");
        check(
            "jsonpath={.status.phase}=Running",
            Ok(Goal::Field {
                path: path.clone(),
                value: Some("Running".into()),
            }),
        );
        check(
            "jsonpath='{.status.phase}'=Running",
            Ok(Goal::Field {
                path: path.clone(),
                value: Some("Running".into()),
            }),
        );
        check(
            "jsonpath={.status.phase}",
            Ok(Goal::Field { path, value: None }),
        );
        check(
            "ready",
            Err("not `condition=NAME`, `jsonpath={PATH}=VALUE` or `delete`"),
        );
    }
}
