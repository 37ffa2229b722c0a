//! Containers that say themselves when they are started again.

use serde_json::Value;

use crate::Kplay;
use crate::hooks::Diary;

fn manifest(name: &str, diary: &Diary, init: &[String], containers: &[String]) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{restartPolicy: Never, {}, \
         initContainers: [{}], containers: [{}]}}\n",
        diary.volumes(),
        init.join(", "),
        containers.join(", ")
    )
}

fn restarts(status: &Value, list: &str) -> Vec<u64> {
    let all = status[list].as_array().expect("containers");
    let count = |container: &Value| container["restartCount"].as_u64().expect("a count");
    all.iter().map(count).collect()
}

#[test]
fn rules_and_own_policies_restart_in_a_pod_that_never_does() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let twice =
        |name: &str, code: u8| format!("[ -e /v/{name} ] && exit 0; touch /v/{name}; exit {code}");
    let manifest = manifest(
        "rules",
        &diary,
        &[diary.container("init", "restartPolicy: OnFailure,", &twice("init", 1))],
        &[
            diary.container(
                "by-rule",
                "restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}],",
                &twice("by-rule", 42),
            ),
            diary.container(
                "no-rule",
                "restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: NotIn, values: [0, 7]}}],",
                "exit 7",
            ),
            diary.container("policy", "restartPolicy: OnFailure,", &twice("policy", 1)),
        ],
    );
    let code = kplay.apply(&manifest).code;
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
    let status = &kplay.until_ended("rules")["status"];
    assert_eq!(status["phase"], "Failed", "{status}");
    assert_eq!(restarts(status, "initContainerStatuses"), [1]);
    // Sorted by name.
    assert_eq!(restarts(status, "containerStatuses"), [1, 0, 1]);
}

#[test]
fn one_exit_restarts_all_containers_in_their_sandbox() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let network = "$(readlink /proc/self/ns/net)";
    let manifest = manifest(
        "gang",
        &diary,
        &[
            diary.container("init", "", &format!("say init {network}")),
            diary.container(
                "side",
                "restartPolicy: Always,",
                "trap 'say side is asked to stop; exit 0' TERM; say side; stay",
            ),
        ],
        &[
            diary.container(
                "bystander",
                "lifecycle: {preStop: {exec: {command: [touch, /v/hook]}}},",
                "[ -e /own ] && say files are kept; touch /own; trap 'say term' TERM; say bystander; \
                 until [ -e /v/second ]; do sleep 0.05; done",
            ),
            diary.container(
                "trigger",
                "restartPolicy: Never, restartPolicyRules: \
                 [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}],",
                "n() { grep -c \" $1$\" /v/diary; }; \
                 until [ $(n bystander) -gt $(n trigger) ] && [ $(n side) -gt $(n trigger) ]; do sleep 0.05; done; \
                 say trigger; \
                 [ -e /v/first ] && { touch /v/second; exit 0; }; touch /v/first; exit 42",
            ),
        ],
    );
    kplay.apply(&manifest).succeeds();
    let status = &kplay.until_ended("gang")["status"];
    assert_eq!(status["phase"], "Succeeded", "{status}");
    let words = diary.words();
    assert_eq!(words.len(), 9, "{words:?}");
    for round in [&words[..4], &words[4..8]] {
        assert!(round[0].starts_with("init net:"), "{words:?}");
        assert_eq!(round[3], "trigger", "{words:?}");
        assert!(round.contains(&"side".into()) && round.contains(&"bystander".into()));
    }
    // In the network namespace of the first round.
    assert_eq!(words[0], words[4]);
    // Nobody was asked to stop before the pod's own end, no hook ran, and the containers are new ones.
    assert_eq!(words[8..], ["side is asked to stop"], "{words:?}");
    assert!(!kplay.dir().join("shared/hook").exists());
    assert_eq!(restarts(status, "initContainerStatuses"), [1, 1]);
    assert_eq!(restarts(status, "containerStatuses"), [1, 1]);
    for container in status["containerStatuses"].as_array().expect("containers") {
        let last = &container["lastState"]["terminated"];
        assert_eq!(last["reason"], "RestartingAllContainers", "{container}");
    }
    let conditions = status["conditions"].as_array().expect("conditions");
    let restarting = conditions
        .iter()
        .find(|condition| condition["type"] == "AllContainersRestarting")
        .expect("the pod has a rule that restarts all");
    assert_eq!(restarting["status"], "False");
    assert_eq!(restarting["reason"], "PodCompleted");
}
