//! Rules for reasoning: where it may begin, when it must end, and that a grammar applies only after
//! it.

use std::sync::Arc;

use crate::core::{Constraint, ConstraintState, NextMask, TokenId, TokenMask, Urgency};
use crate::error::{Error, Result};
use crate::text::ReasoningMarkers;

/// Whether an answer may begin with reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasoningRule {
    /// It may not.
    Banned,
    /// It may, with at most `budget` tokens, the end marker not counted. With a budget, no second
    /// reasoning may begin.
    Allowed {
        /// `None` means no limit.
        budget: Option<usize>,
    },
}

/// Returns a constraint that applies `rule` to the reasoning and `grammar` to the answer after it.
/// `None` if neither restricts anything. With a grammar, an answer must not end inside its
/// reasoning, so none of `stop_ids` may be sampled there.
pub fn with_reasoning(
    grammar: Option<Arc<dyn Constraint>>,
    rule: ReasoningRule,
    markers: ReasoningMarkers,
    vocabulary: (usize, &[TokenId]),
) -> Option<Arc<dyn Constraint>> {
    if grammar.is_none() && rule == (ReasoningRule::Allowed { budget: None }) {
        return None;
    }
    let (vocab_size, stop_ids) = vocabulary;
    Some(Arc::new(ReasoningFirst {
        grammar,
        rule,
        markers,
        vocab_size,
        stop_ids: stop_ids.into(),
    }))
}

#[derive(Clone, Debug)]
struct ReasoningFirst {
    grammar: Option<Arc<dyn Constraint>>,
    rule: ReasoningRule,
    markers: ReasoningMarkers,
    vocab_size: usize,
    stop_ids: Arc<[TokenId]>,
}

impl Constraint for ReasoningFirst {
    fn optional_start(&self) -> Option<TokenId> {
        let is_allowed = matches!(self.rule, ReasoningRule::Allowed { .. });
        (is_allowed && self.grammar.is_some()).then_some(self.markers.open)
    }

