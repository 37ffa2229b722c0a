//! Services as pods use them: by name, and only to those who are ready.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Kplay;
use crate::harness::{Run, script_pod, text};
use crate::wait;

/// What "at once" may take on a machine that also runs other tests.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A pod that serves pages at port 8080 (`http`); `labels`, `more` of the container, and `pod` are in YAML's flow style.
pub(crate) fn server(name: &str, labels: &str, pod: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {{terminationGracePeriodSeconds: 1, \
         {pod} containers: [{{name: main, image: kplay.local/toolbox, args: [http], \
         ports: [{{name: http, containerPort: 8080}}], {container}}}]}}\n---\n"
    )
}

/// A pod that does nothing, to ask from.
pub(crate) fn client(name: &str) -> String {
    server(name, "role: client", "", "").replace("args: [http]", "args: [sleep, infinity]")
}

/// `readinessProbe` of a server: by its `/ready`.
pub(crate) const PROBED: &str =
    "readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1},";

pub(crate) fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n")
}

impl Kplay {
    /// `/toolbox fetch URL` in a pod.
    pub(crate) fn fetch(&self, pod: &str, url: &str) -> Run {
        self.toolbox(pod, &["fetch", url])
    }

    /// An applet in a pod.
    pub(crate) fn toolbox(&self, pod: &str, args: &[&str]) -> Run {
        self.run([&["exec", pod, "--", "/toolbox"], args].concat())
    }

    /// What `lookup` finds in a pod: the values of its answers, sorted.
    pub(crate) fn found(&self, pod: &str, args: &[&str]) -> Vec<String> {
        let run = self.toolbox(pod, &[&["lookup"], args].concat());
        let mut values: Vec<String> = run
            .stdout
            .lines()
            .filter_map(|line| Some(line.splitn(4, ' ').nth(3)?.to_owned()))
            .collect();
        values.sort();
        values
    }

    /// Waits until a page says this.
    #[track_caller]
    pub(crate) fn until_fetched(&self, pod: &str, url: &str, expected: &str) {
        let mut last = String::new();
        wait::until(&format!("{pod} reaches {url}"), || {
            let run = self.fetch(pod, url);
            last = run.to_string();
            run.code == Some(0) && run.stdout == expected
        });
    }

    #[track_caller]
    pub(crate) fn until_ready(&self, pods: &[&str]) {
        for pod in pods {
            self.until(pod, "is ready", is_ready);
        }
    }

    /// The addresses of a pod.
    pub(crate) fn ips(&self, pod: &str) -> Vec<String> {
        let pod = self.pod(pod);
        let ips = pod["status"]["podIPs"].as_array();
        let ips = ips.unwrap_or_else(|| panic!("no addresses: {pod}"));
        ips.iter().map(|ip| text(&ip["ip"])).collect()
    }

    /// Who answers `times` requests.
    fn answering(&self, pod: &str, url: &str, times: usize) -> BTreeSet<String> {
        let script = format!(
            "i=0; while [ $i -lt {times} ]; do wget -q -O - {url} || exit 1; i=$((i+1)); done"
        );
        let said = self.shell(pod, &script);
        said.lines().map(str::to_owned).collect()
    }

    /// A Service's address.
    fn cluster_ip(&self, service: &str) -> String {
        let printed = self
            .run(["get", "service", service, "-o", "json"])
            .succeeds();
        let service: Value = serde_json::from_str(&printed).expect("JSON");
        text(&service["spec"]["clusterIP"])
    }
}

fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A pod with a shell, to ask often from.
fn shell() -> String {
    script_pod(
        "shell",
        "terminationGracePeriodSeconds: 0,",
        "",
        "exec sleep 1000",
    ) + "---\n"
}

