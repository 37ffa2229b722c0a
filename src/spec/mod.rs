//! Plan, image configuration and mounts to an OCI runtime spec; pure.
