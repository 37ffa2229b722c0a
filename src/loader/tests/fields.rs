//! Fields that are honoured by being dropped, as an API server drops them, and kinds whose fields lead to the same pod.

use super::{load_text, messages, options};
use crate::model::diagnostic::Severity;
use crate::model::plan::{AppArmorProfile, PodPlan, VolumeSource};

fn plan(text: &str) -> (PodPlan, Vec<String>) {
    let loaded = load_text(text, &options());
    let messages: Vec<String> = messages(&loaded).into_iter().map(Into::into).collect();
    let mut plans = loaded.objects.into_iter().filter_map(|object| object.plan);
    let plan = plans.next();
    (plan.unwrap_or_else(|| panic!("{messages:?}")), messages)
}

#[test]
fn what_an_api_server_sets_is_dropped() {
    let pod = |metadata: &str, status: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web{metadata}}}, \
             spec: {{containers: [{{name: c, image: x}}]}}{status}}}"
        )
    };
    let managed = "[{apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {'f:metadata': {}}, \
                   manager: kubectl, operation: Update, subresource: status, \
                   time: '2024-01-01T00:00:00Z'}]";
    let owned = format!(
        ", uid: 7f1c, resourceVersion: '7', generation: 3, selfLink: /x, \
         creationTimestamp: '2024-01-01T00:00:00Z', deletionTimestamp: '2024-01-01T00:00:00Z', \
         deletionGracePeriodSeconds: 30, managedFields: {managed}"
    );
    let (expected, _) = plan(&pod("", ""));
    let (mut found, told) = plan(&pod(&owned, ", status: {phase: Running, podIP: 10.0.0.1}"));
    assert_eq!(told, Vec::<String>::new());
    found.manifest.clone_from(&expected.manifest);
    assert_eq!(found, expected);
}

#[test]
fn every_workload_is_one_pod() {
    let check = |kind: &str, version: &str, spec: &str| {
        let text = format!(
            "{{apiVersion: {version}, kind: {kind}, metadata: {{name: web}}, spec: {{{spec} \
             template: {{metadata: {{labels: {{app: web}}}}, \
             spec: {{containers: [{{name: c, image: x}}]}}}}}}}}"
        );
        let (plan, _) = plan(&text);
        assert_eq!(plan.name.as_str(), "web-0", "{kind}");
        assert_eq!(&*plan.owner.kind, kind);
        assert_eq!(plan.labels["app"], "web", "{kind}");
        assert_eq!(plan.containers[0].name.as_str(), "c", "{kind}");
    };
    let selector = "selector: {matchLabels: {app: web}},";
    check("Deployment", "apps/v1", selector);
    check("ReplicaSet", "apps/v1", selector);
    check("DaemonSet", "apps/v1", selector);
    check("StatefulSet", "apps/v1", selector);
    check("ReplicationController", "v1", "selector: {app: web},");
}

/// Every workload has to have one, and nobody misses the controller that would look for pods by it.
#[test]
fn a_selector_must_match_and_is_not_spoken_of() {
    let check = |kind: &str, selector: &str, labels: &str, expected: &[&str]| {
        let version = match kind {
            "ReplicationController" => "v1",
            _ => "apps/v1",
        };
        let text = format!(
            "{{apiVersion: {version}, kind: {kind}, metadata: {{name: web}}, spec: {{{selector} \
             template: {{metadata: {{labels: {{{labels}}}}}, \
             spec: {{containers: [{{name: c, image: x}}]}}}}}}}}"
        );
        assert_eq!(
            messages(&load_text(&text, &options())),
            expected,
            "{kind} {selector} {labels}"
        );
    };
    let missing = "`selector` is missing or empty";
    let other = "`selector` does not match the labels of the pod template";
    for kind in ["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"] {
        check(kind, "selector: {matchLabels: {a: b}},", "a: b", &[]);
        check(kind, "selector: {matchLabels: {a: b}},", "a: c", &[other]);
        check(kind, "selector: {},", "a: b", &[missing]);
    }
    let kind = "ReplicationController";
    check(kind, "selector: {a: b},", "a: b, c: d", &[]);
    check(kind, "selector: {a: b},", "", &[other]);
    check(kind, "", "a: b", &[]);
    check(kind, "", "", &[missing]);
}

