//! How pods are called, and what controllers write into them.

use super::{load_text, messages, options};
use crate::loader::Options;
use crate::model::plan::{EnvValue, FieldRef, PodPlan};

fn plan(text: &str, options: &Options) -> PodPlan {
    let loaded = load_text(text, options);
    assert!(!loaded.has_errors(), "{:?}", messages(&loaded));
    let mut plans = loaded.objects.into_iter().filter_map(|object| object.plan);
    plans.next().unwrap()
}

fn pod(name: &str, fields: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: ns}}, \
         spec: {{{fields} containers: [{{name: c, image: x}}]}}}}"
    )
}

#[test]
fn host_names_and_domains() {
    // Short name, name with domain, what the kernel says.
    let check = |name: &str, fields: &str, expected: [&str; 3]| {
        let plan = plan(&pod(name, fields), &options());
        let fqdn = plan.fqdn().unwrap_or_default();
        let found = [&plan.hostname, &fqdn, &plan.kernel_hostname()];
        assert_eq!(found, expected, "{name} {fields}");
    };
    let domain = "sub.ns.svc.cluster.local";
    check("web", "", ["web", "", "web"]);
    check("web.a.b", "", ["web.a.b", "", "web.a.b"]);
    check("web", "hostname: other,", ["other", "", "other"]);
    check("web", "hostname: '',", ["web", "", "web"]);
    let fqdn = format!("web.{domain}");
    check("web", "subdomain: sub,", ["web", &fqdn, "web"]);
    check(
        "web",
        "subdomain: sub, setHostnameAsFQDN: true,",
        ["web", &fqdn, &fqdn],
    );
    // Without a subdomain there is no other name.
    check("web", "setHostnameAsFQDN: true,", ["web", "", "web"]);
    // 63 characters, and no separator at a cut end; one that is short enough stays.
    let long = "a".repeat(61);
    check(
        &format!("{long}.b-c"),
        "",
        [&format!("{long}.b"), "", &format!("{long}.b")],
    );
    let cut = "a".repeat(62);
    check(&format!("{cut}.bc"), "", [&cut, "", &cut]);
    check(&format!("{}--b", &long), "", [&long, "", &long]);
    // It wins over all others, and has no domain.
    check(
        "web",
        "hostnameOverride: my.own, hostname: other, subdomain: sub,",
        ["my.own", "", "my.own"],
    );
    check(
        "web",
        "hostNetwork: true, hostname: other, subdomain: sub, setHostnameAsFQDN: true,",
        ["node", "", "node"],
    );
}

#[test]
fn names_that_fit_nowhere() {
    let check = |fields: &str, expected: &str| {
        let loaded = load_text(&pod("web", fields), &options());
        assert_eq!(messages(&loaded), [expected], "{fields}");
    };
    // The longest that the kernel keeps has 64 characters.
    let host = |length: usize| {
        let rest = ".sub.ns.svc.cluster.local".len();
        let name = "a".repeat(length - rest);
        format!("hostname: {name}, subdomain: sub, setHostnameAsFQDN: true,")
    };
    plan(&pod("web", &host(64)), &options());
    check(
        &host(65),
        &format!(
            "with `setHostnameAsFQDN` the host name may have 64 characters; \
             `{}.sub.ns.svc.cluster.local` has 65",
            "a".repeat(40)
        ),
    );
    check(
        "hostnameOverride: a, hostNetwork: true,",
        "`hostnameOverride` and `hostNetwork: true` exclude each other",
    );
    check(
        "hostnameOverride: a, setHostnameAsFQDN: true,",
        "`hostnameOverride` and `setHostnameAsFQDN: true` exclude each other",
    );
    check(
        &format!("hostnameOverride: {}.b,", "a".repeat(63)),
        "`hostnameOverride` must be no more than 64 characters",
    );
    check(
        "hostnameOverride: '',",
        "`hostnameOverride` must not be empty",
    );
    let label = "must consist of lower case letters, digits or `-`, and start and end with a letter or digit";
    check("subdomain: a.b,", &format!("`subdomain` {label}"));
    check("hostname: a.b,", &format!("`hostname` {label}"));
    let searches: Vec<String> = (0..30)
        .map(|n| format!("{}{n:02}", "a".repeat(70)))
        .collect();
    check(
        &format!("dnsConfig: {{searches: [{}]}},", searches.join(", ")),
        "all search domains may have 2048 characters together, these have 2189",
    );
}

