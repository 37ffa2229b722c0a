//! Many pods at once.
