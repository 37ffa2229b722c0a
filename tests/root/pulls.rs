//! Pulls that something goes wrong with: the registry, the connection, the command itself.

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::Kplay;
use crate::faulty::{Fault, FaultyRegistry};
use crate::fixtures::Registry;
use crate::harness::{Run, script_pod};
use crate::wait;

/// kplay, and a registry that does wrong.
struct Setup {
    kplay: Kplay,
    registry: Registry,
    faulty: FaultyRegistry,
}

impl Setup {
    fn new() -> Option<Self> {
        let kplay = Kplay::new()?;
        let registry = Registry::start();
        let faulty = FaultyRegistry::before(registry.port);
        Some(Self {
            kplay,
            registry,
            faulty,
        })
    }

    fn image(&self) -> String {
        format!("127.0.0.1:{}/test/busybox:gzip", self.faulty.port)
    }

    /// Digest and size of the image's only layer.
    fn layer(&self) -> (String, usize) {
        let layer = &self.registry.manifest("gzip")["layers"][0];
        let digest = layer["digest"].as_str().expect("a digest");
        let size = layer["size"].as_u64().expect("a size");
        (digest.to_owned(), size as usize)
    }

    fn pull(&self) -> Run {
        self.kplay.run(["pull", "-v", &self.image()])
    }

    fn spawn(&self) -> Child {
        self.kplay.command(["pull", &self.image()]).spawn()
    }

    /// What a pull has in the store before it is whole.
    fn unfinished(&self) -> Vec<PathBuf> {
        let folder = self.kplay.root().join("images/tmp");
        let entries = std::fs::read_dir(folder).expect("the store");
        entries.flatten().map(|entry| entry.path()).collect()
    }

    /// Nothing of an image, whole or half.
    #[track_caller]
    fn assert_empty(&self) {
        assert_eq!(self.unfinished(), Vec::<PathBuf>::new());
        for folder in ["layers", "images", "references"] {
            let path = self.kplay.root().join("images").join(folder);
            let entries = std::fs::read_dir(path).expect("the store");
            assert_eq!(entries.count(), 0, "{folder}");
        }
    }

    /// The image is there and runs.
    #[track_caller]
    fn assert_good(&self) {
        let pod = script_pod("image", "", "imagePullPolicy: Never,", "echo runs");
        let pod = pod.replace("localhost/busybox:1", &self.image());
        self.kplay.apply_with(&pod, ["--wait=complete"]).succeeds();
        assert_eq!(self.kplay.run(["logs", "image"]).succeeds(), "runs\n");
        self.kplay.run(["delete", "pod", "image"]).succeeds();
        assert_eq!(self.unfinished(), Vec::<PathBuf>::new());
    }
}

pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = i32::try_from(child.id()).expect("a pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("our own child");
}

#[track_caller]
pub(crate) fn ended(mut child: Child) -> Option<i32> {
    assert!(wait::ended(child.id(), wait::PATIENCE), "it goes on");
    child.wait().expect("our own child").code()
}

#[test]
fn what_passes_is_said_and_overcome() {
    let Some(setup) = Setup::new() else { return };
    let (layer, size) = setup.layer();
    let plan = |path: &str, times, fault| setup.faulty.plan(path, times, fault);
    plan("manifests/gzip", 1, Fault::Busy(503, "0"));
    plan("manifests/gzip", 1, Fault::HangUp);
    plan(&layer, 1, Fault::Busy(429, "1"));
    plan(&layer, 1, Fault::Cut(size / 3));
    plan(&layer, 1, Fault::HangUp);
    plan(&layer, 1, Fault::Shorten(size / 4));
    let start = Instant::now();
    let run = setup.pull();
    let said = run.stderr.clone();
    run.succeeds();
    assert!(start.elapsed() > Duration::from_secs(1), "{said}");
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("; again in"))
        .collect();
    assert_eq!(lines.len(), 6, "{said}");
    assert!(lines[0].contains("status 503"), "{said}");
    assert!(lines[2].contains("wants fewer requests") && lines[2].ends_with("again in 1.0 s"));
    assert!(lines[3].contains("broke"), "{said}");
    assert!(lines[5].contains("ends after"), "{said}");
    let third = size / 3;
    let log = setup.faulty.log(&layer);
    assert_eq!(log.len(), 5, "{log:?}");
    assert!(log[2].ends_with(&format!("bytes={third}-")), "{log:?}");
    assert!(log[3].ends_with(&format!("bytes={third}-")), "{log:?}");
    assert!(
        log[4].ends_with(&format!("bytes={}-", third + size / 4)),
        "{log:?}"
    );
    setup.assert_good();
}

