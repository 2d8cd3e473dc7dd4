//! Deadlines of requests, the next one first.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::core::SeqId;

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
