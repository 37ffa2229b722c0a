//! `seccompProfile` and `appArmorProfile`, and the annotations that were before them.

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

/// The annotations of old: AppArmor's becomes the container's profile, as an API server does it; seccomp's has no effect
/// since Kubernetes 1.27.
pub(super) fn of_annotations<'a>(
    annotations: impl Iterator<Item = (&'a String, &'a String)>,
    spec: &mut core::PodSpec,
    at: At<'_>,
    report: &Report,
) {
    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
    const SECCOMP: [&str; 2] = [
        "seccomp.security.alpha.kubernetes.io/pod",
        "container.seccomp.security.alpha.kubernetes.io/",
    ];
    for (key, value) in annotations {
        let place = at.field(key);
        if SECCOMP.iter().any(|name| key.starts_with(name)) {
            report.warning_hint(
                place,
                format!("the annotation `{key}` has no effect since Kubernetes 1.27"),
                "use `securityContext.seccompProfile`",
            );
        }
        let Some(name) = key.strip_prefix(APP_ARMOR) else {
            continue;
        };
        let Some(profile) = app_armor_annotation(value) else {
            report.error_hint(
                place,
                format!("`{value}` is not an AppArmor profile"),
                "it is `runtime/default`, `unconfined` or `localhost/` and a name",
            );
            continue;
        };
        let init = spec.init_containers.iter_mut().flatten();
        let mut containers = init.chain(&mut spec.containers);
        let Some(container) = containers.find(|container| container.name == name) else {
            report.error(place, format!("there is no container `{name}`"));
            continue;
        };
        report.warning_hint(
            place,
            format!("the annotation `{key}` is deprecated since Kubernetes 1.30"),
            "use `securityContext.appArmorProfile`",
        );
        let context = container.security_context.get_or_insert_default();
        context.app_armor_profile.get_or_insert(profile);
    }
}

fn app_armor_annotation(value: &str) -> Option<core::AppArmorProfile> {
    let (kind, name) = match value {
        "runtime/default" => ("RuntimeDefault", None),
        "unconfined" => ("Unconfined", None),
        _ => {
            let name = value.strip_prefix("localhost/")?;
            ("Localhost", Some(name).filter(|name| !name.is_empty()))
        }
    };
    if kind == "Localhost" && name.is_none() {
        return None;
    }
    Some(core::AppArmorProfile {
        type_: kind.to_owned(),
        localhost_profile: name.map(str::to_owned),
    })
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
