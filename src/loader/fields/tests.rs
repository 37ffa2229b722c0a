//! The table against Kubernetes' types and against the tests that it names.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core};

use super::schema::{self, Schema};
use super::*;

/// The kinds whose fields the table knows.
const ROOTS: [&str; 11] = [
    "Pod",
    "Deployment",
    "ReplicaSet",
    "ReplicationController",
    "DaemonSet",
    "StatefulSet",
    "Job",
    "CronJob",
    "ConfigMap",
    "Secret",
    "Service",
];

fn kubernetes() -> Schema {
    let schema = RefCell::default();
    schema::add::<core::Pod>(&schema);
    schema::add::<apps::Deployment>(&schema);
    schema::add::<apps::ReplicaSet>(&schema);
    schema::add::<core::ReplicationController>(&schema);
    schema::add::<apps::DaemonSet>(&schema);
    schema::add::<apps::StatefulSet>(&schema);
    schema::add::<batch::Job>(&schema);
    schema::add::<batch::CronJob>(&schema);
    schema::add::<core::ConfigMap>(&schema);
    schema::add::<core::Secret>(&schema);
    schema::add::<core::Service>(&schema);
    schema.into_inner()
}

#[test]
fn every_line_is_found() {
    for field in all() {
        assert_eq!(find(field.of, field.name), Some(*field));
    }
    for (of, name) in [("", ""), ("A", "a"), ("PodSpec", "container"), ("Z", "z")] {
        assert_eq!(find(of, name), None);
    }
}

#[test]
fn the_walk_knows_types_lists_and_scalars() {
    let schema = kubernetes();
    let check = |of, name, kind: &str| {
        assert_eq!(schema.get(&(of, name)).map(String::as_str), Some(kind));
    };
    check("PodSpec", "containers", "[]Container");
    check("Container", "livenessProbe", "Probe");
    check("Probe", "periodSeconds", "integer");
    check("HTTPGetAction", "port", "IntOrString");
    check("ResourceRequirements", "limits", "map[string]Quantity");
    check("ConfigMap", "binaryData", "map[string]base64");
    check("ObjectMeta", "creationTimestamp", "Time");
    check("SecurityContext", "privileged", "boolean");
    assert!(
        ROOTS
            .iter()
            .all(|root| schema.contains_key(&(root, "metadata")))
    );
}

#[test]
fn the_table_has_every_field_of_kubernetes_and_no_other() {
    let lines = |of: &str, name: &str, kind: &str| format!("| {of}.{name} | {kind} |");
    let wanted: BTreeSet<String> = kubernetes()
        .iter()
        .map(|((of, name), kind)| lines(of, name, kind))
        .collect();
    let found: BTreeSet<String> = all()
        .iter()
        .map(|field| lines(field.of, field.name, field.kind))
        .collect();
    let missing: Vec<_> = wanted.difference(&found).collect();
    let surplus: Vec<_> = found.difference(&wanted).collect();
    assert!(missing.is_empty(), "not in the table: {missing:#?}");
    assert!(surplus.is_empty(), "not in Kubernetes: {surplus:#?}");
}

#[test]
fn every_line_can_be_read_and_is_in_order() {
    let lines = TABLE.lines().skip_while(|line| !line.starts_with("| ---"));
    assert_eq!(lines.skip(1).count(), all().len(), "a line has a fault");
    for pair in all().windows(2) {
        let names = [pair[0], pair[1]].map(|field| (field.of, field.name));
        assert!(names[0] < names[1], "{names:?} are not in order");
    }
}

#[test]
fn every_line_says_what_its_field_is_and_why_it_is_not_honoured() {
    for field in all() {
        let name = format!("{}.{}", field.of, field.name);
        assert!(!field.meaning.is_empty(), "{name} has no meaning");
        for text in [field.meaning, field.remark] {
            assert!(!text.ends_with('.'), "{name} ends with a full stop");
        }
        if field.standing != Standing::Honoured {
            assert!(!field.remark.is_empty(), "{name} says no reason");
        }
    }
}

