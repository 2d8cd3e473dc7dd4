//! Limits on tokens, whatever the answer's grammar: a list of allowed ones, and words that must not
//! occur.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::core::{Constraint, ConstraintState, NextMask, TokenId, TokenMask, Urgency};
use crate::error::Result;

/// Which tokens an answer may consist of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenLimits {
    /// The only tokens that may be sampled; `None` if all may.
    pub allowed: Option<TokenMask>,
    /// Sequences that must not occur, none of them empty: a token that would complete one is
    /// forbidden.
    pub forbidden: Vec<Vec<TokenId>>,
}

/// Returns a constraint that keeps to `limits` and to `grammar`. `None` if there is neither.
pub fn with_limits(
    grammar: Option<Arc<dyn Constraint>>,
    limits: &TokenLimits,
    vocab_size: usize,
) -> Option<Arc<dyn Constraint>> {
    if *limits == TokenLimits::default() {
        return grammar;
    }
    Some(Arc::new(Limited {
        grammar,
        limits: Arc::new(limits.clone()),
        vocab_size,
    }))
}

#[derive(Debug)]
struct Limited {
    grammar: Option<Arc<dyn Constraint>>,
    limits: Arc<TokenLimits>,
    vocab_size: usize,
}

impl Constraint for Limited {
    fn start(&self) -> Result<Box<dyn ConstraintState>> {
        let grammar = self.grammar.as_ref().map(|grammar| grammar.start());
        let longest = self.limits.forbidden.iter().map(Vec::len).max();
        Ok(Box::new(LimitedState {
            grammar: grammar.transpose()?,
            limits: Arc::clone(&self.limits),
            vocab_size: self.vocab_size,
            latest: VecDeque::new(),
            num_latest: longest.unwrap_or(1) - 1,
        }))
    }

    fn optional_start(&self) -> Option<TokenId> {
        self.grammar.as_ref()?.optional_start()
    }

    fn least_tokens(&self) -> usize {
        let grammar = self.grammar.as_ref();
        grammar.map_or(0, |grammar| grammar.least_tokens())
    }
}

#[derive(Debug)]
struct LimitedState {
    grammar: Option<Box<dyn ConstraintState>>,
    limits: Arc<TokenLimits>,
    vocab_size: usize,
    /// The latest tokens of the answer, as many as a forbidden sequence may have before its last.
    latest: VecDeque<TokenId>,
    num_latest: usize,
}

impl LimitedState {
    /// Whether the latest tokens end with `tokens`.
    fn ends_with(&self, tokens: &[TokenId]) -> bool {
        let first = self.latest.len().checked_sub(tokens.len());
        first.is_some_and(|first| self.latest.iter().skip(first).eq(tokens))
    }

    fn limit(&self, mask: Option<TokenMask>) -> Option<TokenMask> {
        let mut mask = mask.unwrap_or_else(|| TokenMask::all(self.vocab_size));
        if let Some(allowed) = &self.limits.allowed {
            for (word, allowed) in mask.words_mut().iter_mut().zip(allowed.words()) {
                *word &= allowed;
            }
        }
        for sequence in &self.limits.forbidden {
            if let Some((last, before)) = sequence.split_last()
                && self.ends_with(before)
            {
                mask.forbid(*last);
            }
        }
        Some(mask)
    }
}

impl ConstraintState for LimitedState {
    fn next_mask<'a>(
        &'a mut self,
        sampled: &'a [TokenId],
        num_left: usize,
        urgency: Urgency,
    ) -> NextMask<'a> {
        Box::pin(async move {
            self.latest.extend(sampled);
            while self.latest.len() > self.num_latest {
                self.latest.pop_front();
            }
            let mask = match &mut self.grammar {
                Some(grammar) => grammar.next_mask(sampled, num_left, urgency).await?,
                None => None,
            };
            Ok(self.limit(mask))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const VOCAB_SIZE: usize = 40;

    fn ids(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().map(|id| TokenId(*id)).collect()
    }

    fn forbidden(limits: &TokenLimits, answer: &[u32]) -> Vec<u32> {
        let constraint = with_limits(None, limits, VOCAB_SIZE).expect("there are limits");
        let mut state = constraint.start().expect("it begins");
        let mut mask = None;
        for tokens in std::iter::once(Vec::new()).chain(answer.iter().map(|id| ids(&[*id]))) {
            let next = state.next_mask(&tokens, 10, Urgency::Now).now_or_never();
            mask = next.expect("it waits for nothing").expect("it goes on");
        }
        let mask = mask.expect("a mask");
        let all = 0..VOCAB_SIZE as u32;
        all.filter(|id| !mask.contains(TokenId(*id))).collect()
    }

    #[test]
    fn a_forbidden_sequence_never_ends() {
        let limits = TokenLimits {
            allowed: None,
            forbidden: vec![ids(&[7]), ids(&[3, 4]), ids(&[3, 3, 5])],
        };
        for (answer, expected) in [
            (&[][..], &[7][..]),
            (&[3], &[4, 7]),
            (&[3, 3], &[4, 5, 7]),
            (&[3, 3, 3], &[4, 5, 7]),
            (&[3, 6], &[7]),
            (&[3, 6, 3], &[4, 7]),
        ] {
            assert_eq!(forbidden(&limits, answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn only_allowed_tokens_are_sampled() {
        let mut allowed = TokenMask::none(VOCAB_SIZE);
        for id in [1, 3, 7] {
            allowed.allow(TokenId(id));
        }
        let limits = TokenLimits {
            allowed: Some(allowed),
            forbidden: vec![ids(&[7])],
        };
        let expected: Vec<u32> = (0..40).filter(|id| ![1, 3].contains(id)).collect();
        assert_eq!(forbidden(&limits, &[3]), expected);
        let none = TokenLimits::default();
        assert!(with_limits(None, &none, VOCAB_SIZE).is_none());
    }
}