#[test]
fn a_database_is_found_by_its_services_name() {
    let Some(kplay) = Kplay::new() else { return };
    let port = "selector: {app: db}, ports: [{port: 5432, targetPort: http}]";
    let other =
        server("far", "app: db", "", "").replace("name: far,", "name: far, namespace: other,");
    let web = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {selector: {matchLabels: {app: web}}, \
         template: {metadata: {labels: {app: web}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: main, \
         image: kplay.local/toolbox, args: [http, --upstream, 'db:5432/hostname']}]}}}\n---\n";
    let manifest = service("db", port)
        + &server("near", "app: db", "", "")
        + web
        + &other
        + &service("db", port).replace("name: db}", "name: db, namespace: other}");
    kplay.apply(&manifest).succeeds();
    let web = kplay
        .run(["get", "pods", "-l", "app=web", "-o", "name"])
        .succeeds();
    let web = web.trim().trim_start_matches("pod/");
    for (name, answering) in [
        ("db", "near"),
        ("db.default", "near"),
        ("db.default.svc", "near"),
        ("db.default.svc.cluster.local", "near"),
        ("db.default.svc.cluster.local.", "near"),
        ("DB.Default.svc", "near"),
        ("db.other", "far"),
        ("db.other.svc.cluster.local", "far"),
    ] {
        kplay.until_fetched(
            web,
            &format!("{name}:5432/hostname"),
            &format!("{answering}\n"),
        );
    }
    let page = kplay.fetch(web, "localhost:8080/upstream").succeeds();
    assert!(
        page.ends_with("http://db:5432/hostname 200: near\n"),
        "{page}"
    );
    // The names of a namespace are its own.
    let other = |args: &[&str]| {
        kplay.run([&["exec", "-n", "other", "far", "--", "/toolbox"], args].concat())
    };
    assert_eq!(other(&["fetch", "db:5432/hostname"]).succeeds(), "far\n");
    assert_eq!(
        other(&["fetch", "db.default:5432/hostname"]).succeeds(),
        "near\n"
    );
    assert_eq!(
        other(&["lookup", "nosuch.default.svc.cluster.local."]).code,
        Some(3)
    );
    // Only the ports that the Service has.
    let refused = kplay.fetch(web, "db:8080/hostname").fails(1, &[]);
    assert!(refused.contains("refused"), "{refused}");
}

#[test]
fn only_ready_pods_get_traffic() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]",
    ) + &server("a", "app: web", "", PROBED)
        + &server("b", "app: web", "", PROBED).replace("args: [http]", "args: [http, --unready]")
        + &shell();
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "shell"]);
    kplay.until("b", "runs", |status| status["phase"] == "Running");
    let url = "http://web/hostname";
    kplay.until_fetched("a", url, "a\n");
    assert_eq!(kplay.answering("shell", url, 20), set(&["a"]));
    let switch = |pod: &str, to: &str| {
        kplay
            .fetch(pod, &format!("127.0.0.1:8080/ready/{to}"))
            .succeeds();
    };
    let until_answering = |expected: &[&str]| {
        wait::until(&format!("{expected:?} answer"), || {
            kplay.answering("shell", url, 20) == set(expected)
        });
    };
    switch("b", "yes");
    until_answering(&["a", "b"]);
    switch("a", "no");
    // Three failures of a probe that is made each second.
    until_answering(&["b"]);
    assert_eq!(kplay.answering("shell", url, 20), set(&["b"]));
    switch("a", "yes");
    until_answering(&["a", "b"]);
}

#[test]
fn the_order_of_a_service_and_its_pods_does_not_matter() {
    let Some(kplay) = Kplay::new() else { return };
    let web = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    );
    let pods = server("a", "app: web", "", "") + &client("client");
    let slice = || {
        let list = ["get", "endpointslices", "-o", "json"];
        let list: Value = serde_json::from_str(&kplay.run(list).succeeds()).expect("JSON");
        let endpoint = &list["items"][0]["endpoints"][0];
        (
            endpoint["targetRef"]["name"].clone(),
            endpoint["conditions"].clone(),
        )
    };
    let mut seen = Vec::new();
    for [first, second] in [[&web, &pods], [&pods, &web]] {
        kplay.apply(first).succeeds();
        kplay.apply(second).succeeds();
        kplay.until_ready(&["a", "client"]);
        kplay.until_fetched("client", "web/hostname", "a\n");
        let ip = kplay.cluster_ip("web");
        assert_eq!(kplay.found("client", &["web"]), [&*ip]);
        assert_eq!(
            kplay.fetch("client", &format!("{ip}/hostname")).succeeds(),
            "a\n"
        );
        seen.push(slice());
        kplay.run(["delete", "--all"]).succeeds();
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0, "a");
}

