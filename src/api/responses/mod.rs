//! `POST /v1/responses`: OpenAI's Responses API, translated to a chat.
//!
//! ```text
//! ResponsesRequest ─ translate ─▶ ChatRequest ─ chat_call ─▶ … ─▶ parts ─ format ─▶ output items
//! ```
//! Nothing is stored: to continue a conversation, a client sends all of it.

mod format;
mod items;
mod refused;
mod translate;
mod turns;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use self::format::ResponsesFormat;
pub(super) use self::refused::REFUSED;
use self::translate::{Translated, translate};
use super::answer::AnswerFormat;
use super::chat::chat_call;
use super::convert::PreparedPrompt;
use super::error::ApiError;
use super::extract::parse;
use super::generate::{Answering, Call, Endpoint, SharedFields, generate};
use super::refused_fields::{self, refuse};
use super::state::AppState;
use super::translation::NamedChat;
use super::types::{RepeatedFields, ResponsesRequest};
use crate::registry::ServedModel;

/// Handles a response request.
///
/// # Errors
/// The errors of [`generate`].
pub(super) async fn responses(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    generate::<Responses>(app, request).await
}

struct Responses;

impl Endpoint for Responses {
    const ID_PREFIX: &'static str = "resp_";
    type Content = NamedChat;
    type Echo = RepeatedFields;

    fn read(body: &str, model: &ServedModel) -> Result<Call<NamedChat, RepeatedFields>, ApiError> {
        let fields: ResponsesRequest = parse(body)?;
        let mut shared = SharedFields::parse(body)?;
        let repeated: RepeatedFields = parse(body)?;
        refuse(body, &[REFUSED, refused_fields::GENERATION])?;
        shared.sampling.max_completion_tokens = fields.max_output_tokens;
        let Translated { chat, names } = translate(fields)?;
        let mut call = chat_call(chat, shared, model).map_err(|error| names.rename(error))?;
        names.rename_grammar(&mut call.output);
        Ok(call.through(|chat| NamedChat { chat, names }, repeated))
    }

    async fn prompts(
        app: &AppState,
        model: &Arc<ServedModel>,
        content: NamedChat,
    ) -> Result<Vec<PreparedPrompt>, ApiError> {
        Ok(vec![content.prepare(app, model).await?])
    }

    fn format(answering: Answering, repeated: RepeatedFields) -> impl AnswerFormat {
        ResponsesFormat::new(answering, repeated)
    }
}
