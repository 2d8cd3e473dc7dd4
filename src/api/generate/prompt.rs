//! Converts prompts to the form that the engine takes.

use super::images::Images;
use crate::api::http::error::ApiError;
use crate::api::http::request_memory::Charge;
use crate::api::openai::completions::request::Prompt;
use crate::core::{ImageSpan, TokenId};
use crate::error::Error;
use crate::registry::ServedModel;
use crate::text::{
    AddSpecialTokens, EncodedPrompt, Message, PromptEnd, SpecialTokens, encode_prompt,
};

use super::size::{check_size, least_tokens};

/// Maximum number of prompts in one request. Each one is a separate sequence in the engine.
const MAX_PROMPTS: usize = 1024;

/// A tokenized prompt with its images.
#[derive(Debug)]
pub(crate) struct PreparedPrompt {
    /// Never empty, and shorter than the model's maximum length.
    pub(crate) ids: Vec<TokenId>,
    /// In order of position.
    pub(crate) images: Vec<ImageSpan>,
    /// The prompt's text, if answers begin with it (`echo`).
    pub(crate) echo: Option<EchoedPrompt>,
    /// Memory charged for the images.
    pub(crate) held: Option<Charge>,
}

/// A prompt that is returned before its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EchoedPrompt {
    /// The client's text, or the text of its ids.
    pub(crate) text: String,
    /// Number of tokens at the start that are not in the text: a `<bos>` that the client did not
    /// write.
    pub(crate) num_silent: usize,
}

/// Whether answers begin with their prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// They do (`echo`).
    Yes,
    /// They do not, which is the default.
    No,
}

impl PreparedPrompt {
    /// Assigns images to their places, in order.
    pub(crate) fn new(prompt: EncodedPrompt, decoded: Images, tokens_per_image: usize) -> Self {
        debug_assert_eq!(prompt.image_starts.len(), decoded.pixels.len());
        let images = prompt.image_starts.into_iter().zip(decoded.pixels);
        Self {
            ids: prompt.ids,
            images: images
                .map(|(start, pixels)| ImageSpan {
                    start,
                    len: tokens_per_image,
                    pixels,
                })
                .collect(),
            echo: None,
            held: decoded.held,
        }
    }
}

/// Encodes a conversation with the model's template.
///
/// # Errors
/// 400 if the model has no template, if the template refuses the messages, or for a token outside
/// the model's vocabulary.
pub(crate) fn encode_chat(
    model: &ServedModel,
    messages: &[Message],
    end: PromptEnd,
) -> Result<EncodedPrompt, ApiError> {
    let Some(template) = &model.template else {
        return Err(ApiError::unsupported(
            "messages",
            "This model has no chat template. Use /v1/completions, or start the server with \
             --chat-template.",
        ));
    };
    let rendered = template.render_to(messages, end)?;
    let image_tokens = model.images.as_ref().map(|images| &images.tokens);
    let prompt = encode_prompt(&model.tokenizer, &rendered, image_tokens)?;
    check_rows(&prompt.ids, model.vocab_size).map_err(|error| error.at("messages"))?;
    Ok(prompt)
}

/// Checks the length of a prompt.
///
/// # Errors
/// 400 `context_length_exceeded` unless there is room for a token after the prompt.
pub(crate) fn check_length(prompt_len: usize, max_model_len: usize) -> Result<(), ApiError> {
    if prompt_len < max_model_len {
        return Ok(());
    }
    Err(Error::PromptTooLong {
        max_model_len,
        prompt_len,
    }
    .into())
}