#[test]
fn without_endpoints_connections_are_refused_at_once() {
    let Some(kplay) = Kplay::new() else { return };
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &service(
        "dual",
        "selector: {app: web}, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: http}]",
    ) + &service(
        "echo",
        "selector: {app: none}, ports: [{port: 7, protocol: UDP}]",
    ) + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["client"]);
    let refused = |url: &str| {
        let start = Instant::now();
        let message = kplay.fetch("client", url).fails(1, &[]);
        assert!(message.contains("refused"), "{url}: {message}");
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    };
    refused("web");
    refused("dual");
    let start = Instant::now();
    let message = kplay
        .toolbox("client", &["say", "--udp", "echo:7", "hello"])
        .fails(1, &[]);
    assert!(message.contains("refused"), "{message}");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());

    kplay.apply(&server("a", "app: web", "", PROBED)).succeeds();
    kplay.until_ready(&["a"]);
    let start = Instant::now();
    for url in ["web/hostname", "dual/hostname"] {
        kplay.until_fetched("client", url, "a\n");
    }
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    for ip in kplay.found("client", &["dual", "AAAA"]) {
        kplay.until_fetched("client", &format!("http://[{ip}]/hostname"), "a\n");
    }
    kplay.run(["delete", "pod", "a"]).succeeds();
    assert!(wait::holds_within(AT_ONCE, || {
        let run = kplay.fetch("client", "web");
        run.code == Some(1) && run.stderr.contains("refused")
    }));
}

#[test]
fn all_backends_are_used_and_a_port_is_found_by_its_name() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let elsewhere = server("c", "app: web", "", "")
        .replace("args: [http]", "args: [http, --port, '9090']")
        .replace("containerPort: 8080", "containerPort: 9090");
    let nameless = server("d", "app: web", "", "").replace("name: http,", "name: other,");
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &server("a", "app: web", "", "")
        + &server("b", "app: web", "", "")
        + &elsewhere
        + &nameless
        + &shell();
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "b", "c", "d", "shell"]);
    kplay.until_fetched("a", "web/healthz", "ok\n");
    wait::until("all are used", || {
        kplay.answering("shell", "http://web/hostname", 60) == set(&["a", "b", "c"])
    });
}

#[test]
fn a_client_keeps_to_its_backend() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let spec =
        "selector: {app: web}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: http}]";
    let manifest = ["a", "b", "c"]
        .map(|name| server(name, "app: web", "", ""))
        .concat()
        + &service("web", spec)
        + &shell();
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "b", "c", "shell"]);
    kplay.until_fetched("a", "web/healthz", "ok\n");
    let answering = || kplay.answering("shell", "http://web/hostname", 30);
    let first = answering();
    assert_eq!(first.len(), 1, "{first:?}");
    let first = first.first().expect("one");
    kplay.run(["delete", "pod", first]).succeeds();
    let mut second = BTreeSet::new();
    wait::until("another one answers", || {
        second = answering();
        !second.contains(first)
    });
    assert_eq!(second.len(), 1, "{second:?}");
    assert_eq!(answering(), second);
}