#[test]
fn profiles_may_be_annotations_of_old() {
    let pod = |annotation: &str, own: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web, annotations: {{{annotation}}}}}, \
             spec: {{containers: [{{name: c, image: x{own}}}, {{name: d, image: x}}]}}}}"
        )
    };
    let app_armor = "container.apparmor.security.beta.kubernetes.io";
    let check = |value: &str, own: &str, expected: AppArmorProfile| {
        let (plan, told) = plan(&pod(&format!("{app_armor}/c: {value}"), own));
        assert_eq!(plan.containers[0].security.app_armor, expected, "{value}");
        let untouched = &plan.containers[1].security.app_armor;
        assert_eq!(untouched, &AppArmorProfile::default(), "{value}");
        let warning = format!("the annotation `{app_armor}/c` is deprecated since Kubernetes 1.30");
        assert_eq!(told.last(), Some(&warning), "{value}");
    };
    let named = |name: &str| AppArmorProfile::Localhost(name.to_owned());
    check("localhost/k8s-deny", "", named("k8s-deny"));
    check("unconfined", "", AppArmorProfile::Unconfined);
    check("runtime/default", "", AppArmorProfile::RuntimeDefault);
    let own = ", securityContext: {appArmorProfile: {type: Localhost, localhostProfile: own}}";
    check("unconfined", own, named("own"));
    let fault = |annotation: &str, expected: &str| {
        let loaded = load_text(&pod(annotation, ""), &options());
        assert_eq!(messages(&loaded), [expected], "{annotation}");
    };
    let none = "there is no container `e`";
    fault(&format!("{app_armor}/e: unconfined"), none);
    let wrong = |value: &str| format!("`{value}` is not an AppArmor profile");
    fault(&format!("{app_armor}/c: localhost/"), &wrong("localhost/"));
    fault(&format!("{app_armor}/c: mine"), &wrong("mine"));
    let seccomp = "seccomp.security.alpha.kubernetes.io/pod";
    fault(
        &format!("{seccomp}: unconfined"),
        &format!("the annotation `{seccomp}` has no effect since Kubernetes 1.27"),
    );
}

/// Who exports a pod of a cluster has these, though nobody wrote them.
#[test]
fn what_a_cluster_adds_to_a_pod_keeps_none_from_being_played() {
    let pod = |sources: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{serviceAccountName: default, priority: 0, \
             preemptionPolicy: PreemptLowerPriority, volumes: [{{name: kube-api-access-7xk2p, projected: \
             {{defaultMode: 420, sources: [{sources}]}}}}], containers: [{{name: c, image: x, volumeMounts: \
             [{{name: kube-api-access-7xk2p, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}}]}}]}}}}"
        )
    };
    let (plan, told) = plan(&pod(
        "{serviceAccountToken: {expirationSeconds: 3607, path: token}}, \
         {configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}}, \
         {downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}}",
    ));
    assert_eq!(
        told,
        [
            "`serviceAccountToken` is ignored: there is no API server, and the volume has no token",
            "the ConfigMap `kube-root-ca.crt` is left out: there is no API server",
        ]
    );
    let VolumeSource::Files { files, .. } = &plan.volumes[0].source else {
        panic!("{:?}", plan.volumes);
    };
    let paths: Vec<_> = files.iter().map(|file| file.path.as_path()).collect();
    assert_eq!(paths, [std::path::Path::new("namespace")]);

    let faults = |token: &str| {
        let loaded = load_text(
            &pod(&format!("{{serviceAccountToken: {token}}}")),
            &options(),
        );
        let faults = loaded.diagnostics.iter();
        let faults = faults.filter(|fault| fault.severity == Severity::Error);
        faults
            .map(|fault| fault.message.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(faults("{path: a}"), [""; 0]);
    assert_eq!(
        faults("{path: ../a}"),
        ["the path `../a` must not have `..`"]
    );
    assert_eq!(
        faults("{path: a, expirationSeconds: 599}"),
        ["`expirationSeconds` must be at least 600"]
    );
}

#[test]
fn what_is_not_honoured_is_told_of_objects_without_pods_too() {
    let text = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: x}, spec: {accessModes: [ReadWriteOnce], \
                resources: {requests: {storage: 1Gi}}, volumeAttributesClassName: fast}}";
    let loaded = load_text(text, &options());
    let told = messages(&loaded);
    assert!(
        told.iter()
            .any(|told| told.contains("`volumeAttributesClassName` is ignored")),
        "{told:?}"
    );
}

#[test]
fn what_an_api_server_sets_of_a_service_is_dropped() {
    let service = |status: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: x}}, spec: {{ports: [{{port: 1}}]}}{status}}}"
        );
        let loaded = load_text(&text, &options());
        assert!(!loaded.has_errors(), "{:?}", messages(&loaded));
        loaded.objects[0].json.clone()
    };
    let written = service(", status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}");
    assert_eq!(written, service(""));
}

