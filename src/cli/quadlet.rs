//! `.kube` files as podman's Quadlet has them (podman-systemd.unit(5)): services of systemd in a few words.
//!
//! Under the name `kplay-generator` this program is one of systemd's generators (systemd.generator(7)): whenever systemd
//! starts or reloads, each `.kube` file becomes a service. Its section `[Kube]` is read here; all others are the service's
//! own, behind what is generated, so that they win.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;

use super::app::GlobalArgs;
use super::error::{self, Error};
use super::generate::{self, text};
use super::manifests::ManifestArgs;
use super::plain_ui;
use super::session::Session;
use crate::sys::fs;
use crate::sys::identity;

/// Whether a file is one of these, by its name.
pub(super) fn is_named(file: impl AsRef<Path>) -> bool {
    file.as_ref().extension() == Some(OsStr::new("kube"))
}

/// Whether a program that was started under this name is the generator.
pub(super) fn is_generator(argv0: &OsStr) -> bool {
    Path::new(argv0).file_name() == Some(OsStr::new("kplay-generator"))
}

/// The generator; systemd gives it three folders, of which the first is for units of ordinary weight.
pub(super) fn main(mut folders: impl Iterator<Item = OsString>) -> ExitCode {
    let ui = plain_ui();
    let Some(units) = folders.next() else {
        ui.error_text("systemd calls this with the folders of its units");
        ui.hint("`kplay generate systemd FILE.kube` prints what would be made of a file");
        return error::USAGE.into();
    };
    let mut code = 0;
    // One that is wrong is no reason to do without the others.
    let mut told = |result: Result<(), Error>| {
        if let Err(error) = result {
            error.tell(&ui);
            code = error.code();
        }
    };
    let global = Asked::parse_from(["kplay"]).global;
    let session = match Session::new(&global, 0) {
        Ok(session) => session,
        Err(error) => {
            told(Err(error));
            return code.into();
        }
    };
    let mut files = BTreeMap::new();
    for folder in places() {
        told(find(&folder, &mut files).map_err(Error::from));
    }
    for file in files.values() {
        told(generate(file, Path::new(&units), &session));
    }
    code.into()
}