#[test]
fn a_killed_backend_loses_only_its_own_connections() {
    const CLIENTS: usize = 12;
    let Some(kplay) = Kplay::new() else { return };
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &server("a", "app: web", "", "")
        + &server("b", "app: web", "", "")
        + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "b", "client"]);
    kplay.until_fetched("client", "web/healthz", "ok\n");
    let log = |pod: &str, words: &str| {
        let log = kplay.run(["logs", pod]).stdout;
        log.lines().filter(|line| line.contains(words)).count()
    };
    // Each asks for something that takes a while, and says at its beginning who it got.
    let slow = ["exec", "client", "--", "/toolbox", "fetch", "web/slow/3000"];
    let asking: Vec<_> = (0..CLIENTS).map(|_| kplay.command(slow).spawn()).collect();
    let established = |pod: &str| {
        let pid = kplay.pids(pod, "main")[0];
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp6")).unwrap_or_default();
        // At port 8080, established.
        let mut rows = 0;
        for row in table.lines() {
            let words: Vec<&str> = row.split_whitespace().collect();
            rows += usize::from(words.len() > 3 && words[1].ends_with(":1F90") && words[3] == "01");
        }
        rows
    };
    let mut of_b = 0;
    wait::until("all are connected", || {
        of_b = established("b");
        established("a") + of_b == CLIENTS
    });
    kplay
        .run(["delete", "pod", "b", "--force", "--grace-period=0"])
        .succeeds();
    // From now on, all go to the other one.
    for _ in 0..10 {
        assert_eq!(kplay.fetch("client", "web/hostname").succeeds(), "a\n");
    }
    let codes: Vec<_> = asking
        .into_iter()
        .map(|child| child.wait_with_output().expect("our own child"))
        .collect();
    let lost = codes
        .iter()
        .filter(|output| !output.status.success())
        .count();
    assert_eq!(lost, of_b, "{codes:#?}");
    assert_eq!(log("a", "/slow/3000 200"), CLIENTS - of_b);
}

#[test]
fn a_backend_that_is_stopped_loses_nothing_under_load() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    // Without the probe it would be asked before it listens.
    let graceful = format!("lifecycle: {{preStop: {{sleep: {{seconds: 1}}}}}}, {PROBED}");
    let pod = |name: &str| {
        server(name, "app: web", "", &graceful).replace(
            "terminationGracePeriodSeconds: 1",
            "terminationGracePeriodSeconds: 10",
        )
    };
    let load = "n=0; while [ ! -e /stop ]; do r=$(wget -q -O - http://web/hostname) || echo lost $n; \
         n=$((n+1)); echo $r; [ -e /started ] || touch /started; done; echo asked $n";
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &pod("a")
        + &pod("b");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "b"]);
    kplay.apply(&script_pod("load", "", "", load)).succeeds();
    wait::until("there is load", || {
        let log = kplay.run(["logs", "load"]).stdout;
        log.contains("a\n") && log.contains("b\n")
    });
    kplay.run(["delete", "pod", "b"]).succeeds();
    kplay.apply(&pod("b")).succeeds();
    kplay.until_ready(&["b"]);
    kplay.run(["delete", "pod", "a"]).succeeds();
    // The container may end before the command in it, which is killed then.
    let _ended = kplay.run(["exec", "load", "--", "touch", "/stop"]);
    kplay.until_ended("load");
    let log = kplay.run(["logs", "load"]).succeeds();
    // Beside the names of the two: what is lost, and why.
    let lost: Vec<_> = log.lines().filter(|line| line.len() > 1).collect();
    assert!(lost.len() == 1 && lost[0].starts_with("asked "), "{log}");
    assert_eq!(log.trim().rsplit('\n').nth(1), Some("b"), "{log}");
}

