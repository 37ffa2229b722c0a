//! The part of kubectl's JSONPath that `wait --for=jsonpath=` needs: `{.status.phase}`,
//! `{.status.containerStatuses[0].ready}`, `{.status.conditions[?(@.type=="Ready")].status}`, `[*]`, `['a.b/c']`.

use serde_json::Value;

/// A path into an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    /// From the end if negative.
    Index(i64),
    Each,
    /// Entries of which this path has this text.
    Where(JsonPath, String),
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a path such as `{{.status.phase}}`")]
pub(crate) struct InvalidPath(String);

impl JsonPath {
    /// Reads a path, with or without braces and `$`.
    ///
    /// # Errors
    /// It is none, or uses what kplay does not have.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidPath> {
        let bare = text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .unwrap_or(text);
        let bare = bare.strip_prefix('$').unwrap_or(bare);
        let steps = steps(bare).filter(|steps| !steps.is_empty());
        steps.map(Self).ok_or_else(|| InvalidPath(text.to_owned()))
    }

    /// What is at the path, in order.
    pub(crate) fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![object];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.of(value)).collect();
        }
        found
    }
}

/// A value as kubectl prints it: texts without quotes.
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                let at = match usize::try_from(*index) {
                    Ok(at) => Some(at),
                    Err(_) => usize::try_from(index.unsigned_abs())
                        .ok()
                        .and_then(|back| items.len().checked_sub(back)),
                };
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            Self::Each => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Where(path, expected) => value
                .as_array()
                .into_iter()
                .flatten()
                .filter(|item| path.find(item).iter().any(|found| text(found) == *expected))
                .collect(),
        }
    }
}

fn steps(mut rest: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let step;
        (step, rest) = if let Some(after) = rest.strip_prefix('[') {
            let end = end_of_bracket(after)?;
            let (inside, after) = after.split_at(end);
            (bracket(inside)?, after.strip_prefix(']')?)
        } else {
            // Only the first field may do without its dot.
            let after = match rest.strip_prefix('.') {
                Some(after) => after,
                None if steps.is_empty() => rest,
                None => return None,
            };
            let (name, after) = field(after);
            match name.as_str() {
                "" => return None,
                "*" => (Step::Each, after),
                _ => (Step::Field(name), after),
            }
        };
        steps.push(step);
    }
    Some(steps)
}

/// A name up to the next `.` or `[`; a backslash makes them part of it, as in `metadata.labels.a\.b`.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, text.get(at..).unwrap_or_default()),
            other => name.push(other),
        }
    }
    (name, "")
}

/// Where the bracket that is open ends, over quotes and brackets in it.
fn end_of_bracket(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), character) if character == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Option<Step> {
    let inside = inside.trim();
    if inside == "*" {
        return Some(Step::Each);
    }
    if let Some(condition) = inside.strip_prefix("?(") {
        let condition = condition.strip_suffix(')')?;
        let (path, expected) = condition.split_once("==")?;
        let path = steps(path.trim().strip_prefix('@')?)?;
        let expected = expected.trim();
        let expected = unquoted(expected).unwrap_or(expected).to_owned();
        return Some(Step::Where(JsonPath(path), expected));
    }
    if let Some(name) = unquoted(inside) {
        return Some(Step::Field(name.to_owned()));
    }
    inside.parse().ok().map(Step::Index)
}

fn unquoted(text: &str) -> Option<&str> {
    ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_finds_what_kubectl_finds() {
        let object = json!({
            "metadata": { "labels": { "a.b/c": "x" } },
            "status": {
                "phase": "Running",
                "conditions": [
                    { "type": "Initialized", "status": "True" },
                    { "type": "Ready", "status": "False" },
                ],
                "containerStatuses": [{ "ready": true }, { "ready": false }],
            },
        });
        let check = |path: &str, expected: Option<&[&str]>| {
            let found = JsonPath::parse(path).ok();
            let found = found.map(|path| path.find(&object).into_iter().map(text).collect::<Vec<_>>());
            assert_eq!(found.as_deref(), expected.map(|e| e.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()).as_deref(), "{path}");
        };
        check("{.status.phase}", Some(&["Running"]));
        check(".status.phase", Some(&["Running"]));
        check("status.phase", Some(&["Running"]));
        check("{$.status.phase}", Some(&["Running"]));
        check("{.status.absent}", Some(&[]));
        check("{.status.containerStatuses[0].ready}", Some(&["true"]));
        check("{.status.containerStatuses[-1].ready}", Some(&["false"]));
        check("{.status.containerStatuses[*].ready}", Some(&["true", "false"]));
        check(r#"{.status.conditions[?(@.type=="Ready")].status}"#, Some(&["False"]));
        check("{.metadata.labels['a.b/c']}", Some(&["x"]));
        check(r"{.metadata.labels.a\.b/c}", Some(&["x"]));
        check("{}", None);
        check("{.a[}", None);
        check("{.a..b}", None);
        check("{.a[x]}", None);
    }
}
