//! `cp`: into and out of containers, whatever is in them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::Kplay;
use crate::harness::script_pod;
use crate::wait;

const QUICK: &str = "terminationGracePeriodSeconds: 0,";
const KEEP: &str = "while :; do sleep 1000; done";

/// kplay with a pod `box` that runs busybox.
fn boxed(pod: &str, container: &str) -> Option<Kplay> {
    let kplay = Kplay::with_busybox()?;
    let pod = format!("{QUICK} {pod}");
    kplay
        .apply(&script_pod("box", &pod, container, KEEP))
        .succeeds();
    Some(kplay)
}

fn read(kplay: &Kplay, name: &str) -> String {
    fs::read_to_string(kplay.dir().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn an_image_without_tar_will_do() {
    let Some(kplay) = Kplay::new() else { return };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {terminationGracePeriodSeconds: 0, containers: [{name: web, \
               image: kplay.local/toolbox, args: [http, --port, '8080']}]}\n";
    kplay.apply(pod).succeeds();
    kplay.file("note", "from here\n");
    let quiet = kplay.run(["cp", "note", "web:/note"]);
    assert_eq!(
        (quiet.code, &*quiet.stdout, &*quiet.stderr),
        (Some(0), "", "")
    );
    let there = kplay.run(["exec", "web", "--", "/toolbox", "cat", "/note"]);
    assert_eq!(there.succeeds(), "from here\n");
    kplay.run(["cp", "web:/note", "back"]).succeeds();
    assert_eq!(read(&kplay, "back"), "from here\n");
}

#[test]
fn trees_keep_what_they_are_and_get_the_owner_of_the_other_end() {
    let user = "workingDir: /work, securityContext: {runAsUser: 1234, runAsGroup: 77}, volumeMounts: [{name: v, mountPath: /work}],";
    let volume = "securityContext: {fsGroup: 77}, volumes: [{name: v, emptyDir: {}}],";
    let Some(kplay) = boxed(volume, user) else {
        return;
    };
    kplay.file("tree/sub/file", "content");
    kplay.file("tree/script", "#!/bin/sh\necho runs\n");
    let mode = |path: &str, mode| {
        let path = kplay.dir().join(path);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
    };
    mode("tree/script", 0o4755);
    mode("tree/sub", 0o2750);
    symlink("/etc/passwd", kplay.dir().join("tree/link")).expect("a link");
    kplay.run(["cp", "tree", "box:data"]).succeeds();
    let found = kplay.shell(
        "box",
        "cd /work/data; stat -c '%n %u %g %a' . script sub sub/file; readlink link; ./script",
    );
    let script = fs::metadata(kplay.dir().join("tree/script")).expect("ours");
    assert!(
        found.contains("script 1234 77 755\nsub 1234 77 750\nsub/file 1234 77 "),
        "{found}"
    );
    assert!(found.ends_with("/etc/passwd\nruns\n"), "{found}");
    // Into the folder that is there now, and only what is in it.
    kplay.run(["cp", "tree", "box:/work/data/"]).succeeds();
    kplay.run(["cp", "tree/sub/.", "box:data"]).succeeds();
    kplay.shell("box", "cmp /work/data/tree/sub/file /work/data/file");

    kplay.run(["cp", "box:data/", "."]).succeeds();
    kplay.run(["cp", "box:/work/data", "again"]).succeeds();
    for folder in ["data", "again"] {
        let folder = kplay.dir().join(folder);
        let copy = fs::metadata(folder.join("script")).expect("copied");
        let owner = fs::metadata(kplay.root()).expect("kplay's").uid();
        assert_eq!((copy.mode() & 0o7777, copy.uid()), (0o755, owner));
        assert_eq!(copy.mtime(), script.mtime());
        let link = fs::read_link(folder.join("tree/link")).expect("a link");
        assert_eq!(link, Path::new("/etc/passwd"));
    }
}

#[test]
fn pods_are_named_as_everywhere() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let two = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    \
               metadata: {labels: {a: b}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n        \
               - {name: first, image: 'localhost/busybox:1', command: [sleep, '1000']}\n        \
               - {name: second, image: 'localhost/busybox:1', command: [sleep, '1000']}\n";
    kplay.apply(two).succeeds();
    let other =
        script_pod("box", QUICK, "", KEEP).replace("{name: box", "{namespace: other, name: box");
    kplay.apply(&other).succeeds();
    kplay.file("note", "x");
    kplay
        .run(["cp", "-c", "second", "note", "deploy/web:/second"])
        .succeeds();
    kplay.run(["cp", "note", "web:/first"]).succeeds();
    let list = |container| {
        let words = [
            "exec",
            "web",
            "-c",
            container,
            "--",
            "sh",
            "-c",
            "ls -d /first /second 2>&1; true",
        ];
        kplay.run(words).succeeds()
    };
    let gone = |text: String| text.matches("No such file").count();
    assert_eq!((gone(list("first")), gone(list("second"))), (1, 1));
    // From one pod to another, by both ways to say a namespace.
    kplay
        .run(["cp", "-c", "first", "web:/first", "other/box:/got"])
        .fails(5, &["first"]);
    kplay.run(["cp", "web:/first", "other/box:/got"]).succeeds();
    kplay
        .run(["cp", "-n", "other", "box:/got", "got"])
        .succeeds();
    assert_eq!(read(&kplay, "got"), "x");

    kplay.run(["cp", "note", "none:/x"]).fails(5, &["none"]);
    kplay
        .run(["cp", "-c", "none", "note", "web:/x"])
        .fails(5, &["none", "first"]);
    kplay.run(["cp", "note", "there"]).fails(2, &["POD:PATH"]);
    kplay.run(["cp", "note", "web:"]).fails(2, &["POD:PATH"]);
    kplay
        .run(["cp", "web:/", "web:/copy"])
        .fails(2, &["into itself"]);
}

#[test]
fn what_is_missing_or_in_the_way_is_named() {
    let Some(kplay) = boxed("", "") else { return };
    kplay.file("note", "x");
    kplay
        .run(["cp", "box:/none/x", "."])
        .fails(5, &["`box:/none/x` is not there"]);
    kplay
        .run(["cp", "none", "box:/tmp"])
        .fails(5, &["`none` is not there"]);
    kplay
        .run(["cp", "note", "box:/none/x"])
        .fails(5, &["`box:/none` is not there"]);
    kplay
        .run(["cp", "note", "box:/none/"])
        .fails(5, &["`box:/none/` is not there"]);
    kplay
        .run(["cp", "box:/etc/passwd", "no/where"])
        .fails(5, &["`no` is not there"]);
    kplay
        .run(["cp", "box:/etc", "note"])
        .fails(4, &["`note` is there, and no folder"]);
    kplay
        .run(["cp", "note", "box:/etc/hosts"])
        .fails(4, &["`box:/etc/hosts` is a mount of its own"]);
    kplay.shell("box", "grep -q ' /etc/hosts ' /proc/self/mounts");
    kplay
        .run(["cp", "box:/proc/cpuinfo", "."])
        .fails(4, &["`box:/proc/cpuinfo` is the kernel's"]);
    kplay
        .run(["cp", "box:/dev/null", "."])
        .fails(4, &["`box:/dev/null` is a device"]);
    kplay.shell("box", "mkdir /d; mkfifo /d/fifo; echo x > /d/file");
    let run = kplay.run(["cp", "box:/d", "."]);
    assert!(
        run.stderr
            .contains("note: `box:/d/fifo` is a FIFO, and not copied"),
        "{run}"
    );
    run.succeeds();
    assert_eq!(read(&kplay, "d/file"), "x\n");

    let ended = script_pod("over", QUICK, "", "true");
    kplay.apply_with(&ended, ["--wait=complete"]).succeeds();
    let run = kplay.run(["cp", "over:/etc/passwd", "."]);
    assert_eq!(run.code, Some(4), "{run}");
    assert!(run.stderr.contains("over"), "{run}");
    let restarts = "containers: [{name: main, image: 'localhost/busybox:1', command: ['false']}, \
                    {name: other, image: 'localhost/busybox:1', command: [sleep, '1000']}]";
    let half = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: half}}\nspec: {{terminationGracePeriodSeconds: 0, restartPolicy: Never, {restarts}}}\n"
    );
    let run = kplay.apply(&half);
    assert!(matches!(run.code, Some(0 | 1)), "{run}");
    kplay.until("half", "it has failed", |status| {
        crate::harness::container(status, "main")["state"]["terminated"].is_object()
    });
    kplay
        .run(["cp", "-c", "main", "half:/etc/passwd", "."])
        .fails(4, &["`main` is not running", "volume"]);
}

