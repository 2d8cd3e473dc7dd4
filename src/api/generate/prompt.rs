//! Converts prompts to the form that the engine takes.

use super::images::{Images, Input};
use crate::api::http::error::ApiError;
use crate::api::http::request_memory::Charge;
use crate::core::{ImageSpan, TokenId};
use crate::error::Error;
use crate::registry::ServedModel;
use crate::text::{EncodedPrompt, Message, PromptEnd, encode_prompt_with_crops};

/// A tokenized prompt with its images.
#[derive(Debug)]
pub(crate) struct PreparedPrompt {
    /// Never empty, and shorter than the model's maximum length.
    pub(crate) ids: Vec<TokenId>,
    /// In order of position.
    pub(crate) images: Vec<ImageSpan>,
    /// The prompt's text, if answers begin with it (`echo`).
    pub(crate) echo: Option<EchoedPrompt>,
    /// What became of the files, in order of position.
    pub(crate) inputs: Vec<Input>,
    /// Memory charged for the images.
    pub(crate) held: Vec<Charge>,
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

impl PreparedPrompt {
    /// Returns the number of images that the model sees, crops included.
    pub(crate) fn num_images(&self) -> usize {
        self.inputs.iter().map(|input| input.report.images).sum()
    }

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
            inputs: decoded.inputs,
            held: decoded.held,
        }
    }
}

/// Encodes a conversation with the model's template. Beside each image of the messages stand as many
/// crops as `num_crops` says.
///
/// # Errors
/// 400 if the model has no template, if the template refuses the messages, or for a token outside
/// the model's vocabulary.
pub(crate) fn encode_chat(
    model: &ServedModel,
    messages: Vec<Message>,
    num_crops: &[usize],
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
    let prompt = encode_prompt_with_crops(&model.tokenizer, &rendered, image_tokens, num_crops)?;
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

/// Converts ids within the model's vocabulary.
///
/// # Errors
/// 400 at the path of the first unknown id.
pub(crate) fn check_ids(
    ids: Vec<i32>,
    vocab_size: usize,
    path: impl Fn(usize) -> String,
) -> Result<Vec<TokenId>, ApiError> {
    // Collected in place: a list of ids may be most of a large body.
    let ids = ids.into_iter().enumerate();
    ids.map(|(idx, id)| match u32::try_from(id) {
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
pub(crate) fn check_rows(ids: &[TokenId], vocab_size: usize) -> Result<(), ApiError> {
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
