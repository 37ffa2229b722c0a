//! postStart and preStop, and how a container is brought to its end: who is told what, in which order.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::Kplay;
use crate::harness::text;
use crate::wait;

/// What a pod's containers and hooks wrote into a file of the machine: `say WORDS` adds a line with its time.
#[derive(Debug)]
pub(crate) struct Diary {
    folder: PathBuf,
    file: PathBuf,
}

/// For scripts of pods with the volume of a [`Diary`].
const SAY: &str = "say() { echo \"$(cut -d' ' -f1 /proc/uptime) $*\" >> /v/diary; }; \
                   stay() { while :; do sleep 0.05; done; };";

impl Diary {
    pub(crate) fn new(kplay: &Kplay) -> Self {
        let file = kplay.file("shared/diary", "");
        Self {
            folder: kplay.dir().join("shared"),
            file,
        }
    }

    /// The pod's `volumes`.
    pub(crate) fn volumes(&self) -> String {
        let path = self.folder.display();
        format!("volumes: [{{name: v, hostPath: {{path: {path}}}}}]")
    }

    /// A container that runs a script, with more fields of it.
    pub(crate) fn container(&self, name: &str, fields: &str, script: &str) -> String {
        format!(
            "{{name: {name}, image: 'localhost/busybox:1', volumeMounts: [{{name: v, mountPath: /v}}], \
             {fields} command: {}}}",
            shell(script)
        )
    }

    /// The times in seconds and what was said, in order.
    pub(crate) fn lines(&self) -> Vec<(f64, String)> {
        let text = fs::read_to_string(&self.file).expect("the diary");
        let lines = text.lines().map(|line| {
            let (time, words) = line.split_once(' ').expect("a time and words");
            (time.parse().expect("seconds"), words.to_owned())
        });
        lines.collect()
    }

    pub(crate) fn words(&self) -> Vec<String> {
        self.lines().into_iter().map(|(_, words)| words).collect()
    }

    #[track_caller]
    pub(crate) fn until(&self, words: &str) {
        wait::until_in(&self.folder, words, || {
            self.words().iter().any(|w| w == words)
        });
    }

    fn time(&self, words: &str) -> f64 {
        let lines = self.lines();
        let found = lines.iter().find(|(_, said)| said == words);
        found.unwrap_or_else(|| panic!("no `{words}`: {lines:?}")).0
    }
}

/// `[sh, -c, SCRIPT]`
pub(crate) fn shell(script: &str) -> String {
    let script = serde_json::to_string(&format!("{SAY} {script}")).expect("a string");
    format!("[sh, -c, {script}]")
}

/// Ends a pod as a machine that shuts down does, so that its status stays.
fn end(kplay: &Kplay, pod: &str) -> Value {
    let executor = i32::try_from(kplay.executor(pod)).expect("a pid");
    let executor = rustix::process::Pid::from_raw(executor).expect("a pid");
    rustix::process::kill_process(executor, rustix::process::Signal::TERM).expect("it is there");
    kplay.until_ended(pod)["status"].clone()
}

fn exec(script: &str) -> String {
    format!("{{exec: {{command: {}}}}}", shell(script))
}

fn pod(name: &str, spec: &str, containers: &[String]) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{{spec}, containers: [{}]}}\n",
        containers.join(", ")
    )
}

fn events(kplay: &Kplay, pod: &str) -> Vec<(String, String)> {
    let list = kplay.run(["events", "--for", pod, "-o", "json"]).succeeds();
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let items = list["items"].as_array().expect("a list");
    let event = |event: &Value| (text(&event["reason"]), text(&event["message"]));
    items.iter().map(event).collect()
}

fn has(events: &[(String, String)], reason: &str, message: &str) -> bool {
    events.iter().any(|(r, m)| r == reason && m == message)
}

