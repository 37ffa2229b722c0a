//! Names, as C libraries look them up: musl's and glibc's ways, and what is passed on to the machine's resolver.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::Kplay;
use crate::harness::script_pod;
use crate::traffic::{client, server, service};
use crate::wait;

/// A busybox that has the machine's programs and their C library, too.
fn with_the_machines_programs(name: &str) -> String {
    let folders = ["usr", "lib", "lib64"].map(|folder| std::path::Path::new("/").join(folder));
    let folders = folders.iter().filter(|folder| folder.is_dir());
    let (mut volumes, mut mounts) = (String::new(), String::new());
    for (index, folder) in folders.enumerate() {
        volumes += &format!("{{name: v{index}, hostPath: {{path: {folder:?}}}}}, ");
        mounts += &format!("{{name: v{index}, mountPath: {folder:?}, readOnly: true}}, ");
    }
    script_pod(
        name,
        &format!("terminationGracePeriodSeconds: 0, volumes: [{volumes}],"),
        &format!("volumeMounts: [{mounts}],"),
        "exec sleep 1000",
    ) + "---\n"
}

#[test]
fn what_glibc_and_busybox_find() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{name: http, port: 80}]",
    ) + &service(
        "pods",
        "clusterIP: None, ipFamilyPolicy: PreferDualStack, selector: {app: web}",
    ) + &service(
        "alias",
        "type: ExternalName, externalName: pods.default.svc.cluster.local",
    ) + &server("a", "app: web", "hostname: a, subdomain: pods,", "")
        + &server("b", "app: web", "", "")
        + &with_the_machines_programs("shell");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "b", "shell"]);
    let ip = kplay.found("a", &["web"]);
    let ip = ip.first().expect("an address").as_str();
    wait::until("the pods are known", || {
        kplay.found("shell", &["pods"]).len() <= 2
    });
    let getent = |database: &str, name: &str| {
        let command = format!("/usr/bin/getent {database} {name}");
        let run = kplay.run(["exec", "shell", "--", "sh", "-c", &command]);
        let first = |line: &str| {
            line.split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let mut found: Vec<String> = run.stdout.lines().map(first).collect();
        found.sort();
        found.dedup();
        found
    };
    let nslookup = |args: &str| {
        let command = format!("nslookup {args}");
        let run = kplay.run(["exec", "shell", "--", "sh", "-c", &command]);
        // After the server's own address, which is the first one.
        let mut found: Vec<String> = run
            .stdout
            .lines()
            .skip_while(|line| !line.starts_with("Name") && !line.contains("canonical"))
            .filter_map(|line| Some(line.strip_prefix("Address")?.split_once(": ")?.1.to_owned()))
            .collect();
        found.sort();
        found
    };
    for name in [
        "web",
        "web.default",
        "web.default.svc",
        "web.default.svc.cluster.local",
    ] {
        assert_eq!(getent("ahostsv4", name), [ip], "{name}");
    }
    // This nslookup does not search.
    assert_eq!(nslookup("-type=a web.default.svc.cluster.local"), [ip]);
    let mut both: Vec<String> = ["a", "b"].iter().flat_map(|pod| kplay.ips(pod)).collect();
    both.sort();
    for name in ["pods", "alias"] {
        assert_eq!(getent("ahosts", name), both, "{name}");
        let name = format!("{name}.default.svc.cluster.local");
        assert_eq!(nslookup(&name), both, "{name}");
    }
    assert_eq!(getent("ahostsv4", "a.pods"), [kplay.ips("a")[0].clone()]);
    assert_eq!(
        nslookup("-type=a a.pods.default.svc.cluster.local"),
        [kplay.ips("a")[0].clone()]
    );
    // Nothing of this family is not "no such name".
    let web = kplay.run([
        "exec",
        "shell",
        "--",
        "nslookup",
        "-type=aaaa",
        "web.default.svc.cluster.local",
    ]);
    assert!(!web.stdout.contains("NXDOMAIN"), "{web}");
    let none = kplay.run([
        "exec",
        "shell",
        "--",
        "nslookup",
        "nosuch.default.svc.cluster.local",
    ]);
    assert!(none.stdout.contains("NXDOMAIN"), "{none}");
    assert_eq!(none.code, Some(1), "{none}");
}

