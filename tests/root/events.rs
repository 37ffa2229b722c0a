//! What happens to pods, as `events`, `get events`, `describe` and `--events-file` tell it.

use std::fs;
use std::io::{BufRead as _, BufReader};

use serde_json::Value;

use crate::Kplay;
use crate::harness::{script_pod, text};
use crate::wait;

fn of_pod(kplay: &Kplay, pod: &str) -> Vec<Value> {
    let list = kplay.run(["events", "--for", pod, "-o", "json"]).succeeds();
    let list: Value = serde_json::from_str(&list).expect("JSON");
    list["items"].as_array().expect("a list").clone()
}

fn reasons(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| text(&event["reason"])).collect()
}

#[test]
fn a_life_in_events() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "life",
        "initContainers: [{name: setup, image: 'localhost/busybox:1', command: ['true']}],",
        "",
        "true",
    );
    let file = kplay.dir().join("events.jsonl");
    let path = file.to_str().expect("a readable path");
    kplay
        .apply_with(&pod, ["--wait=complete", "--events-file", path])
        .succeeds();
    let events = of_pod(&kplay, "life");
    assert_eq!(
        reasons(&events),
        [
            "Pulled", "Created", "Started", "Pulled", "Created", "Started"
        ]
    );
    let uid = text(&kplay.pod("life")["metadata"]["uid"]);
    let paths = ["spec.initContainers{setup}", "spec.containers{main}"];
    for (event, path) in events
        .iter()
        .zip([paths[0]; 3].into_iter().chain([paths[1]; 3]))
    {
        assert_eq!(event["involvedObject"]["uid"], uid.as_str());
        assert_eq!(event["involvedObject"]["fieldPath"], path);
        assert_eq!(
            (&event["count"], &event["type"]),
            (&1.into(), &"Normal".into())
        );
    }
    assert_eq!(events[4]["message"], "Created container: main");
    assert_eq!(events[5]["message"], "Started container main");
    let table = kplay.run(["events", "--for", "pod/life"]).succeeds();
    let mut lines = table.lines().map(|line| line.split_whitespace());
    let words = |line: Option<std::str::SplitWhitespace<'_>>| -> Vec<String> {
        line.into_iter().flatten().map(str::to_owned).collect()
    };
    assert_eq!(
        words(lines.next()).join(" "),
        "LAST SEEN TYPE REASON OBJECT MESSAGE"
    );
    assert_eq!(
        words(lines.nth(5))[1..].join(" "),
        "Normal Started Pod/life Started container main"
    );
    let described = kplay.run(["describe", "pod", "life"]).succeeds();
    let section = described.split("Events:\n").nth(1).expect("events");
    assert!(section.contains("Created container: main"), "{section}");
    let lines = fs::read_to_string(&file).expect("the events' file");
    let told: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("one object per line"))
        .collect();
    let names: Vec<String> = told.iter().map(|line| text(&line["event"])).collect();
    assert_eq!(names.first().map(String::as_str), Some("PodStarting"));
    assert!(names.contains(&"PodReached".to_owned()), "{names:?}");
    let started = told
        .iter()
        .filter(|line| line["event"] == "PodEvent" && line["reason"] == "Started");
    assert_eq!(started.count(), 2);
    // They are the pod's, and go with it.
    kplay.run(["delete", "pod", "life"]).succeeds();
    kplay.assert_nothing_left();
}

