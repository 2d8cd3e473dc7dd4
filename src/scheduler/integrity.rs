//! Consistency checks of the scheduler's state, which tests run after every step; not part of the
//! program.

use std::collections::{HashMap, HashSet};

use crate::core::{BlockId, BlockTable, PrefixCaching};

use super::Scheduler;
use super::block_pool::BlockPool;
use super::sequence::Sequence;

impl Scheduler {
    /// Checks all invariants that the module's documentation lists. Takes time proportional to all
    /// sequences and blocks.
    ///
    /// # Panics
    /// Panics with the violated invariant and the numbers.
    pub(super) fn check_integrity(&self) {
        self.check_queues();
        self.check_waiting();
        self.check_promises();
        self.check_in_flight();
        for seq in &self.running {
            self.check_progress(seq);
            self.check_tables(seq);
        }
        for idx in 0..self.config.groups.num_groups() {
            let (group, pool) = (&*self.config.groups.name(idx), self.blocks.pool(idx));
            let tables = self.running.iter().map(|seq| &seq.tables()[idx]);
            check_owners(group, pool, tables);
            check_hashes(group, pool);
            for seq in &self.running {
                check_contents(group, pool, seq, &seq.tables()[idx]);
            }
        }
    }

    fn check_queues(&self) {
        assert!(
            self.running.len() <= self.config.max_num_seqs,
            "{} sequences run, at most {} may",
            self.running.len(),
            self.config.max_num_seqs
        );
        let ranks: Vec<_> = self.running.iter().map(|seq| seq.rank()).collect();
        assert!(
            ranks.is_sorted_by(|a, b| a < b),
            "running sequences are in the order of their ranks: {ranks:?}"
        );
        let running = self.running.iter().map(Box::as_ref);
        let waiting = self.waiting.levels().flat_map(|(_, level)| level.iter());
        assert_eq!(
            self.running.len() + self.waiting.len(),
            self.places.len(),
            "sequences known and queued"
        );
        let mut seen = HashSet::new();
        for seq in running.chain(waiting) {
            assert!(seen.insert(seq.id), "{} is in two queues", seq.id);
            let known = self.places.get(&seq.id);
            assert_eq!(known, Some(&seq.place()), "place of {}", seq.id);
            assert!(
                seq.admission_seq
                    .is_none_or(|t| t.0 < self.next_admission_seq),
                "{}",
                seq.id
            );
        }
        assert_eq!(seen.len(), self.places.len(), "sequences queued");
        for (priority, level) in self.waiting.levels() {
            assert!(!level.is_empty(), "nobody waits at {priority}");
            level.check_fronts();
            for waits in level.preempted() {
                let tenant = waits.scheduling().tenant;
                let runs = self.running.iter().filter(|seq| {
                    let scheduling = seq.scheduling();
                    scheduling.priority == priority && scheduling.tenant == tenant
                });
                let newest = runs.filter_map(|seq| seq.admission_seq).max();
                assert!(
                    newest < waits.admission_seq,
                    "{newest:?} runs while {:?} waits at {priority}",
                    waits.admission_seq
                );
            }
        }
    }

