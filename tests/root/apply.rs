//! `apply`, `get`, `wait`, `delete`: what is made, left alone, replaced, undone.

use std::time::Duration;

use crate::Kplay;
use crate::harness::{script_pod, text};

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: kplay.local/toolbox
    args: [sleep, '1000']
    env: [{name: VALUE, value: one}]
";

#[test]
fn applying_twice_does_nothing_and_a_change_makes_a_new_pod() {
    let Some(kplay) = Kplay::new() else { return };
    assert_eq!(kplay.apply(WEB).succeeds(), "pod/web created\n");
    let first = kplay.pod("web");
    assert_eq!(kplay.apply(WEB).succeeds(), "pod/web unchanged\n");
    assert_eq!(
        kplay.pod("web")["metadata"]["uid"],
        first["metadata"]["uid"]
    );
    assert_eq!(
        kplay.apply(&WEB.replace("one", "two")).succeeds(),
        "pod/web configured\n"
    );
    let second = kplay.pod("web");
    assert_ne!(second["metadata"]["uid"], first["metadata"]["uid"]);
    let env = kplay
        .run(["exec", "web", "--", "/toolbox", "env"])
        .succeeds();
    assert!(env.contains("VALUE=two"), "{env}");
    let deleted = kplay.run(["delete", "pod", "web"]).succeeds();
    assert_eq!(deleted, "pod \"web\" deleted\n");
    kplay.run(["get", "pod", "web"]).fails(5, &["web"]);
    kplay.run(["delete", "pod", "web"]).fails(5, &["web"]);
    kplay
        .run(["delete", "pod", "web", "--ignore-not-found"])
        .succeeds();
    kplay.assert_nothing_left();
}

#[test]
fn a_deployment_is_one_pod_that_its_name_finds() {
    let Some(kplay) = Kplay::new() else { return };
    let deployment = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  replicas: 3
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      containers:
      - {name: main, image: kplay.local/toolbox, args: [print, hello from a deployment]}
      - {name: stay, image: kplay.local/toolbox, args: [sleep, '1000']}
";
    let run = kplay.apply(deployment);
    assert!(
        run.stderr.contains("replicas"),
        "what is ignored is said: {run}"
    );
    assert_eq!(run.succeeds(), "deployment.apps/api created\n");
    assert_eq!(kplay.phase("api-0"), "Running");
    for name in ["api-0", "deploy/api", "deployment/api", "api"] {
        // It is started again and again, and may have said nothing yet.
        crate::wait::until(&format!("the log of {name}"), || {
            let log = kplay.run(["logs", name, "-c", "main"]).succeeds();
            log.starts_with("hello from a deployment\n")
        });
    }
    assert_eq!(
        kplay.apply(deployment).succeeds(),
        "deployment.apps/api unchanged\n"
    );
    let file = kplay.dir().join("manifest.yaml");
    let file = file.to_str().expect("a readable path");
    let deleted = kplay.run(["delete", "-f", file]).succeeds();
    assert_eq!(deleted, "deployment.apps \"api\" deleted\n");
    kplay.assert_nothing_left();
}

fn job(args: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: task}}\nspec: {{backoffLimit: 0, \
         template: {{spec: {{restartPolicy: Never, containers: [{{name: main, \
         image: kplay.local/toolbox, args: {args}}}]}}}}}}\n"
    )
}

#[test]
fn a_job_that_succeeds() {
    let Some(kplay) = Kplay::new() else { return };
    let run = kplay.apply_with(&job("[print, done]"), ["--wait=complete"]);
    assert_eq!(run.succeeds(), "job.batch/task created\n");
    assert_eq!(kplay.phase("task-0"), "Succeeded");
    assert_eq!(kplay.run(["logs", "job/task"]).succeeds(), "done\n");
    kplay
        .run([
            "wait",
            "job/task",
            "--for=condition=Complete",
            "--timeout=10s",
        ])
        .succeeds();
    let pod = kplay.pod("task-0");
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["exitCode"], 0);
    assert_eq!(state["reason"], "Completed");
}

