//! Running commands in containers.

use kplay::runtime::Stdio;
use kplay::sys::pidfd::Exit;
use serde_json::json;
use std::io::Read as _;

use crate::fixture::{chain, isolated, pipes, process, shell, spec, wait};

#[test]
fn output_and_exit_code() {
    isolated("exec::output_and_exit_code", async |pod| {
        let (stdio, _streams) = pipes();
        let _main = pod
            .start("c", spec(process(&["sleep", "1000"])), stdio)
            .await
            .unwrap();
        let (out, err, exit) = pod
            .run_exec("c", shell("echo out; echo err >&2; exit 7"))
            .await;
        assert_eq!(
            (out.as_str(), err.as_str(), exit),
            ("out\n", "err\n", Exit::Code(7))
        );
        let (out, ..) = pod
            .run_exec("c", shell("cat /proc/1/cmdline | tr '\\0' ' '; hostname"))
            .await;
        assert_eq!(out, "sleep 1000 test\n");
        // Nothing is left of them.
        let mut left: Vec<_> = std::fs::read_dir(pod.state().join("c"))
            .unwrap()
            .chain(std::fs::read_dir(pod.state()).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            ["c", "notify.sock", "state.json", "youki_config.json"]
        );
    });
}

#[test]
fn it_is_confined_as_the_container() {
    isolated("exec::it_is_confined_as_the_container", async |pod| {
        let (stdio, _streams) = pipes();
        let _main = pod
            .start("c", spec(process(&["sleep", "1000"])), stdio)
            .await
            .unwrap();
        let script = "grep -E '^(Uid|Groups|Seccomp|NoNewPrivs|CapEff|CapBnd|SigIgn):' /proc/self/status | tr '\\t\\n' ' ;'";
        for no_new_privileges in [json!(true), json!(false), json!(null)] {
            let mut command = shell(script);
            command["user"] = json!({"uid": 1000, "gid": 1000});
            command["noNewPrivileges"] = no_new_privileges.clone();
            let (out, err, _) = pod.run_exec("c", command).await;
            let set = u8::from(no_new_privileges == json!(true));
            assert_eq!(
                out,
                format!(
                    "Uid: 1000 1000 1000 1000;Groups:  ;SigIgn: 0000000000000000;CapEff: 0000000000000000;\
                     CapBnd: 00000000a80425fb;NoNewPrivs: {set};Seccomp: 2;"
                ),
                "{err}"
            );
        }
        let mut command = shell("echo $HOME $PATH; echo again > /dev/stdout");
        command["user"] = json!({"uid": 1000, "gid": 1000});
        command["env"] = json!([]);
        let (out, ..) = pod.run_exec("c", command).await;
        assert_eq!(
            out,
            "/srv/app /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nagain\n"
        );
    });
}

#[test]
fn what_cannot_be_executed() {
    isolated("exec::what_cannot_be_executed", async |pod| {
        let (stdio, _streams) = pipes();
        let _main = pod
            .start("c", spec(process(&["sleep", "1000"])), stdio)
            .await
            .unwrap();
        let check = async |command, expected: &str| {
            let (stdio, _streams) = pipes();
            let error = pod.exec("c", command, stdio).await.unwrap_err();
            assert_eq!(chain(&error), expected);
        };
        check(
            process(&["nothing"]),
            "there is no program `nothing` in the container",
        )
        .await;
        check(
            process(&["/etc/readme"]),
            "the container's program `/etc/readme` cannot be executed: Permission denied (os error 13)",
        )
        .await;
        let mut lost = process(&["true"]);
        lost["cwd"] = json!("/nowhere");
        check(
            lost,
            "the working directory \"/nowhere\" cannot be entered: ENOENT",
        )
        .await;
        // The container is none the worse for it.
        assert_eq!(pod.run_exec("c", process(&["true"])).await.2, Exit::Code(0));
    });
}

#[test]
fn a_terminal() {
    isolated("exec::a_terminal", async |pod| {
        let (stdio, _streams) = pipes();
        let _main = pod
            .start("c", spec(process(&["sleep", "1000"])), stdio)
            .await
            .unwrap();
        let stdio = Stdio::Terminal {
            rows: 5,
            columns: 70,
        };
        let started = pod
            .exec("c", shell("stty size; tty"), stdio)
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        let mut terminal = std::fs::File::from(started.terminal.unwrap());
        let mut text = Vec::new();
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = terminal.read(&mut buffer) {
            text.extend(&buffer[..length]);
        }
        assert_eq!(String::from_utf8(text).unwrap(), "5 70\r\n/dev/pts/0\r\n");
        assert_eq!(wait(&started.process), Exit::Code(0));
    });
}

#[test]
fn a_container_that_has_ended() {
    isolated("exec::a_container_that_has_ended", async |pod| {
        let (stdio, _streams) = pipes();
        let main = pod
            .start("c", spec(process(&["true"])), stdio)
            .await
            .unwrap();
        wait(&main.process);
        let (stdio, _streams) = pipes();
        pod.exec("c", process(&["true"]), stdio).await.unwrap_err();
    });
}
