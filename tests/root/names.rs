//! How pods are called, the files that say so, and the words with which containers end.

use serde_json::Value;

use crate::Kplay;
use crate::harness::script_pod;

const HOSTS: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
     ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
     fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

/// The line of `/etc/hosts` with the pod's own IPv4 address.
const OWN_LINE: &str = "sed -n 's/^10[.][0-9.]*/IPV4/p' /etc/hosts";

#[test]
fn the_pods_own_files() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let log = kplay.script_in(
        "hostname: box, hostAliases: [{ip: 10.1.2.3, hostnames: [one, two]}, {ip: FD00::1, hostnames: [three]}], \
         dnsPolicy: None, dnsConfig: {nameservers: [10.9.8.7], searches: [a.test], options: [{name: ndots, value: '2'}]},",
        "",
        "cat /etc/hostname; hostname; echo $HOSTNAME; cat /etc/resolv.conf; \
         sed -e 's/^10[.]2[0-9]*[.][0-9.]*/IPV4/' -e 's/^fd[0-9a-f:]*/IPV6/' /etc/hosts; stat -c %a /etc/hosts; \
         df -h /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; stat -c %a /dev/shm",
    );
    let own = "IPV4\tbox\nIPV6\tbox\n\n# Entries added by HostAliases.\n10.1.2.3\tone\ttwo\nFD00::1\tthree\n";
    let expected = format!(
        "box\nbox\nbox\nsearch a.test\nnameserver 10.9.8.7\noptions ndots:2\n{HOSTS}{own}644\n64.0M\n1777\n"
    );
    assert_eq!(log, expected);
}

#[test]
fn names_with_a_domain() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let script = format!("hostname; cat /etc/hostname; echo $HOSTNAME; {OWN_LINE}");
    let check = |fields: &str, name: &str, hosts: &str| {
        let log = kplay.script_in(fields, "", &script);
        assert_eq!(log, format!("{name}\n{name}\n{name}\nIPV4\t{hosts}\n"));
    };
    let fqdn = "box.sub.default.svc.cluster.local";
    check(
        "hostname: box, subdomain: sub,",
        "box",
        &format!("{fqdn}\tbox"),
    );
    check(
        "hostname: box, subdomain: sub, setHostnameAsFQDN: true,",
        fqdn,
        &format!("{fqdn}\tbox"),
    );
    check(
        "hostnameOverride: my.own, subdomain: sub,",
        "my.own",
        "my.own",
    );
}

#[test]
fn a_name_that_the_kernel_has_no_place_for() {
    let Some(kplay) = Kplay::new() else { return };
    let fields = format!(
        "hostname: {}, subdomain: sub, setHostnameAsFQDN: true,",
        "a".repeat(40)
    );
    let message = kplay.apply(&script_pod("long", &fields, "", "true")).fails(
        3,
        &["manifest.yaml:4:", "setHostnameAsFQDN", "64", "shorter"],
    );
    assert!(message.contains("has 70"), "{message}");
    kplay.assert_nothing_left();
}

#[test]
fn the_hosts_network_has_the_hosts_names() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let log = kplay.script_in(
        "hostNetwork: true, hostname: ignored, hostAliases: [{ip: 10.1.2.3, hostnames: [one]}],",
        "",
        "hostname; cat /etc/hostname; echo $HOSTNAME; cat /etc/hosts",
    );
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let hosts = std::fs::read_to_string("/etc/hosts").expect("a hosts file");
    let expected = format!(
        "{name}{name}{name}# Kubernetes-managed hosts file (host network).\n{hosts}\n\
         # Entries added by HostAliases.\n10.1.2.3\tone\n"
    );
    assert_eq!(log, expected);
}

#[test]
fn hosts_is_written_anew_at_each_start_for_all_containers() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    // The sidecar sees what the first container writes, then what the last one's start makes of it.
    let manifest = "
