//! The metadata of a response: id, time, model and system fingerprint.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::api::http::random::random_id;
use crate::registry::ServedModel;

/// Metadata that is the same in every chunk of a response.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: String,
    /// Unix time in seconds.
    pub(crate) created: u64,
    /// The model name that the client sent.
    pub(crate) model: String,
    /// Changes when the same seed may give other tokens: with the server's version or the model.
    pub(crate) system_fingerprint: String,
}

impl Identity {
    /// Creates the identity of a response that begins now. `prefix` depends on the endpoint
    /// (`chatcmpl-`).
    pub(crate) fn new(prefix: &str, name: String, model: &ServedModel) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let backend = format!("{version} {} {}", model.names[0], model.max_model_len);
        let hash = blake3::hash(backend.as_bytes()).to_hex();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            id: random_id(prefix),
            created: now.map_or(0, |since| since.as_secs()),
            model: name,
            system_fingerprint: format!("fp_{}", &hash[..10]),
        }
    }
}