#[test]
fn what_happens_again_is_counted() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod("again", "", "", "exit 1").replace("Never", "Always");
    assert!(matches!(kplay.apply(&pod).code, Some(0 | 1)));
    kplay.until("again", "waits for its second restart", |status| {
        status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    let events = of_pod(&kplay, "again");
    let find = |reason: &str| {
        let found = events.iter().find(|event| event["reason"] == reason);
        found.unwrap_or_else(|| panic!("no {reason}: {:?}", reasons(&events)))
    };
    assert_eq!(find("Started")["count"], 2);
    let back_off = find("BackOff");
    assert_eq!(back_off["type"], "Warning");
    let uid = text(&kplay.pod("again")["metadata"]["uid"]);
    assert_eq!(
        back_off["message"],
        format!("Back-off restarting failed container main in pod again_default({uid})")
    );
    let table = kplay.run(["events"]).succeeds();
    assert!(table.contains("(x2 over "), "{table}");
    let described = kplay.run(["describe", "pod", "again"]).succeeds();
    assert!(described.contains("(x2 over "), "{described}");
    let warnings = kplay.run(["events", "--types=Warning", "--no-headers"]);
    assert_eq!(warnings.succeeds().lines().count(), 1);
    let wide = kplay.run(["get", "events", "-o", "wide"]).succeeds();
    assert!(wide.contains("spec.containers{main}"), "{wide}");
}

#[test]
fn events_are_watched_as_they_happen() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay.run(["get", "pods"]).succeeds();
    let mut watching = kplay.command(["events", "-w"]).spawn();
    let mut lines = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
    let stay = "terminationGracePeriodSeconds: 1,";
    kplay
        .apply(&script_pod(
            "seen",
            stay,
            "",
            "trap 'exit 0' TERM; sleep 1000 & wait",
        ))
        .succeeds();
    let mut until = |what: &str| {
        let found = lines
            .by_ref()
            .map(|line| line.expect("text"))
            .find(|line| line.contains(what));
        assert!(found.is_some(), "the watch ended before: {what}");
    };
    until("Started container main");
    kplay.run(["delete", "pod", "seen"]).succeeds();
    // The same pod again is another one.
    kplay
        .apply(&script_pod(
            "seen",
            stay,
            "",
            "trap 'exit 0' TERM; sleep 1000 & wait",
        ))
        .succeeds();
    until("Started container main");
    let pid = rustix::process::Pid::from_child(&watching);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our own child");
    assert!(wait::ended(watching.id(), wait::PATIENCE));
    assert_eq!(watching.wait().expect("our own child").code(), Some(130));
    kplay
        .run(["events", "--for", "absent"])
        .fails(5, &["absent"]);
}

/// Nothing is started, and nothing recorded, before all images are there: so there is no pod that could have events. Who
/// applies learns it, and a pod that was to be replaced does not.
#[test]
fn images_that_cannot_be_had_are_the_commands_events() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let stays = script_pod("web", "terminationGracePeriodSeconds: 0,", "", "sleep 1000");
    kplay.apply(&stays).succeeds();
    let before = reasons(&of_pod(&kplay, "web"));
    let uid = text(&kplay.pod("web")["metadata"]["uid"]);
    let nobody = format!("127.0.0.1:{}/web:2", crate::harness::free_port());
    let file = kplay.dir().join("events.jsonl");
    let path = file.to_str().expect("a readable path");
    let check = |pod: &str, image: &str, policy: &str, expected: &[(&str, &str)]| {
        let manifest = stays
            .replace("{name: web}", &format!("{{name: {pod}}}"))
            .replace(
                "\"localhost/busybox:1\",",
                &format!("{image:?}, imagePullPolicy: {policy},"),
            );
        let (_, reason) = expected.last().expect("an event");
        let failed = kplay.apply_with(&manifest, ["--events-file", path]);
        failed.fails(
            4,
            &[
                &format!("for container `main` of the pod `default/{pod}`"),
                reason,
            ],
        );
        let lines = fs::read_to_string(&file).expect("the events' file");
        fs::remove_file(&file).expect("removable");
        let told: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("one object per line"))
            .collect();
        let found: Vec<(&str, &str)> = told
            .iter()
            .map(|line| (&line["event"], &line["reason"]))
            .map(|(event, reason)| (event.as_str().unwrap_or(""), reason.as_str().unwrap_or("")))
            .collect();
        assert_eq!(found, expected);
        let last = told.last().expect("an event");
        assert_eq!(last["image"], image, "{last}");
        last["message"].as_str().expect("a message").to_owned()
    };
    let pulled = [("ImagePulling", ""), ("ImageFailed", "ErrImagePull")];
    let message = check("new", &nobody, "Always", &pulled);
    assert!(message.contains("refused"), "{message}");
    let never = [("ImageFailed", "ErrImageNeverPull")];
    check("new", "localhost/absent:1", "Never", &never);
    kplay
        .run(["describe", "pod", "new"])
        .fails(5, &["not found"]);
    let all = kplay.run(["events", "--no-headers"]).succeeds();
    assert!(!all.contains("Pod/new"), "{all}");
    // The pod that is there goes on as it was.
    check("web", &nobody, "Always", &pulled);
    assert_eq!(reasons(&of_pod(&kplay, "web")), before);
    assert_eq!(text(&kplay.pod("web")["metadata"]["uid"]), uid);
}
