//! Probes on real pods: who is ready, who is started, and who is killed for it.

use serde_json::Value;

use crate::Kplay;
use crate::harness::{container, free_port, text};

/// A pod of one container `main` that runs `script` in busybox; `probes` are fields of the container.
fn pod(name: &str, policy: &str, probes: &str, script: &str) -> String {
    let script = serde_json::to_string(script).expect("a string");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  \
         terminationGracePeriodSeconds: 20\n  containers:\n  - name: main\n    image: localhost/busybox:1\n    \
         command: [sh, -c, {script}]\n{probes}"
    )
}

/// Stays until SIGTERM, then ends with 0.
const STAY: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

fn condition<'a>(status: &'a Value, name: &str) -> &'a Value {
    let conditions = status["conditions"].as_array().expect("conditions");
    let found = conditions.iter().find(|one| one["type"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {status}"))
}

fn is_ready(status: &Value) -> bool {
    condition(status, "Ready")["status"] == "True"
}

/// Waits until these texts are in the pod's description, where `POD_IP` is its address.
#[track_caller]
fn until_described(kplay: &Kplay, pod: &str, texts: &[&str]) -> String {
    let ip = text(&kplay.pod(pod)["status"]["podIP"]);
    let texts = texts.iter().map(|text| text.replace("POD_IP", &ip));
    let texts: Vec<String> = texts.collect();
    let mut description = String::new();
    crate::wait::until(&format!("{pod} is described with {texts:?}"), || {
        description = kplay.run(["describe", "pod", pod]).succeeds();
        texts.iter().all(|text| description.contains(text))
    });
    description
}

#[test]
fn readiness_follows_its_probe() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let probe = "    readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1, successThreshold: 1, failureThreshold: 1}\n";
    kplay.apply(&pod("web", "Always", probe, STAY)).succeeds();
    let status = kplay.pod("web")["status"].clone();
    assert_eq!(status["phase"], "Running");
    let main = container(&status, "main");
    assert_eq!(
        (&main["started"], &main["ready"]),
        (&true.into(), &false.into())
    );
    for name in ["Ready", "ContainersReady"] {
        let ready = condition(&status, name);
        assert_eq!(ready["status"], "False");
        assert_eq!(ready["reason"], "ContainersNotReady");
        assert_eq!(ready["message"], "containers with unready status: [main]");
    }
    let table = kplay.run(["get", "pods"]).succeeds();
    assert!(table.contains("0/1"), "{table}");
    // The message ends with what the command printed.
    until_described(
        &kplay,
        "web",
        &[
            "Unhealthy",
            "Readiness probe failed: cat: can't open '/tmp/ready': No such file or directory",
        ],
    );
    kplay.shell("web", "touch /tmp/ready");
    kplay
        .run(["wait", "pod/web", "--for=condition=Ready"])
        .succeeds();
    let table = kplay.run(["get", "pods"]).succeeds();
    assert!(table.contains("1/1"), "{table}");
    assert_eq!(
        container(&kplay.pod("web")["status"], "main")["ready"],
        true
    );
    kplay.shell("web", "rm /tmp/ready");
    let pod = kplay.until("web", "is not ready any more", |status| !is_ready(status));
    // Nothing was restarted for it.
    let main = container(&pod["status"], "main");
    assert_eq!(
        (&main["restartCount"], &main["started"]),
        (&0.into(), &true.into())
    );
}

#[test]
fn apply_waits_for_readiness() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let probe = "    readinessProbe: {exec: {command: [test, -f, /tmp/ready]}, periodSeconds: 1}\n";
    let script = format!("sleep 1; touch /tmp/ready; {STAY}");
    kplay
        .apply_with(&pod("slow", "Always", probe, &script), ["--wait=ready"])
        .succeeds();
    assert!(is_ready(&kplay.pod("slow")["status"]));
    // What is ready in less than a second is not asked a period later only.
    let probe =
        "    readinessProbe: {exec: {command: [test, -f, /tmp/ready]}, periodSeconds: 600}\n";
    let script = format!("sleep 0.2; touch /tmp/ready; {STAY}");
    kplay
        .apply_with(&pod("quick", "Always", probe, &script), ["--wait=ready"])
        .succeeds();
    // One that never gets ready is waited for until the time is over.
    let never = "    readinessProbe: {exec: {command: ['false']}, periodSeconds: 1}\n";
    let run = kplay.apply_with(
        &pod("never", "Always", never, STAY),
        ["--wait=ready", "--timeout=2s"],
    );
    assert_ne!(run.code, Some(0), "{run}");
    assert!(run.stderr.contains("never"), "{run}");
}

