//! What pods have to show to registries.

use super::{load_text, messages, options};
use crate::model::pull_secret::SecretForm;

const CONTENT: &str = "{\"auths\": {\"example.com\": {}}}";

fn pod(fields: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, \
         spec: {{{fields} containers: [{{name: c, image: x}}]}}}}\n---\n"
    )
}

fn secret(name: &str, kind: &str, key: &str, content: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: {name}}}, type: {kind}, \
         stringData: {{{key}: '{content}'}}}}\n---\n"
    )
}

fn account(name: &str, secret: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {name}}}, \
         imagePullSecrets: [{{name: {secret}}}]}}\n---\n"
    )
}

/// The names of the pod's Secrets, and the warnings.
fn found(text: &str) -> (Vec<String>, Vec<String>) {
    let loaded = load_text(text, &options());
    assert!(!loaded.has_errors(), "{:?}", messages(&loaded));
    let secrets = loaded
        .objects
        .iter()
        .flat_map(|object| &object.pull_secrets);
    let names = secrets.map(|secret| secret.name.clone()).collect();
    let told = messages(&loaded).into_iter();
    let warnings = told.filter(|text| text.contains("Secret `"));
    (names, warnings.map(str::to_owned).collect())
}

#[test]
fn the_pods_own_or_its_accounts() {
    let json = secret(
        "a",
        "kubernetes.io/dockerconfigjson",
        ".dockerconfigjson",
        CONTENT,
    );
    let old = secret("b", "kubernetes.io/dockercfg", ".dockercfg", "{}");
    let both = "imagePullSecrets: [{name: b}, {name: a}],";
    let check = |text: String, expected: &[&str]| {
        let (names, warnings) = found(&text);
        assert_eq!(names, expected, "{text}");
        assert!(warnings.is_empty(), "{warnings:?}");
    };
    let objects = format!("{json}{old}");
    check(pod("") + &objects, &[]);
    check(pod(both) + &objects, &["b", "a"]);
    let accounts = account("default", "a") + &account("robot", "b");
    check(pod("") + &objects + &accounts, &["a"]);
    check(
        pod("serviceAccountName: robot,") + &objects + &accounts,
        &["b"],
    );
    check(pod("serviceAccount: robot,") + &objects + &accounts, &["b"]);
    check(
        pod("imagePullSecrets: [{name: a}], serviceAccount: robot,") + &objects + &accounts,
        &["a"],
    );

    let loaded = load_text(&(pod(both) + &objects), &options());
    let secrets = &loaded.objects[0].pull_secrets;
    assert_eq!(secrets[0].form, SecretForm::DockerCfg);
    assert_eq!(secrets[1].form, SecretForm::DockerConfigJson);
    assert_eq!(secrets[1].content, CONTENT.as_bytes());
    let plan = serde_json::to_string(&loaded.objects[0].plan).unwrap();
    assert!(!plan.contains("example.com"), "{plan}");
}

#[test]
fn what_cannot_be_used_is_a_warning() {
    let check = |objects: &str, words: &str| {
        let (names, warnings) = found(&(pod("imagePullSecrets: [{name: a}],") + objects));
        assert!(names.is_empty());
        assert!(
            warnings.len() == 1 && warnings[0].contains(words),
            "{warnings:?}"
        );
    };
    check("", "does not exist in namespace `default`");
    check(
        &secret("a", "Opaque", ".dockerconfigjson", CONTENT),
        "has no credentials",
    );
    let docker = "kubernetes.io/dockerconfigjson";
    check(
        &secret("a", docker, ".dockercfg", CONTENT),
        "has no JSON object",
    );
    check(
        &secret("a", docker, ".dockerconfigjson", "no JSON"),
        "has no JSON object",
    );
}
