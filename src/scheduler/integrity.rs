//! The scheduler's books, checked: for tests, after every step.

use std::collections::HashSet;

use super::block_pool::BlockPool;
use super::block_table::BlockTable;
use super::sequence::Sequence;
use super::{Age, Scheduler};

impl Scheduler {
    /// Checks everything that the module's documentation promises to hold. Costs time in
    /// proportion to all sequences and blocks.
    ///
    /// # Panics
    /// With what does not hold and the numbers.
    pub fn check_integrity(&self) {
        self.check_queues();
        self.check_budget();
        for seq in &self.running {
            check_progress(seq);
            self.check_tables(seq);
        }
        let tables = || self.running.iter().map(|seq| &seq.kv);
        check_owners("global", &self.blocks.global, tables().map(|kv| &kv.global));
        check_owners(
            "sliding",
            &self.blocks.sliding,
            tables().map(|kv| &kv.sliding),
        );
    }

    fn check_queues(&self) {
        let running = self.running.iter().map(|seq| (seq.age, seq.id));
        let waiting = self.waiting.iter().map(|(&age, seq)| (age, seq.id));
        let line: Vec<_> = running.chain(waiting).collect();
        assert!(
            line.is_sorted_by_key(|&(age, _)| age),
            "a running sequence is newer than another or than one that waits: {line:?}"
        );
        assert_eq!(line.len(), self.ages.len(), "sequences known and queued");
        for (age, id) in line {
            let known: Option<&Age> = self.ages.get(&id);
            assert_eq!(known, Some(&age), "age of {id}");
        }
        for (age, seq) in &self.waiting {
            assert_eq!(*age, seq.age, "place of {} in the waiting line", seq.id);
            assert_eq!(seq.num_computed_tokens(), 0, "{} waits", seq.id);
            assert_eq!(seq.num_scheduled_tokens, 0, "{} waits", seq.id);
            for table in [&seq.kv.global, &seq.kv.sliding] {
                assert!(
                    table.blocks().is_empty(),
                    "{} waits and holds blocks",
                    seq.id
                );
                assert_eq!(table.num_released(), 0, "{} waits", seq.id);
            }
        }
    }

    fn check_budget(&self) {
        assert!(
            self.running.len() <= self.config.max_num_seqs,
            "{} sequences run, at most {} may",
            self.running.len(),
            self.config.max_num_seqs
        );
        let scheduled: usize = self.running.iter().map(|s| s.num_scheduled_tokens).sum();
        assert!(
            scheduled <= self.config.max_num_batched_tokens,
            "{scheduled} tokens scheduled, the budget is {}",
            self.config.max_num_batched_tokens
        );
    }

    fn check_tables(&self, seq: &Sequence) {
        let num_computed = seq.num_computed_tokens();
        let num_placed = num_computed + seq.num_scheduled_tokens;
        let num_logical = num_placed.div_ceil(self.config.block_size);
        let check = |group: &str, table: &BlockTable, first_seen: Option<usize>| {
            let released = first_seen.map_or(0, |first| first / self.config.block_size);
            assert_eq!(
                table.num_released(),
                released,
                "{} with {num_computed} tokens computed: blocks released, {group}",
                seq.id
            );
            let held = first_seen.map_or(0, |_| num_logical - released);
            assert_eq!(
                table.blocks().len(),
                held,
                "{} with places for {num_placed} tokens: blocks held, {group}",
                seq.id
            );
        };
        let groups = self.config.groups;
        // The next query stands at num_computed and sees `window` keys, itself included.
        let first_in_window = groups
            .window()
            .map(|w| (num_computed + 1).saturating_sub(w));
        check("global", &seq.kv.global, groups.has_global().then_some(0));
        check("sliding", &seq.kv.sliding, first_in_window);
    }
}

fn check_progress(seq: &Sequence) {
    assert!(
        seq.num_computed_tokens() + seq.num_scheduled_tokens <= seq.tokens().len()
            && seq.num_computed_tokens() < seq.tokens().len(),
        "{}: {} computed and {} scheduled of {} tokens",
        seq.id,
        seq.num_computed_tokens(),
        seq.num_scheduled_tokens,
        seq.tokens().len()
    );
    let boundaries = [
        seq.num_computed_tokens(),
        seq.num_computed_tokens() + seq.num_scheduled_tokens,
    ];
    for boundary in boundaries {
        let cut = seq.run_around(boundary);
        assert!(cut.is_none(), "{}: {boundary} cuts {cut:?}", seq.id);
    }
}

fn check_owners<'a>(group: &str, pool: &BlockPool, tables: impl Iterator<Item = &'a BlockTable>) {
    let held = tables.flat_map(|table| table.blocks().iter().copied());
    let mut seen = HashSet::new();
    for block in pool.free().chain(held) {
        assert!(
            (block.0 as usize) < pool.num_blocks(),
            "{group}: {block:?} of {}",
            pool.num_blocks()
        );
        assert!(seen.insert(block), "{group}: {block:?} has two owners");
    }
    assert_eq!(
        seen.len(),
        pool.num_blocks(),
        "{group}: blocks free or held"
    );
}