#[test]
fn a_failed_liveness_probe_restarts_the_container() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let probe = "    livenessProbe: {exec: {command: [sh, -c, 'test ! -f /tmp/dead']}, periodSeconds: 1, failureThreshold: 2}\n";
    // OnFailure: it is started again although it ends with 0 when it is told to.
    let script = format!("echo up; {STAY}");
    kplay
        .apply(&pod("web", "OnFailure", probe, &script))
        .succeeds();
    assert!(is_ready(&kplay.pod("web")["status"]));
    let first = text(&container(&kplay.pod("web")["status"], "main")["containerID"]);
    kplay.shell("web", "touch /tmp/dead");
    let pod = kplay.until("web", "is restarted", |status| {
        let main = container(status, "main");
        main["restartCount"] == 1 && main["ready"] == true
    });
    let main = container(&pod["status"], "main");
    assert_ne!(text(&main["containerID"]), first);
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 0);
    let description = until_described(
        &kplay,
        "web",
        &[
            "Unhealthy",
            "Liveness probe failed:",
            "Container main failed liveness probe, will be restarted",
        ],
    );
    assert!(
        !description.contains("Stopping container main"),
        "{description}"
    );
    assert_eq!(kplay.run(["logs", "web", "--previous"]).succeeds(), "up\n");
}

#[test]
fn without_restarts_a_failed_liveness_probe_ends_the_pod() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let probe = |grace: &str| {
        format!(
            "    livenessProbe: {{exec: {{command: ['false']}}, periodSeconds: 1, failureThreshold: 1{grace}}}\n"
        )
    };
    // Its exit code decides.
    kplay
        .apply(&pod("polite", "Never", &probe(""), STAY))
        .succeeds();
    assert_eq!(kplay.until_ended("polite")["status"]["phase"], "Succeeded");
    let description = kplay.run(["describe", "pod", "polite"]).succeeds();
    assert!(
        description.contains("Container main failed liveness probe"),
        "{description}"
    );
    assert!(!description.contains("will be restarted"), "{description}");
    // One that does not listen is killed after the probe's own grace period, not after the pod's 20 s.
    let start = std::time::Instant::now();
    let deaf = pod(
        "deaf",
        "Never",
        &probe(", terminationGracePeriodSeconds: 1"),
        "trap '' TERM; while :; do sleep 0.1; done",
    );
    kplay.apply(&deaf).succeeds();
    let ended = kplay.until_ended("deaf");
    assert!(start.elapsed().as_secs() < 18, "{:?}", start.elapsed());
    assert_eq!(ended["status"]["phase"], "Failed");
    assert_eq!(
        container(&ended["status"], "main")["state"]["terminated"]["exitCode"],
        137
    );
}

#[test]
fn the_first_check_waits_and_the_others_follow_in_its_period() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let probe = "    readinessProbe: {exec: {command: [sh, -c, 'cat /proc/uptime >> /tmp/asked']}, initialDelaySeconds: 2, periodSeconds: 1}\n";
    let script = format!("cat /proc/uptime > /tmp/begun; {STAY}");
    kplay
        .apply(&pod("slow", "Always", probe, &script))
        .succeeds();
    let times = |file: &str| -> Vec<f64> {
        let text = kplay.shell("slow", &format!("cat {file} 2>/dev/null || true"));
        let first = |line: &str| line.split(' ').next().and_then(|time| time.parse().ok());
        text.lines().filter_map(first).collect()
    };
    crate::wait::until("three checks", || times("/tmp/asked").len() >= 3);
    let (begun, asked) = (times("/tmp/begun")[0], times("/tmp/asked"));
    // The script looked at its clock a little after its start.
    assert!(asked[0] - begun > 1.5, "{begun} {asked:?}");
    assert!(asked[2] - asked[0] > 1.5, "{asked:?}");
}

#[test]
fn a_startup_probe_comes_before_the_others() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let probes = "
    startupProbe: {exec: {command: [sh, -c, 'echo startup >> /tmp/log; test -f /tmp/started']}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}
    livenessProbe: {exec: {command: [sh, -c, 'echo liveness >> /tmp/log']}, periodSeconds: 1}
    readinessProbe: {exec: {command: [sh, -c, 'echo readiness >> /tmp/log; test -f /tmp/ready']}, periodSeconds: 60, timeoutSeconds: 20}
