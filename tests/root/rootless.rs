//! Pods of users who are not root. `.ci/deps` makes the users: two with ids in /etc/subuid and /etc/subgid, one without.

use std::net::Ipv4Addr;

use rustix::process::{Pid, Signal, kill_process};

use crate::Kplay;
use crate::harness::{free_port, script_pod};
use crate::leftovers;
use crate::ports::{page, served};

const ONE: &str = "kplay-test-one";
const OTHER: &str = "kplay-test-other";
const WITHOUT_IDS: &str = "kplay-test-alone";

fn with_busybox(user: &str) -> Option<Kplay> {
    let kplay = Kplay::of(user)?;
    kplay.load(crate::fixtures::busybox_archive());
    Some(kplay)
}

/// A pod that serves what it sees at a port of the machine.
fn web(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{terminationGracePeriodSeconds: 1, containers: [{{name: web, \
         image: kplay.local/toolbox, args: [http, --port, '8080'], ports: [{{containerPort: 8080, hostPort: {port}}}], \
         readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}}}]}}\n"
    )
}

#[test]
fn a_pod_lives_and_ends_as_roots_do() {
    let Some(kplay) = Kplay::of(ONE) else { return };
    let port = free_port();
    kplay.apply_with(&web(port), ["--wait=ready"]).succeeds();
    let address = (Ipv4Addr::LOCALHOST, port);
    assert!(served(address).contains("web"));
    let id = kplay
        .run(["exec", "web", "--", "/toolbox", "id"])
        .succeeds();
    assert_eq!(id, "uid=0 gid=0 groups=0\n");
    let caps = kplay
        .run(["exec", "web", "--", "/toolbox", "caps"])
        .succeeds();
    assert!(caps.contains("CHOWN"), "{caps}");
    assert!(!caps.contains("SYS_ADMIN"), "{caps}");
    kplay.run(["logs", "web"]).succeeds();
    kplay.run(["delete", "pod", "web"]).succeeds();
    assert!(page(address, "/").is_err(), "nobody listens any more");
    kplay.assert_nothing_left();
}

#[test]
fn the_users_of_an_image_are_the_users_subordinate_ones() {
    let Some(kplay) = with_busybox(ONE) else {
        return;
    };
    let log = kplay.script_in(
        "securityContext: {fsGroup: 2000}, volumes: [{name: v, emptyDir: {}}],",
        "securityContext: {runAsUser: 1234}, volumeMounts: [{name: v, mountPath: /v}],",
        "id -u; touch /v/file; stat -c '%u %g' /v/file; cat /proc/self/uid_map | tr -s ' '; kill -9 1; echo alive",
    );
    let lines: Vec<&str> = log.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["1234", "1234 2000"], "{log}");
    assert!(
        lines[2].starts_with("0 ") && lines[3].starts_with("1 "),
        "{log}"
    );
    assert_eq!(lines.last(), Some(&"alive"), "{log}");
}

#[test]
fn a_pod_may_no_more_than_its_user() {
    let Some(kplay) = with_busybox(ONE) else {
        return;
    };
    let folder = std::env::temp_dir().join(format!("kplay-of-root-{}", std::process::id()));
    crate::user::make_closed(&folder);
    let own = std::process::id();
    let spec = format!(
        "hostPID: true, hostNetwork: true, volumes: [{{name: v, hostPath: {{path: {}}}}}, {{name: etc, hostPath: {{path: /etc}}}}],",
        folder.display()
    );
    let mounts = "securityContext: {privileged: true}, volumeMounts: [{name: v, mountPath: /v}, {name: etc, mountPath: /machine}],";
    let script = format!(
        "ls /v 2>&1; cat /machine/shadow 2>&1; echo x >> /machine/passwd; kill -0 {own} 2>&1; kill -0 1 2>&1; \
         mount -t tmpfs none /v && umount /v && echo mounts; echo 1 > /proc/sys/kernel/sysrq; \
         mknod /null c 1 3 2>&1; id -u"
    );
    let log = kplay.script_in(&spec, mounts, &script);
    crate::user::remove(&folder);
    let not_killed = format!("sh: can't kill pid {own}: Operation not permitted");
    let expected = [
        "ls: can't open '/v': Permission denied",
        "cat: can't open '/machine/shadow': Permission denied",
        "sh: can't create /machine/passwd: Permission denied",
        &not_killed,
        "sh: can't kill pid 1: Operation not permitted",
        "mounts",
        "mknod: /null: Operation not permitted",
    ];
    for words in expected {
        assert!(log.contains(words), "no `{words}` in {log}");
    }
}

