//! `image pull|ls|inspect|rm|tag|untag|load|save|push|prune`, and docker's spellings of them.

mod inspect;
mod prune;
mod push;
mod save;
mod tag;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::error::{Done, Error};
use super::registry::{AuthfileArgs, Hidden, TlsArgs, other_stores, registry_places};
use super::session::{Network, Session};
use super::short_name::{self, Chosen};
use crate::image::registries::RegistriesConf;
use crate::image::{
    self, Credentials, Daemon, LoadSource, Platform, PullOptions, PullProgress, PullSource, Store,
    Then, Trouble,
};
use crate::model::cause::chain;
use crate::model::image::Image;
use crate::model::reference::{ImageName, Reference};
use crate::output::images::{self, Row};
use crate::output::object::{self, Notation};
use crate::output::progress::{Progress, Step};
use crate::output::report;
use crate::output::table::Headers;
use crate::state::view;
use crate::sys::poll::Interrupt;
use crate::sys::stop::Stop;
use crate::sys::terminal;

pub(crate) use prune::prune_unused;
pub(crate) use push::{PushArgs, push};
pub(crate) use save::{SaveArgs, save};

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Pull images from their registries
    Pull(PullArgs),
    /// List images
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Remove images
    #[command(alias = "remove")]
    Rm(RmArgs),
    /// Show all about images
    Inspect(inspect::InspectArgs),
    /// Give an image further names
    Tag(tag::TagArgs),
    /// Take names from an image
    Untag(tag::UntagArgs),
    /// Load images from archives
    Load(LoadArgs),
    /// Save images in archives
    Save(SaveArgs),
    /// Push an image to a registry
    Push(PushArgs),
    /// Remove images that nothing needs
    Prune(prune::PruneArgs),
}

/// What `pull` reads beside its flags.
const PULL_FILES: &str = "\
Environment:
  CONTAINERS_REGISTRIES_CONF  Read this file instead of any other registries.conf
  CONTAINERS_STORAGE_CONF     Read this file instead of any other storage.conf
  DOCKER_HOST                 Where Docker listens: a socket of this machine, unix:///var/run/docker.sock

