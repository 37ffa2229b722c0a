//! Files and sockets of the pod's network.
