//! The scheduler: decides what each step computes and which sequence holds which KV block.
//!
//! ```text
//!   add ──> waiting ──admit──> running ──update──> finished
//!             ^ │                 │
//!             │ └─ deferred       │                deferred: a running one computes its blocks
//!             └──────preempt──────┘                abort: from anywhere, at once
//!
//!   one at a time:  loop { batch = schedule(); tokens = execute(batch); update(batch, tokens) }
//!   pipelined:      loop { next = schedule(); launch(next); update(last, tokens); last = next }
//! ```
//!
//! There is no prefill phase and no decode phase. Every [`Sequence`] has tokens, the first
//! `num_computed_tokens` of which are in the cache. Each step computes a part of the missing ones,
//! within one token budget for all sequences.
//!
//! # Order
//! Smaller [`SchedulingParams::priority`](crate::core::SchedulingParams) first. Within a priority,
//! tenants are admitted by start-time fair queueing (`priority_level`), and each tenant's requests
//! in the order of arrival. The first admission gives a sequence an admission number. Priority and
//! admission number are its rank. The rank decides which sequence is computed first, which of a
//! tenant's preempted sequences is readmitted first and, from the worst rank, which is preempted
//! first.
//!
//! Tenants' shares also hold while sequences run (`shares`): a tenant with fewer sequences or
//! blocks than another one of its priority takes a slot or blocks from it, and the tenant that
//! holds more is preempted first when blocks run out. A sequence whose slot was taken in this way
//! is set back: it loses its admission number and returns to its place by arrival in its tenant's
//! queue.
//!
//! # Steps in flight
//! One batch may be in flight while the next is planned; both modes are the same code. A sequence
//! whose token is still being sampled is planned one token further, with [`Chunk::sampled_input`] in place of
//! token id. A sequence's maximum length is known beforehand, so it is never planned past its end,
//! nor behind drafts, since how many of them are right is not known yet. A stop token is not known beforehand, so a sequence that has ended, like one that was
//! aborted or preempted, may have a stale chunk in flight. It does no harm, because the device
//! executes batches in order:
//! - A stale chunk writes only behind what was computed when it was planned. Blocks that other
//!   sequences can find are full and computed, so no stale chunk writes into one.
//! - The other blocks that it writes were freed as blank. A sequence that gets one was planned
//!   later, so it writes the block later, and reads only what it has written itself.
//! - Blocks are registered as full, and those behind the window are freed, only in
//!   [`Scheduler::update`]: after the batch has completed and can no longer fail.
//!
//! # Drafts
//! A caller that can guess a sequence's next tokens [proposes](Scheduler::propose) them. They are
//! computed together with the last known token, if the step has tokens and blocks left that no
//! other sequence uses, and [`Scheduler::update`] gets as many tokens as turned out to be right.
//! The positions behind these are computed again, when their tokens are known.
//!
//! # Held sequences
//! A sequence's next token may be constrained by a mask that takes long to compute. The engine then
//! leaves the sequence out of the steps ([`Scheduler::hold`]), so that the others need not wait for
//! it, and includes it again ([`Scheduler::release`]) or ends it.
//!
//! # Invariants
//! The tests check these after every step (`Scheduler::check_integrity`):
//! - a step computes at most `max_num_batched_tokens` tokens of at most `max_num_seqs` sequences;
//! - images are computed as a whole, since their tokens attend to one another in both directions;
//! - each block is blank, cached or held by as many tables as its reference count says; tables hold
//!   exactly what computed and scheduled tokens need, in the sliding group no more than the window;
//! - only full blocks are found by others, so no sequence writes a block that another one reads;
//! - within one tenant and priority, all running sequences were admitted before all preempted ones.
//!
//! # Why every sequence ends
//! Take the admitted sequence of the best rank. No sequence of its priority preempts it: blocks are
//! taken from worse ranks only, and shares are never taken from a tenant's best rank. If it waits,
//! it comes to the front of the queue. It is admitted when the others have been preempted or have
//! ended, since it fits when it is alone; [`SchedulerConfig::check`] ensures that. While it runs,
//! at least one of its tokens is computed every third step: a decode at least every other step, and
//! an image that does not fit beside decodes goes first in the next step. So it ends, and the next
//! sequence has the best rank. A sequence that is not admitted yet, or was set back, comes to the
//! front of its priority's queue, since what the others compute after admission raises their
//! tenants' service counters. Deferred sequences return to the queue when the one that they wait
//! for has computed their block or stops running. A sequence is set back only after it has computed
//! at least one block of tokens, and its tenant's older requests end before it, so at some time it
//! has its tenant's best rank. Only an endless supply of better priorities can keep a request
//! waiting, as priorities are meant to.
//!
//! The scheduler owns no tensors, clock, channel or device: plain data in, plain data out. The
//! engine, which has a clock, enforces deadlines.

