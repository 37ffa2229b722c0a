//! `exec -it` on a real terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::Kplay;
use crate::faulty::{Fault, FaultyRegistry};
use crate::fixtures::{Registry, noise_archive};
use crate::harness::script_pod;
use crate::wait;

/// A terminal with a program in it.
struct Terminal {
    master: File,
    program: Child,
    seen: String,
}

impl Terminal {
    /// Runs `command` as the leader of a new session that this terminal controls.
    fn run(command: &Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("ours");
        unlockpt(&master).expect("ours");
        let master = File::from(master);
        resize(&master, rows, columns);
        let name = ptsname(&master, Vec::new()).expect("a name");
        let name = name.to_str().expect("a readable name");
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .open(name)
                .expect("the other side")
        };
        let mut session = Command::new("setsid");
        session
            .args(["--ctty", "--wait"])
            .arg(command.get_program());
        session.args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            session.env(name, value.unwrap_or_default());
        }
        let program = session
            .env("TERM", "xterm")
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("setsid of util-linux");
        Self {
            master,
            program,
            seen: String::new(),
        }
    }

    fn write(&mut self, text: &str) {
        self.master
            .write_all(text.as_bytes())
            .expect("a terminal that reads");
    }

    /// Reads until `text` has been seen.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let start = std::time::Instant::now();
        while !self.seen.contains(text) {
            assert!(
                start.elapsed() < wait::PATIENCE,
                "no `{text}` in {:?}",
                self.seen
            );
            assert!(self.read_some(), "ended without `{text}`: {:?}", self.seen);
        }
    }

    /// False at the end, which a terminal tells with an error.
    fn read_some(&mut self) -> bool {
        if !wait::readable(&self.master, wait::PATIENCE) {
            return true;
        }
        let mut buffer = [0; 4096];
        match self.master.read(&mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.seen
                    .push_str(&String::from_utf8_lossy(&buffer[..count]));
                true
            }
        }
    }

    fn exit_code(mut self) -> Option<i32> {
        while self.read_some() {}
        self.program.wait().expect("our own child").code()
    }
}

fn resize(master: &File, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).expect("a terminal");
}

#[test]
fn a_shell_on_a_terminal_that_changes_its_size() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod("box", "terminationGracePeriodSeconds: 0,", "", "sleep 1000");
    kplay.apply(&pod).succeeds();
    let script = "tty; stty size; echo ready; read line; echo \"got $line\"; \
                  until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; exit 6";
    let command = kplay
        .command(["exec", "-it", "box", "--", "sh", "-c", script])
        .std();
    let mut terminal = Terminal::run(&command, 24, 80);
    terminal.expect("/dev/pts/0");
    terminal.expect("24 80");
    terminal.expect("ready");
    resize(&terminal.master, 50, 132);
    terminal.write("hello\n");
    terminal.expect("got hello");
    assert_eq!(terminal.exit_code(), Some(6));
}

#[test]
fn a_terminal_of_a_pod_with_users_of_its_own() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = "hostUsers: false, terminationGracePeriodSeconds: 0,";
    let user = "securityContext: {runAsUser: 1000},";
    kplay
        .apply(&script_pod("box", pod, user, "sleep 1000"))
        .succeeds();
    let script = "stat -c 'of %u' $(tty); stty size; echo again > $(tty); exit 6";
    let command = kplay
        .command(["exec", "-it", "box", "--", "sh", "-c", script])
        .std();
    let mut terminal = Terminal::run(&command, 24, 80);
    for text in ["of 1000", "24 80", "again"] {
        terminal.expect(text);
    }
    assert_eq!(terminal.exit_code(), Some(6));
}

#[test]
fn control_c_is_for_the_command_in_the_container() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = script_pod("box", "terminationGracePeriodSeconds: 0,", "", "sleep 1000");
    kplay.apply(&pod).succeeds();
    let script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let command = kplay
        .command(["exec", "-it", "box", "--", "sh", "-c", script])
        .std();
    let mut terminal = Terminal::run(&command, 24, 80);
    terminal.expect("ready");
    terminal.write("\u{3}");
    terminal.expect("interrupted");
    assert_eq!(terminal.exit_code(), Some(9));
}

#[test]
fn attaching_to_a_containers_own_terminal() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let script = "while read line; do case $line in size) stty size;; end) exit 4;; *) echo got $line;; esac; done";
    let pod = script_pod(
        "screen",
        "terminationGracePeriodSeconds: 0,",
        "stdin: true, tty: true,",
        script,
    );
    kplay.apply(&pod).succeeds();
    let command = kplay.command(["attach", "-it", "screen"]).std();
    let mut terminal = Terminal::run(&command, 33, 77);
    terminal.expect("press");
    terminal.write("size\r");
    terminal.expect("33 77");
    resize(&terminal.master, 50, 132);
    // The change travels beside the words.
    let start = std::time::Instant::now();
    while !terminal.seen.contains("50 132") && start.elapsed() < wait::PATIENCE {
        terminal.write("size\r");
        assert!(terminal.read_some(), "{}", terminal.seen);
    }
    terminal.write("hello\r");
    terminal.expect("got hello");
    terminal.write("end\r");
    assert_eq!(terminal.exit_code(), Some(0));
    let log = kplay.run(["logs", "screen"]).succeeds();
    assert!(log.contains("got hello"), "{log}");
}

