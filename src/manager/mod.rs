//! Everything before a pod exists and after it has gone.
