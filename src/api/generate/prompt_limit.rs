//! Rejects prompts that are too long, judged by their size alone.
//!
//! Tokenization takes memory and time in proportion to the text, so a text that cannot fit is not
//! tokenized, and a hundred thousand images are not expanded to placeholders.

use crate::api::http::error::ApiError;

/// Upper bound of a token's size in bytes. Gemma's longest are 31 spaces and runs of punctuation,
/// all under 100 bytes.
const MAX_BYTES_PER_TOKEN: usize = 128;

/// `/tokenize` and `/detokenize` accept more than any model's limit: up to this number of tokens,
/// which is estimated for texts.
pub(crate) const MAX_TOKENIZED: usize = 128 << 10;

/// Returns a lower bound of a prompt's number of tokens.
pub(crate) fn least_tokens(text_bytes: usize, num_messages: usize, image_tokens: usize) -> usize {
    text_bytes / MAX_BYTES_PER_TOKEN + num_messages + image_tokens
}

/// Checks the lower bound of a prompt's length.
///
/// # Errors
/// 400 `context_length_exceeded` if even the lower bound leaves no room for a token.
pub(crate) fn check_size(least_tokens: usize, max_tokens: usize) -> Result<(), ApiError> {
    if least_tokens < max_tokens {
        return Ok(());
    }
    Err(ApiError::prompt_far_too_long(max_tokens, least_tokens))
}