#[test]
fn the_next_container_waits_for_the_post_start_hook() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let hook = exec("say hook begins; until [ -e /v/go ]; do sleep 0.05; done; say hook ends");
    let manifest = pod(
        "serial",
        &format!("terminationGracePeriodSeconds: 1, {}", diary.volumes()),
        &[
            diary.container(
                "one",
                &format!("lifecycle: {{postStart: {hook}}},"),
                "trap 'exit 0' TERM; say one; stay",
            ),
            diary.container("two", "", "trap 'exit 0' TERM; say two; stay"),
        ],
    );
    let file = kplay.file("serial.yaml", manifest);
    let mut apply = kplay.command(["apply".as_ref(), file.as_os_str()]).spawn();
    diary.until("hook begins");
    // Beside the program itself.
    diary.until("one");
    let status = &kplay.pod("serial")["status"];
    for name in 0..2 {
        let state = &status["containerStatuses"][name]["state"];
        assert_eq!(state["waiting"]["reason"], "ContainerCreating", "{status}");
    }
    assert_eq!(status["phase"], "Pending");
    assert!(apply.try_wait().expect("a child").is_none(), "not started");
    kplay.file("shared/go", "");
    assert!(apply.wait().expect("a child").success());
    diary.until("two");
    let words = diary.words();
    let position = |words_: &str| words.iter().position(|w| w == words_);
    assert!(position("hook ends") < position("two"), "{words:?}");
    kplay.until("serial", "runs", |status| status["phase"] == "Running");
}

#[test]
fn a_failed_post_start_hook_ends_the_container_with_its_pre_stop_hook_and_grace() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let post_start = exec("until grep -q trapped /v/diary; do sleep 0.05; done; echo said; exit 3");
    let manifest = pod(
        "hooked",
        &format!("restartPolicy: Never, {}", diary.volumes()),
        &[
            diary.container(
                "one",
                &format!(
                    "lifecycle: {{postStart: {post_start}, preStop: {}}},",
                    exec("say pre-stop")
                ),
                "trap 'say term; exit 7' TERM; say trapped; stay",
            ),
            diary.container("two", "", "say two"),
        ],
    );
    kplay
        .apply(&manifest)
        .fails(1, &["PostStartHookError", "exited with 3", "said"]);
    let status = &kplay.until_ended("hooked")["status"];
    let end = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(end["exitCode"], 7, "{status}");
    assert_eq!(status["phase"], "Failed");
    // The next one is tried when this one has ended.
    assert_eq!(diary.words(), ["trapped", "pre-stop", "term", "two"]);
    let events = events(&kplay, "hooked");
    assert!(
        has(&events, "FailedPostStartHook", "PostStartHook failed"),
        "{events:?}"
    );
    assert!(has(&events, "Killing", "FailedPostStartHook"), "{events:?}");
}

#[test]
fn hooks_cannot_use_tcp_sockets() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let manifest = pod(
        "old",
        &format!(
            "restartPolicy: Never, terminationGracePeriodSeconds: 1, {}",
            diary.volumes()
        ),
        &[diary.container(
            "main",
            "lifecycle: {postStart: {tcpSocket: {port: 80}}},",
            "exec sleep 1000",
        )],
    );
    kplay.apply(&manifest).fails(1, &["invalid handler"]);
    let status = &kplay.until_ended("old")["status"];
    let end = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(end["exitCode"], 137, "{status}");
}

#[test]
fn hooks_make_requests() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let server = "{name: server, image: kplay.local/toolbox, restartPolicy: Always, args: [http, --port, '8080']}";
    let ready = "until wget -q -O /dev/null http://127.0.0.1:8080/ok; do sleep 0.05; done";
    // A name stands for a port of the container; the server ends when it is asked to.
    let lifecycle = "ports: [{name: web, containerPort: 8080}], lifecycle: \
                     {postStart: {httpGet: {path: /status/500, port: 8080}}, preStop: {httpGet: {path: /exit/7, port: web}}},";
    let manifest = pod(
        "asks",
        &format!(
            "restartPolicy: Never, {}, initContainers: [{server}, {}]",
            diary.volumes(),
            diary.container("ready", "", ready)
        ),
        &[diary.container("main", lifecycle, "trap 'exit 0' TERM; say up; stay")],
    );
    kplay.apply(&manifest).succeeds();
    diary.until("up");
    let status = end(&kplay, "asks");
    let server = &status["initContainerStatuses"][0]["state"]["terminated"];
    assert_eq!(server["exitCode"], 7, "{status}");
    kplay.run(["delete", "pod", "asks"]).succeeds();

    let manifest = pod(
        "refused",
        &format!("restartPolicy: Never, {}", diary.volumes()),
        &[diary.container(
            "main",
            "lifecycle: {postStart: {httpGet: {port: 9}}},",
            "trap 'exit 0' TERM; stay",
        )],
    );
    kplay
        .apply(&manifest)
        .fails(1, &["PostStartHookError", "connection refused"]);
}

