//! The environment of a container, and `$(VAR)` in it and in its command (pod-level order rules:
//! `kubelet_pods.go:makeEnvironmentVariables`; expansion: `third_party/forked/golang/expansion`). Pure.

use std::collections::BTreeMap;

pub use crate::model::expansion::expand;
use crate::model::plan::{EnvValue, EnvVar};

/// The PATH of an image that sets none, as containerd has it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables that the manifest asks for, in its order; a later one of the same name wins. `services` are those of
/// the known Services, for names that the manifest does not use itself; a value may refer to them as to an earlier
/// variable. `resolve` gives the values that are not text; one without value is left out.
///
/// # Errors
/// Those of `resolve`.
pub fn declared<E>(
    vars: &[EnvVar],
    services: &[(String, String)],
    resolve: &dyn Fn(&EnvValue) -> Result<Option<String>, E>,
) -> Result<Vec<(String, String)>, E> {
    let mut result: Vec<(String, String)> = Vec::with_capacity(vars.len() + services.len());
    for var in vars {
        let value = match &var.value {
            EnvValue::Template(text) => Some(expand(text, &|name| {
                let value = lookup(&result, name).or_else(|| lookup(services, name));
                value.map(str::to_owned)
            })),
            EnvValue::Literal(text) => Some(text.clone()),
            other @ (EnvValue::Field(_) | EnvValue::Resource { .. } | EnvValue::File { .. }) => {
                resolve(other)?
            }
        };
        if let Some(value) = value {
            result.retain(|(name, _)| *name != var.name);
            result.push((var.name.clone(), value));
        }
    }
    for (name, value) in services {
        if lookup(&result, name).is_none() {
            result.push((name.clone(), value.clone()));
        }
    }
    Ok(result)
}

/// What every container has, unless its image or the manifest say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Defaults<'a> {
    pub hostname: &'a str,
    pub home: &'a str,
    pub tty: bool,
}