/// Converts the prompts of a text completion. Texts get `<bos>` unless they begin with it; ids are
/// taken unchanged.
///
/// # Errors
/// 400 for no prompt, an empty one, unknown ids, and prompts that are too long.
pub(crate) fn convert_prompts(
    prompt: Prompt,
    echo: Echo,
    model: &ServedModel,
) -> Result<Vec<PreparedPrompt>, ApiError> {
    let is_list = matches!(prompt, Prompt::Texts(_) | Prompt::IdLists(_));
    let path = |prompt_idx: usize| match is_list {
        true => format!("prompt[{prompt_idx}]"),
        false => "prompt".to_owned(),
    };
    let prompts = match prompt {
        Prompt::Text(text) => vec![convert_text(text, model, &path(0))?],
        Prompt::Ids(ids) => vec![convert_ids(&ids, model, &path(0))?],
        Prompt::Texts(texts) => {
            check_number(texts.len())?;
            let texts = texts.into_iter().enumerate();
            texts
                .map(|(prompt_idx, text)| convert_text(text, model, &path(prompt_idx)))
                .collect::<Result<_, _>>()?
        }
        Prompt::IdLists(lists) => {
            check_number(lists.len())?;
            let lists = lists.iter().enumerate();
            lists
                .map(|(prompt_idx, ids)| convert_ids(ids, model, &path(prompt_idx)))
                .collect::<Result<_, _>>()?
        }
        Prompt::Nothing => Vec::new(),
    };
    if prompts.is_empty() {
        return Err(ApiError::invalid_value(
            "prompt",
            "'prompt' must not be empty.",
        ));
    }
    let prepared = prompts.into_iter().enumerate().map(|(prompt_idx, prompt)| {
        let Converted { ids, echoed } = prompt;
        let path = path(prompt_idx);
        if ids.is_empty() {
            let message = format!("'{path}' must not be empty.");
            return Err(ApiError::invalid_value(path, message));
        }
        check_length(ids.len(), model.max_model_len).map_err(|error| error.at(path))?;
        Ok(PreparedPrompt {
            ids,
            images: Vec::new(),
            echo: (echo == Echo::Yes).then_some(echoed),
            held: None,
        })
    });
    prepared.collect()
}

fn check_number(num_prompts: usize) -> Result<(), ApiError> {
    if num_prompts <= MAX_PROMPTS {
        return Ok(());
    }
    Err(ApiError::invalid_value(
        "prompt",
        format!("'prompt' takes up to {MAX_PROMPTS} prompts, got {num_prompts}."),
    ))
}

/// A prompt's ids and text.
struct Converted {
    ids: Vec<TokenId>,
    echoed: EchoedPrompt,
}

fn convert_text(text: String, model: &ServedModel, path: &str) -> Result<Converted, ApiError> {
    let ids = encode_text(&text, model, path)?;
    let prefix = model.tokenizer.prefix();
    let written = model.tokenizer.decode(prefix, SpecialTokens::Keep);
    let num_silent = match text.starts_with(&written) {
        true => 0,
        false => prefix.len(),
    };
    Ok(Converted {
        ids,
        echoed: EchoedPrompt { text, num_silent },
    })
}

fn encode_text(text: &str, model: &ServedModel, path: &str) -> Result<Vec<TokenId>, ApiError> {
    let least = least_tokens(text.len(), 0, 0);
    check_size(least, model.max_model_len).map_err(|error| error.at(path))?;
    let ids = model.tokenizer.encode_raw(text, AddSpecialTokens::Yes)?;
    check_rows(&ids, model.vocab_size).map_err(|error| error.at(path))?;
    Ok(ids)
}

fn convert_ids(ids: &[i32], model: &ServedModel, path: &str) -> Result<Converted, ApiError> {
    check_length(ids.len(), model.max_model_len).map_err(|error| error.at(path))?;
    let ids = check_ids(ids, model.vocab_size, |idx| format!("{path}[{idx}]"))?;
    let prefix = model.tokenizer.prefix();
    let num_silent = match ids.starts_with(prefix) {
        true => prefix.len(),
        false => 0,
    };
    let text = model
        .tokenizer
        .decode(&ids[num_silent..], SpecialTokens::Keep);
    Ok(Converted {
        echoed: EchoedPrompt { text, num_silent },
        ids,
    })
}

/// Converts ids within the model's vocabulary.
///
/// # Errors
/// 400 at the path of the first unknown id.
pub(crate) fn check_ids(
    ids: &[i32],
    vocab_size: usize,
    path: impl Fn(usize) -> String,
) -> Result<Vec<TokenId>, ApiError> {
    let ids = ids.iter().enumerate();
    ids.map(|(idx, id)| match u32::try_from(*id) {
        Ok(row) if (row as usize) < vocab_size => Ok(TokenId(row)),
        _ => Err(ApiError::invalid_value(
            path(idx),
            format!(
                "Token ids are 0–{}, got {id}.",
                vocab_size.saturating_sub(1)
            ),
        )),
    })
    .collect()
}

/// Checks that the model has all tokens: a tokenizer may have tokens that the model lacks.
fn check_rows(ids: &[TokenId], vocab_size: usize) -> Result<(), ApiError> {
    match ids.iter().find(|id| id.0 as usize >= vocab_size) {
        None => Ok(()),
        Some(id) => Err(ApiError::unsupported(
            "prompt",
            format!(
                "The prompt contains token {}, but this model has {vocab_size} tokens.",
                id.0
            ),
        )),
    }
}
