//! `--events-file`: what a command does and what happens to its pods meanwhile, one JSON object per line, for editors
//! and CI.
//!
//! Every line has `time` and `event`; the rest depends on the event: `image`, `object` (`pod/web-0`), `namespace`,
//! `reason`, `message`, `container`. An event of a pod is `PodEvent`, with the fields of a `v1.Event`.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::error::Error;
use crate::manager::diff::Stale;
use crate::manager::report::pod_object;
use crate::manager::{Change, Event};
use crate::model::names::{ObjectKey, PodKey};
use crate::state::lock::Subject;
use crate::sys::append;

/// The file that was asked for.
#[derive(Debug)]
pub(crate) struct EventsFile(File);

impl EventsFile {
    /// Opens it to append to it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self(append::open(path).map_err(Error::File)?))
    }

    /// Adds a line. One that cannot be written is lost: the command goes on.
    pub(crate) fn add(&self, event: &Event) {
        let Some(mut line) = line(event, Timestamp::now()) else {
            return;
        };
        line.push('\n');
        if let Err(error) = (&self.0).write_all(line.as_bytes()) {
            tracing::warn!(%error, "cannot write to the events' file");
        }
    }
}

/// The line of an event; bytes that arrive have none.
fn line(event: &Event, now: Timestamp) -> Option<String> {
    let mut fields = Map::new();
    let mut time = now;
    let mut set = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    let name = match event {
        Event::ImageProgress(..) => return None,
        Event::Waiting(Subject::Pod(key)) => {
            pod(&mut set, key);
            "Waiting"
        }
        Event::Waiting(Subject::Object(key)) => {
            object(&mut set, key);
            "Waiting"
        }
        Event::ImagePulling(image) => {
            set("image", json!(image.to_string()));
            "ImagePulling"
        }
        Event::ImageImported(image, from) => {
            set("image", json!(image.to_string()));
            set("from", json!(from));
            "ImageImported"
        }
        Event::ImagePulled(image, id) => {
            set("image", json!(image.to_string()));
            set("imageID", json!(id));
            "ImagePulled"
        }
        Event::HealthcheckIgnored(image) => {
            set("image", json!(image.to_string()));
            "HealthcheckIgnored"
        }
        Event::ImageFailed {
            image,
            reason,
            message,
        } => {
            set("image", json!(image.to_string()));
            set("reason", json!(reason));
            set("message", json!(message));
            "ImageFailed"
        }
        Event::PodStopping(key) => {
            pod(&mut set, key);
            "PodStopping"
        }
        Event::PodStarting(key) => {
            pod(&mut set, key);
            "PodStarting"
        }
        Event::Pod(key, happened) => {
            time = happened.time;
            pod(&mut set, key);
            set("type", json!(happened.r#type));
            set("reason", json!(happened.reason));
            set("message", json!(happened.message));
            if let Some(container) = &happened.container {
                set("container", json!(container.as_str()));
            }
            "PodEvent"
        }
        Event::PodSilent(key, waits_for) => {
            pod(&mut set, key);
            if let Some(what) = waits_for {
                set("message", json!(what));
            }
            "PodSilent"
        }
        Event::PodStarted(key) => {
            pod(&mut set, key);
            "PodStarted"
        }
        Event::PodFailed(key, failure) => {
            pod(&mut set, key);
            set("reason", json!(failure.reason));
            set("message", json!(failure.message));
            if let Some(container) = &failure.container {
                set("container", json!(container.as_str()));
            }
            "PodFailed"
        }
        Event::PodRefreshed(key, stale) => {
            pod(&mut set, key);
            set("stale", json!(*stale == Stale::UntilRestart));
            "PodRefreshed"
        }
        Event::PodReached(key) => {
            pod(&mut set, key);
            "PodReached"
        }
        Event::PodRestored(key) => {
            pod(&mut set, key);
            "PodRestored"
        }
        Event::Object(key, change) => {
            object(&mut set, key);
            match change {
                Change::Created => "Created",
                Change::Configured => "Configured",
                Change::Unchanged => "Unchanged",
            }
        }
        Event::RollingBack => "RollingBack",
        Event::Deleted(key) => {
            object(&mut set, key);
            "Deleted"
        }
    };
    let mut whole = Map::new();
    whole.insert("time".to_owned(), json!(time));
    whole.insert("event".to_owned(), json!(name));
    whole.append(&mut fields);
    Some(Value::Object(whole).to_string())
}

fn pod(set: &mut impl FnMut(&str, Value) -> Option<Value>, key: &PodKey) {
    object(set, &pod_object(key));
}

fn object(set: &mut impl FnMut(&str, Value) -> Option<Value>, key: &ObjectKey) {
    set("object", json!(key.to_string()));
    set("namespace", json!(key.namespace.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{EventType, PodEvent};
    use crate::model::names::{ContainerName, Namespace, PodName};

    #[test]
    fn a_line_per_event() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let key = PodKey {
            namespace: Namespace::default(),
            name: PodName::parse("web-0").expect("a name"),
        };
        let check = |event: Event, expected: &str| {
            assert_eq!(line(&event, now).expect("a line"), expected);
        };
        check(
            Event::PodStarting(key.clone()),
            r#"{"time":"2026-01-01T00:00:00Z","event":"PodStarting","object":"pod/web-0","namespace":"default"}"#,
        );
        let happened = PodEvent {
            time: "2026-01-01T00:00:01.5Z".parse().expect("a time"),
            r#type: EventType::Normal,
            reason: "Started".into(),
            message: "Started container web".into(),
            container: ContainerName::parse("web").ok(),
        };
        check(
            Event::Pod(key, happened),
            r#"{"time":"2026-01-01T00:00:01.5Z","event":"PodEvent","object":"pod/web-0","namespace":"default","type":"Normal","reason":"Started","message":"Started container web","container":"web"}"#,
        );
        check(
            Event::RollingBack,
            r#"{"time":"2026-01-01T00:00:00Z","event":"RollingBack"}"#,
        );
    }
}
