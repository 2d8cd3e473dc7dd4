//! Metadata fields of clients: they are checked, and have no other effect.

use super::types::label_fields::LabelFields;
use crate::api::http::error::ApiError;

const MAX_PAIRS: usize = 16;
const MAX_KEY_CHARS: usize = 64;
const MAX_VALUE_CHARS: usize = 512;

/// The service tier that a response reports, if its request sets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceTier {
    /// The only tier.
    Default,
}

impl ServiceTier {
    /// Returns the name used in responses.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
        }
    }
}

/// Checks labels.
///
/// # Errors
/// 400 for labels that request unsupported services, and for metadata beyond OpenAI's limits.
pub(crate) fn check_labels(fields: LabelFields) -> Result<Option<ServiceTier>, ApiError> {
    if fields.store == Some(true) {
        return Err(ApiError::unsupported(
            "store",
            "Nothing is stored by this server: leave 'store' out or send false.",
        ));
    }
    if let Some(retention) = fields.prompt_cache_retention.as_deref()
        && !matches!(retention, "in_memory" | "in-memory")
    {
        return Err(ApiError::unsupported(
            "prompt_cache_retention",
            "Prompts are cached in memory only: leave 'prompt_cache_retention' out or send \
             \"in_memory\".",
        ));
    }
    let metadata = fields.metadata.unwrap_or_default();
    if metadata.len() > MAX_PAIRS {
        let message = format!(
            "'metadata' takes up to {MAX_PAIRS} pairs, got {}.",
            metadata.len()
        );
        return Err(ApiError::invalid_value("metadata", message));
    }
    for (key, value) in &metadata {
        if key.chars().count() > MAX_KEY_CHARS || value.chars().count() > MAX_VALUE_CHARS {
            let message = format!(
                "A key of 'metadata' has up to {MAX_KEY_CHARS} characters and a value up to \
                 {MAX_VALUE_CHARS}."
            );
            return Err(ApiError::invalid_value("metadata", message));
        }
    }
    match fields.service_tier.as_deref() {
        None => Ok(None),
        Some("auto" | "default") => Ok(Some(ServiceTier::Default)),
        Some(tier) => Err(ApiError::unsupported(
            "service_tier",
            format!(
                "The service tier '{tier}' does not exist here: leave 'service_tier' out or send \
                 \"auto\" or \"default\"."
            ),
        )),
    }
}
