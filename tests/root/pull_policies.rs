//! Pull policies of containers that start again, when the command that started their pod is gone.

use serde_json::Value;

use crate::Kplay;
use crate::fixtures::Registry;
use crate::harness::{container, script_pod, text};

/// A pod that runs until it is killed, and is restarted then.
fn pod(name: &str, image: &str, policy: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 0, \
         containers: [{{name: main, image: \"{image}\", imagePullPolicy: {policy}, command: [sleep, '1000']}}]}}\n"
    )
}

/// Ends the run that goes on, and waits until what comes after it satisfies `condition`.
#[track_caller]
fn after_end(kplay: &Kplay, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let pid = kplay.pids(name, "main")[0];
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    let found = kplay.until(name, what, |status| condition(container(status, "main")));
    container(&found["status"], "main").clone()
}

fn runs_again(status: &Value) -> bool {
    status["restartCount"] == 1 && status["state"]["running"].is_object()
}

fn waits_for(reason: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["state"]["waiting"]["reason"] == reason
}

fn image_id(kplay: &Kplay, name: &str) -> String {
    text(&container(&kplay.pod(name)["status"], "main")["imageID"])
}

#[test]
fn a_container_that_starts_again_gets_the_newest_image() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    registry.tag("gzip", "moving");
    let image = registry.image("moving");
    kplay.apply(&pod("new", &image, "Always")).succeeds();
    kplay.apply(&pod("old", &image, "IfNotPresent")).succeeds();
    let before = image_id(&kplay, "new");
    registry.tag_with("gzip", "moving", |config| {
        config["Labels"]["label"] = "new".into();
    });
    let restarted = after_end(&kplay, "new", "runs again", runs_again);
    let after = text(&restarted["imageID"]);
    assert_ne!(after, before);
    kplay.run(["exec", "new", "--", "true"]).succeeds();
    let events = kplay.run(["get", "events"]).succeeds();
    assert!(events.contains("Pulling image"), "{events}");
    let restarted = after_end(&kplay, "old", "runs again", runs_again);
    assert_eq!(text(&restarted["imageID"]), before);
    // Both are used, each by its pod.
    kplay
        .run(["rmi", &image])
        .fails(4, &["used by", "default/new"]);
    let id = before.trim_start_matches("sha256:");
    kplay.run(["rmi", id]).fails(4, &["used by"]);
    kplay.run(["delete", "pod", "new"]).succeeds();
    kplay.run(["rmi", &image]).succeeds();
}

#[test]
fn an_image_that_cannot_be_had_is_waited_for() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let image = registry.image("gzip");
    for (name, policy) in [("always", "Always"), ("here", "IfNotPresent")] {
        kplay.apply(&pod(name, &image, policy)).succeeds();
    }
    let offline = pod("offline", &image, "Always");
    let offline = kplay.file("offline.yaml", offline);
    kplay
        .run(["--offline".into(), "apply".into(), offline.into_os_string()])
        .succeeds();
    drop(registry);
    let failed = after_end(&kplay, "always", "has no image", waits_for("ErrImagePull"));
    let message = text(&failed["state"]["waiting"]["message"]);
    assert!(
        message.contains("cannot connect to the registry"),
        "{message}"
    );
    let events = kplay.run(["get", "events"]).succeeds();
    for words in ["Failed to pull image", "Error: ErrImagePull"] {
        assert!(events.contains(words), "{events}");
    }
    after_end(&kplay, "here", "runs again", runs_again);
    after_end(&kplay, "offline", "runs again", runs_again);
}

#[test]
fn a_name_that_means_nothing_any_more_is_called_so() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let search = |rest: &str| {
        let own = registry.port;
        let text = format!("unqualified-search-registries = [\"127.0.0.1:{own}\"{rest}]\n");
        let text = format!("short-name-mode = \"enforcing\"\n{text}");
        kplay.file("registries.conf", text)
    };
    let conf = search("");
    let file = kplay.file("pod.yaml", pod("short", "test/busybox:gzip", "Always"));
    let apply = || {
        let call = kplay.command(["apply".into(), file.clone().into_os_string()]);
        call.env("CONTAINERS_REGISTRIES_CONF", &conf).run()
    };
    apply().succeeds();
    search(", \"other.invalid\"");
    let waits = waits_for("InvalidImageName");
    let failed = after_end(&kplay, "short", "has no image", waits);
    let message = text(&failed["state"]["waiting"]["message"]);
    assert!(message.contains("`test/busybox` can mean"), "{message}");
    let events = kplay.run(["get", "events"]).succeeds();
    for words in ["InspectFailed", "Error: InvalidImageName"] {
        assert!(events.contains(words), "{events}");
    }
    search("");
    kplay.until("short", "runs again", |status| {
        runs_again(container(status, "main"))
    });
    kplay.run(["delete", "pod", "short"]).succeeds();
    // Before anything is started, too.
    search(", \"other.invalid\"");
    apply().fails(4, &["InvalidImageName", "can mean"]);
}