#[test]
fn hooks_make_requests_over_tls_or_without_it() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let fallback = "request to HTTPS lifecycle hook got HTTP response, retry with HTTP succeeded";
    for (name, options) in [("tls", "--tls"), ("plain", "--unready")] {
        // The server is there when it is asked, and logs who asked for what.
        let server = format!(
            "{{name: server, image: kplay.local/toolbox, restartPolicy: Always, args: [http, {options}], \
             startupProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1, failureThreshold: 30}}}}"
        );
        let main = "{name: main, image: kplay.local/toolbox, args: [sleep, infinity], lifecycle: \
                    {postStart: {httpGet: {scheme: HTTPS, path: /healthz, port: 8080}}}}";
        let spec = format!("restartPolicy: Never, initContainers: [{server}]");
        kplay
            .apply(&pod(name, &spec, &[main.to_owned()]))
            .succeeds();
        kplay.until(name, "its hook has been run", |status| {
            status["containerStatuses"][0]["ready"] == true
        });
        let log = kplay.run(["logs", name, "-c", "server"]).succeeds();
        assert!(log.contains("GET /healthz 200 "), "{log}");
        let events = events(&kplay, name);
        let fell_back = has(&events, "LifecycleHTTPFallback", fallback);
        assert_eq!(fell_back, name == "plain", "{events:?}");
    }
}

#[test]
fn pre_stop_comes_before_the_stop_signal() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let manifest = pod(
        "polite",
        &diary.volumes(),
        &[
            diary.container(
                "exec",
                &format!("lifecycle: {{preStop: {}}},", exec("say hook; exit 3")),
                "trap 'say term; exit 0' TERM; say up; stay",
            ),
            diary.container(
                "sleep",
                "lifecycle: {preStop: {sleep: {seconds: 1}}},",
                "trap 'say term after sleep; exit 0' TERM; say up, too; stay",
            ),
        ],
    );
    kplay.apply(&manifest).succeeds();
    diary.until("up");
    diary.until("up, too");
    kplay.run(["delete", "pod", "polite"]).succeeds();
    let words = diary.words();
    assert_eq!(words[2..], ["hook", "term", "term after sleep"]);
    let slept = diary.time("term after sleep") - diary.time("hook");
    assert!(slept > 0.8, "{:?}", diary.lines());
}

#[test]
fn a_pre_stop_hook_is_not_waited_for_beyond_the_grace_period() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let manifest = pod(
        "slow",
        &format!(
            "restartPolicy: Never, terminationGracePeriodSeconds: 3, {}",
            diary.volumes()
        ),
        &[
            diary.container(
                "main",
                &format!("lifecycle: {{preStop: {}}},", exec("say hook; sleep 1000")),
                "trap 'say term' TERM; say up; stay",
            ),
            // Its hook fails, which is told and changes nothing else.
            diary.container(
                "other",
                &format!("lifecycle: {{preStop: {}}},", exec("exit 3")),
                "trap 'exit 0' TERM; say up; stay",
            ),
        ],
    );
    kplay.apply(&manifest).succeeds();
    wait::until_in(&diary.folder, "both are up", || diary.words().len() == 2);
    let status = end(&kplay, "slow");
    let end = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(end["exitCode"], 137, "{status}");
    assert_eq!(diary.words()[2..], ["hook", "term"]);
    let grace = diary.time("term") - diary.time("hook");
    assert!(grace > 0.8, "{:?}", diary.lines());
    let events = events(&kplay, "slow");
    assert!(
        has(&events, "FailedPreStopHook", "PreStopHook failed"),
        "{events:?}"
    );
}

