//! Decides what each step computes and who holds which KV block.
//!
//! ```text
//!   add ──> waiting ──admit──> running ──update──> finished
//!             ^                   │
//!             └──────preempt──────┘        abort: from anywhere, at once
//!
//!   engine:  loop { batch = schedule(); tokens = execute(batch); update(batch, tokens) }
//! ```
//!
//! There is no prefill phase and no decode phase. Every [`Sequence`] has tokens, the first
//! `num_computed_tokens` of which are in the cache, and each step closes a part of that gap under
//! one budget of tokens. Every running sequence is older than every waiting one.
//!
//! What holds after every call ([`Scheduler::check_integrity`] says it in code):
//! - a step computes at most `max_num_batched_tokens`, of at most `max_num_seqs` sequences;
//! - pictures are computed whole, since their tokens attend to one another in both directions;
//! - each block is free or in one table, and tables hold exactly what computed and scheduled
//!   tokens need, in the sliding group no more than the window sees;
//! - whoever passed the door ends: the oldest sequence is never set back, and it fits alone.
//!
//! Owns no tensors, clock, channel or device: plain data in, plain data out.
//!
//! Not here yet, and where it goes: a cache of prefixes hangs its hashes on the free list in
//! `block_pool` and starts an admitted sequence with `num_computed_tokens` above 0; priorities and
//! fairness are an order, so they go into `sequence::Age`; a budget for image encoding cuts chunks
//! where [`Sequence`] does it for spans; overload is refused at the door
//! ([`SchedulerConfig::check`]).

mod batch;
mod block_manager;
mod block_pool;
mod block_table;
mod config;
mod integrity;
mod kv_groups;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use crate::core::{FinishReason, GenerateRequest, SeqId, TokenId};
use crate::error::Result;

use block_manager::BlockManager;
use sequence::Age;

pub use batch::{Batch, Chunk};
pub use block_table::BlockTable;
pub use config::SchedulerConfig;
pub use kv_groups::{BlockCount, KvGroups};
pub use sequence::Sequence;

/// Queues, budget and blocks. See the module's documentation.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    /// Oldest first; these hold blocks.
    running: Vec<Sequence>,
    /// These hold nothing. Ordered by age, so that a preempted sequence comes back to the front
    /// by itself and an abort from the middle of a long line is cheap.
    waiting: BTreeMap<Age, Sequence>,
    /// Of every sequence, running or waiting.
    ages: HashMap<SeqId, Age>,
    next_age: u64,
    blocks: BlockManager,
    /// The oldest sequence whose next picture did not fit beside the last step's decodes. It goes
    /// first in the next step.
    overdue: Option<SeqId>,
}

/// What is left of a step while it is planned.
struct Step {
    budget: usize,
    preempted: Vec<SeqId>,
}

