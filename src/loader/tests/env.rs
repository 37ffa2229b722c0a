//! Variables and files: references to files, fields and resources; what the API server fills in.

use super::{load_text, messages, options};
use crate::model::plan::{EnvValue, FileContent, Medium, ResourceField, VolumeSource};

fn pod(env: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{volumes: [{{name: files}}, \
         {{name: disk, hostPath: {{path: /}}}}, {{name: about, downwardAPI: {{items: [{{path: huge, \
         resourceFieldRef: {{containerName: huge, resource: requests.hugepages-2Mi, divisor: 1Mi}}}}]}}}}], \
         initContainers: [{{name: huge, image: x, \
         resources: {{limits: {{hugepages-2Mi: 6Mi, hugepages-1Gi: 1Gi, memory: 1Gi}}}}}}], \
         containers: [{{name: c, image: x, env: [{{name: X, valueFrom: {{{env}}}}}]}}]}}}}"
    )
}

fn value(env: &str) -> EnvValue {
    let loaded = load_text(&pod(env), &options());
    assert!(!loaded.has_errors(), "{env}: {:?}", messages(&loaded));
    let plan = loaded.objects[0].plan.as_ref().unwrap();
    plan.containers[0].env[0].value.clone()
}

fn refused(env: &str) -> Vec<String> {
    let loaded = load_text(&pod(env), &options());
    assert!(loaded.has_errors(), "{env}");
    let errors = loaded.diagnostics.iter();
    errors
        .filter(|told| told.severity == crate::model::diagnostic::Severity::Error)
        .map(|told| told.message.clone())
        .collect()
}

#[test]
fn huge_pages_are_what_the_manifest_says() {
    let check = |resource: &str, expected: &str| {
        let value = value(&format!("resourceFieldRef: {{{resource}}}"));
        assert_eq!(value, EnvValue::Literal(expected.into()), "{resource}");
    };
    check(
        "containerName: huge, resource: limits.hugepages-2Mi",
        "6291456",
    );
    check(
        "containerName: huge, resource: limits.hugepages-2Mi, divisor: 1M",
        "7",
    );
    // A request is taken from its limit; what is not there is nothing.
    check(
        "containerName: huge, resource: requests.hugepages-1Gi, divisor: 1Gi",
        "1",
    );
    check("resource: limits.hugepages-2Mi", "0");
    let loaded = load_text(&pod("fieldRef: {fieldPath: metadata.name}"), &options());
    let plan = loaded.objects[0].plan.as_ref().unwrap();
    let VolumeSource::Files { files, .. } = &plan.volumes[2].source else {
        panic!("{:?}", plan.volumes);
    };
    assert_eq!(files[0].content, FileContent::Bytes(b"6".into()));
}

#[test]
fn divisors() {
    let check = |resource: &str, field: ResourceField, expected: u64| {
        let found = value(&format!("resourceFieldRef: {{resource: {resource}}}"));
        let expected = EnvValue::Resource {
            container: None,
            resource: field,
            divisor_milli: expected,
        };
        assert_eq!(found, expected, "{resource}");
    };
    check("limits.cpu", ResourceField::LimitsCpu, 1000);
    check("limits.cpu, divisor: '0'", ResourceField::LimitsCpu, 1000);
    check("limits.cpu, divisor: 1m", ResourceField::LimitsCpu, 1);
    check(
        "requests.memory, divisor: 1Ki",
        ResourceField::RequestsMemory,
        1_024_000,
    );
    check(
        "limits.memory, divisor: 1Ei",
        ResourceField::LimitsMemory,
        u64::MAX,
    );
    for (resource, word) in [
        ("limits.cpu, divisor: 1k", "the divisor `1k`"),
        ("limits.memory, divisor: 1m", "the divisor `1m`"),
        ("limits.memory, divisor: 2Mi", "the divisor `2Mi`"),
        ("limits.hugepages-2Mi, divisor: 1m", "the divisor `1m`"),
        ("limits.hugepages-", "there is no resource field"),
        ("usage.hugepages-2Mi", "there is no resource field"),
        (
            "limits.cpu, containerName: none",
            "there is no container `none`",
        ),
    ] {
        let told = refused(&format!("resourceFieldRef: {{resource: {resource}}}"));
        assert!(told.len() == 1 && told[0].starts_with(word), "{told:?}");
    }
}

