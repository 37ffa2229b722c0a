//! `-o jsonpath=TEMPLATE` and `-o custom-columns=NAME:PATH,…`: what of an object is printed, chosen by who reads it.

use serde_json::Value;

use super::jsonpath::{self, JsonPath};
use super::table::{Headers, Table};

/// Text with paths in braces: `{.metadata.name}{"\n"}`, `{range .items[*]}…{end}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Place),
    /// The pieces, for each value at the path.
    Range(Place, Vec<Self>),
}

/// Where a value is; `None` is the object itself (`{@}`).
type Place = Option<JsonPath>;

/// Columns by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CustomColumns(Vec<(String, JsonPath)>);

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error(transparent)]
    Path(#[from] jsonpath::InvalidPath),
    #[error("a `{{` is not closed")]
    Open,
    #[error("a `{{range}}` has no `{{end}}`, or an `{{end}}` no `{{range}}`")]
    Range,
    #[error("{0} is not a text in quotes")]
    Text(String),
    #[error("`{0}` is not NAME:PATH")]
    Column(String),
}

impl Template {
    /// Reads a template; one without braces is a path.
    ///
    /// # Errors
    /// It is none, or uses what kplay does not have.
    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        if !text.contains('{') {
            return Ok(Self(vec![Piece::Value(place(text)?)]));
        }
        // The pieces of the template, and those of each range that is open.
        let mut open: Vec<(Place, Vec<Piece>)> = Vec::new();
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let end = end_of_brace(after).ok_or(Invalid::Open)?;
            let (inside, after) = after.split_at(end);
            rest = after.strip_prefix('}').unwrap_or_default();
            let inside = inside.trim();
            if let Some(range) = inside.strip_prefix("range ") {
                open.push((place(range.trim())?, std::mem::take(&mut pieces)));
            } else if inside == "end" {
                let (of, outer) = open.pop().ok_or(Invalid::Range)?;
                let inner = std::mem::replace(&mut pieces, outer);
                pieces.push(Piece::Range(of, inner));
            } else if inside.starts_with(['"', '\'']) {
                pieces.push(Piece::Text(quoted(inside)?));
            } else {
                pieces.push(Piece::Value(place(inside)?));
            }
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        match open.is_empty() {
            true => Ok(Self(pieces)),
            false => Err(Invalid::Range),
        }
    }

    /// The text for an object. What is missing is empty.
    pub(crate) fn fill(&self, object: &Value) -> String {
        let mut text = String::new();
        fill(&self.0, object, &mut text);
        text
    }
}

fn fill(pieces: &[Piece], object: &Value, text: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Value(place) => text.push_str(&joined(place.as_ref(), object, " ")),
            Piece::Range(place, pieces) => {
                for item in found(place.as_ref(), object) {
                    fill(pieces, item, text);
                }
            }
        }
    }
}

fn found<'a>(place: Option<&JsonPath>, object: &'a Value) -> Vec<&'a Value> {
    place.map_or_else(|| vec![object], |path| path.find(object))
}

fn joined(place: Option<&JsonPath>, object: &Value, separator: &str) -> String {
    let texts = found(place, object).into_iter().map(jsonpath::text);
    texts.collect::<Vec<_>>().join(separator)
}

fn place(text: &str) -> Result<Place, Invalid> {
    match text.strip_prefix(['@', '$']).unwrap_or(text) {
        "" | "." => Ok(None),
        path => Ok(Some(JsonPath::parse(path)?)),
    }
}

/// Where the brace that is open ends, over quotes in it.
fn end_of_brace(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), character) if character == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '}') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

/// The text in quotes, with its escapes resolved.
fn quoted(text: &str) -> Result<String, Invalid> {
    let invalid = || Invalid::Text(text.to_owned());
    let mut characters = text.chars();
    let quote = characters.next().ok_or_else(invalid)?;
    let inside = characters
        .as_str()
        .strip_suffix(quote)
        .ok_or_else(invalid)?;
    let mut result = String::new();
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        result.push(match character {
            '\\' => match characters.next().ok_or_else(invalid)? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            },
            other => other,
        });
    }
    Ok(result)
}

