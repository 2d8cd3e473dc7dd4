//! Converts the engine's log-probabilities of token ids to the formats of the API.

use super::options::TokenNames;
use super::types::logprobs::{
    ChatLogprobs, CompletionLogprobs, PromptLogprob, PromptLogprobs, TokenLogprob, TopLogprob,
    TopLogprobs,
};
use crate::core::{FinishReason, TokenEvent, TokenId, TokenLogprobs};
use crate::text::{StopText, TextRule, Tokenizer};

/// The value for −∞, which JSON does not have. OpenAI's API and vLLM use the same.
const LEAST_LOGPROB: f32 = -9999.0;

/// How the tokens of an answer are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogprobWriter<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) names: TokenNames,
    /// Which tokens are part of the answer's text.
    pub(crate) text: TextRule,
    /// Whether the chosen token comes before the alternatives, which are tokens that the request
    /// names.
    pub(crate) chosen_first: bool,
}

impl LogprobWriter<'_> {
    /// Returns one entry for each token, including stop tokens; `None` if there are no tokens.
    ///
    /// The entries' bytes together are those of the answer: empty for tokens that add nothing to it.
    pub(crate) fn for_chat(self, tokens: &[TokenEvent]) -> Option<ChatLogprobs> {
        let entries = tokens.iter().filter_map(|event| {
            let TokenLogprobs { logprob, top, .. } = event.logprobs.as_ref()?;
            let mut chosen = self.entry(event.token, *logprob);
            if !self.is_text(event) {
                chosen.bytes.clear();
            }
            let first = self.chosen_first.then(|| chosen.clone());
            let others = top.iter();
            let others = others.filter(|(token, _)| !self.chosen_first || *token != event.token);
            let others = others.map(|(token, logprob)| self.entry(*token, *logprob));
            Some(TokenLogprob {
                top_logprobs: first.into_iter().chain(others).collect(),
                chosen,
            })
        });
        let content: Vec<_> = entries.collect();
        (!content.is_empty()).then_some(ChatLogprobs {
            content,
            refusal: None,
        })
    }

    /// Returns one entry for each token of the echoed prompt and of `tokens`; `None` if there are
    /// none. `offset` is the position of the first token in characters of the text; it is advanced
    /// past the last.
    pub(crate) fn for_completion(
        self,
        echoed: Option<EchoedTokens<'_>>,
        tokens: &[TokenEvent],
        offset: &mut usize,
    ) -> Option<CompletionLogprobs> {
        let mut lists = CompletionLogprobs::default();
        let mut add = |token, logprob: Option<(f32, &[(TokenId, f32)])>, bytes: Vec<u8>| {
            let name = self.name(token);
            lists.text_offset.push(*offset);
            lists
                .token_logprobs
                .push(logprob.map(|(logprob, _)| finite(logprob)));
            lists.top_logprobs.push(logprob.map(|(logprob, top)| {
                let mut tops = TopLogprobs::default();
                tops.insert(name.clone(), finite(logprob));
                for (token, logprob) in top {
                    tops.insert(self.name(*token), finite(*logprob));
                }
                tops
            }));
            lists.tokens.push(name);
            *offset += num_chars_begun(&bytes);
        };
        if let Some(echoed) = echoed {
            for (place, token) in echoed.ids.iter().enumerate() {
                // The first token has no log-probability.
                let logprobs = place.checked_sub(1).and_then(|at| echoed.logprobs.get(at));
                let logprob = logprobs.map(|of| (of.logprob, best(&of.top, echoed.num_top)));
                let bytes = match place < echoed.num_silent {
                    true => Vec::new(),
                    false => self.tokenizer.token_bytes(*token),
                };
                add(*token, logprob, bytes);
            }
        }
        for event in tokens {
            if let Some(TokenLogprobs { logprob, top, .. }) = &event.logprobs {
                let bytes = match self.is_text(event) {
                    true => self.tokenizer.text_bytes(event.token, self.text.special),
                    false => Vec::new(),
                };
                add(event.token, Some((*logprob, top)), bytes);
            }
        }
        (!lists.tokens.is_empty()).then_some(lists)
    }

    /// Whether a token can be part of the answer's text.
    fn is_text(self, event: &TokenEvent) -> bool {
        self.text.stop == StopText::Kept || event.finish != Some(FinishReason::Stop)
    }

    fn name(self, token: TokenId) -> String {
        match self.names {
            TokenNames::Texts => self.tokenizer.token_text(token),
            TokenNames::Ids => format!("token_id:{}", token.0),
        }
    }

    fn entry(self, token: TokenId, logprob: f32) -> TopLogprob {
        TopLogprob {
            token: self.name(token),
            logprob: finite(logprob),
            bytes: self.tokenizer.text_bytes(token, self.text.special),
        }
    }
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

fn finite(logprob: f32) -> f32 {
    // `max` also turns NaN into the bound.
    logprob.max(LEAST_LOGPROB)
}

/// Counts the characters that begin in `bytes`. The later bytes of a character are 10xxxxxx, and
/// may belong to the next token.
fn num_chars_begun(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}
