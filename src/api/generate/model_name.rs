//! Checks the requested model name.

use crate::api::http::error::ApiError;
use crate::registry::ServedModel;

/// Returns the model name for the response: the requested one, or the model's own.
///
/// # Errors
/// 404 that lists the served names.
pub(crate) fn check_model(asked: Option<String>, model: &ServedModel) -> Result<String, ApiError> {
    match asked {
        None => Ok(model.names[0].clone()),
        Some(name) if model.names.contains(&name) => Ok(name),
        Some(name) => Err(ApiError::unknown_model(&name, &model.names)),
    }
}