#[test]
fn without_a_network_what_is_missing_is_named() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let image = registry.image("gzip");
    let remedy = ["--offline", "load", image.as_str()];
    kplay.run(["--offline", "pull", &image]).fails(4, &remedy);
    let file = kplay.file("offline.yaml", pod("offline", &image, "Always"));
    let apply = || {
        let file = file.clone().into_os_string();
        kplay.run(["--offline".into(), "apply".into(), file])
    };
    apply().fails(4, &remedy);
    kplay.run(["pull", &image]).succeeds();
    apply().succeeds();
}

#[test]
fn an_image_that_was_removed_by_force_is_pulled_or_missed() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let image = registry.image("gzip");
    kplay.run(["pull", &image]).succeeds();
    for (name, policy) in [("never", "Never"), ("missing", "IfNotPresent")] {
        kplay.apply(&pod(name, &image, policy)).succeeds();
    }
    kplay.run(["rmi", "--force", &image]).succeeds();
    let never = waits_for("ErrImageNeverPull");
    let failed = after_end(&kplay, "never", "has no image", never);
    assert_eq!(
        text(&failed["state"]["waiting"]["message"]),
        format!("Container image \"{image}\" is not present with pull policy of Never")
    );
    let events = kplay.run(["get", "events"]).succeeds();
    assert!(events.contains("Error: ErrImageNeverPull"), "{events}");
    after_end(&kplay, "missing", "runs again", runs_again);
    // What it got is its own again.
    kplay
        .run(["rmi", &image])
        .fails(4, &["used by", "default/missing"]);
}

#[test]
fn a_pod_is_not_kept_from_its_end_by_a_pull() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let image = registry.image("gzip");
    kplay.apply(&pod("ends", &image, "Always")).succeeds();
    let port = registry.port;
    drop(registry);
    // Who listens and says nothing is waited for.
    let silent = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the registry's port");
    let pid = kplay.pids("ends", "main")[0];
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    let (connection, _) = silent.accept().expect("the registry is asked");
    kplay.run(["delete", "pod", "ends"]).succeeds();
    drop(connection);
}

#[test]
fn what_an_image_calls_volumes_can_be_written_to() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    registry.tag_with("gzip", "volumes", |config| {
        config["Volumes"] =
            serde_json::json!({ "/srv/work": {}, "/made/here": {}, "/etc": {}, "/home/app": {} });
        config["Healthcheck"] = serde_json::json!({ "Test": ["CMD", "true"] });
    });
    let image = registry.image("volumes");
    let script = "set -e; grep -q root /etc/passwd; touch /etc/mine /srv/work/mine /made/here/mine; \
                  test -e /home/app/given; touch /home/app/mine; if touch /bin/mine 2> /dev/null; then exit 3; fi; echo fine";
    let pod = |name: &str, pod: &str| {
        script_pod(
            name,
            &format!("volumes: [{{name: own, emptyDir: {{}}}}], {pod}initContainers: [{{name: give, image: \"{image}\", \
                      command: [touch, /own/given], volumeMounts: [{{name: own, mountPath: /own}}]}}],"),
            "securityContext: {readOnlyRootFilesystem: true}, volumeMounts: [{name: own, mountPath: /home/app}],",
            script,
        )
        .replace("localhost/busybox:1", &image)
    };
    let said = kplay.apply_with(&pod("volumes", ""), ["--wait=complete", "-v"]);
    assert!(said.stderr.contains("HEALTHCHECK"), "{said}");
    said.succeeds();
    assert_eq!(
        kplay.run(["logs", "volumes", "-c", "main"]).succeeds(),
        "fine\n"
    );
    // Each run begins with what the image has, and a pod with users of its own as well.
    kplay
        .apply_with(&pod("users", "hostUsers: false, "), ["--wait=complete"])
        .succeeds();
    assert_eq!(
        kplay.run(["logs", "users", "-c", "main"]).succeeds(),
        "fine\n"
    );
}