/// What the process gets: the image's variables, HOSTNAME, then the manifest's, which win. PATH and HOME are always
/// there.
#[must_use]
pub fn complete(
    defaults: Defaults<'_>,
    image: &[String],
    declared: &[(String, String)],
) -> Vec<String> {
    let mut all = BTreeMap::from([
        ("PATH", DEFAULT_PATH),
        ("HOME", defaults.home),
        ("HOSTNAME", defaults.hostname),
    ]);
    if defaults.tty {
        all.insert("TERM", "xterm");
    }
    all.extend(image.iter().filter_map(|pair| pair.split_once('=')));
    all.extend(
        declared
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    all.into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// The value of a variable.
#[must_use]
pub fn lookup<'a>(vars: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = vars.iter().rev().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::plan::FieldRef;

    fn var(name: &str, value: EnvValue) -> EnvVar {
        EnvVar {
            name: name.into(),
            value,
        }
    }

    #[test]
    fn expansion_is_kubernetes_own() {
        let check = |text: &str, expected: &str| {
            let value = |name: &str| match name {
                "A" => Some("1".to_owned()),
                "EMPTY" => Some(String::new()),
                "DOLLAR" => Some("$(A)".to_owned()),
                _ => None,
            };
            assert_eq!(expand(text, &value), expected, "{text:?}");
        };
        check("$(A)", "1");
        check("x$(A)y$(A)", "x1y1");
        check("$(EMPTY)", "");
        check("$(MISSING)", "$(MISSING)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
        check("$$$$(A)", "$$(A)");
        check("$A", "$A");
        check("$(A", "$(A");
        check("a$", "a$");
        check("$(DOLLAR)", "$(A)");
        check("$()", "$()");
        check("ä$(A)ö", "ä1ö");
    }

    #[test]
    fn earlier_variables_are_seen_and_later_ones_win() {
        let vars = [
            var("FROM", EnvValue::Literal("$(A)".into())),
            var("A", EnvValue::Template("1".into())),
            var("B", EnvValue::Template("$(A)$(C)".into())),
            var("C", EnvValue::Template("3".into())),
            var("A", EnvValue::Template("$(A)+".into())),
        ];
        let declared = declared(&vars, &[], &unresolved).unwrap();
        assert_eq!(lookup(&declared, "FROM"), Some("$(A)"));
        assert_eq!(lookup(&declared, "B"), Some("1$(C)"));
        assert_eq!(lookup(&declared, "A"), Some("1+"));
        assert_eq!(declared.len(), 4);
    }

    fn unresolved(value: &EnvValue) -> Result<Option<String>, std::convert::Infallible> {
        unreachable!("{value:?} is text")
    }

    #[test]
    fn services_are_seen_everywhere_and_win_nowhere() {
        let services = [
            ("DB_PORT".to_owned(), "tcp".to_owned()),
            ("DB_HOST".to_owned(), "10.0.0.1".to_owned()),
        ];
        let vars = [
            var("FIRST", EnvValue::Template("$(DB_HOST) $(DB_PORT)".into())),
            var("DB_PORT", EnvValue::Literal("own".into())),
            var("SECOND", EnvValue::Template("$(DB_PORT)".into())),
        ];
        let declared = declared(&vars, &services, &unresolved).unwrap();
        assert_eq!(lookup(&declared, "FIRST"), Some("10.0.0.1 tcp"));
        assert_eq!(lookup(&declared, "SECOND"), Some("own"));
        assert_eq!(lookup(&declared, "DB_PORT"), Some("own"));
        assert_eq!(lookup(&declared, "DB_HOST"), Some("10.0.0.1"));
        assert_eq!(declared.len(), 4);
    }

    #[test]
    fn what_has_no_value_is_not_set_and_what_fails_is_told() {
        let vars = [
            var("A", EnvValue::Literal("from a ConfigMap".into())),
            var("A", EnvValue::Field(FieldRef::Name)),
            var("B", EnvValue::Field(FieldRef::Uid)),
        ];
        let found = declared(&vars, &[], &|value| match value {
            EnvValue::Field(FieldRef::Name) => Ok(None),
            _ => Ok::<_, &str>(Some("u".into())),
        });
        let expected = [("A", "from a ConfigMap"), ("B", "u")];
        assert_eq!(
            found.unwrap(),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(declared(&vars, &[], &|_| Err("why")), Err("why"));
    }

    /// Expansion by another way: from the left, one character at a time.
    fn reference(text: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
        enum State {
            Text,
            Dollar,
            /// Since the `(`.
            Name(String),
        }
        let (mut result, mut state) = (String::new(), State::Text);
        for c in text.chars() {
            state = match (state, c) {
                (State::Text, '$') => State::Dollar,
                (State::Text, c) => {
                    result.push(c);
                    State::Text
                }
                (State::Dollar, '(') => State::Name(String::new()),
                (State::Dollar, '$') => {
                    result.push('$');
                    State::Text
                }
                (State::Dollar, c) => {
                    result.extend(['$', c]);
                    State::Text
                }
                (State::Name(name), ')') => {
                    result += &value(&name).unwrap_or_else(|| format!("$({name})"));
                    State::Text
                }
                (State::Name(mut name), c) => {
                    name.push(c);
                    State::Name(name)
                }
            };
        }
        match state {
            State::Text => result,
            State::Dollar => result + "$",
            // Nothing closes it: it was text, and what follows may still be more than that.
            State::Name(rest) => result + "$(" + &reference(&rest, value),
        }
    }

    #[test]
    fn the_manifest_wins_over_the_image() {
        let check = |tty, image: &[&str], declared: &[(&str, &str)], expected: &[&str]| {
            let defaults = Defaults {
                hostname: "host",
                home: "/root",
                tty,
            };
            let image: Vec<String> = image.iter().map(ToString::to_string).collect();
            let owned = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
            let declared: Vec<(String, String)> = declared.iter().map(owned).collect();
            assert_eq!(complete(defaults, &image, &declared), expected);
        };
        check(
            false,
            &["PATH=/image", "X=image", "NO_VALUE"],
            &[("X", "pod")],
            &["HOME=/root", "HOSTNAME=host", "PATH=/image", "X=pod"],
        );
        let path = format!("PATH={DEFAULT_PATH}");
        check(
            true,
            &[],
            &[("HOSTNAME", "mine"), ("EMPTY", "")],
            &["EMPTY=", "HOME=/root", "HOSTNAME=mine", &path, "TERM=xterm"],
        );
        check(
            true,
            &["TERM=dumb", "HOME=/srv"],
            &[],
            &["HOME=/srv", "HOSTNAME=host", &path, "TERM=dumb"],
        );
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_stays(text in "[^$]*") {
            prop_assert_eq!(expand(&text, &|_| Some("x".into())), text);
        }

        #[test]
        fn expansion_is_what_the_reference_says(text in "([$()ABä]|[$]\\([AB]\\)){0,30}") {
            let value = |name: &str| match name {
                "A" => Some("$(B)$".to_owned()),
                "B" => Some(String::new()),
                _ => None,
            };
            prop_assert_eq!(expand(&text, &value), reference(&text, &value));
        }

        #[test]
        fn nothing_panics_and_unknown_names_stay(text in "[$()A ä]*") {
            let once = expand(&text, &|_| None);
            prop_assert!(once.len() <= text.len());
        }
    }
}
