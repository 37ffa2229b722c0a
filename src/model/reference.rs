//! Image references, normalised as Docker does.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An image reference: registry, repository, and a tag or digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`, `kplay.local`.
    pub registry: String,
    /// `library/busybox`.
    pub repository: String,
    /// `latest` if the text had neither tag nor digest.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

/// Why a text is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    #[error("the image reference is empty")]
    Empty,
    #[error("the repository name must be lower case")]
    UpperCase,
    #[error(
        "the repository name `{0}` may have only lower case letters and digits, separated by `.`, `_`, `-` or `/`"
    )]
    Repository(String),
    #[error("the registry `{0}` is not a host name with an optional port")]
    Registry(String),
    #[error(
        "the tag `{0}` may have only letters, digits, `_`, `.` and `-`, at most 128, and not start with `.` or `-`"
    )]
    Tag(String),
    #[error("the digest `{0}` is not `sha256:` and 64 hexadecimal digits")]
    Digest(String),
    #[error("the image reference is longer than 255 characters")]
    TooLong,
}

impl Reference {
    /// Reads a reference as Docker does: no registry means `docker.io`, one path component there means
    /// `library/`, neither tag nor digest means `latest`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if text.is_empty() {
            return Err(InvalidReference::Empty);
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(checked_digest(digest)?)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(checked_tag(tag)?)),
            _ => (name, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (checked_registry(first)?, rest),
            _ => ("docker.io".to_owned(), name),
        };
        let repository = if registry == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        check_repository(&repository)?;
        if registry.len() + 1 + repository.len() > 255 {
            return Err(InvalidReference::TooLong);
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag,
        };
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }
}

/// An image as it was asked for. A short name has no registry: without more knowledge it is Docker's, but a machine's
/// configuration may complete it otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    reference: Reference,
    /// `library/busybox` or `busybox`, as it was written; only of a short name.
    short: Option<String>,
}

impl ImageName {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let reference = Reference::parse(text)?;
        let name = text.split('@').next().unwrap_or_default();
        let path = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => path,
            _ => name,
        };
        let full = path
            .split_once('/')
            .is_some_and(|(first, _)| is_registry(first));
        let short = (!full).then(|| path.to_owned());
        Ok(Self { reference, short })
    }

    /// The reference as Docker reads it.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The path of a short name, as it was written and without tag and digest.
    #[must_use]
    pub fn short(&self) -> Option<&str> {
        self.short.as_deref()
    }

    /// The image of another repository (`quay.io/ns/app`) with this one's tag and digest.
    ///
    /// # Errors
    /// What is wrong with the repository.
    pub fn of_repository(&self, repository: &str) -> Result<Reference, InvalidReference> {
        let named = Reference::parse(repository)?;
        Ok(Reference {
            tag: self.reference.tag.clone(),
            digest: self.reference.digest.clone(),
            ..named
        })
    }
}

impl From<Reference> for ImageName {
    fn from(reference: Reference) -> Self {
        Self {
            reference,
            short: None,
        }
    }
}

impl fmt::Display for Reference {
    /// The whole reference: `docker.io/library/busybox:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Docker's rule: the first component is a registry if it has a `.` or a `:`, is `localhost`, or has upper case.
fn is_registry(component: &str) -> bool {
    component.contains(['.', ':'])
        || component == "localhost"
        || component.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn checked_registry(text: &str) -> Result<String, InvalidReference> {
    let invalid = || InvalidReference::Registry(text.to_owned());
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(invalid());
    }
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let named = !host.is_empty()
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        });
    if !bracketed && !named {
        return Err(invalid());
    }
    // Docker's two names for its own registry.
    Ok(match text {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        _ => text.to_owned(),
    })
}

fn check_repository(text: &str) -> Result<(), InvalidReference> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(InvalidReference::UpperCase);
    }
    if text.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err(InvalidReference::Repository(text.to_owned()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, from the distribution specification.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn checked_tag(text: &str) -> Result<String, InvalidReference> {
    let valid = (1..=128).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if valid {
        Ok(text.to_owned())
    } else {
        Err(InvalidReference::Tag(text.to_owned()))
    }
}

fn checked_digest(text: &str) -> Result<String, InvalidReference> {
    let valid = text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    });
    if valid {
        Ok(text.to_owned())
    } else {
        Err(InvalidReference::Digest(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_normalised_as_docker_does() {
        let check = |text: &str, expected: &str| {
            let parsed = Reference::parse(text).map(|reference| reference.to_string());
            assert_eq!(parsed.as_deref(), Ok(expected), "{text:?}");
        };
        let digest = format!("sha256:{}", "0".repeat(64));
        check("busybox", "docker.io/library/busybox:latest");
        check("busybox:1.36", "docker.io/library/busybox:1.36");
        check("a/b", "docker.io/a/b:latest");
        check("docker.io/busybox", "docker.io/library/busybox:latest");
        check("index.docker.io/a/b", "docker.io/a/b:latest");
        check("localhost/a", "localhost/a:latest");
        check("localhost:5000/a", "localhost:5000/a:latest");
        check("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t");
        check("[::1]:5000/a", "[::1]:5000/a:latest");
        check("kplay.local/toolbox", "kplay.local/toolbox:latest");
        check(
            &format!("a@{digest}"),
            &format!("docker.io/library/a@{digest}"),
        );
        check(
            &format!("a:t@{digest}"),
            &format!("docker.io/library/a:t@{digest}"),
        );
        check("a__b.c-d", "docker.io/library/a__b.c-d:latest");
    }

    #[test]
    fn a_short_name_is_known_as_one() {
        let check = |text: &str, short: Option<&str>| {
            let name = ImageName::parse(text).expect("a name");
            assert_eq!(name.short(), short, "{text:?}");
        };
        check("busybox", Some("busybox"));
        check("library/busybox:1", Some("library/busybox"));
        check("docker.io/busybox", None);
        check("localhost/busybox", None);
        check("host:5000/busybox:1", None);
        let digest = format!("sha256:{}", "0".repeat(64));
        check(&format!("a/b:t@{digest}"), Some("a/b"));
        let name = ImageName::parse("busybox:1").expect("a name");
        let other = name.of_repository("quay.io/x/box").expect("a reference");
        assert_eq!(other.to_string(), "quay.io/x/box:1");
    }

    #[test]
    fn what_is_no_reference_says_why() {
        let check = |text: &str, expected: InvalidReference| {
            assert_eq!(Reference::parse(text), Err(expected), "{text:?}");
        };
        check("", InvalidReference::Empty);
        check("busyBox", InvalidReference::UpperCase);
        check("a b", InvalidReference::Repository("library/a b".into()));
        check("a/../b", InvalidReference::Repository("a/../b".into()));
        check("a:", InvalidReference::Tag(String::new()));
        check("a:-x", InvalidReference::Tag("-x".into()));
        check("a@sha256:12", InvalidReference::Digest("sha256:12".into()));
        check("h:99999/a", InvalidReference::Registry("h:99999".into()));
        check("-x.y/a", InvalidReference::Registry("-x.y".into()));
        check(&"a".repeat(300), InvalidReference::TooLong);
    }
}