    fn check_waiting(&self) {
        let mut num_deferred = 0;
        for (priority, level) in self.waiting.levels() {
            for seq in level.iter() {
                assert_eq!(priority, seq.scheduling().priority, "{} waits", seq.id);
                assert_eq!(seq.num_launched_tokens(), 0, "{} waits", seq.id);
                assert_eq!(seq.num_planned_tokens, 0, "{} waits", seq.id);
                assert_eq!(seq.num_full_blocks, 0, "{} waits", seq.id);
                assert!(seq.waiters.is_empty(), "{} waits and leads", seq.id);
                assert!(
                    seq.has_run || seq.admission_seq.is_none(),
                    "{} waits",
                    seq.id
                );
                let most_pending = if seq.has_run { self.in_flight.len() } else { 0 };
                assert!(seq.num_pending_tokens() <= most_pending, "{} waits", seq.id);
                for table in seq.tables() {
                    assert!(
                        table.blocks().is_empty(),
                        "{} waits and holds blocks",
                        seq.id
                    );
                    assert_eq!(table.num_released(), 0, "{} waits", seq.id);
                }
            }
            for seq in level.deferred() {
                num_deferred += 1;
                let place = seq.place();
                let leads = |producer: &Sequence| producer.waiters.iter().any(|f| f.place == place);
                assert!(
                    self.running.iter().any(|producer| leads(producer)),
                    "nobody will wake {}",
                    seq.id
                );
            }
        }
        assert_eq!(
            num_deferred,
            self.waiting.num_deferred(),
            "deferred sequences"
        );
        assert!(
            num_deferred <= self.config.max_num_seqs,
            "{num_deferred} deferred"
        );
    }

    fn check_promises(&self) {
        let running = self.running.iter().map(|seq| (seq.id, seq));
        let running: HashMap<_, _> = running.collect();
        for (hash, id) in self.pending_blocks.iter() {
            let producer = running.get(&id);
            let keeps =
                producer.is_some_and(|seq| seq.hashes()[seq.num_full_blocks..].contains(&hash));
            assert!(keeps, "{id} promised a block and will not fill it");
        }
    }

    fn check_in_flight(&self) {
        assert!(
            self.in_flight.len() <= 2,
            "{} batches in flight",
            self.in_flight.len()
        );
        let budget = self.config.max_num_batched_tokens * self.in_flight.len();
        let scheduled: usize = self.running.iter().map(|s| s.num_scheduled_tokens()).sum();
        assert!(
            scheduled <= budget,
            "{scheduled} tokens scheduled, the budget is {budget}"
        );
    }

    fn check_progress(&self, seq: &Sequence) {
        let id = seq.id;
        assert_eq!(seq.num_planned_tokens, 0, "{id} between two plans");
        let flights = self.in_flight.iter().flatten();
        let num_chunks = flights.filter(|&&(of, _)| of == id).count();
        let num_scheduled = seq.num_scheduled_tokens();
        assert_eq!(num_chunks > 0, num_scheduled > 0, "{id}: chunks in flight");
        assert!(
            seq.num_pending_tokens() <= num_chunks,
            "{id}: tokens sampled"
        );
        // A token is pending exactly if the last token is being computed; drafts are behind it.
        let num_launched = seq.num_launched_tokens();
        let num_drafts = match seq.num_pending_tokens() {
            0 => 0,
            _ => seq.drafts().len(),
        };
        assert!(
            num_launched < seq.len() + num_drafts,
            "{id}: {num_launched} launched of {} and {num_drafts} drafts",
            seq.len()
        );
        assert!(
            seq.len() + num_drafts <= seq.max_computed_tokens() + 1,
            "{id}: {} and {num_drafts} drafts are more than may be computed",
            seq.len()
        );
        if seq.num_pending_tokens() > 0 {
            assert_eq!(
                num_launched + 1,
                seq.len() + num_drafts,
                "{id}: launched and sampled"
            );
        }
        assert!(
            seq.num_computed_tokens() < seq.tokens().len(),
            "{id}: {} computed of {}",
            seq.num_computed_tokens(),
            seq.tokens().len()
        );
        for boundary in [seq.num_computed_tokens(), num_launched] {
            let cut = seq.run_around(boundary);
            assert!(cut.is_none(), "{id}: {boundary} cuts {cut:?}");
        }
        let num_full = seq.num_computed_tokens() / self.config.block_size;
        assert_eq!(seq.num_full_blocks, num_full, "{id}: full blocks");
        let num_hashes = seq.hashes().len();
        match self.config.prefix_caching {
            PrefixCaching::On => assert!(num_hashes >= num_full, "{id}: {num_hashes} hashes"),
            PrefixCaching::Off => assert_eq!(num_hashes, 0, "{id}: hashes"),
        }
    }

