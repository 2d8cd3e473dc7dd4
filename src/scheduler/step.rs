//! Plans a step: which tokens of the running sequences are computed.

use super::admission::Admits;
use super::block_manager::BlockManager;
use super::{Batch, Scheduler, Sequence};
use crate::core::SeqId;

/// State of a step while it is planned: the budget left and the preempted sequences.
pub(super) struct Step {
    pub(super) budget: usize,
    pub(super) preempted: Vec<SeqId>,
}

impl Scheduler {
    /// Plans the next step; empty when there is no work that is independent of the batch in flight.
    /// An empty batch need not be executed or passed to [`update`](Self::update).
    ///
    /// Order, as far as the token budget goes:
    /// 1. an image that did not fit beside the decodes of the last step;
    /// 2. decodes: running sequences that miss one token;
    /// 3. the missing tokens of the other running sequences, by rank, but each other tenant's part
    ///    comes first if the best-ranked one would take the whole budget (`shares`), and
    /// 4. waiting sequences of a better priority, and then the other waiting ones, as slots and
    ///    blocks allow;
    /// 5. drafts, by rank, if there are free blocks for them.
    ///
    /// So neither side starves: decodes come before prefill, and there are never more of them than
    /// the budget has tokens; an image that needs their tokens takes them every other step.
    ///
    /// When blocks run out, a running sequence of a worse rank is preempted: the worst one or, if
    /// several tenants run, the worst one of the tenant that holds most (`shares`). A sequence that
    /// finds none to preempt keeps its blocks and skips the step, which costs less than starting
    /// over.
    ///
    /// The previous batch must have been launched, which means that its inputs are built. It may
    /// still be in flight, but not two batches.
    ///
    /// # Panics
    /// Panics when two batches have not been [`update`](Self::update)d.
    pub fn schedule(&mut self) -> Batch {
        assert!(
            self.in_flight.len() <= 1,
            "one of the {} batches in flight is updated before the next is scheduled",
            self.in_flight.len()
        );
        let mut step = Step {
            budget: self.config.max_num_batched_tokens,
            preempted: Vec::new(),
        };
        loop {
            let num_preempted = step.preempted.len();
            self.plan(&mut step);
            // All that was planned may have been preempted again, and the sequence it was done for
            // may still not fit. The freed budget may be what an image lacked; without another pass
            // the batch would be empty and the image would wait forever.
            let is_empty = step.budget == self.config.max_num_batched_tokens;
            if !is_empty || step.preempted.len() == num_preempted {
                break;
            }
        }

        let mut chunks = Vec::with_capacity(self.running.len());
        let mut flights = Vec::with_capacity(self.running.len());
        let mut num_sampled_tokens = 0;
        for seq in self.running.iter_mut() {
            if seq.num_planned_tokens > 0 {
                add_drafts(&mut self.blocks, seq, &mut step);
                let chunk = seq.launch(num_sampled_tokens);
                num_sampled_tokens += chunk.num_samples;
                flights.push((seq.id, seq.rank()));
                chunks.push(chunk);
            }
        }
        if !chunks.is_empty() {
            self.in_flight.push_back(flights);
        }
        self.counters.num_preemptions += step.preempted.len() as u64;
        Batch {
            chunks,
            preempted: step.preempted,
        }
    }

    fn plan(&mut self, step: &mut Step) {
        self.schedule_overdue(step);
        self.schedule_decodes(step);
        self.schedule_other_tenants(step);
        self.schedule_prefills(step);
        self.admit_waiting(Admits::All, step);
    }

    /// Schedules the overdue image. Two steps in a row never leave out a decode: an image is only
    /// found not to fit where budget is left, so after all decodes.
    fn schedule_overdue(&mut self, step: &mut Step) {
        let place = self.overdue.take().and_then(|id| self.places.get(&id));
        // It may have been preempted or aborted since.
        let idx = place.and_then(|place| self.running_idx(place));
        let image = idx.and_then(|idx| Some((idx, self.running[idx].next_run_len()?)));
        if let Some((idx, run_len)) = image {
            // Only the image: the rest of the budget belongs to the decodes.
            self.schedule_chunk(idx, run_len, step);
        }
    }

