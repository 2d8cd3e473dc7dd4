//! `POST /v1/responses`: OpenAI's Responses API, translated to a chat.
//!
//! ```text
//! ResponsesRequest ─ translate ─▶ ChatRequest ─ chat_call ─▶ … ─▶ parts ─ format ─▶ output items
//! ```
//! Nothing is stored: to continue a conversation, a client sends all of it.

mod answer_format;
pub(crate) mod convert;
pub(crate) mod event;
mod items;
mod operation;
mod refused;
pub(crate) mod request;
pub(crate) mod response;
mod tools;
mod turns;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use self::answer_format::ResponsesFormat;
use self::convert::{Translated, translate};
pub(crate) use self::operation::OPERATION;
use self::refused::REFUSED;
use self::request::{RepeatedFields, ResponsesRequest};
use super::chat::call::chat_call;
use super::chat::translation::NamedChat;
use crate::api::generate::answer::AnswerFormat;
use crate::api::generate::answering::Answering;
use crate::api::generate::prompt::PreparedPrompt;
use crate::api::generate::refused::GENERATION;
use crate::api::generate::{Call, Endpoint, SharedFields, generate};
use crate::api::http::body_fields::{BodyFields, names_of};
use crate::api::http::error::ApiError;
use crate::api::http::state::AppState;
use crate::registry::ServedModel;

/// Handles a response request.
///
/// # Errors
/// The errors of [`generate`].
pub(crate) async fn responses(
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
        let [sampling, scheduling, stream, labels, media] = SharedFields::names();
        let own = names_of::<ResponsesRequest>();
        let repeated = names_of::<RepeatedFields>();
        let names = [own, sampling, scheduling, stream, labels, media, repeated];
        let body = BodyFields::find(body, &names, &[REFUSED, GENERATION]);
        let fields: ResponsesRequest = body.read()?;
        let mut shared = SharedFields::read(&body)?;
        let repeated: RepeatedFields = body.read()?;
        body.check_refused()?;
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
