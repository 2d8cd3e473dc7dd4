//! Requests in flight: the stream, deadline, prompt scores and host-side sampling state of each
//! sequence.
//!
//! Owns the sending ends of the streams. Knows nothing of blocks or steps.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::host_sampling_state::HostSamplingState;
use super::token_stream::EventSender;
use crate::backend::Sampled;
use crate::core::{FinishReason, GenerateRequest, SeqId, TokenEvent, TokenLogprobs};
use crate::error::Error;

/// One entry per sequence that the scheduler has.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: HashMap<SeqId, InFlight>,
    deadlines: Deadlines,
    /// Number of requests with host-side sampling state.
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
    num_preemptions: usize,
    late: Option<HostSamplingState>,
    /// Scores collected so far; `None` once they are sent.
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
            num_preemptions: 0,
            late: HostSamplingState::of(request),
            prompt_scores: request
                .prompt_logprobs
                .map(|_| PromptScores::new(prompt_len)),
        }
    }

    /// Refuses a request that never began.
    pub(super) fn refuse(self, error: Error) {
        self.events.send(Err(error));
    }
}

/// Facts about a request's first step.
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

    /// Whether one of these sequences must have its tokens seen by the host before it can be
    /// sampled.
    pub(super) fn is_any_late(&self, mut ids: impl Iterator<Item = SeqId>) -> bool {
        let is_late = |id| self.open.get(&id).is_some_and(|open| open.late.is_some());
        self.num_late > 0 && ids.any(is_late)
    }

    /// Returns the host-side sampling state of a request, if it has one and has not ended.
    pub(super) fn late_mut(&mut self, id: SeqId) -> Option<&mut HostSamplingState> {
        self.open.get_mut(&id)?.late.as_mut()
    }

    /// Whether steps run without waiting for the masks of this sequence.
    pub(super) fn is_slow(&self, id: SeqId) -> bool {
        let late = || self.open.get(&id)?.late.as_ref();
        self.num_late > 0 && late().is_some_and(HostSamplingState::is_slow)
    }

    /// Stores scores of the prompt's tokens from `position` on.
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

    /// Returns the requests that no step has begun.
    pub(super) fn waiting(&self) -> Vec<SeqId> {
        let waiting = self.open.iter().filter(|(_, open)| open.begun.is_none());
        waiting.map(|(id, _)| *id).collect()
    }

    /// Records that a step computes something of the request. Only the first call has an effect.
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

    /// Records that the request has lost its blocks to another.
    pub(super) fn preempted(&mut self, id: SeqId) {
        if let Some(open) = self.open.get_mut(&id) {
            open.num_preemptions += 1;
        }
    }

    /// Sends a token. The last token ends the request, and the number of its tokens is returned.
    /// Does nothing if the request has ended.
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
            num_preemptions: open.num_preemptions,
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

    /// Removes a request that has no reader any more.
    pub(super) fn forget(&mut self, id: SeqId) {
        self.remove(id);
    }

    /// Ends a request whose deadline is at or before `now`, if there is one.
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

/// Log-probabilities of a prompt's tokens from the second on, collected over several steps; the
/// first token has none.
#[derive(Debug)]
pub(super) struct PromptScores(Vec<Option<TokenLogprobs>>);

impl PromptScores {
    pub(super) fn new(prompt_len: usize) -> Self {
        Self(vec![None; prompt_len - 1])
    }

    /// Stores the scores from `position` on. After a preemption, the same scores are computed
    /// again.
    pub(super) fn put(&mut self, position: usize, scores: impl Iterator<Item = TokenLogprobs>) {
        for (place, score) in self.0[position - 1..].iter_mut().zip(scores) {
            *place = Some(score);
        }
    }

    /// Returns all scores.
    ///
    /// # Panics
    /// Panics when one is missing: with the first token, all of the prompt has been computed.
    pub(super) fn finish(self) -> Arc<[TokenLogprobs]> {
        self.0
            .into_iter()
            .map(|score| score.expect("all of the prompt has been computed"))
            .collect()
    }
}

/// Set of deadlines, at most one per sequence.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Instant, SeqId)>);

impl Deadlines {
    pub(super) fn add(&mut self, at: Instant, id: SeqId) {
        self.0.insert((at, id));
    }

    /// Removes the deadline of a sequence that has ended before it.
    pub(super) fn remove(&mut self, at: Instant, id: SeqId) {
        self.0.remove(&(at, id));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|&(at, _)| at)
    }

    /// Removes and returns a sequence whose deadline is at or before `now`, the most overdue first.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<SeqId> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, id)| id)
    }
}