    fn start(&self) -> Result<Box<dyn ConstraintState>> {
        let answer = self.grammar.as_ref().map(|grammar| grammar.start());
        Ok(Box::new(ReasoningState {
            rules: self.clone(),
            answer: answer.transpose()?,
            unseen: Vec::new(),
            stage: Stage::Start,
        }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first token.
    Start,
    /// In the reasoning, with the number of its tokens so far.
    Reasoning(usize),
    /// After the reasoning, or without it.
    Answer,
}

#[derive(Debug)]
struct ReasoningState {
    rules: ReasoningFirst,
    answer: Option<Box<dyn ConstraintState>>,
    /// Tokens of the answer that its own constraint has not received yet.
    unseen: Vec<TokenId>,
    stage: Stage,
}

impl ReasoningState {
    async fn mask(&mut self, num_left: usize, urgency: Urgency) -> Result<Option<TokenMask>> {
        let ReasoningMarkers { open, close } = self.rules.markers;
        let vocab_size = self.rules.vocab_size;
        let grammar = self.rules.grammar.as_ref();
        // After this token there must be enough left for the end of the reasoning, the answer and
        // its stop token.
        let has_time = grammar.is_none_or(|grammar| num_left > grammar.least_tokens() + 2);
        match (self.stage, self.rules.rule) {
            // A second reasoning would not be subject to the budget.
            (_, ReasoningRule::Banned)
            | (Stage::Answer, ReasoningRule::Allowed { budget: Some(_) }) => {
                let mask = self.answer_mask(num_left, urgency).await?;
                let mut mask = mask.unwrap_or_else(|| TokenMask::all(vocab_size));
                mask.forbid(open);
                Ok(Some(mask))
            }
            (Stage::Start, ReasoningRule::Allowed { .. }) => {
                let mut mask = self.answer_mask(num_left, urgency).await?;
                if let Some(mask) = &mut mask
                    && has_time
                {
                    mask.allow(open);
                }
                Ok(mask)
            }
            (Stage::Reasoning(num_tokens), ReasoningRule::Allowed { budget })
                if !has_time || budget.is_some_and(|budget| num_tokens >= budget) =>
            {
                let mut mask = TokenMask::none(vocab_size);
                mask.allow(close);
                Ok(Some(mask))
            }
            (Stage::Reasoning(_), ReasoningRule::Allowed { .. }) if self.answer.is_some() => {
                let mut mask = TokenMask::all(vocab_size);
                for stop_id in &*self.rules.stop_ids {
                    mask.forbid(*stop_id);
                }
                Ok(Some(mask))
            }
            (Stage::Reasoning(_), ReasoningRule::Allowed { .. }) => Ok(None),
            (Stage::Answer, ReasoningRule::Allowed { budget: None }) => {
                self.answer_mask(num_left, urgency).await
            }
        }
    }

    async fn answer_mask(
        &mut self,
        num_left: usize,
        urgency: Urgency,
    ) -> Result<Option<TokenMask>> {
        match &mut self.answer {
            Some(answer) => {
                let sampled = std::mem::take(&mut self.unseen);
                answer.next_mask(&sampled, num_left, urgency).await
            }
            None => Ok(None),
        }
    }

    fn accept(&mut self, token: TokenId) -> Result<()> {
        let ReasoningMarkers { open, close } = self.rules.markers;
        match (self.stage, self.rules.rule) {
            (_, ReasoningRule::Banned) if token == open => {
                return Err(Error::Constraint {
                    num_tokens: 0,
                    reason: "reasoning began where none may".to_owned(),
                });
            }
            (Stage::Start, ReasoningRule::Allowed { .. }) if token == open => {
                self.stage = Stage::Reasoning(0);
            }
            (Stage::Reasoning(_), _) if token == close => self.stage = Stage::Answer,
            (Stage::Reasoning(num_tokens), _) => self.stage = Stage::Reasoning(num_tokens + 1),
            (Stage::Start | Stage::Answer, _) => {
                self.stage = Stage::Answer;
                if self.answer.is_some() {
                    self.unseen.push(token);
                }
            }
        }
        Ok(())
    }
}

impl ConstraintState for ReasoningState {
    fn next_mask<'a>(
        &'a mut self,
        sampled: &'a [TokenId],
        num_left: usize,
        urgency: Urgency,
    ) -> NextMask<'a> {
        Box::pin(async move {
            for token in sampled {
                self.accept(*token)?;
            }
            self.mask(num_left, urgency).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures_util::FutureExt;

    use super::*;

    const MARKERS: ReasoningMarkers = ReasoningMarkers {
        open: TokenId(10),
        close: TokenId(11),
    };
    const STOP: TokenId = TokenId(1);
    const ONLY: TokenId = TokenId(5);
    const VOCAB_SIZE: usize = 40;

    /// Accepts the same token again and again.
    #[derive(Debug)]
    struct Stubborn;

    impl Constraint for Stubborn {
        fn start(&self) -> Result<Box<dyn ConstraintState>> {
            Ok(Box::new(Self))
        }

        fn least_tokens(&self) -> usize {
            3
        }
    }

    impl ConstraintState for Stubborn {
        fn next_mask<'a>(
            &'a mut self,
            sampled: &'a [TokenId],
            _: usize,
            _: Urgency,
        ) -> NextMask<'a> {
            let only = sampled.iter().all(|token| *token == ONLY);
            assert!(only, "a token that is no part of the answer");
            let mut mask = TokenMask::none(VOCAB_SIZE);
            mask.allow(ONLY);
            Box::pin(ready(Ok(Some(mask))))
        }
    }

    /// An answer, and its tokens since the last mask.
    struct Way(Box<dyn ConstraintState>, Vec<TokenId>);

    fn start(grammar: Option<Stubborn>, rule: ReasoningRule) -> Way {
        let grammar = grammar.map(|grammar| Arc::new(grammar) as Arc<dyn Constraint>);
        let constraint = with_reasoning(grammar, rule, MARKERS, (VOCAB_SIZE, &[STOP]));
        let constraint = constraint.expect("there is something to keep to");
        Way(constraint.start().expect("it begins"), Vec::new())
    }

    impl Way {
        fn next(&mut self, num_left: usize) -> Result<Option<TokenMask>> {
            let sampled = std::mem::take(&mut self.1);
            let mask = self.0.next_mask(&sampled, num_left, Urgency::Now);
            mask.now_or_never().expect("it waits for nothing")
        }

        /// Returns the tokens that may follow; `None` if all may.
        fn allowed(&mut self) -> Option<Vec<u32>> {
            self.allowed_of(1000)
        }

        /// Returns the tokens that may follow as the first of `num_left`; `None` if all may.
        fn allowed_of(&mut self, num_left: usize) -> Option<Vec<u32>> {
            let mask = self.next(num_left).expect("it goes on")?;
            let tokens = (0..VOCAB_SIZE as u32).filter(|token| mask.contains(TokenId(*token)));
            Some(tokens.collect())
        }

        fn push(&mut self, token: TokenId) {
            self.1.push(token);
        }
    }

    fn all_but(token: TokenId) -> Option<Vec<u32>> {
        Some((0..VOCAB_SIZE as u32).filter(|id| *id != token.0).collect())
    }

    #[test]
    fn a_free_reasoning_and_no_grammar_are_no_constraint() {
        let rule = ReasoningRule::Allowed { budget: None };
        assert!(with_reasoning(None, rule, MARKERS, (VOCAB_SIZE, &[STOP])).is_none());
    }

    #[test]
    fn a_reasoning_that_is_banned_never_begins() {
        let mut state = start(None, ReasoningRule::Banned);
        for _ in 0..3 {
            assert_eq!(state.allowed(), all_but(MARKERS.open));
            state.push(TokenId(7));
        }
        state.push(MARKERS.open);
        assert!(state.next(1000).is_err());
        let mut state = start(Some(Stubborn), ReasoningRule::Banned);
        assert_eq!(state.allowed(), Some(vec![ONLY.0]));
    }

    #[test]
    fn the_model_itself_chooses_whether_to_think_before_a_bound_answer() {
        let optional_start = |grammar: Option<Stubborn>, rule| {
            let grammar = grammar.map(|grammar| Arc::new(grammar) as Arc<dyn Constraint>);
            let constraint = with_reasoning(grammar, rule, MARKERS, (VOCAB_SIZE, &[STOP]));
            constraint.expect("there is a rule").optional_start()
        };
        let budget = Some(3);
        for allowed in [None, budget].map(|budget| ReasoningRule::Allowed { budget }) {
            assert_eq!(optional_start(Some(Stubborn), allowed), Some(MARKERS.open));
        }
        assert_eq!(optional_start(Some(Stubborn), ReasoningRule::Banned), None);
        // Without a grammar every token may be sampled anyway.
        assert_eq!(
            optional_start(None, ReasoningRule::Allowed { budget }),
            None
        );
    }

    #[test]
    fn a_budget_ends_the_reasoning_and_no_other_begins() {
        let rule = ReasoningRule::Allowed { budget: Some(2) };
        let mut state = start(None, rule);
        assert_eq!(state.allowed(), None);
        for token in [MARKERS.open, TokenId(7), TokenId(8)] {
            assert_eq!(state.allowed(), None);
            state.push(token);
        }
        assert_eq!(state.allowed(), Some(vec![MARKERS.close.0]));
        state.push(MARKERS.close);
        assert_eq!(state.allowed(), all_but(MARKERS.open));
    }

    #[test]
    fn a_reasoning_leaves_the_answer_its_tokens() {
        let rule = ReasoningRule::Allowed { budget: None };
        let mut state = start(Some(Stubborn), rule);
        // The end of the reasoning, three tokens and the stop token.
        assert_eq!(state.allowed_of(5), Some(vec![ONLY.0]));
        assert_eq!(state.allowed_of(6), Some(vec![ONLY.0, MARKERS.open.0]));
        state.push(MARKERS.open);
        assert_eq!(state.allowed_of(6), all_but(STOP));
        state.push(TokenId(7));
        assert_eq!(state.allowed_of(5), Some(vec![MARKERS.close.0]));
    }

    #[test]
    fn a_grammar_begins_behind_the_reasoning_or_at_once() {
        let rule = ReasoningRule::Allowed { budget: None };
        let mut state = start(Some(Stubborn), rule);
        assert_eq!(state.allowed(), Some(vec![ONLY.0, MARKERS.open.0]));
        state.push(MARKERS.open);
        for token in [TokenId(7), ONLY, MARKERS.open] {
            assert_eq!(state.allowed(), all_but(STOP), "no end without an answer");
            state.push(token);
        }
        state.push(MARKERS.close);
        for _ in 0..2 {
            assert_eq!(state.allowed(), Some(vec![ONLY.0]));
            state.push(ONLY);
        }
        let mut state = start(Some(Stubborn), rule);
        state.push(ONLY);
        assert_eq!(
            state.allowed(),
            Some(vec![ONLY.0]),
            "too late for reasoning"
        );
    }
}
