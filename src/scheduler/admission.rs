//! Admission: moves sequences from the waiting queue to the running ones.

use super::block_manager::CachedPrefix;
use super::queue_key::AdmissionSeq;
use super::sequence::Waiter;
use super::step::Step;
use super::{Scheduler, Sequence};
use crate::core::{BlockCount, PrefixCaching, SeqId, TenantId};

/// A running sequence that will fill the first `num_blocks` blocks that another sequence needs.
struct Producer {
    id: SeqId,
    num_blocks: usize,
}

/// Which waiting sequences may be admitted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Admits {
    All,
    /// Only sequences with a smaller priority value than this.
    BetterThan(i32),
    /// Only sequences of this priority that belong to another tenant than this.
    Others(i32, TenantId),
}

/// What to do with the front of the waiting queue.
enum Turn {
    Now,
    /// The front was deferred; the next sequence is the front now.
    Aside,
    /// Nothing is admitted in this step: the whole queue waits for the front.
    Later,
}

impl Scheduler {
    /// Admits waiting sequences in the order of the queue. When the front has to wait, all behind
    /// it wait too. Only a sequence that needs blocks which a running one is just computing is
    /// deferred.
    ///
    /// A sequence is admitted only if the pools have blocks for its whole prompt and the beginning
    /// of its answer, on top of what the running sequences will still need. If it asked for the
    /// blocks of its first chunk only, sequences would be admitted, preempted and computed again:
    /// with pools that hold 45 sequences, that recomputes a third of all tokens, and this rule a
    /// quarter of a percent.
    pub(super) fn admit_waiting(&mut self, admits: Admits, step: &mut Step) {
        if step.budget == 0 || !self.front_may_run(admits) {
            return;
        }
        let mut claimed = self.claimed();
        while step.budget > 0 && self.front_may_run(admits) {
            let front = self.waiting.front_mut().expect("just looked at it");
            if step.preempted.contains(&front.id) {
                // It was preempted in this step for lack of blocks, and its token may be in flight.
                return;
            }
            let mut prefix = CachedPrefix::default();
            if self.config.prefix_caching == PrefixCaching::On {
                front.extend_hashes(front.tokens().len());
                match self.follow_producer() {
                    Turn::Aside => continue,
                    Turn::Later => return,
                    Turn::Now => {}
                }
                let front = self.waiting.front().expect("it was not deferred");
                prefix = self.blocks.find_prefix(front);
            }
            let front = self.waiting.front().expect("just looked at it");
            let claim = self.claim_with(front, &prefix);
            let has_slot = self.running.len() < self.config.max_num_seqs;
            if has_slot && (claimed + claim).fits_in(self.blocks.num_free()) {
                let num_preempted = step.preempted.len();
                let idx = self.admit(prefix);
                self.schedule_chunk(idx, step.budget, step);
                claimed = if num_preempted == step.preempted.len() {
                    claimed + self.claim(&self.running[idx])
                } else {
                    self.claimed()
                };
            } else if self.preemption_makes_room(front.scheduling().priority, claim) {
                self.preempt_last(step);
                claimed = self.claimed();
            } else if let Some(victims) = self.over_their_share(claim, claimed) {
                self.set_back(&victims, step);
                claimed = self.claimed();
            } else {
                return;
            }
        }
    }

    /// Returns whether there is a slot for the front of the waiting queue, or a running sequence
    /// whose slot it may take.
    pub(super) fn front_may_run(&self, admits: Admits) -> bool {
        let Some(front) = self.waiting.front() else {
            return false;
        };
        let comes_now = match admits {
            Admits::All => true,
            Admits::BetterThan(priority) => front.scheduling().priority < priority,
            Admits::Others(priority, tenant) => {
                front.scheduling().priority == priority && front.scheduling().tenant != tenant
            }
        };
        let has_slot = self.running.len() < self.config.max_num_seqs;
        comes_now && (has_slot || self.is_better_than_last(front) || self.may_claim_share(front))
    }

    fn is_better_than_last(&self, seq: &Sequence) -> bool {
        let last = self.running.last();
        last.is_some_and(|last| seq.scheduling().priority < last.scheduling().priority)
    }

    /// Whether a claim would fit if all running sequences of a worse priority than `priority` were
    /// preempted (`false` if there are none). Shared blocks are counted as if they became free. In
    /// the worst case a sequence is preempted unnecessarily; its blocks are then still in the
    /// prefix cache.
    fn preemption_makes_room(&self, priority: i32, claim: BlockCount) -> bool {
        let first_worse = self
            .running
            .partition_point(|seq| seq.scheduling().priority <= priority);
        let (others, worse) = self.running.split_at(first_worse);
        let freed: BlockCount = worse.iter().map(|seq| seq.kv.num_held()).sum();
        let claimed: BlockCount = others.iter().map(|seq| self.claim(seq)).sum();
        !worse.is_empty() && (claimed + claim).fits_in(self.blocks.num_free() + freed)
    }