impl CustomColumns {
    /// Reads `NAME:PATH,NAME:PATH`; the paths with or without braces and their first dot.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        let columns = text.split(',').map(|column| {
            let pair = column.split_once(':').filter(|(name, _)| !name.is_empty());
            let (name, path) = pair.ok_or_else(|| Invalid::Column(column.to_owned()))?;
            Ok((name.to_owned(), JsonPath::parse(path)?))
        });
        columns.collect::<Result<_, _>>().map(Self)
    }

    /// The objects as a table. What is missing is `<none>`.
    pub(crate) fn table<'a>(
        &self,
        objects: impl Iterator<Item = &'a Value>,
        headers: Headers,
    ) -> String {
        let names: Vec<String> = self.0.iter().map(|(name, _)| name.clone()).collect();
        let mut table = Table::new(names);
        for object in objects {
            let cells = self
                .0
                .iter()
                .map(|(_, path)| match joined(Some(path), object, ",") {
                    text if text.is_empty() => "<none>".to_owned(),
                    text => text,
                });
            table.push(cells.collect());
        }
        table.render(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> Value {
        json!({"items": [
            {"metadata": {"name": "a"}, "status": {"phase": "Running", "ips": ["1", "2"]}},
            {"metadata": {"name": "b"}, "ready": true},
        ]})
    }

    #[test]
    fn templates_are_filled_as_by_kubectl() {
        let check = |template: &str, expected: &str| {
            let filled = Template::parse(template).map(|template| template.fill(&pods()));
            assert_eq!(filled.as_deref(), Ok(expected), "{template}");
        };
        check(".items[0].metadata.name", "a");
        check("{.items[*].metadata.name}", "a b");
        check("name={.items[1].metadata.name}!", "name=b!");
        check("{.items[1].ready}{.items[1].absent}", "true");
        check(
            r#"{range .items[*]}{.metadata.name}{"\t"}{.status.phase}{'\n'}{end}"#,
            "a\tRunning\nb\t\n",
        );
        check(
            "{range .items[*]}{range .status.ips[*]}<{@}>{end};{end}",
            "<1><2>;;",
        );
        check(r#"{"}"}{.items[?(@.metadata.name=="b")].ready}"#, "}true");
        check("{.items[1]}", r#"{"metadata":{"name":"b"},"ready":true}"#);
    }

    #[test]
    fn what_is_no_template_is_told() {
        let check = |template: &str, expected: &str| {
            let error = Template::parse(template).unwrap_err();
            assert_eq!(error.to_string(), expected, "{template}");
        };
        check("{.a", "a `{` is not closed");
        check(
            "{range .a[*]}x",
            "a `{range}` has no `{end}`, or an `{end}` no `{range}`",
        );
        check(
            "x{end}",
            "a `{range}` has no `{end}`, or an `{end}` no `{range}`",
        );
        check("{\"x\"y}", "\"x\"y is not a text in quotes");
        check("{.a..b}", "`.a..b` is not a path such as `{.status.phase}`");
    }

    #[test]
    fn columns_are_what_was_asked_for() {
        let columns = CustomColumns::parse("NAME:.metadata.name,IPS:{.status.ips[*]}").unwrap();
        let pods = pods();
        let items = || pods["items"].as_array().unwrap().iter();
        assert_eq!(
            columns.table(items(), Headers::Shown),
            "NAME   IPS\na      1,2\nb      <none>\n"
        );
        let bare = CustomColumns::parse("X:metadata.name").unwrap();
        assert_eq!(bare.table(items(), Headers::Hidden), "a\nb\n");
        for wrong in ["", "name", ":x", "NAME:"] {
            CustomColumns::parse(wrong).unwrap_err();
        }
    }
}
