//! Manifests in, plans and diagnostics out.
