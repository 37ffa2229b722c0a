//! Which image each container gets: everything is there, or nothing is changed.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::apply::ApplyInput;
use super::error::{Error, MissingImage};
use super::report::{Event, Report};
use crate::image::containers::{Imported, OtherStores};
use crate::image::{self, Hold, PullOptions, PullProgress, Store};
use crate::model::cause::chain;
use crate::model::image::{Image, ImageUser, Pull};
use crate::model::names::PodKey;
use crate::model::plan::{PodPlan, PullPolicy, VolumeSource};
use crate::model::pull_secret::PullSecret;
use crate::model::reference::{ImageName, Reference};
use crate::sys::poll::Interrupt;

pub use crate::protocol::Registries;

/// An error of the image store or of a registry; the command line knows its type.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where images come from.
pub trait ImageSource {
    /// An image that is on this machine.
    ///
    /// # Errors
    /// The store cannot be read.
    fn find(&self, name: &ImageName) -> Result<Option<Image>, SourceError>;

    /// Brings an image to this machine's store that another engine on this machine has: no registry is asked.
    ///
    /// # Errors
    /// It is there, and cannot be taken over.
    fn import(&self, name: &ImageName) -> Result<Option<Imported>, SourceError>;

    /// What a pull of a name will ask for first.
    fn resolved(&self, name: &ImageName) -> Reference;

    /// Brings an image to this machine, or brings it up to date. The Secrets are those of the pods that want it.
    fn pull(
        &self,
        name: &ImageName,
        secrets: &[PullSecret],
        progress: &dyn Fn(PullProgress),
    ) -> impl Future<Output = Result<Image, SourceError>>;
}

/// The machine's own image store, and the registries.
#[derive(Debug)]
pub struct StoreImages {
    store: Store,
    /// How to pull: with whose credentials, for which platform.
    options: PullOptions,
    others: OtherStores,
    /// What was found stays until the pods have been started.
    _hold: Hold,
}

impl StoreImages {
    /// Images of this store, which nobody removes as long as this exists.
    ///
    /// # Errors
    /// The store cannot be locked.
    pub fn new(
        store: Store,
        options: PullOptions,
        others: OtherStores,
    ) -> Result<Self, SourceError> {
        let hold = store.hold()?;
        Ok(Self {
            store,
            options,
            others,
            _hold: hold,
        })
    }
}

impl ImageSource for StoreImages {
    fn find(&self, name: &ImageName) -> Result<Option<Image>, SourceError> {
        if is_toolbox(name.reference()) {
            return Ok(Some(self.store.toolbox()?));
        }
        for name in self.options.registries.stored_names(name)? {
            if let Some(image) = self.store.find(&name)? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    fn import(&self, name: &ImageName) -> Result<Option<Imported>, SourceError> {
        let registries = &self.options.registries;
        for name in registries.stored_names(name)? {
            if let Some(imported) = self.store.import(&name, &self.others, registries)? {
                return Ok(Some(imported));
            }
        }
        Ok(None)
    }

    fn resolved(&self, name: &ImageName) -> Reference {
        // Whatever is wrong is the pull's error.
        let names = self.options.registries.names(name).unwrap_or_default();
        let first = names.into_iter().next();
        first.unwrap_or_else(|| name.reference().clone())
    }

    async fn pull(
        &self,
        name: &ImageName,
        secrets: &[PullSecret],
        progress: &dyn Fn(PullProgress),
    ) -> Result<Image, SourceError> {
        if is_toolbox(name.reference()) {
            return Ok(self.store.toolbox()?);
        }
        let mut options = self.options.clone();
        options.keychain.secrets = secrets.to_vec();
        Ok(image::pull(&self.store, name, &options, progress).await?)
    }
}

/// The image that is in this binary, under whatever tag.
fn is_toolbox(reference: &Reference) -> bool {
    reference.registry == "kplay.local" && reference.repository == "toolbox"
}

/// `--pull`, which replaces every container's own policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullOverride {
    Always,
    Missing,
    Never,
}

impl PullOverride {
    /// The policy that it stands for.
    #[must_use]
    pub fn policy(self) -> PullPolicy {
        match self {
            Self::Always => PullPolicy::Always,
            Self::Missing => PullPolicy::IfNotPresent,
            Self::Never => PullPolicy::Never,
        }
    }
}

/// The images of each pod's containers and volumes.
pub type PodImages = BTreeMap<PodKey, BTreeMap<ImageUser, Image>>;

/// One image that is wanted, by all that want it.
#[derive(Debug)]
struct Wanted<'a> {
    policy: PullPolicy,
    /// As the first manifest that names it has it.
    image: &'a str,
    users: Vec<(PodKey, ImageUser)>,
    /// What the pods have to show to a registry, in their order.
    secrets: Vec<PullSecret>,
}

