//! References to root filesystems.