";
    kplay.apply(&pod("slow", "Always", probes, STAY)).succeeds();
    let log = |kplay: &Kplay| kplay.shell("slow", "cat /tmp/log 2>/dev/null || true");
    crate::wait::until("two startup probes", || log(&kplay).lines().count() >= 2);
    assert!(
        log(&kplay).lines().all(|line| line == "startup"),
        "{}",
        log(&kplay)
    );
    let main = container(&kplay.pod("slow")["status"], "main").clone();
    assert_eq!(
        (&main["started"], &main["ready"]),
        (&false.into(), &false.into())
    );
    kplay.shell("slow", "touch /tmp/ready /tmp/started");
    // Readiness at once, though its period is a minute.
    kplay.until("slow", "is ready", is_ready);
    crate::wait::until("a liveness probe", || log(&kplay).contains("liveness"));
    let log = log(&kplay);
    let after: Vec<&str> = log.lines().skip_while(|line| *line == "startup").collect();
    assert!(
        !after.contains(&"startup"),
        "the startup probe has done its work: {log}"
    );
    let main = container(&kplay.pod("slow")["status"], "main").clone();
    assert_eq!(
        (&main["started"], &main["restartCount"]),
        (&true.into(), &0.into())
    );
}

#[test]
fn a_failed_startup_probe_restarts_the_container() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let probes = "
    startupProbe: {exec: {command: ['false']}, periodSeconds: 1, failureThreshold: 2}
    livenessProbe: {exec: {command: [touch, /tmp/never]}, periodSeconds: 1}
";
    kplay
        .apply(&pod("stuck", "Always", probes, STAY))
        .succeeds();
    let pod = kplay.until("stuck", "is restarted", |status| {
        container(status, "main")["restartCount"] == 1
    });
    assert!(!is_ready(&pod["status"]));
    until_described(
        &kplay,
        "stuck",
        &[
            "Startup probe failed:",
            "Container main failed startup probe, will be restarted",
        ],
    );
}

#[test]
fn a_sidecars_startup_probe_holds_back_the_next_container() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let run = kplay.apply_with(
        "
apiVersion: v1
kind: Pod
metadata: {name: ordered}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - name: sidecar
    image: localhost/busybox:1
    restartPolicy: Always
    command: [sh, -c, 'echo sidecar >> /v/log; sleep 1; echo started >> /v/log; touch /v/started; trap \"exit 0\" TERM; while :; do sleep 0.1; done']
    startupProbe: {exec: {command: [test, -f, /v/started]}, periodSeconds: 1, failureThreshold: 30}
    readinessProbe: {exec: {command: ['false']}}
    volumeMounts: [{name: v, mountPath: /v}]
  - name: setup
    image: localhost/busybox:1
    command: [sh, -c, 'echo setup >> /v/log']
    volumeMounts: [{name: v, mountPath: /v}]
  containers:
  - name: main
    image: localhost/busybox:1
    command: [cat, /v/log]
    volumeMounts: [{name: v, mountPath: /v}]
",
        ["--wait=complete"],
    );
    run.succeeds();
    let log = kplay.run(["logs", "ordered", "-c", "main"]).succeeds();
    assert_eq!(log, "sidecar\nstarted\nsetup\n");
}

#[test]
fn checks_that_cannot_be_made_decide_nothing() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let probes = "
    livenessProbe: {exec: {command: [no-such-command]}, periodSeconds: 1, failureThreshold: 1}
    readinessProbe: {exec: {command: [no-such-command]}, periodSeconds: 1, failureThreshold: 1}
";
    kplay.apply(&pod("odd", "Always", probes, STAY)).succeeds();
    until_described(
        &kplay,
        "odd",
        &[
            "Liveness probe errored and resulted in unknown state: ",
            "Readiness probe errored and resulted in unknown state: ",
            "no-such-command",
        ],
    );
    let main = container(&kplay.pod("odd")["status"], "main").clone();
    assert_eq!(
        (&main["restartCount"], &main["ready"]),
        (&0.into(), &false.into())
    );
}

#[test]
fn a_command_that_takes_too_long_is_killed() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let probes = "    readinessProbe: {exec: {command: [sleep, '1000']}, periodSeconds: 600, timeoutSeconds: 2}\n";
    kplay.apply(&pod("late", "Always", probes, STAY)).succeeds();
    until_described(
        &kplay,
        "late",
        &["Readiness probe failed: command timed out: \"sleep 1000\" timed out after 2s"],
    );
    let processes = || {
        kplay.shell(
            "late",
            // One may end while it is looked at.
            "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null; done; true",
        )
    };
    crate::wait::until("the command is gone", || {
        !processes().contains("sleep 1000")
    });
}

