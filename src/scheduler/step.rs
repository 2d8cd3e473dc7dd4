//! Planning a step: what is computed of those who run.

use super::admission::Admits;
use super::block_manager::BlockManager;
use super::{Batch, Scheduler, Sequence};
use crate::core::SeqId;

/// What is left of a step while it is planned.
pub(super) struct Step {
    pub(super) budget: usize,
    pub(super) preempted: Vec<SeqId>,
}

impl Scheduler {
    /// Plans the next step; empty when there is no work that does not need the batch in flight.
    /// An empty batch need not be executed, nor taken in.
    ///
    /// In this order, as far as the budget of tokens goes:
    /// 1. an image that did not fit beside the decodes of the last step;
    /// 2. decodes: running sequences that miss one token;
    /// 3. what the other running sequences miss, by rank, but before them each other tenant's part,
    ///    if the first of them would take it all (`shares`), and
    /// 4. waiting sequences of a better priority, and after them the other waiting ones, as slots
    ///    and blocks allow.
    ///
    /// So neither side starves: decodes come before prefill and there are never more of them than
    /// the budget has tokens; an image that needs their share takes it every other step.
    ///
    /// When blocks run out, a running sequence of a worse rank gives up its own: the worst one,
    /// and where several tenants run, the worst of the one that holds most (`shares`). A sequence
    /// that nobody has to give way to keeps what it has and sits the step out, which costs less
    /// than starting over.
    ///
    /// The batch before must have been launched, and that means its inputs made: it may be in
    /// flight. Two in flight are one too many.
    ///
    /// # Panics
    /// When two batches have not been [`update`](Self::update)d.
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
            // All that was planned may have been preempted again, and the one that it was done
            // for may still not fit. What came free may be what an image lacked, and without a
            // batch nobody would come back to it.
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
                let chunk = seq.launch(num_sampled_tokens);
                num_sampled_tokens += usize::from(chunk.samples);
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

    /// Two steps in a row never leave out a decode: an image is only found not to fit where
    /// budget is left, so after all decodes.
    fn schedule_overdue(&mut self, step: &mut Step) {
        let place = self.overdue.take().and_then(|id| self.places.get(&id));
        // It may have been preempted or aborted since.
        let idx = place.and_then(|place| self.running_idx(place));
        let image = idx.and_then(|idx| Some((idx, self.running[idx].next_run_len()?)));
        if let Some((idx, run_len)) = image {
            // No more than the image: the rest of the budget belongs to the decodes.
            self.schedule_chunk(idx, run_len, step);
        }
    }

    fn schedule_decodes(&mut self, step: &mut Step) {
        let mut idx = 0;
        // Not a range: preemption shortens the list from its end.
        while idx < self.running.len() && step.budget > 0 {
            let seq = &self.running[idx];
            if seq.num_missing_tokens() == 1 && seq.is_free() {
                self.schedule_chunk(idx, 1, step);
            }
            idx += 1;
        }
    }

    /// What waits at a better priority comes before what runs at a worse one.
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

    /// Schedules at most `max_chunk` tokens of a running sequence, if their blocks can be had from
    /// the pools or from sequences of a worse rank.
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

    /// The running sequence of the worst rank goes back to the line.
    pub(super) fn preempt_last(&mut self, step: &mut Step) {
        let last = self.running.len().checked_sub(1);
        self.preempt(last.expect("the one that asks is better"), step);
    }

    /// A running sequence goes back to the line, before the new ones of its tenant.
    fn preempt(&mut self, idx: usize, step: &mut Step) {
        let seq = self.take_off(idx, step);
        self.line.add(seq);
    }

    /// A running sequence, without its blocks and what was planned of it.
    pub(super) fn take_off(&mut self, idx: usize, step: &mut Step) -> Box<Sequence> {
        let mut seq = self.running.remove(idx);
        step.budget += seq.num_planned_tokens;
        step.preempted.push(seq.id);
        self.stop_running(&mut seq);
        seq.restart();
        seq
    }
}

/// Whether it is enough to wait for the batch in flight, because the window then leaves blocks of
/// this sequence behind: no reason to preempt anybody.
fn gets_enough_back(blocks: &BlockManager, seq: &Sequence, end: usize) -> bool {
    let soon = blocks.num_behind_window(&seq.kv, seq.num_launched_tokens());
    seq.num_scheduled_tokens() > 0 && blocks.can_allocate_with(soon, &seq.kv, end)
}
