//! What every request needs, whichever endpoint it is for: bodies, errors, keys, limits and the
//! state of the server.
//!
//! ```text
//! request ─ request_id ─ request_guard ─ auth ─▶ an endpoint ─ extract ─▶ its body, within request_memory
//! ```
//! Contains no endpoint. Only `error` sets error statuses.

pub(crate) mod auth;
pub(crate) mod auth_failures;
pub(crate) mod blocking_pool;
pub(crate) mod body_fields;
pub(crate) mod connections;
pub(crate) mod cors;
pub(crate) mod dialect;
pub(crate) mod error;
pub(crate) mod extract;
pub(crate) mod json_census;
pub(crate) mod json_response;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod normalize_path;
pub(crate) mod object;
pub(crate) mod peer;
pub(crate) mod random;
pub(crate) mod refused_fields;
pub(crate) mod request_guard;
pub(crate) mod request_id;
pub(crate) mod request_memory;
pub(crate) mod route_kind;
pub(crate) mod site;
pub(crate) mod state;