Files:
  ~/.config/containers/registries.conf, /etc/containers/registries.conf, /usr/share/containers/registries.conf
      The first that is there: what short names mean, mirrors, other locations, insecure and blocked registries;
      see containers-registries.conf(5)
  /var/cache/containers/short-name-aliases.conf, ~/.cache/containers/short-name-aliases.conf
      What short names were said to mean: at a terminal, one that several registries may have is asked about
  /etc/containers/registries.conf.d/*.conf, ~/.config/containers/registries.conf.d/*.conf
      What is set there counts more
  ~/.config/containers/certs.d/HOST, /etc/containers/certs.d/HOST, /etc/docker/certs.d/HOST
      *.crt: whom to trust beside the machine's own authorities
      NAME.cert and NAME.key: what to show to a registry that wants a certificate of who asks
  ~/.config/containers/policy.json, /etc/containers/policy.json
      Which images may be pulled and loaded; those that must be signed are refused";

/// Flags of `image pull`.
#[derive(Debug, Args)]
#[command(after_help = PULL_FILES)]
pub(crate) struct PullArgs {
    /// Pull these images: names, or what containers-transports(5) has as docker-archive:, oci-archive:, oci:,
    /// docker-daemon: and containers-storage:
    #[arg(value_name = "IMAGE", required = true, value_parser = PullSource::parse)]
    images: Vec<PullSource>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// How registries are asked.
#[derive(Debug, Args)]
struct RegistryArgs {
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    files: AuthfileArgs,
    /// Log in as this user
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<Hidden>,
    /// Pull the image for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = Platform::parse)]
    platform: Option<Platform>,
}

/// Not clap's business: it would print what is wrong.
fn credentials(Hidden(text): &Hidden) -> Result<Credentials, Error> {
    match text.split_once(':') {
        Some((username, password)) if !username.is_empty() => {
            Ok(Credentials::password(username, password))
        }
        _ => Err(Error::usage(
            "the value of `--creds` is not `USER:PASSWORD`",
        )),
    }
}

/// Flags of `image ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Print in this format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
    /// Print no column names
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

/// Flags of `image rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Remove these images, by name or by the start of their id
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Remove them even if pods use them
    #[arg(short, long)]
    force: bool,
}

/// Flags of `image load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Read this archive or OCI layout folder; `-` (the default) is standard input
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "-",
        hide_default_value = true
    )]
    input: PathBuf,
}

/// Runs a command about images.
///
/// # Errors
/// The store or a registry says no.
pub(crate) fn run(command: &ImageCommand, session: &Session) -> Result<Done, Error> {
    match command {
        ImageCommand::Pull(arguments) => pull(arguments, session),
        ImageCommand::Ls(arguments) => ls(arguments, session),
        ImageCommand::Rm(arguments) => rm(arguments, session),
        ImageCommand::Inspect(arguments) => inspect::inspect(arguments, session),
        ImageCommand::Tag(arguments) => tag::tag(arguments, session),
        ImageCommand::Untag(arguments) => tag::untag(arguments, session),
        ImageCommand::Load(arguments) => load(arguments, session),
        ImageCommand::Save(arguments) => save(arguments, session),
        ImageCommand::Push(arguments) => push(arguments, session),
        ImageCommand::Prune(arguments) => prune::prune(arguments, session),
    }
}

/// Pulls images, one after the other, and prints their ids.
///
/// # Errors
/// One cannot be had.
pub(crate) fn pull(arguments: &PullArgs, session: &Session) -> Result<Done, Error> {
    let asks = arguments.images.iter().filter_map(|source| match source {
        PullSource::Registry(name) => Some(name.reference().to_string()),
        PullSource::File { .. } | PullSource::Daemon(_) | PullSource::Storage { .. } => None,
    });
    let asks: Vec<String> = asks.collect();
    if session.network == Network::Forbidden && !asks.is_empty() {
        return Err(Error::Refused(format!(
            "nothing can be pulled with `--offline`: leave it out, or load {} from an archive",
            report::joined(asks.iter().map(String::as_str))
        )));
    }
    let registry = &arguments.registry;
    let given = registry.creds.as_ref().map(credentials).transpose()?;
    let registries = Arc::new(registry.tls.registries());
    let store = session.store()?;
    let options = registry.files.pull_options(
        given,
        registry.tls.verify(),
        Arc::clone(&registries),
        registry.platform.clone(),
    );
    let daemon = Daemon::new(std::env::var("DOCKER_HOST").ok());
    let local = |source| {
        interruptibly(session, |store, _| {
            store.pull_local(source, &other_stores(), &daemon, &registries)
        })
    };
    for source in &arguments.images {
        match source {
            PullSource::Registry(name) => pull_one(name, &store, &options, session)?,
            PullSource::File { .. } | PullSource::Daemon(_) | PullSource::Storage { .. } => {
                for image in local(source)?.unwrap_or_default() {
                    session.ui.line(&image.id)?;
                }
            }
        }
    }
    Ok(Done::Well)
}

fn pull_one(
    name: &ImageName,
    store: &Store,
    options: &PullOptions,
    session: &Session,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Machine {
            what: "start the pull",
            source,
        })?;
    let interrupt = interrupt()?;
    let progress = RefCell::new(progress(session, "pulling"));
    let chosen = short_name::choose(name, &options.registries, store, session)?;
    let name = &chosen.as_ref().map_or_else(|| name.clone(), Chosen::name);
    let names = options.registries.names(name).map_err(image::Error::from)?;
    let shown_name = names.first().unwrap_or(name.reference()).to_string();
    let tell = |step| progress.borrow_mut().update(&shown_name, shown(step));
    let image = runtime.block_on(async {
        tokio::select! {
            pulled = image::pull(store, name, options, &tell) => Ok(pulled?),
            signal = interrupt.wait() => Err(signal.map_or_else(no_signal, Error::Signal)),
        }
    })?;
    progress.borrow_mut().finish(&shown_name);
    if let Some(chosen) = chosen {
        chosen.record(&options.registries)?;
    }
    Ok(session.ui.line(&image.id)?)
}

/// Signals, from now on as something to wait for: what one ends removes what it wrote.
fn interrupt() -> Result<Interrupt, Error> {
    Interrupt::install().map_err(|source| Error::Machine {
        what: "handle signals",
        source,
    })
}

fn no_signal(source: std::io::Error) -> Error {
    let what = "take a signal";
    Error::Machine { what, source }
}

/// Does something with the store that a signal ends, and then nothing of it is left.
fn interruptibly<T>(
    session: &Session,
    work: impl FnOnce(&Store, &Stop) -> Result<T, image::Error>,
) -> Result<T, Error> {
    let interrupt = interrupt()?;
    let stop = interrupt.stop().map_err(no_signal)?;
    let store = session.store()?.heeding(stop.clone());
    match (work(&store, &stop), interrupt.take()) {
        (Err(image::Error::Stopped(_)), Ok(Some(signal))) => Err(Error::Signal(signal)),
        (done, _) => Ok(done?),
    }
}

/// The progress of this command's pulls, or of what else is done to images.
pub(crate) fn progress<'a>(session: &'a Session, doing: &'static str) -> Progress<'a> {
    Progress::new(&session.ui, doing, || {
        let size = terminal::size(std::io::stderr())?;
        Some((size.rows.into(), size.columns.into()))
    })
}

/// A step of a pull, as it is shown.
pub(crate) fn shown(step: PullProgress) -> Step {
    match step {
        PullProgress::Resolved { missing, bytes, .. } => Step::Resolved {
            layers: missing,
            bytes,
        },
        PullProgress::Waiting { layer } => Step::Waiting { layer },
        PullProgress::Started { layer, bytes } => Step::Started { layer, bytes },
        PullProgress::Received { layer, bytes } => Step::Received { layer, bytes },
        PullProgress::LayerDone { layer } => Step::Done { layer },
        PullProgress::Trouble(Trouble { fault, then }) => Step::Trouble(match then {
            Then::Again(wait) => format!("{fault}; again in {:.1} s", wait.as_secs_f64()),
            Then::Elsewhere => format!("{fault}; the next place is asked"),
        }),
    }
}

/// Lists images.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn ls(arguments: &LsArgs, session: &Session) -> Result<Done, Error> {
    let notation = match arguments.output {
        Some(Format::Json) => Some(Notation::Json),
        Some(Format::Yaml) => Some(Notation::Yaml),
        None => None,
    };
    let headers = if arguments.no_headers {
        Headers::Hidden
    } else {
        Headers::Shown
    };
    print_list(notation, headers, session)
}

/// Prints the images of the store; with `-q` only their ids, as docker does.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn print_list(
    notation: Option<Notation>,
    headers: Headers,
    session: &Session,
) -> Result<Done, Error> {
    let mut rows = Vec::new();
    for image in session.store()?.list()? {
        let row = |reference| Row {
            reference,
            id: image.id.clone(),
            created: image.created.as_deref().and_then(|time| time.parse().ok()),
            size: image.size,
        };
        if image.references.is_empty() {
            rows.push(row(None));
        }
        rows.extend(image.references.iter().cloned().map(Some).map(row));
    }
    let text = match notation {
        Some(notation) => object::text(&images::object(&rows), notation)?,
        None if session.ui.is_quiet() => {
            let ids: BTreeSet<&str> = rows.iter().map(|row| images::short_id(&row.id)).collect();
            ids.into_iter().map(|id| format!("{id}\n")).collect()
        }
        None => images::table(&rows, headers, Timestamp::now()),
    };
    session.ui.data(text.as_bytes())?;
    Ok(Done::Well)
}

/// Removes images.
///
/// # Errors
/// One is not there, or is used by a pod.
pub(crate) fn rm(arguments: &RmArgs, session: &Session) -> Result<Done, Error> {
    let store = session.store()?;
    let mut failed: Option<Error> = None;
    for name in &arguments.images {
        let users = Users::new(session);
        let in_use = |id: &str| !arguments.force && users.are_of(id);
        match remove(&store, name, &in_use) {
            Ok(removed) => {
                for reference in removed.references {
                    session.ui.line(&format!("Untagged: {reference}"))?;
                }
                for id in removed.images {
                    session.ui.line(&format!("Deleted: {id}"))?;
                }
            }
            Err(error) => {
                let error = match users.result()? {
                    pods if pods.is_empty() => error,
                    pods => in_use_by(name, &pods),
                };
                if let Some(before) = failed.replace(error) {
                    before.tell(&session.ui);
                }
            }
        }
    }
    failed.map_or(Ok(Done::Well), Err)
}

/// Pods, by the ids of the images that they use.
type Used = BTreeMap<String, Vec<String>>;

/// Who uses images: looked up when it is first asked for, which is when nobody can start to use one any more.
struct Users<'a> {
    session: &'a Session,
    found: RefCell<Option<Result<Used, Error>>>,
    last: RefCell<Vec<String>>,
}

impl<'a> Users<'a> {
    fn new(session: &'a Session) -> Self {
        let (found, last) = (RefCell::default(), RefCell::default());
        Self {
            session,
            found,
            last,
        }
    }

    /// Whether there are any. If that cannot be found out there are, and the result is the error.
    fn are_of(&self, id: &str) -> bool {
        let mut found = self.found.borrow_mut();
        match found.get_or_insert_with(|| used_images(self.session)) {
            Ok(used) => {
                let pods = used.get(id).cloned().unwrap_or_default();
                let any = !pods.is_empty();
                self.last.replace(pods);
                any
            }
            Err(_) => true,
        }
    }

    /// Those of the image that was asked about last.
    fn result(self) -> Result<Vec<String>, Error> {
        match self.found.into_inner() {
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(self.last.into_inner()),
        }
    }
}

/// An image of the store by a name, which comes along, or by the start of its id.
fn named(store: &Store, name: &str) -> Result<(Image, Option<Reference>), Error> {
    if let Some((reference, true)) = stored_name(store, name)?
        && let Some(image) = store.find(&reference)?
    {
        return Ok((image, Some(reference)));
    }
    match store.find_id(name)? {
        Some(image) => Ok((image, None)),
        None => Err(image::Error::NotStored(name.to_owned()).into()),
    }
}

/// That an image cannot go, and whose fault that is.
fn in_use_by(name: &str, pods: &[String]) -> Error {
    Error::Refused(format!(
        "the image `{name}` is used by {}: delete what uses it first, or give `--force`",
        report::joined(pods.iter().map(String::as_str))
    ))
}

/// By name, or by id if no image has the name.
fn remove(
    store: &Store,
    name: &str,
    in_use: &dyn Fn(&str) -> bool,
) -> Result<image::Removed, Error> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let is_id = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match stored_name(store, name)? {
        Some((reference, is_there)) if !is_id || is_there => Ok(store.remove(&reference, in_use)?),
        _ if is_id => Ok(store.remove_id(name, in_use)?),
        _ => Err(image::Error::NotStored(name.to_owned()).into()),
    }
}

/// What a name means in the store, and whether that is there; nothing if it is no name.
fn stored_name(store: &Store, name: &str) -> Result<Option<(Reference, bool)>, Error> {
    let Ok(name) = ImageName::parse(name) else {
        return Ok(None);
    };
    let registries = RegistriesConf::new(registry_places());
    let names = registries.stored_names(&name);
    for name in names.map_err(image::Error::from)? {
        if store.find(&name)?.is_some() {
            return Ok(Some((name, true)));
        }
    }
    Ok(Some((name.reference().clone(), false)))
}

/// Ids of images that pods use, with the pods.
pub(crate) fn used_images(session: &Session) -> Result<Used, Error> {
    let (views, unreadable) = view::list(&session.layout)?;
    for error in &unreadable {
        session.ui.warning(&chain(error));
    }
    let mut used = Used::new();
    for view in &views {
        let record = &view.record;
        // A container that started again may have got another one.
        let status = &view.status;
        let containers = status.init_container_statuses.iter();
        let containers = containers.chain(&status.container_statuses);
        let ids: BTreeSet<&String> = record
            .images
            .values()
            .chain(&record.volume_images)
            .chain(containers.map(|container| &container.image_id))
            .collect();
        for id in ids {
            let pods = used.entry(id.clone()).or_default();
            pods.push(view.record.key().to_string());
        }
    }
    Ok(used)
}

/// Loads images, and prints what came.
///
/// # Errors
/// What is read has no images that kplay can use.
pub(crate) fn load(arguments: &LoadArgs, session: &Session) -> Result<Done, Error> {
    let policy = RegistriesConf::new(registry_places());
    let loaded = interruptibly(session, |store, stop| {
        if arguments.input != Path::new("-") {
            return store.load(LoadSource::Path(&arguments.input), &policy);
        }
        let mut input = stop.standard_input().map_err(image::Error::Input)?;
        store.load(LoadSource::Reader(&mut input), &policy)
    })?;
    for image in loaded {
        if image.references.is_empty() {
            session.ui.line(&format!("Loaded image ID: {}", image.id))?;
        }
        for reference in image.references {
            session.ui.line(&format!("Loaded image: {reference}"))?;
        }
    }
    Ok(Done::Well)
}
