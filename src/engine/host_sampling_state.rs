//! Host-side state needed to sample a sequence's next token: token counts for penalties and the
//! grammar matcher.
//!
//! It belongs to the engine, not to the scheduler: the engine sees every token once and in order,
//! while the scheduler may compute a sequence several times. So a preemption changes nothing here.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::mask_workers::PendingMask;
use crate::backend::SeenTokens;
use crate::core::{
    Constraint, ConstraintState, GenerateRequest, SamplingParams, SeqId, TokenId, TokenMask,
    Urgency,
};
use crate::error::{Error, Result};

/// State of a sequence whose tokens the host must have seen before the next one can be sampled.
#[derive(Debug)]
pub(super) struct HostSamplingState {
    /// `None` without penalties.
    seen: Option<Arc<SeenTokens>>,
    /// `None` without a constraint.
    bound: Option<Bound>,
}

/// State of a sequence with a constraint.
#[derive(Debug)]
struct Bound {
    /// `None` while a mask is being computed.
    grammar_state: Option<GrammarState>,
    /// Tokens sampled since the last mask.
    unaccepted: Vec<TokenId>,
    /// A computed mask for the next token that is not used yet.
    ready: Option<Option<TokenMask>>,
    /// Handle of the mask being computed, if any.
    pending: Option<PendingMask>,
    /// Steps do not wait for its masks: the sequence is held until its mask is ready.
    is_slow: bool,
    start: Start,
}

/// How an answer begins whose constraint has an [optional start](Constraint::optional_start).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// It is sampled without a mask whether the answer begins with this token.
    Open(TokenId),
    /// It begins with this token, or with any other that the mask allows.
    Chosen(TokenId, bool),
    /// The answer has begun, or its constraint alone says how it may begin.
    Bound,
}

/// What a sample needs from a constraint.
#[derive(Debug)]
pub(super) enum MaskNeed {
    /// No mask: every token is allowed.
    Free,
    /// This mask; `None` also allows every token.
    Ready(Option<TokenMask>),
    /// A mask that must be computed from this state and the tokens sampled since the last one.
    Missing(GrammarState, Vec<TokenId>),
    /// A mask that is being computed.
    Pending,
}

impl HostSamplingState {
    /// Creates the state; `None` for a request whose samples depend on logits and positions alone.
    pub(super) fn of(request: &GenerateRequest) -> Option<Self> {
        let sampling = &request.sampling;
        let seen = sampling
            .has_penalties()
            .then(|| match sampling.repetition_penalty {
                // The other penalties count sampled tokens only.
                1.0 => SeenTokens::default(),
                _ => SeenTokens::of_prompt(&request.prompt),
            });
        let bound = request.constraint.as_ref().map(|rule| Bound {
            grammar_state: Some(GrammarState {
                rule: Arc::clone(rule),
                state: None,
            }),
            unaccepted: Vec::new(),
            ready: None,
            pending: None,
            is_slow: false,
            start: rule.optional_start().map_or(Start::Bound, Start::Open),
        });
        (seen.is_some() || bound.is_some()).then(|| Self {
            seen: seen.map(Arc::new),
            bound,
        })
    }

    /// Whether the next sample only chooses how the answer begins: it needs no mask, and its token
    /// is passed to [`choose_start`](Self::choose_start) instead of becoming part of the answer.
    pub(super) fn chooses_start(&self) -> bool {
        let bound = self.bound.as_ref();
        bound.is_some_and(|bound| matches!(bound.start, Start::Open(_)))
    }

    /// Records the token that was sampled without a mask.
    pub(super) fn choose_start(&mut self, sampled: TokenId) {
        if let Some(bound) = &mut self.bound
            && let Start::Open(token) = bound.start
        {
            bound.start = Start::Chosen(token, sampled == token);
        }
    }

    /// Returns the mask for the next sample, which begins the answer as it was chosen. The choice
    /// is kept until a token is recorded.
    pub(super) fn with_choice(
        &self,
        mask: Option<TokenMask>,
        vocab_size: usize,
    ) -> Option<TokenMask> {
        let start = self
            .bound
            .as_ref()
            .map_or(Start::Bound, |bound| bound.start);
        let Start::Chosen(token, is_chosen) = start else {
            return mask;
        };
        let mut mask = mask.unwrap_or_else(|| TokenMask::all(vocab_size));
        match is_chosen {
            // There may be no time left for it.
            true if mask.contains(token) => {
                mask = TokenMask::none(vocab_size);
                mask.allow(token);
            }
            true => {}
            false => mask.forbid(token),
        }
        Some(mask)
    }

    /// Records a sampled token.
    pub(super) fn add(&mut self, token: TokenId) {
        if let Some(seen) = &mut self.seen {
            Arc::make_mut(seen).add(token);
        }
        if let Some(bound) = &mut self.bound {
            bound.unaccepted.push(token);
            bound.start = Start::Bound;
        }
    }