#[test]
fn nobody_may_more_than_the_containers_user() {
    let volume = "volumes: [{name: v, emptyDir: {}}],";
    let user = "securityContext: {runAsUser: 1234}, volumeMounts: [{name: v, mountPath: /fixed, readOnly: true}],";
    let Some(kplay) = boxed(volume, user) else {
        return;
    };
    kplay.file("note", "x");
    kplay
        .run(["cp", "note", "box:/etc/note"])
        .fails(4, &["`box:/etc/note`", "Permission denied"]);
    kplay
        .run(["cp", "note", "box:/fixed"])
        .fails(4, &["`box:/fixed/note`", "Read-only file system"]);
    let fixed = script_pod(
        "fixed",
        QUICK,
        "securityContext: {readOnlyRootFilesystem: true},",
        KEEP,
    );
    kplay.apply(&fixed).succeeds();
    kplay
        .run(["cp", "note", "fixed:/note"])
        .fails(4, &["`fixed:/note`", "Read-only file system"]);
    // Root without its capabilities.
    let dropped = "securityContext: {capabilities: {drop: [ALL]}},";
    kplay
        .apply(&script_pod("weak", QUICK, dropped, KEEP))
        .succeeds();
    kplay.run(["cp", "note", "weak:/note"]).succeeds();

    let folder = kplay.dir().join("secrets");
    fs::create_dir(&folder).expect("a folder");
    for (name, mode) in [("open", 0o644), ("closed", 0o600)] {
        let path = kplay.file(&format!("secrets/{name}"), name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }
    let spec = format!(
        "{QUICK} volumes: [{{name: v, hostPath: {{path: {}}}}}],",
        folder.display()
    );
    let user = "securityContext: {runAsUser: 1234}, volumeMounts: [{name: v, mountPath: /v}],";
    kplay
        .apply(&script_pod("reader", &spec, user, KEEP))
        .succeeds();
    let words = ["cannot read `reader:/v/closed`", "the rest has been copied"];
    kplay.run(["cp", "reader:/v", "copy"]).fails(4, &words);
    assert_eq!(read(&kplay, "copy/open"), "open");
    assert!(!kplay.dir().join("copy/closed").exists());
}

#[test]
fn a_containers_links_lead_nowhere_but_into_it() {
    let Some(kplay) = boxed("", "") else { return };
    let secret = kplay.file("secret/file", "the machine's");
    let folder = secret.parent().expect("a folder").display().to_string();
    kplay.file("note", "x");
    kplay.shell(
        "box",
        &format!(
            "ln -s {folder}/file /direct; ln -s ../../../../../..{folder} /climb; ln -s /proc/1/root /magic; \
             ln -s /proc/self/cwd /cwd; mkdir -p /t; ln -s {folder} /t/way; mknod /disk b 7 0 2>/dev/null; true"
        ),
    );
    for path in ["/direct", "/climb/file", "/climb"] {
        kplay
            .run(["cp", &format!("box:{path}"), "got"])
            .fails(5, &["is not there"]);
    }
    for path in ["/magic/etc/passwd", "/cwd/note", "/magic"] {
        let run = kplay.run(["cp", &format!("box:{path}"), "got"]);
        assert!(matches!(run.code, Some(4 | 5)), "{run}");
    }
    for path in ["/direct/new", "/climb/new", "/t/way/new", "/magic/tmp/new"] {
        let run = kplay.run(["cp", "note", &format!("box:{path}")]);
        assert!(matches!(run.code, Some(4 | 5)), "{run}");
    }
    // What came out does not lead anywhere the next time either.
    kplay.run(["cp", "box:/t", "."]).succeeds();
    kplay.shell("box", "rm /t/way; mkdir /t/way; echo evil > /t/way/file");
    kplay
        .run(["cp", "box:/t", "."])
        .fails(4, &["`./t/way` is there, and no folder"]);
    assert_eq!(read(&kplay, "secret/file"), "the machine's");
    let names = fs::read_dir(secret.parent().expect("a folder")).expect("ours");
    assert_eq!(names.count(), 1);
    assert!(!kplay.dir().join("got").exists());
}

#[test]
fn links_that_come_and_go_lead_nowhere_either() {
    let Some(kplay) = boxed("", "") else { return };
    let secret = kplay.file("secret/file", "the machine's");
    let folder = secret.parent().expect("a folder").display().to_string();
    for number in 0..50 {
        kplay.file(&format!("tree/d/{number}"), "x");
    }
    let swap = format!(
        "mkdir -p /w/own /w/tree{folder}; echo inside > /w/own/file; touch /w/began; \
         while :; do ln -sfn {folder} /w/tree/d; rm -rf /w/tree/d; cp -r /w/own /w/tree/d; rm -rf /w/tree/d; done"
    );
    let mut swapper = kplay
        .command(["exec", "box", "--", "sh", "-c", &swap])
        .spawn();
    wait::until("it swaps", || {
        kplay
            .run(["exec", "box", "--", "test", "-e", "/w/began"])
            .code
            == Some(0)
    });
    for round in 0..12 {
        // What comes of it is a matter of luck, but never the machine's.
        let into = kplay.run(["cp", "tree/.", "box:/w/tree"]);
        assert!(matches!(into.code, Some(0 | 4 | 5)), "{into}");
        let out = format!("out-{round}");
        let from = kplay.run(["cp", "box:/w/tree/d/.", &out]);
        assert!(matches!(from.code, Some(0 | 4 | 5)), "{from}");
        if let Ok(file) = fs::read_to_string(kplay.dir().join(&out).join("file")) {
            assert!(matches!(&*file, "inside\n" | ""), "{file}");
        }
    }
    swapper.kill().expect("our own child");
    swapper.wait().expect("our own child");
    let names = fs::read_dir(secret.parent().expect("a folder")).expect("ours");
    assert_eq!(names.count(), 1);
    assert_eq!(read(&kplay, "secret/file"), "the machine's");
}

#[test]
fn archives_go_in_and_out() {
    let Some(kplay) = boxed("", "") else { return };
    kplay.shell(
        "box",
        "mkdir -p /a/b; echo x > /a/b/file; ln -s file /a/b/link; truncate -s 3000000 /a/hole",
    );
    let archive = |source: &str, name: &str| {
        let call = kplay.command(["cp", source, "-"]);
        let file = fs::File::create(kplay.dir().join(name)).expect("a file");
        let status = call.std().stdout(file).status().expect("it runs");
        assert!(status.success(), "{source}");
        let tar = std::process::Command::new("tar")
            .args(["-tvf", name])
            .current_dir(kplay.dir())
            .output()
            .expect("tar is there");
        assert!(tar.status.success(), "{tar:?}");
        String::from_utf8_lossy(&tar.stdout).into_owned()
    };
    let named = archive("box:/a", "named.tar");
    for words in [" a/\n", " a/b/file\n", " a/b/link -> file\n", " 3000000 "] {
        assert!(named.contains(words), "{named}");
    }
    assert!(archive("box:/a/.", "contents.tar").contains("b/file\n"));
    assert!(
        fs::metadata(kplay.dir().join("named.tar"))
            .expect("ours")
            .len()
            < 100_000
    );
    let bytes = fs::read(kplay.dir().join("named.tar")).expect("ours");
    kplay.shell("box", "mkdir /new");
    kplay
        .command(["cp", "-", "box:/new"])
        .stdin(bytes.clone())
        .run()
        .succeeds();
    kplay.shell(
        "box",
        "cmp /a/hole /new/a/hole && cmp /a/b/file /new/a/b/link",
    );
    kplay
        .command(["cp", "-", "box:/none"])
        .stdin(bytes)
        .run()
        .fails(5, &["`box:/none` is not there"]);
    kplay
        .command(["cp", "-", "box:/new"])
        .stdin(vec![b'x'; 4096])
        .run()
        .fails(4, &["archive"]);
    // A reader that has had enough is no fault.
    let call = kplay.command(["cp", "box:/bin", "-"]);
    let mut child = call.spawn();
    drop(child.stdout.take());
    assert!(wait::ended(child.id(), wait::PATIENCE));
    assert_eq!(child.wait().expect("our own child").code(), Some(0));
}

#[test]
fn holes_are_not_carried() {
    let Some(kplay) = boxed("", "") else { return };
    let path = kplay.dir().join("big");
    let file = fs::File::create(&path).expect("a file");
    file.set_len(1 << 30).expect("a length");
    file.write_all_at(b"middle", 500_000_000).expect("written");
    kplay.run(["cp", "big", "box:/big"]).succeeds();
    let found = kplay.shell("box", "stat -c '%s %b' /big; tail -c +500000001 /big | head -c 6; dd if=/dev/zero of=/zeros bs=1M count=1024 2>/dev/null");
    let (numbers, middle) = found.split_once('\n').expect("two lines");
    let blocks: u64 = numbers
        .split_once(' ')
        .expect("two numbers")
        .1
        .parse()
        .expect("a number");
    assert_eq!(
        (numbers.starts_with("1073741824 "), middle),
        (true, "middle")
    );
    assert!(blocks < 10_000, "{blocks}");
    // Zeros that are there become holes.
    kplay.run(["cp", "box:/zeros", "zeros"]).succeeds();
    let zeros = fs::metadata(kplay.dir().join("zeros")).expect("copied");
    assert_eq!(zeros.len(), 1 << 30);
    assert!(zeros.blocks() < 10_000, "{}", zeros.blocks());
}

#[test]
fn a_pods_own_users_own_what_comes_in() {
    let Some(kplay) = boxed("hostUsers: false,", "") else {
        return;
    };
    kplay.file("note", "x");
    kplay.run(["cp", "note", "box:/note"]).succeeds();
    assert_eq!(kplay.shell("box", "stat -c '%u %g' /note"), "0 0\n");
    kplay.shell("box", "chmod 600 /note; chown 5:5 /note");
    kplay.run(["cp", "box:/note", "back"]).succeeds();
    let owner = fs::metadata(kplay.root()).expect("kplay's").uid();
    assert_eq!(
        fs::metadata(kplay.dir().join("back"))
            .expect("copied")
            .uid(),
        owner
    );
    let user = "securityContext: {runAsUser: 1000, runAsGroup: 2000},";
    kplay
        .apply(&script_pod(
            "user",
            &format!("{QUICK} hostUsers: false,"),
            user,
            KEEP,
        ))
        .succeeds();
    kplay.run(["cp", "note", "user:/dev/shm/note"]).succeeds();
    assert_eq!(
        kplay.shell("user", "stat -c '%u %g' /dev/shm/note"),
        "1000 2000\n"
    );
    kplay
        .run(["cp", "note", "user:/note"])
        .fails(4, &["Permission denied"]);
    kplay
        .run(["cp", "box:/note", "user:/dev/shm/other"])
        .succeeds();
    assert_eq!(
        kplay.shell("user", "stat -c '%u %g' /dev/shm/other"),
        "1000 2000\n"
    );
}

#[test]
fn an_end_by_force_leaves_no_half_of_a_file() {
    let Some(kplay) = boxed("", "") else { return };
    kplay.shell("box", "mkdir /new; echo old > /new/file");
    let mut header = [0_u8; 512];
    let size = 100_000_000_u64;
    // A file of an archive (POSIX), of which only a part comes.
    for (at, text) in [
        (0, "file".to_owned()),
        (100, "0000644".to_owned()),
        (108, "0000000".to_owned()),
        (116, "0000000".to_owned()),
        (124, format!("{size:011o}")),
        (136, "00000000000".to_owned()),
        (148, "        ".to_owned()),
        (156, "0".to_owned()),
        (257, "ustar\u{0}00".to_owned()),
    ] {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    // The second one nobody can prepare for.
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let mut child: Child = kplay.command(["cp", "-", "box:/new"]).spawn();
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(&header).expect("read");
        // More than all pipes on the way hold: some of it is in the file.
        input.write_all(&vec![b'x'; 4_000_000]).expect("read");
        assert!(kplay.shell("box", "ls -A /new").contains(".kplay-cp-"));
        let pid = Pid::from_raw(child.id().cast_signed()).expect("a pid");
        kill_process(pid, signal).expect("our own child");
        assert!(wait::ended(child.id(), wait::PATIENCE));
        assert_eq!(child.wait().expect("our own child").code(), code);
        drop(input);
        wait::until("the part is gone", || {
            kplay.shell("box", "ls -A /new; cat /new/file") == "file\nold\n"
        });
    }
}

#[test]
fn many_small_files_are_all_there() {
    let Some(kplay) = boxed("", "") else { return };
    for folder in 0..40 {
        for file in 0..1000 {
            let name = format!("many/{folder}/{file}");
            if file == 0 {
                kplay.file(&name, "x");
            } else {
                fs::write(kplay.dir().join(name), "x").expect("a file");
            }
        }
    }
    kplay.run(["cp", "many", "box:/many"]).succeeds();
    assert_eq!(
        kplay.shell("box", "find /many -type f | wc -l").trim(),
        "40000"
    );
    kplay.run(["cp", "box:/many", "back"]).succeeds();
    let count: usize = (0..40)
        .map(|folder| {
            let folder = kplay.dir().join(format!("back/{folder}"));
            fs::read_dir(folder).expect("copied").count()
        })
        .sum();
    assert_eq!(count, 40_000);
}