/// Finds or pulls the images of all plans, the pulls at the same time.
///
/// # Errors
/// [`Error::Images`] with all that cannot be had; [`Error::Interrupted`].
pub(super) fn resolve(
    input: &ApplyInput,
    source: &impl ImageSource,
    interrupt: &Interrupt,
    report: Report<'_>,
) -> Result<PodImages, Error> {
    let registries = input.options.registries;
    let mut wanted = wanted(&input.plans, input.options.pull);
    for wanted in wanted.values_mut() {
        wanted.secrets = secrets(&wanted.users, input);
    }
    let mut images = BTreeMap::new();
    let mut missing = Vec::new();
    let mut to_pull = Vec::new();
    for (name, wanted) in &wanted {
        let found = find_or_import(source, name, wanted, registries, report);
        // An import takes long, and is given up then.
        let signal = interrupt.take().map_err(Error::io("take a signal"))?;
        if let Some(signal) = signal {
            return Err(Error::Interrupted { signal });
        }
        match found {
            Ok(Some(image))
                if wanted.policy != PullPolicy::Always || registries == Registries::Forbidden =>
            {
                images.insert(name, image);
            }
            Ok(found) => match refusal(wanted, registries) {
                None => to_pull.push(name),
                Some(message) => {
                    debug_assert!(found.is_none(), "an image that is there is not refused");
                    missing.push(wanted.missing(name, "ErrImageNeverPull", message, None));
                }
            },
            Err(error) => {
                let message = format!("cannot look for the image `{}`", name.reference());
                missing.push(wanted.missing(name, reason(&error), message, Some(error)));
            }
        }
    }
    for missing in &missing {
        report(Event::ImageFailed {
            image: missing.reference.clone(),
            reason: missing.reason,
            message: match &missing.source {
                Some(cause) => format!("{}: {}", missing.message, chain(cause.as_ref())),
                None => missing.message.clone(),
            },
        });
    }
    // What is known to be missing is told before anything is pulled.
    if missing.is_empty() && !to_pull.is_empty() {
        for (name, result) in pull_all(&to_pull, &wanted, source, interrupt, report)? {
            match (result, wanted.get(name)) {
                (Ok(image), _) => {
                    images.insert(name, image);
                }
                (Err(error), Some(wanted)) => {
                    let message = format!("failed to pull the image `{}`", source.resolved(name));
                    missing.push(wanted.missing(name, reason(&error), message, Some(error)));
                }
                (Err(_), None) => debug_assert!(false, "only what is wanted is pulled"),
            }
        }
    }
    if !missing.is_empty() {
        return Err(Error::Images(missing));
    }
    for (name, image) in &images {
        if image.config.healthcheck {
            report(Event::HealthcheckIgnored(source.resolved(name)));
        }
    }
    Ok(by_pod(&wanted, &images))
}

