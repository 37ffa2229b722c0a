//! The kinds that arguments may name, and what was meant by a misspelt name.

use crate::manager::resolve::{KINDS, Kind};

/// The pods.
pub(crate) fn pods() -> &'static Kind {
    KINDS.first().expect("the table begins with it")
}

/// The kinds of `get all`: those of the table up to the last workload.
pub(crate) fn of_all() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().take_while(|kind| kind.kind != "ConfigMap")
}

/// `TYPE/NAME`, if that is what a text is.
pub(crate) fn find_typed(text: &str) -> Option<(&'static Kind, &str)> {
    let (kind, name) = text.split_once('/')?;
    if name.is_empty() || name.contains('/') {
        return None;
    }
    Some((Kind::parse(kind)?, name))
}

/// The known name that a misspelt one is most like.
pub(crate) fn closest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .filter(|(distance, name)| *distance <= name.chars().count().max(text.chars().count()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_all_has_what_runs_and_services() {
        let all: Vec<&str> = of_all().map(|kind| kind.plural).collect();
        assert_eq!(all.first(), Some(&"pods"));
        assert_eq!(all.last(), Some(&"jobs"));
        assert!(!all.contains(&"secrets"));
    }

    #[test]
    fn a_typed_name_has_one_slash() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = find_typed(text).map(|(kind, name)| (kind.kind, name));
            assert_eq!(found, expected, "{text}");
        };
        check("deploy/web", Some(("Deployment", "web")));
        check("web", None);
        check("manifests/web", None);
        check("pod/", None);
        check("pod/a/b", None);
    }

    #[test]
    fn a_misspelt_name_finds_the_one_that_was_meant() {
        let known = ["web-0", "api-0", "job"];
        assert_eq!(closest("wbe-0", known), Some("web-0"));
        assert_eq!(closest("web", ["webb"]), Some("webb"));
        assert_eq!(closest("database", known), None);
    }
}
