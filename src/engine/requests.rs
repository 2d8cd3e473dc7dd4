//! Who waits for tokens: one open stream per sequence, when each must have ended, and what its next
//! sample needs.
//!
//! Owns the streams' ends and what is told on them. Knows nothing of blocks or steps.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::deadlines::Deadlines;
use super::host_sampling_state::HostSamplingState;
use super::prompt_scores::PromptScores;
use super::token_stream::EventSender;
use crate::backend::Sampled;
use crate::core::{FinishReason, GenerateRequest, SeqId, TokenEvent};
use crate::error::Error;

/// One entry per sequence that the scheduler has.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: HashMap<SeqId, InFlight>,
    deadlines: Deadlines,
    /// Those with a late row.
    num_late: usize,
}

/// A request that has not ended.
#[derive(Debug)]
pub(super) struct InFlight {
    events: EventSender,
    accepted: Instant,
    deadline: Option<Instant>,
    begun: Option<Begun>,
    num_tokens: usize,
    late: Option<HostSamplingState>,
    /// Until they are told.
    prompt_scores: Option<PromptScores>,
}

impl InFlight {
    pub(super) fn new(request: &GenerateRequest, events: EventSender, accepted: Instant) -> Self {
        let prompt_len = request.prompt.len();
        Self {
            events,
            accepted,
            deadline: request.scheduling.deadline.map(Instant::from_std),
            begun: None,
            num_tokens: 0,
            late: HostSamplingState::of(request),
            prompt_scores: request
                .prompt_logprobs
                .map(|_| PromptScores::new(prompt_len)),
        }
    }

    /// It never began.
    pub(super) fn refuse(self, error: Error) {
        self.events.send(Err(error));
    }
}

/// A request of which a step has computed something.
#[derive(Clone, Copy, Debug)]
struct Begun {
    queued: Duration,
    num_cached_tokens: usize,
}

impl Requests {
    pub(super) fn add(&mut self, id: SeqId, open: InFlight) {
        if let Some(at) = open.deadline {
            self.deadlines.add(at, id);
        }
        self.num_late += usize::from(open.late.is_some());
        self.open.insert(id, open);
    }

    /// Whether one of these must have its tokens seen before it can be sampled for.
    pub(super) fn is_any_late(&self, mut ids: impl Iterator<Item = SeqId>) -> bool {
        let is_late = |id| self.open.get(&id).is_some_and(|open| open.late.is_some());
        self.num_late > 0 && ids.any(is_late)
    }

    /// What the next sample of a request needs, if it needs anything and has not ended.
    pub(super) fn late_mut(&mut self, id: SeqId) -> Option<&mut HostSamplingState> {
        self.open.get_mut(&id)?.late.as_mut()
    }

    /// Whether steps go on without waiting for its masks.
    pub(super) fn is_slow(&self, id: SeqId) -> bool {
        let late = || self.open.get(&id)?.late.as_ref();
        self.num_late > 0 && late().is_some_and(HostSamplingState::is_slow)
    }

    /// Tokens of its prompt have been scored, from `position` on.
    pub(super) fn scored(&mut self, id: SeqId, position: usize, scores: Vec<Sampled>) {
        if let Some(open) = self.open.get_mut(&id)
            && let Some(prompt) = &mut open.prompt_scores
        {
            let scores = scores.into_iter().filter_map(|score| score.logprobs);
            prompt.put(position, scores);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn ids(&self) -> Vec<SeqId> {
        self.open.keys().copied().collect()
    }

    /// Those of which no step has computed anything.
    pub(super) fn waiting(&self) -> Vec<SeqId> {
        let waiting = self.open.iter().filter(|(_, open)| open.begun.is_none());
        waiting.map(|(id, _)| *id).collect()
    }

    /// A step computes something of it. Only the first time counts.
    pub(super) fn begin(&mut self, id: SeqId, now: Instant, num_cached_tokens: usize) {
        if let Some(open) = self.open.get_mut(&id)
            && open.begun.is_none()
        {
            open.events.begin();
            open.begun = Some(Begun {
                queued: now - open.accepted,
                num_cached_tokens,
            });
        }
    }

    /// Sends a token. With the last one the request ends, and the number of its tokens is returned.
    /// Nothing happens for a request that has ended before.
    pub(super) fn token(
        &mut self,
        id: SeqId,
        sampled: Sampled,
        finish: Option<FinishReason>,
    ) -> Option<usize> {
        let open = self.open.get_mut(&id)?;
        let begun = open.begun.expect("what has a token was begun by a step");
        open.num_tokens += 1;
        if let Some(late) = &mut open.late {
            late.add(sampled.token);
        }
        open.events.send(Ok(TokenEvent {
            token: sampled.token,
            logprobs: sampled.logprobs,
            prompt_logprobs: open.prompt_scores.take().map(PromptScores::finish),
            finish,
            num_cached_tokens: begun.num_cached_tokens,
            queued: begun.queued,
        }));
        finish?;
        self.remove(id).map(|open| open.num_tokens)
    }

    /// Ends a request with an error, if it has not ended.
    pub(super) fn fail(&mut self, id: SeqId, error: Error) {
        if let Some(open) = self.remove(id) {
            open.events.send(Err(error));
        }
    }

    /// Nobody reads it any more.
    pub(super) fn forget(&mut self, id: SeqId) {
        self.remove(id);
    }

    /// Ends a request whose time is up by `now`, if there is one.
    pub(super) fn give_up_overdue(&mut self, now: Instant) -> Option<SeqId> {
        let id = self.deadlines.pop_due(now)?;
        let open = self.remove(id);
        let open = open.expect("a deadline goes with its request");
        let after = now - open.accepted;
        open.events.send(Err(Error::DeadlineExceeded {
            after_ms: u64::try_from(after.as_millis()).expect("processes live shorter"),
        }));
        Some(id)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    fn remove(&mut self, id: SeqId) -> Option<InFlight> {
        let open = self.open.remove(&id)?;
        if let Some(at) = open.deadline {
            self.deadlines.remove(at, id);
        }
        self.num_late -= usize::from(open.late.is_some());
        Some(open)
    }
}