/// GET on a port of the machine.
fn get(port: u16, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a published port");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn http_probes() {
    let Some(kplay) = Kplay::new() else {
        return;
    };
    let port = free_port();
    let container = |name: &str, args: &str, probe: &str| {
        format!("  - {{name: {name}, image: kplay.local/toolbox, args: [{args}], {probe}}}\n")
    };
    let manifest = [
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n".to_owned(),
        container(
            "web",
            "http, --unready",
            &format!(
                "ports: [{{name: http, containerPort: 8080, hostPort: {port}}}], readinessProbe: {{periodSeconds: 1, failureThreshold: 1, \
                 httpGet: {{port: http, path: /ready}}}}"
            ),
        ),
        container(
            "redirects",
            "sleep, infinity",
            "readinessProbe: {periodSeconds: 600, httpGet: {port: 8080, path: /redirect/http://elsewhere.example/}}",
        ),
        container(
            "follows",
            "sleep, infinity",
            "readinessProbe: {periodSeconds: 600, httpGet: {port: 8080, path: /redirect/healthz}}",
        ),
        container(
            "slow",
            "sleep, infinity",
            "readinessProbe: {periodSeconds: 600, httpGet: {port: 8080, path: /slow/1500}}",
        ),
        container(
            "refused",
            "sleep, infinity",
            "readinessProbe: {periodSeconds: 600, httpGet: {port: 1}}",
        ),
    ];
    kplay.apply(&manifest.concat()).succeeds();
    until_described(
        &kplay,
        "web",
        &[
            "Readiness probe failed: HTTP probe failed with statuscode: 503",
            "Readiness probe warning: Probe terminated redirects, Response body: look there",
            "Readiness probe failed: Get \"http://POD_IP:8080/slow/1500\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            "Readiness probe failed: Get \"http://POD_IP:1/\": dial tcp POD_IP:1: connect: connection refused",
        ],
    );
    get(port, "/ready/yes");
    let ready = |status: &Value, name: &str| self::container(status, name)["ready"] == true;
    let pod = kplay.until("web", "its first container is ready", |status| {
        ready(status, "web")
    });
    let status = &pod["status"];
    assert!(
        ready(status, "redirects") && ready(status, "follows"),
        "{status}"
    );
    assert_eq!(
        condition(status, "Ready")["message"],
        "containers with unready status: [slow refused]"
    );
    get(port, "/ready/no");
    kplay.until("web", "its first container is not ready", |status| {
        !ready(status, "web")
    });
    let log = kplay.run(["logs", "web", "-c", "web"]).succeeds();
    let ip = text(&kplay.pod("web")["status"]["podIP"]);
    assert!(log.contains(&format!("GET /ready 503 {ip}:")), "{log}");
}

#[test]
fn https_probes() {
    let Some(kplay) = Kplay::new() else {
        return;
    };
    // The certificate of `tls` is its own and has expired, for which nobody asks.
    kplay
        .apply(
            "
apiVersion: v1
kind: Pod
metadata: {name: secure}
spec:
  containers:
  - name: tls
    image: kplay.local/toolbox
    args: [http, --tls, --port, '8443']
    readinessProbe: {httpGet: {scheme: HTTPS, port: 8443, path: /redirect/healthz}, periodSeconds: 1}
  - name: http2
    image: kplay.local/toolbox
    args: [grpc-health, --tls, --port, '9443']
    startupProbe: {grpc: {mode: TLS, port: 9443}, periodSeconds: 1, failureThreshold: 30}
    readinessProbe: {httpGet: {scheme: HTTPS, port: 9443, path: /healthz}, periodSeconds: 1}
    livenessProbe: {httpGet: {scheme: HTTPS, port: 9443}, periodSeconds: 600}
  - name: plain
    image: kplay.local/toolbox
    args: [http]
    readinessProbe: {httpGet: {scheme: HTTPS, port: 8080, path: /healthz}, periodSeconds: 600}
  - name: in-the-clear
    image: kplay.local/toolbox
    args: [sleep, infinity]
    readinessProbe: {httpGet: {port: 8443}, periodSeconds: 600}
",
        )
        .succeeds();
    until_described(
        &kplay,
        "secure",
        &[
            "Liveness probe failed: HTTP probe failed with statuscode: 404",
            "Readiness probe failed: Get \"https://POD_IP:8080/healthz\": http: server gave HTTP response to HTTPS client",
            "Readiness probe failed: Get \"http://POD_IP:8443/\": net/http: HTTP/1.x transport connection broken: malformed HTTP response",
        ],
    );
    let pod = kplay.until("secure", "two containers are ready", |status| {
        ["tls", "http2"].map(|name| container(status, name)["ready"] == true) == [true; 2]
    });
    assert_eq!(
        condition(&pod["status"], "Ready")["message"],
        "containers with unready status: [plain in-the-clear]"
    );
}

