//! What an answer must keep to, made ready for the engine.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::error::ApiError;
use super::lower::{OutputPlan, ThoughtPlan};
use super::state::AppState;
use crate::core::Constraint;
use crate::registry::ServedModel;
use crate::text::{ThoughtRule, with_thought};

/// How long a client waits for its grammar, other clients' grammars included. What is compiled for
/// longer ends by its own limits.
const COMPILE_TIME: Duration = Duration::from_secs(20);

/// Compiles what `output` asks for, off the async threads.
///
/// # Errors
/// 400 for a grammar that cannot be compiled within its limits.
pub(super) async fn constraint(
    app: &AppState,
    model: &Arc<ServedModel>,
    output: OutputPlan,
) -> Result<Option<Arc<dyn Constraint>>, ApiError> {
    let grammar = match output.grammar {
        None => None,
        Some(asked) => {
            let grammars = Arc::clone(&model.grammars);
            let param = asked.param.clone();
            let compile = app.workers().run(move || grammars.compile(&asked.source));
            let compiled = timeout(COMPILE_TIME, compile).await.map_err(|_| {
                let message = format!(
                    "'{param}' could not be compiled within {} s. Send a simpler one.",
                    COMPILE_TIME.as_secs()
                );
                ApiError::invalid_value(param.clone(), message)
            })?;
            let compiled = compiled?.map_err(|error| {
                let param = format!("{param}{}", error.path);
                let message = format!("'{param}' cannot be kept to: {}.", error.message);
                ApiError::invalid_value(param, message)
            })?;
            Some(compiled)
        }
    };
    let rule = match output.thought {
        ThoughtPlan::Unknown => return Ok(grammar),
        ThoughtPlan::Banned | ThoughtPlan::Allowed { budget: Some(0) } => ThoughtRule::Banned,
        ThoughtPlan::Allowed { budget } => ThoughtRule::Allowed { budget },
    };
    let Some(thinking) = &model.thinking else {
        return Ok(grammar);
    };
    let vocabulary = (model.vocab_size, model.eos_token_ids.as_slice());
    Ok(with_thought(grammar, rule, thinking.markers, vocabulary))
}
