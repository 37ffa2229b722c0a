//! What `explain` prints.

use std::fmt::Write as _;

use crate::model::field::{Field, Standing};

/// The object that a field is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within<'a> {
    pub(crate) kind: &'a str,
    /// `apps/v1`.
    pub(crate) version: &'a str,
}

/// How many levels of fields below one are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Levels {
    One,
    /// `--recursive`.
    All,
}

/// The page about a field (the last of `path`; none is the object itself), with the fields of its type.
pub(crate) fn page(
    within: Within<'_>,
    path: &[&Field],
    fields: &[Field],
    levels: Levels,
    of: &dyn Fn(&str) -> &'static [Field],
) -> String {
    let mut text = format!("KIND:    {}\nVERSION: {}\n", within.kind, within.version);
    if let Some(field) = path.last() {
        let Field { name, kind, .. } = field;
        push(&mut text, format_args!("\nFIELD: {name} <{kind}>\n"));
        push(
            &mut text,
            format_args!("\nMEANING:\n    {}\n", field.meaning),
        );
        push(&mut text, format_args!("\nKPLAY:\n    {}\n", verdict(path)));
    }
    if !fields.is_empty() {
        text.push_str("\nFIELDS:\n");
        // What holds above need not be said again of every field.
        let silent = path.iter().any(|field| field.is_left_out());
        match levels {
            Levels::One => list(&mut text, fields, silent),
            Levels::All => tree(&mut text, fields, 1, silent, of),
        }
    }
    text
}

/// What holds for the last field of a path.
fn verdict(path: &[&Field]) -> String {
    let above = path.split_last().map_or(&[][..], |(_, above)| above);
    match (above.iter().find(|field| field.is_left_out()), path.last()) {
        (Some(above), _) => format!("`{}` is {}", above.name, above.verdict()),
        (None, Some(field)) => field.verdict(),
        (None, None) => String::new(),
    }
}

/// What is said behind a field's name in a list: nothing if it is honoured.
fn aside(field: &Field, silent: bool) -> String {
    match field.standing {
        Standing::Honoured => String::new(),
        _ if silent => String::new(),
        standing => format!("  ({standing})"),
    }
}

fn list(text: &mut String, fields: &[Field], silent: bool) {
    for field in fields {
        let Field {
            name,
            kind,
            meaning,
            ..
        } = field;
        let aside = aside(field, silent);
        push(
            text,
            format_args!("  {name} <{kind}>{aside}\n    {meaning}\n"),
        );
    }
}

fn tree(
    text: &mut String,
    fields: &[Field],
    depth: usize,
    silent: bool,
    of: &dyn Fn(&str) -> &'static [Field],
) {
    for field in fields {
        let (indent, Field { name, kind, .. }) = ("  ".repeat(depth), field);
        let aside = aside(field, silent);
        push(text, format_args!("{indent}{name} <{kind}>{aside}\n"));
        let silent = silent || field.is_left_out();
        tree(text, of(field.inner()), depth + 1, silent, of);
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a string does not fail.
    text.write_fmt(line).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::field::When;

    const FIELD: Field = Field {
        of: "PodSpec",
        name: "affinity",
        kind: "Affinity",
        standing: Standing::Noted(When::Set),
        remark: "there is one machine",
        meaning: "Where pods like to be",
        tests: "",
    };

    fn check(path: &[&Field], fields: &[Field], levels: Levels, expected: &str) {
        let within = Within {
            kind: "Pod",
            version: "v1",
        };
        let page = page(within, path, fields, levels, &|_| &[]);
        assert_eq!(page, format!("KIND:    Pod\nVERSION: v1\n{expected}"));
    }

    #[test]
    fn a_field_has_its_meaning_and_what_kplay_makes_of_it() {
        let users = Field {
            of: "PodSpec",
            name: "hostUsers",
            kind: "boolean",
            standing: Standing::Refused(When::If("false")),
            remark: "why not",
            meaning: "Whether users are the machine's",
            ..FIELD
        };
        check(
            &[&users],
            &[],
            Levels::One,
            "
FIELD: hostUsers <boolean>

MEANING:
    Whether users are the machine's

KPLAY:
    honoured, but `false` is refused: why not
",
        );
        check(
            &[],
            &[FIELD, users],
            Levels::One,
            "
FIELDS:
  affinity <Affinity>  (ignored)
    Where pods like to be
  hostUsers <boolean>  (honoured, but `false` is refused)
    Whether users are the machine's
",
        );
        check(
            &[],
            &[FIELD, users],
            Levels::All,
            "
FIELDS:
  affinity <Affinity>  (ignored)
  hostUsers <boolean>  (honoured, but `false` is refused)
",
        );
    }

    #[test]
    fn below_what_is_left_out_nothing_holds() {
        let inner = Field {
            of: "Affinity",
            name: "nodeAffinity",
            kind: "NodeAffinity",
            remark: "another reason",
            ..FIELD
        };
        check(
            &[&FIELD, &inner],
            &[inner],
            Levels::One,
            "
FIELD: nodeAffinity <NodeAffinity>

MEANING:
    Where pods like to be

KPLAY:
    `affinity` is ignored: there is one machine

FIELDS:
  nodeAffinity <NodeAffinity>
    Where pods like to be
",
        );
    }
}
