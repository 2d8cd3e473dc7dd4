//! Log-probabilities from the engine's ids into the wire's texts.

use super::types::{ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob, TopLogprobs};
use crate::core::{TokenEvent, TokenId};
use crate::text::Tokenizer;

/// JSON has no −∞; OpenAI and vLLM write this for what cannot happen.
const LEAST_LOGPROB: f32 = -9999.0;

/// One entry for each token, stop tokens included; `None` if there are no tokens.
pub(super) fn for_chat(tokens: &[TokenEvent], tokenizer: &Tokenizer) -> Option<ChatLogprobs> {
    let content: Vec<_> = with_logprobs(tokens)
        .map(|(token, logprob, top)| TokenLogprob {
            chosen: entry(token, logprob, tokenizer),
            top_logprobs: top
                .iter()
                .map(|(token, logprob)| entry(*token, *logprob, tokenizer))
                .collect(),
        })
        .collect();
    (!content.is_empty()).then_some(ChatLogprobs {
        content,
        refusal: None,
    })
}

/// One entry for each token; `None` if there are no tokens. `offset` is where the first begins, in
/// characters of the answer, and is moved behind the last.
pub(super) fn for_completion(
    tokens: &[TokenEvent],
    tokenizer: &Tokenizer,
    offset: &mut usize,
) -> Option<CompletionLogprobs> {
    let mut lists = CompletionLogprobs::default();
    for (token, logprob, top) in with_logprobs(tokens) {
        let text = tokenizer.token_text(token);
        let mut tops = TopLogprobs::default();
        tops.insert(text.clone(), finite(logprob));
        for (token, logprob) in top {
            tops.insert(tokenizer.token_text(*token), finite(*logprob));
        }
        lists.text_offset.push(*offset);
        lists.token_logprobs.push(finite(logprob));
        lists.tokens.push(text);
        lists.top_logprobs.push(tops);
        *offset += num_chars_begun(&tokenizer.token_bytes(token));
    }
    (!lists.tokens.is_empty()).then_some(lists)
}

fn with_logprobs(tokens: &[TokenEvent]) -> impl Iterator<Item = (TokenId, f32, &[(TokenId, f32)])> {
    tokens.iter().filter_map(|event| {
        let logprobs = event.logprobs.as_ref()?;
        Some((event.token, logprobs.logprob, logprobs.top.as_slice()))
    })
}

fn entry(token: TokenId, logprob: f32, tokenizer: &Tokenizer) -> TopLogprob {
    let bytes = tokenizer.token_bytes(token);
    TopLogprob {
        token: tokenizer.token_text(token),
        logprob: finite(logprob),
        bytes,
    }
}

fn finite(logprob: f32) -> f32 {
    // `max` also turns NaN into the bound.
    logprob.max(LEAST_LOGPROB)
}

/// Characters that begin in these bytes: a character's later bytes are 10xxxxxx, and may come with
/// another token.
fn num_chars_begun(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}
