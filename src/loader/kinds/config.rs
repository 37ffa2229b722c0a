//! ConfigMaps and Secrets: their keys.

use super::super::node::At;
use super::super::report::Report;

/// Checks what the API server checks of a ConfigMap beyond its types.
pub(super) fn check_config_map(at: At<'_>, report: &Report) {
    check_keys(at.field("data"), report);
    check_keys(at.field("binaryData"), report);
    check_size(at, &["data", "binaryData"], report);
    for (key, value) in at.field("binaryData").entries() {
        if at
            .field("data")
            .node
            .is_some_and(|data| data.get(key).is_some())
        {
            report.error(
                value,
                format!("the key `{key}` is in `data` and in `binaryData`"),
            );
        }
    }
}

/// Checks what the API server checks of a Secret beyond its types.
pub(super) fn check_secret(at: At<'_>, report: &Report) {
    check_keys(at.field("data"), report);
    check_keys(at.field("stringData"), report);
    check_size(at, &["data", "stringData"], report);
}

/// The API server's limit for ConfigMaps and Secrets, here for their text.
const MAX_SIZE: usize = 1 << 20;

fn check_size(at: At<'_>, fields: &[&str], report: &Report) {
    let entries = fields.iter().flat_map(|field| at.field(field).entries());
    let texts = entries.filter_map(|(_, value)| value.node.and_then(|node| node.as_str()));
    // Base64 is a third longer than what it stands for.
    if texts.map(str::len).sum::<usize>() > MAX_SIZE / 3 * 4 {
        report.error(
            at.key("metadata").field("name"),
            "the data is larger than 1 MiB, which is Kubernetes' limit",
        );
    }
}

fn check_keys(at: At<'_>, report: &Report) {
    for (key, value) in at.entries() {
        if let Some(reason) = key_fault(key) {
            report.error(value, format!("the key `{key}` {reason}"));
        }
    }
}

/// Keys become file names.
fn key_fault(key: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.is_empty() {
        Some("must not be empty".to_owned())
    } else if key.len() > 253 {
        Some(format!(
            "must be no more than 253 characters, is {}",
            key.len()
        ))
    } else if key == "." || key.starts_with("..") {
        Some("must not be `.` and not start with `..`".to_owned())
    } else if !key.chars().all(allowed) {
        Some("must consist of letters, digits, `-`, `_` or `.`".to_owned())
    } else {
        None
    }
}