apiVersion: v1
kind: Pod
metadata: {name: hosts}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  volumes: [{name: own, configMap: {name: own}}, {name: v, emptyDir: {}}]
  initContainers:
  - {name: side, restartPolicy: Always, image: 'localhost/busybox:1', volumeMounts: [{name: v, mountPath: /v}],
     command: [sh, -c, 'until grep -q mine /etc/hosts; do sleep 0.02; done; touch /v/seen; while grep -q mine /etc/hosts; do sleep 0.02; done; touch /v/gone; sleep 1000']}
  - {name: first, image: 'localhost/busybox:1', volumeMounts: [{name: v, mountPath: /v}],
     command: [sh, -c, 'echo 1.2.3.4 mine >> /etc/hosts; until [ -e /v/seen ]; do sleep 0.02; done']}
  containers:
  - {name: own, image: 'localhost/busybox:1', volumeMounts: [{name: own, mountPath: /etc/hosts, subPath: hosts}],
     command: [cat, /etc/hosts]}
  - {name: main, image: 'localhost/busybox:1', volumeMounts: [{name: v, mountPath: /v}],
     command: [sh, -c, 'grep -c mine /etc/hosts; until [ -e /v/gone ]; do sleep 0.02; done']}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: own}
data: {hosts: 'the container''s own'}
";
    kplay.apply(manifest).succeeds();
    kplay.until_ended("hosts");
    let log = |container: &str| kplay.run(["logs", "hosts", "-c", container]).succeeds();
    // One that mounts its own leaves that of the others alone.
    assert_eq!(log("own"), "the container's own");
    assert_eq!(log("main"), "0\n");
}

#[test]
fn a_read_only_root_protects_the_runtimes_files() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let log = kplay.script_in(
        "",
        "securityContext: {readOnlyRootFilesystem: true},",
        "for f in hosts hostname resolv.conf; do (echo x >> /etc/$f) 2> /dev/null && echo $f; done; true",
    );
    assert_eq!(log, "hosts\n");
}

#[test]
fn a_resolver_takes_three_name_servers() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod(
        "many",
        "dnsPolicy: None, dnsConfig: {nameservers: [10.0.0.1, 10.0.0.2, 10.0.0.3]},",
        "",
        "cat /etc/resolv.conf",
    );
    kplay
        .apply(&pod.replace("10.0.0.3]", "10.0.0.3, 10.0.0.4]"))
        .fails(3, &["3 name servers"]);
    kplay.apply_with(&pod, ["--wait=complete"]).succeeds();
    let log = kplay.run(["logs", "many"]).succeeds();
    assert_eq!(
        log,
        "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"
    );
}

#[test]
fn the_policy_says_which_resolver_is_asked() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let resolv_conf = |fields: &str| kplay.script_in(fields, "", "cat /etc/resolv.conf");
    let domains = "search default.svc.cluster.local svc.cluster.local cluster.local";
    for policy in ["", "dnsPolicy: ClusterFirstWithHostNet,"] {
        let text = resolv_conf(policy);
        assert!(text.starts_with(domains), "{text}");
        assert!(
            text.ends_with("\nnameserver 169.254.20.10\noptions ndots:5\n"),
            "{text}"
        );
    }
    // Both are the machine's.
    let of_machine = resolv_conf("dnsPolicy: Default, hostNetwork: true,");
    assert!(!of_machine.contains("cluster.local"), "{of_machine}");
    assert_eq!(resolv_conf("hostNetwork: true,"), of_machine);
    let text = resolv_conf("hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet,");
    assert!(text.starts_with(domains), "{text}");
    // Each pod's resolver has an address of its own.
    let resolver = text
        .lines()
        .find_map(|line| line.strip_prefix("nameserver "));
    let resolver: Option<std::net::Ipv4Addr> = resolver.and_then(|ip| ip.parse().ok());
    assert!(
        resolver.is_some_and(|ip| ip.is_loopback() && ip.octets()[1] >= 64),
        "{text}"
    );
    assert!(text.ends_with("\noptions ndots:5\n"), "{text}");
}