/// An image that is there, or that another engine has, unless a registry is to be asked anyway.
fn find_or_import(
    source: &impl ImageSource,
    name: &ImageName,
    wanted: &Wanted<'_>,
    registries: Registries,
    report: &mut dyn FnMut(Event),
) -> Result<Option<Image>, SourceError> {
    if let Some(image) = source.find(name)? {
        return Ok(Some(image));
    }
    let pulls = registries == Registries::Allowed;
    if pulls && wanted.policy == PullPolicy::Always {
        return Ok(None);
    }
    match source.import(name) {
        Ok(None) => Ok(None),
        Ok(Some(Imported { image, from })) => {
            report(Event::ImageImported(name.reference().clone(), from));
            Ok(Some(image))
        }
        // What another engine has is only a shortcut to what a registry has.
        Err(error) if pulls && wanted.policy != PullPolicy::Never => {
            tracing::warn!(image = %name.reference(), error = chain(error.as_ref()), "not taken over");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The images that are there; those that are not, or cannot be looked for, are left out.
pub(super) fn present(plans: &[PodPlan], source: &impl ImageSource) -> PodImages {
    let wanted = wanted(plans, None);
    let there = wanted.keys().filter_map(|name| {
        let image = source.find(name).ok()??;
        Some((name, image))
    });
    by_pod(&wanted, &there.collect())
}

fn wanted(plans: &[PodPlan], pull: Option<PullOverride>) -> BTreeMap<ImageName, Wanted<'_>> {
    let mut all: BTreeMap<ImageName, Wanted<'_>> = BTreeMap::new();
    for plan in plans {
        for (user, image, reference, policy) in users(plan) {
            let policy = pull.map_or(policy, PullOverride::policy);
            let name = ImageName::parse(image).unwrap_or_else(|_| reference.clone().into());
            let wanted = all.entry(name).or_insert(Wanted {
                policy,
                image,
                users: Vec::new(),
                secrets: Vec::new(),
            });
            wanted.policy = stronger(wanted.policy, policy);
            wanted.users.push((plan.key(), user));
        }
    }
    all
}

/// The Secrets of all pods that want an image, each once.
fn secrets(users: &[(PodKey, ImageUser)], input: &ApplyInput) -> Vec<PullSecret> {
    let mut all: Vec<PullSecret> = Vec::new();
    for secret in users
        .iter()
        .filter_map(|(pod, _)| input.pull_secrets.get(pod))
        .flatten()
    {
        if !all.contains(secret) {
            all.push(secret.clone());
        }
    }
    all
}

/// Who needs which image in a pod.
fn users(plan: &PodPlan) -> Vec<(ImageUser, &str, &Reference, PullPolicy)> {
    let containers = plan.all_containers().map(|container| {
        let user = ImageUser::Container(container.name.clone());
        let policy = container.pull_policy;
        (user, container.image.as_str(), &container.reference, policy)
    });
    let volumes = plan
        .volumes
        .iter()
        .filter_map(|volume| match &volume.source {
            VolumeSource::Image {
                image,
                reference,
                pull_policy,
            } => {
                let user = ImageUser::Volume(volume.name.clone());
                Some((user, image.as_str(), reference, *pull_policy))
            }
            _ => None,
        });
    containers.chain(volumes).collect()
}

/// One container that may pull is enough for all that want the same image.
fn stronger(a: PullPolicy, b: PullPolicy) -> PullPolicy {
    match (a, b) {
        (PullPolicy::Always, _) | (_, PullPolicy::Always) => PullPolicy::Always,
        (PullPolicy::IfNotPresent, _) | (_, PullPolicy::IfNotPresent) => PullPolicy::IfNotPresent,
        (PullPolicy::Never, PullPolicy::Never) => PullPolicy::Never,
    }
}

/// Why a missing image may not be pulled; the first is the kubelet's own sentence.
fn refusal(wanted: &Wanted<'_>, registries: Registries) -> Option<String> {
    let image = wanted.image;
    if wanted.policy == PullPolicy::Never {
        return Some(format!(
            "Container image \"{image}\" is not present with pull policy of Never"
        ));
    }
    match registries {
        Registries::Allowed => None,
        Registries::Forbidden => Some(format!(
            "the image `{image}` is not present, and kplay is offline: pull or load it first, or leave out `--offline`"
        )),
    }
}

/// What a kubelet calls it.
fn reason(error: &SourceError) -> &'static str {
    let error = error.downcast_ref::<image::Error>();
    match error.is_some_and(image::Error::is_invalid_name) {
        true => "InvalidImageName",
        false => "ErrImagePull",
    }
}

impl Wanted<'_> {
    fn missing(
        &self,
        name: &ImageName,
        reason: &'static str,
        message: String,
        source: Option<SourceError>,
    ) -> MissingImage {
        MissingImage {
            reference: name.reference().clone(),
            users: self.users.clone(),
            reason,
            message,
            source,
        }
    }
}

type Pulled<'r> = Vec<(&'r ImageName, Result<Image, SourceError>)>;

fn pull_all<'r>(
    names: &[&'r ImageName],
    wanted: &BTreeMap<ImageName, Wanted<'_>>,
    source: &impl ImageSource,
    interrupt: &Interrupt,
    report: Report<'_>,
) -> Result<Pulled<'r>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("prepare to pull images"))?;
    let report = RefCell::new(report);
    let tell = |event| (report.borrow_mut())(event);
    runtime.block_on(async {
        let pulls = join_all(names.iter().map(|name| async {
            let reference = source.resolved(name);
            tell(Event::ImagePulling(reference.clone()));
            let (began, start, size) = (Timestamp::now(), Instant::now(), Cell::new(0));
            let progress = |progress| {
                if let PullProgress::Resolved { size: all, .. } = &progress {
                    size.set(*all);
                }
                tell(Event::ImageProgress(reference.clone(), progress));
            };
            let secrets = wanted.get(*name).map(|wanted| &*wanted.secrets);
            let secrets = secrets.unwrap_or_default();
            let mut result = source.pull(name, secrets, &progress).await;
            match &mut result {
                Ok(image) => {
                    image.pull = Some(Pull {
                        began,
                        milliseconds: start.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
                        size: size.get(),
                    });
                    tell(Event::ImagePulled(reference.clone(), image.id.clone()));
                }
                Err(error) => tell(Event::ImageFailed {
                    image: reference.clone(),
                    reason: reason(error),
                    message: chain(error.as_ref()),
                }),
            }
            (*name, result)
        }));
        tokio::select! {
            pulled = pulls => Ok(pulled),
            signal = interrupt.wait() => Err(match signal {
                Ok(signal) => Error::Interrupted { signal },
                Err(source) => Error::io("wait for signals")(source),
            }),
        }
    })
}

fn by_pod(
    wanted: &BTreeMap<ImageName, Wanted<'_>>,
    images: &BTreeMap<&ImageName, Image>,
) -> PodImages {
    let mut pods = PodImages::new();
    for (name, wanted) in wanted {
        for (pod, user) in &wanted.users {
            if let Some(image) = images.get(name) {
                let of_pod = pods.entry(pod.clone()).or_default();
                let mut image = image.clone();
                // The pod's first container with the image tells of the pull; the others find it there.
                if of_pod.values().any(|other| other.id == image.id) {
                    image.pull = None;
                }
                of_pod.insert(user.clone(), image);
            }
        }
    }
    pods
}