/// Only who may change the machine's network can have the cluster's names answered there.
#[test]
fn a_pod_in_the_machines_network_has_no_cluster_dns_and_says_so() {
    let Some(kplay) = with_busybox(ONE) else {
        return;
    };
    let resolver = |policy: &str| {
        let fields = format!("hostNetwork: true, dnsPolicy: {policy},");
        let pod = script_pod("script", &fields, "", "cat /etc/resolv.conf");
        kplay.apply_with(&pod, ["--wait=complete"]).succeeds();
        let text = kplay.run(["logs", "script"]).succeeds();
        let events = kplay.run(["events", "--for", "script"]).succeeds();
        kplay.run(["delete", "pod", "script"]).succeeds();
        (text, events)
    };
    let (of_machine, events) = resolver("Default");
    assert!(!events.contains("MissingClusterDNS"), "{events}");
    let (text, events) = resolver("ClusterFirstWithHostNet");
    assert_eq!(text, of_machine);
    let event = "cannot create Pod using \"ClusterFirstWithHostNet\" policy. Falling back to \"Default\" policy.";
    assert!(events.contains("MissingClusterDNS"), "{events}");
    assert!(events.contains(event), "{events}");
}

#[test]
fn users_see_nothing_of_each_other() {
    let (Some(one), Some(other)) = (Kplay::of(ONE), with_busybox(OTHER)) else {
        return;
    };
    let (first, second) = (free_port(), free_port());
    one.apply_with(&web(first), ["--wait=ready"]).succeeds();
    other.apply_with(&web(second), ["--wait=ready"]).succeeds();
    for (kplay, port) in [(&one, first), (&other, second)] {
        assert!(served((Ipv4Addr::LOCALHOST, port)).contains("web"));
        let pods = kplay.run(["get", "pods"]).succeeds();
        assert_eq!(pods.lines().count(), 2, "{pods}");
    }
    // A port has one owner, whoever that is.
    let taken = web(first).replace("name: web}", "name: late}");
    other.apply(&taken).fails(4, &["in use"]);
    // So have those that root keeps for itself.
    let roots = web(81).replace("name: web}", "name: low}");
    other.apply(&roots).fails(
        4,
        &[
            "port 81 of 0.0.0.0 is root's",
            "ip_unprivileged_port_start=81",
        ],
    );
    let root = one.root();
    let foreign = other.run([
        "--root".into(),
        root.into_os_string(),
        "--runroot".into(),
        one.runroot().into_os_string(),
        "get".into(),
        "pods".into(),
    ]);
    assert_ne!(foreign.code, Some(0), "{foreign}");
    // Nor has a pod that sees the machine's processes and files the other's.
    let executor = one.executor("web");
    let log = other.script_in(
        &format!(
            "hostPID: true, volumes: [{{name: v, hostPath: {{path: {}}}}}],",
            one.dir().display()
        ),
        "volumeMounts: [{name: v, mountPath: /v}],",
        &format!("ls /v/root /v/run; kill -9 {executor}; true"),
    );
    let denied = [
        "ls: can't open '/v/root': Permission denied",
        "ls: can't open '/v/run': Permission denied",
        &format!("sh: can't kill pid {executor}: Operation not permitted"),
    ];
    for words in denied {
        assert!(log.contains(words), "no `{words}` in {log}");
    }
    other.run(["delete", "--all"]).succeeds();
    assert!(served((Ipv4Addr::LOCALHOST, first)).contains("web"));
    one.run(["delete", "--all"]).succeeds();
    one.assert_nothing_left();
    other.assert_nothing_left();
}

#[test]
fn one_id_is_enough() {
    let Some(kplay) = Kplay::of(WITHOUT_IDS) else {
        return;
    };
    let port = free_port();
    let run = kplay.apply_with(&web(port), ["--wait=ready"]);
    assert!(
        run.stderr.contains("pods have one user, root, who is you"),
        "{run}"
    );
    run.succeeds();
    assert!(served((Ipv4Addr::LOCALHOST, port)).contains("web"));
    let id = kplay
        .run(["exec", "web", "--", "/toolbox", "id"])
        .succeeds();
    assert!(id.starts_with("uid=0 gid=0"), "{id}");
    kplay.run(["delete", "pod", "web"]).succeeds();
    kplay.load(crate::fixtures::busybox_archive());
    assert_eq!(kplay.script("stat -c '%u %g' /bin/busybox"), "0 0\n");
    let other = script_pod("other", "", "securityContext: {runAsUser: 7},", "id");
    let words = ["the user or group 7 is not among the 1 that you have"];
    kplay
        .apply_with(&other, ["--wait=complete"])
        .fails(1, &words);
}

