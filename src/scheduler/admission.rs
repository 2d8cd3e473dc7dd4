//! Admission: from the waiting line to the running sequences.

use super::block_manager::CachedPrefix;
use super::queue_key::AdmissionSeq;
use super::sequence::Waiter;
use super::step::Step;
use super::{BlockCount, PrefixCaching, Scheduler, Sequence};
use crate::core::{SeqId, TenantId};

/// A running sequence that will have filled so many blocks of another one's beginning.
struct Producer {
    id: SeqId,
    num_blocks: usize,
}

/// Who may be admitted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Admits {
    All,
    /// Those of a smaller priority than this.
    BetterThan(i32),
    /// Those of this priority, but not this tenant's.
    Others(i32, TenantId),
}

/// When the front of the line is to be admitted.
enum Turn {
    Now,
    /// It was parked: the next one is the front.
    Aside,
    /// The line waits for it.
    Later,
}

impl Scheduler {
    /// One after the other in the order of the line: when the front has to wait, so do all behind
    /// it. Only who needs what a running sequence is just computing steps aside.
    ///
    /// Blocks are asked for the whole prompt and the beginning of its answer, not only for the
    /// first chunk, and beside what the running sequences will still take. Otherwise sequences are
    /// admitted, preempted and computed again: with pools that hold 45 sequences, a third of all
    /// tokens, where this way it is a quarter of a percent.
    pub(super) fn admit_waiting(&mut self, admits: Admits, step: &mut Step) {
        if step.budget == 0 || !self.front_may_run(admits) {
            return;
        }
        let mut claimed = self.claimed();
        while step.budget > 0 && self.front_may_run(admits) {
            let front = self.line.front_mut().expect("just looked at it");
            if step.preempted.contains(&front.id) {
                // Blocks were too few for it a moment ago, and its token may be in flight.
                return;
            }
            let mut prefix = CachedPrefix::default();
            if self.config.prefix_caching == PrefixCaching::On {
                front.extend_hashes(front.tokens().len());
                match self.follow_leader() {
                    Turn::Aside => continue,
                    Turn::Later => return,
                    Turn::Now => {}
                }
                let front = self.line.front().expect("it was not parked");
                prefix = self.blocks.find_prefix(front);
            }
            let front = self.line.front().expect("just looked at it");
            let claim = self.claim_with(front, &prefix);
            let has_slot = self.running.len() < self.config.max_num_seqs;
            if has_slot && (claimed + claim).fits_in(self.blocks.num_free()) {
                let num_preempted = step.preempted.len();
                let idx = self.admit(&prefix);
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

    /// Whether there is a slot for the front of the line, or a running sequence of a worse
    /// priority that has one.
    pub(super) fn front_may_run(&self, admits: Admits) -> bool {
        let Some(front) = self.line.front() else {
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

    /// Whether a claim would fit if all running sequences of a worse priority than `priority`
    /// were gone, and there are any. Shared blocks are counted as if they came free, so at worst
    /// somebody is preempted in vain, who then finds his blocks in the cache.
    fn preemption_makes_room(&self, priority: i32, claim: BlockCount) -> bool {
        let first_worse = self
            .running
            .partition_point(|seq| seq.scheduling().priority <= priority);
        let (others, worse) = self.running.split_at(first_worse);
        let freed: BlockCount = worse.iter().map(|seq| seq.kv.num_held()).sum();
        let claimed: BlockCount = others.iter().map(|seq| self.claim(seq)).sum();
        !worse.is_empty() && (claimed + claim).fits_in(self.blocks.num_free() + freed)
    }

    /// The front of the line runs from now on; at which index. It begins behind its prefix.
    fn admit(&mut self, prefix: &CachedPrefix) -> usize {
        let mut seq = self.line.pop_front().expect("who admits it has seen it");
        self.blocks.adopt(&mut seq.kv, prefix);
        seq.begin(prefix.num_blocks, self.config.max_num_batched_tokens);
        if seq.admission_seq.is_none() {
            seq.admission_seq = Some(AdmissionSeq(self.next_ticket));
            self.next_ticket += 1;
            self.places.insert(seq.id, seq.place());
        }
        if !seq.has_run {
            seq.has_run = true;
            self.count_first_admission(&mut seq);
        }
        // What it repeats after a preemption is promised too, but not what it has yet to say.
        self.pending_blocks.make(
            seq.id,
            &seq.hashes()[prefix.num_blocks.min(seq.hashes().len())..],
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
        self.line.charge(&seq.place(), num_computed);
        let looked = seq.wanted_prompt_logprobs().is_none();
        if looked && self.config.prefix_caching == PrefixCaching::On {
            self.counters.prefix_queried_tokens += seq.num_prompt_tokens() as u64;
            self.counters.prefix_hit_tokens += seq.num_cached_tokens as u64;
        }
    }

    /// What the running sequences will still take.
    fn claimed(&self) -> BlockCount {
        self.running.iter().map(|seq| self.claim(seq)).sum()
    }

    /// What a running sequence will still take for the tokens it has and a block's worth of new
    /// ones.
    pub(super) fn claim(&self, seq: &Sequence) -> BlockCount {
        self.needed(seq, seq.num_missing_tokens())
            .saturating_sub(seq.kv.num_held())
    }

    /// The same for a waiting one that begins with `prefix`, in free blocks.
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

    /// Parks the front of the line when a running sequence will have computed more of its
    /// beginning than is in the cache now. Not so if that one is of a worse priority, or if
    /// already as many are parked as may run: then the line waits, which keeps the cost of a step
    /// independent of its length.
    fn follow_leader(&mut self) -> Turn {
        let front = self.line.front().expect("the caller has seen it");
        // A preempted one has its turn now; most of what it needs is in the cache anyway.
        if front.has_run {
            return Turn::Now;
        }
        let Some(producer) = self.leader_of(front) else {
            return Turn::Now;
        };
        let place = self.places[&producer.id];
        let idx = self.running_idx(&place).expect("who promises runs");
        if place.priority > front.scheduling().priority {
            return Turn::Now;
        }
        if self.line.num_parked() == self.config.max_num_seqs {
            return Turn::Later;
        }
        let waiter = Waiter {
            place: front.place(),
            num_blocks: producer.num_blocks,
        };
        self.running[idx].waiters.push(waiter);
        self.line.park_front();
        Turn::Aside
    }

    /// Who will fill the last block of what a waiting sequence can begin with, if everybody keeps
    /// his promises and that is more than there is now.
    fn leader_of(&self, seq: &Sequence) -> Option<Producer> {
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
