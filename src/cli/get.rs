//! `get` and `ps`.

mod watch;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::error::{Done, Error};
use super::image;
use super::inventory::{Inventory, Scope};
use super::resource;
use super::session::Session;
use crate::loader::Selector;
use crate::manager::resolve::{KINDS, Kind};
use crate::output::events::{self, Columns, Wide};
use crate::output::kinds::{self, Detail, Labels, Layout, Names, Namespaces};
use crate::output::object::{self, Notation};
use crate::output::report;
use crate::output::table::Headers;
use crate::output::template::{CustomColumns, Template};

/// Flags of `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Show these kinds (`pods`, `deploy,cm`, `all`, `events`, `images`) or objects (`TYPE/NAME`), and of one kind only
    /// these names
    #[arg(value_name = "TYPE|TYPE/NAME|NAME")]
    what: Vec<String>,
    #[command(flatten)]
    how: HowArgs,
}

/// Flags of `ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Show only these pods
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Debug, Args)]
struct HowArgs {
    /// Print in this format: `wide`, `json`, `yaml`, `name`, `jsonpath=TEMPLATE` or `custom-columns=NAME:PATH,…`
    #[arg(short, long, value_name = "FORMAT", value_parser = Format::parse)]
    output: Option<Format>,
    /// Show all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Show only objects with such labels
    #[arg(short = 'l', long, value_parser = Selector::parse)]
    selector: Option<Selector>,
    /// Go on, and show each change, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Print no column names
    #[arg(long)]
    no_headers: bool,
    /// Show the labels, as the last column
    #[arg(long)]
    show_labels: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Format {
    Wide,
    Json,
    Yaml,
    Name,
    Template(Template),
    Columns(CustomColumns),
}

impl Format {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("wide", None) => Ok(Self::Wide),
            ("json", None) => Ok(Self::Json),
            ("yaml", None) => Ok(Self::Yaml),
            ("name", None) => Ok(Self::Name),
            ("jsonpath", Some(text)) => Template::parse(text)
                .map(Self::Template)
                .map_err(|error| error.to_string()),
            ("custom-columns", Some(text)) => CustomColumns::parse(text)
                .map(Self::Columns)
                .map_err(|error| error.to_string()),
            _ => Err(
                "not `wide`, `json`, `yaml`, `name`, `jsonpath=TEMPLATE` or `custom-columns=NAME:PATH,…`"
                    .to_owned(),
            ),
        }
    }

    /// Whether it is a list for people.
    fn is_table(format: Option<&Self>) -> bool {
        matches!(format, None | Some(Self::Wide))
    }
}

/// Lists objects.
///
/// # Errors
/// A named object is not there, or state cannot be read.
pub(crate) fn run(arguments: &GetArgs, session: &Session) -> Result<Done, Error> {
    let how = &arguments.how;
    let first = arguments
        .what
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    match (first, arguments.what.len()) {
        ("events" | "event" | "ev", 1) if how.watch => {
            let message = "`kplay events -w` shows events as they happen";
            return Err(Error::usage(message));
        }
        ("images" | "image", 1) if how.watch => {
            return Err(Error::usage("images are not watched"));
        }
        ("events" | "event" | "ev" | "images" | "image", 1) if how.show_labels => {
            return Err(Error::usage("events and images have no labels"));
        }
        ("events" | "event" | "ev", 1) => return list_events(how, session),
        ("images" | "image", 1) => return list_images(how, session),
        _ => {}
    }
    list(&Query::parse(&arguments.what)?, how, session)
}

/// Lists pods.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_ps(arguments: &PsArgs, session: &Session) -> Result<Done, Error> {
    let query = Query {
        kinds: vec![resource::pods()],
        names: arguments.names.clone(),
        typed: Vec::new(),
    };
    list(&query, &arguments.how, session)
}

