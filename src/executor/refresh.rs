//! What changes in a pod while it runs: metadata, the content of ConfigMaps and Secrets. Its files are new at once; what
//! a container has from its start (variables, parts of volumes) is new when it is started again, as with a kubelet.

use std::rc::Rc;

use super::context::Context;
use super::error::Error;
use super::{read_launch, volumes};

/// Takes over what the launch file says now.
///
/// # Errors
/// It cannot be read, is another pod's, or a file cannot be written.
pub(super) fn run<R>(context: &Context<R>) -> Result<(), Error> {
    let launch = read_launch(context.paths().run())?;
    if launch.uid != context.launch.uid {
        return Err(Error::AnotherPod { uid: launch.uid });
    }
    context.current.replace(Rc::new(launch));
    volumes::refresh(context)
}
