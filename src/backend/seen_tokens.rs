//! Counts of a sequence's earlier tokens, for penalties.
//!
//! Knows nothing of the penalties' values, nor of where the tokens come from.

use crate::core::TokenId;

/// Tokens in the prompt or sampled so far: ascending, each once.
///
/// It is a list rather than a count per token of the vocabulary: an answer has a few hundred
/// different tokens, the vocabulary a quarter of a million, and the list is copied to the device
/// each step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenTokens(Vec<SeenToken>);

/// A token and its counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenToken {
    /// The token.
    pub token: TokenId,
    /// Number of times it was sampled.
    pub num_sampled: u32,
    /// Whether it is in the prompt.
    pub in_prompt: bool,
}

impl SeenTokens {
    /// Creates the list of a prompt.
    pub fn of_prompt(prompt: &[TokenId]) -> Self {
        let mut tokens = prompt.to_vec();
        tokens.sort_unstable();
        tokens.dedup();
        let seen = tokens.into_iter().map(|token| SeenToken {
            token,
            num_sampled: 0,
            in_prompt: true,
        });
        Self(seen.collect())
    }

    /// Adds a sampled token.
    pub fn add(&mut self, token: TokenId) {
        match self.0.binary_search_by_key(&token, |seen| seen.token) {
            Ok(idx) => self.0[idx].num_sampled += 1,
            Err(idx) => self.0.insert(
                idx,
                SeenToken {
                    token,
                    num_sampled: 1,
                    in_prompt: false,
                },
            ),
        }
    }

    /// The list, ascending by token.
    pub fn as_slice(&self) -> &[SeenToken] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_and_draws_are_told_apart() {
        let mut seen = SeenTokens::of_prompt(&[9, 3, 9].map(TokenId));
        for token in [5, 3, 5] {
            seen.add(TokenId(token));
        }
        let told: Vec<_> = seen
            .as_slice()
            .iter()
            .map(|seen| (seen.token.0, seen.num_sampled, seen.in_prompt))
            .collect();
        assert_eq!(told, [(3, 1, true), (5, 2, false), (9, 0, true)]);
    }
}
