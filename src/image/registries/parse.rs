//! One file of `registries.conf`: from TOML to settings, with the place of every fault.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Error;
use crate::model::reference::{ImageName, Reference};

/// What one file sets.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// An empty list replaces what files before had; no list does not.
    pub(super) search: Option<Vec<String>>,
    pub(super) mode: Option<ShortNameMode>,
    pub(super) credential_helpers: Vec<String>,
    /// An alias without a value takes one away that a file before had.
    pub(super) aliases: BTreeMap<String, Option<String>>,
    pub(super) registries: Vec<Registry>,
}

/// What may be done about a short name that has several registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ShortNameMode {
    Enforcing,
    #[default]
    Permissive,
    Disabled,
}

/// Where something is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A `[[registry]]`.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    pub(super) place: Place,
    pub(super) prefix: String,
    /// `None` only with a prefix like `*.example.com`: names stay as they are.
    pub(super) location: Option<String>,
    pub(super) insecure: bool,
    pub(super) blocked: bool,
    pub(super) mirror_by_digest_only: bool,
    pub(super) mirrors: Vec<Mirror>,
}

/// A `[[registry.mirror]]`.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    pub(super) location: String,
    pub(super) insecure: bool,
    pub(super) pull: PullFromMirror,
}

/// Which pulls a mirror is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PullFromMirror {
    All,
    DigestOnly,
    TagOnly,
}

/// Whether a file may have the old form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `registries.conf` itself.
    Main,
    /// A file of `registries.conf.d`, or `short-name-aliases.conf`.
    DropIn,
}

/// What is wrong at a place of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("this is no TOML: {0}")]
    Syntax(String),
    #[error("`{key}` must be {expected}")]
    Kind { key: String, expected: &'static str },
    #[error("`{key}` cannot be `{value}`: {rule}")]
    Value {
        key: String,
        value: String,
        rule: &'static str,
    },
    #[error("`{table}` has no `{key}`")]
    Missing {
        table: &'static str,
        key: &'static str,
    },
    #[error("`{location}` is here more than once, with different values of `{key}`")]
    Conflict { location: String, key: &'static str },
    #[error("`[registries]` is the old form, which cannot be mixed with settings of the new one")]
    Mixed,
    #[error("`[registries]` is the old form, which only `registries.conf` itself may have")]
    OldDropIn,
}

const STRING: &str = "a string";
const STRINGS: &str = "a list of strings";
const BOOLEAN: &str = "`true` or `false`";
const TABLE: &str = "a table";
const TABLES: &str = "a list of tables";
const NO_SCHEME: &str = "it is a host and a path, without `http://` or `https://`";

/// Reads one file.
pub(super) fn parse(file: &Path, text: &str, kind: Kind) -> Result<Settings, Error> {
    let reader = Reader { file, text };
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        reader.fault(span, Fault::Syntax(error.message().to_owned()))
    })?;
    let mut settings = Settings::default();
    let mut old = None;
    let mut new = false;
    for (name, value) in table.get_ref() {
        match name.get_ref().as_ref() {
            "unqualified-search-registries" => {
                settings.search = Some(reader.registries("unqualified-search-registries", value)?);
                new = true;
            }
            "short-name-mode" => {
                settings.mode = reader.mode(value)?;
                new = true;
            }
            "credential-helpers" => {
                let helpers = reader.strings("credential-helpers", value)?;
                settings.credential_helpers = helpers.into_iter().map(|(text, _)| text).collect();
                new = true;
            }
            "aliases" => {
                settings.aliases = reader.aliases(value)?;
                new |= !settings.aliases.is_empty();
            }
            "registry" => {
                settings.registries = reader.all_registries(value)?;
                new |= !settings.registries.is_empty();
            }
            "registries" => old = reader.old(value)?.map(|old| (old, name.span())),
            other => reader.ignored(other, name.span()),
        }
    }
    match old {
        None => Ok(settings),
        Some((_, span)) if new => Err(reader.fault(span, Fault::Mixed)),
        Some((_, span)) if kind == Kind::DropIn => Err(reader.fault(span, Fault::OldDropIn)),
        Some((old, _)) => Ok(old),
    }
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
}

