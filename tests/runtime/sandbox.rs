//! The pod's shared namespaces.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use kplay::runtime::sandbox::{self, Sandbox, SandboxOptions};
use kplay::runtime::{Error, mount_shared_memory};
use kplay::sys::cgroup::{Hierarchies, Limits};
use kplay::sys::namespace::Namespace;
use kplay::sys::pidfd::{Exit, PidFd};
use kplay::sys::poll;
use kplay::sys::signal::Signal;
use kplay::sys::watch::Watch;
use serde_json::{Value, json};

use crate::fixture::{Pod, chain, has_ended, isolated, pipes, process, shell, spec, wait};

fn start(pod: &Pod, pid: bool, sysctls: &BTreeMap<String, String>) -> Result<Sandbox, Error> {
    sandbox::start(&SandboxOptions {
        hostname: Some("pod".to_owned()),
        ids: None,
        net: true,
        ipc: true,
        uts: true,
        pid,
        sysctls,
        cgroup: pod
            .container_cgroup("infra", &Limits::default())
            .entry()
            .unwrap(),
    })
}

/// A container that joins the sandbox's namespaces.
fn member(sandbox: &Sandbox, process: Value, pid: bool) -> Value {
    let mut spec = spec(process);
    let join =
        |kind: &str, namespace| json!({"type": kind, "path": sandbox.namespace_path(namespace)});
    spec["linux"]["namespaces"] = json!([
        join("network", Namespace::Network),
        join("ipc", Namespace::Ipc),
        join("uts", Namespace::Uts),
        if pid { join("pid", Namespace::Pid) } else { json!({"type": "pid"}) },
        {"type": "mount"},
    ]);
    spec.as_object_mut().unwrap().remove("hostname");
    spec
}

#[test]
fn containers_share_its_namespaces() {
    isolated("sandbox::containers_share_its_namespaces", async |pod| {
        let sysctls = BTreeMap::from([(
            "net.ipv4.ip_local_port_range".to_owned(),
            "40000 41000".to_owned(),
        )]);
        let sandbox = start(pod, false, &sysctls).unwrap_or_else(|e| panic!("{}", chain(&e)));
        let script = "hostname; cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ping_group_range \
             ip_local_port_range; ip -o link show lo | grep -c UP; for n in net ipc uts; do readlink /proc/self/ns/$n; done";
        let (out, err, _) = pod.run("c", member(&sandbox, shell(script), false)).await;
        let mut lines = out.lines();
        let head: Vec<&str> = lines.by_ref().take(5).collect();
        assert_eq!(
            head,
            ["pod", "0", "0\t2147483647", "40000\t41000", "1"],
            "{err}"
        );
        for (namespace, line) in [Namespace::Network, Namespace::Ipc, Namespace::Uts]
            .into_iter()
            .zip(lines)
        {
            let shared = std::fs::read_link(sandbox.namespace_path(namespace)).unwrap();
            assert_eq!(shared.to_str(), Some(line));
        }
        sandbox.pid_fd().signal(Signal::TERM).unwrap();
        assert_eq!(wait(sandbox.pid_fd()), Exit::Code(0));
    });
}

#[test]
fn it_reaps_as_process_one() {
    isolated("sandbox::it_reaps_as_process_one", async |pod| {
        let sandbox =
            start(pod, true, &BTreeMap::new()).unwrap_or_else(|e| panic!("{}", chain(&e)));
        // The orphan becomes a child of process 1, and a zombie if that does not reap.
        let script = "(sleep 0.01 &); cat /proc/1/comm; while pidof sleep > /dev/null; do :; done; ps -o stat | grep -c Z";
        let (out, err, _) = pod.run("c", member(&sandbox, shell(script), true)).await;
        assert_eq!(out, "pause\n0\n", "{err}");
    });
}

#[test]
fn the_holder_has_nothing() {
    isolated("sandbox::the_holder_has_nothing", async |pod| {
        let sandbox = start(pod, false, &BTreeMap::new()).unwrap();
        sandbox.settle().unwrap();
        let proc = |file: &str| {
            std::fs::read_to_string(format!("/proc/{}/{file}", sandbox.pid())).unwrap()
        };
        let status = proc("status");
        for line in [
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            assert!(status.contains(line), "{line}: {status}");
        }
        assert_eq!(proc("environ"), "");
        // The tmpfs, and nothing of the host.
        assert_eq!(proc("mountinfo").lines().count(), 1);
        assert_eq!(
            std::fs::read_dir(format!("/proc/{}/root/", sandbox.pid()))
                .unwrap()
                .count(),
            0
        );
        assert_eq!(
            std::fs::read_dir(format!("/proc/{}/fd/", sandbox.pid()))
                .unwrap()
                .count(),
            3
        );
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let kib: u32 = rss.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib <= 16, "{kib} KiB resident");
    });
}