    /// Moves the front of the waiting queue to the running sequences, starting behind its cached
    /// prefix, and returns its index there.
    fn admit(&mut self, prefix: CachedPrefix) -> usize {
        let mut seq = self.waiting.pop_front().expect("who admits it has seen it");
        let num_cached_blocks = prefix.num_blocks;
        self.blocks.adopt(&mut seq.kv, prefix);
        seq.begin(num_cached_blocks, self.config.max_num_batched_tokens);
        if seq.admission_seq.is_none() {
            seq.admission_seq = Some(AdmissionSeq(self.next_admission_seq));
            self.next_admission_seq += 1;
            self.places.insert(seq.id, seq.place());
        }
        if !seq.has_run {
            seq.has_run = true;
            self.count_first_admission(&mut seq);
        }
        // After a preemption, this includes blocks with generated tokens that are computed again;
        // tokens not generated yet have no hash.
        self.pending_blocks.make(
            seq.id,
            &seq.hashes()[num_cached_blocks.min(seq.hashes().len())..],
        );
        let rank = seq.rank();
        let idx = self.running.partition_point(|other| other.rank() < rank);
        self.running.insert(idx, seq);
        idx
    }

    fn count_first_admission(&mut self, seq: &mut Sequence) {
        seq.num_cached_tokens = seq.num_computed_tokens();
        seq.num_charged_tokens = seq.num_prompt_tokens();
        let num_computed = seq.num_prompt_tokens() - seq.num_cached_tokens;
        self.waiting.charge(&seq.place(), num_computed);
        let looked = seq.wanted_prompt_logprobs().is_none();
        if looked && self.config.prefix_caching == PrefixCaching::On {
            self.counters.prefix_queried_tokens += seq.num_prompt_tokens() as u64;
            self.counters.prefix_hit_tokens += seq.num_cached_tokens as u64;
        }
    }

    /// Blocks that the running sequences will still need.
    fn claimed(&self) -> BlockCount {
        self.running.iter().map(|seq| self.claim(seq)).sum()
    }

    /// Blocks that a running sequence will still need for its present tokens and one block of new
    /// ones.
    pub(super) fn claim(&self, seq: &Sequence) -> BlockCount {
        self.needed(seq, seq.num_missing_tokens())
            .saturating_sub(seq.kv.num_held())
    }

    /// Free blocks that a waiting sequence needs if it begins with `prefix`; see
    /// [`claim`](Self::claim).
    fn claim_with(&self, seq: &Sequence, prefix: &CachedPrefix) -> BlockCount {
        let num_cached = prefix.num_blocks * self.config.block_size;
        self.needed(seq, seq.num_missing_tokens() - num_cached)
            .saturating_sub(prefix.num_held)
    }

    fn needed(&self, seq: &Sequence, num_missing: usize) -> BlockCount {
        let config = &self.config;
        let soon = seq.len() + config.block_size;
        let num_tokens = soon.min(seq.max_computed_tokens());
        let max_chunk = num_missing.clamp(1, config.max_num_batched_tokens);
        config
            .groups
            .blocks_for(num_tokens, max_chunk, config.block_size)
    }

    /// Defers the front of the queue when a running sequence will have computed more of its prefix
    /// than is in the cache now. It is not deferred if that sequence has a worse priority. If as
    /// many sequences are deferred as may run, the queue waits instead; this keeps the cost of a
    /// step independent of the queue's length.
    fn follow_producer(&mut self) -> Turn {
        let front = self.waiting.front().expect("the caller has seen it");
        // A preempted sequence is not deferred; most of what it needs is in the cache anyway.
        if front.has_run {
            return Turn::Now;
        }
        let Some(producer) = self.producer_of(front) else {
            return Turn::Now;
        };
        let place = self.places[&producer.id];
        let idx = self.running_idx(&place).expect("who promises runs");
        if place.priority > front.scheduling().priority {
            return Turn::Now;
        }
        if self.waiting.num_deferred() == self.config.max_num_seqs {
            return Turn::Later;
        }
        let waiter = Waiter {
            place: front.place(),
            num_blocks: producer.num_blocks,
        };
        self.running[idx].waiters.push(waiter);
        self.waiting.defer_front();
        Turn::Aside
    }

    /// Returns the running sequence that will fill the last uncached block of the longest prefix
    /// that a waiting sequence can use once all pending blocks are computed; `None` if all of that
    /// prefix is cached.
    fn producer_of(&self, seq: &Sequence) -> Option<Producer> {
        let hashes = seq.sharable_hashes();
        let is_coming =
            |hash| self.blocks.is_cached(hash) || self.pending_blocks.producer(hash).is_some();
        let num_coming = hashes.iter().take_while(|hash| is_coming(hash)).count();
        let usable = &hashes[..seq.whole_blocks_within(num_coming)];
        usable.iter().enumerate().rev().find_map(|(idx, hash)| {
            let id = self.pending_blocks.producer(hash)?;
            (!self.blocks.is_cached(hash)).then_some(Producer {
                id,
                num_blocks: idx + 1,
            })
        })
    }
}
