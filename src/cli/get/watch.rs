//! `get --watch`: what there is, then each change of it, as kubectl prints them.
//!
//! An object that is gone is printed once more, as it was last.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::error::{Done, Error};
use super::super::inventory::Inventory;
use super::super::session::Session;
use super::{Format, Group, HowArgs, Query};
use crate::model::status::time;
use crate::output::kinds::{self, Layout};
use crate::output::object::{self, Notation};
use crate::output::table::{Headers, Widths};
use crate::state::watch::{Changes, Wake};
use crate::sys::poll::Interrupt;

/// Prints until a signal.
///
/// # Errors
/// Several kinds are asked for, a named object is not there at first, or state cannot be read.
pub(super) fn watch(query: &Query, how: &HowArgs, session: &Session) -> Result<Done, Error> {
    if query.number_of_kinds() > 1 {
        return Err(Error::usage("objects of one type only can be watched"));
    }
    let interrupt = Interrupt::install().map_err(|source| Error::Machine {
        what: "watch objects",
        source,
    })?;
    let scope = how.scope(session);
    let changes = Changes::of_all(&session.layout)?;
    let mut printer = Printer::new(how);
    let mut is_first = true;
    loop {
        let inventory = Inventory::read(session, &scope)?;
        let (groups, missing) = query.answer(&inventory, how.selector.as_ref());
        // Later on, what is missing may come again.
        if is_first && let Some(error) = missing.into_iter().next() {
            return Err(error);
        }
        is_first = false;
        let text = printer.news(groups)?;
        session.ui.data(text.as_bytes())?;
        match changes.wait(None, &interrupt)? {
            Wake::Changed | Wake::Deadline => {}
            Wake::Signal(signal) => return Err(Error::Signal(signal)),
        }
    }
}

/// What was printed, and how.
struct Printer<'a> {
    how: &'a HowArgs,
    /// For comparing: ages grow by themselves.
    since: Timestamp,
    kind: &'static str,
    /// By uid.
    shown: BTreeMap<String, Value>,
    headers: Headers,
    widths: Widths,
}

impl<'a> Printer<'a> {
    fn new(how: &'a HowArgs) -> Self {
        Self {
            how,
            since: Timestamp::now(),
            kind: "",
            shown: BTreeMap::new(),
            headers: how.headers(),
            widths: Widths::default(),
        }
    }

    /// The text for what is not as it was.
    fn news(&mut self, groups: Vec<Group>) -> Result<String, Error> {
        let mut objects = Vec::new();
        for group in groups {
            self.kind = group.kind;
            objects.extend(group.objects);
        }
        let before = std::mem::take(&mut self.shown);
        let (mut gone, mut changed) = (before.clone(), Vec::new());
        for object in objects {
            let uid = identity(&object);
            gone.remove(&uid);
            let is_as_before = before
                .get(&uid)
                .is_some_and(|old| self.is_alike(old, &object));
            if !is_as_before {
                changed.push(object.clone());
            }
            self.shown.insert(uid, object);
        }
        let mut all: Vec<Value> = gone.into_values().map(last_seen).collect();
        all.append(&mut changed);
        self.text(&all)
    }

    /// Whether two states of an object are printed alike, but for their ages.
    fn is_alike(&self, old: &Value, new: &Value) -> bool {
        if !Format::is_table(self.how.output.as_ref()) {
            return old == new;
        }
        let layout = Layout {
            headers: Headers::Hidden,
            now: self.since,
            ..self.how.layout(1)
        };
        let row = |object: &Value| kinds::table(self.kind, std::slice::from_ref(object), layout);
        row(old) == row(new)
    }

    fn text(&mut self, objects: &[Value]) -> Result<String, Error> {
        if objects.is_empty() {
            return Ok(String::new());
        }
        // Column names are printed once, before the first row.
        let headers = std::mem::replace(&mut self.headers, Headers::Hidden);
        let texts = match &self.how.output {
            None | Some(Format::Wide) => {
                let layout = Layout {
                    headers,
                    ..self.how.layout(1)
                };
                return Ok(kinds::rows_below(
                    self.kind,
                    objects,
                    layout,
                    &mut self.widths,
                ));
            }
            Some(Format::Columns(columns)) => return Ok(columns.table(objects.iter(), headers)),
            Some(Format::Name) => objects.iter().map(|o| Ok(object::name(o) + "\n")).collect(),
            Some(Format::Template(template)) => objects
                .iter()
                .map(|object| Ok(template.fill(object)))
                .collect(),
            Some(Format::Json) => objects
                .iter()
                .map(|o| object::text(o, Notation::Json))
                .collect(),
            Some(Format::Yaml) => {
                let documents = objects.iter().map(|o| object::text(o, Notation::Yaml));
                documents
                    .map(|text| Ok("---\n".to_owned() + &text?))
                    .collect()
            }
        };
        let texts: Result<String, crate::output::Error> = texts;
        Ok(texts?)
    }
}

/// An object of the same name that was made later is another one.
fn identity(object: &Value) -> String {
    let text = |key| object::metadata(object, key);
    format!("{}/{} {}", text("namespace"), text("name"), text("uid"))
}

/// An object that is gone, as it was last: about to go, if it is a pod. That may have been too short to be seen.
fn last_seen(mut object: Value) -> Value {
    if object::string(&object, "/kind") == "Pod"
        && object::metadata(&object, "deletionTimestamp").is_empty()
        && let Some(metadata) = object.get_mut("metadata")
    {
        let now = json!(time::text(&Timestamp::now()));
        object::set(metadata, "deletionTimestamp", now);
    }
    object
}