#[test]
fn a_pod_of_a_stateful_set_and_of_an_indexed_job() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let manifest = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: peers
  ordinals: {start: 3}
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'localhost/busybox:1', command: [sleep, '1000']}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: shard}
spec:
  completionMode: Indexed
  completions: 1
  template:
    spec:
      restartPolicy: Never
      initContainers: [{name: init, image: 'localhost/busybox:1', command: [echo, $(JOB_COMPLETION_INDEX)]}]
      containers: [{name: main, image: 'localhost/busybox:1', command: [sh, -c, 'echo $JOB_COMPLETION_INDEX $HOSTNAME']}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: '@daily'
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
          - name: main
            image: localhost/busybox:1
            command: [sh, -c, 'echo $JOB $JOB_UID']
            env:
            - {name: JOB, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['job-name']\"}}}
            - {name: JOB_UID, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['batch.kubernetes.io/controller-uid']\"}}}
";
    kplay.apply(manifest).succeeds();
    assert_eq!(
        kplay.shell("db-3", &format!("hostname; {OWN_LINE}")),
        "db-3\nIPV4\tdb-3.peers.default.svc.cluster.local\tdb-3\n"
    );
    let labels = kplay.pod("db-3")["metadata"]["labels"].clone();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-3");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "3");
    let table = kplay
        .run(["get", "pods", "db-3", "--show-labels"])
        .succeeds();
    let (header, row) = table.split_once('\n').expect("two lines");
    assert!(header.ends_with("LABELS"), "{table}");
    assert!(
        row.contains("statefulset.kubernetes.io/pod-name=db-3"),
        "{table}"
    );
    let job = kplay.until_ended("shard-0");
    for map in ["labels", "annotations"] {
        let index = &job["metadata"][map]["batch.kubernetes.io/job-completion-index"];
        assert_eq!(index, "0", "{map}");
    }
    assert_eq!(
        kplay.run(["logs", "shard-0", "-c", "init"]).succeeds(),
        "0\n"
    );
    assert_eq!(kplay.run(["logs", "shard-0"]).succeeds(), "0 shard-0\n");
    let uid = ["get", "job", "shard", "-o", "jsonpath={.metadata.uid}"];
    let uid = kplay.run(uid).succeeds();
    for label in ["batch.kubernetes.io/controller-uid", "controller-uid"] {
        assert_eq!(job["metadata"]["labels"][label], *uid, "{label}");
    }
    let nightly = [
        "get",
        "cronjob",
        "nightly",
        "-o",
        "jsonpath={.metadata.uid}",
    ];
    let nightly = kplay.run(nightly).succeeds();
    kplay.until_ended("nightly-0");
    assert_eq!(
        kplay.run(["logs", "nightly-0"]).succeeds(),
        format!("nightly {nightly}\n")
    );
    kplay.apply(manifest).succeeds();
    let again = kplay.pod("shard-0");
    assert_eq!(again["metadata"]["uid"], job["metadata"]["uid"]);
    // Counted from another number, it has another pod and no more than that.
    kplay
        .apply(&manifest.replace("start: 3", "start: 0"))
        .succeeds();
    let pods = kplay.run(["get", "pods", "-o", "name"]).succeeds();
    assert_eq!(pods, "pod/db-0\npod/nightly-0\npod/shard-0\n");
}

#[test]
fn pause_reaps_for_the_containers_that_share_processes() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    // The subshell's child loses its parent, and process 1 gets it.
    let log = kplay.script_in(
        "shareProcessNamespace: true,",
        "",
        "cat /proc/1/comm; (sh -c 'echo $$ > /orphan; read -t 0.1 x < /dev/zero; exit 3' & ) ; \
         until [ -s /orphan ]; do sleep 0.02; done; o=$(cat /orphan); \
         while [ -d /proc/$o ]; do sleep 0.02; done; echo reaped",
    );
    assert_eq!(log, "pause\nreaped\n");
}

#[test]
fn a_termination_message() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let check = |container: &str, script: &str, expected: &str| {
        let pod = script_pod("last-words", "", container, script);
        kplay.apply(&pod).succeeds();
        let pod = kplay.until_ended("last-words");
        let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(state["message"], expected, "{script}: {state}");
    };
    check("", "echo -n written > /dev/termination-log", "written");
    check(
        "terminationMessagePath: /tmp/words,",
        "echo -n elsewhere > /tmp/words; exit 1",
        "elsewhere",
    );
    check(
        "terminationMessagePolicy: FallbackToLogsOnError,",
        "echo the last line; exit 1",
        "the last line\n",
    );
}

