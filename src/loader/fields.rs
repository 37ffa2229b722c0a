//! What kplay makes of every field: the table `testdata/fields.md`, compiled in. What the loader notes and refuses, what
//! `explain` says and what the manual shows are these lines.
//!
//! The table knows types, not paths: `Probe.exec` is one line, wherever a probe is. A line's type column says which
//! lines hold below it.

#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

const TABLE: &str = include_str!("../../testdata/fields.md");

/// One field of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// The type that has it.
    pub(crate) of: &'static str,
    pub(crate) name: &'static str,
    /// Its own type, such as `[]Container`.
    pub(crate) kind: &'static str,
    pub(crate) standing: Standing,
    /// Why it is noted or refused, or what else to know of it. May be empty.
    pub(crate) remark: &'static str,
    /// What it is for, in a sentence without full stop.
    pub(crate) meaning: &'static str,
    /// The tests that show it.
    pub(crate) tests: &'static str,
}

/// What kplay does with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Honoured,
    /// "`field` is ignored: why".
    Noted(When),
    /// "`field` is not supported yet: why"; nothing is played.
    Refused(When),
}

/// For which values a field is noted or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// For all; an empty list or mapping is none.
    Set,
    /// For this one.
    If(&'static str),
    /// For all but this one.
    Unless(&'static str),
}

impl Field {
    /// The type whose fields are below this one: its own, or that of its items.
    pub(crate) fn inner(&self) -> &'static str {
        let kind = self.kind.strip_prefix("map[string]").unwrap_or(self.kind);
        kind.strip_prefix("[]").unwrap_or(kind)
    }

    fn parse(line: &'static str) -> Option<Self> {
        let cells = line.strip_prefix("| ")?.strip_suffix('|')?;
        let mut cells = cells.split('|').map(str::trim);
        let (of, name) = cells.next()?.split_once('.')?;
        let field = Self {
            of,
            name,
            kind: cells.next()?,
            standing: Standing::parse(cells.next()?)?,
            remark: cells.next()?,
            meaning: cells.next()?,
            tests: cells.next()?,
        };
        cells.next().is_none().then_some(field)
    }
}

impl Standing {
    fn parse(text: &'static str) -> Option<Self> {
        let (verdict, when) = text.split_once(' ').unwrap_or((text, ""));
        let when = match when.split_once(' ') {
            Some(("if", value)) => When::If(value),
            Some(("unless", value)) => When::Unless(value),
            _ if when.is_empty() => When::Set,
            _ => return None,
        };
        match (verdict, when) {
            ("honoured", When::Set) => Some(Self::Honoured),
            ("noted", _) => Some(Self::Noted(when)),
            ("refused", _) => Some(Self::Refused(when)),
            _ => None,
        }
    }
}

/// All lines, sorted by type and name.
pub(crate) fn all() -> &'static [Field] {
    static FIELDS: OnceLock<Vec<Field>> = OnceLock::new();
    FIELDS.get_or_init(|| TABLE.lines().filter_map(Field::parse).collect())
}

/// The lines of one type; none for scalars and unknown types.
pub(crate) fn of(kind: &str) -> &'static [Field] {
    let all = all();
    let start = all.partition_point(|field| field.of < kind);
    let rest = all.get(start..).unwrap_or_default();
    let count = rest.iter().take_while(|field| field.of == kind).count();
    rest.get(..count).unwrap_or_default()
}

/// The line of one field.
pub(crate) fn find(of: &str, name: &str) -> Option<&'static Field> {
    let fields = self::of(of);
    let found = fields.binary_search_by(|field| field.name.cmp(name)).ok()?;
    fields.get(found)
}
