//! `image ls` and `get images`, with docker's columns.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration;
use super::table::{Headers, Table};
use crate::model::reference::Reference;
use crate::model::status::time;

/// An image of the store, as it is listed.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// None for an image that lost its last name.
    pub(crate) reference: Option<Reference>,
    /// `sha256:…`.
    pub(crate) id: String,
    pub(crate) created: Option<Timestamp>,
    /// Bytes.
    pub(crate) size: u64,
}

impl Row {
    fn repository(&self) -> String {
        self.reference.as_ref().map_or_else(
            || "<none>".to_owned(),
            |name| format!("{}/{}", name.registry, name.repository),
        )
    }

    fn tag(&self) -> &str {
        self.reference
            .as_ref()
            .and_then(|name| name.tag.as_deref())
            .unwrap_or("<none>")
    }
}

/// The table of images.
pub(crate) fn table(images: &[Row], headers: Headers, now: Timestamp) -> String {
    let mut table = Table::new(vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    for image in images {
        table.push(vec![
            image.repository(),
            image.tag().to_owned(),
            short_id(&image.id).to_owned(),
            image.created.map_or_else(
                || "<unknown>".to_owned(),
                |created| format!("{} ago", duration::since(created, now)),
            ),
            size(image.size),
        ]);
    }
    table.render(headers)
}

/// The list for scripts.
pub(crate) fn object(images: &[Row]) -> Value {
    let items: Vec<Value> = images
        .iter()
        .map(|image| {
            json!({
                "name": image.reference.as_ref().map(ToString::to_string),
                "id": image.id,
                "created": image.created.as_ref().map(time::text),
                "size": image.size,
            })
        })
        .collect();
    json!({ "apiVersion": "kplay/v1", "kind": "ImageList", "items": items })
}

/// What is known of an image.
#[derive(Debug)]
pub(crate) struct Inspected<'a> {
    /// `sha256:…`.
    pub(crate) id: &'a str,
    pub(crate) references: &'a [Reference],
    /// The image's own, as it is.
    pub(crate) config: Value,
    pub(crate) manifest: Option<Value>,
    /// The manifest's.
    pub(crate) digest: Option<&'a str>,
    /// Bytes.
    pub(crate) size: u64,
    /// The unpacked layers, lowest first.
    pub(crate) folders: &'a [PathBuf],
}

/// An image in the words of `podman image inspect`.
pub(crate) fn inspected(image: &Inspected<'_>) -> Value {
    let (config, manifest) = (&image.config, image.manifest.as_ref());
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    let by_tag = image.references.iter().filter(|r| r.digest.is_none());
    let by_digest = image.references.iter().filter_map(|name| {
        let digest = name.digest.as_ref()?;
        Some(format!("{}/{}@{digest}", name.registry, name.repository))
    });
    let mut folders = image
        .folders
        .iter()
        .rev()
        .map(|path| path.display().to_string());
    let upper = folders.next();
    let lower: Vec<String> = folders.collect();
    json!({
        "Id": image.id.trim_start_matches("sha256:"),
        "Digest": image.digest,
        "RepoTags": by_tag.map(ToString::to_string).collect::<Vec<_>>(),
        "RepoDigests": by_digest.collect::<Vec<_>>(),
        "Parent": "",
        "Comment": text("comment"),
        "Created": config.get("created"),
        "Config": config.get("config"),
        "Version": text("docker_version"),
        "Author": text("author"),
        "Architecture": text("architecture"),
        "Os": text("os"),
        "Variant": text("variant"),
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {
            "Name": "overlay",
            "Data": { "LowerDir": lower.join(":"), "UpperDir": upper },
        },
        "RootFS": {
            "Type": config.pointer("/rootfs/type"),
            "Layers": config.pointer("/rootfs/diff_ids"),
        },
        "Labels": config.pointer("/config/Labels"),
        "Annotations": manifest.and_then(|m| m.get("annotations")),
        "ManifestType": manifest.and_then(|m| m.get("mediaType")),
        "User": config.pointer("/config/User").unwrap_or(&json!("")),
        "History": config.get("history"),
    })
}

/// The first 12 digits, as docker shows them.
pub(crate) fn short_id(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

/// Bytes in docker's decimal units with three digits: `4.43MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut amount, mut unit) = (bytes as f64, 0);
    while amount >= 999.5 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    let digits = match amount {
        _ if unit == 0 => 0,
        small if small < 9.995 => 2,
        middle if middle < 99.95 => 1,
        _ => 0,
    };
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    format!("{amount:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_three_digits() {
        let check = |bytes: u64, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0B");
        check(999, "999B");
        check(4_430_000, "4.43MB");
        check(44_300_000, "44.3MB");
        check(443_000_000, "443MB");
        check(999_999, "1.00MB");
        check(u64::MAX, "18447PB");
    }

    #[test]
    fn images_print_as_docker_prints_them() {
        let rows = [
            Row {
                reference: Reference::parse("busybox:1.36").ok(),
                id: format!("sha256:{}", "ab".repeat(32)),
                created: "2026-01-01T00:00:00Z".parse().ok(),
                size: 4_430_000,
            },
            Row {
                reference: None,
                id: "sha256:cd".into(),
                created: None,
                size: 1,
            },
        ];
        let now = "2026-01-03T00:00:00Z".parse().expect("a time");
        assert_eq!(
            table(&rows, Headers::Shown, now),
            "REPOSITORY                  TAG      IMAGE ID       CREATED     SIZE\n\
             docker.io/library/busybox   1.36     abababababab   2d ago      4.43MB\n\
             <none>                      <none>   cd             <unknown>   1B\n"
        );
        assert_eq!(
            object(&rows)["items"][0]["name"],
            "docker.io/library/busybox:1.36"
        );
    }
}
