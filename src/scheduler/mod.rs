//! Decides what each step computes and who holds which KV block.
//!
//! ```text
//!   add ──> waiting ──admit──> running ──update──> finished
//!             ^ │                 │
//!             │ └─ parked         │                parked: a running one computes what it needs
//!             └──────preempt──────┘                abort: from anywhere, at once
//!
//!   one at a time:  loop { batch = schedule(); tokens = execute(batch); update(batch, tokens) }
//!   pipelined:      loop { next = schedule(); launch(next); update(last, tokens); last = next }
//! ```
//!
//! There is no prefill phase and no decode phase. Every [`Sequence`] has tokens, the first
//! `num_computed_tokens` of which are in the cache, and each step closes a part of that gap under
//! one budget of tokens.
//!
//! # Order
//! Smaller [`SchedulingParams::priority`](crate::core::Terms) first; within a priority, tenants are admitted
//! by start-time fair queueing (`level`), and each tenant's requests in the order of arrival. The
//! first admission gives a sequence a ticket. Priority and ticket are its rank: who is computed
//! first, whom its tenant has readmitted first and, from its end, who is preempted first.
//!
//! Tenants' shares hold while they run, too (`shares`): who has fewer sequences, or fewer blocks,
//! than another tenant of its priority takes a place from it, and who has more gives way first when
//! blocks run out. A sequence whose place was taken so is set back: without its ticket, to the
//! place in its tenant's line that its arrival gives it.
//!
//! # Steps in flight
//! One batch may be in flight while the next is planned; both modes are the same code. A sequence
//! whose token is still being sampled is planned one further, with [`Chunk::fed`] for a token id.
//! A sequence's length is known beforehand, so it is never planned past its end; a stop token is
//! not, so a sequence that has ended, like one that was aborted or preempted, may have a stale
//! chunk in flight. It does no harm, because the device executes batches in order:
//! - A stale chunk writes only behind what was computed when it was planned. Blocks that others
//!   may find are full and computed, so no stale chunk writes into one.
//! - The other blocks that it writes were given back blank. Whoever gets one was planned later,
//!   so writes it later, and reads there only what it has written itself.
//! - Blocks become known as full, and those behind the window are given back, only in
//!   [`Scheduler::update`]: with a batch that has come to its end, none that may still fail.
//!
//! # Sequences that are held
//! What the next token may be can take long to find out. Whoever drives the scheduler then leaves such
//! a sequence out of the steps ([`Scheduler::hold`]), so that the others need not wait for it, and lets
//! it in again ([`Scheduler::release`]) or ends it.
//!
//! # What always holds
//! [`Scheduler::check_integrity`] says it in code:
//! - a step computes at most `max_num_batched_tokens`, of at most `max_num_seqs` sequences;
//! - images are computed whole, since their tokens attend to one another in both directions;
//! - each block is blank, cached or held by as many tables as it says; tables hold exactly what
//!   computed and scheduled tokens need, in the sliding group no more than the window sees;
//! - only full blocks are found by others, so nobody writes a block that another one reads;
//! - of one tenant's at one priority, everybody who runs was admitted before everybody who was
//!   preempted.
//!
//! # Everybody ends
//! Take the sequence of the best rank among those admitted. Nobody of its priority preempts it:
//! whoever needs blocks takes them from worse ranks, and shares are never taken from a tenant's best
//! rank. If it waits, it comes to the front of the line, and it is admitted when the others have been
//! preempted or have ended, since alone it fits: the door saw to that. While it runs, it computes
//! at least a token every third step: a decode at least every other step, and an image that
//! decodes leave no room for goes first in the next one. So it ends, and the next one is the best.
//! Whoever is not admitted yet, or was set back, comes to the front of its priority's line, since
//! what the others compute once they are admitted raises their tenants' accounts; the parked come
//! back when the one that they wait for has computed their block or stops running. It is set back
//! only after a turn of at least a block's worth of tokens, and its tenant's older requests come
//! to their end before it, so one day it is its tenant's best.
//! Only better priorities that never cease can keep a request waiting, as asked for.
//!
//! Owns no tensors, clock, channel or device: plain data in, plain data out. Deadlines are for the
//! engine, which has a clock, to keep.

