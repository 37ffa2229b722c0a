//! One process per pod; single writer of that pod's status.