#[test]
fn a_job_stays_what_it_came_to_without_its_pod() {
    let Some(kplay) = Kplay::new() else { return };
    let job_status = || {
        let text = kplay.run(["get", "job", "task", "-o", "json"]).succeeds();
        let job: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        job["status"].clone()
    };
    let wait = |condition: &str| {
        let goal = format!("--for=condition={condition}");
        kplay.run(["wait", "job/task", &goal, "--timeout=10s"])
    };
    for (args, condition) in [("[print, done]", "Complete"), ("[exit, '3']", "Failed")] {
        // Which of them ends sooner, the command or the Job, does not matter.
        let run = kplay.apply(&job(args));
        assert!(matches!(run.code, Some(0 | 1)), "{run}");
        kplay.until_ended("task-0");
        let before = job_status();
        assert_eq!(before["conditions"][0]["type"], condition, "{before}");
        assert_eq!(
            before["completionTime"].is_string(),
            condition == "Complete"
        );
        kplay.run(["delete", "pod", "task-0"]).succeeds();
        assert_eq!(job_status(), before);
        let table = kplay.run(["get", "jobs"]).succeeds();
        assert!(table.contains(condition), "{table}");
        assert_eq!(wait(condition).succeeds(), "job.batch/task condition met\n");
        let other = if condition == "Failed" {
            "Complete"
        } else {
            "Failed"
        };
        wait(other).fails(5, &["job.batch/task has no pod"]);
        kplay
            .run(["logs", "job/task"])
            .fails(5, &["job.batch/task has no pod"]);
        // It is played again where it is applied again, and nothing is left of its end.
        let run = kplay.apply(&job("[sleep, infinity]"));
        assert_eq!(run.succeeds(), "job.batch/task configured\n");
        let again = job_status();
        assert_eq!(again["active"], 1, "{again}");
        assert!(again["conditions"].is_null(), "{again}");
        kplay.run(["delete", "job", "task", "--force"]).succeeds();
    }
}

#[test]
fn a_suspended_job_has_no_pod() {
    let Some(kplay) = Kplay::new() else { return };
    let job = |suspend: bool| {
        let suspended = format!("spec: {{suspend: {suspend}, ");
        job("[sleep, infinity]").replacen("spec: {", &suspended, 1)
    };
    let file = |suspend: bool| kplay.file("job.yaml", job(suspend));
    let apply = |suspend: bool| kplay.run(["apply".as_ref(), file(suspend).as_os_str()]);
    let pods = || kplay.run(["get", "pods", "-o", "name"]).stdout;
    let run = apply(true);
    assert!(run.stderr.contains("suspended"), "{run}");
    assert_eq!(run.succeeds(), "job.batch/task created\n");
    assert_eq!(pods(), "");
    let table = kplay.run(["get", "jobs"]).succeeds();
    assert!(table.contains("Suspended"), "{table}");
    assert_eq!(apply(false).succeeds(), "job.batch/task configured\n");
    assert_eq!(pods(), "pod/task-0\n");
    assert_eq!(kplay.phase("task-0"), "Running");
    let told = apply(true).succeeds();
    assert_eq!(told, "job.batch/task configured\npod \"task-0\" deleted\n");
    assert_eq!(pods(), "");
    let file = file(true);
    kplay.run(["delete".as_ref(), file.as_os_str()]).succeeds();
    kplay.assert_nothing_left();
}

#[test]
fn a_job_that_fails() {
    let Some(kplay) = Kplay::new() else { return };
    kplay
        .apply_with(&job("[exit, '3']"), ["--wait=complete"])
        .fails(1, &["task-0", "3"]);
    let pod = kplay.pod("task-0");
    assert_eq!(pod["status"]["phase"], "Failed");
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["exitCode"], 3);
    assert_eq!(state["reason"], "Error");
}

#[test]
fn a_wait_that_takes_too_long() {
    let Some(kplay) = Kplay::new() else { return };
    kplay
        .apply_with(&job("[sleep, '1000']"), ["--wait=complete", "--timeout=1s"])
        .fails(124, &["task-0"]);
}