#[test]
fn a_part_that_is_no_file_of_a_volume_is_warned_of() {
    let text = |path: &str| {
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c}}, data: {{a.conf: x}}}}\n---\n\
             {{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{\n\
             volumes: [{{name: v, configMap: {{name: c, items: [{{key: a.conf, path: sub/b}}]}}}}],\n\
             containers: [{{name: main, image: \"x:1\",\n\
             volumeMounts: [{{name: v, mountPath: /b, subPath: {path}}}]}}]}}}}\n"
        )
    };
    let told = |path: &str| load_text(&text(path), &options()).diagnostics;
    for path in ["sub/b", "sub", "..data/sub/b"] {
        assert_eq!(told(path), [], "{path}");
    }
    let [warning] = &told("a.conf")[..] else {
        panic!("{:?}", told("a.conf"));
    };
    assert_eq!(warning.severity, Severity::Warning);
    assert_eq!(
        warning.message,
        "the volume `v` has no file `a.conf`: an empty folder is mounted"
    );
    assert_eq!(warning.hint.as_deref(), Some("its files are `sub/b`"));
    let place = warning
        .place
        .as_ref()
        .map(|place| (place.line, place.column));
    assert_eq!(place, Some((6, 50)));
}

const JOB: &str = "{apiVersion: batch/v1, kind: Job, metadata: {name: once}, spec: {MORE, template: {spec: \
                   {restartPolicy: Never, containers: [{name: c, image: x}]}}}}";

#[test]
fn a_suspended_job_has_no_pod() {
    let check = |text: &str, pods: usize, told: &[&str]| {
        let loaded = load_text(text, &options());
        assert!(!loaded.has_errors(), "{:?}", messages(&loaded));
        let plans = loaded.objects.iter().filter(|object| object.plan.is_some());
        assert_eq!(plans.count(), pods, "{text}");
        assert!(loaded.objects[0].played);
        assert_eq!(messages(&loaded), told, "{text}");
    };
    let note = "the job has no pod as long as it is suspended";
    check(&JOB.replace("MORE", "suspend: true"), 0, &[note]);
    check(&JOB.replace("MORE", "suspend: false"), 1, &[]);
    let job = JOB.replace("MORE", "suspend: true");
    let spec = job.split_once("spec: ").expect("a spec").1;
    let cron = format!(
        "{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: often}}, spec: {{schedule: '@daily', \
         jobTemplate: {{spec: {spec}}}}}"
    );
    let schedule = "`schedule` is ignored: the job is played once, now";
    check(&cron, 0, &[schedule, note]);
    // What is wrong with it is told all the same.
    let loaded = load_text(&job.replace("image: x", "image: X"), &options());
    assert!(loaded.has_errors());
}

#[test]
fn a_pod_failure_policy_needs_pods_that_are_not_restarted() {
    let job = JOB.replace("MORE", "podFailurePolicy: {rules: []}");
    assert!(!load_text(&job, &options()).has_errors());
    let loaded = load_text(&job.replace("Never", "OnFailure"), &options());
    assert!(loaded.has_errors());
    let message = "`podFailurePolicy` needs pods that are not restarted";
    assert!(
        messages(&loaded).contains(&message),
        "{:?}",
        messages(&loaded)
    );
}

#[test]
fn a_stateful_set_counts_from_where_it_says() {
    let set = |start: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: db}}, spec: {{ordinals: {{start: {start}}}, \
             selector: {{matchLabels: {{app: db}}}}, volumeClaimTemplates: [{{metadata: {{name: data}}, spec: \
             {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}], template: {{metadata: \
             {{labels: {{app: db}}}}, spec: {{containers: [{{name: c, image: x}}]}}}}}}}}"
        )
    };
    let (plan, _) = plan(&set("5"));
    assert_eq!(plan.name.as_str(), "db-5");
    assert_eq!(plan.hostname, "db-5");
    assert_eq!(plan.labels["apps.kubernetes.io/pod-index"], "5");
    assert_eq!(plan.labels["statefulset.kubernetes.io/pod-name"], "db-5");
    assert_eq!(plan.claims().collect::<Vec<_>>(), ["data-db-5"]);
    let loaded = load_text(&set("-1"), &options());
    assert_eq!(messages(&loaded)[0], "`start` must not be negative");
}

#[test]
fn the_machines_network_gives_every_port_its_number() {
    let pod = |port: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{hostNetwork: true, containers: \
             [{{name: c, image: x, ports: [{{containerPort: 80{port}}}]}}]}}}}"
        );
        plan(&text).0.containers[0].ports[0].host_port
    };
    assert_eq!(pod(""), Some(80));
    assert_eq!(pod(", hostPort: 0"), Some(80));
    assert_eq!(pod(", hostPort: 80"), Some(80));
}

#[test]
fn restart_rules_have_their_bounds() {
    let pod = |rules: usize, codes: usize| {
        let codes: Vec<String> = (0..codes).map(|code| code.to_string()).collect();
        let rule = format!(
            "{{action: Restart, exitCodes: {{operator: In, values: [{}]}}}}",
            codes.join(", ")
        );
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{containers: [{{name: c, image: x, \
             restartPolicy: Never, restartPolicyRules: [{}]}}]}}}}",
            vec![rule; rules].join(", ")
        )
    };
    let (plan, _) = plan(&pod(20, 255));
    assert_eq!(plan.containers[0].restarts.rules.len(), 20);
    let told = |text: &str| {
        let loaded = load_text(text, &options());
        assert!(loaded.has_errors());
        messages(&loaded)[0].to_owned()
    };
    assert_eq!(
        told(&pod(21, 1)),
        "`restartPolicyRules` may have 20 rules, has 21"
    );
    assert_eq!(told(&pod(1, 256)), "`values` may have 255 codes, has 256");
}
