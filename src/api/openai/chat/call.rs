//! Turns a chat request, from whichever API it came, into a checked call, and its conversation into a
//! prompt.

use std::sync::Arc;

use super::convert::Chat;
use super::prompting::Prompting;
use super::request::ChatRequest;
use super::thinking::{ReasoningInstruction, ThinkingFields, convert_thinking};
use super::tools::{ToolFields, ToolPlan, convert_tools};
use crate::api::generate::images::{Images, LastPart, decode_all};
use crate::api::generate::media::{OpenedMedia, ends_with_images};
use crate::api::generate::options::chat_logprobs;
use crate::api::generate::output::{GuidedFields, OutputPlan, ReasoningPlan, asked_grammar};
use crate::api::generate::prompt::{PreparedPrompt, check_length, encode_chat};
use crate::api::generate::prompt_limit::{MAX_TOKENIZED, check_size, least_tokens};
use crate::api::generate::truncation::Truncation;
use crate::api::generate::types::media_fields::read_preparation;
use crate::api::generate::{Call, OwnFields, SharedFields};
use crate::api::http::error::ApiError;
use crate::api::http::state::AppState;
use crate::core::{Thinking, TokenId};
use crate::registry::ServedModel;
use crate::text::{AnswerSyntax, EncodedPrompt};

/// Converts and checks a chat request, from whichever API it came.
///
/// # Errors
/// 400 for invalid fields, 404 for another model.
pub(crate) fn chat_call(
    fields: ChatRequest,
    mut shared: SharedFields,
    model: &ServedModel,
) -> Result<Call<Chat>, ApiError> {
    let preparation = read_preparation(shared.media.mm_processor_kwargs.take(), model)?;
    let tools = convert_tools(
        ToolFields {
            tools: fields.tools,
            tool_choice: fields.tool_choice,
            parallel_tool_calls: fields.parallel_tool_calls,
        },
        model.tool_format,
    )?;
    let thinking = convert_thinking(
        ThinkingFields {
            reasoning_effort: fields.reasoning_effort,
            thinking_token_budget: fields.thinking_token_budget,
            include_reasoning: fields.include_reasoning,
            chat_template_kwargs: fields.chat_template_kwargs,
        },
        &model.names[0],
        model.thinking,
    )?;
    let guided = GuidedFields {
        json: fields.guided_json,
        regex: fields.guided_regex,
        choice: fields.guided_choice,
        grammar: fields.guided_grammar,
    };
    let asked = asked_grammar(fields.response_format, fields.structured_outputs, guided)?;
    let prompting = Prompting::new(tools.as_ref(), asked.as_ref(), thinking.instruction, model);
    let own = OwnFields {
        model: fields.model,
        top_logprobs: chat_logprobs(fields.logprobs, fields.top_logprobs)?,
        output: OutputPlan {
            grammar: match &tools {
                Some(tools) => tools.grammar(asked)?,
                None => asked,
            },
            reasoning: thinking.reasoning,
        },
        syntax: AnswerSyntax {
            reasoning: thinking.syntax,
            calls: tools.as_ref().map(ToolPlan::syntax),
        },
    };
    let mut call = Call::new(shared, own, model)?;
    let mut chat = prompting.chat(fields.messages)?;
    chat.preparation = preparation;
    // A mask leaves the first tokens of the format and the marker, which alone would make even an
    // improbable reasoning probable.
    let is_on_request =
        (model.thinking).is_some_and(|thinking| thinking.when == Thinking::OnRequest);
    let is_asked = thinking.instruction == ReasoningInstruction::Added || chat.asks_to_think();
    if call.output.grammar.is_some() && is_on_request && !is_asked {
        call.output.reasoning = ReasoningPlan::Banned;
    }
    chat.end(fields.add_generation_prompt, fields.continue_final_message)?;
    chat.truncation = Truncation::from_fields(
        fields.truncate_prompt_tokens,
        fields.truncation_side.as_deref(),
        model.max_model_len,
    )?;
    check_chat(&chat, model, model.max_model_len)?;
    Ok(call.with(chat))
}

/// Checks a conversation before its files are opened.
///
/// # Errors
/// 400 for images to a model that takes none, and for a prompt that certainly exceeds `max_tokens`.
pub(crate) fn check_chat(
    chat: &Chat,
    model: &ServedModel,
    max_tokens: usize,
) -> Result<(), ApiError> {
    if let (None, Some(image)) = (&model.images, chat.media.first()) {
        let message = format!(
            "The model '{}' takes text only. Remove the images, or use a model that takes them, such \
             as medgemma-4b-it.",
            model.names[0]
        );
        return Err(ApiError::invalid_value(image.param.clone(), message));
    }
    check_least(chat, chat.media.len(), model, max_tokens)
}