#[test]
fn a_registry_without_ranges_is_asked_for_all_again() {
    let Some(setup) = Setup::new() else { return };
    let (layer, size) = setup.layer();
    setup.faulty.ignore_ranges();
    setup.faulty.plan(&layer, 2, Fault::Cut(size / 2));
    setup.faulty.plan(&layer, 1, Fault::Cut(size / 2 + 100));
    setup.pull().succeeds();
    setup.assert_good();
}

#[test]
fn a_registry_that_goes_silent_is_asked_again() {
    let Some(setup) = Setup::new() else { return };
    let (layer, _) = setup.layer();
    setup.faulty.plan(&layer, 1, Fault::Stall(100_000));
    let run = setup.pull();
    let said = run.stderr.clone();
    run.succeeds();
    assert!(said.contains("bytes of its answer in 20 s"), "{said}");
    assert!(setup.faulty.log(&layer)[1].ends_with("bytes=100000-"));
    setup.assert_good();
}

#[test]
fn what_does_not_pass_is_an_error_that_leaves_nothing() {
    let Some(setup) = Setup::new() else { return };
    let (layer, size) = setup.layer();
    let check = |path: &str, times, fault, words: &[&str]| {
        setup.faulty.plan(path, times, fault);
        setup.pull().fails(4, words);
        setup.assert_empty();
    };
    check(
        &layer,
        1,
        Fault::Garble,
        &["its content has the digest sha256:"],
    );
    check(
        &layer,
        1,
        Fault::Endless,
        &["has more than", &size.to_string()],
    );
    check(
        "manifests/gzip",
        1,
        Fault::Endless,
        &["more than 4194304 bytes"],
    );
    check(
        &layer,
        1,
        Fault::Busy(429, "7200"),
        &["to be asked again in 7200 s"],
    );
    check(&layer, 1, Fault::Busy(403, ""), &["refuses access"]);
    check(&layer, 1, Fault::Busy(404, ""), &["does not have the blob"]);
    // One request each, and then another time it goes well.
    assert_eq!(setup.faulty.log(&layer).len(), 5);
    setup.pull().succeeds();
    setup.assert_good();
}

#[test]
fn a_pull_that_is_ended_leaves_nothing() {
    use rustix::process::Signal;
    let Some(setup) = Setup::new() else { return };
    let (layer, size) = setup.layer();
    for (number, end) in [(2, Signal::INT), (15, Signal::TERM)] {
        let stalled = setup.faulty.log(&layer).len() + 1;
        setup.faulty.plan(&layer, 1, Fault::Stall(size / 2));
        let pull = setup.spawn();
        setup.faulty.until_stalled(stalled);
        wait::until("it unpacks", || !setup.unfinished().is_empty());
        signal(&pull, end);
        assert_eq!(ended(pull), Some(128 + number));
        setup.assert_empty();
    }
    // What is killed cannot clean up: the next command does, while another one pulls.
    setup.faulty.plan(&layer, 2, Fault::Stall(size / 2));
    let killed = setup.spawn();
    setup.faulty.until_stalled(3);
    wait::until("it unpacks", || setup.unfinished().len() == 1);
    let debris = setup.unfinished();
    signal(&killed, Signal::KILL);
    assert_eq!(ended(killed), None);
    assert_eq!(setup.unfinished(), debris);
    let pull = setup.spawn();
    setup.faulty.until_stalled(4);
    wait::until("it unpacks", || setup.unfinished() != debris);
    assert_eq!(setup.unfinished().len(), 1, "{:?}", setup.unfinished());
    setup.kplay.run(["images"]).succeeds();
    assert_eq!(setup.unfinished().len(), 1, "what is at work stays");
    signal(&pull, Signal::INT);
    assert_eq!(ended(pull), Some(130));
    setup.assert_empty();
}