/// Where `.kube` files are; of two with one name the first counts.
fn places() -> Vec<PathBuf> {
    if let Some(all) = std::env::var_os("QUADLET_UNIT_DIRS").filter(|all| !all.is_empty()) {
        return std::env::split_paths(&all).collect();
    }
    let is_user = match std::env::var_os("SYSTEMD_SCOPE") {
        Some(scope) => scope == "user",
        // A systemd before 251.
        None => !identity::is_root(),
    };
    if !is_user {
        return ["/etc/kplay/systemd", "/usr/share/kplay/systemd"]
            .map(PathBuf::from)
            .to_vec();
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let own = set("XDG_CONFIG_HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(Path::new(&set("HOME")?).join(".config")));
    let users = PathBuf::from("/etc/kplay/systemd/users");
    own.map(|own| own.join("kplay/systemd"))
        .into_iter()
        .chain([users.join(identity::uid().to_string()), users])
        .collect()
}

/// Adds the files of a folder, which need not be there.
fn find(folder: &Path, files: &mut BTreeMap<OsString, PathBuf>) -> fs::Result<()> {
    for name in fs::list(folder)? {
        if is_named(&name) {
            let path = folder.join(&name);
            files.entry(name).or_insert(path);
        }
    }
    Ok(())
}

/// Writes a file's service, and the links that enable it.
fn generate(file: &Path, units: &Path, session: &Session) -> Result<(), Error> {
    let service = service(file, Vec::new(), session)?;
    fs::replace_in_memory(&units.join(&service.name), 0o644, service.text.as_bytes())?;
    for (link, target) in service.links() {
        let link = units.join(link);
        fs::create_dir_all(link.parent().unwrap_or(units), 0o755)?;
        fs::symlink(Path::new(&target), &link)?;
    }
    Ok(())
}

/// Flags that a `.kube` file has in its own way, or not at all.
#[derive(Debug, clap::Parser)]
struct Asked {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(flatten)]
    manifests: ManifestArgs,
}

/// What is made of a file.
#[derive(Debug)]
pub(super) struct Service {
    name: String,
    pub(super) text: String,
    install: Vec<Install>,
}

impl Service {
    /// Links below the folder of units, and what they lead to.
    fn links(&self) -> Vec<(String, String)> {
        let name = &self.name;
        let link = |install: &Install| match install {
            Install::By { unit, how } => (format!("{unit}.{how}/{name}"), format!("../{name}")),
            Install::Alias(alias) => (alias.clone(), name.clone()),
        };
        self.install.iter().map(link).collect()
    }
}

/// What enables a unit.
#[derive(Debug, PartialEq, Eq)]
enum Install {
    By { unit: String, how: &'static str },
    Alias(String),
}

/// Makes the service of a file.
///
/// # Errors
/// It cannot be read, it is wrong, or its manifests are.
pub(super) fn service(
    file: &Path,
    global: Vec<String>,
    session: &Session,
) -> Result<Service, Error> {
    let file = std::path::absolute(file).map_err(|e| fs::Error::new("find", file, e))?;
    let written = String::from_utf8(fs::read(&file)?).map_err(|_| Error::Kube {
        place: file.display().to_string(),
        what: "this is no text".to_owned(),
    })?;
    let kube = Kube::parse(&file, &written)?;
    let maps = kube.config_maps.iter();
    let flags: Vec<String> = maps.map(|map| format!("--configmap={map}")).collect();
    let asked = std::iter::once("kplay").chain(flags.iter().map(String::as_str));
    let asked = Asked::try_parse_from(asked).map_err(|e| Error::usage(e.to_string()))?;
    let reading = &asked.manifests.reading;
    let mut unit = generate::of_manifests(&kube.manifests, reading, global, session)?;
    unit.manifests = [flags, kube.manifests].concat();
    let ports = kube.ports.iter().map(|port| format!("--publish={port}"));
    unit.up = ports.collect();
    if kube.removes_volumes {
        unit.down.push("--volumes".to_owned());
    }
    unit.folder = kube.folder;
    unit.source = Some(text(&file)?);
    let own = written.lines().map(|line| match line.trim() {
        "[Kube]" => "[X-Kube]",
        _ => line,
    });
    let own = own.collect::<Vec<_>>().join("\n");
    Ok(Service {
        text: format!("{}\n{own}\n", unit.service()),
        name: kube.name + ".service",
        install: kube.install,
    })
}

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kube {
    /// Of the service, without its suffix.
    name: String,
    /// Absolute paths, as all here.
    manifests: Vec<String>,
    config_maps: Vec<String>,
    ports: Vec<String>,
    folder: Option<String>,
    removes_volumes: bool,
    install: Vec<Install>,
}

impl Kube {
    fn parse(file: &Path, written: &str) -> Result<Self, Error> {
        let stem = file.file_stem().map(Path::new).unwrap_or(Path::new(""));
        let mut kube = Self {
            name: text(stem)?,
            ..Self::default()
        };
        let folder = text(file.parent().unwrap_or(Path::new("/")))?;
        let mut of_manifest = false;
        for Assignment {
            section,
            line,
            key,
            value,
        } in assignments(file, written)?
        {
            let wrong = |what: String| Error::Kube {
                place: format!("{}:{line}", file.display()),
                what,
            };
            match section.as_str() {
                "Kube" => {}
                "Install" => {
                    let install = installs(&key, &value).map_err(wrong)?;
                    kube.install.extend(install);
                    continue;
                }
                _ => continue,
            }
            let path = |value: &str| match value.contains('%') {
                true => Err(wrong(format!(
                    "`{value}`: specifiers are not resolved in paths: write it out"
                ))),
                false => text(&Path::new(&folder).join(value)),
            };
            match key.as_str() {
                "Yaml" => assign(&mut kube.manifests, &value, path)?,
                "ConfigMap" => assign(&mut kube.config_maps, &value, path)?,
                "PublishPort" => assign(&mut kube.ports, &value, |port| {
                    let parsed = crate::loader::Publish::parse(port);
                    parsed
                        .map(|_| port.to_owned())
                        .map_err(|e| wrong(e.to_string()))
                })?,
                "SetWorkingDirectory" => {
                    of_manifest = value == "yaml";
                    kube.folder = match value.as_str() {
                        "unit" => Some(folder.clone()),
                        "yaml" | "" => None,
                        _ => return Err(wrong(format!("`{value}` is neither `yaml` nor `unit`"))),
                    };
                }
                "KubeDownForce" => kube.removes_volumes = boolean(&value).map_err(wrong)?,
                "ServiceName" => kube.name = unit_name(&value).map_err(wrong)?,
                _ => return Err(wrong(without(&key))),
            }
        }
        let wrong = |what: String| Error::Kube {
            place: file.display().to_string(),
            what,
        };
        // It may be the file's.
        let name = unit_name(&kube.name).map_err(wrong)?;
        if name.contains('@') {
            let what = "templates are for `kplay generate systemd --template`";
            return Err(wrong(what.to_owned()));
        }
        let Some(first) = kube.manifests.first() else {
            let what = "the section [Kube] names no manifest: `Yaml=web.yaml`";
            return Err(wrong(what.to_owned()));
        };
        if of_manifest {
            kube.folder = Path::new(first).parent().map(text).transpose()?;
        }
        Ok(kube)
    }
}

/// Adds a value; an empty one takes all back that there are.
fn assign<E>(
    list: &mut Vec<String>,
    value: &str,
    parse: impl Fn(&str) -> Result<String, E>,
) -> Result<(), E> {
    match value {
        "" => list.clear(),
        value => list.push(parse(value)?),
    }
    Ok(())
}

/// Why a key of podman's is none here.
fn without(key: &str) -> String {
    let why = match key {
        "Network" => {
            "a pod has a network of its own, or the machine's by its manifest's `hostNetwork`"
        }
        "UserNS" | "RemapUsers" | "RemapUid" | "RemapGid" | "RemapUidSize" => {
            "a pod has ids of its own by its manifest's `hostUsers: false`"
        }
        "LogDriver" | "LogOpt" => {
            "what pods print is in the service's journal and for `kplay logs`"
        }
        "AutoUpdate" => "kplay pulls images by their `imagePullPolicy` only",
        "ExitCodePropagation" => "the service ends as `kplay up` does: with 1 if a pod fails",
        "PodmanArgs" | "GlobalArgs" | "ContainersConfModule" => "this is not podman",
        _ => {
            "known are Yaml, ConfigMap, PublishPort, SetWorkingDirectory, KubeDownForce and ServiceName"
        }
    };
    format!("`{key}` cannot be honoured: {why}")
}

fn installs(key: &str, value: &str) -> Result<Vec<Install>, String> {
    let how = match key {
        "WantedBy" => Some("wants"),
        "RequiredBy" => Some("requires"),
        "UpheldBy" => Some("upholds"),
        "Alias" => None,
        // Of other units than this.
        _ => return Ok(Vec::new()),
    };
    let names = value.split_whitespace().map(unit_name);
    let install = names.map(|unit| {
        unit.map(|unit| match how {
            Some(how) => Install::By { unit, how },
            None => Install::Alias(unit),
        })
    });
    install.collect()
}

/// A unit's name is a file's name.
fn unit_name(name: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    match !name.is_empty() && !name.starts_with('.') && name.chars().all(valid) {
        true => Ok(name.to_owned()),
        false => Err(format!("`{name}` is no unit's name")),
    }
}

/// As systemd reads them.
fn boolean(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err(format!("`{value}` is neither `true` nor `false`")),
    }
}

/// `key=value` in a section, which begins at this line.
#[derive(Debug, PartialEq, Eq)]
struct Assignment {
    section: String,
    line: usize,
    key: String,
    value: String,
}

/// Reads a unit's file (systemd.syntax(7)).
fn assignments(file: &Path, written: &str) -> Result<Vec<Assignment>, Error> {
    let mut section = String::new();
    let mut found = Vec::new();
    let mut lines = (1..).zip(written.lines());
    while let Some((line, first)) = lines.next() {
        let is_comment = |line: &str| line.trim_start().starts_with(['#', ';']);
        if is_comment(first) || first.trim().is_empty() {
            continue;
        }
        let mut whole = first.to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            whole.push(' ');
            // Comments may stand between the lines.
            match lines.by_ref().find(|(_, next)| !is_comment(next)) {
                Some((_, next)) => whole.push_str(next),
                None => break,
            }
        }
        let whole = whole.trim();
        let wrong = |what: &str| Error::Kube {
            place: format!("{}:{line}", file.display()),
            what: format!("`{whole}` {what}"),
        };
        if let Some(name) = whole
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            name.clone_into(&mut section);
            continue;
        }
        let Some((key, value)) = whole.split_once('=') else {
            return Err(wrong("is neither a section nor `key=value`"));
        };
        if section.is_empty() {
            return Err(wrong("stands before the first section: `[Kube]`"));
        }
        found.push(Assignment {
            section: section.clone(),
            line,
            key: key.trim_end().to_owned(),
            value: value.trim_start().to_owned(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(written: &str) -> Result<Kube, String> {
        parse_as("web.kube", written)
    }

    fn parse_as(name: &str, written: &str) -> Result<Kube, String> {
        let file = Path::new("/etc/kplay/systemd").join(name);
        Kube::parse(&file, written).map_err(|e| e.to_string())
    }

    #[test]
    fn a_file_is_read_as_systemd_reads_it() {
        let written = "# a comment\n[Unit]\nAfter=a.service\n[Kube]\nYaml = wrong.yaml\nYaml=\nYaml=web.yaml\n\
             Yaml=\\\n; another\n  /srv/db.yaml\nConfigMap=map.yaml\nPublishPort=8080:80\nKubeDownForce=Yes\n\
             SetWorkingDirectory=yaml\n[Install]\nWantedBy=multi-user.target a.target\nAlias=www.service\nAlso=b.service\n";
        let by = |unit: &str| Install::By {
            unit: unit.to_owned(),
            how: "wants",
        };
        let expected = Kube {
            name: "web".to_owned(),
            manifests: vec![
                "/etc/kplay/systemd/web.yaml".to_owned(),
                "/srv/db.yaml".to_owned(),
            ],
            config_maps: vec!["/etc/kplay/systemd/map.yaml".to_owned()],
            ports: vec!["8080:80".to_owned()],
            folder: Some("/etc/kplay/systemd".to_owned()),
            removes_volumes: true,
            install: vec![
                by("multi-user.target"),
                by("a.target"),
                Install::Alias("www.service".to_owned()),
            ],
        };
        assert_eq!(parse(written), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let check = |written: &str, expected: &str| {
            let said = parse(written).unwrap_err();
            assert!(said.contains(expected), "{said}");
        };
        check("[Unit]\n", "web.kube: the section [Kube] names no manifest");
        check(
            "Yaml=a\n",
            "web.kube:1: `Yaml=a` stands before the first section",
        );
        check("[Kube]\n\nYaml\n", "web.kube:3: `Yaml` is neither");
        check("[Kube]\nYaml=%h/a\n", ":2: `%h/a`: specifiers");
        check(
            "[Kube]\nYaml=a\nNetwork=host\n",
            ":3: `Network` cannot be honoured",
        );
        check("[Kube]\nYml=a\n", "known are Yaml");
        check("[Kube]\nKubeDownForce=maybe\n", "`maybe` is neither");
        check("[Kube]\nSetWorkingDirectory=/srv\n", "`/srv` is neither");
        check("[Kube]\nPublishPort=x\n", ":2: ");
        check(
            "[Kube]\nYaml=a\nServiceName=../a\n",
            "`../a` is no unit's name",
        );
        check("[Kube]\nYaml=a\nServiceName=a@\n", "templates");
        check("[Install]\nWantedBy=a/b\n", "`a/b` is no unit's name");
        let said = parse_as("a b.kube", "[Kube]\nYaml=a\n").unwrap_err();
        assert_eq!(said, "/etc/kplay/systemd/a b.kube: `a b` is no unit's name");
    }

    #[test]
    fn links_enable_a_service() {
        let service = Service {
            name: "web.service".to_owned(),
            text: String::new(),
            install: [
                ("WantedBy", "a.target"),
                ("UpheldBy", "b.target"),
                ("Alias", "www.service"),
            ]
            .iter()
            .flat_map(|(key, value)| installs(key, value).unwrap())
            .collect(),
        };
        let expected = [
            ("a.target.wants/web.service", "../web.service"),
            ("b.target.upholds/web.service", "../web.service"),
            ("www.service", "web.service"),
        ];
        let expected = expected.map(|(link, target)| (link.to_owned(), target.to_owned()));
        assert_eq!(service.links(), expected);
    }
}