mod admission;
mod batch;
mod block_hash;
mod block_manager;
mod block_pool;
mod block_table;
mod config;
mod eviction_order;
mod held;
mod integrity;
mod kv_groups;
mod pending_blocks;
mod priority_level;
mod queue_key;
mod sequence;
mod shares;
mod stats;
mod step;
#[cfg(test)]
mod tests;
mod waiting_queue;

use std::collections::{HashMap, VecDeque};

use crate::core::{FinishReason, GenerateRequest, SeqId, TokenId};
use crate::error::Result;

use block_manager::BlockManager;
use pending_blocks::PendingBlocks;
use queue_key::{ArrivalSeq, QueueKey, Rank};
use waiting_queue::WaitingQueue;

pub use batch::{Batch, Chunk};
pub use block_table::BlockTable;
pub use config::{PrefixCaching, SchedulerConfig};
pub use kv_groups::{BlockCount, KvGroups};
pub use sequence::Sequence;
pub use stats::SchedulerStats;

/// Queues, budget and blocks. See the module's documentation.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    /// By rank; these hold blocks.
    #[expect(
        clippy::vec_box,
        reason = "sequences are large and leave from the middle"
    )]
    running: Vec<Box<Sequence>>,
    /// These hold nothing.
    line: WaitingQueue,
    /// Of every sequence, running or waiting.
    places: HashMap<SeqId, QueueKey>,
    next_arrival: u64,
    next_ticket: u64,
    blocks: BlockManager,
    pending_blocks: PendingBlocks,
    /// Whose chunks the batches that were not taken in yet have, oldest batch first.
    in_flight: VecDeque<Vec<(SeqId, Rank)>>,
    /// The best-ranked sequence whose next image did not fit beside the last step's decodes. It
    /// goes first in the next step.
    overdue: Option<SeqId>,
    counters: Counters,
}

/// What [`SchedulerStats`] counts from the start on.
#[derive(Debug, Default)]
struct Counters {
    num_preemptions: u64,
    prefix_queried_tokens: u64,
    prefix_hit_tokens: u64,
}

