//! Endpoints about the server itself: its health, its metrics and its version.

pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod version;