    fn check_tables(&self, seq: &Sequence) {
        let num_computed = seq.num_computed_tokens();
        let num_placed = seq.num_launched_tokens();
        let num_logical = num_placed.div_ceil(self.config.block_size);
        let groups = self.config.groups;
        for (idx, window) in groups.windows().iter().enumerate() {
            let (group, table) = (groups.name(idx), &seq.tables()[idx]);
            // The next query is at num_computed and sees `window` keys, itself included.
            let first_seen = window.map_or(0, |w| (num_computed + 1).saturating_sub(w));
            let released = first_seen / self.config.block_size;
            assert_eq!(
                table.num_released(),
                released,
                "{} with {num_computed} tokens computed: blocks released, {group}",
                seq.id
            );
            assert_eq!(
                table.blocks().len(),
                num_logical - released,
                "{} with places for {num_placed} tokens: blocks held, {group}",
                seq.id
            );
        }
    }
}

/// Checks that blank + cached + held = total, and that reference counts match the tables.
fn check_owners<'a>(group: &str, pool: &BlockPool, tables: impl Iterator<Item = &'a BlockTable>) {
    let mut num_holders: HashMap<BlockId, usize> = HashMap::new();
    for table in tables {
        let mut own = HashSet::new();
        for &block in table.blocks() {
            assert!(own.insert(block), "{group}: {block:?} twice in a table");
            *num_holders.entry(block).or_default() += 1;
        }
    }
    for (block, &num) in &num_holders {
        assert_eq!(pool.num_refs(*block), num, "{group}: holders of {block:?}");
    }
    let mut free = HashSet::new();
    for block in pool.blank() {
        assert!(free.insert(block), "{group}: {block:?} is free twice");
        assert_eq!(pool.hash(block), None, "{group}: {block:?} is blank");
    }
    for block in pool.cached() {
        assert!(free.insert(block), "{group}: {block:?} is free twice");
        assert!(pool.hash(block).is_some(), "{group}: {block:?} is cached");
    }
    for block in &free {
        assert_eq!(pool.num_refs(*block), 0, "{group}: {block:?} is free");
        assert!(
            !num_holders.contains_key(block),
            "{group}: {block:?} is held"
        );
    }
    assert_eq!(free.len(), pool.num_free(), "{group}: free blocks counted");
    assert_eq!(
        free.len() + num_holders.len(),
        pool.num_blocks(),
        "{group}: blocks free and held"
    );
}

/// Checks that the blocks and the map of hashes agree.
fn check_hashes(group: &str, pool: &BlockPool) {
    let mut num_known = 0;
    for (hash, block) in pool.hashes() {
        num_known += 1;
        assert_eq!(pool.hash(block), Some(hash), "{group}: {block:?}");
    }
    let last = u32::try_from(pool.num_blocks()).expect("a pool has fewer than 2^32 blocks");
    let blocks = (0..last).map(BlockId);
    let num_hashed = blocks.filter(|&block| pool.hash(block).is_some()).count();
    assert_eq!(num_hashed, num_known, "{group}: blocks with a hash");
}

/// Checks that blocks which others can find are full and computed, so that no sequence writes them,
/// and that their contents are what the sequence expects.
fn check_contents(group: &str, pool: &BlockPool, seq: &Sequence, table: &BlockTable) {
    for (idx, &block) in (table.num_released()..).zip(table.blocks()) {
        let hash = pool.hash(block);
        if let Some(hash) = hash {
            assert!(
                idx < seq.num_full_blocks,
                "{}: {group} block {idx} can be found and is written",
                seq.id
            );
            assert_eq!(seq.hashes()[idx], hash, "{}: {group} block {idx}", seq.id);
        }
        assert!(
            hash.is_some() || pool.num_refs(block) == 1 || pool.is_withdrawn(block),
            "{}: {group} block {idx} is shared and has no hash",
            seq.id
        );
    }
}
