//! The variables of containers: where they come from, and who wins.

use std::collections::BTreeMap;
use std::fs;

use crate::Kplay;
use crate::harness::{script_pod, text};

#[test]
fn variables_and_what_they_are_made_of() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay
        .apply(
            r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: map}
data: {FROM_MAP: map, BOTH: map, "dotted.key": dotted}
---
apiVersion: v1
kind: Secret
metadata: {name: secret}
data: {password: aHVudGVyMg==}
stringData: {BOTH: secret}
---
apiVersion: v1
kind: Pod
metadata: {name: env, labels: {tier: back}, annotations: {note: written}}
spec:
  restartPolicy: Never
  hostname: elsewhere
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, 'env | sort; echo "argument $0 $1"', '$(ORDER) $(MISSING)', $$(ORDER)]
    resources: {limits: {cpu: 250m, memory: 64Mi}}
    envFrom:
    - configMapRef: {name: map}
    - {prefix: P_, configMapRef: {name: map}}
    - secretRef: {name: secret}
    - configMapRef: {name: absent, optional: true}
    - secretRef: {name: absent, optional: true}
    env:
    - {name: ORDER, value: first}
    - {name: EARLY, value: "$(LATE)"}
    - {name: LATE, value: "<$(ORDER)> $(BOTH) $$(ORDER) $(UNCLOSED"}
    - {name: EMPTY, value: ""}
    - {name: KEY, valueFrom: {configMapKeyRef: {name: map, key: dotted.key}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: secret, key: password}}}
    - {name: NOT_THERE, valueFrom: {secretKeyRef: {name: secret, key: absent, optional: true}}}
    - {name: NOT_THERE_2, valueFrom: {configMapKeyRef: {name: map, key: absent, optional: true}}}
    - {name: NOT_THERE_3, valueFrom: {configMapKeyRef: {name: absent, key: absent, optional: true}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: SPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: NOTE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['note']"}}}
    - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    - {name: MILLI, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
"#,
        )
        .succeeds();
    let pod = kplay.until_ended("env");
    let log = kplay.run(["logs", "env"]).succeeds();
    let uid = text(&pod["metadata"]["uid"]);
    for line in [
        "FROM_MAP=map",
        "BOTH=secret",
        "P_BOTH=map",
        "dotted.key=dotted",
        "ORDER=first",
        "EARLY=$(LATE)",
        "LATE=<first> secret $(ORDER) $(UNCLOSED",
        "EMPTY=",
        "KEY=dotted",
        "PASSWORD=hunter2",
        "POD=env",
        "SPACE=default",
        "LABEL=back",
        "NOTE=written",
        &format!("POD_UID={uid}"),
        "CPU=1",
        "MILLI=250",
        "MEMORY=64",
        "HOSTNAME=elsewhere",
        "PATH=/bin",
        "argument first $(MISSING) $(ORDER)",
    ] {
        // A name with a dot is passed on, though busybox' shell does not export it.
        if line != "dotted.key=dotted" {
            assert!(log.lines().any(|l| l == line), "no `{line}` in\n{log}");
        }
    }
    assert!(!log.contains("NOT_THERE"), "{log}");
}

#[test]
fn nothing_of_the_callers_environment_gets_in() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod("quiet", "", "", "env");
    let file = kplay.file("pod.yaml", pod);
    kplay
        .command([
            "apply".as_ref(),
            "--wait=complete".as_ref(),
            file.as_os_str(),
        ])
        .env("LEAK", "from the caller")
        .run()
        .succeeds();
    let log = kplay.run(["logs", "quiet"]).succeeds();
    assert!(!log.contains("LEAK") && !log.contains("KPLAY"), "{log}");
}

