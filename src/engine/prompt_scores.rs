//! Log-probabilities of a prompt's tokens, collected over several steps.

use std::sync::Arc;

use crate::core::TokenLogprobs;

/// Log-probabilities of the tokens from the second on; the first one has none.
#[derive(Debug)]
pub(super) struct PromptScores(Vec<Option<TokenLogprobs>>);

impl PromptScores {
    pub(super) fn new(prompt_len: usize) -> Self {
        Self(vec![None; prompt_len - 1])
    }

    /// Stores the scores from `position` on. After a preemption, the same scores are computed
    /// again.
    pub(super) fn put(&mut self, position: usize, scores: impl Iterator<Item = TokenLogprobs>) {
        for (place, score) in self.0[position - 1..].iter_mut().zip(scores) {
            *place = Some(score);
        }
    }

    /// Returns all scores.
    ///
    /// # Panics
    /// Panics when one is missing: with the first token, all of the prompt has been computed.
    pub(super) fn finish(self) -> Arc<[TokenLogprobs]> {
        self.0
            .into_iter()
            .map(|score| score.expect("all of the prompt has been computed"))
            .collect()
    }
}
