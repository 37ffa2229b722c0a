//! All sources of a run to its objects, plans and diagnostics.

mod services;
mod storage;

use std::collections::HashMap;
use std::net::IpAddr;

use super::kinds::{self, Content, Scope};
use super::node::{At, File, Node, Span};
use super::object::{self, Kind, Metadata, Raw};
use super::report::Report;
use super::resolve::Index;
use super::source::Source;
use super::{Loaded, Object, Options, Origin, PublishDeclared, support, yaml};
use crate::model::diagnostic::{Diagnostic, Place};
use crate::model::names::{ContainerName, ObjectKey, PodKey};
use crate::model::plan::{ContainerPort, PodPlan, Protocol};

/// What a source is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Everything,
    /// `--configmap`.
    ConfigMaps,
}

/// An object that was read, before it is known to what it may refer.
struct Read<'a> {
    raw: Raw<'a>,
    kind: Option<Kind>,
    metadata: Metadata,
    json: serde_json::Value,
    content: Option<Content>,
}

/// Reads all sources. Every fault of every object is in the diagnostics; nothing is played if one is an error.
#[must_use]
pub fn load(sources: &[Source], options: &Options) -> Loaded {
    let report = Report::default();
    let everything = sources.iter().map(|source| (source, Purpose::Everything));
    let config_maps = options
        .config_maps
        .iter()
        .map(|source| (source, Purpose::ConfigMaps));
    let files: Vec<(File, Vec<Node>, Purpose)> = everything
        .chain(config_maps)
        .filter_map(|(source, purpose)| {
            let (file, documents) = parse(source, options, &report)?;
            Some((file, documents, purpose))
        })
        .collect();
    let mut read = Vec::new();
    for (file, documents, purpose) in &files {
        let mut raws = Vec::new();
        for document in documents {
            object::flatten(At::root(file, document), &report, &mut raws);
        }
        read.extend(
            raws.into_iter()
                .filter_map(|raw| read_one(raw, *purpose, options, &report)),
        );
    }
    let found = read.iter().any(|object| object.kind.is_some());
    if let Some(selector) = &options.selector {
        read.retain(|object| selector.matches(&object.metadata.labels));
    }
    let read = without_duplicates(read, &report);
    let names: Vec<&str> = files.iter().map(|(file, ..)| file.name.as_str()).collect();
    let nothing = !read.iter().any(|object| object.kind.is_some());
    let objects = make_plans(read, options, &report);
    if nothing && report.errors() == 0 {
        report.push(Diagnostic::error(if found {
            "nothing in these manifests has the labels of the selector"
        } else {
            "there is nothing to play in these manifests"
        }));
    }
    Loaded {
        objects,
        diagnostics: report.finish(&names),
    }
}

fn parse(source: &Source, options: &Options, report: &Report) -> Option<(File, Vec<Node>)> {
    let text = match super::source::decode(&source.text) {
        Ok(text) => text,
        Err(offset) => {
            report.push(not_text(source, offset));
            return None;
        }
    };
    let base_dir = source
        .base_dir
        .clone()
        .unwrap_or_else(|| options.current_dir.clone());
    let file = File::new(&source.name, base_dir, &text);
    let documents = yaml::parse(&file, &text, options.substitution.as_ref(), report);
    Some((file, documents))
}

fn not_text(source: &Source, offset: usize) -> Diagnostic {
    let before = source.text.get(..offset).unwrap_or_default();
    let file = File::new(
        &source.name,
        std::path::PathBuf::new(),
        &String::from_utf8_lossy(before),
    );
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(before.get(start..).unwrap_or_default())
        .chars()
        .count()
        + 1;
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let place = file.place(Span {
        line: number(line),
        column: number(column),
        width: 1,
    });
    Diagnostic::error("the file is not text in UTF-8")
        .at(place)
        .hint("save it as UTF-8; UTF-16 is read only with a byte order mark")
}

fn read_one<'a>(
    raw: Raw<'a>,
    purpose: Purpose,
    options: &Options,
    report: &Report,
) -> Option<Read<'a>> {
    let before = report.errors();
    let at = raw.at;
    if raw.api_version.starts_with("kustomize.config.k8s.io/") {
        let message = format!("a {} is built before it is played", raw.kind);
        let hint = "play what `kubectl kustomize` prints: `kubectl kustomize DIR | kplay apply -`";
        report.error_hint(at.field("kind"), message, hint);
        return None;
    }
    let kind = Kind::of(raw, report);
    if purpose == Purpose::ConfigMaps && kind != Some(Kind::ConfigMap) {
        let message = format!(
            "a file of `--configmap` may have only ConfigMaps, this is a {}",
            raw.kind
        );
        report.error(at.field("kind"), message);
        return None;
    }
    let metadata = object::metadata(raw, kind, &options.namespace, report);
    let Some(kind) = kind else {
        let metadata = metadata.filter(|_| report.errors() == before)?;
        return Some(Read {
            raw,
            kind: None,
            metadata,
            json: at.node?.to_json(),
            content: None,
        });
    };
    object::check_labels(at.path("metadata.labels"), report);
    object::check_annotations(at.path("metadata.annotations"), report);
    let content = kinds::read(kind, raw, report);
    let mut metadata = metadata?;
    let (mut json, content) = match content {
        Some((json, content)) if report.errors() == before => (json, Some(content)),
        Some((json, _)) => (json, None),
        None => (serde_json::Value::Null, None),
    };
    fill_namespace(kind, &mut metadata, &mut json);
    Some(Read {
        raw,
        kind: Some(kind),
        metadata,
        json,
        content,
    })
}

