//! What a pod as a whole requests and may use where it says only a part of it (`defaultPodRequests` and
//! `defaultPodLimits` of the API server). A pod that says nothing as a whole gets nothing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::resources::HUGE_PAGES;
use crate::model::quantity::Quantity;

type Amounts = BTreeMap<String, Text>;
type Of = fn(&ResourceRequirements) -> Option<&Amounts>;

/// The resources that a pod has as a whole, beside huge pages.
const NAMES: [&str; 2] = ["cpu", "memory"];

/// Fills in what is missing. The containers' own requests are complete.
pub(super) fn apply(spec: &mut PodSpec) {
    let Some(mut pods) = spec.resources.take() else {
        return;
    };
    let is_set = |amounts: &Option<Amounts>| {
        let mut names = amounts.iter().flat_map(BTreeMap::keys);
        names.any(|name| NAMES.contains(&name.as_str()) || name.starts_with(HUGE_PAGES))
    };
    if is_set(&pods.limits) || is_set(&pods.requests) {
        huge_pages(spec, &mut pods);
    }
    if is_set(&pods.limits) {
        requests(spec, &mut pods);
    } else if is_set(&pods.requests) {
        limits(spec, &mut pods);
    }
    spec.resources = Some(pods);
}

/// What the containers may have together of huge pages of a size of which the pod says nothing
/// (`defaultHugePagePodLimits`), and a request as large as the limit: huge pages are never promised twice.
fn huge_pages(spec: &PodSpec, pods: &mut ResourceRequirements) {
    let of: Of = |own| own.limits.as_ref();
    let amounts = containers(spec).filter_map(|container| of(container.resources.as_ref()?));
    // A name that is none is told of where it is written.
    let is_huge = |name: &&String| {
        let size = name.strip_prefix(HUGE_PAGES).map(Quantity::parse);
        size.is_some_and(|size| size.is_ok())
    };
    let names: BTreeSet<&String> = amounts.flat_map(BTreeMap::keys).filter(is_huge).collect();
    for name in names {
        let has =
            |list: &Option<Amounts>| list.as_ref().is_some_and(|list| list.contains_key(name));
        if has(&pods.limits) || has(&pods.requests) {
            continue;
        }
        if let Some(limit) = together(spec, name, of) {
            let limits = pods.limits.get_or_insert_default();
            limits.insert(name.clone(), limit);
        }
    }
    let limits = pods
        .limits
        .iter()
        .flatten()
        .filter(|(name, _)| is_huge(name));
    for (name, limit) in limits {
        let requests = pods.requests.get_or_insert_default();
        requests
            .entry(name.clone())
            .or_insert_with(|| limit.clone());
    }
}

/// What the containers request together, or else the limit.
fn requests(spec: &PodSpec, pods: &mut ResourceRequirements) {
    for name in NAMES {
        let limit = pods.limits.as_ref().and_then(|limits| limits.get(name));
        let request = together(spec, name, |own| own.requests.as_ref()).or_else(|| limit.cloned());
        if let Some(request) = request {
            let requests = pods.requests.get_or_insert_default();
            requests.entry(name.to_owned()).or_insert(request);
        }
    }
}

/// What the containers may use together, if all of them have a limit.
fn limits(spec: &PodSpec, pods: &mut ResourceRequirements) {
    let of: Of = |own| own.limits.as_ref();
    for name in NAMES {
        let all = containers(spec).all(|container| amount(container, name, of).is_some());
        if let Some(limit) = together(spec, name, of).filter(|_| all) {
            let limits = pods.limits.get_or_insert_default();
            limits.insert(name.to_owned(), limit);
        }
    }
}

/// Writes all amounts as the API server writes them back. What is no amount stays, and is told elsewhere.
pub(super) fn normalize(spec: &mut PodSpec) {
    let all = spec.init_containers.iter_mut().flatten();
    let all = all.chain(&mut spec.containers);
    let of_containers = all.filter_map(|container| container.resources.as_mut());
    for resources in of_containers.chain(spec.resources.as_mut()) {
        let lists = [&mut resources.limits, &mut resources.requests];
        let amounts = lists.into_iter().flatten();
        amounts.flat_map(BTreeMap::values_mut).for_each(rewrite);
    }
    let empty_dirs = spec.volumes.iter_mut().flatten();
    let empty_dirs = empty_dirs.filter_map(|volume| volume.empty_dir.as_mut());
    empty_dirs
        .filter_map(|source| source.size_limit.as_mut())
        .for_each(rewrite);
}

fn rewrite(text: &mut Text) {
    if let Ok(amount) = Quantity::parse(&text.0) {
        text.0 = amount.written_like(&text.0);
    }
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let init = spec.init_containers.iter().flatten();
    init.chain(&spec.containers)
}

/// The text of an amount, if it is one.
fn amount<'a>(container: &'a Container, name: &str, of: Of) -> Option<(&'a str, i128)> {
    let text = of(container.resources.as_ref()?)?.get(name)?.0.as_str();
    Some((text, Quantity::parse(text).ok()?.milli()))
}