    pub(super) fn seen(&self) -> Option<Arc<SeenTokens>> {
        self.seen.clone()
    }

    /// Returns what the next sample needs; a returned mask or state is not returned again.
    pub(super) fn need_mask(&mut self) -> MaskNeed {
        let Some(bound) = &mut self.bound else {
            return MaskNeed::Free;
        };
        if let Some(mask) = bound.ready.take() {
            return MaskNeed::Ready(mask);
        }
        match bound.grammar_state.take() {
            Some(grammar_state) => {
                MaskNeed::Missing(grammar_state, std::mem::take(&mut bound.unaccepted))
            }
            None => MaskNeed::Pending,
        }
    }

    /// Keeps a mask that no sample waits for any more; the next sample will use it.
    pub(super) fn keep(&mut self, mask: Option<TokenMask>) {
        if let Some(bound) = &mut self.bound {
            bound.ready = Some(mask);
        }
    }

    /// Records that a mask is being computed from the state that was handed out.
    pub(super) fn set_pending(&mut self, pending: PendingMask) {
        if let Some(bound) = &mut self.bound {
            bound.pending = Some(pending);
        }
    }

    /// Puts back the grammar state after its mask was computed.
    pub(super) fn give_back(&mut self, grammar_state: GrammarState) {
        if let Some(bound) = &mut self.bound {
            bound.grammar_state = Some(grammar_state);
            bound.pending = None;
        }
    }

    /// Whether steps run without waiting for the masks of this sequence.
    pub(super) fn is_slow(&self) -> bool {
        self.bound.as_ref().is_some_and(|bound| bound.is_slow)
    }

    pub(super) fn set_slow(&mut self, is_slow: bool) {
        if let Some(bound) = &mut self.bound {
            bound.is_slow = is_slow;
        }
    }
}

/// State of an answer in its grammar.
#[derive(Debug)]
pub(super) struct GrammarState {
    rule: Arc<dyn Constraint>,
    /// `None` before the first token.
    state: Option<Box<dyn ConstraintState>>,
}

/// Request to compute a mask that a sample needs.
#[derive(Debug)]
pub(super) struct BitmaskJob {
    pub(super) id: SeqId,
    pub(super) grammar_state: GrammarState,
    /// Tokens sampled since the last mask.
    pub(super) sampled: Vec<TokenId>,
    pub(super) urgency: Urgency,
    pub(super) params: Arc<SamplingParams>,
    /// Number of tokens of the answer so far.
    pub(super) num_generated: usize,
    /// Vocabulary size of the model.
    pub(super) vocab_size: usize,
}

/// A computed mask.
#[derive(Debug)]
pub(super) struct Bitmask {
    pub(super) id: SeqId,
    /// `None` after a failure.
    pub(super) grammar_state: Option<GrammarState>,
    /// `None` where every token is allowed; an error ends the request.
    pub(super) mask: Result<Option<TokenMask>>,
    /// Time from start to end of the computation.
    pub(super) took: Duration,
}

impl BitmaskJob {
    /// Advances the grammar by the sampled tokens and computes the mask. A constraint that panics
    /// fails only its own request.
    pub(super) async fn run(mut self) -> Bitmask {
        let begun = Instant::now();
        let mask = AssertUnwindSafe(self.mask()).catch_unwind().await;
        let mask = mask.unwrap_or_else(|_| {
            tracing::error!(id = %self.id, "a constraint panicked");
            Err(self.failed("its rule failed".to_owned()))
        });
        Bitmask {
            id: self.id,
            grammar_state: mask.is_ok().then_some(self.grammar_state),
            mask,
            took: begun.elapsed(),
        }
    }

    async fn mask(&mut self) -> Result<Option<TokenMask>> {
        let GrammarState { rule, state } = &mut self.grammar_state;
        let state = match state {
            Some(state) => state,
            None => state.insert(rule.start()?),
        };
        let num_left = self.params.max_tokens.saturating_sub(self.num_generated);
        let mask = state.next_mask(&self.sampled, num_left, self.urgency);
        let Some(mask) = mask.await? else {
            return Ok(None);
        };
        let mut mask = mask.resized(self.vocab_size);
        if mask.is_empty() {
            return Err(self.failed("its rule allows no further token".to_owned()));
        }
        let min_tokens = self.params.min_tokens;
        if self.num_generated < min_tokens {
            for token in &self.params.stop_token_ids {
                mask.forbid(*token);
            }
            if mask.is_empty() {
                return Err(self.failed(format!(
                    "its rule allows nothing but its end, and min_tokens is {min_tokens}"
                )));
            }
        }
        Ok(Some(mask))
    }

    fn failed(&self, reason: String) -> Error {
        Error::Constraint {
            num_tokens: self.num_generated,
            reason,
        }
    }
}