#[test]
fn a_failed_probe_ends_the_container_with_its_pre_stop_hook_and_grace() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    for (probe, check) in [
        ("liveness", "test ! -e /v/dead"),
        ("startup", "test -e /v/startup-again"),
    ] {
        let fields = format!(
            "{probe}Probe: {{exec: {{command: [sh, -c, '{check}']}}, periodSeconds: 1, failureThreshold: 3}}, \
             lifecycle: {{preStop: {}}},",
            exec(&format!("say hook of {probe}"))
        );
        // The second run has what the first one lacks.
        let script = format!(
            "trap 'say term of {probe}; exit 0' TERM; rm -f /v/dead; \
             [ -e /v/{probe} ] && touch /v/{probe}-again; touch /v/{probe}; say {probe} is up; stay"
        );
        let spec = format!("restartPolicy: OnFailure, {}", diary.volumes());
        let main = diary.container("main", &fields, &script);
        kplay.apply(&pod(probe, &spec, &[main])).succeeds();
        let up = format!("{probe} is up");
        diary.until(&up);
        kplay.file("shared/dead", "");
        kplay.until(probe, "has started again", |status| {
            let main = &status["containerStatuses"][0];
            main["restartCount"] == 1 && main["started"] == true
        });
        wait::until_in(&diary.folder, "it is up again", || {
            diary.words().iter().filter(|word| **word == up).count() == 2
        });
        kplay.run(["delete", "pod", probe]).succeeds();
        let words = diary.words();
        let of_it: Vec<&String> = words.iter().filter(|word| word.contains(probe)).collect();
        let round = |word: &str| format!("{word} of {probe}");
        let (hook, term) = (round("hook"), round("term"));
        assert_eq!(of_it, [&up, &hook, &term, &up, &hook, &term], "{words:?}");
    }
}

#[test]
fn pre_stop_does_not_run_when_a_container_ends_by_itself() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let manifest = pod(
        "natural",
        &format!("restartPolicy: Never, {}", diary.volumes()),
        &[diary.container(
            "main",
            &format!("lifecycle: {{preStop: {}}},", exec("say hook")),
            "say end",
        )],
    );
    kplay.apply_with(&manifest, ["--wait=complete"]).succeeds();
    assert_eq!(diary.words(), ["end"]);
}

#[test]
fn hooks_of_sidecars_run_with_the_others_and_their_signals_come_in_reverse() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    // Every hook waits for all hooks: none would return if they ran one after another.
    let hook = exec("echo >> /v/hooks; until [ $(wc -l < /v/hooks) = 3 ]; do sleep 0.05; done");
    let member = |name: &str, rest: &str| {
        diary.container(
            name,
            &format!("{rest} lifecycle: {{preStop: {hook}}},"),
            &format!("trap 'sleep 0.2; say {name}; exit 0' TERM; say up; stay"),
        )
    };
    let manifest = pod(
        "party",
        &format!(
            "{}, initContainers: [{}, {}]",
            diary.volumes(),
            member("first", "restartPolicy: Always,"),
            member("second", "restartPolicy: Always,")
        ),
        &[member("main", "")],
    );
    kplay.apply(&manifest).succeeds();
    wait::until_in(&diary.folder, "all are up", || diary.words().len() == 3);
    kplay.run(["delete", "pod", "party"]).succeeds();
    assert_eq!(diary.words()[3..], ["main", "second", "first"]);
}

#[test]
fn the_manifests_stop_signal() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let manifest = pod(
        "signal",
        &format!(
            "os: {{name: linux}}, restartPolicy: Never, {}",
            diary.volumes()
        ),
        &[diary.container(
            "main",
            "lifecycle: {stopSignal: SIGUSR1},",
            "trap 'exit 5' USR1; say up; stay",
        )],
    );
    kplay.apply(&manifest).succeeds();
    diary.until("up");
    let status = end(&kplay, "signal");
    let container = &status["containerStatuses"][0];
    assert_eq!(container["state"]["terminated"]["exitCode"], 5, "{status}");
    assert_eq!(container["stopSignal"], "SIGUSR1");
}

#[test]
fn no_hook_outlives_its_pod() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let diary = Diary::new(&kplay);
    let manifest = pod(
        "stubborn",
        &format!("terminationGracePeriodSeconds: 1, {}", diary.volumes()),
        &[diary.container(
            "main",
            &format!(
                "lifecycle: {{preStop: {}}},",
                exec("say hook; trap '' TERM; stay")
            ),
            "trap '' TERM; say up; stay",
        )],
    );
    kplay.apply(&manifest).succeeds();
    diary.until("up");
    let mut delete = kplay.command(["delete", "pod", "stubborn"]).spawn();
    diary.until("hook");
    // Whoever cannot wait ends it now.
    kplay
        .run(["delete", "pod", "stubborn", "--force", "--ignore-not-found"])
        .succeeds();
    delete.wait().expect("a child");
    kplay.assert_nothing_left();
}
