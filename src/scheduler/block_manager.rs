//! Allocates KV blocks of both groups to sequences and finds cached prefixes.
//!
//! Queries and changes are separate: [`BlockManager::can_allocate`] and
//! [`BlockManager::find_prefix`] change nothing, and the changes that follow them cannot fail. This
//! module knows nothing of queues and budgets.
//!
//! No sequence writes a block that others read: only full blocks have a hash, only blocks with a
//! hash are shared, and a sequence writes only positions behind its shared blocks.

use crate::core::{BlockId, BlockTable};

use super::block_hash::BlockHash;
use super::block_pool::BlockPool;
use super::kv_groups::{BlockCount, KvGroups};
use super::sequence::Sequence;

/// One sequence's block tables in both groups; the table of a group that the model lacks stays
/// empty.
#[derive(Debug)]
pub(super) struct KvTables {
    pub(super) global: BlockTable,
    pub(super) sliding: BlockTable,
}

impl KvTables {
    pub(super) fn new(block_size: usize) -> Self {
        Self {
            global: BlockTable::new(block_size, 0, Vec::new()),
            sliding: BlockTable::new(block_size, 0, Vec::new()),
        }
    }

    pub(super) fn num_held(&self) -> BlockCount {
        BlockCount {
            global: self.global.blocks().len(),
            sliding: self.sliding.blocks().len(),
        }
    }
}

/// The prefix of a sequence that is in the cache.
#[derive(Debug, Default)]
pub(super) struct CachedPrefix {
    pub(super) num_blocks: usize,
    /// Blocks of the whole prefix; empty if the model has no global layers.
    global: Vec<BlockId>,
    /// Blocks that hold the last `window − 1` positions of the prefix.
    sliding: Vec<BlockId>,
    /// Number of the above blocks that other sequences hold already; using these takes no free
    /// block.
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

    /// Whether there are enough free blocks for positions up to `end` (exclusive).
    pub(super) fn can_allocate(&self, tables: &KvTables, end: usize) -> bool {
        self.num_missing(tables, end).fits_in(self.num_free())
    }

    /// Like [`can_allocate`](Self::can_allocate), with `soon` more free blocks.
    pub(super) fn can_allocate_with(
        &self,
        soon: BlockCount,
        tables: &KvTables,
        end: usize,
    ) -> bool {
        self.num_missing(tables, end)
            .fits_in(self.num_free() + soon)
    }

    /// Allocates blocks for positions up to `end` (exclusive).
    ///
    /// # Panics
    /// Panics when [`can_allocate`](Self::can_allocate) returns `false`.
    pub(super) fn allocate(&mut self, tables: &mut KvTables, end: usize) {
        let missing = self.num_missing(tables, end);
        if missing == BlockCount::default() {
            return;
        }
        tables.global.extend(self.global.take(missing.global));
        tables.sliding.extend(self.sliding.take(missing.sliding));
    }

    /// Frees the blocks that no later query sees: the next query is at position
    /// `num_computed_tokens` and sees the keys k > num_computed_tokens − window.
    pub(super) fn release_behind_window(
        &mut self,
        tables: &mut KvTables,
        num_computed_tokens: usize,
    ) {
        // Usually no block is entirely behind the window, and this runs for every token.
        if let Some(first_seen) = self.first_seen(num_computed_tokens)
            && first_seen >= tables.sliding.first_position() + self.block_size
        {
            self.sliding
                .give_back(tables.sliding.release_before(first_seen));
        }
    }

    /// Frees the blocks that have no position before `end`: they were allocated for positions that
    /// are not computed after all. No other sequence holds them.
    pub(super) fn release_behind(&mut self, tables: &mut KvTables, end: usize) {
        self.global.give_back(tables.global.release_behind(end));
        self.sliding.give_back(tables.sliding.release_behind(end));
    }

    /// Number of blocks that [`release_behind_window`](Self::release_behind_window) would free.
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

    /// Frees all blocks, the end of the sequence first: its beginning is what another sequence is
    /// most likely to share, so it should be overwritten last.
    pub(super) fn free(&mut self, tables: &mut KvTables) {
        self.global.give_back(tables.global.clear());
        self.sliding.give_back(tables.sliding.clear());
    }

    /// Finds the longest prefix of a sequence that need not be computed. It consists of whole
    /// blocks, does not split an image, and leaves at least one token to compute. Global layers
    /// need all of its blocks, sliding layers those that the next query sees:
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
                // Every prefix that ends between the missing block and here needs that block too.
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

    /// Whether this block is cached in the group that decides how far a prefix reaches.
    pub(super) fn is_cached(&self, hash: &BlockHash) -> bool {
        let pool = if self.groups.has_global() {
            &self.global
        } else {
            &self.sliding
        };
        pool.find(hash).is_some()
    }

    /// Starts a sequence's tables with a prefix that was just found.
    pub(super) fn adopt(&mut self, tables: &mut KvTables, prefix: CachedPrefix) {
        for &block in &prefix.global {
            self.global.share(block);
        }
        for &block in &prefix.sliding {
            self.sliding.share(block);
        }
        let size = self.block_size;
        tables.global = BlockTable::new(size, 0, prefix.global);
        if self.groups.window().is_some() {
            let first = self.blocks_in_window(prefix.num_blocks).start;
            tables.sliding = BlockTable::new(size, first, prefix.sliding);
        }
    }

    /// Registers a block that is full and computed, so that other sequences can find it.
    pub(super) fn register(&mut self, tables: &KvTables, idx: usize, hash: BlockHash) {
        if let Some(block) = tables.global.block(idx) {
            self.global.register(block, hash);
        }
        if let Some(block) = tables.sliding.block(idx) {
            self.sliding.register(block, hash);
        }
    }

    /// Removes the hashes, so that blocks with these contents are not found any more.
    pub(super) fn forget(&mut self, hashes: &[BlockHash]) {
        for hash in hashes {
            self.global.forget(hash);
            self.sliding.forget(hash);
        }
    }

    /// Returns the logical blocks of the sliding group that a query right behind `num_blocks`
    /// blocks sees.
    fn blocks_in_window(&self, num_blocks: usize) -> std::ops::Range<usize> {
        match self.first_seen(num_blocks * self.block_size) {
            Some(first_seen) => (first_seen / self.block_size).min(num_blocks)..num_blocks,
            None => num_blocks..num_blocks,
        }
    }

    /// First key that a sliding layer's query at `position` sees; `None` if there are no such
    /// layers.
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