#[test]
fn wait_for_ready_and_for_deletion() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.apply_with(WEB, ["--wait=ready"]).succeeds();
    kplay
        .run(["wait", "web", "--for=condition=Ready", "--timeout=10s"])
        .succeeds();
    let waiting = kplay
        .command(["wait", "web", "--for=delete", "--timeout=20s"])
        .spawn();
    kplay.run(["delete", "pod", "web"]).succeeds();
    let ended = waiting.wait_with_output().expect("our own child");
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn files_folders_and_standard_input() {
    let Some(kplay) = Kplay::new() else { return };
    let pod = |name: &str| WEB.replace("name: web,", &format!("name: {name},"));
    kplay.file("all/one.yaml", pod("one"));
    kplay.file("all/two.yml", pod("two"));
    kplay.file("all/readme.txt", "not a manifest: [");
    let three = kplay.file("three.yaml", pod("three"));
    let folder = kplay.dir().join("all");
    let run = kplay
        .command([
            "apply".as_ref(),
            folder.as_os_str(),
            "-f".as_ref(),
            three.as_os_str(),
            "-".as_ref(),
        ])
        .stdin(pod("four"))
        .run();
    kplay.note_pods();
    let created = run.succeeds();
    for name in ["one", "two", "three", "four"] {
        assert!(
            created.contains(&format!("pod/{name} created\n")),
            "{created}"
        );
    }
    let names = kplay.run(["get", "pods", "-o", "name"]).succeeds();
    assert_eq!(names, "pod/four\npod/one\npod/three\npod/two\n");
    kplay.run(["delete", "--all"]).succeeds();
    kplay.assert_nothing_left();
}

#[test]
fn a_dry_run_touches_nothing() {
    let Some(kplay) = Kplay::new() else { return };
    let out = kplay.apply_with(WEB, ["--dry-run"]).succeeds();
    assert!(out.starts_with("pod/web created (dry run)"), "{out}");
    kplay.run(["get", "pod", "web"]).fails(5, &[]);
    assert_eq!(kplay.files(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_this_call_made_is_undone_when_one_pod_does_not_start() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let good = script_pod("good", "", "", "sleep 1000");
    let bad = good
        .replace("name: good", "name: bad")
        .replace("[sh, -c, ", "[no-such-program, ");
    kplay
        .apply(&format!("{good}---\n{bad}"))
        .fails(1, &["bad", "no-such-program"]);
    assert_eq!(kplay.run(["get", "pods", "-o", "name"]).succeeds(), "");
    kplay.assert_nothing_left();
}

#[test]
fn what_ran_before_runs_again_when_its_successor_does_not_start() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let good = script_pod("web", "", "", "echo first; sleep 1000");
    kplay.apply(&good).succeeds();
    let bad = good.replace("[sh, -c, ", "[no-such-program, ");
    kplay.apply(&bad).fails(1, &["no-such-program"]);
    let pod = kplay.until("web", "runs again", |status| status["phase"] == "Running");
    assert_eq!(text(&pod["spec"]["containers"][0]["command"][0]), "sh");
    kplay.apply(&good).succeeds();
}

#[test]
fn nothing_is_stopped_before_the_new_images_are_there() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.apply(WEB).succeeds();
    let before = kplay.pod("web");
    let changed = WEB.replace(
        "image: kplay.local/toolbox",
        "image: localhost/none:1, imagePullPolicy: Never",
    );
    kplay
        .apply(&changed.replace(
            "image: localhost/none:1, imagePullPolicy",
            "image: localhost/none:1\n    imagePullPolicy",
        ))
        .fails(4, &["localhost/none:1"]);
    assert_eq!(
        kplay.pod("web")["metadata"]["uid"],
        before["metadata"]["uid"]
    );
    assert_eq!(kplay.phase("web"), "Running");
}

#[test]
fn namespaces_and_selectors() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.apply(WEB).succeeds();
    kplay.apply_with(WEB, ["-n", "other"]).succeeds();
    let all = kplay.run(["get", "pods", "-A", "--no-headers"]).succeeds();
    assert_eq!(all.lines().count(), 2, "{all}");
    let labelled = kplay
        .run(["get", "pods", "-l", "app=web", "-o", "name"])
        .succeeds();
    assert_eq!(labelled, "pod/web\n");
    let none = kplay
        .run(["get", "pods", "-l", "app!=web", "-o", "name"])
        .succeeds();
    assert_eq!(none, "");
    kplay
        .run(["delete", "pod", "web", "-n", "other"])
        .succeeds();
    assert_eq!(kplay.phase("web"), "Running");
}

