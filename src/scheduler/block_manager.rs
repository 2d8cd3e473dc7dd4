//! Who holds which KV block, in both groups, and which prefixes are in them.
//!
//! Asking is apart from doing: [`BlockManager::can_allocate`] and [`BlockManager::find_prefix`]
//! change nothing, and what follows on them cannot fail. Knows nothing of queues and budgets.
//!
//! Nobody writes a block that others read: only full blocks have a hash, only blocks with a hash
//! are shared, and a sequence writes positions behind its shared blocks only.

use crate::core::BlockId;

use super::block_hash::BlockHash;
use super::block_pool::BlockPool;
use super::block_table::BlockTable;
use super::kv_groups::{BlockCount, KvGroups};
use super::sequence::Sequence;

/// One sequence's blocks in both groups; the table of a group that the model lacks stays empty.
#[derive(Debug)]
pub(super) struct KvTables {
    pub(super) global: BlockTable,
    pub(super) sliding: BlockTable,
}

impl KvTables {
    pub(super) fn new(block_size: usize) -> Self {
        Self {
            global: BlockTable::new(block_size),
            sliding: BlockTable::new(block_size),
        }
    }

    pub(super) fn num_held(&self) -> BlockCount {
        BlockCount {
            global: self.global.blocks().len(),
            sliding: self.sliding.blocks().len(),
        }
    }
}

/// The beginning of a sequence that is in the cache.
#[derive(Debug, Default)]
pub(super) struct CachedPrefix {
    pub(super) num_blocks: usize,
    /// All of them, or none where there is no such group.
    global: Vec<BlockId>,
    /// Those that hold the last `window − 1` positions.
    sliding: Vec<BlockId>,
    /// Of both, how many somebody holds: these take no free block.
    pub(super) num_held: BlockCount,
}

#[derive(Debug)]
pub(super) struct BlockManager {
    groups: KvGroups,
    block_size: usize,
    pub(super) global: BlockPool,
    pub(super) sliding: BlockPool,
}

impl BlockManager {
    pub(super) fn new(groups: KvGroups, num_blocks: BlockCount, block_size: usize) -> Self {
        Self {
            groups,
            block_size,
            global: BlockPool::new(num_blocks.global),
            sliding: BlockPool::new(num_blocks.sliding),
        }
    }

    pub(super) fn num_free(&self) -> BlockCount {
        BlockCount {
            global: self.global.num_free(),
            sliding: self.sliding.num_free(),
        }
    }

    pub(super) fn num_cached(&self) -> BlockCount {
        BlockCount {
            global: self.global.num_cached(),
            sliding: self.sliding.num_cached(),
        }
    }

    /// Whether there are blocks for positions up to `end` (exclusive).
    pub(super) fn can_allocate(&self, tables: &KvTables, end: usize) -> bool {
        self.num_missing(tables, end).fits_in(self.num_free())
    }

    /// The same when `soon` blocks more will be free.
    pub(super) fn can_allocate_with(
        &self,
        soon: BlockCount,
        tables: &KvTables,
        end: usize,
    ) -> bool {
        self.num_missing(tables, end)
            .fits_in(self.num_free() + soon)
    }

    /// Makes room for positions up to `end` (exclusive).
    ///
    /// # Panics
    /// When [`can_allocate`](Self::can_allocate) says no.
    pub(super) fn allocate(&mut self, tables: &mut KvTables, end: usize) {
        let missing = self.num_missing(tables, end);
        if missing == BlockCount::default() {
            return;
        }
        tables.global.extend(self.global.take(missing.global));
        tables.sliding.extend(self.sliding.take(missing.sliding));
    }

    /// Gives back what no later query sees: the next one stands at position `num_computed_tokens`
    /// and sees the keys k > num_computed_tokens − window.
    pub(super) fn release_behind_window(
        &mut self,
        tables: &mut KvTables,
        num_computed_tokens: usize,
    ) {
        // Mostly no block is behind it entirely, and this is asked for each token.
        if let Some(first_seen) = self.first_seen(num_computed_tokens)
            && first_seen >= tables.sliding.first_position() + self.block_size
        {
            self.sliding
                .give_back(tables.sliding.release_before(first_seen));
        }
    }

    /// Gives back the blocks of which no position is before `end`: those that were taken for
    /// positions which are not computed after all. They are nobody else's.
    pub(super) fn release_behind(&mut self, tables: &mut KvTables, end: usize) {
        self.global.give_back(tables.global.release_behind(end));
        self.sliding.give_back(tables.sliding.release_behind(end));
    }

    /// Blocks that [`release_behind_window`](Self::release_behind_window) would give back.
    pub(super) fn num_behind_window(
        &self,
        tables: &KvTables,
        num_computed_tokens: usize,
    ) -> BlockCount {
        let first_seen = self.first_seen(num_computed_tokens).unwrap_or(0);
        BlockCount {
            global: 0,
            sliding: (first_seen / self.block_size).saturating_sub(tables.sliding.num_released()),
        }
    }

