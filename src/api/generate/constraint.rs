//! Compiles the output constraint of a request for the engine.

use std::sync::Arc;

use super::output::{OutputPlan, ReasoningPlan};
use crate::api::http::error::ApiError;
use crate::core::{CacheSalt, Constraint};
use crate::registry::ServedModel;
use crate::text::{
    GrammarError, GrammarErrorKind, ReasoningRule, TokenLimits, with_limits, with_reasoning,
};

/// Compiles the grammar of `output`, in a separate process, and adds `limits`. Compiled grammars are cached per salt,
/// so that requests with another salt do not find them.
///
/// # Errors
/// 400 for a grammar that cannot be compiled within its limits, 503 when all compiler slots are
/// taken.
pub(crate) async fn constraint(
    model: &Arc<ServedModel>,
    output: OutputPlan,
    limits: &TokenLimits,
    salt: Option<CacheSalt>,
) -> Result<Option<Arc<dyn Constraint>>, ApiError> {
    let grammar = match output.grammar {
        None => None,
        Some(asked) => {
            let compiled = model.grammars.compile(asked.source, salt).await;
            Some(compiled.map_err(|error| refusal(&asked.param, error))?)
        }
    };
    let bound = after_reasoning(model, output.reasoning, grammar);
    Ok(with_limits(bound, limits, model.vocab_size))
}

/// Returns the constraint that applies `grammar` after the reasoning.
fn after_reasoning(
    model: &ServedModel,
    reasoning: ReasoningPlan,
    grammar: Option<Arc<dyn Constraint>>,
) -> Option<Arc<dyn Constraint>> {
    let rule = match reasoning {
        ReasoningPlan::Unknown => return grammar,
        ReasoningPlan::Banned | ReasoningPlan::Allowed { budget: Some(0) } => ReasoningRule::Banned,
        ReasoningPlan::Allowed { budget } => ReasoningRule::Allowed { budget },
    };
    let Some(thinking) = &model.thinking else {
        return grammar;
    };
    let vocabulary = (model.vocab_size, model.eos_token_ids.as_slice());
    with_reasoning(grammar, rule, thinking.markers, vocabulary)
}

fn refusal(param: &str, error: GrammarError) -> ApiError {
    let GrammarError {
        kind,
        path,
        message,
    } = error;
    match kind {
        GrammarErrorKind::Refused => {
            let param = format!("{param}{path}");
            let message = format!("'{param}' cannot constrain an answer: {message}.");
            ApiError::invalid_value(param, message)
        }
        GrammarErrorKind::Busy => ApiError::too_many_grammars(&message),
        GrammarErrorKind::Failed => {
            tracing::error!(error = message, "a grammar could not be compiled");
            ApiError::internal("grammars cannot be compiled")
        }
    }
}
