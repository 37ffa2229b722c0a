//! Pods whose users are not the machine's (`hostUsers: false`): what they own, what they can reach, and whose ids they
//! have.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::Kplay;
use crate::harness::{Run, free_port, script_pod};
use crate::wait;

const OWN_USERS: &str = "hostUsers: false, terminationGracePeriodSeconds: 0,";
const KEEP: &str = "while :; do sleep 1000; done";

/// What the machine sees of a container's first process: its user namespace's ids.
fn first_id(kplay: &Kplay, pod: &str) -> u32 {
    let pids = kplay.pids(pod, "main");
    let map = fs::read_to_string(format!("/proc/{}/uid_map", pids[0])).expect("a process");
    let fields: Vec<u32> = map
        .split_whitespace()
        .map(|field| field.parse().expect("a number"))
        .collect();
    assert_eq!((fields[0], fields[2]), (0, 65_536), "{map}");
    let groups = fs::read_to_string(format!("/proc/{}/gid_map", pids[0])).expect("a process");
    assert_eq!(map, groups);
    fields[1]
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("ours");
}

fn user_of(pid: u32) -> u32 {
    fs::metadata(format!("/proc/{pid}"))
        .expect("a process")
        .uid()
}

#[test]
fn a_pods_users_are_not_the_machines() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay
        .apply(&script_pod("one", OWN_USERS, "", KEEP))
        .succeeds();
    let as_user = "securityContext: {runAsUser: 1000, runAsGroup: 2000},";
    kplay
        .apply(&script_pod("two", OWN_USERS, as_user, KEEP))
        .succeeds();
    let (one, two) = (first_id(&kplay, "one"), first_id(&kplay, "two"));
    assert!(one.abs_diff(two) >= 65_536, "{one} {two}");
    assert!(one >= 65_536 && two >= 65_536, "{one} {two}");
    assert_eq!(user_of(kplay.pids("one", "main")[0]), one);
    assert_eq!(user_of(kplay.pids("two", "main")[0]), two + 1000);

    // Inside, ids are as ever; and so is what is told of them.
    assert_eq!(kplay.shell("one", "id -u; id -g"), "0\n0\n");
    assert_eq!(kplay.shell("two", "id -u; id -g"), "1000\n2000\n");
    let user = &kplay.pod("two")["status"]["containerStatuses"][0]["user"]["linux"];
    assert_eq!((&user["uid"], &user["gid"]), (&1000.into(), &2000.into()));
    assert_eq!(
        kplay
            .shell("one", "cat /proc/self/uid_map")
            .split_whitespace()
            .nth(1),
        Some(one.to_string().as_str())
    );

    // What the namespace's root may do it does in its own namespaces, and nowhere else.
    assert_eq!(
        kplay.shell("one", "hostname x 2>&1 || echo no"),
        "hostname: sethostname: Operation not permitted\nno\n"
    );
    let mighty = "securityContext: {privileged: true},";
    kplay
        .apply(&script_pod("mighty", OWN_USERS, mighty, KEEP))
        .succeeds();
    kplay.shell(
        "mighty",
        "hostname x && mount -t tmpfs none /tmp && ip link set lo down",
    );
    kplay
        .run([
            "exec",
            "mighty",
            "--",
            "sh",
            "-c",
            "echo 1 > /proc/sys/kernel/panic",
        ])
        .fails(1, &["ermission denied"]);
    kplay
        .run(["exec", "mighty", "--", "mknod", "/tmp/zero", "c", "1", "5"])
        .fails(1, &["not permitted"]);
    assert_eq!(kplay.shell("mighty", "head -c 2 /dev/zero | wc -c"), "2\n");
}

