//! What the next draw of a sequence needs of the tokens before it.
//!
//! The engine keeps it, not the scheduler: it sees every token once and in order, while a
//! sequence may be computed several times. So a preemption changes nothing here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::backend::SeenTokens;
use crate::core::{
    Constraint, ConstraintState, GenerateRequest, SamplingParams, SeqId, TokenId, TokenMask,
};
use crate::error::{Error, Result};

/// A sequence whose tokens the host must have seen before the next one can be drawn.
#[derive(Debug)]
pub(super) struct LateRow {
    /// `None` without penalties.
    seen: Option<Arc<SeenTokens>>,
    /// `None` without a constraint, and while a worker has it.
    way: Option<Way>,
}

impl LateRow {
    /// `None` for a request whose draws depend on logits and positions alone.
    pub(super) fn of(request: &GenerateRequest) -> Option<Self> {
        let sampling = &request.sampling;
        let seen = sampling
            .has_penalties()
            .then(|| match sampling.repetition_penalty {
                // The other penalties are for what was drawn only.
                1.0 => SeenTokens::default(),
                _ => SeenTokens::of_prompt(&request.prompt),
            });
        let way = request.constraint.as_ref().map(|rule| Way {
            rule: Arc::clone(rule),
            state: None,
            unaccepted: Vec::new(),
        });
        (seen.is_some() || way.is_some()).then(|| Self {
            seen: seen.map(Arc::new),
            way,
        })
    }

    /// A token came in.
    pub(super) fn add(&mut self, token: TokenId) {
        if let Some(seen) = &mut self.seen {
            Arc::make_mut(seen).add(token);
        }
        if let Some(way) = &mut self.way {
            way.unaccepted.push(token);
        }
    }

    pub(super) fn seen(&self) -> Option<Arc<SeenTokens>> {
        self.seen.clone()
    }

    /// For a worker, who gives it back before the next token comes in.
    pub(super) fn take_way(&mut self) -> Option<Way> {
        self.way.take()
    }

    pub(super) fn give_back(&mut self, way: Way) {
        self.way = Some(way);
    }
}

/// An answer's way through its constraint. Its rules are followed by workers only.
#[derive(Debug)]
pub(super) struct Way {
    rule: Arc<dyn Constraint>,
    /// `None` before the first token.
    state: Option<Box<dyn ConstraintState>>,
    /// Drawn since the last mask.
    unaccepted: Vec<TokenId>,
}

/// A mask that a draw needs.
#[derive(Debug)]
pub(super) struct MaskJob {
    pub(super) id: SeqId,
    /// Which of the step's draws.
    pub(super) draw: usize,
    pub(super) way: Way,
    pub(super) params: Arc<SamplingParams>,
    /// Tokens of the answer so far.
    pub(super) num_generated: usize,
    /// The model's.
    pub(super) vocab_size: usize,
}

/// A mask that was made.
#[derive(Debug)]
pub(super) struct MadeMask {
    pub(super) id: SeqId,
    pub(super) draw: usize,
    /// `None` after a failure.
    pub(super) way: Option<Way>,
    /// `None` where everything is allowed; an error ends the request.
    pub(super) mask: Result<Option<TokenMask>>,
}

impl MaskJob {
    /// Follows the rules as far as the answer has come. A rule that panics fails its own request.
    pub(super) fn run(mut self) -> MadeMask {
        let mask = catch_unwind(AssertUnwindSafe(|| self.mask())).unwrap_or_else(|_| {
            tracing::error!(id = %self.id, "a constraint panicked");
            Err(self.failed("its rule failed".to_owned()))
        });
        MadeMask {
            id: self.id,
            draw: self.draw,
            way: mask.is_ok().then_some(self.way),
            mask,
        }
    }

    fn mask(&mut self) -> Result<Option<TokenMask>> {
        let Way {
            rule,
            state,
            unaccepted,
        } = &mut self.way;
        let state = match state {
            Some(state) => state,
            None => state.insert(rule.start()?),
        };
        for token in unaccepted.drain(..) {
            state.accept(token)?;
        }
        let Some(mask) = state.mask()? else {
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