/// What is asked for.
#[derive(Debug)]
struct Query {
    kinds: Vec<&'static Kind>,
    /// Of the only kind; empty is all.
    names: Vec<String>,
    typed: Vec<(&'static Kind, String)>,
}

impl Query {
    fn parse(what: &[String]) -> Result<Self, Error> {
        if what.iter().any(|text| text.contains('/')) {
            let typed = what.iter().map(|text| {
                let (kind, name) = resource::find_typed(text).ok_or_else(|| {
                    Error::usage(format!(
                        "`{text}` is not TYPE/NAME with a type that kplay knows"
                    ))
                })?;
                Ok((kind, name.to_owned()))
            });
            return Ok(Self {
                kinds: Vec::new(),
                names: Vec::new(),
                typed: typed.collect::<Result<_, Error>>()?,
            });
        }
        let Some((first, names)) = what.split_first() else {
            return Ok(Self {
                kinds: vec![resource::pods()],
                names: Vec::new(),
                typed: Vec::new(),
            });
        };
        let mut kinds = Vec::new();
        for name in first.split(',') {
            match Kind::parse(name) {
                Some(kind) => kinds.push(kind),
                None if name == "all" => {
                    kinds.extend(resource::of_all());
                }
                None => return Err(unknown_kind(name)),
            }
        }
        if kinds.len() > 1 && !names.is_empty() {
            return Err(Error::usage(
                "names go with one type only; use TYPE/NAME for several",
            ));
        }
        Ok(Self {
            kinds,
            names: names.to_vec(),
            typed: Vec::new(),
        })
    }

    fn number_of_kinds(&self) -> usize {
        let typed = self.typed.iter().map(|(kind, _)| kind);
        let mut kinds: Vec<&str> = self.kinds.iter().chain(typed).map(|k| k.plural).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.len()
    }

    /// The objects asked for, kind by kind.
    ///
    /// The second part is what is missing.
    fn answer(
        &self,
        inventory: &Inventory,
        selector: Option<&Selector>,
    ) -> (Vec<Group>, Vec<Error>) {
        let mut groups = Vec::new();
        let mut missing = Vec::new();
        for kind in &self.kinds {
            let all = of_kind(inventory, kind);
            let objects = if self.names.is_empty() {
                let chosen = all.into_iter().filter(|object| is_chosen(object, selector));
                chosen.cloned().collect()
            } else {
                named(kind, &all, &self.names, &mut missing)
            };
            groups.push(Group {
                kind: kind.kind,
                objects,
            });
        }
        for (kind, name) in &self.typed {
            let all = of_kind(inventory, kind);
            let found = named(kind, &all, std::slice::from_ref(name), &mut missing);
            match groups.iter_mut().find(|group| group.kind == kind.kind) {
                Some(group) => group.objects.extend(found),
                None => groups.push(Group {
                    kind: kind.kind,
                    objects: found,
                }),
            }
        }
        groups.retain(|group| !group.objects.is_empty());
        (groups, missing)
    }
}

/// Objects of one kind.
struct Group {
    kind: &'static str,
    objects: Vec<Value>,
}

fn unknown_kind(name: &str) -> Error {
    let known = KINDS.iter().map(|kind| kind.plural);
    let known = known.chain(["all", "events", "images"]);
    let meant = resource::closest(name, known).map(|meant| format!(": did you mean `{meant}`?"));
    Error::usage(format!(
        "kplay has no objects of the type `{name}`{}",
        meant.unwrap_or_default()
    ))
}

fn of_kind<'a>(inventory: &'a Inventory, kind: &Kind) -> Vec<&'a Value> {
    if kind == resource::pods() {
        return inventory.pods.iter().map(|pod| &pod.json).collect();
    }
    inventory
        .objects
        .iter()
        .filter(|object| object.key.kind == kind.kind && object.key.group == kind.group)
        .map(|object| &object.json)
        .collect()
}

fn named(kind: &Kind, all: &[&Value], names: &[String], missing: &mut Vec<Error>) -> Vec<Value> {
    let mut found = Vec::new();
    for name in names {
        let before = found.len();
        let matching = all
            .iter()
            .filter(|object| object::metadata(object, "name") == name);
        found.extend(matching.map(|object| (*object).clone()));
        if found.len() == before {
            let known: Vec<&str> = all
                .iter()
                .map(|object| object::metadata(object, "name"))
                .collect();
            missing.push(not_found(kind, name, &known));
        }
    }
    found
}

