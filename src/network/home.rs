//! The network that the bridge is in: the machine's; or, for who is root of a user namespace only, one of the user's own,
//! which lives as long as one of the pods on it holds it open.
//!
//! ```text
//! FOLDER/leases/OFFSET   its second line: the process that has the address, and its descriptor of the network
//! ```

use std::path::Path;

use super::bridge;
use super::subnet::Subnet;
use super::{Error, lease, way_out};
use crate::sys::netns::NetNs;
use crate::sys::userns;

/// Where the bridge is.
#[derive(Clone, Debug)]
pub(super) enum Home {
    Machine,
    Own(NetNs),
}

impl Home {
    /// The network, if it is there. With the network's lock.
    pub(super) fn find(folder: &Path) -> Result<Option<Self>, Error> {
        if userns::is_initial() {
            return Ok(Some(Self::Machine));
        }
        Ok(lease::holders(folder)?
            .into_iter()
            .find_map(|(pid, number)| NetNs::held_by(pid, number))
            .map(Self::Own))
    }

    /// A new one, with a way out if there can be one. Says what there cannot be. With the network's lock.
    pub(super) fn make(folder: &Path) -> Result<(Self, Option<String>), Error> {
        // What the dead have left.
        way_out::close(folder)?;
        let network = NetNs::make().map_err(Error::Home)?;
        let limit = way_out::open(folder, &network)?;
        Ok((Self::Own(network), limit))
    }

    /// Does something in it.
    pub(super) fn visit<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        match self {
            Self::Machine => work(),
            Self::Own(network) => network.visit(|| Ok(work())).map_err(Error::Home)?,
        }
    }

    /// What others find the network by, as long as this process and this value live.
    pub(super) fn number(&self) -> Option<i32> {
        match self {
            Self::Machine => None,
            Self::Own(network) => Some(network.number()),
        }
    }

    /// The subnets that the bridge must not have besides those in its own network: what is sent there would not come to
    /// the machine.
    pub(super) fn taken_outside(&self) -> Result<Vec<Subnet>, Error> {
        match self {
            Self::Machine => Ok(Vec::new()),
            Self::Own(_) => Ok(bridge::routed()?),
        }
    }
}