/// What `env` printed, by name.
fn variables(log: &str) -> BTreeMap<String, String> {
    let pairs = log.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn variables_of_services() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let service = |namespace: &str, name: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{{address} ports: [{{name: main, port: 5432}}, {{name: p-2, port: 53, protocol: UDP}}]}}\n---\n"
        )
    };
    let earlier = service("default", "earlier", "clusterIP: 10.0.0.1,")
        + &service("other", "far", "clusterIP: 10.0.0.2,")
        + &service("default", "headless", "clusterIP: None,")
        + &service("default", "allocated", "");
    kplay.apply(&earlier).succeeds();
    let pod = |name: &str, fields: &str| {
        script_pod(
            name,
            fields,
            "env: [{name: URL, value: 'db at $(MY_DB_SERVICE_HOST)'}, {name: EARLIER_PORT, value: mine}],",
            "env; echo END",
        )
        .replace("command: [sh,", "args: [$(EARLIER_SERVICE_PORT_P_2), $(FAR_SERVICE_HOST)], command: [sh,")
        .replace("echo END", "echo ARGS=$0,$1")
    };
    // The Service comes after the pod in the file, and is known to it nevertheless.
    let manifest =
        pod("linked", "") + "---\n" + &service("default", "my-db", "clusterIP: 10.0.0.3,");
    kplay.apply_with(&manifest, ["--wait=complete"]).succeeds();
    let found = variables(&kplay.run(["logs", "linked"]).succeeds());
    let expected = [
        ("EARLIER_SERVICE_HOST", "10.0.0.1"),
        ("EARLIER_SERVICE_PORT", "5432"),
        ("EARLIER_SERVICE_PORT_MAIN", "5432"),
        ("EARLIER_SERVICE_PORT_P_2", "53"),
        ("EARLIER_PORT", "mine"),
        ("EARLIER_PORT_5432_TCP", "tcp://10.0.0.1:5432"),
        ("EARLIER_PORT_5432_TCP_PROTO", "tcp"),
        ("EARLIER_PORT_5432_TCP_PORT", "5432"),
        ("EARLIER_PORT_5432_TCP_ADDR", "10.0.0.1"),
        ("EARLIER_PORT_53_UDP", "udp://10.0.0.1:53"),
        ("MY_DB_SERVICE_HOST", "10.0.0.3"),
        ("MY_DB_PORT", "tcp://10.0.0.3:5432"),
        ("URL", "db at 10.0.0.3"),
        ("ARGS", "53,$(FAR_SERVICE_HOST)"),
    ];
    for (name, value) in expected {
        assert_eq!(
            found.get(name).map(String::as_str),
            Some(value),
            "{name} in {found:#?}"
        );
    }
    let unknown = |name: &&String| {
        ["FAR_", "HEADLESS_", "KUBERNETES_"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    assert_eq!(found.keys().find(unknown), None);
    // One that was given no address has been allocated one.
    let path = "-o=jsonpath={.spec.clusterIP}";
    let ip = kplay.run(["get", "service", "allocated", path]).succeeds();
    assert!(ip.starts_with("10.96."), "{ip}");
    assert_eq!(found["ALLOCATED_SERVICE_HOST"], ip);
    assert_eq!(found["ALLOCATED_PORT_53_UDP"], format!("udp://{ip}:53"));
    // The pod is as it was: what its Services are is no part of it.
    kplay.run(["delete", "service", "my-db"]).succeeds();
    let again = manifest.replace("10.0.0.3", "10.0.0.4");
    let told = kplay.apply(&again).succeeds();
    assert!(told.contains("pod/linked unchanged"), "{told}");

    kplay
        .apply_with(
            &pod("apart", "enableServiceLinks: false,"),
            ["--wait=complete"],
        )
        .succeeds();
    let found = variables(&kplay.run(["logs", "apart"]).succeeds());
    assert!(!found.contains_key("EARLIER_SERVICE_HOST"), "{found:#?}");
    assert_eq!(found["URL"], "db at $(MY_DB_SERVICE_HOST)");
}

#[test]
fn a_restarted_container_knows_the_services_of_its_start() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let service = |ip: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: db}}\nspec: {{clusterIP: {ip}, ports: [{{port: 1}}]}}\n"
        )
    };
    kplay.apply(&service("10.0.0.1")).succeeds();
    let script = "echo $DB_SERVICE_HOST; [ $DB_SERVICE_HOST = 10.0.0.2 ] && exit 0; \
                  until [ -e /v/go ]; do sleep 0.02; done; exit 1";
    let fields = format!(
        "volumes: [{{name: v, hostPath: {{path: {}}}}}],",
        kplay.dir().join("shared").display()
    );
    let pod = script_pod(
        "again",
        &fields,
        "volumeMounts: [{name: v, mountPath: /v}],",
        script,
    );
    kplay.apply(&pod.replace("Never", "OnFailure")).succeeds();
    // An address does not change as long as its Service is there.
    kplay
        .apply(&service("10.0.0.2"))
        .fails(3, &["may not change once set"]);
    kplay.run(["delete", "service", "db"]).succeeds();
    kplay.apply(&service("10.0.0.2")).succeeds();
    kplay.file("shared/go", "");
    kplay.until_ended("again");
    assert_eq!(kplay.run(["logs", "again"]).succeeds(), "10.0.0.2\n");
    assert_eq!(kplay.run(["logs", "again", "-p"]).succeeds(), "10.0.0.1\n");
}