#[test]
fn datagrams_and_streams_come_back_through_a_service() {
    let Some(kplay) = Kplay::new() else { return };
    let echo = |name: &str, applet: &str| {
        server(name, &format!("app: {name}"), "", "")
            .replace("args: [http]", &format!("args: [{applet}, --port, '7']"))
    };
    // The same port of both protocols, as for names.
    let ports = "ports: [{name: udp, port: 9, targetPort: 7, protocol: UDP}]";
    let manifest = echo("datagrams", "udp-echo")
        + &echo("streams", "tcp-echo")
        + &service("udp", &format!("selector: {{app: datagrams}}, {ports}"))
        + &service(
            "tcp",
            "selector: {app: streams}, ports: [{port: 9, targetPort: 7}]",
        )
        + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["datagrams", "streams", "client"]);
    let said = |args: &[&str]| {
        let run = kplay.toolbox("client", &[&["say"], args].concat());
        (run.code == Some(0)).then_some(run.stdout)
    };
    for args in [
        ["--udp", "udp:9", "there and back"].as_slice(),
        &["tcp:9", "there and back"],
    ] {
        let mut last = None;
        wait::until(&format!("{args:?}"), || {
            last = said(args);
            last.is_some()
        });
        assert_eq!(last.as_deref(), Some("there and back\n"));
    }
    // One protocol's port is not the other's.
    assert_eq!(said(&["udp:9", "hello"]), None);
    assert_eq!(said(&["--udp", "tcp:9", "hello"]), None);
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() {
    let Some(kplay) = Kplay::new() else { return };
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &server("a", "app: web", "", PROBED);
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a"]);
    kplay.until_fetched("a", "web/hostname", "a\n");
}

#[test]
fn another_name_for_a_service() {
    let Some(kplay) = Kplay::new() else { return };
    let external = |name: &str, target: &str| {
        service(name, &format!("type: ExternalName, externalName: {target}"))
    };
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &external("alias", "web.default.svc.cluster.local")
        + &external("twice", "alias.default.svc.cluster.local")
        + &server("a", "app: web", "", "")
        + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "client"]);
    kplay.until_fetched("client", "alias/hostname", "a\n");
    let ip = kplay.cluster_ip("web");
    assert_eq!(
        kplay.found("client", &["alias"]),
        [ip.clone(), "web.default.svc.cluster.local.".to_owned()]
    );
    kplay.until_fetched("client", "twice/hostname", "a\n");
    assert_eq!(
        kplay.found("client", &["alias", "CNAME"]),
        ["web.default.svc.cluster.local."]
    );
}

#[test]
fn a_headless_service_is_its_pods() {
    let Some(kplay) = Kplay::new() else { return };
    let sub = "hostname: box, subdomain: web,";
    let manifest = service(
        "web",
        "clusterIP: None, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]",
    ) + &service(
        "early",
        "clusterIP: None, publishNotReadyAddresses: true, selector: {app: web}, ports: [{name: http, port: 80}]",
    ) + &server("a", "app: web", "", "")
        + &server("b", "app: web", sub, "")
        + &server("late", "app: web", "", PROBED)
            .replace("args: [http]", "args: [http, --unready]")
        + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "b", "client"]);
    kplay.until("late", "runs", |status| status["phase"] == "Running");
    let address = |pods: &[&str], family: usize| {
        let mut ips: Vec<String> = pods
            .iter()
            .filter_map(|pod| kplay.ips(pod).get(family).cloned())
            .collect();
        ips.sort();
        ips
    };
    let found = |args: &[&str], expected: &[String]| {
        let mut last = Vec::new();
        assert!(
            wait::holds_within(AT_ONCE, || {
                last = kplay.found("client", args);
                last == expected
            }),
            "{args:?}: {last:?} instead of {expected:?}"
        );
    };
    found(&["web"], &address(&["a", "b"], 0));
    found(&["early"], &address(&["a", "b", "late"], 0));
    // The pod that gives itself a name has it, the others are called by their address.
    found(&["box.web"], &address(&["b"], 0));
    let a = kplay.ips("a")[0].replace('.', "-");
    found(&[&format!("{a}.web")], &address(&["a"], 0));
    let mut places = vec![
        format!("0 50 8080 {a}.web.default.svc.cluster.local."),
        "0 50 8080 box.web.default.svc.cluster.local.".to_owned(),
    ];
    places.sort();
    let srv = kplay.found("client", &["_http._tcp.web", "SRV"]);
    assert_eq!(srv, places);
    let own = kplay.toolbox("b", &["cat", "/etc/hosts"]).succeeds();
    assert!(
        own.contains("\tbox.web.default.svc.cluster.local\tbox\n"),
        "{own}"
    );
    kplay.fetch("late", "127.0.0.1:8080/ready/yes").succeeds();
    kplay.until_ready(&["late"]);
    found(&["web"], &address(&["a", "b", "late"], 0));
    // The address of a pod leads back to its name.
    let b = &kplay.ips("b")[0];
    assert_eq!(
        kplay.found("client", &["--reverse", b]),
        ["early", "web"].map(|service| {
            let name = if service == "web" {
                "box".to_owned()
            } else {
                b.replace('.', "-")
            };
            format!("{name}.{service}.default.svc.cluster.local.")
        })
    );
    kplay.run(["delete", "pod", "a"]).succeeds();
    found(&["web"], &address(&["b", "late"], 0));
}

