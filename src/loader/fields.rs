//! What kplay makes of every field: the table `testdata/fields.md`, compiled in. What the loader notes and refuses, what
//! `explain` says and what the manual shows are these lines.
//!
//! The table knows types, not paths: `Probe.exec` is one line, wherever a probe is. A line's type column says which
//! lines hold below it.

#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::sync::OnceLock;

use super::decode::closest;
use crate::model::field::{Field, Standing, When};

const TABLE: &str = include_str!("../../testdata/fields.md");

fn parse(line: &'static str) -> Option<Field> {
    let cells = line.strip_prefix("| ")?.strip_suffix('|')?;
    let mut cells = cells.split('|').map(str::trim);
    let (of, name) = cells.next()?.split_once('.')?;
    let field = Field {
        of,
        name,
        kind: cells.next()?,
        standing: standing(cells.next()?)?,
        remark: cells.next()?,
        meaning: cells.next()?,
        tests: cells.next()?,
    };
    cells.next().is_none().then_some(field)
}

fn standing(text: &'static str) -> Option<Standing> {
    let (verdict, when) = text.split_once(' ').unwrap_or((text, ""));
    let when = match when.split_once(' ') {
        Some(("if", value)) => When::If(value),
        Some(("unless", value)) => When::Unless(value),
        _ if when.is_empty() => When::Set,
        _ => return None,
    };
    match (verdict, when) {
        ("honoured", When::Set) => Some(Standing::Honoured),
        ("noted", _) => Some(Standing::Noted(when)),
        ("refused", _) => Some(Standing::Refused(when)),
        _ => None,
    }
}

/// All lines, sorted by type and name.
pub(crate) fn all() -> &'static [Field] {
    static FIELDS: OnceLock<Vec<Field>> = OnceLock::new();
    FIELDS.get_or_init(|| rows().lines().filter_map(parse).collect())
}

/// The lines of one type; none for scalars and unknown types.
pub(crate) fn of(kind: &str) -> &'static [Field] {
    let all = all();
    let start = all.partition_point(|field| field.of < kind);
    let rest = all.get(start..).unwrap_or_default();
    let count = rest.iter().take_while(|field| field.of == kind).count();
    rest.get(..count).unwrap_or_default()
}

/// The line of one field. Looks for it in the text: most commands ask for a few, and reading all takes longer than all
/// else that the loader does.
pub(crate) fn find(of: &str, name: &str) -> Option<Field> {
    let mut rest = rows();
    while !rest.is_empty() {
        let half = rest.as_bytes().get(..rest.len() / 2)?;
        let end = half.iter().rposition(|byte| *byte == b'\n');
        let start = end.map_or(0, |end| end + 1);
        let (before, after) = rest.split_at(start);
        let (line, after) = after.split_once('\n').unwrap_or((after, ""));
        let key = line
            .strip_prefix("| ")?
            .split(' ')
            .next()?
            .split_once('.')?;
        match key.cmp(&(of, name)) {
            Ordering::Less => rest = after,
            Ordering::Equal => return parse(line),
            Ordering::Greater => rest = before,
        }
    }
    None
}

/// The table's lines without its head.
fn rows() -> &'static str {
    const HEAD: &str = "\n| --- | --- | --- | --- | --- | --- |\n";
    TABLE.split_once(HEAD).map_or("", |(_, rows)| rows)
}

/// A field and all those that it is in, from the outermost one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: Vec<&'static Field>,
    /// The fields of its type; none if that is a scalar.
    pub(crate) fields: &'static [Field],
}

/// There is no such field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// The name that is unknown.
    pub(crate) name: String,
    /// The path of what should have it.
    pub(crate) within: String,
    /// What may have been meant.
    pub(crate) meant: Option<&'static str>,
    /// What there is.
    pub(crate) known: &'static [Field],
}

/// Finds a field by its path below a kind, as `kubectl explain` takes it: `spec.containers.image`; what stands in
/// brackets behind a list or a mapping does not matter.
pub(crate) fn look_up(kind: &'static str, path: &str) -> Result<Found, Unknown> {
    let mut found = Found {
        path: Vec::new(),
        fields: of(kind),
    };
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let name = name.split('[').next().unwrap_or_default();
        let Some(field) = found.fields.iter().find(|field| field.name == name) else {
            let known: Vec<&str> = found.fields.iter().map(|field| field.name).collect();
            let within = found.path.iter().map(|field| field.name);
            return Err(Unknown {
                name: name.to_owned(),
                within: within.collect::<Vec<_>>().join("."),
                meant: closest(name, &known),
                known: found.fields,
            });
        };
        found.path.push(field);
        found.fields = of(field.inner());
    }
    Ok(found)
}
