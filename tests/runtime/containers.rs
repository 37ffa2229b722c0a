//! Starting containers.

use std::io::{Read as _, Write as _};
use std::rc::Rc;

use kplay::runtime::{ProfileFile, SeccompProfile, Stdio, rootfs};
use kplay::sys::cgroup::Limits;
use kplay::sys::pidfd::Exit;
use kplay::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::{chain, isolated, pipes, process, shell, spec, wait};

#[test]
fn output_and_exit_code() {
    isolated("containers::output_and_exit_code", async |pod| {
        let (out, err, exit) = pod
            .run("c", spec(shell("echo out; echo err >&2; exit 42")))
            .await;
        assert_eq!(
            (out.as_str(), err.as_str(), exit),
            ("out\n", "err\n", Exit::Code(42))
        );
        // The same id again.
        let (out, _, exit) = pod
            .run(
                "c",
                spec(shell("cat /proc/self/comm; sh -c 'kill -SEGV $$'; exit $?")),
            )
            .await;
        assert_eq!((out.as_str(), exit), ("cat\n", Exit::Code(139)));
    });
}

#[test]
fn a_signal_ends_it() {
    isolated("containers::a_signal_ends_it", async |pod| {
        let (stdio, _streams) = pipes();
        let started = pod
            .start("c", spec(process(&["sleep", "1000"])), stdio)
            .await
            .unwrap();
        started.process.signal(Signal::KILL).unwrap();
        assert_eq!(wait(&started.process), Exit::Signal(9));
        assert_eq!(Exit::Signal(9).code(), 137);
    });
}

#[test]
fn stdin_reaches_it() {
    isolated("containers::stdin_reaches_it", async |pod| {
        let (stdio, streams) = pipes();
        let started = pod
            .start("c", spec(shell("read line; echo got $line")), stdio)
            .await
            .unwrap();
        std::fs::File::from(streams.stdin.try_clone().unwrap())
            .write_all(b"hello\n")
            .unwrap();
        assert_eq!(wait(&started.process), Exit::Code(0));
        assert_eq!(streams.read().0, "got hello\n");
    });
}

/// What a process sees of itself.
#[test]
fn the_process_is_as_specified() {
    isolated("containers::the_process_is_as_specified", async |pod| {
        let status = "grep -E '^(Uid|Gid|Groups|Seccomp|NoNewPrivs|CapEff|CapBnd|CapAmb|SigIgn|SigBlk):' /proc/self/status \
             | tr '\\t\\n' ' ;'";
        let check = async |name: &str, change: &dyn Fn(&mut Value), expected: &str| {
            let mut process = shell(status);
            change(&mut process);
            let (out, err, _) = pod.run("c", spec(process)).await;
            assert_eq!(out, expected, "{name}: {err}");
        };
        let default = "CapEff: 00000000a80425fb;CapBnd: 00000000a80425fb;CapAmb: 0000000000000000;";
        let signals = "SigBlk: 0000000000000000;SigIgn: 0000000000000000;";
        let root = "Uid: 0 0 0 0;Gid: 0 0 0 0;Groups:  ;";
        check(
            "root",
            &|_| {},
            &format!("{root}{signals}{default}NoNewPrivs: 0;Seccomp: 2;"),
        )
        .await;
        check(
            "no new privileges",
            &|process| process["noNewPrivileges"] = json!(true),
            &format!("{root}{signals}{default}NoNewPrivs: 1;Seccomp: 2;"),
        )
        .await;
        check(
            "privileges explicitly allowed",
            &|process| process["noNewPrivileges"] = json!(false),
            &format!("{root}{signals}{default}NoNewPrivs: 0;Seccomp: 2;"),
        )
        .await;
        let user = "Uid: 1000 1000 1000 1000;Gid: 1000 1000 1000 1000;Groups: 7 50 ;";
        let none = "CapEff: 0000000000000000;CapBnd: 00000000a80425fb;CapAmb: 0000000000000000;";
        check(
            "a user",
            &|process| {
                process["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [7, 50]});
            },
            &format!("{user}{signals}{none}NoNewPrivs: 0;Seccomp: 2;"),
        )
        .await;
        check(
            "nothing allowed",
            &|process| {
                process["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [7, 50]});
                process["capabilities"] = json!({"bounding": [], "effective": [], "permitted": []});
            },
            &format!(
                "{user}{signals}CapEff: 0000000000000000;CapBnd: 0000000000000000;CapAmb: 0000000000000000;\
                 NoNewPrivs: 0;Seccomp: 2;"
            ),
        )
        .await;
        let (out, ..) = pod
            .run(
                "c",
                spec(shell(
                    "ls /proc/self/fd | wc -l; ls -l /proc/self/fd | grep -c -E 'socket|memfd'",
                )),
            )
            .await;
        // 0, 1, 2, and the folder itself.
        assert_eq!(out, "4\n0\n");
    });
}

#[test]
fn unconfined_and_custom_profiles() {
    isolated("containers::unconfined_and_custom_profiles", async |pod| {
        let check = async |profile: SeccompProfile, script: &str, expected: &str| {
            let cgroup = pod.container_cgroup("c", &Limits::default());
            let (stdio, streams) = pipes();
            let started = pod
                .start_in("c", spec(shell(script)), stdio, profile, &cgroup)
                .await
                .unwrap();
            wait(&started.process);
            let (out, err) = streams.read();
            assert_eq!(out + &err, expected);
            pod.end("c");
        };
        check(
            SeccompProfile::Unconfined,
            "grep ^Seccomp: /proc/self/status",
            "Seccomp:\t0\n",
        )
        .await;
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]}"#;
        check(
            SeccompProfile::Custom(Rc::new(ProfileFile::parse(profile.as_bytes()).unwrap())),
            "mkdir /x",
            "mkdir: can't create directory '/x': Read-only file system\n",
        )
        .await;
        check(
            SeccompProfile::RuntimeDefault,
            "unshare -U true",
            "unshare: unshare(0x10000000): Operation not permitted\n",
        )
        .await;
    });
}