#[test]
fn get_prints_a_real_pod() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.apply_with(WEB, ["--wait=ready"]).succeeds();
    let said = |format: &str| kplay.run(["get", "pod", "web", "-o", format]).succeeds();
    assert_eq!(said("jsonpath={.status.phase}"), "Running");
    let columns = said("custom-columns=POD:.metadata.name,NODE:.absent");
    assert_eq!(columns, "POD   NODE\nweb   <none>\n");
    let json = said("json");
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_str(&json).expect("a v1.Pod");
    assert_eq!(pod.metadata.name.as_deref(), Some("web"));
    assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
    let status = pod.status.expect("a status");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let conditions = status.conditions.expect("conditions");
    for name in [
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
        "Ready",
        "PodScheduled",
    ] {
        let condition = conditions.iter().find(|condition| condition.type_ == name);
        assert_eq!(condition.map(|c| c.status.as_str()), Some("True"), "{name}");
    }
    let containers = status.container_statuses.expect("containers");
    assert_eq!(containers.len(), 1);
    assert!(containers[0].ready && containers[0].restart_count == 0);
    assert!(
        containers[0]
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    );
    // Nothing in it that Kubernetes' own type would lose.
    let ours: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let mut theirs = serde_json::to_value(k8s_openapi::api::core::v1::Pod {
        status: Some(serde_json::from_value(ours["status"].clone()).expect("a v1.PodStatus")),
        ..serde_json::from_str(&json).expect("a v1.Pod")
    })
    .expect("JSON");
    theirs["status"]["hostIP"] = ours["status"]["hostIP"].clone();
    assert_eq!(without_null(theirs)["status"], without_null(ours)["status"]);
    let list = kplay.run(["get", "pods", "-o", "json"]).succeeds();
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list["kind"], "List");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let table = kplay.run(["get", "pods"]).succeeds();
    let mut lines = table.lines();
    let header: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(header, ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    let row: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(row[..4], ["web", "1/1", "Running", "0"]);
}

fn without_null(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_null(value)))
            .collect(),
        serde_json::Value::Array(items) => items.into_iter().map(without_null).collect(),
        other => other,
    }
}

#[test]
fn config_maps_alone_are_kept_for_later_pods() {
    let Some(kplay) = Kplay::new() else { return };
    let map =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {COLOUR: green}\n";
    let run = kplay.apply_with(&format!("{map}---\n{WEB}"), ["--timeout=30s"]);
    let out = run.succeeds();
    assert!(out.contains("configmap/settings created\n"), "{out}");
    let user = WEB.replace("name: web,", "name: user,").replace(
        "env: [{name: VALUE, value: one}]",
        "envFrom: [{configMapRef: {name: settings}}]",
    );
    kplay.apply(&user).succeeds();
    let env = kplay
        .run(["exec", "user", "--", "/toolbox", "env"])
        .succeeds();
    assert!(env.contains("COLOUR=green"), "{env}");
}

#[test]
fn a_grace_period_is_kept_and_can_be_cut() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    // The first process of a pid namespace ignores what it has no handler for.
    let deaf = script_pod(
        "deaf",
        "terminationGracePeriodSeconds: 600,",
        "",
        "exec sleep 1000",
    );
    kplay.apply(&deaf).succeeds();
    let start = std::time::Instant::now();
    kplay
        .run(["delete", "pod", "deaf", "--grace-period", "1"])
        .succeeds();
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(1),
        "SIGKILL came after {took:?}"
    );
    assert!(
        took < Duration::from_secs(20),
        "SIGKILL came after {took:?}"
    );
    kplay.apply(&deaf).succeeds();
    let start = std::time::Instant::now();
    kplay.run(["delete", "pod", "deaf", "--force"]).succeeds();
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn what_is_immutable_is_not_changed() {
    let Some(kplay) = Kplay::new() else { return };
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\nimmutable: true\ndata: {a: one}\n---\n";
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nimmutable: true\nstringData: {a: one}\n---\n";
    kplay.apply(&format!("{map}{secret}")).succeeds();
    kplay.apply(&format!("{map}{secret}")).succeeds();
    let words = "data: Forbidden: field is immutable when `immutable` is set";
    for object in [map, secret] {
        let changed = object.replace("one", "two");
        kplay
            .apply(&format!("{WEB}---\n{changed}"))
            .fails(3, &[words]);
    }
    kplay.run(["get", "pod", "web"]).fails(5, &["web"]);
    let value = kplay
        .run(["get", "cm", "conf", "-o", "jsonpath={.data.a}"])
        .succeeds();
    assert_eq!(value.trim(), "one");
    let thawed = map.replace("true", "false");
    kplay
        .apply(&thawed)
        .fails(3, &["immutable: Forbidden", "kplay delete configmap/conf"]);
    kplay.run(["delete", "configmap/conf"]).succeeds();
    kplay.apply(&thawed.replace("one", "two")).succeeds();
}
