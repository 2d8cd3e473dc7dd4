//! Turns a chat request, from whichever API it came, into a checked call, and its conversation into a
//! prompt.

use std::sync::Arc;

use super::convert::Chat;
use super::prompting::Prompting;
use super::request::ChatRequest;
use super::thinking::{ReasoningInstruction, ThinkingFields, convert_thinking};
use super::tools::{ToolFields, ToolPlan, convert_tools};
use crate::api::generate::images::{Images, decode_all};
use crate::api::generate::options::chat_logprobs;
use crate::api::generate::output::{GuidedFields, OutputPlan, ReasoningPlan, asked_grammar};
use crate::api::generate::prompt::{PreparedPrompt, check_length, encode_chat};
use crate::api::generate::prompt_limit::{check_size, least_tokens};
use crate::api::generate::truncation::Truncation;
use crate::api::generate::{Call, OwnFields, SharedFields};
use crate::api::http::error::ApiError;
use crate::api::http::state::AppState;
use crate::core::Thinking;
use crate::registry::ServedModel;
use crate::text::AnswerSyntax;

/// Converts and checks a chat request, from whichever API it came.
///
/// # Errors
/// 400 for invalid fields, 404 for another model.
pub(crate) fn chat_call(
    fields: ChatRequest,
    shared: SharedFields,
    model: &ServedModel,
) -> Result<Call<Chat>, ApiError> {
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

/// Checks a conversation before its template is rendered.
///
/// # Errors
/// 400 for images to a model that takes none, and for a prompt that certainly exceeds `max_tokens`.
pub(crate) fn check_chat(
    chat: &Chat,
    model: &ServedModel,
    max_tokens: usize,
) -> Result<(), ApiError> {
    let image_tokens = match (&model.images, chat.media.first()) {
        (Some(images), _) => chat.num_images() * images.tokens.tokens_per_image,
        (None, None) => 0,
        (None, Some(image)) => {
            let message = format!(
                "The model '{}' takes text only. Remove the images, or use a model that takes \
                 them, such as medgemma-4b-it.",
                model.names[0]
            );
            return Err(ApiError::invalid_value(image.param.clone(), message));
        }
    };
    // Images are never cut off.
    let in_text = Truncation::max_tokenized(chat.truncation, max_tokens);
    let least = least_tokens(chat.text_bytes, chat.messages.len(), image_tokens);
    check_size(image_tokens, max_tokens)
        .and_then(|()| check_size(least, in_text))
        .map_err(|error| error.at("messages"))
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
    let Chat {
        messages,
        media,
        text_bytes,
        end,
        truncation,
    } = chat;
    let encode = {
        let model = Arc::clone(model);
        move || encode_chat(&model, messages, end)
    };
    let mut prompt = match &model.template {
        Some(template) if template.waits() => app.blocking_pool().run(encode).await??,
        _ => app.blocking_pool().run_sized(text_bytes, encode).await??,
    };
    if let Some(truncation) = truncation {
        let tokens_per_image = model.images.as_ref();
        let tokens_per_image = tokens_per_image.map_or(0, |images| images.tokens.tokens_per_image);
        truncation.shorten(&mut prompt, tokens_per_image)?;
    }
    check_length(prompt.ids.len(), model.max_model_len).map_err(|error| error.at("messages"))?;
    let (images, tokens_per_image) = match &model.images {
        Some(support) => (
            decode_all(media, &support.processor, app).await?,
            support.tokens.tokens_per_image,
        ),
        None => (Images::default(), 0),
    };
    Ok(PreparedPrompt::new(prompt, images, tokens_per_image))
}