#[test]
fn environment_and_folder() {
    isolated("containers::environment_and_folder", async |pod| {
        let mut process = shell("env | grep -v SHLVL | sort; pwd; stat -c '%a %u' .");
        process["env"] = json!(["B=2", "A=x=y"]);
        process["cwd"] = json!("/new/folder");
        process["user"] = json!({"uid": 1000, "gid": 1000});
        let (out, err, _) = pod.run("c", spec(process)).await;
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(
            out,
            format!("A=x=y\nB=2\nHOME=/srv/app\n{path}\nPWD=/new/folder\n/new/folder\n755 0\n"),
            "{err}"
        );
    });
}

#[test]
fn a_missing_folder_in_a_volume_is_made_there() {
    isolated(
        "containers::a_missing_folder_in_a_volume_is_made_there",
        async |pod| {
            let volume = pod.dir.join("volume");
            std::fs::create_dir(&volume).unwrap();
            let mut process = shell("pwd");
            process["cwd"] = json!("/vol/a/b");
            let mut spec = spec(process);
            let mount = json!({"destination": "/vol", "type": "bind", "source": volume, "options": ["rbind", "rw"]});
            spec["mounts"].as_array_mut().unwrap().push(mount);
            assert_eq!(pod.run("c", spec).await.0, "/vol/a/b\n");
            assert!(volume.join("a/b").is_dir());
        },
    );
}

#[test]
fn what_cannot_be_executed() {
    isolated("containers::what_cannot_be_executed", async |pod| {
        let check = async |process: Value, expected: &str, code: Option<u8>| {
            let (stdio, _streams) = pipes();
            let error = pod.start("c", spec(process), stdio).await.unwrap_err();
            assert_eq!(
                (chain(&error).as_str(), error.shell_code()),
                (expected, code)
            );
            assert!(!pod.state().join("c").exists());
            pod.end("c");
        };
        check(
            process(&["nothing"]),
            "there is no program `nothing` in the container",
            Some(127),
        )
        .await;
        check(
            process(&["/bin/nothing"]),
            "there is no program `/bin/nothing` in the container",
            Some(127),
        )
        .await;
        check(
            process(&["/etc/readme"]),
            "the container's program `/etc/readme` cannot be executed: Permission denied (os error 13)",
            Some(126),
        )
        .await;
        check(
            process(&["/bin"]),
            "the container's program `/bin` cannot be executed: Permission denied (os error 13)",
            Some(126),
        )
        .await;
        let mut file = process(&["pwd"]);
        file["cwd"] = json!("/etc/readme");
        check(
            file,
            "the working directory \"/etc/readme\" cannot be entered: ENOTDIR",
            None,
        )
        .await;
        let mut no_path = process(&["sh"]);
        no_path["env"] = json!(["PATH=/sbin"]);
        check(
            no_path,
            "there is no program `sh` in the container",
            Some(127),
        )
        .await;
    });
}

