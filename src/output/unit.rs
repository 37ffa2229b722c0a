//! Units of systemd that play manifests.

/// A service that plays manifests.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) description: String,
    /// kplay, by its absolute path.
    pub(crate) program: String,
    /// Flags for both commands that may stand before the command's name.
    pub(crate) global: Vec<String>,
    /// The manifests, and how they are read.
    pub(crate) manifests: Vec<String>,
    /// What only `up` takes.
    pub(crate) up: Vec<String>,
    /// What only `down` takes.
    pub(crate) down: Vec<String>,
    /// The file that it was made of.
    pub(crate) source: Option<String>,
    /// Where relative paths begin.
    pub(crate) folder: Option<String>,
    /// What must be mounted.
    pub(crate) mounts: Vec<String>,
    /// Longest that pods take to end, in seconds.
    pub(crate) stop_seconds: u64,
    pub(crate) manager: Manager,
}

/// Which systemd it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    System,
    User,
}

/// How long pods may take to be ready, with their images to be pulled.
const START: &str = "15min";

impl Unit {
    /// The unit's file, to be enabled.
    pub(crate) fn text(&self) -> String {
        let target = match self.manager {
            Manager::System => "multi-user.target",
            Manager::User => "default.target",
        };
        format!("{}\n[Install]\nWantedBy={target}\n", self.service())
    }

    /// The unit's file without what would enable it.
    pub(crate) fn service(&self) -> String {
        let words = |command: &str, more: &[String]| {
            let program = [self.program.as_str()];
            let all = program
                .into_iter()
                .chain(self.global.iter().map(String::as_str))
                .chain([command])
                .chain(self.manifests.iter().map(String::as_str))
                .chain(more.iter().map(String::as_str));
            all.map(quoted).collect::<Vec<_>>().join(" ")
        };
        let mut lines = vec![
            "[Unit]".to_owned(),
            format!("Description={}", self.description),
            "Documentation=man:kplay(1)".to_owned(),
        ];
        if let Some(source) = &self.source {
            lines.push(format!("SourcePath={}", source.replace('%', "%%")));
        }
        if self.manager == Manager::System {
            lines.push("Wants=network-online.target".to_owned());
            lines.push("After=network-online.target".to_owned());
        }
        if !self.mounts.is_empty() {
            let mounts: Vec<String> = self.mounts.iter().map(|path| quoted(path)).collect();
            lines.push(format!("RequiresMountsFor={}", mounts.join(" ")));
        }
        lines.extend([
            String::new(),
            "[Service]".to_owned(),
            "# Ready when all pods are; the pods' logs are the unit's.".to_owned(),
            "Type=notify".to_owned(),
            "NotifyAccess=main".to_owned(),
        ]);
        if let Some(folder) = &self.folder {
            lines.push(format!("WorkingDirectory={}", folder.replace('%', "%%")));
        }
        lines.extend([
            format!("ExecStart={}", words("up", &self.up)),
            "# Also after kplay was killed: pods end in their own time.".to_owned(),
            format!("ExecStopPost={}", words("down", &self.down)),
            "# The pods' executors are in this cgroup, and are not to be asked to end beside kplay.".to_owned(),
            "KillMode=mixed".to_owned(),
            "# After SIGTERM.".to_owned(),
            "SuccessExitStatus=143".to_owned(),
            "Restart=on-abnormal".to_owned(),
            format!("TimeoutStartSec={START}"),
            format!("TimeoutStopSec={}", self.stop_seconds),
        ]);
        lines.join("\n") + "\n"
    }
}

/// A word of a command as systemd.service(5) reads it.
fn quoted(word: &str) -> String {
    if word == INSTANCE {
        return word.to_owned();
    }
    let escaped = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,@+%$*[]{}".contains(c);
    if !escaped.is_empty() && escaped.chars().all(plain) {
        escaped
    } else {
        format!("\"{}\"", escaped.replace('\n', "\\n"))
    }
}

/// What a template unit names its instance by: a path that `systemd-escape` has escaped.
pub(crate) const INSTANCE: &str = "%I";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_kplay_as_they_are() {
        let check = |word: &str, expected: &str| assert_eq!(quoted(word), expected);
        check("/etc/web.yaml", "/etc/web.yaml");
        check("a b", "\"a b\"");
        check("", "\"\"");
        check("100%", "100%%");
        check("$HOME", "$$HOME");
        check("say \"hi\"", "\"say \\\"hi\\\"\"");
        check("back\\slash", "\"back\\\\slash\"");
        check("it's;", "\"it's;\"");
        check("%I", "%I");
    }

    #[test]
    fn a_unit_starts_and_stops_the_manifests() {
        let unit = Unit {
            description: "kplay: web.yaml".to_owned(),
            program: "/usr/bin/kplay".to_owned(),
            global: vec!["--root=/srv/k".to_owned()],
            manifests: vec!["web.yaml".to_owned()],
            up: vec!["--publish".to_owned(), "80:8080".to_owned()],
            down: vec!["--volumes".to_owned()],
            source: None,
            folder: Some("/srv".to_owned()),
            mounts: vec!["/srv/k".to_owned()],
            stop_seconds: 40,
            manager: Manager::System,
        };
        let text = unit.text();
        let has = |line: &str| assert!(text.lines().any(|one| one == line), "{line}:\n{text}");
        has("ExecStart=/usr/bin/kplay --root=/srv/k up web.yaml --publish 80:8080");
        has("ExecStopPost=/usr/bin/kplay --root=/srv/k down web.yaml --volumes");
        has("WorkingDirectory=/srv");
        has("RequiresMountsFor=/srv/k");
        has("TimeoutStopSec=40");
        has("WantedBy=multi-user.target");
    }
}
