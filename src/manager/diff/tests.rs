use proptest::prelude::*;

use super::*;
use crate::manager::testing::{image, plan};
use crate::model::names::ContainerName;
use crate::model::status::Generation;
use crate::protocol;
use crate::state::testing::object_key;

/// A pod that was launched with this behaviour and image.
fn launch(behaviour: &str, id: &str) -> Launch {
    Launch {
        version: protocol::VERSION,
        pulling: None,
        uid: "u".into(),
        plan: plan("web-0", behaviour),
        generation: Generation::default(),
        images: images(id),
        volume_images: BTreeMap::new(),
        data_dir: "/d".into(),
        claims: BTreeMap::new(),
        log_dir: "/l".into(),
        log_links: None,
        cgroup: "kplay/u".into(),
        seccomp_folders: Vec::new(),
        node_name: "n".into(),
        objects: "/o".into(),
        network: "/n".into(),
        endpoints: "/e".into(),
    }
}

fn images(id: &str) -> BTreeMap<ContainerName, Image> {
    [(ContainerName::parse("main").unwrap(), image(id))].into()
}

/// As they are planned.
fn planned(images: &BTreeMap<ContainerName, Image>) -> BTreeMap<ImageUser, Image> {
    let images = images.iter();
    images
        .map(|(name, image)| (ImageUser::Container(name.clone()), image.clone()))
        .collect()
}

fn lives() -> impl Strategy<Value = Life> {
    prop_oneof![
        Just(Life::Runs),
        Just(Life::Ended(Ending::Succeeded)),
        Just(Life::Ended(Ending::Failed)),
        Just(Life::Abandoned),
        Just(Life::Deleting),
    ]
}

proptest! {
    /// A pod is kept exactly if it is as planned and takes care of itself; nothing but `Replace::All` and its life
    /// makes an unchanged pod restart.
    #[test]
    fn only_what_is_as_planned_is_kept(
        old in "run|complete",
        new in "run|complete",
        old_image in "a|b",
        new_image in "a|b",
        life in lives(),
        known in any::<bool>(),
        all in any::<bool>(),
    ) {
        let launch = launch(&old, &old_image);
        let plan = plan("web-0", &new);
        let recorded = Recorded {
            owner: &plan.owner,
            sources: None,
            launch: known.then_some(&launch),
            life,
        };
        let replace = if all { Replace::All } else { Replace::Changed };
        let step = pod_step(Some(&recorded), &plan, &planned(&images(&new_image)), None, replace);
        let same = known && old == new && old_image == new_image;
        let stays = match life {
            Life::Runs | Life::Ended(Ending::Succeeded) => true,
            Life::Ended(Ending::Failed) => new == "complete",
            Life::Abandoned | Life::Deleting => false,
        };
        let expected = if same && stays && !all { PodStep::Keep } else { PodStep::Replace };
        prop_assert_eq!(step, Ok(expected));
    }

    /// What was just launched is unchanged for the next `apply`, also after a round trip through its file.
    #[test]
    fn applying_twice_keeps(behaviour in ".*", id in ".*") {
        let launch = launch(&behaviour, &id);
        let bytes = serde_json::to_vec(&launch).unwrap();
        let read: Launch = serde_json::from_slice(&bytes).unwrap();
        let recorded = Recorded {
            owner: &read.plan.owner,
            sources: None,
            launch: Some(&read),
            life: Life::Runs,
        };
        let step = pod_step(Some(&recorded), &launch.plan, &planned(&launch.images), None, Replace::Changed);
        prop_assert_eq!(step, Ok(PodStep::Keep));
    }
}

#[test]
fn layers_that_moved_change_nothing_and_a_missing_image_does() {
    let launch = launch("run", "a");
    let recorded = Recorded {
        owner: &launch.plan.owner,
        sources: None,
        launch: Some(&launch),
        life: Life::Runs,
    };
    let check = |images: &BTreeMap<ContainerName, Image>, expected| {
        let step = pod_step(
            Some(&recorded),
            &launch.plan,
            &planned(images),
            None,
            Replace::Changed,
        );
        assert_eq!(step, Ok(expected));
    };
    let mut moved = images("a");
    for image in moved.values_mut() {
        image.layers.push("/elsewhere".into());
    }
    check(&moved, PodStep::Keep);
    check(&BTreeMap::new(), PodStep::Replace);
}

#[test]
fn a_pod_of_other_files_is_a_conflict_unless_its_owner_is_the_same() {
    let launch = launch("run", "a");
    let ours = SourceSet::new(["/a".to_owned()]);
    let theirs = SourceSet::new(["/b".to_owned()]);
    let other = object_key("Job", "batch", "web");
    let check =
        |owner: &ObjectKey, sources: &Option<SourceSet>, replace, expected: Option<PodStep>| {
            let recorded = Recorded {
                owner,
                sources: sources.as_ref(),
                launch: Some(&launch),
                life: Life::Runs,
            };
            let step = pod_step(
                Some(&recorded),
                &launch.plan,
                &planned(&images("a")),
                ours.as_ref(),
                replace,
            );
            assert_eq!(step.ok(), expected);
        };
    check(
        &launch.plan.owner,
        &theirs,
        Replace::Changed,
        Some(PodStep::Keep),
    );
    check(&other, &ours, Replace::Changed, Some(PodStep::Keep));
    check(&other, &theirs, Replace::Changed, None);
    check(&other, &None, Replace::Changed, None);
    check(&other, &theirs, Replace::All, Some(PodStep::Replace));
}

#[test]
fn an_object_is_configured_when_its_manifest_differs() {
    let (old, new) = (
        serde_json::json!({"a": 1, "b": 2}),
        serde_json::json!({"b": 2, "a": 1}),
    );
    assert_eq!(object_change(None, &new), Change::Created);
    assert_eq!(object_change(Some(&old), &new), Change::Unchanged);
    assert_eq!(
        object_change(Some(&old), &serde_json::json!({})),
        Change::Configured
    );
}

#[test]
fn what_is_immutable_stays() {
    use serde_json::{Value, json};
    let check = |old: Value, new: Value, expected: &[&str]| {
        let found: Vec<&str> = forbidden(&old, &new).collect();
        assert_eq!(found, expected, "{old} {new}");
    };
    let old = json!({"immutable": true, "data": {"a": "1"}});
    check(old.clone(), old.clone(), &[]);
    check(old.clone(), json!({"data": {"a": "1"}}), &["immutable"]);
    check(
        old.clone(),
        json!({"immutable": true, "metadata": {"labels": {}}}),
        &["data"],
    );
    check(
        old.clone(),
        json!({"immutable": false, "data": {"a": "2"}, "binaryData": {"b": ""}}),
        &["immutable", "data", "binaryData"],
    );
    check(json!({"data": {"a": "1"}}), old, &[]);
}

#[test]
fn a_status_without_an_executor_says_how_the_pod_lives() {
    let check = |phase: Phase, reason: Option<&str>, expected: Life| {
        let status = PodStatus {
            phase,
            reason: reason.map(Into::into),
            ..PodStatus::default()
        };
        assert_eq!(Life::without_executor(Some(&status)), expected);
    };
    assert_eq!(Life::without_executor(None), Life::Abandoned);
    check(Phase::Running, None, Life::Abandoned);
    check(Phase::Succeeded, None, Life::Ended(Ending::Succeeded));
    check(Phase::Failed, Some("Evicted"), Life::Ended(Ending::Failed));
    check(Phase::Failed, Some(EXECUTOR_DIED), Life::Abandoned);
}
