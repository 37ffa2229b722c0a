//! The environment of a container, and `$(VAR)` in it and in its command (pod-level order rules:
//! `kubelet_pods.go:makeEnvironmentVariables`; expansion: `third_party/forked/golang/expansion`). Pure.

use std::collections::BTreeMap;

pub use crate::model::expansion::expand;
use crate::model::plan::{EnvValue, EnvVar};

/// The PATH of an image that sets none, as containerd has it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables that the manifest asks for, in its order; a later one of the same name wins. `resolve` gives the
/// values of fields and resources.
#[must_use]
pub fn declared(vars: &[EnvVar], resolve: &dyn Fn(&EnvValue) -> String) -> Vec<(String, String)> {
    let mut result: Vec<(String, String)> = Vec::with_capacity(vars.len());
    for var in vars {
        let value = match &var.value {
            EnvValue::Template(text) => {
                expand(text, &|name| lookup(&result, name).map(str::to_owned))
            }
            EnvValue::Literal(text) => text.clone(),
            other @ (EnvValue::Field(_) | EnvValue::Resource { .. }) => resolve(other),
        };
        result.retain(|(name, _)| *name != var.name);
        result.push((var.name.clone(), value));
    }
    result
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
        let declared = declared(&vars, &|_| String::new());
        assert_eq!(lookup(&declared, "FROM"), Some("$(A)"));
        assert_eq!(lookup(&declared, "B"), Some("1$(C)"));
        assert_eq!(lookup(&declared, "A"), Some("1+"));
        assert_eq!(declared.len(), 4);
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
        fn nothing_panics_and_unknown_names_stay(text in "[$()A ä]*") {
            let once = expand(&text, &|_| None);
            prop_assert!(once.len() <= text.len());
        }
    }
}