/// How many names a hint has at most, when there are more.
const SHOWN: usize = 8;

/// That an object is not there, and what is.
pub(crate) fn not_found(kind: &Kind, name: &str, known: &[&str]) -> Error {
    let hint = match resource::closest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => format!(
            "there are no {} in this namespace; `-n` chooses another one, `kplay get all -A` shows all",
            kind.plural
        ),
        None => match known.split_at_checked(SHOWN) {
            Some((shown, rest)) if rest.len() > 1 => format!(
                "there is {} and {} more; `kplay get {}` shows all",
                report::listed(shown.iter().copied()),
                rest.len(),
                kind.plural
            ),
            _ => format!("there is {}", report::joined(known.iter().copied())),
        },
    };
    Error::NotFound {
        message: format!("{} \"{name}\" not found", kind.plural),
        hint,
    }
}

/// Whether an object has the labels.
pub(crate) fn is_chosen(object: &Value, selector: Option<&Selector>) -> bool {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let labels = labels.into_iter().flatten().map(|(name, value)| {
        let value = value.as_str().unwrap_or_default();
        (name.clone(), value.to_owned())
    });
    selector.is_none_or(|selector| selector.matches(&labels.collect()))
}

fn list(query: &Query, how: &HowArgs, session: &Session) -> Result<Done, Error> {
    if how.watch {
        return watch::watch(query, how, session);
    }
    let scope = how.scope(session);
    let inventory = Inventory::read(session, &scope)?;
    let (groups, missing) = query.answer(&inventory, how.selector.as_ref());
    let single = query.names.len() + query.typed.len() == 1 && scope != Scope::All;
    print(&groups, single, how, session)?;
    let mut missing = missing.into_iter();
    let Some(last) = missing.next_back() else {
        if groups.is_empty() && Format::is_table(how.output.as_ref()) {
            session.ui.talk(&nothing(&scope));
        }
        return Ok(Done::Well);
    };
    for error in missing {
        error.tell(&session.ui);
    }
    Err(last)
}

fn nothing(scope: &Scope) -> String {
    match scope {
        Scope::All => "No resources found".to_owned(),
        Scope::Namespace(name) => format!("No resources found in {name} namespace."),
    }
}

fn print(groups: &[Group], single: bool, how: &HowArgs, session: &Session) -> Result<(), Error> {
    let all = groups.iter().flat_map(|group| &group.objects);
    let text = match &how.output {
        Some(Format::Template(template)) => template.fill(&whole(all, single)),
        Some(Format::Columns(columns)) => columns.table(all, how.headers()),
        Some(Format::Name) => all.map(|object| object::name(object) + "\n").collect(),
        Some(Format::Json) => notation(all, single, Notation::Json)?,
        Some(Format::Yaml) => notation(all, single, Notation::Yaml)?,
        None | Some(Format::Wide) => {
            let layout = how.layout(groups.len());
            let tables: Vec<String> = groups
                .iter()
                .map(|group| kinds::table(group.kind, &group.objects, layout))
                .collect();
            tables.join("\n")
        }
    };
    Ok(session.ui.data(text.as_bytes())?)
}

/// As text; nothing for one object that is missing.
fn notation<'a>(
    objects: impl Iterator<Item = &'a Value>,
    single: bool,
    notation: Notation,
) -> Result<String, Error> {
    match whole(objects, single) {
        Value::Null => Ok(String::new()),
        whole => Ok(object::text(&whole, notation)?),
    }
}

/// One object as itself, several (or those that nobody named) as a list; null for one that is missing.
fn whole<'a>(objects: impl Iterator<Item = &'a Value>, single: bool) -> Value {
    let mut objects: Vec<Value> = objects.cloned().collect();
    match (single, objects.pop()) {
        (true, None) => Value::Null,
        (true, Some(object)) => object,
        (false, last) => {
            objects.extend(last);
            object::list(objects)
        }
    }
}