#[test]
fn tcp_and_grpc_probes() {
    let Some(kplay) = Kplay::new() else {
        return;
    };
    kplay
        .apply(
            "
apiVersion: v1
kind: Pod
metadata: {name: many}
spec:
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: grpc
    image: kplay.local/toolbox
    args: [grpc-health, --service, live, --file, /v/serving]
    volumeMounts: [{name: v, mountPath: /v}]
    startupProbe: {tcpSocket: {port: 50051}, periodSeconds: 1, failureThreshold: 30}
    readinessProbe: {grpc: {port: 50051, service: live}, periodSeconds: 1, failureThreshold: 1}
  - name: stranger
    image: kplay.local/toolbox
    args: [sleep, infinity]
    readinessProbe: {grpc: {port: 50051, service: other}, periodSeconds: 600}
  - name: nobody
    image: kplay.local/toolbox
    args: [sleep, infinity]
    startupProbe: {grpc: {port: 2}, periodSeconds: 600}
  - name: refused
    image: kplay.local/toolbox
    args: [sleep, infinity]
    readinessProbe: {tcpSocket: {port: 1}, periodSeconds: 600}
",
        )
        .succeeds();
    until_described(
        &kplay,
        "many",
        &[
            "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")",
            "Readiness probe failed: error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
            "Startup probe failed: timeout: failed to connect service \"POD_IP:2\" within 1s: context deadline exceeded",
            "Readiness probe failed: dial tcp POD_IP:1: connect: connection refused",
        ],
    );
    kplay
        .run([
            "exec",
            "many",
            "-c",
            "grpc",
            "--",
            "/toolbox",
            "write",
            "/v/serving",
            "x",
        ])
        .succeeds();
    kplay.until("many", "its server is ready", |status| {
        container(status, "grpc")["ready"] == true
    });
}

#[test]
fn the_machines_network_is_probed_for_a_pod_that_uses_it() {
    let Some(kplay) = Kplay::new() else {
        return;
    };
    let port = free_port();
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: host}}\nspec:\n  hostNetwork: true\n  containers:\n  - name: web\n    \
         image: kplay.local/toolbox\n    args: [http, --bind, 127.0.0.1, --port, '{port}']\n    readinessProbe: \
         {{httpGet: {{port: {port}, host: localhost}}, periodSeconds: 1}}\n    livenessProbe: {{tcpSocket: {{port: {port}, host: localhost}}, \
         initialDelaySeconds: 1}}\n"
    );
    kplay.apply_with(&manifest, ["--wait=ready"]).succeeds();
}

#[test]
fn readiness_is_asked_until_the_end_and_liveness_is_not() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    // Told to end, it is neither ready nor alive any more, and takes its time.
    let script = "trap 'touch /tmp/ending' TERM; while [ ! -f /tmp/release ]; do sleep 0.1; done";
    let probes = "
    livenessProbe: {exec: {command: [sh, -c, 'test ! -f /tmp/ending']}, periodSeconds: 1, failureThreshold: 1}
    readinessProbe: {exec: {command: [sh, -c, 'echo >> /tmp/asked; test ! -f /tmp/ending']}, periodSeconds: 1, failureThreshold: 1}
";
    kplay
        .apply_with(&pod("drain", "Always", probes, script), ["--wait=ready"])
        .succeeds();
    let mut delete = kplay.command(["delete", "pod", "drain"]).spawn();
    kplay.until("drain", "is not ready any more", |status| {
        container(status, "main")["state"]["running"].is_object() && !is_ready(status)
    });
    // While readiness is asked twice more, a liveness probe would have been due.
    let asked = || kplay.shell("drain", "cat /tmp/asked").len();
    let before = asked();
    crate::wait::until("more readiness probes", || asked() >= before + 2);
    let description = kplay.run(["describe", "pod", "drain"]).succeeds();
    assert!(
        description.contains("Readiness probe failed"),
        "{description}"
    );
    assert!(
        !description.contains("Liveness probe failed"),
        "{description}"
    );
    kplay.shell("drain", "touch /tmp/release");
    assert!(delete.wait().expect("our own child").success());
    kplay.assert_nothing_left();
}