fn fill_namespace(kind: Kind, metadata: &mut Metadata, json: &mut serde_json::Value) {
    let namespaced = !matches!(kind, Kind::Namespace | Kind::PersistentVolume);
    let object = json
        .get_mut("metadata")
        .and_then(serde_json::Value::as_object_mut);
    if let (true, Some(object)) = (namespaced, object) {
        object.insert(
            "namespace".to_owned(),
            metadata.key.namespace.as_str().into(),
        );
    }
}

/// Keeps the first of each object and reports the others.
fn without_duplicates<'a>(read: Vec<Read<'a>>, report: &Report) -> Vec<Read<'a>> {
    let mut places: HashMap<ObjectKey, Place> = HashMap::new();
    let keep = |object: &Read<'_>| {
        let key = &object.metadata.key;
        let place = object.raw.at.field("metadata").field("name").place();
        let Some(first) = places.get(key) else {
            places.insert(key.clone(), place);
            return true;
        };
        let message = format!(
            "{} `{}` is there twice in namespace `{}`",
            key.kind, key.name, key.namespace
        );
        let hint = format!(
            "the first one is in {}:{}:{}",
            first.file, first.line, first.column
        );
        report.push(Diagnostic::error(message).at(place).hint(hint));
        false
    };
    let mut keep = keep;
    read.into_iter().filter(|object| keep(object)).collect()
}

/// A pod's plan with the place where it is asked for.
struct Planned<'a> {
    plan: PodPlan,
    at: At<'a>,
}

fn make_plans(read: Vec<Read<'_>>, options: &Options, report: &Report) -> Vec<Object> {
    services::check(&read, report);
    let (claims, mut made) = storage::bind(&read, options, report);
    let mut index = Index::new(&options.existing, claims, &options.namespace);
    for object in &read {
        let key = &object.metadata.key;
        index.add_account(&object.json, &options.namespace);
        let (kind, data) = match (object.kind, &object.content) {
            (_, Some(Content::Data(kind, data))) => (*kind, Some(data.clone())),
            (Some(Kind::ConfigMap), None) => (super::resolve::Kind::ConfigMap, None),
            (Some(Kind::Secret), None) => (super::resolve::Kind::Secret, None),
            _ => continue,
        };
        index.add(kind, key.namespace.clone(), &key.name, data);
    }
    let mut objects = Vec::new();
    let mut planned: Vec<Option<Planned<'_>>> = Vec::new();
    for object in read {
        note_effect(&object, report);
        if let Some(Content::Data(..) | Content::Recorded) = &object.content {
            support::fields(&object.metadata.key.kind, object.raw.at, report);
        }
        let (raw, metadata) = (object.raw, object.metadata);
        let mut json = object.json;
        index.claims.note_volume(&metadata.key, &mut json);
        let mut pull_secrets = Vec::new();
        let plan = match object.content {
            Some(Content::Workload(workload)) => {
                let scope = Scope {
                    options,
                    index: &index,
                    report,
                    key: &metadata.key,
                };
                pull_secrets = kinds::pull_secrets(&workload, raw.at, &scope);
                let suspended = workload.suspended;
                match kinds::plan(*workload, raw.at, &scope) {
                    Some(plan) => (!suspended).then_some(Planned { plan, at: raw.at }),
                    None => continue,
                }
            }
            // A fault was reported.
            None if object.kind.is_some() => continue,
            _ => None,
        };
        let claims = made.remove(&metadata.key).unwrap_or_default();
        planned.push(plan);
        objects.push(Object {
            key: metadata.key,
            json,
            plan: None,
            pull_secrets,
            played: object.kind.is_some(),
            origin: Origin::Files,
        });
        for mut claim in claims {
            index.claims.note_volume(&claim.key, &mut claim.json);
            planned.push(None);
            objects.push(claim);
        }
    }
    check_run(&mut planned, options, report);
    for (object, planned) in objects.iter_mut().zip(planned) {
        object.plan = planned.map(|planned| planned.plan);
    }
    objects
}

