//! Prompts that are too long by their size alone.
//!
//! Tokenising takes memory and time in proportion to the text, so a text that cannot fit is not
//! tokenised, and a hundred thousand images are not written out as placeholders.

use crate::api::error::ApiError;

/// No token stands for more bytes: Gemma's longest are 31 spaces and runs of punctuation, under
/// 100 bytes however they are counted.
const MAX_BYTES_PER_TOKEN: usize = 128;

/// `/tokenize` counts longer texts than any model takes, up to this many tokens by their size.
pub(in crate::api) const MAX_TOKENIZED: usize = 128 << 10;

/// A lower bound of a prompt's tokens.
pub(in crate::api) fn least_tokens(
    text_bytes: usize,
    num_messages: usize,
    image_tokens: usize,
) -> usize {
    text_bytes / MAX_BYTES_PER_TOKEN + num_messages + image_tokens
}

/// # Errors
/// 400 `context_length_exceeded` if not even the lower bound leaves room for a token.
pub(in crate::api) fn check_size(least_tokens: usize, max_tokens: usize) -> Result<(), ApiError> {
    if least_tokens < max_tokens {
        return Ok(());
    }
    Err(ApiError::prompt_far_too_long(max_tokens, least_tokens))
}