#[test]
fn files_of_volumes() {
    let of = |text: &str| format!("fileKeyRef: {{{text}}}");
    assert_eq!(
        value(&of("volumeName: files, path: a/b.env, key: K")),
        EnvValue::File {
            volume: "files".to_owned().try_into().unwrap(),
            path: "a/b.env".into(),
            key: "K".into(),
            optional: false,
        }
    );
    let check = |text: &str, expected: &[&str]| {
        assert_eq!(refused(&of(text)), expected, "{text}");
    };
    check(
        "volumeName: none, path: x, key: K",
        &["there is no volume `none` in this pod"],
    );
    check(
        "volumeName: disk, path: x, key: K",
        &["the volume `disk` is no `emptyDir`"],
    );
    check(
        "volumeName: files, path: /x, key: K",
        &["`path` must be a relative path"],
    );
    check(
        "volumeName: files, path: x/../y, key: K",
        &["`path` must not have `..`"],
    );
    check(
        "volumeName: files, path: ..x, key: K",
        &["`path` must not start with `..`"],
    );
    check(
        "volumeName: files, path: x, key: 'a=b'",
        &["the key `a=b` may have only printable ASCII characters without `=`"],
    );
    check(
        "volumeName: '', path: '', key: ''",
        &[
            "the reference must have a `volumeName`",
            "the reference must have a `path`",
            "the reference must have a `key`",
        ],
    );
}

#[test]
fn services_are_checked() {
    let check = |spec: &str, expected: &[&str]| {
        let text =
            format!("{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {spec}}}");
        let loaded = load_text(&text, &options());
        let told: Vec<&str> = messages(&loaded)
            .into_iter()
            .filter(|message| !message.starts_with("Service `s` is recorded"))
            .collect();
        assert_eq!(told, expected, "{spec}");
    };
    check("{ports: [{port: 80}]}", &[]);
    check("{clusterIP: None}", &[]);
    check("{type: ExternalName, externalName: example.com}", &[]);
    check(
        "{clusterIP: fd00::1, ports: [{port: 53, name: t}, {port: 53, name: u, protocol: UDP}]}",
        &[],
    );
    check("{}", &["a Service must have at least one of `ports`"]);
    check(
        "{clusterIP: nowhere, ports: [{port: 0}]}",
        &[
            "`clusterIP` must be an IP address or `None`, is `nowhere`",
            "`port` must be between 1 and 65535, is 0",
        ],
    );
    check(
        "{ports: [{port: 1, name: a}, {port: 2, name: a}, {port: 1, name: b}, {port: 3}, {port: 4, name: A_, protocol: tcp}]}",
        &[
            "the port name `a` is already used",
            "port 1 (TCP) is there twice",
            "each of several ports must have a `name`",
            "the port name `A_` must consist of lower case letters, digits or `-`, and start and end with a letter or digit",
            "`protocol` must be one of `TCP`, `UDP`, `SCTP`, is `tcp`",
        ],
    );
}

