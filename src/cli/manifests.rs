//! Which manifests a command is about, and how they are read: the flags that all such commands share.

use clap::Args;

use super::error::Error;
use super::session::Session;
use super::values;
use crate::loader::{
    self, AllowedSysctls, Capacity, Loaded, PublishDeclared, Selector, Substitution, source,
};
use crate::model::names::ContainerName;
use crate::state;

/// Files and what to do with their content.
#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    /// Read this file or folder; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Read this file or folder; `-` is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) filenames: Vec<String>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
}

impl ManifestArgs {
    /// What was named, in either way.
    ///
    /// # Errors
    /// Nothing was.
    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        let names: Vec<String> = self.files.iter().chain(&self.filenames).cloned().collect();
        if names.is_empty() {
            return Err(Error::usage("no manifest is named: `kplay apply web.yaml`"));
        }
        Ok(names)
    }
}

/// How manifests are read.
#[derive(Debug, Args)]
pub(crate) struct ReadingArgs {
    /// Look into the folders of a folder, too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Take only objects with such labels
    #[arg(short = 'l', long, value_parser = Selector::parse)]
    pub(crate) selector: Option<Selector>,
    /// Replace `${VAR}` in values; an undefined variable is an error
    #[arg(long)]
    subst: bool,
    /// Define a variable for --subst
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::pair, requires = "subst")]
    env: Vec<(String, String)>,
    /// Define the variables of this file for --subst
    #[arg(long, value_name = "FILE", requires = "subst")]
    env_file: Vec<std::path::PathBuf>,
    /// Use another image in the containers of this name
    #[arg(long, value_name = "CONTAINER=IMAGE", value_parser = image_of_container)]
    set_image: Vec<(ContainerName, String)>,
    /// Use the ConfigMaps of this file, too
    #[arg(long, value_name = "FILE")]
    configmap: Vec<String>,
    /// Let pods set this sysctl (`net.core.*`: all that begin so), too
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    allowed_unsafe_sysctls: Vec<String>,
}

/// What manifests ask for beside their content.
#[derive(Clone, Debug)]
pub(crate) struct Publishing {
    pub(crate) ports: Vec<loader::Publish>,
    pub(crate) declared: PublishDeclared,
}

impl Publishing {
    /// What the manifests say themselves.
    pub(crate) fn as_declared() -> Self {
        Self {
            ports: Vec::new(),
            declared: PublishDeclared::HostPorts,
        }
    }
}

/// Reads and checks manifests, and tells what is to be told about them.
///
/// # Errors
/// A file cannot be read. Faults in manifests are told here and in the result.
pub(crate) fn load(
    names: &[String],
    reading: &ReadingArgs,
    publishing: Publishing,
    session: &Session,
) -> Result<Loaded, Error> {
    let recurse = if reading.recursive {
        source::Recurse::Yes
    } else {
        source::Recurse::No
    };
    let sources = source::read(names, recurse)?;
    let options = loader::Options {
        namespace: session.namespace.clone(),
        selector: reading.selector.clone(),
        set_image: reading.set_image.clone(),
        publish: publishing.ports,
        publish_declared: publishing.declared,
        config_maps: source::read(&reading.configmap, source::Recurse::No)?,
        substitution: substitution(reading)?,
        existing: existing(session)?,
        capacity: Some(Capacity {
            cpu_milli: crate::sys::identity::cpus() * 1000,
            memory: crate::sys::identity::memory(),
        }),
        allowed_sysctls: AllowedSysctls::new(&reading.allowed_unsafe_sysctls),
        current_dir: std::env::current_dir().map_err(|source| Error::Machine {
            what: "find the current folder",
            source,
        })?,
        node_name: crate::sys::identity::node_name(),
    };
    Ok(loader::load(&sources, &options))
}

/// Reads and checks manifests that are to be played.
///
/// # Errors
/// A file cannot be read, or is wrong; what is wrong has been told.
pub(crate) fn load_valid(
    names: &[String],
    reading: &ReadingArgs,
    publishing: Publishing,
    session: &Session,
) -> Result<Loaded, Error> {
    let loaded = load(names, reading, publishing, session)?;
    session.ui.diagnostics(&loaded.diagnostics);
    if loaded.has_errors() {
        return Err(Error::Manifest);
    }
    Ok(loaded)
}

/// Recorded objects to which manifests may refer.
fn existing(session: &Session) -> Result<Vec<serde_json::Value>, Error> {
    let (records, unreadable) = state::object::list(&session.layout)?;
    for error in &unreadable {
        session.ui.warning(&crate::model::cause::chain(error));
    }
    Ok(records
        .into_iter()
        .filter(|record| {
            matches!(
                record.key.kind.as_str(),
                "ConfigMap"
                    | "Secret"
                    | "ServiceAccount"
                    | "PersistentVolumeClaim"
                    | "PersistentVolume"
            )
        })
        .map(|record| record.manifest)
        .collect())
}

/// The variables of files, then those of flags, then the environment's for what neither defines.
fn substitution(reading: &ReadingArgs) -> Result<Option<Substitution>, Error> {
    if !reading.subst {
        return Ok(None);
    }
    let mut variables: std::collections::BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    for path in &reading.env_file {
        let bytes = crate::sys::fs::read(path).map_err(Error::File)?;
        let text = String::from_utf8_lossy(&bytes);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = values::pair(line)
                .map_err(|fault| Error::usage(format!("line {number} of {path:?} is {fault}")))?;
            variables.insert(name, value);
        }
    }
    variables.extend(reading.env.iter().cloned());
    Ok(Some(Substitution::new(variables)))
}

fn image_of_container(text: &str) -> Result<(ContainerName, String), String> {
    let (name, image) = values::pair(text).map_err(|_| "not `CONTAINER=IMAGE`".to_owned())?;
    let name = ContainerName::parse(&name).map_err(|fault| format!("`{name}` {fault}"))?;
    Ok((name, image))
}
