//! `POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's API, translated to a chat.
//!
//! ```text
//! MessagesRequest ─ translate ─▶ ChatRequest ─ chat_call ─▶ … ─▶ parts ─ format ─▶ output blocks
//! ```
//! Checks only the ranges that are special to Anthropic's API. The chat conversion checks
//! everything else, and `Names` replaces field names in its errors by the client's.

mod answer_format;
pub(crate) mod convert;
mod operation;
mod partial_input;
mod refused;
pub(crate) mod request;
pub(crate) mod response;
mod thinking;
mod tools;
mod turns;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use tracing::Span;

use self::answer_format::{MessagesEcho, MessagesFormat};
use self::convert::{Translated, translate};
pub(crate) use self::operation::{COUNT_TOKENS, MESSAGES};
use self::refused::REFUSED;
use self::request::MessagesRequest;
use self::response::TokenCount;
use crate::api::generate::answer::AnswerFormat;
use crate::api::generate::answering::Answering;
use crate::api::generate::output::ReasoningPlan;
use crate::api::generate::prompt::PreparedPrompt;
use crate::api::generate::types::media_fields::MediaFields;
use crate::api::generate::types::sampling_fields::StreamFields;
use crate::api::generate::types::scheduling_fields::SchedulingFields;
use crate::api::generate::{Call, Endpoint, generate};
use crate::api::http::body_fields::{BodyFields, names_of};
use crate::api::http::error::ApiError;
use crate::api::http::extract::{JsonBody, json_body};
use crate::api::http::json_response::{json_response, to_json};
use crate::api::http::object::JsonObject;
use crate::api::http::state::AppState;
use crate::api::openai::chat::call::{chat_call, prompt_tokens};
use crate::api::openai::chat::translation::NamedChat;
use crate::core::Thinking;
use crate::registry::ServedModel;

/// Handles a message request.
///
/// # Errors
/// The errors of [`generate`].
pub(crate) async fn messages(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    generate::<Messages>(app, request).await
}

/// Counts the tokens of a conversation as [`messages`] would read it. Images are counted, not
/// decoded.
///
/// # Errors
/// 400 for an invalid request, 404 for another model, 503 while the model loads.
pub(crate) async fn count_tokens(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let JsonBody { text: body, held } = json_body(&app, request).await?;
    let model = Arc::clone(app.model()?);
    let span = Span::current();
    let reading = {
        let model = Arc::clone(&model);
        // What is dropped while it is read must stay charged.
        let held = Arc::clone(&held);
        move || {
            let _held = held;
            read(&body, &model, Purpose::Count)
        }
    };
    let call = app.blocking_pool().run(reading).await??;
    span.record("model", call.model_name.as_str());
    let NamedChat { chat, names } = call.content;
    let tokens = prompt_tokens(&app, &model, chat).await;
    let input_tokens = tokens.map_err(|error| names.rename(error))?.len();
    drop(held);
    Ok(json_response(to_json(&TokenCount { input_tokens })))
}

struct Messages;

/// What a request is parsed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Answer,
    Count,
}

fn read(
    body: &str,
    model: &ServedModel,
    purpose: Purpose,
) -> Result<Call<NamedChat, MessagesEcho>, ApiError> {
    let names = [
        names_of::<MessagesRequest>(),
        names_of::<StreamFields>(),
        names_of::<SchedulingFields>(),
        names_of::<MediaFields>(),
    ];
    let body = BodyFields::find(body, &names, &[REFUSED]);
    let mut fields: MessagesRequest = body.read()?;
    let stream: StreamFields = match purpose {
        Purpose::Answer => body.read()?,
        Purpose::Count => StreamFields::default(),
    };
    let scheduling: SchedulingFields = body.read()?;
    let media: MediaFields = body.read()?;
    body.check_refused()?;
    let max_tokens = match (fields.max_tokens, purpose) {
        (None, Purpose::Answer) => return Err(ApiError::missing("max_tokens")),
        (_, Purpose::Count) => {
            fields.max_tokens = None;
            0
        }
        (Some(max_tokens), Purpose::Answer) => max_tokens,
    };
    let config = fields.output_config.as_ref();
    let effort = config.and_then(|JsonObject(config)| config.effort.as_ref());
    let says_nothing = fields.thinking.is_none() && effort.is_none();
    let Translated {
        chat,
        mut shared,
        names,
    } = translate(fields)?;
    shared.stream = stream;
    shared.scheduling = scheduling;
    shared.media = media;
    let mut call = chat_call(chat, shared, model).map_err(|error| names.rename(error))?;
    names.rename_grammar(&mut call.output);
    // In this API an answer has no reasoning unless `thinking` enables it. Models that reason on
    // request alone need no rule for that.
    let is_unasked = (model.thinking).is_some_and(|thinking| thinking.when == Thinking::Unasked);
    if says_nothing && (is_unasked || call.content.asks_to_think()) {
        call.output.reasoning = ReasoningPlan::Banned;
    }
    let echo = MessagesEcho {
        // Already checked to be at least 1.
        max_tokens: usize::try_from(max_tokens).unwrap_or(usize::MAX),
    };
    Ok(call.through(|chat| NamedChat { chat, names }, echo))
}

impl Endpoint for Messages {
    const ID_PREFIX: &'static str = "msg_";
    type Content = NamedChat;
    type Echo = MessagesEcho;

    fn read(body: &str, model: &ServedModel) -> Result<Call<NamedChat, MessagesEcho>, ApiError> {
        read(body, model, Purpose::Answer)
    }

    async fn prompts(
        app: &AppState,
        model: &Arc<ServedModel>,
        content: NamedChat,
    ) -> Result<Vec<PreparedPrompt>, ApiError> {
        Ok(vec![content.prepare(app, model).await?])
    }

    fn format(answering: Answering, echo: MessagesEcho) -> impl AnswerFormat {
        MessagesFormat::new(answering, echo)
    }
}
