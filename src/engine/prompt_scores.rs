//! How probable a prompt's tokens are, gathered from step to step.

use std::sync::Arc;

use crate::core::TokenLogprobs;

/// Of the tokens from the second on: nothing comes before the first.
#[derive(Debug)]
pub(super) struct PromptScores(Vec<Option<TokenLogprobs>>);

impl PromptScores {
    pub(super) fn new(prompt_len: usize) -> Self {
        Self(vec![None; prompt_len - 1])
    }

    /// Those from `position` on. What is computed again, after a preemption, is the same again.
    pub(super) fn put(&mut self, position: usize, scores: impl Iterator<Item = TokenLogprobs>) {
        for (place, score) in self.0[position - 1..].iter_mut().zip(scores) {
            *place = Some(score);
        }
    }

    /// All of them.
    ///
    /// # Panics
    /// When one is missing: with the first token, all of the prompt has been computed.
    pub(super) fn finish(self) -> Arc<[TokenLogprobs]> {
        self.0
            .into_iter()
            .map(|score| score.expect("all of the prompt has been computed"))
            .collect()
    }
}
