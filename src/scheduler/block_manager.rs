//! Allocates KV blocks of every group to sequences and finds cached prefixes.
//!
//! Queries and changes are separate: [`BlockManager::can_allocate`] and
//! [`BlockManager::find_prefix`] change nothing, and the changes that follow them cannot fail. This
//! module knows nothing of queues and budgets.
//!
//! No sequence writes a block that others read: only full blocks have a hash, only blocks with a
//! hash are shared, and a sequence writes only positions behind its shared blocks.

use std::ops::Range;

use crate::core::{BlockCount, BlockId, BlockTable, KvGroups};

use super::block_hash::BlockHash;
use super::block_pool::BlockPool;
use super::sequence::Sequence;

/// One sequence's block tables, by KV group. Usually a decoded token needs no new block and frees
/// none; the two numbers beside the tables tell so, and a step then reads no table.
#[derive(Debug)]
pub(super) struct KvTables {
    /// One past the last position that has a slot in every table.
    end_position: usize,
    /// Number of computed tokens at which a block may be behind a window; no block is before.
    next_release: usize,
    tables: Vec<BlockTable>,
}

impl KvTables {
    pub(super) fn new(num_groups: usize, block_size: usize) -> Self {
        let table = || BlockTable::new(block_size, 0, Vec::new());
        Self {
            tables: (0..num_groups).map(|_| table()).collect(),
            end_position: 0,
            next_release: 0,
        }
    }

    /// The table of each group.
    pub(super) fn by_group(&self) -> &[BlockTable] {
        &self.tables
    }

    pub(super) fn num_held(&self) -> BlockCount {
        let tables = self.tables.iter();
        tables.map(|table| table.blocks().len()).collect()
    }

    /// Number of positions per block, in every group.
    pub(super) fn block_size(&self) -> usize {
        self.tables[0].block_size()
    }

    /// Changes the tables: `change` gets each one's group and the table.
    fn change(&mut self, mut change: impl FnMut(usize, &mut BlockTable)) {
        for (group, table) in self.tables.iter_mut().enumerate() {
            change(group, table);
        }
        let ends = self.tables.iter().map(BlockTable::end_position);
        self.end_position = ends.min().unwrap_or(0);
    }
}

/// The prefix of a sequence that is in the cache.
#[derive(Debug, Default)]
pub(super) struct CachedPrefix {
    pub(super) num_blocks: usize,
    /// Blocks by group: of the whole prefix in a group whose layers see everything, else those that
    /// hold its last `window − 1` positions. Empty if the cache was not looked into.
    blocks: Vec<Vec<BlockId>>,
    /// Number of the above blocks that other sequences hold already; using these takes no free
    /// block.
    pub(super) num_held: BlockCount,
}

#[derive(Debug)]
pub(super) struct BlockManager {
    groups: KvGroups,
    block_size: usize,
    /// The pool of each group.
    pools: Vec<BlockPool>,
}

impl BlockManager {
    pub(super) fn new(groups: KvGroups, num_blocks: BlockCount, block_size: usize) -> Self {
        let pools = (0..groups.num_groups()).map(|group| BlockPool::new(num_blocks[group]));
        Self {
            groups,
            block_size,
            pools: pools.collect(),
        }
    }

    pub(super) fn num_free(&self) -> BlockCount {
        self.pools.iter().map(BlockPool::num_free).collect()
    }

    pub(super) fn num_cached(&self) -> BlockCount {
        self.pools.iter().map(BlockPool::num_cached).collect()
    }

    /// Whether there are enough free blocks for positions up to `end` (exclusive).
    pub(super) fn can_allocate(&self, tables: &KvTables, end: usize) -> bool {
        let mut groups = self.pools.iter().zip(&tables.tables);
        end <= tables.end_position
            || groups.all(|(pool, table)| table.num_missing(end) <= pool.num_free())
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
        if end > tables.end_position {
            tables.change(|group, table| {
                let missing = table.num_missing(end);
                table.extend(self.pools[group].take(missing));
            });
        }
    }

    /// Frees the blocks that no later query sees: the next query is at position
    /// `num_computed_tokens` and sees the keys k > num_computed_tokens − window.
    pub(super) fn release_behind_window(
        &mut self,
        tables: &mut KvTables,
        num_computed_tokens: usize,
    ) {
        if num_computed_tokens < tables.next_release {
            return;
        }
        let mut next_release = usize::MAX;
        tables.change(|group, table| {
            if let Some(window) = self.groups.windows()[group] {
                let first_seen = first_seen(window, num_computed_tokens);
                let end_of_first = table.first_position() + self.block_size;
                if first_seen >= end_of_first {
                    self.pools[group].give_back(table.release_before(first_seen));
                }
                // When the first block that is left is behind the window as a whole.
                let end_of_first = table.first_position() + self.block_size;
                next_release = next_release.min(end_of_first + window - 1);
            }
        });
        tables.next_release = next_release;
    }

    /// Frees the blocks that have no position before `end`: they were allocated for positions that
    /// are not computed after all. No other sequence holds them.
    pub(super) fn release_behind(&mut self, tables: &mut KvTables, end: usize) {
        tables.change(|group, table| self.pools[group].give_back(table.release_behind(end)));
    }

