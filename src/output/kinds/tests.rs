use super::*;
use serde_json::json;

fn check(object: &Value, detail: Detail, expected: &str) {
    let layout = Layout {
        headers: Headers::Shown,
        detail,
        namespaces: Namespaces::One,
        names: Names::Plain,
        labels: Labels::Hidden,
        now: "2026-01-01T01:00:00Z".parse().expect("a time"),
    };
    let kind = string(object, "/kind");
    assert_eq!(table(kind, std::slice::from_ref(object), layout), expected);
}

fn example(kind: &str, more: Value) -> Value {
    let mut object = json!({ "kind": kind, "metadata": {
        "name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"
    }});
    for (key, value) in more.as_object().into_iter().flatten() {
        object::set(&mut object, key, value.clone());
    }
    object
}

#[test]
fn each_kind_has_kubectls_columns() {
    let usual = |kind: &str, more: Value, expected: &str| {
        check(&example(kind, more), Detail::Usual, expected);
    };
    usual(
        "Deployment",
        json!({ "status": { "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1 } }),
        "NAME   READY   UP-TO-DATE   AVAILABLE   AGE\n\
         x      1/1     1            0           60m\n",
    );
    usual(
        "Job",
        json!({ "status": {
            "succeeded": 1,
            "startTime": "2026-01-01T00:00:00Z",
            "completionTime": "2026-01-01T00:00:07Z",
            "conditions": [{ "type": "Complete", "status": "True" }],
        }}),
        "NAME   STATUS     COMPLETIONS   DURATION   AGE\n\
         x      Complete   1/1           7s         60m\n",
    );
    usual(
        "ConfigMap",
        json!({ "data": { "a": "", "b": "" }, "binaryData": { "c": "" } }),
        "NAME   DATA   AGE\nx      3      60m\n",
    );
    usual(
        "Secret",
        json!({ "data": { "a": "" }, "stringData": { "a": "", "b": "" } }),
        "NAME   TYPE     DATA   AGE\nx      Opaque   2      60m\n",
    );
    usual(
        "Service",
        json!({ "spec": { "ports": [{ "port": 80 }, { "port": 53, "protocol": "UDP" }] } }),
        "NAME   TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)         AGE\n\
         x      ClusterIP   <none>       <none>        80/TCP,53/UDP   60m\n",
    );
    usual(
        "Service",
        json!({
            "spec": { "type": "LoadBalancer", "clusterIP": "10.96.0.2",
                "ports": [{ "port": 80, "nodePort": 30080 }] },
            "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } },
        }),
        "NAME   TYPE           CLUSTER-IP   EXTERNAL-IP   PORT(S)        AGE\n\
         x      LoadBalancer   10.96.0.2    192.0.2.1     80:30080/TCP   60m\n",
    );
    usual(
        "PersistentVolumeClaim",
        json!({
            "spec": { "volumeName": "v", "accessModes": ["ReadWriteOnce", "ReadOnlyMany"] },
            "status": { "phase": "Bound", "capacity": { "storage": "10Gi" } },
        }),
        "NAME   STATUS   VOLUME   CAPACITY   ACCESS MODES   STORAGECLASS   AGE\n\
         x      Bound    v        10Gi       RWO,ROX                       60m\n",
    );
    usual(
        "PersistentVolume",
        json!({
            "spec": { "capacity": { "storage": "10Gi" }, "accessModes": ["ReadWriteMany"],
                "storageClassName": "manual", "claimRef": { "namespace": "n", "name": "c" } },
            "status": { "phase": "Bound" },
        }),
        "NAME   CAPACITY   ACCESS MODES   RECLAIM POLICY   STATUS   CLAIM   STORAGECLASS   AGE\n\
         x      10Gi       RWX            Retain           Bound    n/c     manual         60m\n",
    );
    usual(
        "EndpointSlice",
        json!({ "addressType": "IPv4", "ports": [{ "port": 80 }], "endpoints": [
            { "addresses": ["10.0.0.2"] }, { "addresses": ["10.0.0.3"] },
        ]}),
        "NAME   ADDRESSTYPE   PORTS   ENDPOINTS           AGE\n\
         x      IPv4          80      10.0.0.2,10.0.0.3   60m\n",
    );
    usual(
        "Endpoints",
        json!({ "subsets": [{
            "addresses": [{ "ip": "10.0.0.2" }, { "ip": "fd00::2" }], "ports": [{ "port": 80 }],
        }]}),
        "NAME   ENDPOINTS                  AGE\n\
         x      10.0.0.2:80,[fd00::2]:80   60m\n",
    );
    usual("Namespace", json!({}), "NAME   AGE\nx      60m\n");
}

#[test]
fn wide_adds_columns() {
    check(
        &example(
            "ReplicaSet",
            json!({ "status": { "replicas": 1 }, "spec": {
                "selector": { "matchLabels": { "a": "b", "c": "d" } },
                "template": { "spec": { "containers": [
                    { "name": "p", "image": "q" }, { "name": "r", "image": "s" },
                ]}},
            }}),
        ),
        Detail::Wide,
        "NAME   DESIRED   CURRENT   READY   AGE   CONTAINERS   IMAGES   SELECTOR\n\
         x      1         1         0       60m   p,r          q,s      a=b,c=d\n",
    );
}

#[test]
fn namespaces_and_kinds_are_shown_when_they_differ() {
    let layout = Layout {
        headers: Headers::Hidden,
        detail: Detail::Usual,
        namespaces: Namespaces::All,
        names: Names::WithKind,
        labels: Labels::Hidden,
        now: "2026-01-01T01:00:00Z".parse().expect("a time"),
    };
    let object = json!({ "kind": "Deployment", "apiVersion": "apps/v1", "metadata": {
        "name": "x", "namespace": "ns", "creationTimestamp": "2026-01-01T00:00:00Z"
    }});
    assert_eq!(
        table("Deployment", &[object], layout),
        "ns    deployment.apps/x   0/0   0     0     60m\n"
    );
}

#[test]
fn labels_come_last() {
    let mut labelled = example("ConfigMap", json!({}));
    object::set(
        &mut labelled["metadata"],
        "labels",
        json!({ "app": "web", "tier": "" }),
    );
    let layout = Layout {
        headers: Headers::Shown,
        detail: Detail::Usual,
        namespaces: Namespaces::One,
        names: Names::Plain,
        labels: Labels::Shown,
        now: "2026-01-01T01:00:00Z".parse().expect("a time"),
    };
    assert_eq!(
        table(
            "ConfigMap",
            &[labelled, example("ConfigMap", json!({}))],
            layout
        ),
        "NAME   DATA   AGE   LABELS\n\
         x      0      60m   app=web,tier=\n\
         x      0      60m   <none>\n"
    );
}
