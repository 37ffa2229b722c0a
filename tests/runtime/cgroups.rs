//! Limits, and the end of everything in a cgroup.

use std::time::Duration;

use kplay::runtime::SeccompProfile;
use kplay::sys::cgroup::{DevicePolicy, Limits};
use kplay::sys::pidfd::Exit;

use crate::fixture::{chain, isolated, pipes, process, shell, spec, wait};

#[test]
fn memory_runs_out() {
    isolated("cgroups::memory_runs_out", async |pod| {
        let limits = Limits {
            memory_bytes: Some(16 << 20),
            ..Limits::default()
        };
        let cgroup = pod.container_cgroup("c", &limits);
        let (stdio, _streams) = pipes();
        let hog = spec(process(&[
            "dd",
            "if=/dev/zero",
            "of=/dev/null",
            "bs=64M",
            "count=1",
        ]));
        let started = pod
            .start_in("c", hog, stdio, SeccompProfile::RuntimeDefault, &cgroup)
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        assert_eq!(wait(&started.process), Exit::Signal(9));
        assert_eq!(cgroup.oom_kills().unwrap(), 1);
    });
}

#[test]
fn limits_hold() {
    isolated("cgroups::limits_hold", async |pod| {
        let limits = Limits {
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            memory_bytes: Some(64 << 20),
            // The helper counts too, until it has gone.
            pids: Some(10),
            devices: DevicePolicy::Default { and: Vec::new() },
            ..Limits::default()
        };
        let cgroup = pod.container_cgroup("c", &limits);
        let (stdio, streams) = pipes();
        let script = "mknod /tmp/disk b 7 0; cat /tmp/disk; cat /dev/zero | head -c 3 | wc -c; \
             mknod /tmp/mem c 1 1; cat /tmp/mem; \
             for i in $(seq 12); do sleep 100 & done";
        let started = pod
            .start_in(
                "c",
                spec(shell(script)),
                stdio,
                SeccompProfile::RuntimeDefault,
                &cgroup,
            )
            .await
            .unwrap();
        wait(&started.process);
        let (out, err) = streams.read();
        assert_eq!(out, "3\n");
        assert!(
            err.contains("can't open '/tmp/disk': Operation not permitted"),
            "{err}"
        );
        assert!(
            err.contains("can't open '/tmp/mem': Operation not permitted"),
            "{err}"
        );
        assert!(err.contains("can't fork"), "{err}");
        assert!(cgroup.cpu_usage().unwrap().unwrap() > 0);
        assert!(cgroup.memory_current().unwrap().is_some());
        assert_eq!(cgroup.pids_current().unwrap(), Some(0));
    });
}

#[test]
fn everything_in_it_is_killed() {
    isolated("cgroups::everything_in_it_is_killed", async |pod| {
        let (stdio, streams) = pipes();
        // Leaves the session, and keeps making processes.
        let script = "setsid sleep 1000 & while true; do sleep 0.01 & echo; done";
        let mut host = spec(shell(script));
        // In the host's pid namespace nothing but the cgroup holds them together.
        host["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .retain(|namespace| namespace["type"] != "pid");
        let started = pod
            .start("c", host, stdio)
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        let cgroup = pod.hierarchies.find(&pod.cgroup).unwrap();
        streams.line();
        assert!(cgroup.pids().unwrap().len() > 1);
        assert!(!cgroup.wait_empty(Duration::from_millis(1)).unwrap());
        cgroup.kill().unwrap();
        assert!(cgroup.wait_empty(Duration::from_secs(10)).unwrap());
        assert_eq!(wait(&started.process), Exit::Signal(9));
        cgroup.remove().unwrap();
        cgroup.remove().unwrap();
        assert!(pod.hierarchies.find(&pod.cgroup).is_none());
        assert!(cgroup.pids().unwrap().is_empty());
        streams.read();
    });
}

#[test]
fn one_with_processes_is_not_removed() {
    isolated("cgroups::one_with_processes_is_not_removed", async |pod| {
        let (stdio, _streams) = pipes();
        let _main = pod
            .start("c", spec(process(&["sleep", "1000"])), stdio)
            .await
            .unwrap();
        let error = pod
            .hierarchies
            .find(&pod.cgroup)
            .unwrap()
            .remove()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("processes in the cgroup `{}` do not die", pod.cgroup)
        );
    });
}

#[test]
fn paths_do_not_leave_the_hierarchy() {
    isolated("cgroups::paths_do_not_leave_the_hierarchy", async |pod| {
        for path in ["../x", "/x", "a//b", ""] {
            pod.hierarchies
                .create(path, &Limits::default())
                .unwrap_err();
            assert!(pod.hierarchies.find(path).is_none());
        }
    });
}

/// A program sees its own cgroup as the root, if the specification mounts version 2.
#[test]
fn the_container_sees_its_own() {
    isolated("cgroups::the_container_sees_its_own", async |pod| {
        let mut spec = spec(shell(
            "grep ^0: /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs; ls /sys/fs/cgroup | wc -l",
        ));
        let mount = serde_json::json!({"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]});
        spec["mounts"].as_array_mut().unwrap().push(mount);
        let (out, err, _) = pod.run("c", spec).await;
        assert!(out.starts_with("0::/\n1\n"), "{out}{err}");
    });
}
