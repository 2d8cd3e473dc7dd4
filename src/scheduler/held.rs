//! Sequences that sit out steps, because what their next token may be is not known yet.
//!
//! A held sequence keeps its blocks and its place. Nothing more of it is computed until it is
//! released, except after a preemption, when it is computed again like any other. A token that was
//! planned and not sampled after all is planned once more: its last position is computed again.

use super::Scheduler;
use crate::core::SeqId;

impl Scheduler {
    /// Leaves a sequence out of the steps to come. Nothing happens for one that is gone.
    pub fn hold(&mut self, id: SeqId) {
        if let Some(seq) = self.sequence_mut(id) {
            seq.is_held = true;
        }
    }

    /// Lets a sequence take part again.
    pub fn release(&mut self, id: SeqId) {
        if let Some(seq) = self.sequence_mut(id) {
            seq.is_held = false;
        }
    }

    /// The batch in flight samples nothing for this sequence, although it was planned to: its token
    /// is not looked for in [`update`](Self::update). Only for a sequence that is held, and that no
    /// later batch has a chunk of.
    pub fn skip_sample(&mut self, id: SeqId) {
        if let Some(seq) = self.sequence_mut(id) {
            assert!(seq.is_held, "{id} would be planned further");
            seq.is_sample_skipped = true;
        }
    }

    fn sequence_mut(&mut self, id: SeqId) -> Option<&mut super::Sequence> {
        let place = self.places.get(&id)?;
        match self.running_idx(place) {
            Some(idx) => Some(&mut self.running[idx]),
            None => self.line.get_mut(place),
        }
    }

    /// A chunk of a running sequence was computed and its token was not sampled: of its positions,
    /// the last ones are to be computed again.
    pub(super) fn retract(&mut self, idx: usize, num_tokens: usize) {
        let seq = &mut self.running[idx];
        let end = seq.num_computed_tokens() + num_tokens;
        let again = end - 1;
        // What must be computed in one step is computed again in one step.
        let again = seq.run_around(again).map_or(again, |run| run.start);
        let num_kept = again.saturating_sub(seq.num_computed_tokens());
        seq.unschedule(num_tokens - num_kept);
        self.advance(idx, num_kept);
        let seq = &mut self.running[idx];
        let num_computed_tokens = seq.num_computed_tokens();
        self.blocks.release_behind(&mut seq.kv, num_computed_tokens);
    }
}