#[test]
fn the_service_account_is_named_as_admission_does() {
    let check = |fields: &str, expected: &str| {
        let plan = plan(&pod("web", fields), &options());
        assert_eq!(plan.service_account, expected, "{fields}");
        for field in ["serviceAccountName", "serviceAccount"] {
            assert_eq!(plan.manifest["spec"][field], expected, "{fields}");
        }
    };
    check("", "default");
    check("serviceAccountName: robot,", "robot");
    check("serviceAccount: old,", "old");
    check("serviceAccount: old, serviceAccountName: robot,", "robot");
}

fn workload(kind: &str, fields: &str) -> String {
    let (group, selector) = match kind {
        "Job" => ("batch/v1", ""),
        _ => ("apps/v1", "selector: {matchLabels: {a: b}},"),
    };
    format!(
        "{{apiVersion: {group}, kind: {kind}, metadata: {{name: w}}, spec: {{{selector} {fields} \
         template: {{metadata: {{labels: {{a: b}}}}, spec: {{RESTART initContainers: [{{name: i, image: x}}], \
         containers: [{{name: c, image: x}}]}}}}}}}}"
    )
    .replace(
        "RESTART",
        if kind == "Job" { "restartPolicy: Never," } else { "" },
    )
}

#[test]
fn a_stateful_sets_pod() {
    let plan = plan(&workload("StatefulSet", "serviceName: svc,"), &options());
    assert_eq!(plan.fqdn().unwrap(), "w-0.svc.default.svc.cluster.local");
    assert_eq!(plan.labels["statefulset.kubernetes.io/pod-name"], "w-0");
    assert_eq!(plan.labels["apps.kubernetes.io/pod-index"], "0");
    assert!(plan.labels["controller-revision-hash"].starts_with("w-"));
}

#[test]
fn templates_have_a_hash() {
    let hash =
        |text: &str, options: &Options| plan(text, options).labels["pod-template-hash"].clone();
    let text = workload("Deployment", "");
    let first = hash(&text, &options());
    assert!(
        first
            .bytes()
            .all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)),
        "{first}"
    );
    // What is not in the template does not count; all of the template does.
    assert_eq!(
        hash(&workload("Deployment", "replicas: 1,"), &options()),
        first
    );
    assert_ne!(
        hash(&text.replace("image: x", "image: z"), &options()),
        first
    );
    let set_image = Options {
        set_image: vec![("c".to_owned().try_into().unwrap(), "z".to_owned())],
        ..options()
    };
    assert_ne!(hash(&text, &set_image), first);
}

#[test]
fn a_pod_of_an_indexed_job() {
    let plain = plan(&workload("Job", ""), &options());
    assert_eq!(plain.labels["batch.kubernetes.io/job-name"], "w");
    assert_eq!(plain.labels["job-name"], "w");
    assert!(
        plain
            .all_containers()
            .all(|container| container.env.is_empty())
    );
    let text = workload("Job", "completionMode: Indexed, completions: 1,");
    let indexed = plan(&text, &options());
    let key = "batch.kubernetes.io/job-completion-index";
    assert_eq!(
        (&*indexed.labels[key], &*indexed.annotations[key]),
        ("0", "0")
    );
    assert_eq!(indexed.hostname, "w-0");
    for container in indexed.all_containers() {
        assert_eq!(container.env[0].name, "JOB_COMPLETION_INDEX");
        assert_eq!(
            container.env[0].value,
            EnvValue::Field(FieldRef::Label(key.into()))
        );
    }
    let own = text.replace(
        "name: c,",
        "name: c, env: [{name: JOB_COMPLETION_INDEX, value: mine}],",
    );
    let own = plan(&own, &options());
    assert_eq!(own.containers[0].env.len(), 1);
    let check = |fields: &str, expected: &str| {
        let loaded = load_text(&workload("Job", fields), &options());
        assert_eq!(messages(&loaded), [expected]);
    };
    check(
        "completionMode: Indexed,",
        "`completionMode: Indexed` needs `completions`",
    );
    check(
        "completionMode: indexed,",
        "`completionMode` must be `NonIndexed` or `Indexed`, is `indexed`",
    );
}