type Value<'i> = Spanned<DeValue<'i>>;

impl Reader<'_> {
    fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        Place {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
        }
    }

    fn fault(&self, span: Range<usize>, fault: Fault) -> Error {
        let place = self.place(&span);
        Error::Setting { place, fault }
    }

    fn kind(&self, key: &str, value: &Value<'_>, expected: &'static str) -> Error {
        let key = key.to_owned();
        self.fault(value.span(), Fault::Kind { key, expected })
    }

    fn value(&self, key: &str, span: Range<usize>, value: &str, rule: &'static str) -> Error {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.fault(span, Fault::Value { key, value, rule })
    }

    /// What a later version may know is no fault, as for podman.
    fn ignored(&self, key: &str, span: Range<usize>) {
        let place = self.place(&span);
        tracing::debug!(%place, key, "unknown setting");
    }

    fn string(&self, key: &str, value: &Value<'_>) -> Result<String, Error> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            _ => Err(self.kind(key, value, STRING)),
        }
    }

    fn boolean(&self, key: &str, value: &Value<'_>) -> Result<bool, Error> {
        match value.get_ref() {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(self.kind(key, value, BOOLEAN)),
        }
    }

    fn strings(&self, key: &str, value: &Value<'_>) -> Result<Vec<(String, Range<usize>)>, Error> {
        let DeValue::Array(values) = value.get_ref() else {
            return Err(self.kind(key, value, STRINGS));
        };
        let one = |value: &Value<'_>| match value.get_ref() {
            DeValue::String(text) => Ok((text.clone().into_owned(), value.span())),
            _ => Err(self.kind(key, value, STRINGS)),
        };
        values.iter().map(one).collect()
    }

    fn table<'v, 'i>(&self, key: &str, value: &'v Value<'i>) -> Result<&'v DeTable<'i>, Error> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.kind(key, value, TABLE)),
        }
    }

    fn tables<'v, 'i>(
        &self,
        key: &str,
        value: &'v Value<'i>,
    ) -> Result<Vec<(&'v DeTable<'i>, Range<usize>)>, Error> {
        let DeValue::Array(values) = value.get_ref() else {
            return Err(self.kind(key, value, TABLES));
        };
        let one = |value: &'v Value<'i>| match value.get_ref() {
            DeValue::Table(table) => Ok((table, value.span())),
            _ => Err(self.kind(key, value, TABLES)),
        };
        values.iter().map(one).collect()
    }

    /// A host with or without a path.
    fn location(&self, key: &str, span: Range<usize>, text: &str) -> Result<String, Error> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Err(self.value(key, span, text, NO_SCHEME));
        }
        Ok(text.trim_end_matches('/').to_owned())
    }

    fn target(&self, key: &str, value: &Value<'_>) -> Result<String, Error> {
        let text = self.string(key, value)?;
        self.location(key, value.span(), &text)
    }

    /// Hosts with or without a port.
    fn registries(&self, key: &str, value: &Value<'_>) -> Result<Vec<String>, Error> {
        let mut registries = Vec::new();
        for (text, span) in self.strings(key, value)? {
            let registry = self.location(key, span.clone(), &text)?;
            if registry.contains('/') || Reference::parse(&format!("{registry}/a")).is_err() {
                let rule = "it is a host, with a port or without";
                return Err(self.value(key, span, &text, rule));
            }
            registries.push(registry);
        }
        Ok(registries)
    }

    fn mode(&self, value: &Value<'_>) -> Result<Option<ShortNameMode>, Error> {
        let key = "short-name-mode";
        match self.string(key, value)?.as_str() {
            "" => Ok(None),
            "enforcing" => Ok(Some(ShortNameMode::Enforcing)),
            "permissive" => Ok(Some(ShortNameMode::Permissive)),
            "disabled" => Ok(Some(ShortNameMode::Disabled)),
            other => {
                let rule = "it is `enforcing`, `permissive` or `disabled`";
                Err(self.value(key, value.span(), other, rule))
            }
        }
    }

    fn aliases(&self, value: &Value<'_>) -> Result<BTreeMap<String, Option<String>>, Error> {
        let mut aliases = BTreeMap::new();
        for (name, value) in self.table("aliases", value)? {
            let short = name.get_ref();
            let is_short = ImageName::parse(short).is_ok_and(|name| name.short() == Some(short));
            if !is_short {
                let rule = "a short name has no registry, no tag and no digest";
                return Err(self.value("aliases", name.span(), short, rule));
            }
            let target = self.string(short, value)?;
            let is_full = target.is_empty()
                || ImageName::parse(&target).is_ok_and(|name| {
                    let plain = name.reference();
                    let tagged = target
                        .rsplit('/')
                        .next()
                        .is_some_and(|last| last.contains(':'));
                    name.short().is_none() && plain.digest.is_none() && !tagged
                });
            if !is_full {
                let rule = "it is a registry and a repository, without tag and digest";
                return Err(self.value(short, value.span(), &target, rule));
            }
            let target = Some(target).filter(|target| !target.is_empty());
            aliases.insert(short.clone().into_owned(), target);
        }
        Ok(aliases)
    }

    /// All `[[registry]]`. Of those with the same prefix, the first counts.
    fn all_registries(&self, value: &Value<'_>) -> Result<Vec<Registry>, Error> {
        let mut all: Vec<Registry> = Vec::new();
        let mut seen: BTreeMap<String, (bool, bool)> = BTreeMap::new();
        for (table, span) in self.tables("registry", value)? {
            let registry = self.registry(table, span.clone())?;
            let location = registry.location.as_ref().unwrap_or(&registry.prefix);
            let flags = (registry.insecure, registry.blocked);
            let first = *seen.entry(location.clone()).or_insert(flags);
            if first != flags {
                let location = location.clone();
                let key = if first.0 == flags.0 {
                    "blocked"
                } else {
                    "insecure"
                };
                return Err(self.fault(span, Fault::Conflict { location, key }));
            }
            if all.iter().all(|other| other.prefix != registry.prefix) {
                all.push(registry);
            }
        }
        Ok(all)
    }

    fn registry(&self, table: &DeTable<'_>, place: Range<usize>) -> Result<Registry, Error> {
        let mut registry = Registry {
            place: self.place(&place),
            prefix: String::new(),
            location: None,
            insecure: false,
            blocked: false,
            mirror_by_digest_only: false,
            mirrors: Vec::new(),
        };
        let mut mirrors = None;
        let mut prefix_span = place.clone();
        for (name, value) in table {
            match name.get_ref().as_ref() {
                "prefix" => {
                    let text = self.string("prefix", value)?;
                    registry.prefix = self.location("prefix", value.span(), &text)?;
                    prefix_span = value.span();
                }
                "location" => registry.location = Some(self.target("location", value)?),
                "insecure" => registry.insecure = self.boolean("insecure", value)?,
                "blocked" => registry.blocked = self.boolean("blocked", value)?,
                "mirror-by-digest-only" => {
                    let only = self.boolean("mirror-by-digest-only", value)?;
                    registry.mirror_by_digest_only = only;
                }
                "mirror" => mirrors = Some(value),
                "pull-from-mirror" => {
                    let rule = "it is for a `[[registry.mirror]]`, not for a `[[registry]]`";
                    let text = self.string("pull-from-mirror", value)?;
                    return Err(self.value("pull-from-mirror", value.span(), &text, rule));
                }
                other => self.ignored(other, name.span()),
            }
        }
        registry.location = registry.location.filter(|location| !location.is_empty());
        let wildcard = registry.prefix.strip_prefix("*.");
        if wildcard.unwrap_or(&registry.prefix).contains('*')
            || wildcard.is_some_and(|domain| domain.is_empty() || domain.contains([':', '/', '@']))
        {
            let rule = "a `*` stands only before a domain, as in `*.example.com`";
            return Err(self.value("prefix", prefix_span, &registry.prefix, rule));
        }
        let (table, key) = ("[[registry]]", "location");
        match &registry.location {
            None if wildcard.is_none() => {
                return Err(self.fault(place, Fault::Missing { table, key }));
            }
            Some(location) if registry.prefix.is_empty() => registry.prefix.clone_from(location),
            None | Some(_) => {}
        }
        if let Some(value) = mirrors {
            for (table, span) in self.tables("mirror", value)? {
                let mirror = self.mirror(table, span, registry.mirror_by_digest_only)?;
                registry.mirrors.push(mirror);
            }
        }
        Ok(registry)
    }

    fn mirror(
        &self,
        table: &DeTable<'_>,
        place: Range<usize>,
        by_digest_only: bool,
    ) -> Result<Mirror, Error> {
        let mut mirror = Mirror {
            location: String::new(),
            insecure: false,
            pull: PullFromMirror::All,
        };
        for (name, value) in table {
            match name.get_ref().as_ref() {
                "location" => mirror.location = self.target("location", value)?,
                "insecure" => mirror.insecure = self.boolean("insecure", value)?,
                key @ "pull-from-mirror" => {
                    let text = self.string(key, value)?;
                    mirror.pull = match text.as_str() {
                        "" | "all" => PullFromMirror::All,
                        "digest-only" => PullFromMirror::DigestOnly,
                        "tag-only" => PullFromMirror::TagOnly,
                        other => {
                            let rule = "it is `all`, `digest-only` or `tag-only`";
                            return Err(self.value(key, value.span(), other, rule));
                        }
                    };
                    if by_digest_only && !text.is_empty() {
                        let rule = "the registry has `mirror-by-digest-only`";
                        return Err(self.value(key, value.span(), &text, rule));
                    }
                }
                other => self.ignored(other, name.span()),
            }
        }
        if mirror.location.is_empty() {
            let (table, key) = ("[[registry.mirror]]", "location");
            return Err(self.fault(place, Fault::Missing { table, key }));
        }
        Ok(mirror)
    }

    /// The old form, if it says anything.
    fn old(&self, value: &Value<'_>) -> Result<Option<Settings>, Error> {
        let mut settings = Settings::default();
        let mut flagged: BTreeMap<String, (Place, bool, bool)> = BTreeMap::new();
        for (name, value) in self.table("registries", value)? {
            let list = match name.get_ref().as_ref() {
                list @ ("search" | "insecure" | "block") => list,
                other => {
                    self.ignored(other, name.span());
                    continue;
                }
            };
            for (key, value) in self.table(list, value)? {
                match (key.get_ref().as_ref(), list) {
                    ("registries", "search") => {
                        let search = self.registries("registries", value)?;
                        settings.search = Some(search).filter(|search| !search.is_empty());
                    }
                    ("registries", list) => {
                        for (text, span) in self.strings("registries", value)? {
                            let place = self.place(&span);
                            let location = self.location("registries", span, &text)?;
                            let flags = flagged.entry(location).or_insert((place, false, false));
                            match list {
                                "insecure" => flags.1 = true,
                                _ => flags.2 = true,
                            }
                        }
                    }
                    (other, _) => self.ignored(other, key.span()),
                }
            }
        }
        let registry = |(location, (place, insecure, blocked)): (String, _)| Registry {
            place,
            prefix: location.clone(),
            location: Some(location),
            insecure,
            blocked,
            mirror_by_digest_only: false,
            mirrors: Vec::new(),
        };
        settings.registries = flagged.into_iter().map(registry).collect();
        let says = settings.search.is_some() || !settings.registries.is_empty();
        Ok(says.then_some(settings))
    }
}
