//! Fields that are honoured by being dropped, as an API server drops them, and kinds whose fields lead to the same pod.

use super::{load_text, messages, options};
use crate::model::diagnostic::Severity;
use crate::model::plan::PodPlan;

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