#[test]
fn a_failing_step_is_named() {
    isolated("sandbox::a_failing_step_is_named", async |pod| {
        let check = |name: &str, value: &str, expected: &str| {
            let sysctls = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let error = start(pod, false, &sysctls).unwrap_err();
            assert_eq!(chain(&error), expected);
        };
        check(
            "net.ipv4.nonsense",
            "1",
            "cannot make the pod's namespaces: writing \"1\" to \"/proc/sys/net/ipv4/nonsense\" failed: No such file or directory (os error 2)",
        );
        check(
            "net.ipv4.ip_unprivileged_port_start",
            "much",
            "cannot make the pod's namespaces: writing \"much\" to \"/proc/sys/net/ipv4/ip_unprivileged_port_start\" failed: Invalid argument (os error 22)",
        );
    });
}

#[test]
fn shared_memory() {
    isolated("sandbox::shared_memory", async |pod| {
        let shm = pod.dir.join("shm");
        mount_shared_memory(&shm, None).unwrap();
        let with = |script: &str| {
            let mut spec = spec(shell(script));
            let mount = json!({"destination": "/dev/shm", "type": "bind", "source": shm, "options": ["rbind", "rw"]});
            spec["mounts"].as_array_mut().unwrap().push(mount);
            spec
        };
        let (out, err, _) = pod.run("a", with("stat -c %a /dev/shm; df -m /dev/shm | tail -1 | awk '{print $2}'; echo x > /dev/shm/x")).await;
        assert_eq!(out, "1777\n64\n", "{err}");
        assert_eq!(pod.run("b", with("cat /dev/shm/x")).await.0, "x\n");
    });
}

/// The executor is killed, and everything dies with it.
#[test]
fn it_dies_with_its_parent() {
    const NAME: &str = "sandbox::it_dies_with_its_parent";
    let folder = std::env::temp_dir().join(format!("kplay-pids-{}", std::process::id()));
    let file = folder.join("pids");
    if let Some(file) = std::env::var_os("KPLAY_PIDS_FILE") {
        isolated(NAME, async |pod| {
            let sandbox = start(pod, false, &BTreeMap::new()).unwrap();
            let (stdio, _streams) = pipes();
            let mut user = process(&["sleep", "1000"]);
            user["user"] = json!({"uid": 1000, "gid": 1000});
            let member = pod
                .start("c", member(&sandbox, user, false), stdio)
                .await
                .unwrap();
            let (stdio, _streams) = pipes();
            let command = pod
                .exec("c", process(&["sleep", "1000"]), stdio)
                .await
                .unwrap();
            let text = format!(
                "{} {} {} {} {}",
                sandbox.pid(),
                member.process.pid(),
                command.process.pid(),
                pod.cgroup,
                pod.dir.display()
            );
            kplay::sys::fs::replace(file.as_ref(), 0o600, text.as_bytes()).unwrap();
            std::future::pending::<()>().await;
        });
    }
    std::fs::create_dir(&folder).unwrap();
    let written = Watch::new().unwrap();
    written.add(&folder).unwrap();
    let mut executor = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(crate::fixture::INSIDE, "1")
        .env("KPLAY_PIDS_FILE", &file)
        .spawn()
        .unwrap();
    let process = PidFd::open(i32::try_from(executor.id()).unwrap()).unwrap();
    while !file.exists() {
        let ready = poll::readable(&[written.as_fd(), process.as_fd()], None).unwrap();
        assert_eq!(ready, [0], "the pod does not start");
        written.drain().unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    let [pids @ .., cgroup, dir] = words.as_slice() else {
        panic!("{text}");
    };
    let processes: Vec<PidFd> = pids
        .iter()
        .map(|pid| PidFd::open(pid.parse().unwrap()).unwrap())
        .collect();
    executor.kill().unwrap();
    executor.wait().unwrap();
    for process in &processes {
        assert!(has_ended(process), "process {} lives on", process.pid());
    }
    // What the next command does after an executor was killed.
    let cgroup = Hierarchies::open().unwrap().find(cgroup).unwrap();
    cgroup.kill().unwrap();
    cgroup.remove().unwrap();
    // Its mounts went with it.
    std::fs::remove_dir(dir).unwrap();
}