impl Scheduler {
    /// # Errors
    /// When nothing could run within these limits ([`SchedulerConfig::validate`]).
    pub fn new(config: SchedulerConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            running: Vec::new(),
            line: WaitingQueue::default(),
            places: HashMap::new(),
            next_arrival: 0,
            next_ticket: 0,
            blocks: BlockManager::new(config.groups, config.num_blocks, config.block_size),
            pending_blocks: PendingBlocks::default(),
            in_flight: VecDeque::new(),
            overdue: None,
            counters: Counters::default(),
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
    /// When `id` is in use. Ids must not be used again either: a stale chunk may name one.
    pub fn add(&mut self, id: SeqId, request: GenerateRequest) -> Result<()> {
        self.config.check(&request)?;
        let arrival = ArrivalSeq(self.next_arrival);
        self.next_arrival += 1;
        let max_len = self.config.max_len(&request);
        let seq = Sequence::new(id, arrival, request, max_len, self.config.block_size);
        let before = self.places.insert(id, seq.place());
        assert!(before.is_none(), "{id} was added twice");
        self.line.add(Box::new(seq));
        Ok(())
    }

    /// Forgets a sequence and frees what it holds, whether it waits, runs or is just being
    /// computed. `false` when there is none (any more). This is also the way on for the sequences
    /// of a step that failed: abort them, then [`update`](Self::update) without tokens.
    pub fn abort(&mut self, id: SeqId) -> bool {
        let Some(place) = self.places.remove(&id) else {
            return false;
        };
        if self.line.remove(&place).is_none() {
            let idx = self
                .running_idx(&place)
                .expect("a sequence that does not wait runs");
            let mut seq = self.running.remove(idx);
            self.stop_running(&mut seq);
        }
        true
    }

    /// [`abort`](Self::abort) of a sequence whose keys and values are not to be trusted: nobody finds
    /// its blocks any more. Those who share some already keep them.
    pub fn abort_unsound(&mut self, id: SeqId) -> bool {
        let hashes = self.sequence(id).map(|seq| seq.hashes().to_vec());
        let was_there = self.abort(id);
        self.blocks.forget(&hashes.unwrap_or_default());
        was_there
    }

    /// Takes in what the oldest batch in flight computed: `sampled` has the token sampled for each
    /// chunk that samples, in the batch's order. Sequences that were aborted or have ended since
    /// [`schedule`](Self::schedule) are skipped, with or without a token; preempted ones keep
    /// theirs. Returns those that ended; they are gone and their blocks free.
    ///
    /// # Panics
    /// When `batch` is not the oldest in flight, or a token is missing.
    pub fn update(
        &mut self,
        batch: &Batch,
        sampled: &[(SeqId, TokenId)],
    ) -> Vec<(SeqId, FinishReason)> {
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
        // The batch and the running sequences are both in the order of ranks, so one pass over
        // both is enough.
        let mut idx = 0;
        for (chunk, (id, rank)) in batch.chunks.iter().zip(flights) {
            while self.running.get(idx).is_some_and(|seq| seq.rank() < rank) {
                idx += 1;
            }
            let runs = self.running.get(idx).is_some_and(|seq| seq.id == id);
            let is_skipped =
                chunk.samples && self.sequence(id).is_some_and(|s| s.is_sample_skipped);
            if runs {
                match is_skipped {
                    false => self.advance(idx, chunk.len),
                    true => self.retract(idx, chunk.len),
                }
            }
            if !chunk.samples {
                continue;
            }
            let seq = if runs {
                &mut self.running[idx]
            } else if let Some(seq) = self.preempted_mut(id) {
                seq
            } else {
                continue;
            };
            if is_skipped {
                seq.forget_sample();
                continue;
            }
            let &(_, token) = sampled
                .find(|&&(of, _)| of == id)
                .expect("each chunk that samples has a token");
            if let Some(reason) = seq.push(token) {
                self.abort(id);
                finished.push((id, reason));
            }
        }
        finished
    }

    /// A sequence that waits or runs.
    pub fn sequence(&self, id: SeqId) -> Option<&Sequence> {
        let place = self.places.get(&id)?;
        match self.running_idx(place) {
            Some(idx) => Some(&self.running[idx]),
            None => self.line.get(place),
        }
    }

    /// Whether there are sequences. [`schedule`](Self::schedule) plans something for them, unless
    /// they need what a batch in flight computes, or are held.
    pub fn has_work(&self) -> bool {
        !self.places.is_empty()
    }

    /// Sequences that hold blocks.
    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait for a slot or for blocks, preempted ones included.
    pub fn num_waiting(&self) -> usize {
        self.line.len()
    }

    /// Blocks that nobody holds, with or without a prefix in them.
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

    /// Gauges and counters.
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

    /// A sequence that has run and waits to run again.
    fn preempted_mut(&mut self, id: SeqId) -> Option<&mut Sequence> {
        let place = self.places.get(&id)?;
        self.line.get_mut(place)
    }

    /// A chunk of a running sequence has been computed.
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

    /// Makes known what a running sequence has filled.
    fn fill_blocks(&mut self, idx: usize) {
        let seq = &mut self.running[idx];
        let before = seq.num_full_blocks;
        seq.num_full_blocks = seq.num_computed_tokens() / self.config.block_size;
        let end = seq.num_full_blocks * self.config.block_size;
        if let Some(num_tokens) = end.checked_sub(seq.num_charged_tokens) {
            // Per block, since each time the tenant's place in the line changes.
            seq.num_charged_tokens = end;
            self.line.charge(&seq.place(), num_tokens);
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
            self.line
                .unpark(waiter.place.priority, waiter.place.arrival);
        }
    }

    /// Takes back all that a sequence has while it runs, and what others expect of it.
    fn stop_running(&mut self, seq: &mut Sequence) {
        self.blocks.free(&mut seq.kv);
        self.pending_blocks.end(
            seq.id,
            &seq.hashes()[seq.num_full_blocks.min(seq.hashes().len())..],
        );
        for waiter in seq.waiters.drain(..) {
            self.line
                .unpark(waiter.place.priority, waiter.place.arrival);
        }
    }
}
