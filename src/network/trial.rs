//! What the kernel lets a pod's network be, tried in the network namespace of the calling thread: a fresh one, so that
//! nothing is left when the thread's process has ended.

use std::io;
use std::path::Path;

use super::Error;
use super::bridge::Bridge;
use super::nft;
use crate::sys::netns::NetNs;

/// A bridge, and what can be done with it.
#[derive(Debug)]
pub struct Trial(Bridge);

impl Trial {
    /// Makes a bridge.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn bridge() -> Result<Self, Error> {
        Ok(Self(Bridge::choose(None, &[])?.make()?))
    }

    /// Links another network namespace to it, as a pod's.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn link(&self, pod: &Path) -> Result<(), Error> {
        const OFFSET: u16 = 2;
        self.0.connect(&NetNs::open(pod)?, OFFSET)?;
        Ok(())
    }

    /// Makes the rules by which pods reach the world.
    ///
    /// # Errors
    /// The kernel has no nftables, or no NAT in them.
    pub fn masquerade(&self) -> io::Result<()> {
        nft::masquerade(&self.0.name, &self.0.subnets)
    }
}

/// The chains of the machine's firewall that drop what it forwards, `table chain`; none where nobody can tell.
#[must_use]
pub fn firewall() -> Vec<String> {
    nft::forward_policy_drops().unwrap_or_default()
}
