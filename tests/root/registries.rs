//! Registries that let in only who can say who he is: `login`, other tools' files, and Secrets of pods.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::Kplay;
use crate::fixtures::Registry;
use crate::harness::{Call, Run, script_pod};

/// A kplay whose user has no credentials yet.
struct User {
    kplay: Kplay,
    registry: Registry,
}

impl User {
    fn new() -> Option<Self> {
        Some(Self {
            kplay: Kplay::new()?,
            registry: Registry::with_password(),
        })
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.registry.port)
    }

    fn call<const N: usize>(&self, args: [&str; N]) -> Call<'_> {
        let call = self.kplay.command(args);
        call.env("XDG_RUNTIME_DIR", self.kplay.dir())
    }

    fn run<const N: usize>(&self, args: [&str; N]) -> Run {
        self.call(args).run()
    }

    /// `auth.json` in the runtime folder.
    fn file(&self) -> PathBuf {
        self.kplay.dir().join("containers/auth.json")
    }

    /// Pulls the image anew.
    fn pull(&self) -> Run {
        let image = self.registry.image("gzip");
        // It need not be there.
        drop(self.run(["rmi", &image]));
        self.run(["pull", &image])
    }

    fn login(&self, password: &str) -> Run {
        let host = self.host();
        self.call(["login", "--username", "user", "--password-stdin", &host])
            .stdin(format!("{password}\n"))
            .run()
    }
}

fn podman(args: &[&str], file: &Path) -> String {
    let output = Command::new("podman")
        .args(args)
        .arg("--authfile")
        .arg(file)
        .output()
        .expect("podman");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "podman {args:?}: {stderr}");
    text(&output.stdout)
}

#[test]
fn login_opens_a_registry_until_logout() {
    let Some(user) = User::new() else { return };
    let host = user.host();
    let remedy = format!("kplay login {host}");
    user.pull().fails(4, &["without credentials", &remedy]);
    user.run(["login", "--get-login", &host])
        .fails(4, &["not logged into"]);
    user.login("guess").fails(4, &["invalid username/password"]);
    assert!(!user.file().exists(), "only what works is kept");
    user.run(["login", &host]).fails(2, &["--password-stdin"]);

    assert_eq!(user.login("secret").succeeds(), "Login Succeeded!\n");
    user.pull().succeeds();
    let named = user.run(["login", "--get-login", &host]).succeeds();
    assert_eq!(named, "user\n");
    let again = user.run(["login", &host]).succeeds();
    assert!(again.contains("Already logged in"), "{again}");
    // What it says to podman, and podman to it.
    let file = user.file();
    assert_eq!(podman(&["login", "--get-login", &host], &file), "user\n");
    podman(&["logout", &host], &file);
    user.pull().fails(4, &[&remedy]);
    let arguments = [
        "login",
        "--tls-verify=false",
        "-u",
        "user",
        "-p",
        "secret",
        &host,
    ];
    podman(&arguments, &file);
    user.pull().succeeds();

    let out = user.run(["logout", &host]).succeeds();
    assert_eq!(out, format!("Removed login credentials for {host}\n"));
    user.pull().fails(4, &[&remedy]);
    user.run(["logout", &host]).fails(4, &["not logged into"]);
    assert_eq!(user.login("secret").succeeds(), "Login Succeeded!\n");
    user.run(["logout", "--all"]).succeeds();
    user.pull().fails(4, &[&remedy]);
}

