//! Converts the engine's log-probabilities of token ids to the formats of the API.

use super::types::logprobs::{
    ChatLogprobs, CompletionLogprobs, PromptLogprob, PromptLogprobs, TokenLogprob, TopLogprob,
    TopLogprobs,
};
use crate::core::{TokenEvent, TokenId, TokenLogprobs};
use crate::text::Tokenizer;

/// The value for −∞, which JSON does not have. OpenAI's API and vLLM use the same.
const LEAST_LOGPROB: f32 = -9999.0;

/// Returns one entry for each token, including stop tokens; `None` if there are no tokens.
pub(crate) fn for_chat(tokens: &[TokenEvent], tokenizer: &Tokenizer) -> Option<ChatLogprobs> {
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

/// A prompt that is returned before its answer, with its log-probabilities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EchoedTokens<'a> {
    pub(crate) ids: &'a [TokenId],
    /// Number of tokens at the start that add nothing to the text.
    pub(crate) num_silent: usize,
    /// One entry for each token from the second on.
    pub(crate) logprobs: &'a [TokenLogprobs],
    /// Number of alternatives for each token.
    pub(crate) num_top: usize,
}

/// Returns one entry for each token of the echoed prompt and of `tokens`; `None` if there are none.
/// `offset` is the position of the first token in characters of the text; it is advanced past the
/// last.
pub(crate) fn for_completion(
    echoed: Option<EchoedTokens<'_>>,
    tokens: &[TokenEvent],
    tokenizer: &Tokenizer,
    offset: &mut usize,
) -> Option<CompletionLogprobs> {
    let mut lists = CompletionLogprobs::default();
    let mut add = |token, logprob: Option<(f32, &[(TokenId, f32)])>, is_silent: bool| {
        let text = tokenizer.token_text(token);
        lists.text_offset.push(*offset);
        lists
            .token_logprobs
            .push(logprob.map(|(logprob, _)| finite(logprob)));
        lists.top_logprobs.push(logprob.map(|(logprob, top)| {
            let mut tops = TopLogprobs::default();
            tops.insert(text.clone(), finite(logprob));
            for (token, logprob) in top {
                tops.insert(tokenizer.token_text(*token), finite(*logprob));
            }
            tops
        }));
        lists.tokens.push(text);
        if !is_silent {
            *offset += num_chars_begun(&tokenizer.token_bytes(token));
        }
    };
    if let Some(echoed) = echoed {
        for (place, token) in echoed.ids.iter().enumerate() {
            // The first token has no log-probability.
            let logprobs = place.checked_sub(1).and_then(|at| echoed.logprobs.get(at));
            let logprob = logprobs.map(|of| (of.logprob, best(&of.top, echoed.num_top)));
            add(*token, logprob, place < echoed.num_silent);
        }
    }
    for (token, logprob, top) in with_logprobs(tokens) {
        add(token, Some((logprob, top)), false);
    }
    (!lists.tokens.is_empty()).then_some(lists)
}

/// Returns vLLM's format: one entry for each prompt token, null for the first. `logprobs` start at
/// the second token, with at least `num_top` alternatives each.
pub(crate) fn for_prompt(
    prompt: &[TokenId],
    logprobs: &[TokenLogprobs],
    num_top: usize,
    tokenizer: &Tokenizer,
) -> Vec<Option<PromptLogprobs>> {
    let entry = |token: TokenId, logprob, rank| {
        let logprob = PromptLogprob {
            logprob: finite(logprob),
            rank,
            decoded_token: tokenizer.token_text(token),
        };
        (token.0, logprob)
    };
    let of_token = |(token, of): (&TokenId, &TokenLogprobs)| {
        let ranked = best(&of.top, num_top).iter().zip(1..);
        let mut entries: PromptLogprobs = ranked
            .map(|((token, logprob), rank)| entry(*token, *logprob, rank))
            .collect();
        entries.extend([entry(*token, of.logprob, of.rank)]);
        entries
    };
    let rest = prompt.iter().skip(1).zip(logprobs).map(of_token);
    [None].into_iter().chain(rest.map(Some)).collect()
}

/// Returns the first `num_top` alternatives, or all if there are fewer.
fn best(top: &[(TokenId, f32)], num_top: usize) -> &[(TokenId, f32)] {
    &top[..num_top.min(top.len())]
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

/// Counts the characters that begin in `bytes`. The later bytes of a character are 10xxxxxx, and
/// may belong to the next token.
fn num_chars_begun(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}
