//! Which model is meant.

use crate::api::error::ApiError;
use crate::registry::ServedModel;

/// The name to answer with: the one that was asked for, or the model's own.
///
/// # Errors
/// 404 that lists what is served.
pub(in crate::api) fn check_model(
    asked: Option<String>,
    model: &ServedModel,
) -> Result<String, ApiError> {
    match asked {
        None => Ok(model.names[0].clone()),
        Some(name) if model.names.contains(&name) => Ok(name),
        Some(name) => Err(ApiError::unknown_model(&name, &model.names)),
    }
}
