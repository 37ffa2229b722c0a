//! Changes that reach a pod as it runs: what a kubelet brings to it without a restart.
//!
//! The content of ConfigMaps and Secrets is new in the pod's files at once. A variable, or a file that is mounted alone
//! (`subPath`), is what it was when its container was started, and is new when the container is started again. Labels and
//! annotations of a bare pod can be changed; a workload's template is another matter: its controller would make a new
//! pod.

use crate::model::plan::{PodPlan, Volume, VolumeSource};

/// What a pod that was refreshed still has of the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    Nothing,
    /// Its containers have variables, or files that are mounted alone, as before until they are started again.
    UntilRestart,
}

/// Whether two plans differ only in what reaches a pod as it runs.
pub(super) fn is_enough(old: &PodPlan, new: &PodPlan) -> bool {
    let mut alike = new.clone();
    if new.owner.kind == "Pod" {
        alike.labels.clone_from(&old.labels);
        alike.annotations.clone_from(&old.annotations);
        for field in ["labels", "annotations"] {
            take_metadata(field, old, &mut alike);
        }
    }
    // The manifest has the references, so what differs here is the content of what they name.
    let containers = alike
        .init_containers
        .iter_mut()
        .chain(&mut alike.containers);
    for (container, old) in containers.zip(old.all_containers()) {
        container.env.clone_from(&old.env);
    }
    for (volume, old) in alike.volumes.iter_mut().zip(&old.volumes) {
        let VolumeSource::Files { files, .. } = &mut volume.source else {
            continue;
        };
        if let VolumeSource::Files { files: old, .. } = &old.source {
            files.clone_from(old);
        }
    }
    alike == *old
}

fn take_metadata(field: &str, old: &PodPlan, new: &mut PodPlan) {
    let Some(metadata) = new.manifest.get_mut("metadata") else {
        return;
    };
    let Some(metadata) = metadata.as_object_mut() else {
        return;
    };
    match old.manifest.pointer(&format!("/metadata/{field}")) {
        Some(value) => {
            metadata.insert(field.to_owned(), value.clone());
        }
        None => {
            metadata.remove(field);
        }
    }
}

/// What a running pod still has of the old plan when it has been given the new one.
#[must_use]
pub fn stale(old: &PodPlan, new: &PodPlan) -> Stale {
    let is_changed = |name: &crate::model::names::VolumeName| {
        let find = |plan: &PodPlan| -> Option<Volume> {
            plan.volumes.iter().find(|v| v.name == *name).cloned()
        };
        find(old) != find(new)
    };
    let mut containers = old.all_containers().zip(new.all_containers());
    let is_stale = containers.any(|(old, new)| {
        let mut parts = new.mounts.iter().filter(|mount| mount.sub_path.is_some());
        old.env != new.env || parts.any(|mount| is_changed(&mount.volume))
    });
    if is_stale {
        Stale::UntilRestart
    } else {
        Stale::Nothing
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::names::VolumeName;
    use crate::model::plan::{
        ContainerRole, EnvValue, EnvVar, FileContent, Medium, MountAccess, Propagation, SubPath,
        VolumeFile, VolumeMount,
    };
    use crate::model::testing;

    fn files(text: &str) -> Volume {
        Volume {
            name: VolumeName::parse("map").unwrap(),
            source: VolumeSource::Files {
                files: vec![VolumeFile {
                    path: "key".into(),
                    mode: 0o644,
                    content: FileContent::Bytes(text.into()),
                }],
                medium: Medium::Disk,
            },
        }
    }

    fn plan(change: impl FnOnce(&mut PodPlan)) -> PodPlan {
        let mut plan = testing::plan("web");
        plan.owner.kind = "Pod".into();
        plan.manifest = json!({"metadata": {"name": "web", "labels": {"a": "1"}}, "spec": {}});
        plan.volumes = vec![files("old")];
        plan.containers = vec![testing::container("main", ContainerRole::Main)];
        plan.containers[0].env = vec![variable("old")];
        plan.containers[0].mounts = vec![mount(None)];
        change(&mut plan);
        plan
    }

    fn variable(value: &str) -> EnvVar {
        EnvVar {
            name: "KEY".into(),
            value: EnvValue::Literal(value.into()),
        }
    }

    fn mount(sub_path: Option<SubPath>) -> VolumeMount {
        VolumeMount {
            volume: VolumeName::parse("map").unwrap(),
            mount_path: "/etc/map".into(),
            access: MountAccess::ReadWrite,
            propagation: Propagation::None,
            sub_path,
        }
    }

    #[test]
    fn content_and_a_bare_pods_metadata_reach_it() {
        let check = |change: &dyn Fn(&mut PodPlan), expected: bool, left: Stale| {
            let (old, new) = (plan(|_| {}), plan(change));
            assert_eq!(is_enough(&old, &new), expected);
            assert_eq!(stale(&old, &new), left);
        };
        check(&|_| {}, true, Stale::Nothing);
        check(&|p| p.volumes = vec![files("new")], true, Stale::Nothing);
        check(
            &|p| p.containers[0].env = vec![variable("new")],
            true,
            Stale::UntilRestart,
        );
        let label = |plan: &mut PodPlan| {
            plan.labels.insert("b".into(), "2".into());
            plan.manifest = json!({"metadata": {"name": "web", "labels": {"b": "2"}}, "spec": {}});
        };
        check(&label, true, Stale::Nothing);
        check(
            &|p| p.manifest = json!({"metadata": {"name": "web"}, "spec": {}}),
            true,
            Stale::Nothing,
        );
        check(
            &|p| p.manifest = json!({"metadata": {"name": "web"}, "spec": {"new": 1}}),
            false,
            Stale::Nothing,
        );
        check(
            &|p| p.containers[0].args = Some(vec!["new".into()]),
            false,
            Stale::Nothing,
        );
        check(&|p| p.volumes = Vec::new(), false, Stale::Nothing);
    }

    #[test]
    fn a_workloads_template_is_another_pod() {
        let of_deployment = |change: &dyn Fn(&mut PodPlan)| {
            plan(|plan| {
                plan.owner.kind = "Deployment".into();
                change(plan);
            })
        };
        let old = of_deployment(&|_| {});
        let relabelled = of_deployment(&|plan| {
            plan.annotations.insert("checksum".into(), "2".into());
        });
        assert!(!is_enough(&old, &relabelled));
        assert!(is_enough(
            &old,
            &of_deployment(&|plan| plan.volumes = vec![files("new")])
        ));
    }

    #[test]
    fn files_that_are_mounted_alone_stay_old() {
        let part = |text: &'static str| {
            plan(move |plan| {
                plan.containers[0].mounts = vec![mount(Some(SubPath::Path("key".into())))];
                plan.volumes = vec![files(text)];
            })
        };
        assert_eq!(stale(&part("old"), &part("new")), Stale::UntilRestart);
        assert_eq!(stale(&part("old"), &part("old")), Stale::Nothing);
    }
}
