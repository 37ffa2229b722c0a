//! Secrets of `imagePullSecrets`, matched as the kubelet's keyring does: all keys that fit, the longest path first.
//!
//! A key's host may have `*` and `?` in each of its labels (`*.example.com`), its path is a prefix of the repository.

use super::file::{Config, DOCKER_KEY, Form, host, without_scheme};
use super::{Credentials, Login, Origin};
use crate::model::pull_secret::{PullSecret, SecretForm};

/// All credentials of these Secrets for a repository.
pub(super) fn find(secrets: &[PullSecret], registry: &str, repository: &str) -> Vec<Login> {
    let mut keys: Vec<(String, Credentials, &str)> = Vec::new();
    for secret in secrets {
        let form = match secret.form {
            SecretForm::DockerConfigJson => Form::Current,
            SecretForm::DockerCfg => Form::Legacy,
        };
        let Ok(config) = Config::parse(&secret.content, form, "".as_ref()) else {
            // The loader has warned of what is no JSON at all; a kubelet says no more.
            tracing::warn!(secret = secret.name, "an image pull secret cannot be read");
            continue;
        };
        let entries = config.entries();
        keys.extend(entries.map(|(key, credentials)| (bare(key), credentials, &*secret.name)));
    }
    // Stable: of equal keys, the Secret that the pod names first.
    keys.sort_by(|(a, ..), (b, ..)| b.cmp(a));
    let image = format!("{}/{repository}", host(registry));
    let fitting = keys.into_iter().filter(|(key, ..)| fits(key, &image));
    let mut found: Vec<Login> = Vec::new();
    for (_, credentials, name) in fitting {
        if found.iter().all(|login| login.credentials != credentials) {
            let origin = Origin::Secret(name.to_owned());
            found.push(Login {
                credentials,
                origin,
            });
        }
    }
    found
}

/// A key as host and path: without scheme, and without the API's version, which old keys end with.
fn bare(key: &str) -> String {
    if key == DOCKER_KEY {
        return "index.docker.io".to_owned();
    }
    let (name, path) = match without_scheme(key).split_once('/') {
        Some((name, path)) => (name, path),
        None => (without_scheme(key), ""),
    };
    let path = match path.split_once('/') {
        Some(("v1" | "v2", rest)) => rest,
        _ if matches!(path, "v1" | "v2") => "",
        _ => path,
    };
    match path.trim_end_matches('/') {
        "" => host(name).to_owned(),
        path => format!("{}/{path}", host(name)),
    }
}

fn fits(key: &str, image: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (image_host, image_path) = image.split_once('/').unwrap_or((image, ""));
    let split = |host: &str| -> (Vec<String>, Option<String>) {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.to_owned())),
            None => (host, None),
        };
        (name.split('.').map(str::to_owned).collect(), port)
    };
    let ((key_labels, key_port), (labels, port)) = (split(key_host), split(image_host));
    key_port == port
        && key_labels.len() == labels.len()
        && key_labels
            .iter()
            .zip(&labels)
            .all(|(pattern, label)| glob(pattern.as_bytes(), label.as_bytes()))
        && image_path.starts_with(key_path)
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, text)
                || text
                    .split_first()
                    .is_some_and(|(_, text)| glob(pattern, text))
        }
        (Some((b'?', rest)), Some((_, text))) => glob(rest, text),
        (Some((a, rest)), Some((b, text))) => a == b && glob(rest, text),
        (Some(_), None) | (None, Some(_)) => false,
    }
}