/// What a pod says of itself to the others: as its executor writes it.
fn peer(number: usize) -> String {
    format!(
        "{{\"version\":1,\"namespace\":\"default\",\"name\":\"many-{number}\",\"ips\":[\"10.1.2.{number}\",\"fd00:1::{number}\"],\
         \"labels\":{{\"app\":\"many\"}},\"hostname\":null,\"subdomain\":null,\"ports\":[],\"state\":\"Ready\"}}"
    )
}

/// This process in the place of a pod's executor: what no living one has told, the others remove.
fn stand_for(kplay: &Kplay, pod: &str) -> std::fs::File {
    let folder = kplay.run_dir(pod);
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("executor.lock");
    std::fs::write(&path, format!("{:<10}", std::process::id())).expect("a file");
    let lock = std::fs::File::open(path).expect("the file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("nobody has it");
    lock
}

#[test]
fn a_large_answer_comes_by_tcp() {
    const PODS: usize = 200;
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let manifest = service(
        "many",
        "clusterIP: None, ipFamilyPolicy: PreferDualStack, selector: {app: many}",
    ) + &with_the_machines_programs("shell")
        + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["shell", "client"]);
    let folder = kplay.runroot().join("endpoints");
    let mut locks = Vec::new();
    for number in 1..=PODS {
        locks.push(stand_for(&kplay, &format!("many-{number}")));
        let file = folder.join(format!("default_many-{number}.json"));
        std::fs::write(folder.join(".new"), peer(number)).expect("a file");
        std::fs::rename(folder.join(".new"), file).expect("renamed");
    }
    for (args, count) in [
        (["many", "A"].as_slice(), PODS),
        (&["many", "AAAA"], PODS),
        (&["--tcp", "many"], PODS),
    ] {
        let mut found = Vec::new();
        wait::until(&format!("{count} answers to {args:?}"), || {
            found = kplay.found("client", args);
            found.len() == count
        });
        found.dedup();
        assert_eq!(found.len(), count);
    }
    let getent = kplay.shell("shell", "/usr/bin/getent ahostsv4 many | grep -c STREAM");
    assert_eq!(getent, format!("{PODS}\n"));
    for number in 1..=PODS {
        std::fs::remove_file(folder.join(format!("default_many-{number}.json"))).expect("removed");
        std::fs::remove_dir_all(kplay.run_dir(&format!("many-{number}"))).expect("removed");
    }
    drop(locks);
    wait::until("they are gone", || {
        kplay.found("client", &["many"]).is_empty()
    });
    let gone = ["lookup", "many.default.svc.cluster.local."];
    assert_eq!(kplay.toolbox("client", &gone).code, Some(3));
}