impl Scheduler {
    /// # Errors
    /// When nothing could run within these limits ([`SchedulerConfig::validate`]).
    pub fn new(config: SchedulerConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            running: Vec::new(),
            waiting: BTreeMap::new(),
            ages: HashMap::new(),
            next_age: 0,
            blocks: BlockManager::new(config.groups, config.num_blocks),
            overdue: None,
            config,
        })
    }

    /// The limits; its [`check`](SchedulerConfig::check) is the door.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Takes a sequence into the waiting line.
    ///
    /// # Errors
    /// Those of [`SchedulerConfig::check`]; the request is then forgotten.
    ///
    /// # Panics
    /// When `id` is in use.
    pub fn add(&mut self, id: SeqId, request: GenerateRequest) -> Result<()> {
        self.config.check(&request)?;
        let age = Age(self.next_age);
        self.next_age += 1;
        let max_len = self.config.max_len(&request);
        let seq = Sequence::new(id, age, request, max_len, self.config.block_size);
        assert!(self.ages.insert(id, age).is_none(), "{id} was added twice");
        self.waiting.insert(age, seq);
        Ok(())
    }

    /// Forgets a sequence and frees what it holds, whether it waits, runs or is just being
    /// computed. `false` when there is none (any more). This is also the way on for the sequences
    /// of a step that failed.
    pub fn abort(&mut self, id: SeqId) -> bool {
        let Some(age) = self.ages.remove(&id) else {
            return false;
        };
        if self.waiting.remove(&age).is_none() {
            let idx = self
                .running_idx(age)
                .expect("a sequence that does not wait runs");
            let mut seq = self.running.remove(idx);
            self.blocks.free(&mut seq.kv);
        }
        true
    }

    /// Plans the next step; empty when there is no work.
    ///
    /// In this order, as far as the budget of tokens goes:
    /// 1. a picture that did not fit beside the decodes of the last step;
    /// 2. decodes: running sequences that miss one token;
    /// 3. what the other running sequences miss, oldest first;
    /// 4. waiting sequences, oldest first, as slots and blocks allow.
    ///
    /// So neither side starves: decodes come before prefill and there are never more of them than
    /// the budget has tokens; a picture that needs their share takes it every other step.
    ///
    /// When blocks run out, the newest running sequence gives up its own. A sequence that is the
    /// newest itself keeps what it has and sits the step out, which costs less than starting over.
    ///
    /// # Panics
    /// When the last batch was not [`update`](Self::update)d and sequences of it remain.
    pub fn schedule(&mut self) -> Batch {
        let mut step = Step {
            budget: self.config.max_num_batched_tokens,
            preempted: Vec::new(),
        };
        assert!(
            self.running.iter().all(|seq| seq.num_scheduled_tokens == 0),
            "a step is updated before the next is scheduled"
        );
        self.schedule_overdue(&mut step);
        self.schedule_decodes(&mut step);
        self.schedule_prefills(&mut step);
        self.admit_waiting(&mut step);

        let mut chunks = Vec::with_capacity(self.running.len());
        for seq in self.running.iter().filter(|s| s.num_scheduled_tokens > 0) {
            chunks.push(Chunk {
                seq: seq.id,
                start: seq.num_computed_tokens(),
                len: seq.num_scheduled_tokens,
                samples: seq.num_scheduled_tokens == seq.num_missing_tokens(),
            });
        }
        Batch {
            chunks,
            preempted: step.preempted,
        }
    }

    /// Takes in what the step computed: `sampled` has the token drawn for each chunk that samples,
    /// in the batch's order. Sequences aborted since [`schedule`](Self::schedule) are skipped,
    /// with or without a token. Returns those that ended; they are gone and their blocks free.
    ///
    /// # Panics
    /// When `batch` is not the last one scheduled, or a token is missing.
    pub fn update(
        &mut self,
        batch: &Batch,
        sampled: &[(SeqId, TokenId)],
    ) -> Vec<(SeqId, FinishReason)> {
        let mut finished = Vec::new();
        // The batch and the running sequences have the same order, so one pass over both is
        // enough; what is found in the batch only was aborted.
        let mut chunks = batch.chunks.iter();
        let mut sampled = sampled.iter();
        self.running.retain_mut(|seq| {
            if seq.num_scheduled_tokens == 0 {
                return true;
            }
            let chunk = chunks
                .find(|chunk| chunk.seq == seq.id)
                .expect("each scheduled sequence is in the batch");
            seq.advance();
            let num_computed_tokens = seq.num_computed_tokens();
            self.blocks
                .release_behind_window(&mut seq.kv, num_computed_tokens);
            if !chunk.samples {
                return true;
            }
            let &(_, token) = sampled
                .find(|(id, _)| *id == seq.id)
                .expect("each chunk that samples has a token");
            let Some(reason) = seq.push(token) else {
                return true;
            };
            self.blocks.free(&mut seq.kv);
            self.ages.remove(&seq.id);
            finished.push((seq.id, reason));
            false
        });
        finished
    }

    /// A sequence that waits or runs.
    pub fn sequence(&self, id: SeqId) -> Option<&Sequence> {
        let age = *self.ages.get(&id)?;
        match self.running_idx(age) {
            Some(idx) => Some(&self.running[idx]),
            None => self.waiting.get(&age),
        }
    }

    /// Whether [`schedule`](Self::schedule) has something to plan.
    pub fn has_work(&self) -> bool {
        !self.ages.is_empty()
    }

    /// Sequences that hold blocks.
    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait for a slot or for blocks, preempted ones included.
    pub fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Blocks that nobody holds.
    pub fn num_free_blocks(&self) -> BlockCount {
        self.blocks.num_free()
    }

    /// Share of the blocks that unfinished sequences hold, 0 to 1, in the group that is fuller:
    /// the one that admission waits for.
    pub fn kv_usage(&self) -> f64 {
        let total = self.config.num_blocks;
        let free = self.blocks.num_free();
        let used = |total: usize, free: usize| match total {
            0 => 0.0,
            _ => (total - free) as f64 / total as f64,
        };
        used(total.global, free.global).max(used(total.sliding, free.sliding))
    }

    fn running_idx(&self, age: Age) -> Option<usize> {
        self.running.binary_search_by_key(&age, |seq| seq.age).ok()
    }

    /// Two steps in a row never leave out a decode: a picture is only found not to fit where
    /// budget is left, so after all decodes.
    fn schedule_overdue(&mut self, step: &mut Step) {
        let age = self.overdue.take().and_then(|id| self.ages.get(&id));
        // It may have been preempted or aborted since.
        let idx = age.and_then(|&age| self.running_idx(age));
        let picture = idx.and_then(|idx| Some((idx, self.running[idx].next_run_len()?)));
        if let Some((idx, run_len)) = picture {
            // No more than the picture: the rest of the budget belongs to the decodes.
            self.schedule_chunk(idx, run_len, step);
        }
    }

    fn schedule_decodes(&mut self, step: &mut Step) {
        let mut idx = 0;
        // Not a range: preemption shortens the list from its end.
        while idx < self.running.len() && step.budget > 0 {
            let seq = &self.running[idx];
            if seq.num_missing_tokens() == 1 && seq.num_scheduled_tokens == 0 {
                self.schedule_chunk(idx, 1, step);
            }
            idx += 1;
        }
    }

    fn schedule_prefills(&mut self, step: &mut Step) {
        let mut idx = 0;
        while idx < self.running.len() && step.budget > 0 {
            if self.running[idx].num_scheduled_tokens == 0 {
                self.schedule_chunk(idx, step.budget, step);
            }
            idx += 1;
        }
    }

    /// First come, first served: when the oldest has to wait, so do all behind it.
    ///
    /// Blocks are asked for the whole prompt and the beginning of its answer, not only for the
    /// first chunk, and beside what the running sequences will still take. Otherwise sequences are
    /// admitted, preempted and computed again: with pools that hold 45 sequences, a third of all
    /// tokens, where this way it is a quarter of a percent.
    fn admit_waiting(&mut self, step: &mut Step) {
        if self.waiting.is_empty() || self.running.len() == self.config.max_num_seqs {
            return;
        }
        let mut claimed: BlockCount = self.running.iter().map(|seq| self.claim(seq)).sum();
        while step.budget > 0
            && self.running.len() < self.config.max_num_seqs
            && let Some((_, oldest)) = self.waiting.first_key_value()
            && (claimed + self.claim(oldest)).fits_in(self.blocks.num_free())
        {
            let (_, seq) = self.waiting.pop_first().expect("just looked at it");
            self.running.push(seq);
            let idx = self.running.len() - 1;
            self.schedule_chunk(idx, step.budget, step);
            claimed = claimed + self.claim(&self.running[idx]);
        }
    }

    /// What a sequence will still take for the tokens it has and a block's worth of new ones.
    fn claim(&self, seq: &Sequence) -> BlockCount {
        let config = &self.config;
        let soon = seq.tokens().len() + config.block_size;
        let num_tokens = soon.min(seq.max_computed_tokens());
        let max_chunk = seq.num_missing_tokens().min(config.max_num_batched_tokens);
        let needed = config
            .groups
            .blocks_for(num_tokens, max_chunk, config.block_size);
        needed.saturating_sub(seq.kv.num_held())
    }

    /// Schedules at most `max_chunk` tokens of a running sequence, if their blocks can be had from
    /// the pools or from newer sequences.
    fn schedule_chunk(&mut self, idx: usize, max_chunk: usize, step: &mut Step) {
        let seq = &self.running[idx];
        let end = seq.chunk_end(max_chunk);
        if end == seq.num_computed_tokens() {
            self.overdue.get_or_insert(seq.id);
            return;
        }
        while !self.blocks.can_allocate(&self.running[idx].kv, end) {
            if idx + 1 == self.running.len() {
                return;
            }
            self.preempt_newest(step);
        }
        let seq = &mut self.running[idx];
        self.blocks.allocate(&mut seq.kv, end);
        seq.num_scheduled_tokens = end - seq.num_computed_tokens();
        step.budget -= seq.num_scheduled_tokens;
    }

    fn preempt_newest(&mut self, step: &mut Step) {
        let mut seq = self.running.pop().expect("the one that asks is older");
        step.budget += seq.num_scheduled_tokens;
        step.preempted.push(seq.id);
        self.blocks.free(&mut seq.kv);
        seq.restart();
        self.waiting.insert(seq.age, seq);
    }
}
