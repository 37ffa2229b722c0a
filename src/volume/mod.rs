//! Volumes: directories and files to mount.
