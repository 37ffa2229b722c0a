//! `seccompProfile` and `appArmorProfile`.

use std::path::PathBuf;

use k8s_openapi::api::core::v1 as core;

use super::super::node::At;
use super::super::report::Report;
use super::container::relative_path_fault;
use super::pod::choice;
use crate::model::plan::{AppArmorProfile, SeccompProfile};

/// How a profile is chosen, in either kind of profile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    RuntimeDefault,
    Unconfined,
    Localhost,
}

/// `None` without a profile, and for one that is wrong, which is in the report then.
pub(super) fn seccomp(
    profile: Option<&core::SeccompProfile>,
    at: At<'_>,
    report: &Report,
) -> Option<SeccompProfile> {
    let profile = profile?;
    let at = at.key("seccompProfile");
    let name = profile.localhost_profile.as_deref();
    match checked(&profile.type_, name, at, report)? {
        Type::RuntimeDefault => Some(SeccompProfile::RuntimeDefault),
        Type::Unconfined => Some(SeccompProfile::Unconfined),
        Type::Localhost => {
            let path = name?;
            if let Some(fault) = relative_path_fault(path) {
                report.error_hint(
                    at.field("localhostProfile"),
                    format!("`localhostProfile` {fault}, is `{path}`"),
                    "it is looked for in `seccomp` below the state folder, and in `/var/lib/kubelet/seccomp`",
                );
                return None;
            }
            Some(SeccompProfile::Localhost(PathBuf::from(path)))
        }
    }
}

/// As [`seccomp`].
pub(super) fn app_armor(
    profile: Option<&core::AppArmorProfile>,
    at: At<'_>,
    report: &Report,
) -> Option<AppArmorProfile> {
    /// The API server's.
    const LONGEST: usize = 4095;
    let profile = profile?;
    let at = at.key("appArmorProfile");
    let name = profile.localhost_profile.as_deref();
    match checked(&profile.type_, name, at, report)? {
        Type::RuntimeDefault => Some(AppArmorProfile::RuntimeDefault),
        Type::Unconfined => Some(AppArmorProfile::Unconfined),
        Type::Localhost => {
            let name = name?;
            let place = at.field("localhostProfile");
            if name.trim() != name {
                report.error(
                    place,
                    "`localhostProfile` must not start or end with a space",
                );
                return None;
            }
            if name.len() > LONGEST || name.contains('\0') {
                report.error(place, "`localhostProfile` is not the name of a profile");
                return None;
            }
            Some(AppArmorProfile::Localhost(name.to_owned()))
        }
    }
}

/// A `localhostProfile` goes with the type of this name, and with no other.
fn checked(kind: &str, name: Option<&str>, at: At<'_>, report: &Report) -> Option<Type> {
    let types = [
        ("RuntimeDefault", Type::RuntimeDefault),
        ("Unconfined", Type::Unconfined),
        ("Localhost", Type::Localhost),
    ];
    let kind = choice(kind, &types, "type", at.field("type"), report)?;
    let has_name = name.is_some_and(|name| !name.trim().is_empty());
    if kind == Type::Localhost && !has_name {
        report.error(at, "`type: Localhost` needs a `localhostProfile`");
        return None;
    }
    if kind != Type::Localhost && name.is_some() {
        let message = "`localhostProfile` goes with `type: Localhost` only";
        report.error(at.field("localhostProfile"), message);
        return None;
    }
    Some(kind)
}