#[test]
fn who_waits_for_another_command_takes_over_when_it_dies() {
    use rustix::process::Signal;
    let Some(setup) = Setup::new() else { return };
    let (layer, size) = setup.layer();
    setup.faulty.plan(&layer, 1, Fault::Stall(size / 2));
    let first = setup.spawn();
    setup.faulty.until_stalled(1);
    let waits = |child: &Child| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("a process");
        tasks.flatten().any(|task| {
            let name = std::fs::read_to_string(task.path().join("comm"));
            name.is_ok_and(|name| name == "claim\n")
        })
    };
    let (second, third) = (setup.spawn(), setup.spawn());
    wait::until("they wait for the layer", || {
        waits(&second) && waits(&third)
    });
    assert_eq!(setup.faulty.log(&layer).len(), 1);
    // Who waits can be ended, too.
    signal(&third, Signal::INT);
    assert_eq!(ended(third), Some(130));
    signal(&first, Signal::KILL);
    assert_eq!(ended(first), None);
    assert_eq!(ended(second), Some(0));
    assert_eq!(setup.faulty.log(&layer).len(), 2);
    setup.kplay.run(["images"]).succeeds();
    setup.assert_good();
}

#[test]
fn another_place_goes_on_where_one_breaks() {
    let Some(setup) = Setup::new() else { return };
    let (layer, size) = setup.layer();
    setup.faulty.plan(&layer, 1, Fault::Cut(size / 5));
    setup.faulty.plan(&layer, 9, Fault::HangUp);
    let other = FaultyRegistry::before(setup.registry.port);
    let text = format!(
        "[[registry]]\nprefix = 'example.test'\nlocation = '127.0.0.1:{}'\n\
         [[registry.mirror]]\nlocation = '127.0.0.1:{}'\n",
        other.port, setup.faulty.port
    );
    let conf = setup.kplay.file("registries.conf", text);
    let pull = setup
        .kplay
        .command(["pull", "-v", "example.test/test/busybox:gzip"]);
    let run = pull.env("CONTAINERS_REGISTRIES_CONF", conf).run();
    let said = run.stderr.clone();
    run.succeeds();
    assert!(said.contains("the next place is asked"), "{said}");
    let log = other.log(&layer);
    assert!(log.len() == 1 && log[0].contains(" bytes="), "{log:?}");
}

#[test]
fn elsewhere_than_on_a_terminal_an_image_is_one_line() {
    let Some(setup) = Setup::new() else { return };
    let (layer, _) = setup.layer();
    setup.faulty.plan(&layer, 1, Fault::Slow(20));
    let run = setup.kplay.run(["pull", &setup.image()]);
    assert_eq!(run.stderr, format!("pulled {}\n", setup.image()));
    let id = run.succeeds();
    assert!(id.starts_with("sha256:"), "{id}");
    let quiet = setup.kplay.run(["pull", "-q", &setup.image()]);
    assert_eq!(
        (quiet.stderr.as_str(), quiet.stdout.as_str()),
        ("", id.as_str())
    );
    quiet.succeeds();
}

#[test]
fn pods_tell_of_their_pulls_as_the_kubelet_does() {
    let Some(setup) = Setup::new() else { return };
    let image = setup.image();
    let manifest = setup.registry.manifest("gzip");
    let size = |of: &serde_json::Value| of["size"].as_u64().expect("a size");
    let size = size(&manifest["layers"][0]) + size(&manifest["config"]);
    for (pod, policy) in [
        ("first", "Always"),
        ("again", "Always"),
        ("there", "IfNotPresent"),
    ] {
        let policy = format!("imagePullPolicy: {policy},");
        let manifest = script_pod(pod, "", &policy, "true").replace("localhost/busybox:1", &image);
        setup
            .kplay
            .apply_with(&manifest, ["--wait=complete"])
            .succeeds();
        let events = setup
            .kplay
            .run(["events", "--for", &format!("pod/{pod}"), "-o", "json"]);
        let events = events.succeeds();
        let events: serde_json::Value = serde_json::from_str(&events).expect("JSON");
        let messages: Vec<&str> = events["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|event| event["reason"] == "Pulling" || event["reason"] == "Pulled")
            .filter_map(|event| event["message"].as_str())
            .collect();
        if pod == "there" {
            let there = format!("Container image \"{image}\" already present on machine");
            assert_eq!(messages, [there]);
            continue;
        }
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert_eq!(messages[0], format!("Pulling image \"{image}\""));
        let start = format!("Successfully pulled image \"{image}\" in ");
        let end = format!(" including waiting). Image size: {size} bytes.");
        assert!(
            messages[1].starts_with(&start) && messages[1].ends_with(&end),
            "{messages:?}"
        );
    }
}
