//! Constraints on which tokens may come next.

use std::fmt;
use std::pin::Pin;

use super::TokenId;
use crate::error::Result;

/// A bit mask of the tokens that may be sampled: one bit each, the least significant of a word
/// first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
}

impl TokenMask {
    /// Creates a mask that allows none of `vocab_size` tokens.
    pub fn none(vocab_size: usize) -> Self {
        Self {
            words: vec![0; vocab_size.div_ceil(32)],
        }
    }

    /// Creates a mask that allows all of `vocab_size` tokens.
    pub fn all(vocab_size: usize) -> Self {
        let mut mask = Self {
            words: vec![u32::MAX; vocab_size.div_ceil(32)],
        };
        if let Some(last) = mask.words.last_mut()
            && !vocab_size.is_multiple_of(32)
        {
            *last = (1 << (vocab_size % 32)) - 1;
        }
        mask
    }

    /// Allows a token. One outside the vocabulary stays forbidden.
    pub fn allow(&mut self, token: TokenId) {
        if let Some(word) = self.words.get_mut(token.0 as usize / 32) {
            *word |= 1 << (token.0 % 32);
        }
    }

    /// Forbids a token.
    pub fn forbid(&mut self, token: TokenId) {
        if let Some(word) = self.words.get_mut(token.0 as usize / 32) {
            *word &= !(1 << (token.0 % 32));
        }
    }

    /// Whether a token may be sampled.
    pub fn contains(&self, token: TokenId) -> bool {
        let word = self.words.get(token.0 as usize / 32);
        word.is_some_and(|word| word >> (token.0 % 32) & 1 == 1)
    }

    /// Whether no token may be sampled.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Returns the mask for another vocabulary size: additional tokens are forbidden.
    pub fn resized(mut self, vocab_size: usize) -> Self {
        self.words.resize(vocab_size.div_ceil(32), 0);
        if let Some(last) = self.words.last_mut()
            && !vocab_size.is_multiple_of(32)
        {
            *last &= (1 << (vocab_size % 32)) - 1;
        }
        self
    }

    /// The mask as `⌈vocab_size / 32⌉` words.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The mask's words for direct writing. Bits past the vocabulary must stay 0.
    pub fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words
    }
}

/// A rule that an answer satisfies from its first token to its last. It is shared by all answers to
/// a request; each has its own state.
pub trait Constraint: fmt::Debug + Send + Sync {
    /// Returns the state before the first token.
    ///
    /// # Errors
    /// Fails when the rule cannot be followed at all.
    fn start(&self) -> Result<Box<dyn ConstraintState>>;

    /// Returns a token with which an answer may begin besides those that the rule allows, such as
    /// the start of reasoning. Whether it does so is the model's choice: among all tokens, not only
    /// among those of the mask, where it would be much likelier.
    fn optional_start(&self) -> Option<TokenId> {
        None
    }

    /// Number of tokens that an answer needs at least, as far as it is known. What may come before
    /// the answer leaves it so many.
    fn least_tokens(&self) -> usize {
        0
    }
}

/// Result of [`ConstraintState::next_mask`]: which tokens may come next; `None` when every token
/// may.
pub type NextMask<'a> = Pin<Box<dyn Future<Output = Result<Option<TokenMask>>> + Send + 'a>>;

/// The state of one answer within a [`Constraint`].
pub trait ConstraintState: fmt::Debug + Send {
    /// Advances by the tokens that were sampled since the last mask, and computes the next mask. The
    /// answer may have `num_left` more tokens, the next one included; a rule that can be satisfied
    /// within them is.
    /// Where the answer may end, its stop tokens are allowed. The mask may be computed elsewhere;
    /// the future then only waits.
    ///
    /// # Errors
    /// Fails when the rule cannot be followed any further, or a token was not allowed; the request
    /// has then failed.
    fn next_mask<'a>(
        &'a mut self,
        sampled: &'a [TokenId],
        num_left: usize,
        urgency: Urgency,
    ) -> NextMask<'a>;
}

/// How soon a mask is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A step waits for it.
    Now,
    /// No step waits for it, so it should not take resources from others.
    Background,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_ends_with_the_vocabulary() {
        for vocab_size in [1, 31, 32, 33, 262_144, 262_208] {
            let mut mask = TokenMask::all(vocab_size);
            assert_eq!(mask.words().len(), vocab_size.div_ceil(32));
            let ones: u32 = mask.words().iter().map(|word| word.count_ones()).sum();
            assert_eq!(ones as usize, vocab_size);
            let last = TokenId(vocab_size as u32 - 1);
            mask.forbid(last);
            assert!(!mask.contains(last));
            mask.allow(TokenId(1 << 30));
            assert!(!mask.contains(TokenId(1 << 30)));
        }
        let mut mask = TokenMask::none(40);
        mask.allow(TokenId(39));
        assert!(mask.contains(TokenId(39)) && !mask.contains(TokenId(38)));
        assert!(!mask.is_empty() && TokenMask::none(40).is_empty());
    }

    #[test]
    fn another_vocabulary_keeps_what_it_has() {
        let mask = TokenMask::all(40);
        assert_eq!(mask.clone().resized(33), TokenMask::all(33));
        let wider = mask.clone().resized(70);
        assert_eq!(wider.words().len(), 3);
        assert!(wider.contains(TokenId(39)) && !wider.contains(TokenId(40)));
        assert_eq!(wider.resized(40), mask);
    }
}