/// Applies pods of this name and script on a machine that gives these subordinate ids.
fn apply_with_ids(kplay: &Kplay, given: &str) -> Option<impl Fn(&str, &str) -> Run> {
    if !["/etc/subuid", "/etc/subgid"]
        .map(Path::new)
        .iter()
        .all(|file| file.exists())
    {
        eprintln!("skipped: no files of subordinate ids to mount over");
        return None;
    }
    let given = kplay.file("subid", given);
    let mount = format!(
        "for f in subuid subgid; do mount --bind {} /etc/$f || exit; done; exec \"$@\"",
        given.display()
    );
    Some(move |name: &str, script: &str| {
        let manifest = script_pod(name, OWN_USERS, "", script);
        let file = kplay.file(&format!("{name}.yaml"), manifest);
        let run = kplay
            .command(["apply".into(), file.into_os_string()])
            .through(["unshare", "--mount", "sh", "-c", &mount, "sh"])
            .run();
        kplay.note_pods();
        run
    })
}

#[test]
fn ids_come_back_with_the_end_of_a_pod() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    // Nobody else on the machine takes these.
    let Some(apply) = apply_with_ids(&kplay, "root:700000:131072\n") else {
        return;
    };
    apply("first", KEEP).succeeds();
    let first = first_id(&kplay, "first");
    assert_eq!(first, 700_000);
    kplay.run(["delete", "pod", "first"]).succeeds();
    apply("ends", "cat /proc/self/uid_map").succeeds();
    kplay
        .run(["wait", "ends", "--for=condition=Complete"])
        .succeeds();
    let log = kplay.run(["logs", "ends"]).succeeds();
    assert_eq!(
        log.split_whitespace().nth(1),
        Some(first.to_string().as_str())
    );
    // It is there still, but nobody runs in it.
    apply("second", KEEP).succeeds();
    assert_eq!(first_id(&kplay, "second"), first);
    // The executor is killed: what it has not given back is free when the next command has cleaned up.
    let pid = kplay.pids("second", "main")[0];
    kill(kplay.executor("second"));
    wait::until("the container dies with its executor", || {
        !Path::new(&format!("/proc/{pid}")).exists()
    });
    apply("third", KEEP).succeeds();
    assert_eq!(first_id(&kplay, "third"), first);
}

#[test]
fn two_states_on_a_machine_do_not_share_ids() {
    let (Some(one), Some(other)) = (Kplay::with_busybox(), Kplay::with_busybox()) else {
        return;
    };
    let given = "root:900000:65536\n";
    let (Some(in_one), Some(in_other)) =
        (apply_with_ids(&one, given), apply_with_ids(&other, given))
    else {
        return;
    };
    in_one("here", KEEP).succeeds();
    in_other("there", KEEP).fails(4, &["no ids are left"]);
    // As soon as nobody runs with them, whether or not anybody has cleaned up.
    let pid = one.pids("here", "main")[0];
    kill(one.executor("here"));
    wait::until("the container dies with its executor", || {
        !Path::new(&format!("/proc/{pid}")).exists()
    });
    in_other("there", KEEP).succeeds();
    assert_eq!(first_id(&other, "there"), 900_000);
    in_one("here", KEEP).fails(4, &["no ids are left"]);
}

#[test]
fn commands_at_the_same_time_give_pods_different_ids() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    const PODS: [&str; 4] = ["a", "b", "c", "d"];
    let commands: Vec<_> = PODS
        .map(|name| {
            let manifest = script_pod(name, OWN_USERS, "", KEEP);
            let file = kplay.file(&format!("{name}.yaml"), manifest);
            kplay
                .command(["apply".into(), file.into_os_string()])
                .spawn()
        })
        .into();
    for command in commands {
        let output = command.wait_with_output().expect("our own child");
        assert!(output.status.success(), "{output:?}");
    }
    kplay.note_pods();
    let mut firsts: Vec<u32> = PODS.iter().map(|name| first_id(&kplay, name)).collect();
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts.len(), PODS.len());
}

#[test]
fn ids_are_those_that_the_machine_gives_to_pods() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let Some(apply) = apply_with_ids(&kplay, "somebody:100000:65536\nroot:300000:65536\n") else {
        return;
    };
    let apply = |name: &str| apply(name, KEEP);
    apply("has").succeeds();
    assert_eq!(first_id(&kplay, "has"), 300_000);
    let said = apply("has-not").fails(
        4,
        &["no ids are left", "`default/has-not`", "give to `root`"],
    );
    assert!(said.contains("hint: delete pods"), "{said}");
    kplay.run(["delete", "pod", "has"]).succeeds();
    apply("has-not").succeeds();
    assert_eq!(first_id(&kplay, "has-not"), 300_000);
}

