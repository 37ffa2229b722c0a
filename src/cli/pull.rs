//! `kplay internal pull RUN_DIR CONTAINER`: what an executor runs when a container starts again and wants an image that
//! is not there, or the newest. It alone knows registries, so that an executor stays small.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;

use super::registry::{AuthfileArgs, registry_places};
use crate::image::registries::RegistriesConf;
use crate::image::{Hold, PullProgress, Store, TlsVerify};
use crate::model::cause::chain;
use crate::model::image::{Image, Pull};
use crate::model::reference::{ImageName, InvalidReference};
use crate::protocol::{Launch, PullAnswer, Pulling};
use crate::sys::process::FIRST_FD;
use crate::sys::{fd, fs, identity};

type Error = Box<dyn std::error::Error>;

/// Pulls, answers, and waits until the answer is recorded. Its standard error is nobody's: all is in the answer.
pub(super) fn main(run_dir: &Path, container: &OsStr) -> ExitCode {
    match answer(run_dir, container) {
        Ok(()) => ExitCode::SUCCESS,
        // The executor sees the end of the pipe.
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(run_dir: &Path, container: &OsStr) -> Result<(), Error> {
    let (answers, recorded) = (fd::inherited(FIRST_FD)?, fd::inherited(FIRST_FD + 1)?);
    let (answer, held) = match pull(run_dir, container) {
        Ok((image, hold)) => (PullAnswer::Pulled(Box::new(image)), Some(hold)),
        Err(error) => {
            let message = chain(error.as_ref());
            let answer = match is_of_the_name(error.as_ref()) {
                true => PullAnswer::InvalidName { message },
                false => PullAnswer::Failed { message },
            };
            (answer, None)
        }
    };
    let mut answers = File::from(answers);
    answers.write_all(&serde_json::to_vec(&answer)?)?;
    drop(answers);
    if held.is_some() {
        File::from(recorded).read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

/// The manifest was read when its name was a good one; `registries.conf` may have changed since.
fn is_of_the_name(error: &(dyn std::error::Error + 'static)) -> bool {
    let image = error.downcast_ref::<crate::image::Error>();
    error.is::<InvalidReference>() || image.is_some_and(crate::image::Error::is_invalid_name)
}

fn pull(run_dir: &Path, container: &OsStr) -> Result<(Image, Hold), Error> {
    let launch: Launch = serde_json::from_slice(&fs::read(&run_dir.join("launch.json"))?)?;
    let mut containers = launch.plan.all_containers();
    let plan = containers.find(|plan| container == plan.name.as_str());
    let plan = plan.ok_or_else(|| io::Error::other("the pod has no such container"))?;
    let pulling = launch.pulling.as_ref();
    let pulling = pulling.ok_or_else(|| io::Error::other("the pod does not say how to pull"))?;
    let Pulling {
        store,
        authfile,
        secrets,
        user,
        ..
    } = pulling.clone();
    identity::speak_for(user);
    let registries = Arc::new(RegistriesConf::new(registry_places()));
    let files = AuthfileArgs::at(authfile);
    let mut options = files.pull_options(None, TlsVerify::Configured, registries, None);
    options.keychain.secrets = secrets;
    let store = Store::open(&store)?;
    let name = ImageName::parse(&plan.image)?;
    let (began, bytes) = (Timestamp::now(), std::cell::Cell::new(0));
    let progress = |step| {
        if let PullProgress::Resolved { size: all, .. } = step {
            bytes.set(all);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pulled = runtime.block_on(async {
        // Before the image can be removed again.
        let hold = store.hold()?;
        let image = crate::image::pull(&store, &name, &options, &progress).await?;
        Ok::<_, crate::image::Error>((image, hold))
    });
    let (mut image, hold) = pulled?;
    let took = Timestamp::now().duration_since(began).as_millis();
    image.pull = Some(Pull {
        began,
        milliseconds: took.try_into().unwrap_or_default(),
        size: bytes.get(),
    });
    Ok((image, hold))
}
