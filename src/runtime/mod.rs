//! The one door to libcontainer.
