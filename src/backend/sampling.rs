//! Inputs and results of sampling and scoring.

use super::seen_tokens::SeenTokens;
use crate::core::{SamplingParams, TokenId, TokenLogprobs, TokenMask};

/// Sampling inputs of one row.
#[derive(Clone, Copy, Debug)]
pub struct SampleRow<'a> {
    /// Sampling parameters of the request.
    pub params: &'a SamplingParams,
    /// Position in the sequence of the token to be sampled; the random numbers depend only on it
    /// and the seed.
    pub position: usize,
    /// Number of tokens generated so far; below `min_tokens` no stop token is sampled.
    pub num_generated: usize,
    /// Mask of allowed tokens; `None` if all are allowed.
    pub mask: Option<&'a TokenMask>,
    /// Counts of the earlier tokens, if `params` has penalties.
    pub seen: Option<&'a SeenTokens>,
}

impl<'a> SampleRow<'a> {
    /// Creates a row without mask and token counts.
    pub fn new(params: &'a SamplingParams, position: usize, num_generated: usize) -> Self {
        Self {
            params,
            position,
            num_generated,
            mask: None,
            seen: None,
        }
    }

    /// Stop tokens that are not allowed yet.
    pub(super) fn banned(&self) -> &'a [TokenId] {
        if self.num_generated < self.params.min_tokens {
            &self.params.stop_token_ids
        } else {
            &[]
        }
    }
}

/// Inputs for scoring a row whose next token is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreRow {
    /// The token that follows the row.
    pub token: TokenId,
    /// Number of most probable tokens to report.
    pub num_top: usize,
}

/// A sampled or scored token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: TokenId,
    /// Log-probabilities: for a sampled row if requested, for a scored row always.
    pub logprobs: Option<TokenLogprobs>,
    /// Whether the logits were finite. If not, `token` is 0 and meaningless.
    pub is_finite: bool,
}

/// Reports the log-probabilities of `ids` in place of the most probable tokens', if there are any.
/// `logprobs` are those of `token`, of the row `logits` as the model computed it.
pub(super) fn name_tokens(
    logprobs: TokenLogprobs,
    token: TokenId,
    ids: &[TokenId],
    logits: &[f32],
) -> TokenLogprobs {
    if ids.is_empty() {
        return logprobs;
    }
    let logit = |id: TokenId| logits[id.0 as usize];
    let log_sum = logit(token) - logprobs.logprob;
    let top = ids.iter().map(|id| (*id, logit(*id) - log_sum)).collect();
    TokenLogprobs { top, ..logprobs }
}