/// The types that are met below a kind, without what is below fields that are left out.
fn reach(kind: &'static str, met: &mut HashSet<&'static str>) {
    if met.insert(kind) {
        let fields = of(kind).iter();
        let kept = fields.filter(|field| !field.is_left_out());
        kept.for_each(|field| reach(field.inner(), met));
    }
}

#[test]
fn nothing_is_honoured_below_what_is_left_out() {
    let mut met = HashSet::new();
    ROOTS.iter().for_each(|root| reach(root, &mut met));
    for field in all().iter().filter(|field| !met.contains(field.of)) {
        assert!(
            field.is_left_out(),
            "{}.{} is honoured, but no field with its type is",
            field.of,
            field.name
        );
    }
}

#[test]
fn fields_are_found_by_their_path() {
    let check = |path: &str, expected: Result<&[&str], (&str, &str, Option<&str>)>| {
        let found = look_up("Pod", path);
        let names = found.as_ref().map(|found| {
            let names = found.path.iter().map(|field| field.name);
            names.collect::<Vec<_>>()
        });
        match (names, expected) {
            (Ok(names), Ok(expected)) => assert_eq!(names, expected, "{path}"),
            (Err(unknown), Err(expected)) => {
                let Unknown {
                    name,
                    within,
                    meant,
                    ..
                } = unknown;
                assert_eq!((&**within, &**name, *meant), expected, "{path}");
            }
            (names, _) => panic!("{path}: {names:?}"),
        }
    };
    check("", Ok(&[]));
    check("spec", Ok(&["spec"]));
    check(
        "spec.containers.image",
        Ok(&["spec", "containers", "image"]),
    );
    check(
        "spec.containers[1].image",
        Ok(&["spec", "containers", "image"]),
    );
    check("specc", Err(("", "specc", Some("spec"))));
    check(
        "spec.containers.zzzzzz",
        Err(("spec.containers", "zzzzzz", None)),
    );
    check("spec.nodeName.x", Err(("spec.nodeName", "x", None)));
}

/// Where a test may be that the table names.
fn files_of(test: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut parts: Vec<&str> = test.split("::").collect();
    parts.pop();
    let top = match parts.first() {
        Some(&"lib") => root.join("src"),
        Some(other) => root.join("tests").join(other),
        None => return Vec::new(),
    };
    let modules = |parts: &[&str]| {
        let path = parts.iter().fold(top.clone(), |path, part| path.join(part));
        [
            path.with_extension("rs"),
            path.join("mod.rs"),
            path.join("main.rs"),
        ]
    };
    let mut files = modules(&parts[1..]).to_vec();
    if parts.last() == Some(&"tests") {
        files.extend(modules(&parts[1..parts.len() - 1]));
    }
    files
}

#[expect(clippy::disallowed_methods, reason = "the tests' own sources")]
fn exists(test: &str) -> bool {
    let name = test.rsplit("::").next().unwrap_or_default();
    let text: String = files_of(test)
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .collect();
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else {
        return false;
    };
    // Attributes stand between the item before it and a test.
    let attributes = before.rsplit(['}', ';']).next().unwrap_or_default();
    attributes.contains("#[test]")
}

#[test]
fn tests_are_found_by_their_path() {
    assert!(exists(
        "lib::loader::fields::tests::tests_are_found_by_their_path"
    ));
    assert!(exists(
        "lib::loader::selector::tests::selectors_match_as_in_kubectl"
    ));
    assert!(exists("root::hello::the_readmes_first_command"));
    assert!(!exists("lib::loader::fields::tests::exists"));
    assert!(!exists(
        "lib::loader::fields::tests_are_found_by_their_path"
    ));
    assert!(!exists("root::hello::nothing_like_it"));
    assert!(!exists(""));
}

#[test]
fn every_honoured_field_names_tests_that_exist() {
    let mut known = HashSet::new();
    for field in all() {
        assert!(
            field.standing != Standing::Honoured || !field.tests.is_empty(),
            "{}.{}: no test shows that it is honoured",
            field.of,
            field.name
        );
        for test in field.tests.split(", ").filter(|test| !test.is_empty()) {
            let exists = known.contains(test) || exists(test);
            assert!(
                exists,
                "{}.{}: there is no test `{test}`",
                field.of, field.name
            );
            known.insert(test);
        }
    }
}