#[test]
fn a_deleted_service_is_gone_at_once() {
    let Some(kplay) = Kplay::new() else { return };
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &server("a", "app: web", "", "")
        + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "client"]);
    kplay.until_fetched("client", "web/hostname", "a\n");
    let ip = kplay.cluster_ip("web");
    kplay.run(["delete", "service", "web"]).succeeds();
    assert!(wait::holds_within(AT_ONCE, || {
        let name = "web.default.svc.cluster.local.";
        kplay.toolbox("client", &["lookup", name]).code == Some(3)
    }));
    let start = Instant::now();
    let message = kplay.fetch("client", &ip).fails(1, &[]);
    assert!(
        start.elapsed() < AT_ONCE,
        "{:?}: {message}",
        start.elapsed()
    );
}

#[test]
fn services_are_in_the_environment_of_pods_that_come_later() {
    let Some(kplay) = Kplay::new() else { return };
    let manifest = service(
        "my-db",
        "selector: {app: db}, ports: [{name: sql, port: 5432}, {name: admin, port: 81, protocol: UDP}]",
    ) + &service(
        "headless",
        "clusterIP: None, selector: {app: db}, ports: [{port: 1}]",
    ) + &service("web", "selector: {app: web}, ports: [{port: 80}]")
        .replace("name: web}", "name: web, namespace: other}");
    kplay.apply(&manifest).succeeds();
    let off = client("alone").replace("spec: {", "spec: {enableServiceLinks: false, ");
    kplay.apply(&(client("client") + &off)).succeeds();
    kplay.until_ready(&["client", "alone"]);
    let variables = |pod: &str| {
        let all = kplay.toolbox(pod, &["env"]).succeeds();
        let of_services = |line: &&str| line.contains("_SERVICE_") || line.contains("_PORT");
        let mut lines: Vec<_> = all.lines().filter(of_services).map(str::to_owned).collect();
        lines.retain(|line| !line.starts_with("KUBERNETES_"));
        lines
    };
    let ip = kplay.cluster_ip("my-db");
    let mut expected = [
        format!("MY_DB_SERVICE_HOST={ip}"),
        "MY_DB_SERVICE_PORT=5432".to_owned(),
        "MY_DB_SERVICE_PORT_SQL=5432".to_owned(),
        "MY_DB_SERVICE_PORT_ADMIN=81".to_owned(),
        format!("MY_DB_PORT=tcp://{ip}:5432"),
        format!("MY_DB_PORT_5432_TCP=tcp://{ip}:5432"),
        "MY_DB_PORT_5432_TCP_PROTO=tcp".to_owned(),
        "MY_DB_PORT_5432_TCP_PORT=5432".to_owned(),
        format!("MY_DB_PORT_5432_TCP_ADDR={ip}"),
        format!("MY_DB_PORT_81_UDP=udp://{ip}:81"),
        "MY_DB_PORT_81_UDP_PROTO=udp".to_owned(),
        "MY_DB_PORT_81_UDP_PORT=81".to_owned(),
        format!("MY_DB_PORT_81_UDP_ADDR={ip}"),
    ];
    expected.sort();
    assert_eq!(variables("client"), expected);
    assert_eq!(variables("alone"), [""; 0]);
}

