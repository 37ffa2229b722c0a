//! What a pod as a whole requests and may use where it says only a part of it (`defaultPodRequests` and
//! `defaultPodLimits` of the API server). A pod that says nothing as a whole gets nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::model::quantity::Quantity;

type Amounts = BTreeMap<String, Text>;
type Of = fn(&ResourceRequirements) -> Option<&Amounts>;

/// The resources that a pod has as a whole.
const NAMES: [&str; 2] = ["cpu", "memory"];

/// Fills in what is missing. The containers' own requests are complete.
pub(super) fn apply(spec: &mut PodSpec) {
    let Some(mut pods) = spec.resources.take() else {
        return;
    };
    let is_set = |amounts: &Option<Amounts>| {
        let amounts = amounts.as_ref();
        amounts.is_some_and(|amounts| NAMES.iter().any(|name| amounts.contains_key(*name)))
    };
    if is_set(&pods.limits) {
        requests(spec, &mut pods);
    } else if is_set(&pods.requests) {
        limits(spec, &mut pods);
    }
    spec.resources = Some(pods);
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
    Some(Text(written(peak.max(sidecars + main), first)))
}

/// An amount as Kubernetes writes it: a whole number with the largest unit that there is, binary if `like` is.
fn written(milli: i128, like: &str) -> String {
    if milli % 1000 != 0 {
        return format!("{milli}m");
    }
    let (base, units) = match like.ends_with('i') {
        true => (1024, ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]),
        false => (1000, ["k", "M", "G", "T", "P", "E"]),
    };
    let (mut whole, mut unit) = (milli / 1000, "");
    for larger in units {
        if whole == 0 || whole % base != 0 {
            break;
        }
        (whole, unit) = (whole / base, larger);
    }
    format!("{whole}{unit}")
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
    fn nothing_comes_of_nothing() {
        let containers = r#""containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]"#;
        check(&format!("{{{containers}}}"), "null");
        check(&format!(r#"{{"resources": {{}}, {containers}}}"#), "{}");
    }

    #[test]
    fn sums_are_written_as_kubernetes_writes_them() {
        let check = |milli: i128, like: &str, expected: &str| {
            assert_eq!(written(milli, like), expected, "{milli} {like}");
        };
        check(1500, "1", "1500m");
        check(2000, "500m", "2");
        check(0, "0", "0");
        check((96 << 20) * 1000, "32Mi", "96Mi");
        check((1 << 30) * 1000, "512Mi", "1Gi");
        check(1_000_000 * 1000, "1", "1M");
        check(1_000_001 * 1000, "1Ki", "1000001");
    }
}
