//! Endpoints about the server itself: its health, its load, its metrics with a dashboard of them, and its
//! version.

pub(crate) mod dashboard;
pub(crate) mod health;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod version;