#[test]
fn how_long_a_termination_message_may_be() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    // The end of the file counts: 4096 bytes.
    let words = "i=0; while [ $i -lt 1000 ]; do echo word $i; i=$((i+1)); done";
    let numbers = |range: std::ops::Range<u32>| -> String {
        range.map(|number| format!("word {number}\n")).collect()
    };
    let all = numbers(0..1000);
    let last_words = |pod: &Value, name: &str| {
        let statuses = ["containerStatuses", "initContainerStatuses"];
        let mut all = statuses
            .into_iter()
            .flat_map(|list| pod["status"][list].as_array().into_iter().flatten());
        let status = all.find(|status| status["name"] == name);
        let status = status.unwrap_or_else(|| panic!("no {name} in {pod}"));
        status["state"]["terminated"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let member = |name: &str, fields: &str, script: &str| {
        format!(
            "{{name: {name}, image: 'localhost/busybox:1', {fields} command: [sh, -c, '{script}']}}"
        )
    };
    let to_file = format!("({words}) > /dev/termination-log; exit 1");
    let to_log = format!("{words}; exit 1");
    let fall_back = "terminationMessagePolicy: FallbackToLogsOnError,";
    let pod = |init: &[String], containers: &[String]| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: words}}\nspec:\n  restartPolicy: Never\n  \
             initContainers: [{}]\n  containers: [{}]\n",
            init.join(", "),
            containers.join(", ")
        )
    };
    kplay
        .apply(&pod(
            &[],
            &[
                member("file", "", &to_file),
                // A file with words is not fallen back from; success does not look at the log.
                member(
                    "both",
                    fall_back,
                    &format!("echo -n own > /dev/termination-log; {to_log}"),
                ),
                member("success", fall_back, words),
            ],
        ))
        .succeeds();
    let ended = kplay.until_ended("words");
    // Three containers: 12 KiB are more than each may have anyway.
    assert_eq!(last_words(&ended, "file"), all[all.len() - 4096..]);
    assert_eq!(last_words(&ended, "both"), "own");
    assert_eq!(last_words(&ended, "success"), "");
    kplay.run(["delete", "pod", "words"]).succeeds();

    kplay
        .apply(&pod(
            &[member("init", "", "echo -n fine > /dev/termination-log")],
            &[
                member("file", "", &to_file),
                // 80 lines here, 2048 bytes there.
                member("lines", fall_back, &to_log),
                member(
                    "bytes",
                    fall_back,
                    "i=0; while [ $i -lt 100 ]; do printf %0100d $i; echo; i=$((i+1)); done; exit 1",
                ),
            ],
        ))
        .succeeds();
    let ended = kplay.until_ended("words");
    // A quarter of 12 KiB for each of four, of which the start is kept.
    assert_eq!(last_words(&ended, "file"), all[all.len() - 4096..][..3072]);
    assert_eq!(last_words(&ended, "init"), "fine");
    assert_eq!(last_words(&ended, "lines"), numbers(920..1000));
    let bytes: String = (0..100).map(|number| format!("{number:0100}\n")).collect();
    assert_eq!(last_words(&ended, "bytes"), bytes[bytes.len() - 2048..]);
}