/// What containers have at the time when it is most (as [`crate::model::plan::most_at_once`]); `None` if no container
/// says it.
fn together(spec: &PodSpec, name: &str, of: Of) -> Option<Text> {
    let (first, _) = containers(spec).find_map(|container| amount(container, name, of))?;
    let milli = |container| amount(container, name, of).map_or(0, |(_, milli)| milli);
    let (mut sidecars, mut peak) = (0, 0);
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars += milli(container);
        } else {
            peak = peak.max(sidecars + milli(container));
        }
    }
    let main: i128 = spec.containers.iter().map(milli).sum();
    let together = Quantity::from_milli(peak.max(sidecars + main));
    Some(Text(together.written_like(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spec: &str, expected: &str) {
        let mut spec: PodSpec = serde_json::from_str(spec).unwrap();
        apply(&mut spec);
        let resources = serde_json::to_value(&spec.resources).unwrap();
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert_eq!(resources, expected);
    }

    #[test]
    fn requests_are_the_containers_or_the_limits() {
        let pods = r#""resources": {"limits": {"cpu": "2", "memory": "1Gi"}}"#;
        check(
            &format!(r#"{{{pods}, "containers": [{{"name": "a"}}]}}"#),
            r#"{"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "2", "memory": "1Gi"}}"#,
        );
        check(
            &format!(
                r#"{{{pods}, "initContainers": [
                    {{"name": "i", "resources": {{"requests": {{"cpu": "100m", "memory": "512Mi"}}}}}},
                    {{"name": "s", "restartPolicy": "Always", "resources": {{"requests": {{"cpu": "500m"}}}}}}],
                    "containers": [
                    {{"name": "a", "resources": {{"requests": {{"cpu": "1.5", "memory": "256Mi"}}}}}},
                    {{"name": "b", "resources": {{"requests": {{"memory": "64Mi"}}}}}}]}}"#
            ),
            r#"{"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "2", "memory": "512Mi"}}"#,
        );
        check(
            r#"{"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}, "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "250m", "memory": "300M"}}}]}"#,
            r#"{"limits": {"cpu": "2"}, "requests": {"cpu": "1", "memory": "300M"}}"#,
        );
    }

    #[test]
    fn limits_are_the_containers_if_all_have_one() {
        check(
            r#"{"resources": {"requests": {"cpu": "1"}}, "containers": [
                {"name": "a", "resources": {"limits": {"cpu": "250m", "memory": "512Ki"}}},
                {"name": "b", "resources": {"limits": {"cpu": "250m"}}}]}"#,
            r#"{"limits": {"cpu": "500m"}, "requests": {"cpu": "1"}}"#,
        );
    }

    #[test]
    fn huge_pages_are_the_containers_where_the_pod_says_nothing() {
        let containers = r#""containers": [
            {"name": "a", "resources": {"limits": {"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi", "cpu": "1"}}},
            {"name": "b", "resources": {"limits": {"hugepages-2Mi": "6Mi"}}}]"#;
        check(
            &format!(r#"{{"resources": {{"limits": {{"hugepages-2Mi": "16Mi"}}}}, {containers}}}"#),
            r#"{"limits": {"hugepages-2Mi": "16Mi", "hugepages-1Gi": "1Gi"},
                "requests": {"hugepages-2Mi": "16Mi", "hugepages-1Gi": "1Gi"}}"#,
        );
        check(
            &format!(r#"{{"resources": {{"limits": {{"memory": "1Gi"}}}}, {containers}}}"#),
            r#"{"limits": {"memory": "1Gi", "hugepages-2Mi": "10Mi", "hugepages-1Gi": "1Gi"},
                "requests": {"memory": "1Gi", "hugepages-2Mi": "10Mi", "hugepages-1Gi": "1Gi"}}"#,
        );
    }

    #[test]
    fn nothing_comes_of_nothing() {
        let containers = r#""containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]"#;
        check(&format!("{{{containers}}}"), "null");
        check(&format!(r#"{{"resources": {{}}, {containers}}}"#), "{}");
    }

    #[test]
    fn amounts_are_written_as_kubernetes_writes_them() {
        let spec = r#"{"resources": {"limits": {"cpu": "2000m"}},
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "0.5"}}}],
            "containers": [{"name": "a", "resources": {"limits": {"memory": "1024Mi", "cpu": "what"}}}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "2048Ki"}}]}"#;
        let mut spec: PodSpec = serde_json::from_str(spec).unwrap();
        normalize(&mut spec);
        let spec = serde_json::to_value(&spec).unwrap();
        let of = |pointer: &str| {
            spec.pointer(pointer)
                .and_then(|text| text.as_str())
                .unwrap()
        };
        assert_eq!(of("/resources/limits/cpu"), "2");
        assert_eq!(of("/initContainers/0/resources/requests/cpu"), "500m");
        assert_eq!(of("/containers/0/resources/limits/memory"), "1Gi");
        assert_eq!(of("/containers/0/resources/limits/cpu"), "what");
        assert_eq!(of("/volumes/0/emptyDir/sizeLimit"), "2Mi");
    }
}
