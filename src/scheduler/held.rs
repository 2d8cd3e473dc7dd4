//! Held sequences: they are left out of steps until their next token's constraint is known.
//!
//! A held sequence keeps its blocks and its rank. Nothing of it is computed until it is released,
//! except after a preemption, when it is computed again like any other. If its token was planned
//! and then not sampled, it is planned again: its last position is computed again.

use super::Scheduler;
use crate::core::SeqId;

impl Scheduler {
    /// Leaves a sequence out of the next steps. Does nothing if the sequence is gone.
    pub fn hold(&mut self, id: SeqId) {
        if let Some(seq) = self.sequence_mut(id) {
            seq.is_held = true;
        }
    }

    /// Includes a held sequence in steps again; if its sample was skipped, once that step is applied.
    pub fn release(&mut self, id: SeqId) {
        if let Some(seq) = self.sequence_mut(id) {
            seq.is_held = false;
        }
    }

    /// Tells the scheduler that the batch in flight does not sample the planned token of this
    /// sequence; [`update`](Self::update) then expects no token of it. The sequence must be held,
    /// and no later batch may have a chunk of it.
    pub fn skip_sample(&mut self, id: SeqId) {
        if let Some(seq) = self.sequence_mut(id) {
            assert!(seq.is_held, "{id} would be planned further");
            seq.is_sample_skipped = true;
        }
    }

    pub(super) fn sequence_mut(&mut self, id: SeqId) -> Option<&mut super::Sequence> {
        let place = self.places.get(&id)?;
        match self.running_idx(place) {
            Some(idx) => Some(&mut self.running[idx]),
            None => self.waiting.get_mut(place),
        }
    }
}
