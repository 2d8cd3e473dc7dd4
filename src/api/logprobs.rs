//! Log-probabilities from the engine's ids into the wire's texts.

use super::types::{
    ChatLogprobs, CompletionLogprobs, PromptLogprob, PromptLogprobs, TokenLogprob, TopLogprob,
    TopLogprobs,
};
use crate::core::{TokenEvent, TokenId, TokenLogprobs};
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

/// A prompt that stands in front of its answer, with its log-probabilities.
#[derive(Clone, Copy, Debug)]
pub(super) struct EchoedTokens<'a> {
    pub(super) ids: &'a [TokenId],
    /// Tokens at the start that have no part in the text.
    pub(super) num_silent: usize,
    /// From the second token on.
    pub(super) logprobs: &'a [TokenLogprobs],
    /// Alternatives for each.
    pub(super) num_top: usize,
}

/// One entry for each token of the echoed prompt and of `tokens`; `None` if there are none.
/// `offset` is where the first begins, in characters of the text, and is moved behind the last.
pub(super) fn for_completion(
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
            // Nothing foretells the first.
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

/// vLLM's form: one entry for each token of a prompt, null for the first. `logprobs` are from the
/// second on, with at least `num_top` alternatives each.
pub(super) fn for_prompt(
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

/// The first `num_top` of those that are there.
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

/// Characters that begin in these bytes: a character's later bytes are 10xxxxxx, and may come with
/// another token.
fn num_chars_begun(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}
