//! Every path that kplay owns.
//!
//! ```text
//! ROOT (/var/lib/kplay)              survives a reboot
//!   images/                          the image store
//!   pods/KEY/record.json             what was applied
//!   pods/KEY/volumes/NAME/           emptyDir and ConfigMap volumes on disk
//!   pods/KEY/containers/NAME-N/      upper and work folder of a container's overlay
//!   logs/NS_NAME_UID/CONTAINER/N.log
//!   objects/NS/KIND/NAME.json        ConfigMaps, Deployments, … as applied
//! RUNROOT (/run/kplay)               tmpfs
//!   locks/KEY                        held while a command changes the pod
//!   objects/NS/KIND/NAME.json        Secrets
//!   pods/KEY/launch.json             the plan, with the content of Secrets (0600)
//!   pods/KEY/status.json             v1.PodStatus, written by the executor
//!   pods/KEY/events.jsonl
//!   pods/KEY/executor.lock           locked as long as the executor lives
//!   pods/KEY/control.sock
//!   pods/KEY/mnt/                    mount points, seen only in the executor's mount namespace
//!   pods/KEY/oci/                    libcontainer's state and bundles
//! ```
//!
//! KEY is `NAMESPACE_NAME`; neither has a `_`. Where that would be too long for a file name, its end is a digest.

use std::path::{Path, PathBuf};

use crate::model::names::PodKey;

/// The two folders that hold everything.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    runroot: PathBuf,
}

impl Layout {
    /// A layout in these two folders, both absolute.
    #[must_use]
    pub fn new(root: PathBuf, runroot: PathBuf) -> Self {
        Self { root, runroot }
    }

    /// The folder that survives a reboot.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that does not.
    #[must_use]
    pub fn runroot(&self) -> &Path {
        &self.runroot
    }

    /// The image store.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// A pod's paths.
    #[must_use]
    pub fn pod(&self, key: &PodKey) -> PodPaths {
        let name = file_name(key);
        PodPaths {
            data: self.root.join("pods").join(&name),
            run: self.runroot.join("pods").join(&name),
        }
    }
}

/// A pod's two folders.
#[derive(Clone, Debug)]
pub struct PodPaths {
    data: PathBuf,
    run: PathBuf,
}

impl PodPaths {
    /// The pod's folder under ROOT.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The pod's folder under RUNROOT.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }
}

/// Longest file name that leaves room for a suffix.
const LONGEST: usize = 200;

fn file_name(key: &PodKey) -> String {
    let name = format!("{}_{}", key.namespace, key.name);
    if name.len() <= LONGEST {
        return name;
    }
    // FNV-1a: only has to tell apart names that share their first 180 characters.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}_{hash:016x}", &name[..180])
}