#[test]
fn variables_from_files_of_volumes() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = |name: &str, key: &str, path: &str, optional: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  volumes: [{{name: conf, emptyDir: {{}}}}]
  initContainers:
  - name: write
    image: localhost/busybox:1
    volumeMounts: [{{name: conf, mountPath: /conf}}]
    command:
    - sh
    - -c
    - |
      mkdir /conf/sub
      cat > /conf/sub/all.env <<'END'
      # written by an init container
      FIRST='one two' # a comment
      LINES='1
      2'
      EMPTY=''
      END
      echo NOT AN ENV FILE > /conf/bad.env
      ln -s /etc/passwd /conf/link.env
      head -c 70000 /dev/zero | tr '\\0' '#' > /conf/large.env
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, 'echo \"$VALUE\"; env | grep -c ^VALUE=', $(VALUE)]
    env:
    - name: VALUE
      valueFrom: {{fileKeyRef: {{volumeName: conf, path: {path}, key: {key}{optional}}}}}
"
        )
        .replace("\\\"", "\"")
    };
    let log = |key: &str, path: &str, optional: &str| {
        kplay
            .apply_with(&pod("file", key, path, optional), ["--wait=complete"])
            .succeeds();
        let log = kplay.run(["logs", "file"]);
        kplay.run(["delete", "pod", "file"]).succeeds();
        log.succeeds()
    };
    assert_eq!(log("FIRST", "sub/all.env", ""), "one two\n1\n");
    assert_eq!(log("LINES", "sub/all.env", ""), "1\n2\n1\n");
    let fails = |key: &str, path: &str, optional: &str, words: &[&str]| {
        let all = [&["CreateContainerConfigError"], words].concat();
        kplay
            .apply(&pod("file", key, path, optional))
            .fails(1, &all);
    };
    let key = |key: &str| format!("environment variable key \"{key}\" not found in file \"");
    fails("NONE", "sub/all.env", "", &[&key("NONE"), "sub/all.env"]);
    fails("EMPTY", "sub/all.env", "", &[&key("EMPTY")]);
    fails(
        "X",
        "absent.env",
        "",
        &["couldn't parse env file: absent.env: no such file"],
    );
    fails(
        "X",
        "bad.env",
        ", optional: true",
        &["couldn't parse env file: bad.env", "line 1: missing '='"],
    );
    // A link does not lead out, and the file is not there as seen from the volume.
    fails("X", "link.env", "", &["couldn't parse env file: link.env"]);
    fails(
        "X",
        "large.env",
        ", optional: true",
        &["couldn't parse env file: large.env: it is too large"],
    );
}

#[test]
fn an_optional_variable_of_a_file_is_left_out() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let log = kplay.script_in(
        "volumes: [{name: conf, emptyDir: {}}],",
        "env: [{name: VALUE, valueFrom: {fileKeyRef: {volumeName: conf, path: absent.env, key: X, optional: true}}}],",
        "env | grep ^VALUE || echo unset",
    );
    assert_eq!(log, "unset\n");
}