/// A folder of the machine that is closed to all but root, with a file in it.
fn closed_folder(kplay: &Kplay) -> PathBuf {
    let file = kplay.file("host/secret", "of root\n");
    let folder = file.parent().expect("it is in one").to_owned();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("ours");
    folder
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::metadata(path).unwrap_or_else(|e| panic!("no {path:?}: {e}"));
    (found.uid(), found.gid())
}

#[test]
fn files_of_the_machine_keep_their_owners_numbers() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let host = closed_folder(&kplay);
    let volumes = format!(
        "{OWN_USERS} volumes: [{{name: host, hostPath: {{path: {}}}}}],",
        host.display()
    );
    let mount = "volumeMounts: [{name: host, mountPath: /host}, {name: host, mountPath: /ro, readOnly: true}, \
                 {name: host, mountPath: /part, subPath: part}], \
                 securityContext: {capabilities: {add: [SYS_ADMIN]}},";
    kplay
        .apply(&script_pod("files", &volumes, mount, KEEP))
        .succeeds();
    let shell = |script: &str| kplay.shell("files", script);
    assert_eq!(shell("cat /host/secret"), "of root\n");
    shell(
        "touch /host/roots; touch /host/users; chown 1000:2000 /host/users; touch /part/x; mkdir /host/d",
    );
    assert_eq!(owner(&host.join("roots")), (0, 0));
    assert_eq!(owner(&host.join("users")), (1000, 2000));
    assert_eq!(owner(&host.join("part")), (0, 0));
    assert_eq!(owner(&host.join("part/x")), (0, 0));
    assert_eq!(shell("stat -c %u:%g /host/users"), "1000:2000\n");
    // What is read-only stays so, also for who may mount.
    shell("! touch /ro/x; ! mount -o remount,rw,bind /ro; ! touch /ro/x");

    // A process of the pod's root by another way than the mount: through the machine's own view of the folder.
    let pid = kplay.pids("files", "main")[0];
    let ids = first_id(&kplay, "files").to_string();
    let other = std::process::Command::new("setpriv")
        .args(["--reuid", &ids, "--regid", &ids, "--clear-groups", "cat"])
        .arg(host.join("secret"))
        .output()
        .expect("setpriv of util-linux");
    assert!(!other.status.success(), "{other:?}");
    // The container's own files are the pod's on the machine, and its root file system's are the image's.
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    shell("touch /made");
    assert_eq!(owner(&root.join("made")).0, first_id(&kplay, "files"));
    assert_eq!(
        shell("stat -c %u:%g /bin/busybox /made /"),
        "0:0\n0:0\n0:0\n"
    );
}

