//! What a cgroup that only groups others weighs.

use std::io;

use super::hierarchy::is_gone;
use super::{Cgroup, Controller, Hierarchy, Result};

impl Cgroup {
    /// Makes it weigh, against its neighbours, as much as all that are right below it weigh together, so that each has the
    /// part of the processors that it would have without this one between. To be called after any of them has come, gone
    /// or changed. What it is to be follows from what is there: whoever calls it, and however often, the last one is right.
    ///
    /// # Errors
    /// It cannot be read or set. One that is gone, that has nothing below it or that has no weight is fine.
    pub fn weigh_together(&self) -> Result<()> {
        let Some(hierarchy) = self.with(Controller::Cpu) else {
            return Ok(());
        };
        match self.try_weigh(hierarchy) {
            Err(e) if !is_gone(&e) => Err(self.error("weigh", e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn try_weigh(&self, hierarchy: &Hierarchy) -> io::Result<()> {
        let (file, heaviest) = match hierarchy.is_v2() {
            true => ("cpu.weight", 10_000),
            false => ("cpu.shares", 262_144),
        };
        // Another one, of whom this look would not know, must not write between this one's look and what it writes.
        let _lock = hierarchy.lock(self.path())?;
        let mut sum = 0_u64;
        for child in hierarchy.children(self.path())? {
            match hierarchy.read(&child, file) {
                Ok(text) => sum = sum.saturating_add(text.trim().parse().unwrap_or_default()),
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(e),
            }
        }
        if sum == 0 {
            return Ok(());
        }
        hierarchy.write(self.path(), file, &sum.min(heaviest).to_string())
    }
}