#[test]
fn every_port_of_a_service_leads_to_its_own() {
    let Some(kplay) = Kplay::new() else { return };
    let two = "containers: [{name: other, image: kplay.local/toolbox, args: [http, --port, '9090'], \
         ports: [{name: admin, containerPort: 9090}]}, {name: main";
    let ports = "ports: [{name: web, port: 80, targetPort: http}, {name: admin, port: 81, targetPort: admin}, \
         {name: plain, port: 9090}]";
    let manifest = service("both", &format!("selector: {{app: both}}, {ports}"))
        + &server("pod", "app: both", "", "").replace("containers: [{name: main", two)
        + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["pod", "client"]);
    kplay.until_fetched("client", "both/hostname", "pod\n");
    // The two containers tell themselves apart by their readiness.
    kplay.fetch("client", "both:81/ready/no").succeeds();
    for (port, code) in [(80, 0), (81, 3), (9090, 3)] {
        let run = kplay.fetch("client", &format!("both:{port}/ready"));
        assert_eq!(run.code, Some(code), "{run}");
    }
    let srv = kplay.found("client", &["_admin._tcp.both", "SRV"]);
    assert_eq!(srv, ["0 100 81 both.default.svc.cluster.local."]);
    assert_eq!(
        kplay
            .toolbox("client", &["lookup", "_admin._udp.both", "SRV"])
            .code,
        Some(3)
    );
}

#[test]
fn what_is_down_or_over_is_no_endpoint() {
    let Some(kplay) = Kplay::new() else { return };
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &service("pods", "clusterIP: None, selector: {app: web}")
        + &server("once", "app: web", "restartPolicy: Never,", "")
        + &server("again", "app: web", "", PROBED)
        + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["once", "again", "client"]);
    let both = || kplay.found("client", &["pods"]);
    wait::until("both are known", || both().len() == 2);
    kplay
        .fetch("client", &format!("{}:8080/exit/0", kplay.ips("once")[0]))
        .succeeds();
    kplay.until_ended("once");
    let again = kplay.ips("again");
    wait::until("one has ended", || both() == again[..1]);
    for _ in 0..10 {
        assert_eq!(kplay.fetch("client", "web/hostname").succeeds(), "again\n");
    }
    kplay.fetch("client", "web/exit/1").succeeds();
    let restarted = |status: &Value| status["containerStatuses"][0]["restartCount"] == 1;
    kplay.until("again", "has been started again", restarted);
    kplay.until_fetched("client", "web/hostname", "again\n");
    assert_eq!(kplay.ips("again"), again, "a pod keeps its address");
}

#[test]
fn one_pod_of_several_services_and_a_changed_service() {
    let Some(kplay) = Kplay::new() else { return };
    let spec = |color: &str| {
        format!("selector: {{color: {color}}}, ports: [{{port: 80, targetPort: http}}]")
    };
    let manifest = service("web", &spec("red"))
        + &service(
            "all",
            "selector: {app: web}, ports: [{port: 1234, targetPort: http}]",
        )
        + &server("red", "app: web, color: red", "", "")
        + &server("blue", "app: web, color: blue", "", "")
        + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["red", "blue", "client"]);
    kplay.until_fetched("client", "web/hostname", "red\n");
    kplay.until_fetched("client", "all:1234/healthz", "ok\n");
    let ip = kplay.cluster_ip("web");
    // Another selector: the pods that run are told, and the address stays.
    kplay.apply(&service("web", &spec("blue"))).succeeds();
    kplay.until_fetched("client", "web/hostname", "blue\n");
    assert_eq!(kplay.fetch("client", "web/hostname").succeeds(), "blue\n");
    assert_eq!(kplay.cluster_ip("web"), ip);
    // Another port.
    kplay
        .apply(&service(
            "web",
            &spec("blue").replace("port: 80", "port: 81"),
        ))
        .succeeds();
    kplay.until_fetched("client", "web:81/hostname", "blue\n");
    let refused = kplay.fetch("client", "web/hostname").fails(1, &[]);
    assert!(refused.contains("refused"), "{refused}");
}
