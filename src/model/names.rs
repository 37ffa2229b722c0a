//! Names as the Kubernetes API defines them, each checked once.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not a name of the wanted kind. The text itself is named by whoever reports this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("must not be empty")]
    Empty,
    #[error("must be no more than {max} characters, is {actual}")]
    TooLong { max: usize, actual: usize },
    #[error(
        "must consist of lower case letters, digits or `-`, and start and end with a letter or digit"
    )]
    NotALabel,
    #[error(
        "must consist of lower case letters, digits or `-`, start with a letter, and end with a letter or digit"
    )]
    NotAServiceName,
    #[error(
        "must consist of lower case letters, digits, `-` or `.`, and start and end with a letter or digit"
    )]
    NotASubdomain,
}

/// Checks a DNS label as RFC 1123 defines it: at most 63 of `[a-z0-9-]`, no `-` at either end.
///
/// # Errors
/// What is wrong with it.
pub fn check_label(text: &str) -> Result<(), InvalidName> {
    check_length(text, 63)?;
    if is_label(text) {
        Ok(())
    } else {
        Err(InvalidName::NotALabel)
    }
}

/// Checks a Service's name: a DNS label as RFC 1035 defines it, which starts with a letter.
///
/// # Errors
/// What is wrong with it.
pub fn check_service_name(text: &str) -> Result<(), InvalidName> {
    check_length(text, 63)?;
    if is_label(text) && !text.starts_with(|c: char| c.is_ascii_digit()) {
        Ok(())
    } else {
        Err(InvalidName::NotAServiceName)
    }
}

/// Checks a DNS subdomain as RFC 1123 defines it: labels joined by `.`, at most 253 characters.
///
/// # Errors
/// What is wrong with it.
pub fn check_subdomain(text: &str) -> Result<(), InvalidName> {
    check_length(text, 253)?;
    if text.split('.').all(is_label) {
        Ok(())
    } else {
        Err(InvalidName::NotASubdomain)
    }
}

fn check_length(text: &str, max: usize) -> Result<(), InvalidName> {
    match text.len() {
        0 => Err(InvalidName::Empty),
        actual if actual > max => Err(InvalidName::TooLong { max, actual }),
        _ => Ok(()),
    }
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks `text` once, so that no later code has to.
            ///
            /// # Errors
            /// What is wrong with it.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                $check(&text)?;
                Ok(Self(text.into()))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }
    };
}

name!(
    /// A namespace: a DNS label. kplay keeps objects of different namespaces apart and does nothing else with them.
    Namespace,
    check_label
);
name!(
    /// A pod's name: a DNS subdomain, unique within its namespace.
    PodName,
    check_subdomain
);
name!(
    /// A container's name: a DNS label, unique within its pod (init containers included).
    ContainerName,
    check_label
);
name!(
    /// A volume's name: a DNS label, unique within its pod.
    VolumeName,
    check_label
);

impl Default for Namespace {
    fn default() -> Self {
        Self("default".into())
    }
}

/// Which pod: the key of everything that is recorded about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodKey {
    pub namespace: Namespace,
    pub name: PodName,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which object of a manifest or of the records: `ConfigMap default/settings`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// `ConfigMap`, `Deployment`, as `kind` says it.
    pub kind: String,
    /// The group of its `apiVersion`: `apps`, `batch`; empty for the core group.
    pub group: String,
    pub namespace: Namespace,
    /// Checked for its kind by the loader.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    /// As kubectl prints it: `configmap/settings`, `deployment.apps/web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind.to_ascii_lowercase())?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        write!(f, "/{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_name_is_a_label() {
        let check = |text: &str, expected: Option<InvalidName>| {
            assert_eq!(ContainerName::parse(text).err(), expected, "{text:?}");
        };
        check("a", None);
        check("a-1", None);
        check(&"a".repeat(63), None);
        check("", Some(InvalidName::Empty));
        check(
            &"a".repeat(64),
            Some(InvalidName::TooLong {
                max: 63,
                actual: 64,
            }),
        );
        check("-a", Some(InvalidName::NotALabel));
        check("a-", Some(InvalidName::NotALabel));
        check("A", Some(InvalidName::NotALabel));
        check("a.b", Some(InvalidName::NotALabel));
    }

    #[test]
    fn a_service_name_starts_with_a_letter() {
        assert_eq!(check_service_name("db-0"), Ok(()));
        for text in ["0db", "-db", "db-", "db.x", "Db"] {
            assert_eq!(
                check_service_name(text),
                Err(InvalidName::NotAServiceName),
                "{text}"
            );
        }
    }

    #[test]
    fn a_pod_name_is_a_subdomain() {
        let check = |text: &str, expected: Option<InvalidName>| {
            assert_eq!(PodName::parse(text).err(), expected, "{text:?}");
        };
        check("a.b-c.d", None);
        check("a..b", Some(InvalidName::NotASubdomain));
        check("a.-b", Some(InvalidName::NotASubdomain));
        check("../etc", Some(InvalidName::NotASubdomain));
        check("a_b", Some(InvalidName::NotASubdomain));
    }

    #[test]
    fn an_object_prints_as_kubectl_prints_it() {
        let key = |kind: &str, group: &str| ObjectKey {
            kind: kind.into(),
            group: group.into(),
            namespace: Namespace::default(),
            name: "x".into(),
        };
        assert_eq!(key("ConfigMap", "").to_string(), "configmap/x");
        assert_eq!(key("Deployment", "apps").to_string(), "deployment.apps/x");
    }
}
