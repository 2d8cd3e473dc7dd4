//! What restricts which tokens may come next.

use std::fmt;
use std::pin::Pin;

use super::TokenId;
use crate::error::Result;

/// Which tokens of a vocabulary may be sampled: a bit each, the least significant of a word first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
}

impl TokenMask {
    /// None of `vocab_size` tokens.
    pub fn none(vocab_size: usize) -> Self {
        Self {
            words: vec![0; vocab_size.div_ceil(32)],
        }
    }

    /// All of `vocab_size` tokens.
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

    /// Lets a token in. One outside the vocabulary stays out.
    pub fn allow(&mut self, token: TokenId) {
        if let Some(word) = self.words.get_mut(token.0 as usize / 32) {
            *word |= 1 << (token.0 % 32);
        }
    }

    /// Keeps a token out.
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

    /// The same over another vocabulary: tokens that are new stay out.
    pub fn resized(mut self, vocab_size: usize) -> Self {
        self.words.resize(vocab_size.div_ceil(32), 0);
        if let Some(last) = self.words.last_mut()
            && !vocab_size.is_multiple_of(32)
        {
            *last &= (1 << (vocab_size % 32)) - 1;
        }
        self
    }

    /// `⌈vocab_size / 32⌉` words.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The same, to be written by a grammar's own arithmetic. Bits behind the vocabulary stay 0.
    pub fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words
    }
}

/// A rule that an answer keeps from its first token to its last. Shared by all answers to a
/// request; each goes its own way through it.
pub trait Constraint: fmt::Debug + Send + Sync {
    /// Before the first token.
    ///
    /// # Errors
    /// When the rule cannot be followed at all.
    fn start(&self) -> Result<Box<dyn ConstraintState>>;
}

/// What comes of [`ConstraintState::next_mask`]: which tokens may come next; `None` when every
/// token may.
pub type NextMask<'a> = Pin<Box<dyn Future<Output = Result<Option<TokenMask>>> + Send + 'a>>;

/// One answer's way through a [`Constraint`].
pub trait ConstraintState: fmt::Debug + Send {
    /// Takes note of the tokens that were sampled since the last mask, and makes the next one.
    /// Where the answer may end, its stop tokens are among the allowed ones. The mask may be made
    /// elsewhere: the future then waits without computing.
    ///
    /// # Errors
    /// When the rule cannot be followed any further, or a token was not allowed; the request has
    /// failed.
    fn next_mask<'a>(&'a mut self, sampled: &'a [TokenId], urgency: Urgency) -> NextMask<'a>;
}

/// How soon a mask is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A step waits for it.
    Now,
    /// Nobody else waits for it, so it must take nothing away from anybody.
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