#[test]
fn every_kind_of_volume_can_be_used() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let objects = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\ndata: {key: map}\n---\n\
                   apiVersion: v1\nkind: Secret\nmetadata: {name: conf}\nstringData: {key: secret}\n---\n\
                   apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: claim}\n\
                   spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}\n---\n";
    let pod = format!(
        "{OWN_USERS} securityContext: {{fsGroup: 3000, runAsUser: 1000, runAsGroup: 1000}}, volumes: [\
         {{name: disk, emptyDir: {{}}}}, {{name: memory, emptyDir: {{medium: Memory}}}}, \
         {{name: map, configMap: {{name: conf}}}}, {{name: secret, secret: {{secretName: conf, defaultMode: 256}}}}, \
         {{name: claim, persistentVolumeClaim: {{claimName: claim}}}}, \
         {{name: image, image: {{reference: 'localhost/busybox:1'}}}}, \
         {{name: all, projected: {{sources: [{{configMap: {{name: conf}}}}, \
         {{downwardAPI: {{items: [{{path: name, fieldRef: {{fieldPath: metadata.name}}}}]}}}}]}}}}],"
    );
    let mounts: String = ["disk", "memory", "map", "secret", "claim", "image", "all"]
        .map(|name| format!("{{name: {name}, mountPath: /{name}}}, "))
        .concat();
    let container = format!(
        "workingDir: /disk/made/for/it, terminationMessagePath: /dev/said, volumeMounts: [{mounts} \
         {{name: disk, mountPath: /part, subPath: a/b}}, {{name: image, mountPath: /bins, subPath: bin}}],"
    );
    let script = "set -e; pwd; cat /map/key /secret/key /all/key /all/name; echo; \
                  for v in disk memory claim; do stat -c '%n %u:%g' /$v; echo x > /$v/file; stat -c '%n %u:%g' /$v/file; done; \
                  stat -c '%n %u:%g' /part /disk/made/for/it /image/bin/busybox /bins/busybox /etc/hosts; \
                  grep -q localhost /etc/hosts; echo x > /dev/shm/x; echo end > /dev/said; \
                  touch /image/x 2>/dev/null || echo read-only";
    let manifest = format!("{objects}{}", script_pod("kinds", &pod, &container, script));
    kplay.apply_with(&manifest, ["--wait=complete"]).succeeds();
    assert_eq!(
        kplay.run(["logs", "kinds"]).succeeds(),
        "/disk/made/for/it\nmapsecretmapkinds\n\
         /disk 0:3000\n/disk/file 1000:3000\n/memory 0:3000\n/memory/file 1000:3000\n\
         /claim 0:3000\n/claim/file 1000:3000\n\
         /part 0:3000\n/disk/made/for/it 0:3000\n/image/bin/busybox 0:0\n/bins/busybox 0:0\n/etc/hosts 0:0\n\
         read-only\n"
    );
    let status = &kplay.pod("kinds")["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(status["message"], "end\n");
}

#[test]
fn what_cannot_have_the_pods_ids_is_named() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = format!("{OWN_USERS} volumes: [{{name: kernel, hostPath: {{path: /proc/sys}}}}],");
    let mount = "volumeMounts: [{name: kernel, mountPath: /kernel}],";
    kplay.apply(&script_pod("cannot", &pod, mount, KEEP)).fails(
        4,
        &[
            "FailedMount",
            "volume \"kernel\"",
            "`proc` file system cannot have the ids",
            "hostUsers: false",
        ],
    );
    let user = "image: 'localhost/settings:1',";
    kplay.load(crate::fixtures::settings_archive());
    let ids =
        script_pod("ids", OWN_USERS, "", "id -u").replace("image: \"localhost/busybox:1\",", user);
    kplay.apply_with(&ids, ["--wait=complete"]).succeeds();
}

#[test]
fn a_machine_without_what_it_takes_says_so() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let file = kplay.file("pod.yaml", script_pod("web", OWN_USERS, "", KEEP));
    // As in a container.
    let script = "mount -t tmpfs none /sys/firmware; exec \"$@\"";
    kplay
        .command(["apply".as_ref(), file.as_os_str()])
        .through(["unshare", "-m", "sh", "-c", script, "sh"])
        .run()
        .fails(
            4,
            &["CreateContainerError", "cannot have a /sys of its own"],
        );
    kplay.note_pods();
}

#[test]
fn mounts_of_the_machine_come_in_with_the_pods_ids() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let host = closed_folder(&kplay);
    fs::create_dir(host.join("below")).expect("a folder");
    rustix::mount::mount_bind(&host, &host).expect("a mount");
    let shared = rustix::mount::MountPropagationFlags::SHARED;
    rustix::mount::mount_change(&host, shared).expect("a shared mount");
    let volumes = format!(
        "{OWN_USERS} volumes: [{{name: host, hostPath: {{path: {}}}}}],",
        host.display()
    );
    let mount =
        "volumeMounts: [{name: host, mountPath: /host, mountPropagation: HostToContainer}],";
    let applied = kplay.apply(&script_pod("sees", &volumes, mount, KEEP));
    let below = host.join("below");
    let none = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &below, "tmpfs", none, None).expect("a mount");
    fs::write(below.join("late"), "of the machine\n").expect("a file");
    let seen = kplay.run([
        "exec",
        "sees",
        "--",
        "cat",
        "/host/secret",
        "/host/below/late",
    ]);
    let made = kplay.run(["exec", "sees", "--", "touch", "/host/made"]);
    for path in [&below, &host] {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).expect("our own");
    }
    applied.succeeds();
    assert_eq!(seen.succeeds(), "of root\nof the machine\n");
    made.succeeds();
    assert_eq!(owner(&host.join("made")), (0, 0));
}