mod admission;
mod batch;
mod block_hash;
mod block_manager;
mod block_pool;
mod config;
mod eviction_order;
mod held;
#[cfg(test)]
mod integrity;
mod priority_level;
mod queue_key;
mod sequence;
mod shares;
mod step;
#[cfg(test)]
mod tests;
mod waiting_queue;

use std::collections::{HashMap, VecDeque};

use crate::core::{BlockCount, GenerateRequest, PrefixCaching, SeqId, TokenId};
use crate::error::Result;

use block_hash::PendingBlocks;
use block_manager::{BlockManager, KvTables};
use queue_key::{ArrivalSeq, QueueKey, Rank};
use waiting_queue::WaitingQueue;

pub use batch::{Batch, Chunk, Finished};
pub use config::SchedulerConfig;
pub use sequence::Sequence;

/// Queues, token budget and blocks. See the module's documentation.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    /// Sorted by rank; these hold blocks.
    #[expect(
        clippy::vec_box,
        reason = "sequences are large and leave from the middle"
    )]
    running: Vec<Box<Sequence>>,
    /// Waiting sequences; these hold no blocks.
    waiting: WaitingQueue,
    /// Keys of all sequences, running or waiting.
    places: HashMap<SeqId, QueueKey>,
    next_arrival: u64,
    next_admission_seq: u64,
    blocks: BlockManager,
    pending_blocks: PendingBlocks,
    /// Sequences of each batch that is not applied yet, oldest batch first.
    in_flight: VecDeque<Vec<(SeqId, Rank)>>,
    /// The best-ranked sequence whose next image did not fit beside the last step's decodes. It
    /// goes first in the next step.
    overdue: Option<SeqId>,
    counters: Counters,
}

/// Counters of [`SchedulerStats`] since the start.
#[derive(Debug, Default)]
struct Counters {
    num_preemptions: u64,
    prefix_queried_tokens: u64,
    prefix_hit_tokens: u64,
}

/// Current gauges, and counters since the start. Read in constant time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SchedulerStats {
    /// Number of sequences that hold blocks.
    pub num_running: usize,
    /// Number of sequences that wait, preempted ones included.
    pub num_waiting: usize,
    /// Fraction of the blocks that unfinished sequences hold, 0 to 1, in the fuller group.
    pub kv_usage: f64,
    /// Number of blocks that no sequence holds, with or without a cached prefix in them.
    pub num_free_blocks: BlockCount,
    /// Number of free blocks that still hold a prefix which a new sequence may find.
    pub num_cached_blocks: BlockCount,
    /// Number of times a sequence has lost its blocks to another one.
    pub num_preemptions: u64,
    /// Number of prompt tokens that were looked up in the prefix cache, over the sequences admitted
    /// so far; a preempted sequence counts once.
    pub prefix_queried_tokens: u64,
    /// Number of these tokens that were found.
    pub prefix_hit_tokens: u64,
}

