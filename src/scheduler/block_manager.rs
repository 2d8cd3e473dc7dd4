//! Who holds which KV block, in both groups.
//!
//! Asking is apart from doing: [`BlockManager::can_allocate`] changes nothing, and
//! [`BlockManager::allocate`] cannot fail after it. Knows nothing of queues and budgets.

use super::block_pool::BlockPool;
use super::block_table::BlockTable;
use super::kv_groups::{BlockCount, KvGroups};

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

#[derive(Debug)]
pub(super) struct BlockManager {
    groups: KvGroups,
    pub(super) global: BlockPool,
    pub(super) sliding: BlockPool,
}

impl BlockManager {
    pub(super) fn new(groups: KvGroups, num_blocks: BlockCount) -> Self {
        Self {
            groups,
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

    /// Whether there are blocks for positions up to `end` (exclusive).
    pub(super) fn can_allocate(&self, tables: &KvTables, end: usize) -> bool {
        self.num_missing(tables, end).fits_in(self.num_free())
    }

    /// Makes room for positions up to `end` (exclusive).
    ///
    /// # Panics
    /// When [`can_allocate`](Self::can_allocate) says no.
    pub(super) fn allocate(&mut self, tables: &mut KvTables, end: usize) {
        let missing = self.num_missing(tables, end);
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
        if let Some(window) = self.groups.window() {
            let first_seen = (num_computed_tokens + 1).saturating_sub(window);
            self.sliding
                .give_back(tables.sliding.release_before(first_seen));
        }
    }

    /// Gives everything back, the end of the sequence first: its beginning is what another
    /// sequence is most likely to share, so it should be the last to be overwritten.
    pub(super) fn free(&mut self, tables: &mut KvTables) {
        self.global.give_back(tables.global.clear());
        self.sliding.give_back(tables.sliding.clear());
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
