//! A pod's `imagePullSecrets`, or those of its ServiceAccount, to what they hold.
//!
//! As in a cluster a missing Secret keeps no pod from being played: its image may be there, or be anybody's.

use k8s_openapi::api::core::v1::PodSpec;

use super::super::node::At;
use super::super::resolve::{self, Found};
use super::pod::Scope;
use super::workload::Workload;
use crate::model::pull_secret::{PullSecret, SecretForm};

/// The Secrets that a workload's pod shows to registries, in its order.
pub(in super::super) fn pull_secrets(
    workload: &Workload,
    at: At<'_>,
    scope: &Scope<'_>,
) -> Vec<PullSecret> {
    let at = workload.spec_at(at);
    let own: Vec<&str> = names(&workload.spec);
    let account;
    let (names, at): (Vec<&str>, _) = match own.is_empty() {
        false => (own, at.field("imagePullSecrets")),
        true => {
            account = account_of(&workload.spec);
            let names = scope.index.account(&scope.key.namespace, account);
            let at = at.field("serviceAccountName");
            (names.iter().map(String::as_str).collect(), at)
        }
    };
    let secrets = names.into_iter().enumerate();
    secrets
        .filter_map(|(index, name)| find(name, at.index(index), scope))
        .collect()
}

fn names(spec: &PodSpec) -> Vec<&str> {
    let secrets = spec.image_pull_secrets.iter().flatten();
    secrets
        .map(|secret| secret.name.as_str())
        .filter(|name| !name.is_empty())
        .collect()
}

fn account_of(spec: &PodSpec) -> &str {
    let name = spec.service_account_name.as_deref();
    let name = name.filter(|name| !name.is_empty());
    name.or(spec.service_account.as_deref())
        .filter(|name| !name.is_empty())
        .unwrap_or("default")
}

fn find(name: &str, at: At<'_>, scope: &Scope<'_>) -> Option<PullSecret> {
    let (index, namespace) = (scope.index, &scope.key.namespace);
    let warn = |what: &str, hint: &str| {
        let message = format!("the Secret `{name}` {what}");
        scope.report.warning_hint(at, message, hint);
        None
    };
    let data = match index.find(resolve::Kind::Secret, namespace, name) {
        Found::Data(data) => data,
        // Told already.
        Found::Faulty => return None,
        Found::Missing => {
            return warn(
                &format!("does not exist in namespace `{namespace}`: images are pulled without it"),
                "add the Secret to the files, or `kplay login` at the registry",
            );
        }
    };
    let (form, key) = match data.kind.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            (SecretForm::DockerConfigJson, ".dockerconfigjson")
        }
        Some("kubernetes.io/dockercfg") => (SecretForm::DockerCfg, ".dockercfg"),
        _ => {
            return warn(
                "has no credentials for registries: images are pulled without it",
                "its `type` has to be `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`",
            );
        }
    };
    let content = data.file(key).unwrap_or_default();
    let json = serde_json::from_slice::<serde_json::Value>(content);
    if !json.is_ok_and(|json| json.is_object()) {
        return warn(
            &format!("has no JSON object under `{key}`: images are pulled without it"),
            "`kubectl create secret docker-registry` makes one",
        );
    }
    Some(PullSecret {
        name: name.to_owned(),
        form,
        content: content.to_owned(),
    })
}