#[test]
fn a_prefix_is_as_free_as_a_name() {
    let load = |prefix: &str| {
        let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {a.b-c: x}}";
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{containers: [{{name: c, image: x, \
             envFrom: [{{prefix: \"{prefix}\", configMapRef: {{name: m}}}}]}}]}}}}"
        );
        load_text(&format!("{map}\n---\n{pod}\n"), &options())
    };
    let name = |prefix: &str| {
        let loaded = load(prefix);
        assert!(!loaded.has_errors(), "{:?}", messages(&loaded));
        let plans = loaded
            .objects
            .iter()
            .filter_map(|object| object.plan.as_ref());
        let names = plans.flat_map(|plan| &plan.containers[0].env);
        names
            .map(|variable| variable.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(name(""), ["a.b-c"]);
    assert_eq!(name("1 (~!"), ["1 (~!a.b-c"]);
    for prefix in ["A=", "ä", "\\t"] {
        let loaded = load(prefix);
        let told = messages(&loaded);
        let words = "`prefix` may have only printable ASCII characters without `=`, is `";
        assert!(
            told.iter().any(|message| message.starts_with(words)),
            "{told:?}"
        );
    }
}

#[test]
fn files_have_other_fields_than_variables() {
    let check = |path: &str, expected: Option<&str>| {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{containers: [{{name: c, image: x}}], \
             volumes: [{{name: v, downwardAPI: {{items: [{{path: f, fieldRef: {{fieldPath: \"{path}\"}}}}]}}}}]}}}}"
        );
        let loaded = load_text(&text, &options());
        let fault = expected.map(|words| vec![words]).unwrap_or_default();
        assert_eq!(messages(&loaded), fault, "{path}");
    };
    for path in [
        "metadata.labels",
        "metadata.annotations",
        "metadata.labels['a']",
        "metadata.uid",
    ] {
        check(path, None);
    }
    for path in [
        "status.podIP",
        "status.hostIPs",
        "spec.nodeName",
        "spec.serviceAccountName",
    ] {
        check(
            path,
            Some(&format!("the field `{path}` cannot be the value of a file")),
        );
    }
    let variable = refused("fieldRef: {fieldPath: metadata.labels}");
    assert_eq!(
        variable,
        ["the field `metadata.labels` cannot be the value of a variable"]
    );
}

#[test]
fn the_later_of_two_projected_files_counts() {
    let text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: first, z: only}}
---
{apiVersion: v1, kind: Secret, metadata: {name: b}, stringData: {x: second}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c, image: x}], volumes: [{name: v,
 projected: {defaultMode: 0440, sources: [{configMap: {name: a}}, {secret: {name: b, items: [{key: x, path: x, mode: 0400}]}}]}}]}}
";
    let loaded = load_text(text, &options());
    assert!(!loaded.has_errors(), "{:?}", messages(&loaded));
    let mut plans = loaded
        .objects
        .iter()
        .filter_map(|object| object.plan.as_ref());
    let VolumeSource::Files { files, medium } = &plans.next().unwrap().volumes[0].source else {
        panic!("no files");
    };
    let found: Vec<_> = files
        .iter()
        .map(|file| (file.path.to_str().unwrap(), file.mode, file.content.clone()))
        .collect();
    let bytes = |text: &str| FileContent::Bytes(text.into());
    assert_eq!(
        found,
        [("x", 0o400, bytes("second")), ("z", 0o440, bytes("only"))]
    );
    assert_eq!(*medium, Medium::Memory);
    // But no two may ask for one.
    let twice = text.replace("{name: a}},", "{name: a, items: [{key: z, path: x}]}},");
    let loaded = load_text(&twice, &options());
    assert!(loaded.has_errors());
    assert_eq!(messages(&loaded), ["another item has the path `x` as well"]);
}

#[test]
fn images_are_pulled_by_their_tag_if_nothing_is_said() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let check = |image: &str, expected: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{containers: [{{name: c, image: \"{image}\"}}], \
             volumes: [{{name: v, image: {{reference: \"{image}\", pullPolicy: ''}}}}]}}}}"
        );
        let loaded = load_text(&text, &options());
        assert!(!loaded.has_errors(), "{:?}", messages(&loaded));
        let manifest = &loaded.objects[0].plan.as_ref().unwrap().manifest;
        for pointer in [
            "/spec/containers/0/imagePullPolicy",
            "/spec/volumes/0/image/pullPolicy",
        ] {
            assert_eq!(
                manifest.pointer(pointer).unwrap(),
                expected,
                "{image} {pointer}"
            );
        }
    };
    check("x", "Always");
    check("x:latest", "Always");
    check("x:1", "IfNotPresent");
    check(&format!("x@{digest}"), "IfNotPresent");
    check(&format!("x:1@{digest}"), "IfNotPresent");
    check(&format!("x:latest@{digest}"), "Always");
    check("localhost:5000/x", "Always");
}

#[test]
fn a_port_of_the_machines_network_is_the_machines() {
    let check = |port: &str, expected: Option<u16>| {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{hostNetwork: true, \
             containers: [{{name: c, image: x, ports: [{{containerPort: 80{port}}}]}}]}}}}"
        );
        let loaded = load_text(&text, &options());
        assert!(!loaded.has_errors(), "{:?}", messages(&loaded));
        let plan = loaded.objects[0].plan.as_ref().unwrap();
        assert_eq!(plan.containers[0].ports[0].host_port, expected, "{port}");
    };
    for port in ["", ", hostPort: 0", ", hostPort: 80"] {
        check(port, Some(80));
    }
}

#[test]
fn volumes_of_huge_pages_are_of_those_that_are_requested() {
    let load = |medium: &str, limits: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{containers: [{{name: c, image: x, \
             resources: {{limits: {{memory: 1Gi, {limits}}}}}}}], volumes: [{{name: v, emptyDir: {{medium: {medium}}}}}]}}}}"
        );
        load_text(&text, &options())
    };
    let check = |medium: &str, limits: &str, expected: u64| {
        let loaded = load(medium, limits);
        assert!(!loaded.has_errors(), "{:?}", messages(&loaded));
        let plan = loaded.objects[0].plan.as_ref().unwrap();
        let VolumeSource::EmptyDir { medium, .. } = plan.volumes[0].source else {
            panic!("{:?}", plan.volumes);
        };
        assert_eq!(medium, Medium::HugePages(Some(expected)));
    };
    check("HugePages", "hugepages-1Gi: 1Gi", 1 << 30);
    check(
        "HugePages-2Mi",
        "hugepages-1Gi: 1Gi, hugepages-2Mi: 2Mi",
        2 << 20,
    );
    check("HugePages-2048Ki", "hugepages-2Mi: 2Mi", 2 << 20);
    let refused = |medium: &str, limits: &str, expected: &str| {
        assert_eq!(
            messages(&load(medium, limits)),
            [expected],
            "{medium} {limits}"
        );
    };
    let none = "no container requests huge pages of this medium";
    refused("HugePages", "cpu: 1", none);
    refused("HugePages-1Gi", "hugepages-2Mi: 2Mi", none);
    refused(
        "HugePages",
        "hugepages-1Gi: 1Gi, hugepages-2Mi: 2Mi",
        "`medium: HugePages` does not go with requests of huge pages of several sizes",
    );
    refused(
        "HugePages-3Mi",
        "hugepages-2Mi: 2Mi",
        "`medium` names huge pages of no size: `3Mi`",
    );
}
