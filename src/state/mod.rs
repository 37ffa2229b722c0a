//! What kplay keeps on disk, and where. Decides nothing about pods.

pub mod layout;
pub mod logs;