    /// Gives everything back, the end of the sequence first: its beginning is what another
    /// sequence is most likely to share, so it should be the last to be overwritten.
    pub(super) fn free(&mut self, tables: &mut KvTables) {
        self.global.give_back(tables.global.clear());
        self.sliding.give_back(tables.sliding.clear());
    }

    /// The longest beginning of a sequence that need not be computed: whole blocks, no image cut
    /// in two, at least one token left. Global layers need all of its blocks, sliding layers those
    /// that the next query sees:
    ///
    /// ```text
    ///   global    [c][c][c][c][c][ ]      c: in the cache. Up to 5 by the global group; but block 4
    ///   sliding   [ ][ ][c][c][ ][ ]      is not there for the sliding one, so 4, if the window
    ///                                     reaches no further back than block 2.
    /// ```
    pub(super) fn find_prefix(&self, seq: &Sequence) -> CachedPrefix {
        let hashes = seq.sharable_hashes();
        let mut prefix = CachedPrefix {
            num_blocks: hashes.len(),
            ..CachedPrefix::default()
        };
        if self.groups.has_global() {
            let found = hashes.iter().map_while(|hash| self.global.find(hash));
            prefix.global = found.collect();
            prefix.num_blocks = prefix.global.len();
        }
        loop {
            prefix.num_blocks = seq.whole_blocks_within(prefix.num_blocks);
            let mut window = self.blocks_in_window(prefix.num_blocks);
            let found = window.clone().map(|idx| self.sliding.find(&hashes[idx]));
            let missing = window.rfind(|&idx| self.sliding.find(&hashes[idx]).is_none());
            match missing {
                // Whatever ends between the missing block and here needs it too.
                Some(missing) => prefix.num_blocks = missing,
                None => {
                    prefix.sliding = found.flatten().collect();
                    break;
                }
            }
        }
        prefix.global.truncate(prefix.num_blocks);
        let held = |pool: &BlockPool, blocks: &[BlockId]| {
            blocks.iter().filter(|&&block| pool.is_held(block)).count()
        };
        prefix.num_held = BlockCount {
            global: held(&self.global, &prefix.global),
            sliding: held(&self.sliding, &prefix.sliding),
        };
        prefix
    }

    /// Whether the group that decides how far a prefix reaches has this block.
    pub(super) fn is_cached(&self, hash: &BlockHash) -> bool {
        let pool = if self.groups.has_global() {
            &self.global
        } else {
            &self.sliding
        };
        pool.find(hash).is_some()
    }

    /// Begins empty tables with a prefix that was just found.
    pub(super) fn adopt(&mut self, tables: &mut KvTables, prefix: &CachedPrefix) {
        for &block in &prefix.global {
            self.global.share(block);
        }
        for &block in &prefix.sliding {
            self.sliding.share(block);
        }
        tables.global.begin(0, &prefix.global);
        if self.groups.window().is_some() {
            let first = self.blocks_in_window(prefix.num_blocks).start;
            tables.sliding.begin(first, &prefix.sliding);
        }
    }

    /// A block of a sequence is full and computed: others may use it from now on.
    pub(super) fn register(&mut self, tables: &KvTables, idx: usize, hash: BlockHash) {
        if let Some(block) = tables.global.block(idx) {
            self.global.register(block, hash);
        }
        if let Some(block) = tables.sliding.block(idx) {
            self.sliding.register(block, hash);
        }
    }

    /// Blocks with these contents are not found any more.
    pub(super) fn forget(&mut self, hashes: &[BlockHash]) {
        for hash in hashes {
            self.global.forget(hash);
            self.sliding.forget(hash);
        }
    }

    /// The logical blocks of the sliding group that a query behind `num_blocks` blocks sees.
    fn blocks_in_window(&self, num_blocks: usize) -> std::ops::Range<usize> {
        match self.first_seen(num_blocks * self.block_size) {
            Some(first_seen) => (first_seen / self.block_size).min(num_blocks)..num_blocks,
            None => num_blocks..num_blocks,
        }
    }

    /// First key that a sliding layer's query at `position` sees, if there are such layers.
    fn first_seen(&self, position: usize) -> Option<usize> {
        let window = self.groups.window()?;
        Some((position + 1).saturating_sub(window))
    }

    fn num_missing(&self, tables: &KvTables, end: usize) -> BlockCount {
        let has_sliding = self.groups.window().is_some();
        BlockCount {
            global: if self.groups.has_global() {
                tables.global.num_missing(end)
            } else {
                0
            },
            sliding: if has_sliding {
                tables.sliding.num_missing(end)
            } else {
                0
            },
        }
    }
}