/// Rejects a conversation whose texts and `num_images` images certainly exceed `max_tokens`.
fn check_least(
    chat: &Chat,
    num_images: usize,
    model: &ServedModel,
    max_tokens: usize,
) -> Result<(), ApiError> {
    let tokens_per_image = model.images.as_ref();
    let tokens_per_image = tokens_per_image.map_or(0, |images| images.tokens.tokens_per_image);
    let image_tokens = num_images.saturating_mul(tokens_per_image);
    // Images are never cut off.
    let in_text = Truncation::max_tokenized(chat.truncation, max_tokens);
    let least = least_tokens(chat.text_bytes, chat.messages.len(), image_tokens);
    check_size(image_tokens, max_tokens)
        .and_then(|()| check_size(least, in_text))
        .map_err(|error| error.at("messages"))
}

/// A conversation's prompt, and its files, which are not decoded yet.
#[derive(Debug)]
struct EncodedChat {
    prompt: EncodedPrompt,
    media: OpenedMedia,
    last: LastPart,
}

/// Opens the files of a conversation and tokenizes it, with the images that the files become.
/// `max_tokens` is a number of tokens that the prompt must not certainly exceed.
///
/// # Errors
/// 400 for invalid files, too many images, and a prompt that does not fit the model.
async fn encode(
    app: &AppState,
    model: &Arc<ServedModel>,
    mut chat: Chat,
    max_tokens: usize,
) -> Result<EncodedChat, ApiError> {
    let mut media = OpenedMedia::default();
    if let Some(support) = &model.images
        && !chat.media.is_empty()
    {
        let files = std::mem::take(&mut chat.media);
        let fields = std::mem::take(&mut chat.preparation);
        let preparation = fields.or(&support.preparation).resolve();
        media = OpenedMedia::open(files, support.processor, &preparation, app).await?;
        if let Some(max_images) = support.max_per_prompt {
            media.check_number(max_images)?;
        }
        check_least(&chat, media.num_images(), model, max_tokens)?;
    }
    let Chat {
        mut messages,
        text_bytes,
        end,
        ..
    } = chat;
    let last = match ends_with_images(&messages) {
        true => LastPart::Image,
        false => LastPart::Text,
    };
    media.expand(&mut messages);
    let num_crops = media.num_crops();
    let encode = {
        let model = Arc::clone(model);
        move || encode_chat(&model, messages, &num_crops, end)
    };
    let prompt = match &model.template {
        Some(template) if template.waits() => app.blocking_pool().run(encode).await??,
        _ => app.blocking_pool().run_sized(text_bytes, encode).await??,
    };
    Ok(EncodedChat {
        prompt,
        media,
        last,
    })
}

/// Returns the tokens of a conversation's prompt. Its images are counted, not decoded, and its prompt
/// may be longer than the model takes.
///
/// # Errors
/// 400 for too many images and for a prompt that the template refuses.
pub(crate) async fn prompt_tokens(
    app: &AppState,
    model: &Arc<ServedModel>,
    chat: Chat,
) -> Result<Vec<TokenId>, ApiError> {
    let encoded = encode(app, model, chat, MAX_TOKENIZED);
    Ok(encoded.await?.prompt.ids)
}

/// Builds the prompt. Text is tokenized before images are decoded, so that a prompt that is too
/// long costs no decoding.
///
/// # Errors
/// 400 for a prompt that does not fit the model and for invalid images.
pub(crate) async fn prepare(
    app: &AppState,
    model: &Arc<ServedModel>,
    chat: Chat,
) -> Result<PreparedPrompt, ApiError> {
    let truncation = chat.truncation;
    let encoded = encode(app, model, chat, model.max_model_len);
    let EncodedChat {
        mut prompt,
        media,
        last,
    } = encoded.await?;
    let tokens_per_image = model.images.as_ref();
    let tokens_per_image = tokens_per_image.map_or(0, |images| images.tokens.tokens_per_image);
    if let Some(truncation) = truncation {
        truncation.shorten(&mut prompt, tokens_per_image)?;
    }
    check_length(prompt.ids.len(), model.max_model_len).map_err(|error| error.at("messages"))?;
    let images = match &model.images {
        Some(support) => decode_all(media, last, &support.processor, app).await?,
        None => Images::default(),
    };
    Ok(PreparedPrompt::new(prompt, images, tokens_per_image))
}