/// A nameserver that knows one name, `known.test`, and remembers what it is asked.
pub(crate) struct Upstream {
    ip: IpAddr,
    asked: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Upstream {
    /// On a loopback address of its own, as the stub of systemd-resolved is: others may have port 53 of other ones.
    pub(crate) fn start(last: u8) -> Self {
        let ip: IpAddr = [127, 53, 7, last].into();
        let socket = UdpSocket::bind((ip, 53)).expect("nobody has this address");
        let asked = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
        let heard = std::sync::Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut query) {
                let (name, answer) = answer(&query[..length]);
                heard.lock().expect("no panic").push(name);
                socket.send_to(&answer, client).ok();
            }
        });
        Self { ip, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

/// The name that is asked for, and the answer.
fn answer(query: &[u8]) -> (String, Vec<u8>) {
    const HEADER: usize = 12;
    let mut labels = Vec::new();
    let mut at = HEADER;
    while let Some(length) = query
        .get(at)
        .copied()
        .map(usize::from)
        .filter(|length| *length > 0)
    {
        let label = query.get(at + 1..=at + length).unwrap_or_default();
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += 1 + length;
    }
    let name = labels.join(".");
    let question = query.get(HEADER..at + 5).unwrap_or_default();
    let is_a = question.ends_with(&[0, 1, 0, 1]);
    let (code, count) = match &*name {
        "known.test" => (0, u8::from(is_a)),
        _ => (3, 0),
    };
    let mut bytes = query.get(..2).unwrap_or_default().to_vec();
    bytes.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    bytes.extend(question);
    if count > 0 {
        // The question's name, A, IN, a minute.
        bytes.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 99]);
    }
    (name, bytes)
}

#[test]
fn other_names_are_the_machines_resolvers() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let upstream = Upstream::start(1);
    // The first one does not answer: nobody is there.
    let resolv_conf = format!(
        "nameserver 127.53.7.250\nnameserver {}\nsearch corp.test\n",
        upstream.ip
    );
    let resolv_conf = kplay.file("resolv.conf", resolv_conf);
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &service("ext", "type: ExternalName, externalName: known.test")
        + &server("a", "app: web", "", "")
        + &with_the_machines_programs("shell");
    let file = kplay.file("manifest.yaml", manifest);
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    let resolv_conf = resolv_conf.to_str().expect("a readable path");
    kplay
        .command(["apply".as_ref(), file.as_os_str()])
        .through(["unshare", "--mount", "sh", "-c", script, resolv_conf])
        .run()
        .succeeds();
    kplay.until_ready(&["a", "shell"]);
    let own = kplay.shell("shell", "cat /etc/resolv.conf");
    assert_eq!(
        own,
        "search default.svc.cluster.local svc.cluster.local cluster.local corp.test\n\
         nameserver 169.254.20.10\noptions ndots:5\n"
    );
    let getent = |name: &str| {
        let command = format!("/usr/bin/getent ahostsv4 {name}");
        let start = Instant::now();
        let run = kplay.run(["exec", "shell", "--", "sh", "-c", &command]);
        assert!(
            start.elapsed() < wait::stretched(Duration::from_secs(4)),
            "{name}: {:?}",
            start.elapsed()
        );
        let first = run.stdout.split_whitespace().next();
        first.unwrap_or_default().to_owned()
    };
    assert_eq!(getent("known.test"), "192.0.2.99");
    // The cluster's domains are nobody else's business.
    let asked = upstream.asked();
    assert!(
        asked.contains(&"known.test.corp.test".to_owned()),
        "{asked:?}"
    );
    assert!(asked.contains(&"known.test".to_owned()), "{asked:?}");
    assert!(
        asked.iter().all(|name| !name.contains("cluster.local")),
        "{asked:?}"
    );
    assert_eq!(getent("nosuch"), "");
    let asked = upstream.asked();
    assert!(asked.contains(&"nosuch".to_owned()), "{asked:?}");
    assert_eq!(getent("web").split('.').next(), Some("10"));
    assert_eq!(upstream.asked(), [""; 0]);
    assert_eq!(
        kplay.found("a", &["ext"]),
        ["192.0.2.99".to_owned(), "known.test.".to_owned()]
    );
    assert_eq!(getent("ext"), "192.0.2.99");
    assert_eq!(
        kplay.toolbox("a", &["lookup", "nosuch.test."]).code,
        Some(3)
    );
    assert_eq!(
        kplay.toolbox("a", &["lookup", "known.test.", "AAAA"]).code,
        Some(4)
    );
    // From inside the image's static busybox.
    let said = kplay.shell("shell", "nslookup -type=a known.test");
    assert!(said.contains("192.0.2.99"), "{said}");
}