#[test]
fn other_places_for_credentials() {
    let Some(user) = User::new() else { return };
    let (host, image) = (user.host(), user.registry.image("gzip"));
    let entry = |auth: &str| format!(r#"{{"auths": {{"{host}/test": {{"auth": "{auth}"}}}}}}"#);
    // `user:secret` and `user:guess`.
    let (right, wrong) = (entry("dXNlcjpzZWNyZXQ="), entry("dXNlcjpndWVzcw=="));
    user.kplay.file(".docker/config.json", &right);
    user.pull().succeeds();
    let own = user.kplay.file(".config/containers/auth.json", &wrong);
    let said = user
        .pull()
        .fails(4, &["as `user`", &own.display().to_string()]);
    assert!(!said.contains("guess"), "{said}");
    let pulled = user.run(["pull", "-vv", "--creds", "user:secret", &image]);
    let told = pulled.stderr.clone();
    pulled.succeeds();
    assert!(told.contains("DEBUG"), "{told}");
    let hidden = ["secret", "dXNlcjpzZWNyZXQ="];
    assert!(!hidden.iter().any(|text| told.contains(text)), "{told}");
    // A proxy of no use is in nobody's way who needs none.
    user.call(["pull", "--creds", "user:secret", &image])
        .env("ALL_PROXY", "socks5://127.0.0.1:1")
        .run()
        .succeeds();
    let named = user.kplay.file("named.json", &right);
    user.call(["pull", &image])
        .env("REGISTRY_AUTH_FILE", &named)
        .run()
        .succeeds();
    user.call(["pull", "--authfile", "named.json", &image])
        .env("REGISTRY_AUTH_FILE", "/nowhere")
        .run()
        .succeeds();
    user.run(["pull", "--authfile", "/nowhere", &image])
        .fails(4, &["/nowhere"]);
    let pod = script_pod("asks", "", "", "true").replace("localhost/busybox:1", &image);
    drop(user.run(["rmi", &image]));
    user.call(["apply", "--authfile", "named.json", "--wait=complete", "-"])
        .stdin(pod)
        .run()
        .succeeds();
}

#[test]
fn secrets_of_pods_open_a_registry() {
    let Some(user) = User::new() else { return };
    let (host, image) = (user.host(), user.registry.image("gzip"));
    let pod = |name: &str, fields: &str| {
        script_pod(name, fields, "imagePullPolicy: Always,", "true")
            .replace("localhost/busybox:1", &image)
    };
    let secret = |name: &str, kind: &str, key: &str, content: &str| {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/{kind}\n\
             stringData: {{\".{key}\": {}}}\n",
            serde_json::to_string(content).expect("text")
        )
    };
    let entry = |password: &str| {
        format!(r#"{{"{host}": {{"username": "user", "password": "{password}"}}}}"#)
    };
    let json = |name: &str, password: &str| {
        let content = format!(r#"{{"auths": {}}}"#, entry(password));
        secret(name, "dockerconfigjson", "dockerconfigjson", &content)
    };
    let apply = |text: &str| {
        let call = user.call(["apply", "--wait=complete", "-"]);
        call.stdin(text.to_owned()).run()
    };
    let named = pod("named", "imagePullSecrets: [{name: wrong}, {name: right}],");
    let missing = apply(&named).fails(4, &["without credentials", "kplay login"]);
    assert!(
        missing.contains("the Secret `right` does not exist"),
        "{missing}"
    );
    apply(&(named.clone() + &json("wrong", "guess") + &json("right", "secret"))).succeeds();
    // Now they are recorded. No other record has what is in them.
    apply(&pod("later", "imagePullSecrets: [{name: right}],")).succeeds();
    let content = format!(r#"{{"auths": {}}}"#, entry("secret"));
    let kept = [BASE64_STANDARD.encode(&content), content];
    let has_it = |path: &PathBuf| {
        let text = String::from_utf8_lossy(&std::fs::read(path).expect("a record")).into_owned();
        kept.iter().any(|secret| text.contains(secret))
    };
    let files = user.kplay.files();
    let with: Vec<&PathBuf> = files
        .iter()
        .filter(|path| path.is_file() && has_it(path))
        .collect();
    let objects = user.kplay.runroot().join("objects");
    assert!(with.len() == 1 && with[0].starts_with(&objects), "{with:?}");

    let old = secret("old", "dockercfg", "dockercfg", &entry("secret"));
    let account = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\n\
                   imagePullSecrets: [{name: old}]\n";
    apply(&pod("anybody", "serviceAccountName: robot,")).fails(4, &["without credentials"]);
    apply(&(pod("accounts", "serviceAccountName: robot,") + &old + account)).succeeds();
    apply(&pod("recorded", "serviceAccountName: robot,")).succeeds();
    let opaque = secret("opaque", "x", "dockercfg", &entry("secret"));
    apply(&(pod("opaque", "imagePullSecrets: [{name: opaque}],") + &opaque))
        .fails(4, &["has no credentials for registries"]);
    // Without any, the user's own files have their turn.
    user.login("secret").succeeds();
    apply(&pod("own", "imagePullSecrets: [{name: wrong}],")).succeeds();
}