#[test]
fn limits_that_nobody_enforces_are_told() {
    let Some(kplay) = with_busybox(ONE) else {
        return;
    };
    let limited = "resources: {limits: {memory: 64Mi}},";
    kplay
        .apply_with(
            &script_pod("limited", "", limited, "true"),
            ["--wait=complete"],
        )
        .succeeds();
    let events = kplay.run(["events"]).succeeds();
    let told = events.contains("LimitsNotEnforced");
    let user = crate::user::User::named(ONE).expect("there is one");
    assert_eq!(told, !user.has_cgroups(), "{events}");
    if told {
        let none = kplay.run(["top", "-o", "json"]).succeeds();
        assert!(none.contains("\"items\": []"), "{none}");
        let runs = script_pod("runs", "", "", "sleep 1000");
        kplay.apply(&runs).succeeds();
        kplay.run(["top"]).fails(4, &["cgroups of version 2"]);
    }
}

/// With the user's own configuration and credentials, although its executor is root in a namespace.
#[test]
fn a_container_that_starts_again_is_pulled_as_its_user_does() {
    let Some(kplay) = Kplay::of(ONE) else { return };
    let registry = crate::fixtures::Registry::start();
    let script = "test -e /v/once || { touch /v/once; exit; }; sleep 1000";
    let pod = script_pod(
        "again",
        "terminationGracePeriodSeconds: 0, volumes: [{name: v, emptyDir: {}}],",
        "imagePullPolicy: Always, volumeMounts: [{name: v, mountPath: /v}],",
        script,
    );
    let pod = pod
        .replace("localhost/busybox:1", &registry.image("gzip"))
        .replace("restartPolicy: Never", "restartPolicy: Always");
    kplay.apply(&pod).succeeds();
    kplay.until("again", "it runs again", |status| {
        let main = &status["containerStatuses"][0];
        main["restartCount"] == 1 && main["state"]["running"].is_object()
    });
    let events = kplay.run(["events"]).succeeds();
    assert!(!events.contains("Failed to pull"), "{events}");
}

#[test]
fn an_executor_that_is_killed_takes_its_pod_along() {
    let Some(kplay) = with_busybox(ONE) else {
        return;
    };
    let script = "setsid sleep 4711 & setsid sleep 4711 & wait";
    for pod in ["", "shareProcessNamespace: true,", "hostPID: true,"] {
        kplay.apply(&script_pod("web", pod, "", script)).succeeds();
        kplay.until("web", "it runs", |status| status["phase"] == "Running");
        let executor = kplay.executor("web");
        kill_process(
            Pid::from_raw(executor.cast_signed()).expect("a pid"),
            Signal::KILL,
        )
        .expect("it lives");
        assert!(crate::wait::ended(executor, crate::wait::PATIENCE));
        assert_eq!(kplay.phase("web"), "Failed");
        kplay.run(["delete", "pod", "web"]).succeeds();
        if pod.is_empty() {
            kplay.assert_nothing_left();
        }
    }
}

#[test]
fn what_a_container_leaves_ends_with_it() {
    let Some(kplay) = with_busybox(ONE) else {
        return;
    };
    for pod in ["shareProcessNamespace: true,", "hostPID: true,"] {
        let script = "setsid sleep 4712 & true";
        kplay
            .apply_with(&script_pod("web", pod, "", script), ["--wait=complete"])
            .succeeds();
        let stays = |process: &leftovers::Process| process.command == "sleep 4712";
        assert!(!leftovers::processes().iter().any(stays), "{pod}");
        kplay.run(["delete", "pod", "web"]).succeeds();
    }
    kplay.assert_nothing_left();
}

