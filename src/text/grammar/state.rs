//! A compiled grammar, and its state for one answer.

use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::Matcher;
use llguidance::api::StopReason;

use crate::core::{Constraint, ConstraintState, NextMask, TokenId, TokenMask, Urgency};
use crate::error::{Error, Result};

/// Maximum length of the library's message in an error.
const MAX_REASON: usize = 300;

/// A grammar that can be started any number of times.
pub(super) struct Grammar {
    /// The state before the first token. Locked while an answer copies it.
    fresh: Mutex<Matcher>,
    vocab_size: usize,
    stop_ids: Arc<[TokenId]>,
}

impl Grammar {
    pub(super) fn new(fresh: Matcher, vocab_size: usize, stop_ids: &[TokenId]) -> Self {
        Self {
            fresh: Mutex::new(fresh),
            vocab_size,
            stop_ids: stop_ids.into(),
        }
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Grammar {
    /// Creates the state for a new answer.
    pub(super) fn begin(&self) -> GrammarState {
        // A shallow copy would share data with the original behind a lock, so that answers would
        // wait for one another. A deep copy shares nothing.
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        GrammarState {
            matcher: fresh.deep_clone(),
            vocab_size: self.vocab_size,
            stop_ids: Arc::clone(&self.stop_ids),
            num_tokens: 0,
        }
    }
}

impl Constraint for Grammar {
    fn start(&self) -> Result<Box<dyn ConstraintState>> {
        Ok(Box::new(self.begin()))
    }
}

/// The state of a [`Grammar`] for one answer.
pub(super) struct GrammarState {
    matcher: Matcher,
    vocab_size: usize,
    stop_ids: Arc<[TokenId]>,
    num_tokens: usize,
}

impl fmt::Debug for GrammarState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarState")
            .field("num_tokens", &self.num_tokens)
            .finish_non_exhaustive()
    }
}

impl GrammarState {
    /// Accepts the sampled tokens and computes the next mask, on this thread.
    ///
    /// # Errors
    /// If the grammar does not allow the tokens or cannot continue.
    pub(super) fn next(&mut self, sampled: &[TokenId]) -> Result<TokenMask> {
        for token in sampled {
            self.accept(*token)?;
        }
        self.mask()
    }

    fn mask(&mut self) -> Result<TokenMask> {
        let allowed = self.matcher.compute_mask_or_eos();
        let allowed = allowed.map_err(|error| self.failed(&error))?;
        let mut mask = TokenMask::none(self.vocab_size);
        for (word, allowed) in mask.words_mut().iter_mut().zip(allowed.as_slice()) {
            *word = *allowed;
        }
        // The library's sets may extend past the end of the vocabulary.
        let behind = self.vocab_size % 32;
        if behind > 0
            && let Some(last) = mask.words_mut().last_mut()
        {
            *last &= (1 << behind) - 1;
        }
        Ok(mask)
    }

    fn accept(&mut self, token: TokenId) -> Result<()> {
        // If nothing can follow, the grammar is complete before the stop token is sampled.
        if self.matcher.stop_reason() == StopReason::NoExtension && self.stop_ids.contains(&token) {
            return Ok(());
        }
        let accepted = self.matcher.consume_token(token.0);
        accepted.map_err(|error| self.failed(&error))?;
        self.num_tokens += 1;
        Ok(())
    }

    fn failed(&self, reason: &impl fmt::Display) -> Error {
        Error::Constraint {
            num_tokens: self.num_tokens,
            reason: shortened(reason),
        }
    }
}

impl ConstraintState for GrammarState {
    fn next_mask<'a>(&'a mut self, sampled: &'a [TokenId], _: Urgency) -> NextMask<'a> {
        Box::pin(ready(self.next(sampled).map(Some)))
    }
}

/// Returns the first line of the library's message.
pub(super) fn shortened(reason: &impl fmt::Display) -> String {
    let reason = reason.to_string();
    let line = reason.lines().next().unwrap_or_default();
    line.chars().take(MAX_REASON).collect()
}
