//! `GET /tokenizer_info`: what tokenizer_config.json would say, in vLLM's format.
//!
//! It tells the chat template, which may hold what an operator wrote, so that it is off unless the
//! operator turns it on.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{Method as HttpMethod, Uri};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::docs::openapi::{Access, Answer, Method, Operation, written};
use crate::api::http::error::ApiError;
use crate::api::http::json_response::{json_response, to_json};
use crate::api::http::state::{AppState, TokenizerInfoAccess};

/// The class that reads Gemma's tokenizer.json in transformers.
const CLASS: &str = "GemmaTokenizerFast";

/// The tokenizer's settings.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TokenizerInfo<'a> {
    pub(crate) tokenizer_class: &'static str,
    /// Maximum length of prompt and output together, in tokens.
    pub(crate) model_max_length: usize,
    /// The template of prompts; null for a model that only continues text.
    pub(crate) chat_template: Option<&'a str>,
    /// Tokens that have a name: `bos_token`, `eos_token` and others.
    #[serde(flatten)]
    pub(crate) tokens: &'a BTreeMap<String, String>,
}

/// `GET /tokenizer_info` in the description of the API.
pub(crate) const TOKENIZER_INFO: Operation = Operation {
    method: Method::Get,
    paths: &["/tokenizer_info"],
    id: "tokenizerInfo",
    summary: "The tokenizer's settings and the chat template. Off unless the server was started with \
              --enable-tokenizer-info-endpoint.",
    body: None,
    answer: Answer::Json(written::<TokenizerInfo<'static>>),
    errors: &[404, 503],
    access: Access::Key,
};

/// Returns the tokenizer's settings.
///
/// # Errors
/// 404 if the operator did not turn it on, 503 while the model loads.
pub(crate) async fn tokenizer_info(
    State(app): State<AppState>,
    method: HttpMethod,
    uri: Uri,
) -> Result<Response, ApiError> {
    if app.tokenizer_info() == TokenizerInfoAccess::Off {
        let how = "start the server with --enable-tokenizer-info-endpoint";
        return Err(ApiError::route_not_served(&method, uri.path(), how));
    }
    let model = app.model()?;
    Ok(json_response(to_json(&TokenizerInfo {
        tokenizer_class: CLASS,
        model_max_length: model.max_model_len,
        chat_template: model.template.as_ref().map(|template| template.source()),
        tokens: &model.named_tokens.0,
    })))
}