/// As in a container that is not privileged: nobody has to become root there.
#[test]
fn root_of_a_user_namespace_plays_pods_as_well() {
    let Some(kplay) = Kplay::new() else { return };
    let port = free_port();
    let file = kplay.file("web.yaml", web(port));
    let apply: [&std::ffi::OsStr; 3] = ["apply".as_ref(), "--wait=ready".as_ref(), file.as_ref()];
    let through = ["unshare", "--user", "--map-root-user", "--mount"];
    kplay.command(apply).through(through).run().succeeds();
    assert!(served((Ipv4Addr::LOCALHOST, port)).contains("web"));
    kplay.run(["delete", "pod", "web"]).succeeds();
    kplay.assert_nothing_left();
}

/// Runs kplay as a user, with nothing in the environment but this.
fn with_environment(
    user: &str,
    env: &[(&str, &std::path::Path)],
    words: &[&str],
) -> std::process::Output {
    let setpriv = crate::user::program(crate::user::User::named(user).as_ref());
    std::process::Command::new(&setpriv[0])
        .args(&setpriv[1..])
        .args(words)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(env.iter().copied())
        .output()
        .expect("setpriv is there")
}

#[test]
fn a_home_that_is_not_the_users_leaves_nothing() {
    let Some(kplay) = Kplay::of(WITHOUT_IDS) else {
        return;
    };
    let home = kplay.dir().join("closed");
    crate::user::make_closed(&home);
    let manifest = kplay.file("web.yaml", web(free_port()));
    let manifest = manifest.to_str().expect("a readable path");
    let output = with_environment(WITHOUT_IDS, &[("HOME", &home)], &["apply", manifest]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("closed/.local/share/kplay") && said.contains("Permission denied"),
        "{said}"
    );
    let uid = std::process::Command::new("id")
        .args(["-u", WITHOUT_IDS])
        .output();
    let uid = String::from_utf8(uid.expect("id is there").stdout).expect("a number");
    let folder = format!("/tmp/kplay-{}", uid.trim());
    assert!(!std::path::Path::new(&folder).exists(), "{folder}");
    crate::user::remove(&home);
}

#[test]
fn a_later_login_finds_the_same_pods() {
    let Some(kplay) = Kplay::of(ONE) else { return };
    let [home, run] = ["home", "runtime"].map(|name| kplay.dir().join(name));
    let manifest = kplay.file("web.yaml", web(free_port()));
    for folder in [&home, &run] {
        std::fs::create_dir(folder).expect("a folder");
        crate::user::User::named(ONE).expect("a user").give(folder);
    }
    let call = |env: &[(&str, &std::path::Path)], words: &[&str]| {
        let output = with_environment(ONE, env, words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let login: &[(&str, &std::path::Path)] = &[("HOME", &home), ("XDG_RUNTIME_DIR", &run)];
    call(
        login,
        &[
            "apply",
            "--wait=ready",
            manifest.to_str().expect("a readable path"),
        ],
    );
    // Another process tree, with the folders by other names for the same.
    let data = home.join(".local/share");
    let later: &[(&str, &std::path::Path)] = &[("XDG_DATA_HOME", &data), ("XDG_RUNTIME_DIR", &run)];
    let id = call(later, &["exec", "web", "--", "/toolbox", "id"]);
    assert!(id.starts_with("uid=0"), "{id}");
    call(later, &["logs", "web"]);
    call(
        later,
        &[
            "cp",
            manifest.to_str().expect("a readable path"),
            "web:/here",
        ],
    );
    assert!(call(later, &["get", "pods"]).contains("Running"));
    call(later, &["delete", "pod", "web"]);
    assert!(!home.join(".local/share/kplay/pods/default_web").exists());
}

#[test]
fn state_is_where_xdg_says() {
    let Some(kplay) = Kplay::of(ONE) else { return };
    let [data, run] = ["data", "runtime"].map(|name| kplay.dir().join(name));
    let call = |words: &[&str]| {
        let env: [(&str, &std::path::Path); 3] = [
            ("HOME", kplay.dir()),
            ("XDG_DATA_HOME", &data),
            ("XDG_RUNTIME_DIR", &run),
        ];
        let output = with_environment(ONE, &env, words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
    };
    // Nothing that is only read makes a folder.
    call(&["version"]);
    assert!(!data.exists() && !run.exists());
    let manifest = kplay.file("web.yaml", web(free_port()));
    call(&["apply", manifest.to_str().expect("a readable path")]);
    assert!(data.join("kplay/pods/default_web/record.json").exists());
    assert!(run.join("kplay/pods/default_web/status.json").exists());
    call(&["delete", "--all"]);
    assert!(!data.join("kplay/pods/default_web").exists());
}