    fn schedule_decodes(&mut self, step: &mut Step) {
        let mut idx = 0;
        // Not a range loop: preemption shortens the list from its end.
        while idx < self.running.len() && step.budget > 0 {
            let seq = &self.running[idx];
            if seq.num_missing_tokens() == 1 && seq.is_free() {
                self.schedule_chunk(idx, 1, step);
            }
            idx += 1;
        }
    }

    /// Schedules prefills; waiting sequences of a better priority come before running ones of a
    /// worse priority.
    fn schedule_prefills(&mut self, step: &mut Step) {
        let mut idx = 0;
        let mut looked_before = None;
        while idx < self.running.len() && step.budget > 0 {
            let seq = &self.running[idx];
            if seq.num_missing_tokens() > 0 && seq.is_free() {
                let priority = seq.scheduling().priority;
                if looked_before != Some(priority) {
                    looked_before = Some(priority);
                    let num_running = self.running.len();
                    self.admit_waiting(Admits::BetterThan(priority), step);
                    if self.running.len() != num_running {
                        idx = self
                            .running
                            .partition_point(|seq| seq.scheduling().priority < priority);
                    }
                    continue;
                }
                self.schedule_chunk(idx, step.budget, step);
            }
            idx += 1;
        }
    }

    /// Schedules at most `max_chunk` tokens of a running sequence, if their blocks can be taken
    /// from the pools or from sequences of a worse rank.
    pub(super) fn schedule_chunk(&mut self, idx: usize, max_chunk: usize, step: &mut Step) {
        let seq = &self.running[idx];
        let end = seq.chunk_end(max_chunk);
        if end == seq.num_launched_tokens() {
            self.overdue.get_or_insert(seq.id);
            return;
        }
        while !self.blocks.can_allocate(&self.running[idx].kv, end) {
            if gets_enough_back(&self.blocks, &self.running[idx], end) {
                return;
            }
            let Some(victim) = self.who_gives_way(idx) else {
                return;
            };
            self.preempt(victim, step);
        }
        let seq = &mut self.running[idx];
        self.blocks.allocate(&mut seq.kv, end);
        seq.num_planned_tokens = end - seq.num_launched_tokens();
        step.budget -= seq.num_planned_tokens;
    }

    /// Preempts the running sequence of the worst rank.
    pub(super) fn preempt_last(&mut self, step: &mut Step) {
        let last = self.running.len().checked_sub(1);
        self.preempt(last.expect("the one that asks is better"), step);
    }

    /// Moves a running sequence to the waiting queue, before the new ones of its tenant.
    fn preempt(&mut self, idx: usize, step: &mut Step) {
        let seq = self.take_off(idx, step);
        self.waiting.add(seq);
    }

    /// Removes a running sequence, frees its blocks and drops its planned chunk.
    pub(super) fn take_off(&mut self, idx: usize, step: &mut Step) -> Box<Sequence> {
        let mut seq = self.running.remove(idx);
        step.budget += seq.num_planned_tokens;
        step.preempted.push(seq.id);
        self.stop_running(&mut seq);
        seq.restart();
        seq
    }
}

/// Extends a planned chunk by drafts. They may be wrong, so they take nothing from other sequences.
fn add_drafts(blocks: &mut BlockManager, seq: &mut Sequence, step: &mut Step) {
    let num_drafts = seq.num_possible_drafts().min(step.budget);
    let end = seq.num_launched_tokens() + seq.num_planned_tokens + num_drafts;
    if num_drafts > 0 && blocks.can_allocate(&seq.kv, end) {
        blocks.allocate(&mut seq.kv, end);
        seq.num_planned_tokens += num_drafts;
        step.budget -= num_drafts;
    }
}

/// Whether waiting for the batch in flight is enough, because blocks of this sequence will then be
/// behind the window: no sequence need be preempted.
fn gets_enough_back(blocks: &BlockManager, seq: &Sequence, end: usize) -> bool {
    let soon = blocks.num_behind_window(&seq.kv, seq.num_launched_tokens());
    seq.num_scheduled_tokens() > 0 && blocks.can_allocate_with(soon, &seq.kv, end)
}