#[test]
fn login_asks_for_what_it_does_not_show() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::with_password();
    let host = format!("127.0.0.1:{}", registry.port);
    let login = || {
        let call = kplay.command(["login", &host]);
        let command = call.env("XDG_RUNTIME_DIR", kplay.dir()).std();
        let mut terminal = Terminal::run(&command, 24, 80);
        terminal.expect("Username: ");
        terminal.write("user\n");
        terminal.expect("Password: ");
        terminal
    };
    let mut terminal = login();
    terminal.write("secret\x03");
    assert_eq!(terminal.exit_code(), Some(130));
    let mut terminal = login();
    terminal.write("secrex\x7ft\r");
    terminal.expect("Login Succeeded!");
    assert!(!terminal.seen.contains("secre"), "{}", terminal.seen);
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn a_short_name_that_several_registries_may_have_is_asked_about() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let host = format!("127.0.0.1:{}", registry.port);
    let conf = kplay.file(
        "registries.conf",
        format!("unqualified-search-registries = ['127.0.0.1:1', '{host}']\nshort-name-mode = 'enforcing'\n"),
    );
    let pull = || {
        let call = kplay.command(["pull", "test/busybox:gzip"]);
        call.env("CONTAINERS_REGISTRIES_CONF", &conf)
    };
    let both = [
        "127.0.0.1:1/test/busybox:gzip",
        &format!("{host}/test/busybox:gzip"),
    ];
    // Nobody is there to answer.
    pull().run().fails(4, &both);
    // What was answered is kept where podman keeps it: for this test in memory.
    let script = "mount -t tmpfs none /var/cache && \"$@\" && cat /var/cache/containers/short-name-aliases.conf";
    let command = pull().through(["unshare", "--mount", "sh", "-c", script, "sh"]);
    let mut terminal = Terminal::run(&command.std(), 24, 80);
    terminal.expect(&format!("   2  {}", both[1]));
    terminal.expect("Number (1): ");
    terminal.write("3\n");
    terminal.expect("Number (1): ");
    terminal.write("2\n");
    terminal.expect("sha256:");
    terminal.expect(&format!("\"test/busybox\" = \"{host}/test/busybox\""));
    assert_eq!(terminal.exit_code(), Some(0));
    let listed = kplay.run(["images"]).succeeds();
    assert!(listed.contains(&format!("{host}/test/busybox")), "{listed}");
}

#[test]
fn a_pull_draws_its_layers_and_leaves_one_line() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let faulty = FaultyRegistry::before(registry.port);
    let manifest = registry.manifest("gzip");
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest");
    let image = format!("127.0.0.1:{}/test/busybox:gzip", faulty.port);
    for columns in [100, 30, 1] {
        drop(kplay.run(["rmi", &image]));
        faulty.plan(layer, 1, Fault::Slow(25));
        let command = kplay.command(["pull", &image]).std();
        let mut terminal = Terminal::run(&command, 24, columns);
        if columns > 1 {
            terminal.expect("pulling 127");
        }
        if columns == 100 {
            terminal.expect("MB, ");
            // What was drawn before takes more rows now.
            resize(&terminal.master, 24, 20);
            terminal.expect("A\u{1b}[J");
        }
        terminal.expect("pulled 127.0.0.1");
        terminal.expect("sha256:");
        let drawn = terminal.seen.clone();
        assert_eq!(terminal.exit_code(), Some(0));
        let last = drawn.rsplit("\u{1b}[J").next().expect("the end");
        assert!(last.starts_with(&format!("pulled {image}")), "{drawn:?}");
    }
}

#[test]
fn a_pull_of_several_layers_has_a_bar_for_each() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let faulty = FaultyRegistry::before(registry.port);
    let archives = ["one", "two", "three"].map(|name| noise_archive(kplay.dir(), name, 400_000));
    let layers = registry.tag_with_layers("gzip", "layers", &archives);
    for layer in &layers {
        faulty.plan(layer, 1, Fault::Slow(25));
    }
    let image = format!("127.0.0.1:{}/test/busybox:layers", faulty.port);
    let command = kplay.command(["pull", &image]).std();
    let mut terminal = Terminal::run(&command, 24, 100);
    terminal.expect("pulled 127.0.0.1");
    terminal.expect("sha256:");
    let drawn = terminal.seen.clone();
    assert_eq!(terminal.exit_code(), Some(0));
    let bar_of = |line: &str, layer: &str| {
        let name = &layer["sha256:".len()..][..12];
        line.starts_with(&format!("  {name}  [")) && line.contains("] ") && line.contains("kB")
    };
    let has_all = |frame: &str| {
        let lines: Vec<&str> = frame.lines().map(str::trim_end).collect();
        let headed = lines
            .first()
            .is_some_and(|line| line.starts_with("pulling 127"));
        let mut bars = layers
            .iter()
            .map(|layer| lines.iter().any(|line| bar_of(line, layer)));
        headed && bars.all(|there| there)
    };
    assert!(drawn.split("\u{1b}[J").any(has_all), "{drawn:?}");
    let last = drawn.rsplit("\u{1b}[J").next().expect("the end");
    assert_eq!(
        last.lines().count(),
        2,
        "one line of it, and the id: {drawn:?}"
    );
}