impl HowArgs {
    fn scope(&self, session: &Session) -> Scope {
        if self.all_namespaces {
            Scope::All
        } else {
            Scope::Namespace(session.namespace.clone())
        }
    }

    fn headers(&self) -> Headers {
        if self.no_headers {
            Headers::Hidden
        } else {
            Headers::Shown
        }
    }

    fn layout(&self, kinds: usize) -> Layout {
        Layout {
            headers: self.headers(),
            detail: match self.output {
                Some(Format::Wide) => Detail::Wide,
                _ => Detail::Usual,
            },
            namespaces: if self.all_namespaces {
                Namespaces::All
            } else {
                Namespaces::One
            },
            names: if kinds > 1 {
                Names::WithKind
            } else {
                Names::Plain
            },
            labels: if self.show_labels {
                Labels::Shown
            } else {
                Labels::Hidden
            },
            now: Timestamp::now(),
        }
    }
}

fn list_events(how: &HowArgs, session: &Session) -> Result<Done, Error> {
    let scope = how.scope(session);
    let inventory = Inventory::read(session, &scope)?;
    let all = super::events::of_pods(&inventory.pods, &session.layout)?;
    let objects = || all.iter().map(events::object);
    let list = |wide| {
        let columns = Columns {
            headers: how.headers(),
            namespaces: how.all_namespaces,
        };
        events::list(&all, columns, wide, Timestamp::now())
    };
    let text = match &how.output {
        Some(Format::Template(template)) => template.fill(&object::list(objects().collect())),
        Some(Format::Columns(columns)) => {
            let objects: Vec<Value> = objects().collect();
            columns.table(objects.iter(), how.headers())
        }
        Some(Format::Json) => object::text(&object::list(objects().collect()), Notation::Json)?,
        Some(Format::Yaml) => object::text(&object::list(objects().collect()), Notation::Yaml)?,
        Some(Format::Name) => objects().map(|event| object::name(&event) + "\n").collect(),
        None | Some(Format::Wide) if all.is_empty() => {
            session.ui.talk(&nothing(&scope));
            String::new()
        }
        None => list(Wide::No),
        Some(Format::Wide) => list(Wide::Yes),
    };
    session.ui.data(text.as_bytes())?;
    Ok(Done::Well)
}

fn list_images(how: &HowArgs, session: &Session) -> Result<Done, Error> {
    let notation = match how.output {
        Some(Format::Json) => Some(Notation::Json),
        Some(Format::Yaml) => Some(Notation::Yaml),
        Some(Format::Name | Format::Wide) | None => None,
        Some(Format::Template(_) | Format::Columns(_)) => {
            let message = "images are printed as a table, `-o json` or `-o yaml`";
            return Err(Error::usage(message));
        }
    };
    image::print_list(notation, how.headers(), session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let check = |what: &str, expected: Result<(&[&str], usize, usize), &str>| {
            let words: Vec<String> = what.split(' ').map(str::to_owned).collect();
            match (Query::parse(&words), expected) {
                (Ok(query), Ok((kinds, names, typed))) => {
                    let found: Vec<&str> = query.kinds.iter().map(|kind| kind.kind).collect();
                    assert_eq!(found, kinds, "{what}");
                    assert_eq!(
                        (query.names.len(), query.typed.len()),
                        (names, typed),
                        "{what}"
                    );
                }
                (Err(error), Err(message)) => assert_eq!(error.to_string(), message, "{what}"),
                (found, _) => panic!("{what}: {found:?}"),
            }
        };
        check("pods", Ok((&["Pod"], 0, 0)));
        check("po web api", Ok((&["Pod"], 2, 0)));
        check("deploy,cm", Ok((&["Deployment", "ConfigMap"], 0, 0)));
        check("pod/web job/x", Ok((&[], 0, 2)));
        check(
            "deploy,cm web",
            Err("names go with one type only; use TYPE/NAME for several"),
        );
        check(
            "pdos",
            Err("kplay has no objects of the type `pdos`: did you mean `pods`?"),
        );
        check(
            "pod/web job",
            Err("`job` is not TYPE/NAME with a type that kplay knows"),
        );
    }
}
