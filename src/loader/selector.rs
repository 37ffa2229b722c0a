//! Label selectors: `-l app=web,tier!=db,env in (a, b),!canary`, and the selectors of workloads.

use std::collections::BTreeMap;

/// Requirements that all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Requirement {
    pub(super) key: String,
    pub(super) operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    In(Vec<String>),
    /// Also holds without the label, as in Kubernetes.
    NotIn(Vec<String>),
    Exists,
    Missing,
}

/// Why a text is not a label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a label requirement such as `app=web`, `app!=web`, `app in (a, b)`, `app` or `!app`"
)]
pub struct InvalidSelector(String);

impl Selector {
    /// Reads kubectl's notation.
    ///
    /// # Errors
    /// The requirement that is none.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        let requirements = split(text)
            .filter(|part| !part.trim().is_empty())
            .map(|part| requirement(part).ok_or_else(|| InvalidSelector(part.trim().to_owned())))
            .collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }

    pub(super) fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// Whether labels meet all requirements. No requirement is met by all.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::Missing => value.is_none(),
            }
        })
    }
}

/// At the commas that are not between parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn requirement(text: &str) -> Option<Requirement> {
    let text = text.trim();
    let new = |key: &str, operator| {
        let key = key.trim();
        let valid =
            !key.is_empty() && !key.contains(|c: char| c.is_whitespace() || "=!(),".contains(c));
        valid.then(|| Requirement {
            key: key.to_owned(),
            operator,
        })
    };
    let one = |value: &str| {
        let value = value.trim();
        (!value.contains(|c: char| c.is_whitespace() || "=!(),".contains(c)))
            .then(|| vec![value.to_owned()])
    };
    if let Some(key) = text.strip_prefix('!') {
        return new(key, Operator::Missing);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return new(key, Operator::NotIn(one(value)?));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return new(key, Operator::In(one(value)?));
    }
    let Some((key, rest)) = text.split_once(char::is_whitespace) else {
        return new(text, Operator::Exists);
    };
    let (operator, list) = rest.split_once('(')?;
    let values = list
        .strip_suffix(')')?
        .split(',')
        .map(one)
        .collect::<Option<Vec<_>>>()?;
    match operator.trim() {
        "in" => new(key, Operator::In(values.concat())),
        "notin" => new(key, Operator::NotIn(values.concat())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_match_as_in_kubectl() {
        let labels = [("app", "web"), ("tier", "front")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels = BTreeMap::from(labels);
        let check = |text: &str, expected: Option<bool>| {
            let actual = Selector::parse(text)
                .ok()
                .map(|selector| selector.matches(&labels));
            assert_eq!(actual, expected, "{text:?}");
        };
        check("", Some(true));
        check("app=web", Some(true));
        check("app==web, tier=front", Some(true));
        check("app=db", Some(false));
        check("app!=db", Some(true));
        check("other!=x", Some(true));
        check("app in (web, db),tier notin (back)", Some(true));
        check("app in (db)", Some(false));
        check("app", Some(true));
        check("!app", Some(false));
        check("!other", Some(true));
        check("app in web", None);
        check("app like (web)", None);
        check("=web", None);
        check("a b", None);
    }
}