    /// Number of blocks that [`release_behind_window`](Self::release_behind_window) would free.
    pub(super) fn num_behind_window(
        &self,
        tables: &KvTables,
        num_computed_tokens: usize,
    ) -> BlockCount {
        let windows = self.groups.windows().iter();
        let freed = windows.zip(&tables.tables).map(|(window, table)| {
            let first_seen = window.map_or(0, |window| first_seen(window, num_computed_tokens));
            (first_seen / self.block_size).saturating_sub(table.num_released())
        });
        freed.collect()
    }

    /// Frees all blocks, the end of the sequence first: its beginning is what another sequence is
    /// most likely to share, so it should be overwritten last.
    pub(super) fn free(&mut self, tables: &mut KvTables) {
        tables.change(|group, table| self.pools[group].give_back(table.clear()));
        tables.next_release = 0;
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
        let mut num_blocks = hashes.len();
        let mut blocks = vec![Vec::new(); self.pools.len()];
        let windows = self.groups.windows();
        for (group, pool) in self.pools.iter().enumerate() {
            if windows[group].is_none() {
                let found = hashes[..num_blocks].iter();
                let found: Vec<_> = found.map_while(|hash| pool.find(hash)).collect();
                num_blocks = found.len();
                blocks[group] = found;
            }
        }
        num_blocks = seq.whole_blocks_within(num_blocks);
        // Every prefix that ends between a missing block and here needs that block too.
        while let Some(missing) = self.missing_in_windows(hashes, num_blocks) {
            num_blocks = seq.whole_blocks_within(missing);
        }
        for (group, pool) in self.pools.iter().enumerate() {
            match windows[group] {
                None => blocks[group].truncate(num_blocks),
                Some(window) => {
                    let seen = hashes[blocks_in_window(window, num_blocks, self.block_size)].iter();
                    blocks[group] = seen.filter_map(|hash| pool.find(hash)).collect();
                }
            }
        }
        let held = |(pool, blocks): (&BlockPool, &Vec<BlockId>)| {
            blocks.iter().filter(|&&block| pool.is_held(block)).count()
        };
        CachedPrefix {
            num_blocks,
            num_held: self.pools.iter().zip(&blocks).map(held).collect(),
            blocks,
        }
    }

    /// Returns the last block that a query right behind `num_blocks` blocks sees and that is not in
    /// the cache, over the groups that have a window.
    fn missing_in_windows(&self, hashes: &[BlockHash], num_blocks: usize) -> Option<usize> {
        let windows = self.groups.windows().iter();
        let missing = windows.zip(&self.pools).filter_map(|(window, pool)| {
            let mut seen = blocks_in_window((*window)?, num_blocks, self.block_size);
            seen.rfind(|&idx| pool.find(&hashes[idx]).is_none())
        });
        missing.max()
    }

    /// Whether this block is cached in the group that decides how far a prefix reaches.
    pub(super) fn is_cached(&self, hash: &BlockHash) -> bool {
        let deciding = self.groups.first_global().unwrap_or(0);
        self.pools[deciding].find(hash).is_some()
    }

    /// Starts a sequence's tables with a prefix that was just found.
    pub(super) fn adopt(&mut self, tables: &mut KvTables, prefix: CachedPrefix) {
        let block_size = self.block_size;
        let mut prefixes = prefix.blocks.into_iter();
        tables.change(|group, table| {
            // There are none if the cache was not looked into.
            let Some(blocks) = prefixes.next() else {
                return;
            };
            for &block in &blocks {
                self.pools[group].share(block);
            }
            let first = match self.groups.windows()[group] {
                None => 0,
                Some(window) => blocks_in_window(window, prefix.num_blocks, block_size).start,
            };
            *table = BlockTable::new(block_size, first, blocks);
        });
    }

    /// Registers a block that is full and computed, so that other sequences can find it.
    pub(super) fn register(&mut self, tables: &KvTables, idx: usize, hash: BlockHash) {
        for (pool, table) in self.pools.iter_mut().zip(&tables.tables) {
            if let Some(block) = table.block(idx) {
                pool.register(block, hash);
            }
        }
    }

    /// Removes the hashes, so that blocks with these contents are not found any more.
    pub(super) fn forget(&mut self, hashes: &[BlockHash]) {
        for pool in &mut self.pools {
            for hash in hashes {
                pool.forget(hash);
            }
        }
    }

    fn num_missing(&self, tables: &KvTables, end: usize) -> BlockCount {
        let tables = tables.tables.iter();
        tables.map(|table| table.num_missing(end)).collect()
    }
}

/// Returns the logical blocks of a group with this window that a query right behind `num_blocks`
/// blocks sees.
fn blocks_in_window(window: usize, num_blocks: usize, block_size: usize) -> Range<usize> {
    let first_seen = first_seen(window, num_blocks * block_size);
    (first_seen / block_size).min(num_blocks)..num_blocks
}

/// First key that a query at `position` sees in a layer with this window.
fn first_seen(window: usize, position: usize) -> usize {
    (position + 1).saturating_sub(window)
}

/// Accessor for `check_integrity`.
#[cfg(test)]
impl BlockManager {
    pub(super) fn pool(&self, group: usize) -> &BlockPool {
        &self.pools[group]
    }
}