#[test]
fn an_unmasked_proc_is_all_there() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let count = "grep -E ' /proc/| /sys/' /proc/self/mounts | grep -vc ' /sys/fs/cgroup '; \
                 unshare -Urmpf mount -t proc proc /tmp 2>/dev/null && echo mounted || echo refused";
    let check = |security: &str, expected: &str| {
        let container =
            format!("securityContext: {{{security} seccompProfile: {{type: Unconfined}}}},");
        let log = kplay.script_in(OWN_USERS, &container, count);
        assert_eq!(log.split_whitespace().last(), Some(expected), "{log}");
        assert_eq!(log.starts_with("0\n"), expected == "mounted", "{log}");
    };
    check("", "refused");
    check("procMount: Default,", "refused");
    check("procMount: Unmasked,", "mounted");
    let file = "cat /proc/keys /proc/interrupts | wc -l";
    let unmasked = "securityContext: {procMount: Unmasked},";
    assert_eq!(kplay.script_in(OWN_USERS, "", file), "0\n");
    assert_ne!(kplay.script_in(OWN_USERS, unmasked, file), "0\n");
    kplay
        .apply(&script_pod("of-the-machine", "", unmasked, "true"))
        .fails(3, &["`hostUsers` must be false to use `Unmasked`"]);
}

#[test]
fn probes_hooks_ports_and_terminals_reach_inside() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let port = free_port();
    let pod = "hostUsers: false, terminationGracePeriodSeconds: 5, shareProcessNamespace: true, securityContext: \
               {sysctls: [{name: net.ipv4.tcp_syncookies, value: '0'}, {name: kernel.shm_rmid_forced, value: '1'}]},";
    let container = format!(
        "tty: true, ports: [{{containerPort: 80, hostPort: {port}}}], \
         readinessProbe: {{httpGet: {{path: /, port: 80}}, periodSeconds: 1}}, \
         startupProbe: {{exec: {{command: [test, -e, /hooked]}}, periodSeconds: 1}}, \
         lifecycle: {{postStart: {{exec: {{command: [touch, /hooked]}}}}}},"
    );
    let serve = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www";
    let manifest = script_pod("inside", pod, &container, serve)
        .replace("restartPolicy: Never", "restartPolicy: Always");
    kplay.apply_with(&manifest, ["--wait=ready"]).succeeds();
    let mut answer = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a published port");
    std::io::Write::write_all(&mut answer, b"GET / HTTP/1.0\r\n\r\n").expect("it listens");
    let answer = std::io::read_to_string(answer).expect("an answer");
    assert!(answer.contains("served"), "{answer}");
    assert_eq!(
        kplay.shell(
            "inside",
            "cat /proc/sys/net/ipv4/tcp_syncookies /proc/sys/kernel/shm_rmid_forced \
             /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/sys/net/ipv4/ping_group_range; \
             stat -c %u:%a /dev/console; cat /proc/1/comm"
        ),
        "0\n1\n0\n0\t65535\n0:620\npause\n"
    );
    // A sandbox that is made anew has the same ids: files stay whose they are.
    let first = first_id(&kplay, "inside");
    kill(kplay.pids("inside", "_sandbox")[0]);
    kplay.until("inside", "runs in new namespaces", |status| {
        status["containerStatuses"][0]["restartCount"] == 1
            && status["containerStatuses"][0]["ready"] == true
    });
    assert_eq!(first_id(&kplay, "inside"), first);
}
