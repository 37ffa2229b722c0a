//! The status of Deployments, Jobs and the like, from the pods that were made for them.
//!
//! kplay plays one pod for each, so the numbers are those of that pod. A Job stays what it came to when its pod has been
//! removed, as in a cluster.

use serde_json::{Value, json};

use super::object::{set, string};
use super::pods;
use crate::model::status::{Phase, PodEnd, time};

/// The object with the `status` that its controller would write; other kinds are returned as they are. `ended` is how
/// the pod of a Job ended that is not there any more.
pub(crate) fn with_status(mut object: Value, pods: &[Value], ended: Option<&PodEnd>) -> Value {
    let status = match string(&object, "/kind") {
        "Job" => job(&object, pods, ended),
        "Deployment" | "ReplicaSet" | "ReplicationController" | "StatefulSet" => replicas(pods),
        "DaemonSet" => daemons(pods),
        "CronJob" => json!({}),
        _ => return object,
    };
    set(&mut object, "status", status);
    object
}

fn ready_pods(pods: &[Value]) -> usize {
    pods.iter()
        .filter(|pod| pods::condition_is_true(&pods::status(pod), "Ready"))
        .count()
}

fn replicas(pods: &[Value]) -> Value {
    let ready = ready_pods(pods);
    json!({
        "observedGeneration": 1,
        "replicas": pods.len(),
        "updatedReplicas": pods.len(),
        "readyReplicas": ready,
        "availableReplicas": ready,
    })
}

fn daemons(pods: &[Value]) -> Value {
    let ready = ready_pods(pods);
    json!({
        "observedGeneration": 1,
        "currentNumberScheduled": pods.len(),
        "desiredNumberScheduled": pods.len(),
        "updatedNumberScheduled": pods.len(),
        "numberMisscheduled": 0,
        "numberReady": ready,
        "numberAvailable": ready,
    })
}

fn job(object: &Value, pods: &[Value], ended: Option<&PodEnd>) -> Value {
    let mut ends: Vec<PodEnd> = pods.iter().map(|pod| (&pods::status(pod)).into()).collect();
    if ends.is_empty() {
        ends.extend(ended.cloned());
    }
    let count = |phases: &[Phase]| {
        ends.iter()
            .filter(|end| phases.contains(&end.phase))
            .count()
    };
    let active = count(&[Phase::Pending, Phase::Running]);
    let succeeded = count(&[Phase::Succeeded]);
    let failed = count(&[Phase::Failed]);
    let mut status = json!({
        "active": active,
        "ready": ready_pods(pods),
        "succeeded": succeeded,
        "failed": failed,
    });
    let started = ends.iter().filter_map(|end| end.started).min();
    if let Some(started) = started {
        set(&mut status, "startTime", json!(time::text(&started)));
    }
    if active == 0 && (succeeded > 0 || failed > 0) {
        let at = ends.iter().filter_map(|end| end.finished).max();
        let at = at.map(|ended| time::text(&ended));
        let condition = if failed == 0 {
            if let Some(at) = &at {
                set(&mut status, "completionTime", json!(at));
            }
            json!({
                "type": "Complete", "status": "True", "reason": "CompletionsReached",
                "message": "Reached expected number of succeeded pods",
                "lastProbeTime": at, "lastTransitionTime": at,
            })
        } else {
            let (reason, message) = failure(object, &ends);
            json!({
                "type": "Failed", "status": "True", "reason": reason, "message": message,
                "lastProbeTime": at, "lastTransitionTime": at,
            })
        };
        set(&mut status, "conditions", json!([condition]));
    } else if ends.is_empty() && object.pointer("/spec/suspend") == Some(&json!(true)) {
        let condition = json!({
            "type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended",
        });
        set(&mut status, "conditions", json!([condition]));
    }
    status
}

fn failure(object: &Value, ends: &[PodEnd]) -> (&'static str, &'static str) {
    let deadline = object.pointer("/spec/activeDeadlineSeconds").is_some()
        && ends
            .iter()
            .any(|end| end.reason.as_deref() == Some("DeadlineExceeded"));
    if deadline {
        (
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        )
    } else {
        (
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str, ready: &str) -> Value {
        json!({ "status": {
            "phase": phase,
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": [
                { "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z" }
            ],
            "containerStatuses": [{ "name": "c", "state": { "terminated": {
                "exitCode": 0, "reason": "Completed",
                "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:07Z",
            }}}],
        }})
    }

    #[test]
    fn a_deployment_counts_its_ready_pods() {
        let deployment = json!({ "kind": "Deployment" });
        let status = with_status(deployment, &[pod("Running", "True")], None);
        assert_eq!(status["status"]["readyReplicas"], 1);
        let typed: k8s_openapi::api::apps::v1::DeploymentStatus =
            serde_json::from_value(status["status"].clone()).expect("is a v1.DeploymentStatus");
        assert_eq!(typed.available_replicas, Some(1));
    }

    #[test]
    fn a_job_ends_with_its_pod() {
        let check = |phase: &str, expected: &Value, completion: Option<&str>| {
            let job = with_status(json!({ "kind": "Job" }), &[pod(phase, "False")], None);
            let status = &job["status"];
            assert_eq!(&status["conditions"][0]["type"], expected, "{phase}");
            assert_eq!(status["completionTime"].as_str(), completion, "{phase}");
            let _typed: k8s_openapi::api::batch::v1::JobStatus =
                serde_json::from_value(status.clone()).expect("is a v1.JobStatus");
        };
        check("Running", &Value::Null, None);
        check(
            "Succeeded",
            &json!("Complete"),
            Some("2026-01-01T00:00:07Z"),
        );
        check("Failed", &json!("Failed"), None);
    }

    #[test]
    fn a_job_outlives_its_pod() {
        let job = json!({ "kind": "Job", "spec": { "activeDeadlineSeconds": 5, "suspend": true } });
        let check = |phase: &str, reason: &Value, expected: &str| {
            let mut pod = pod(phase, "False");
            set(&mut pod["status"], "reason", reason.clone());
            let ended = PodEnd::from(&pods::status(&pod));
            let there = with_status(job.clone(), &[pod], None);
            assert_eq!(there["status"]["conditions"][0]["reason"], expected);
            assert_eq!(with_status(job.clone(), &[], Some(&ended)), there);
            // Another one is what counts.
            let again = with_status(job.clone(), &[self::pod("Running", "True")], Some(&ended));
            assert_eq!(again["status"]["active"], 1);
            assert_eq!(again["status"]["conditions"], Value::Null);
        };
        check("Succeeded", &Value::Null, "CompletionsReached");
        check("Failed", &Value::Null, "BackoffLimitExceeded");
        check("Failed", &json!("DeadlineExceeded"), "DeadlineExceeded");
    }

    #[test]
    fn a_suspended_job_says_so() {
        let of = |suspend: bool, pods: &[Value]| {
            let job = json!({ "kind": "Job", "spec": { "suspend": suspend } });
            let status = with_status(job, pods, None)["status"].take();
            let _typed: k8s_openapi::api::batch::v1::JobStatus =
                serde_json::from_value(status.clone()).expect("is a v1.JobStatus");
            status["conditions"].clone()
        };
        assert_eq!(of(true, &[])[0]["type"], "Suspended");
        assert_eq!(of(false, &[]), Value::Null);
        // Its pod is still there.
        assert_eq!(of(true, &[pod("Running", "True")]), Value::Null);
    }
}
