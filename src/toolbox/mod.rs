//! The applets of the embedded image.
