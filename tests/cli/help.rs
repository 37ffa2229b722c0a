//! Help texts, and what clap says of a wrong command line. A snapshot keeps them: `INSTA_UPDATE=always` writes it anew.

use crate::harness::Kplay;

const COMMANDS: [&str; 39] = [
    "",
    "apply",
    "up",
    "down",
    "delete",
    "check",
    "explain",
    "get",
    "ps",
    "describe",
    "top",
    "logs",
    "exec",
    "wait",
    "image",
    "image pull",
    "image ls",
    "image rm",
    "image load",
    "login",
    "logout",
    "volume",
    "volume ls",
    "volume inspect",
    "volume rm",
    "volume prune",
    "generate",
    "generate systemd",
    "system",
    "system doctor",
    "system info",
    "system reset",
    "pull",
    "images",
    "rmi",
    "load",
    "version",
    "completion",
    "man",
];

#[test]
fn help_texts() {
    let kplay = Kplay::new();
    let mut texts = String::new();
    for command in COMMANDS {
        let run = kplay.run(&format!("{command} --help"));
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{command}");
        // What every command has is shown once.
        let (own, global) = run
            .stdout
            .split_once("\nGlobal options:")
            .expect("is there");
        let shown = if command.is_empty() { &run.stdout } else { own };
        assert!(global.contains("--root"), "{command}");
        texts.push_str(&format!(
            "$ kplay {command} --help\n{}\n\n",
            shown.trim_end()
        ));
    }
    insta::with_settings!({snapshot_path => "../../testdata/cli", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("help", texts);
    });
}

#[test]
fn usage_errors() {
    let kplay = Kplay::new();
    let check = |line: &str, word: &str| {
        let run = kplay.run(line);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(2), ""),
            "{line}: {run}"
        );
        assert!(run.stderr.contains(word), "{line}: {run}");
    };
    check("", "Usage: kplay");
    check("frobnicate", "frobnicate");
    check("internal frobnicate", "internal");
    check("apply --no-such-flag x.yaml", "--no-such-flag");
    check("apply", "no manifest is named");
    check("apply x.yaml --timeout 30", "a unit is missing");
    check("apply x.yaml --timeout 1fortnight", "not a duration");
    check("apply x.yaml --wait=later", "later");
    check("apply x.yaml --publish 80", "80");
    check("apply x.yaml --set-image web", "CONTAINER=IMAGE");
    check("apply x.yaml -n Not_A_Name", "Not_A_Name");
    check("apply x.yaml -l =", "label requirement");
    check("exec web", "COMMAND");
    check("exec web true", "true");
    check("logs", "POD");
    check("logs web -c a --all-containers", "--all-containers");
    check("logs web -f -p", "--previous");
    check("wait web", "--for");
    check("wait web --for=ready", "condition=NAME");
    check("get pdos", "did you mean `pods`?");
    check("get nonsense", "nonsense");
    check("get pods,deploy web", "one type only");
    check("get pods -o xml", "jsonpath=TEMPLATE");
    check("get pods -o jsonpath={.a", "not closed");
    check("get pods -o custom-columns=NAME", "NAME:PATH");
    check("delete", "name what to delete");
    check("delete pod", "name what to delete");
    check("image pull UPPER", "lower case");
    check("volume rm", "NAME");
    check("pull busybox --creds nobody", "USER:PASSWORD");
    check("completion cobol", "cobol");
    check("get pods --color sometimes", "sometimes");
}
