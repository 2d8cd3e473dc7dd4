//! `POST /tokenize`: returns the tokens of a text or a chat.

pub(crate) mod detokenize;
pub(crate) mod info;
mod operation;
mod refused;
pub(crate) mod types;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use tracing::Span;

pub(crate) use self::operation::{DETOKENIZE, TOKENIZE};
use self::refused::REFUSED;
use self::types::{TokenizeRequest, Tokenized};
use super::chat::call::{check_chat, prompt_tokens};
use super::chat::convert::Chat;
use super::chat::message::ChatMessage;
use super::chat::prompting::Prompting;
use super::chat::request::ChatTemplateKwargs;
use super::chat::thinking::reasoning_instruction;
use super::chat::tool_types::ToolDefinition;
use super::chat::tools::{ToolFields, convert_tools};
use crate::api::generate::model_name::check_model;
use crate::api::generate::prompt_limit::{MAX_TOKENIZED, check_size, least_tokens};
use crate::api::generate::types::media_fields::read_preparation;
use crate::api::http::body_fields::{BodyFields, names_of};
use crate::api::http::error::ApiError;
use crate::api::http::extract::{JsonBody, json_body};
use crate::api::http::json_response::{json_response, to_json};
use crate::api::http::object::JsonObject;
use crate::api::http::state::AppState;
use crate::core::{PreparationFields, TokenId};
use crate::registry::ServedModel;
use crate::text::AddSpecialTokens;

/// Counts and lists tokens. Images are counted, not decoded.
///
/// # Errors
/// 400 for an invalid request, 404 for another model, 503 while the model loads.
pub(crate) async fn tokenize(
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
            let body = BodyFields::find(&body, &[names_of::<TokenizeRequest>()], &[REFUSED]);
            let fields: TokenizeRequest = body.read()?;
            body.check_refused()?;
            read(fields, &model)
        }
    };
    let read = app.blocking_pool().run(reading).await??;
    span.record("model", read.model_name);
    let tokens = match read.tokens {
        ReadTokens::OfText(tokens) => tokens,
        ReadTokens::OfChat(chat) => prompt_tokens(&app, &model, chat).await?,
    };
    drop(held);
    let answering = move || {
        let token_strs = read.returns_strs.then(|| {
            let tokens = tokens.iter();
            tokens
                .map(|id| model.tokenizer.vocabulary_entry(*id).unwrap_or_default())
                .collect()
        });
        json_response(to_json(&Tokenized {
            count: tokens.len(),
            max_model_len: model.max_model_len,
            tokens,
            token_strs,
        }))
    };
    app.blocking_pool().run(answering).await
}

/// A checked request.
struct ReadRequest {
    model_name: String,
    tokens: ReadTokens,
    returns_strs: bool,
}

/// What a request wants the tokens of.
enum ReadTokens {
    OfText(Vec<TokenId>),
    OfChat(Chat),
}

fn read(fields: TokenizeRequest, model: &ServedModel) -> Result<ReadRequest, ApiError> {
    let model_name = check_model(fields.model, model)?;
    let preparation = read_preparation(fields.mm_processor_kwargs, model)?;
    let tokens = match (&fields.prompt, fields.messages) {
        (Some(prompt), None) => {
            let of_chats = [
                ("tools", fields.tools.is_some_and(|tools| !tools.is_empty())),
                (
                    "add_generation_prompt",
                    fields.add_generation_prompt == Some(false),
                ),
                (
                    "continue_final_message",
                    fields.continue_final_message == Some(true),
                ),
                (
                    "chat_template_kwargs",
                    fields.chat_template_kwargs.is_some(),
                ),
            ];
            if let Some((name, _)) = of_chats.iter().find(|(_, is_asked)| *is_asked) {
                return Err(ApiError::contradiction(
                    *name,
                    format!("'{name}' is for chats: send 'messages' in place of 'prompt'."),
                ));
            }
            ReadTokens::OfText(encode_text(prompt, fields.add_special_tokens, model)?)
        }
        (None, Some(messages)) => ReadTokens::OfChat(chat(
            MessagesToEncode {
                messages,
                tools: fields.tools,
                add_special_tokens: fields.add_special_tokens,
                add_generation_prompt: fields.add_generation_prompt,
                continue_final_message: fields.continue_final_message,
                chat_template_kwargs: fields.chat_template_kwargs,
                preparation,
            },
            model,
        )?),
        (None, None) => return Err(ApiError::missing("prompt")),
        (Some(_), Some(_)) => {
            return Err(ApiError::contradiction(
                "messages",
                "Send either 'prompt' or 'messages'.",
            ));
        }
    };
    Ok(ReadRequest {
        model_name,
        tokens,
        returns_strs: fields.return_token_strs.unwrap_or(false),
    })
}

fn encode_text(
    prompt: &str,
    add_special_tokens: Option<bool>,
    model: &ServedModel,
) -> Result<Vec<TokenId>, ApiError> {
    let least = least_tokens(prompt.len(), 0, 0);
    check_size(least, MAX_TOKENIZED).map_err(|error| error.at("prompt"))?;
    let add = match add_special_tokens {
        None | Some(true) => AddSpecialTokens::Yes,
        Some(false) => AddSpecialTokens::No,
    };
    Ok(model.tokenizer.encode_raw(prompt, add)?)
}

/// A chat to tokenize, with the fields that shape its prompt.
struct MessagesToEncode {
    messages: Vec<JsonObject<ChatMessage>>,
    tools: Option<Vec<JsonObject<ToolDefinition>>>,
    add_special_tokens: Option<bool>,
    add_generation_prompt: Option<bool>,
    continue_final_message: Option<bool>,
    chat_template_kwargs: Option<JsonObject<ChatTemplateKwargs>>,
    preparation: PreparationFields,
}

fn chat(fields: MessagesToEncode, model: &ServedModel) -> Result<Chat, ApiError> {
    if fields.add_special_tokens == Some(true) {
        return Err(ApiError::contradiction(
            "add_special_tokens",
            "The chat template adds special tokens itself: leave 'add_special_tokens' out.",
        ));
    }
    let tools = ToolFields {
        tools: fields.tools,
        ..ToolFields::default()
    };
    let tools = convert_tools(tools, model.tool_format)?;
    let instruction = reasoning_instruction(fields.chat_template_kwargs, model)?;
    let mut chat =
        Prompting::new(tools.as_ref(), None, instruction, model).chat(fields.messages)?;
    chat.preparation = fields.preparation;
    chat.end(fields.add_generation_prompt, fields.continue_final_message)?;
    check_chat(&chat, model, MAX_TOKENIZED)?;
    Ok(chat)
}