impl Scheduler {
    /// # Errors
    /// Fails when nothing could run within these limits ([`SchedulerConfig::validate`]).
    pub fn new(config: SchedulerConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            running: Vec::new(),
            waiting: WaitingQueue::default(),
            places: HashMap::new(),
            next_arrival: 0,
            next_admission_seq: 0,
            blocks: BlockManager::new(config.groups, config.num_blocks, config.block_size),
            pending_blocks: PendingBlocks::default(),
            in_flight: VecDeque::new(),
            overdue: None,
            counters: Counters::default(),
            config,
        })
    }

    /// The limits; [`SchedulerConfig::check`] tests a request against them.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Adds a sequence to the waiting queue.
    ///
    /// # Errors
    /// Returns the errors of [`SchedulerConfig::check`]; the request is then dropped.
    ///
    /// # Panics
    /// Panics when `id` is in use. Ids must never be reused either: a stale chunk may name one.
    pub fn add(&mut self, id: SeqId, request: GenerateRequest) -> Result<()> {
        self.config.check(&request)?;
        let arrival = ArrivalSeq(self.next_arrival);
        self.next_arrival += 1;
        let max_len = self.config.max_len(&request);
        let kv = KvTables::new(self.config.groups.num_groups(), self.config.block_size);
        let seq = Sequence::new(id, arrival, request, max_len, kv);
        let before = self.places.insert(id, seq.place());
        assert!(before.is_none(), "{id} was added twice");
        self.waiting.add(Box::new(seq));
        Ok(())
    }

    /// Removes a sequence and frees what it holds, whether it waits, runs or is being computed.
    /// Returns `false` when there is none (any more). This is also how to handle a failed step:
    /// abort its sequences, then call [`update`](Self::update) without tokens.
    pub fn abort(&mut self, id: SeqId) -> bool {
        let Some(place) = self.places.remove(&id) else {
            return false;
        };
        if self.waiting.remove(&place).is_none() {
            let idx = self
                .running_idx(&place)
                .expect("a sequence that does not wait runs");
            let mut seq = self.running.remove(idx);
            self.stop_running(&mut seq);
        }
        true
    }

    /// [Aborts](Self::abort) a sequence whose keys and values may be wrong (not finite): no
    /// sequence finds its blocks any more. Sequences that share some already keep them.
    pub fn abort_non_finite(&mut self, id: SeqId) -> bool {
        let hashes = self.sequence(id).map(|seq| seq.hashes().to_vec());
        let was_there = self.abort(id);
        self.blocks.forget(&hashes.unwrap_or_default());
        was_there
    }

    /// Applies the results of the oldest batch in flight. `sampled` has the tokens of each chunk
    /// that samples, in the batch's order: the samples up to and including the first that differs
    /// from the draft behind it; none if the sample [was skipped](Self::skip_sample). Sequences that
    /// were aborted or have ended since [`schedule`](Self::schedule) are skipped, with or without
    /// tokens; preempted ones keep their tokens. Returns the sequences that ended; they are removed
    /// and their blocks free.
    ///
    /// # Panics
    /// Panics when `batch` is not the oldest in flight, or when a chunk that samples has no entry,
    /// none or too many tokens.
    pub fn update(&mut self, batch: &Batch, sampled: &[(SeqId, &[TokenId])]) -> Vec<Finished> {
        let mut finished = Vec::new();
        if batch.is_empty() {
            return finished;
        }
        let flights = self.in_flight.pop_front().unwrap_or_default();
        let planned = flights.iter().map(|&(id, _)| id);
        assert!(
            planned.eq(batch.chunks.iter().map(|chunk| chunk.seq)),
            "batches are taken in in the order in which they were scheduled"
        );
        let mut sampled = sampled.iter();
        // The batch and the running sequences are both sorted by rank, so one pass over both is
        // enough.
        let mut idx = 0;
        for (chunk, (id, rank)) in batch.chunks.iter().zip(flights) {
            while self.running.get(idx).is_some_and(|seq| seq.rank() < rank) {
                idx += 1;
            }
            let runs = self.running.get(idx).is_some_and(|seq| seq.id == id);
            if chunk.num_samples == 0 {
                if runs {
                    self.advance(idx, chunk.len);
                }
                continue;
            }
            let seq = if runs {
                &mut self.running[idx]
            } else if let Some(seq) = self.preempted_mut(id) {
                seq
            } else {
                continue;
            };
            let &(_, tokens) = sampled
                .find(|&&(of, _)| of == id)
                .expect("each chunk that samples has its tokens");
            assert!(
                tokens.len() <= chunk.num_samples && tokens.is_empty() == seq.is_sample_skipped,
                "{id} has {} tokens of {} samples",
                tokens.len(),
                chunk.num_samples
            );
            // First the tokens: they are part of what the blocks that the chunk fills hold.
            let (num_tokens, reason) = seq.take_samples(tokens);
            if runs {
                match chunk.num_samples - num_tokens {
                    0 => self.advance(idx, chunk.len),
                    num_dropped => self.retract(idx, chunk.len, num_dropped),
                }
            }
            if let Some(reason) = reason {
                self.abort(id);
                finished.push(Finished {
                    seq: id,
                    reason,
                    num_tokens,
                });
            }
        }
        finished
    }

    /// Proposes tokens that may follow those which the host knows of a sequence. The next chunk
    /// that samples for it verifies as many of them, from the first on, as the step has tokens and
    /// blocks for once everything else is planned. Replaces what was proposed before. Has no effect
    /// if the sequence is gone or a sample of it is pending, since the drafts would belong behind
    /// that one; the caller proposes again after each [`update`](Self::update).
    pub fn propose(&mut self, id: SeqId, drafts: &[TokenId]) {
        if let Some(seq) = self.sequence_mut(id) {
            seq.propose(drafts);
        }
    }

    /// Returns a waiting or running sequence.
    pub fn sequence(&self, id: SeqId) -> Option<&Sequence> {
        let place = self.places.get(&id)?;
        match self.running_idx(place) {
            Some(idx) => Some(&self.running[idx]),
            None => self.waiting.get(place),
        }
    }

    /// Whether there are sequences. [`schedule`](Self::schedule) plans something for them, unless
    /// they need the results of a batch in flight, or are held.
    pub fn has_work(&self) -> bool {
        !self.places.is_empty()
    }

    /// Number of sequences that hold blocks.
    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    /// Number of sequences that wait for a slot or for blocks, preempted ones included.
    pub fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Number of blocks that no sequence holds, with or without a cached prefix in them.
    pub fn num_free_blocks(&self) -> BlockCount {
        self.blocks.num_free()
    }

    /// Fraction of the blocks that unfinished sequences hold, 0 to 1, in the fuller group, which is
    /// the one that limits admission.
    pub fn kv_usage(&self) -> f64 {
        let total = self.config.num_blocks;
        let free = self.blocks.num_free();
        let used = |total: usize, free: usize| match total {
            0 => 0.0,
            _ => (total - free) as f64 / total as f64,
        };
        let groups = total.by_group().into_iter().zip(free.by_group());
        groups.fold(0.0, |most, (total, free)| most.max(used(total, free)))
    }

    /// Returns gauges and counters.
    pub fn stats(&self) -> SchedulerStats {
        SchedulerStats {
            num_running: self.num_running(),
            num_waiting: self.num_waiting(),
            kv_usage: self.kv_usage(),
            num_free_blocks: self.num_free_blocks(),
            num_cached_blocks: self.blocks.num_cached(),
            num_preemptions: self.counters.num_preemptions,
            prefix_queried_tokens: self.counters.prefix_queried_tokens,
            prefix_hit_tokens: self.counters.prefix_hit_tokens,
        }
    }

    fn running_idx(&self, place: &QueueKey) -> Option<usize> {
        let rank = place.rank()?;
        self.running
            .binary_search_by_key(&rank, |seq| seq.rank())
            .ok()
    }

    /// Returns a sequence that has run and waits to run again.
    fn preempted_mut(&mut self, id: SeqId) -> Option<&mut Sequence> {
        let place = self.places.get(&id)?;
        self.waiting.get_mut(place)
    }

    /// Applies a computed chunk of a running sequence.
    fn advance(&mut self, idx: usize, num_tokens: usize) {
        let seq = &mut self.running[idx];
        seq.advance(num_tokens);
        let num_computed_tokens = seq.num_computed_tokens();
        if num_computed_tokens >= (seq.num_full_blocks + 1) * self.config.block_size {
            self.fill_blocks(idx);
        }
        let seq = &mut self.running[idx];
        self.blocks
            .release_behind_window(&mut seq.kv, num_computed_tokens);
    }

    /// Applies a computed chunk of a running sequence without its last `num_dropped` positions:
    /// these were drafts that turned out to be wrong, or what precedes a token that was not sampled.
    /// They are computed again.
    fn retract(&mut self, idx: usize, num_tokens: usize, num_dropped: usize) {
        let seq = &mut self.running[idx];
        let again = seq.num_computed_tokens() + num_tokens - num_dropped;
        // An atomic run must be computed again as a whole.
        let again = seq.run_around(again).map_or(again, |run| run.start);
        let num_kept = again.saturating_sub(seq.num_computed_tokens());
        seq.unschedule(num_tokens - num_kept);
        self.advance(idx, num_kept);
        let seq = &mut self.running[idx];
        assert_eq!(seq.num_scheduled_tokens(), 0, "{} was planned on", seq.id);
        let num_computed_tokens = seq.num_computed_tokens();
        self.blocks.release_behind(&mut seq.kv, num_computed_tokens);
    }

    /// Registers the blocks that a running sequence has filled.
    fn fill_blocks(&mut self, idx: usize) {
        let seq = &mut self.running[idx];
        let before = seq.num_full_blocks;
        seq.num_full_blocks = seq.num_computed_tokens() / self.config.block_size;
        let end = seq.num_full_blocks * self.config.block_size;
        if let Some(num_tokens) = end.checked_sub(seq.num_charged_tokens) {
            // Once per block, since each charge changes the tenant's place in the queue.
            seq.num_charged_tokens = end;
            self.waiting.charge(&seq.place(), num_tokens);
        }
        if self.config.prefix_caching == PrefixCaching::Off {
            return;
        }
        seq.extend_hashes(end);
        let filled = &seq.hashes()[before..seq.num_full_blocks];
        for (idx, &hash) in (before..).zip(filled) {
            self.blocks.register(&seq.kv, idx, hash);
        }
        self.pending_blocks.end(seq.id, filled);
        let num_full_blocks = seq.num_full_blocks;
        for waiter in seq
            .waiters
            .extract_if(.., |waiter| waiter.num_blocks <= num_full_blocks)
        {
            self.waiting
                .unpark(waiter.place.priority, waiter.place.arrival);
        }
    }

    /// Frees the blocks of a sequence that stops running, drops its pending blocks and wakes its
    /// waiters.
    fn stop_running(&mut self, seq: &mut Sequence) {
        self.blocks.free(&mut seq.kv);
        self.pending_blocks.end(
            seq.id,
            &seq.hashes()[seq.num_full_blocks.min(seq.hashes().len())..],
        );
        for waiter in seq.waiters.drain(..) {
            self.waiting
                .unpark(waiter.place.priority, waiter.place.arrival);
        }
    }
}