/// Says what nothing is done with.
fn note_effect(object: &Read<'_>, report: &Report) {
    let what = match object.kind {
        None => Some(support::unread(&object.metadata.key.kind)),
        Some(kind) => support::object(kind).filter(|_| object.content.is_some()),
    };
    if let Some(what) = what {
        let key = &object.metadata.key;
        let message = format!("{} `{}` {what}", key.kind, key.name);
        report.note(object.raw.at.field("kind"), message);
    }
}

/// What only all plans together show.
fn check_run(planned: &mut [Option<Planned<'_>>], options: &Options, report: &Report) {
    let mut planned: Vec<&mut Planned<'_>> = planned.iter_mut().flatten().collect();
    check_images_set(&planned, &options.set_image, report);
    publish(&mut planned, options, report);
    check_pod_names(&planned, report);
    check_host_ports(&planned, report);
}

fn check_images_set(
    planned: &[&mut Planned<'_>],
    set_image: &[(ContainerName, String)],
    report: &Report,
) {
    for (name, _) in set_image {
        let mut containers = planned
            .iter()
            .flat_map(|planned| planned.plan.all_containers());
        // Pods with faults are missing here and may have had it.
        if report.errors() == 0 && !containers.any(|container| container.name == *name) {
            report.push(Diagnostic::error(format!(
                "`--set-image` names the container `{name}`, which no pod has"
            )));
        }
    }
}

fn publish(planned: &mut [&mut Planned<'_>], options: &Options, report: &Report) {
    for wanted in &options.publish {
        let matches = |port: &ContainerPort| {
            port.container_port == wanted.container_port && port.protocol == wanted.protocol
        };
        let containers = || planned.iter().flat_map(|planned| &planned.plan.containers);
        let position = containers().position(|container| container.ports.iter().any(matches));
        let mut containers = planned
            .iter_mut()
            .flat_map(|planned| &mut planned.plan.containers);
        let Some(container) = containers.nth(position.unwrap_or(0)) else {
            if report.errors() == 0 {
                report.push(Diagnostic::error(
                    "`--publish` needs a pod, and there is none in these manifests",
                ));
            }
            return;
        };
        let published = ContainerPort {
            name: None,
            container_port: wanted.container_port,
            host_port: Some(wanted.host_port),
            host_ip: wanted.host_ip,
            protocol: wanted.protocol,
        };
        match container
            .ports
            .iter_mut()
            .find(|port| matches(port) && port.host_port.is_none())
        {
            Some(port) => {
                *port = ContainerPort {
                    name: port.name.take(),
                    ..published
                }
            }
            None => container.ports.push(published),
        }
    }
    if options.publish_declared == PublishDeclared::All {
        for planned in planned.iter_mut() {
            publish_declared(planned, report);
        }
    }
    for planned in planned {
        kinds::write_ports(&mut planned.plan);
    }
}

fn publish_declared(planned: &mut Planned<'_>, report: &Report) {
    let plan = &mut planned.plan;
    let containers = plan.containers.iter_mut();
    for port in containers.flat_map(|container| &mut container.ports) {
        if port.protocol == Protocol::Sctp && !plan.host_network {
            let message = format!(
                "port {} of `{}` is not published: only TCP and UDP are",
                port.container_port, plan.owner
            );
            report.note(planned.at.path("metadata.name"), message);
        } else {
            port.host_port.get_or_insert(port.container_port);
        }
    }
}

fn check_pod_names(planned: &[&mut Planned<'_>], report: &Report) {
    let mut owners: HashMap<PodKey, &ObjectKey> = HashMap::new();
    for planned in planned {
        let plan = &planned.plan;
        if let Some(other) = owners.insert(plan.key(), &plan.owner) {
            let message = format!(
                "`{}` and `{other}` would both be played as pod `{}`",
                plan.owner, plan.name
            );
            report.error(planned.at.path("metadata.name"), message);
        }
    }
}

/// Who has a port, on which address.
type Holder<'a> = (&'a ObjectKey, Option<IpAddr>);

fn check_host_ports(planned: &[&mut Planned<'_>], report: &Report) {
    let mut taken: HashMap<(u16, Protocol), Vec<Holder<'_>>> = HashMap::new();
    for planned in planned {
        let plan = &planned.plan;
        for port in plan
            .containers
            .iter()
            .flat_map(|container| &container.ports)
        {
            let Some(host_port) = port.host_port else {
                continue;
            };
            let others = taken.entry((host_port, port.protocol)).or_default();
            let clash = others
                .iter()
                .find(|(owner, ip)| **owner != plan.owner && overlap(*ip, port.host_ip));
            if let Some((owner, _)) = clash {
                let message = format!(
                    "`{}` and `{owner}` both want port {host_port} of the machine",
                    plan.owner
                );
                report.error(planned.at.path("metadata.name"), message);
            } else {
                others.push((&plan.owner, port.host_ip));
            }
        }
    }
}

/// Whether two addresses of the machine meet: none is all.
fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let any = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
    any(one) || any(other) || one == other
}