#[test]
fn what_is_no_program() {
    isolated("containers::what_is_no_program", async |pod| {
        let program = pod.dir.join("layer/bin/data");
        std::fs::write(&program, b"\x01\x02 no program").unwrap();
        std::fs::set_permissions(
            &program,
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let script = pod.dir.join("layer/bin/script");
        std::fs::write(&script, b"#!/no/interpreter\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let (stdio, _streams) = pipes();
        let error = pod
            .start("c", spec(process(&["data"])), stdio)
            .await
            .unwrap_err();
        assert_eq!(
            chain(&error),
            "the container's program `data` cannot be executed: Exec format error (os error 8)"
        );
        pod.end("c");
        let (stdio, _streams) = pipes();
        let error = pod
            .start("c", spec(process(&["script"])), stdio)
            .await
            .unwrap_err();
        assert_eq!(
            chain(&error),
            "there is no program `script` in the container"
        );
    });
}

#[test]
fn libcontainers_own_words() {
    isolated("containers::libcontainers_own_words", async |pod| {
        let mut spec = spec(process(&["true"]));
        let mount = json!({"destination": "/vol", "type": "bind", "source": "/no/such/source", "options": ["rbind"]});
        spec["mounts"].as_array_mut().unwrap().push(mount);
        let (stdio, _streams) = pipes();
        let error = pod.start("c", spec, stdio).await.unwrap_err();
        assert!(
            chain(&error).contains("/no/such/source"),
            "{}",
            chain(&error)
        );
    });
}

#[test]
fn streams_can_be_opened_again() {
    isolated("containers::streams_can_be_opened_again", async |pod| {
        let mut process = shell("echo out > /dev/stdout; echo err > /dev/stderr");
        process["user"] = json!({"uid": 1000, "gid": 1000});
        let (out, err, _) = pod.run("c", spec(process)).await;
        assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    });
}

#[test]
fn a_terminal() {
    isolated("containers::a_terminal", async |pod| {
        let mut process =
            shell("stty size; tty; echo again > /dev/stdout; test -t 0 && test -t 1 && test -t 2");
        process["user"] = json!({"uid": 1000, "gid": 1000});
        let stdio = Stdio::Terminal {
            rows: 33,
            columns: 99,
        };
        let started = pod
            .start("c", spec(process), stdio)
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        let mut terminal = std::fs::File::from(started.terminal.unwrap());
        let mut text = Vec::new();
        let mut buffer = [0; 256];
        // The last reader of a terminal gets EIO, not the end of file.
        while let Ok(length @ 1..) = terminal.read(&mut buffer) {
            text.extend(&buffer[..length]);
        }
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "33 99\r\n/dev/pts/0\r\nagain\r\n"
        );
        assert_eq!(wait(&started.process), Exit::Code(0));
        let left: Vec<_> = std::fs::read_dir(pod.state())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["c"]);
    });
}

#[test]
fn the_binary_cannot_be_overwritten() {
    isolated(
        "containers::the_binary_cannot_be_overwritten",
        async |pod| {
            // Process 1 of the container is kplay until it executes its program; what a program would see of it:
            let program = pod.dir.join("kplay");
            // Not by trying to write: while another test runs the same file, that fails for another reason.
            let mount = rustix::fs::statvfs(&program).unwrap();
            assert!(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
            let (out, ..) = pod
                .run("c", spec(process(&["readlink", "/proc/1/exe"])))
                .await;
            assert_eq!(out, "/bin/busybox\n");
        },
    );
}

#[test]
fn two_hundred_layers() {
    isolated("containers::two_hundred_layers", async |pod| {
        let layers: Vec<_> = (0..200)
            .map(|number| {
                let layer = pod
                    .dir
                    .join("layers")
                    .join(format!("{number},:{}", "y".repeat(50)));
                std::fs::create_dir_all(&layer).unwrap();
                std::fs::write(layer.join("top"), number.to_string()).unwrap();
                layer
            })
            .collect();
        for folder in ["upper", "work", "rootfs"] {
            std::fs::create_dir_all(pod.dir.join("deep").join(folder)).unwrap();
        }
        let deep = |name: &str| pod.dir.join("deep").join(name);
        rootfs::mount(
            &layers,
            &deep("upper"),
            &deep("work"),
            &deep("rootfs"),
            None,
        )
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
        assert_eq!(std::fs::read_to_string(deep("rootfs/top")).unwrap(), "199");
        rootfs::unmount(&deep("rootfs")).unwrap();
        rootfs::unmount(&deep("rootfs")).unwrap();
    });
}

#[test]
fn several_at_once() {
    isolated("containers::several_at_once", async |pod| {
        let one = async |id: &str, code: u8| {
            let (stdio, streams) = pipes();
            let script = format!("echo {id}; exit {code}");
            let started = pod.start(id, spec(shell(&script)), stdio).await.unwrap();
            // Reaping at any time leaves those alone that are waited for.
            pod.reaper.reap().unwrap();
            let exit = wait(&started.process);
            assert_eq!(
                (streams.read().0, exit),
                (format!("{id}\n"), Exit::Code(code))
            );
        };
        tokio::join!(one("a", 1), one("b", 2), one("c", 3), one("d", 4));
    });
}

#[test]
fn a_very_large_environment() {
    isolated("containers::a_very_large_environment", async |pod| {
        let mut process = shell("echo ${#BIG}");
        process["env"] = json!(["PATH=/bin", format!("BIG={}", "x".repeat(100_000))]);
        assert_eq!(pod.run("c", spec(process)).await.0, "100000\n");
        // Longer than any message.
        let name = "n".repeat(100_000);
        let (stdio, _streams) = pipes();
        let error = pod
            .start("c", spec(crate::fixture::process(&[&name])), stdio)
            .await
            .unwrap_err();
        assert_eq!(error.shell_code(), Some(127), "{}", chain(&error));
    });
}
