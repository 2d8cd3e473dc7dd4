//! `POST /detokenize`: converts token ids to text.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use tracing::Span;

use super::types::{DetokenizeRequest, Detokenized};
use crate::api::generate::model_name::check_model;
use crate::api::generate::prompt::check_ids;
use crate::api::generate::prompt_limit::MAX_TOKENIZED;
use crate::api::http::error::ApiError;
use crate::api::http::extract::{JsonBody, json_body, parse};
use crate::api::http::json_response::{json_response, to_json};
use crate::api::http::state::AppState;
use crate::registry::ServedModel;
use crate::text::SpecialTokens;

/// Returns the text of token ids, control tokens included.
///
/// # Errors
/// 400 for ids that do not exist, 404 for another model, 503 while the model loads.
pub(crate) async fn detokenize(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let JsonBody { text: body, held } = json_body(&app, request).await?;
    let model = Arc::clone(app.model()?);
    let span = Span::current();
    let num_bytes = body.len();
    let work = move || {
        let _held = held;
        let fields = parse(&body)?;
        drop(body);
        answer(fields, &model, &span)
    };
    app.blocking_pool().run_sized(num_bytes, work).await?
}

fn answer(
    fields: DetokenizeRequest,
    model: &ServedModel,
    span: &Span,
) -> Result<Response, ApiError> {
    span.record("model", check_model(fields.model, model)?);
    let num_ids = fields.tokens.0.len();
    if num_ids > MAX_TOKENIZED {
        let message = format!(
            "'tokens' takes up to {MAX_TOKENIZED} ids, got {num_ids}. Send them in several requests."
        );
        return Err(ApiError::invalid_value("tokens", message));
    }
    let ids = check_ids(fields.tokens.0, model.vocab_size, |idx| {
        format!("tokens[{idx}]")
    })?;
    let prompt = model.tokenizer.decode(&ids, SpecialTokens::Keep);
    drop(ids);
    Ok(json_response(to_json(&Detokenized { prompt })))
}