#[test]
fn the_pod_tells_about_itself() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let field = |name: &str, path: &str| {
        format!("{{name: {name}, valueFrom: {{fieldRef: {{fieldPath: {path}}}}}}}")
    };
    let resource = |name: &str, rest: &str| {
        format!("{{name: {name}, valueFrom: {{resourceFieldRef: {{resource: {rest}}}}}}}")
    };
    let env = [
        field("NODE", "spec.nodeName"),
        field("ACCOUNT", "spec.serviceAccountName"),
        field("HOST_IP", "status.hostIP"),
        field("HOST_IPS", "status.hostIPs"),
        field("POD_IP", "status.podIP"),
        field("POD_IPS", "status.podIPs"),
        field("NO_LABEL", "\"metadata.labels['none']\""),
        // The machine's, for what the container has no limit of.
        resource("CPUS", "limits.cpu"),
        resource("MEMORY", "limits.memory"),
        resource("STORAGE", "limits.ephemeral-storage"),
        resource("REQUEST", "requests.cpu"),
        resource("REQUEST_MEMORY", "requests.memory"),
        resource("SIDE_CPU", "requests.cpu, containerName: side, divisor: 1m"),
        resource(
            "SIDE_MEMORY",
            "limits.memory, containerName: side, divisor: 1k",
        ),
        resource(
            "SIDE_EXA",
            "limits.memory, containerName: side, divisor: 1Ei",
        ),
    ];
    let pod = script_pod(
        "about",
        "serviceAccountName: robot, initContainers: [{name: side, image: 'localhost/busybox:1', command: ['true'], \
         resources: {limits: {cpu: 1500m, memory: 16001k}}}],",
        &format!("env: [{}],", env.join(", ")),
        "env",
    );
    kplay.apply_with(&pod, ["--wait=complete"]).succeeds();
    let found = variables(&kplay.run(["logs", "about"]).succeeds());
    let status = kplay.pod("about")["status"].clone();
    let of_status = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
    let pod_ips = status["podIPs"].as_array().expect("addresses").iter();
    let pod_ips: Vec<&str> = pod_ips.filter_map(|ip| ip["ip"].as_str()).collect();
    let node = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let memory = fs::read_to_string("/proc/meminfo").expect("the machine's memory");
    let memory = memory.split_whitespace().nth(1).expect("MemTotal");
    let memory: u64 = memory.parse::<u64>().expect("a number") * 1024;
    let cpus = std::thread::available_parallelism().expect("processors");
    let disk = rustix::fs::statvfs(kplay.dir()).expect("a file system");
    let expected = [
        ("NODE", node.trim().to_owned()),
        ("ACCOUNT", "robot".into()),
        ("HOST_IP", of_status("hostIP")),
        ("HOST_IPS", of_status("hostIP")),
        ("POD_IP", of_status("podIP")),
        ("POD_IPS", pod_ips.join(",")),
        ("NO_LABEL", String::new()),
        ("CPUS", cpus.to_string()),
        ("MEMORY", memory.to_string()),
        ("STORAGE", (disk.f_blocks * disk.f_frsize).to_string()),
        ("REQUEST", "0".into()),
        ("REQUEST_MEMORY", "0".into()),
        ("SIDE_CPU", "1500".into()),
        ("SIDE_MEMORY", "16001".into()),
        ("SIDE_EXA", "1".into()),
    ];
    for (name, value) in expected {
        assert_eq!(found.get(name), Some(&value), "{name} in {found:#?}");
    }
    assert!(found["POD_IPS"].starts_with(&found["POD_IP"]));
}

#[test]
fn what_is_missing_is_told_before_anything_starts() {
    let Some(kplay) = Kplay::new() else { return };
    let pod = |env: &str| {
        script_pod(
            "lacking",
            "volumes: [{name: disk, hostPath: {path: /}}],",
            env,
            "true",
        )
    };
    let from = |source: &str| format!("env: [{{name: X, valueFrom: {{{source}}}}}],");
    for (env, words) in [
        (
            from("secretKeyRef: {name: s, key: k}"),
            "the Secret `s` does not exist in namespace `default`",
        ),
        (
            "envFrom: [{configMapRef: {name: c}}],".to_owned(),
            "the ConfigMap `c` does not exist in namespace `default`",
        ),
        (
            from("fileKeyRef: {volumeName: disk, path: f, key: k}"),
            "the volume `disk` is no `emptyDir`",
        ),
        (
            from("fileKeyRef: {volumeName: disc, path: ../f, key: k=}"),
            "there is no volume `disc` in this pod",
        ),
    ] {
        kplay
            .apply(&pod(&env))
            .fails(3, &[words, "manifest.yaml:4:"]);
    }
    kplay.assert_nothing_left();
}
