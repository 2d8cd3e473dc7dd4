//! One group's blocks: reference counts, hashes of the contents, and the order of reuse.
//!
//! ```text
//!   blank ──take──> held ──give_back──> blank        no hash: contents are not found
//!                    │ └────give_back──> cached ──take──> held, its hash forgotten
//!                    └<─────share──────────┘
//! ```
//! A block whose hash is forgotten ends up blank once no table holds it.

use std::collections::{HashMap, VecDeque};

use crate::core::BlockId;

use super::block_hash::BlockHash;
use super::eviction_order::EvictionOrder;

#[derive(Debug)]
pub(super) struct BlockPool {
    blocks: Vec<Block>,
    /// Held and cached blocks by hash; each hash belongs to one block.
    by_hash: HashMap<BlockHash, BlockId>,
    /// Free blocks without a hash. Used first, the longest free one first.
    blank: VecDeque<BlockId>,
    /// Free blocks with a hash. Used when no blank one is left, in the order in which they were
    /// freed.
    cached: EvictionOrder,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Number of tables that hold it.
    num_refs: u32,
    /// Set when the block is full and computed.
    hash: Option<BlockHash>,
    /// Its hash was forgotten: tables may still share it, but no new sequence finds it.
    is_withdrawn: bool,
}

impl BlockPool {
    pub(super) fn new(num_blocks: usize) -> Self {
        let last = u32::try_from(num_blocks).expect("a pool has fewer than 2^32 blocks");
        Self {
            blocks: vec![Block::default(); num_blocks],
            by_hash: HashMap::new(),
            blank: (0..last).map(BlockId).collect(),
            cached: EvictionOrder::new(num_blocks),
        }
    }

    /// Number of blocks that no table holds, cached or blank.
    pub(super) fn num_free(&self) -> usize {
        self.blank.len() + self.cached.len()
    }

    pub(super) fn num_cached(&self) -> usize {
        self.cached.len()
    }

    /// Returns the block with these contents, held or not.
    pub(super) fn find(&self, hash: &BlockHash) -> Option<BlockId> {
        self.by_hash.get(hash).copied()
    }

    pub(super) fn is_held(&self, block: BlockId) -> bool {
        self.blocks[block.0 as usize].num_refs > 0
    }

    /// Adds a reference to a block that was [found](Self::find).
    pub(super) fn share(&mut self, block: BlockId) {
        let state = &mut self.blocks[block.0 as usize];
        if state.num_refs == 0 {
            self.cached.remove(block);
        }
        state.num_refs += 1;
    }

    /// # Panics
    /// Panics while iterating when fewer than `count` blocks are free; check
    /// [`num_free`](Self::num_free) first.
    pub(super) fn take(&mut self, count: usize) -> impl ExactSizeIterator<Item = BlockId> {
        (0..count).map(|_| self.take_one())
    }

    fn take_one(&mut self) -> BlockId {
        let block = self.blank.pop_front().unwrap_or_else(|| {
            let block = self
                .cached
                .first()
                .expect("the caller has checked that a block is free");
            self.cached.remove(block);
            block
        });
        let state = &mut self.blocks[block.0 as usize];
        if let Some(hash) = state.hash.take() {
            self.by_hash.remove(&hash);
        }
        state.num_refs = 1;
        state.is_withdrawn = false;
        block
    }

    /// Makes the block with these contents, if there is one, impossible to find. Sequences that
    /// hold it keep it.
    pub(super) fn forget(&mut self, hash: &BlockHash) {
        let Some(block) = self.by_hash.remove(hash) else {
            return;
        };
        let state = &mut self.blocks[block.0 as usize];
        state.hash = None;
        state.is_withdrawn = true;
        if state.num_refs == 0 {
            self.cached.remove(block);
            self.blank.push_back(block);
        }
    }

    pub(super) fn give_back(&mut self, blocks: impl Iterator<Item = BlockId>) {
        for block in blocks {
            let state = &mut self.blocks[block.0 as usize];
            state.num_refs -= 1;
            match (state.num_refs, state.hash) {
                (0, Some(_)) => self.cached.push_last(block),
                (0, None) => self.blank.push_back(block),
                _ => {}
            }
        }
    }

    /// Registers the hash of a held block that is full and computed, so that it can be found. If
    /// another block with the same contents is registered already, that one stays registered.
    pub(super) fn register(&mut self, block: BlockId, hash: BlockHash) {
        self.by_hash.entry(hash).or_insert_with(|| {
            self.blocks[block.0 as usize].hash = Some(hash);
            block
        });
    }
}

/// Accessors for `check_integrity`.
#[cfg(test)]
impl BlockPool {
    pub(super) fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn num_refs(&self, block: BlockId) -> usize {
        self.blocks[block.0 as usize].num_refs as usize
    }

    pub(super) fn hash(&self, block: BlockId) -> Option<BlockHash> {
        self.blocks[block.0 as usize].hash
    }

    pub(super) fn is_withdrawn(&self, block: BlockId) -> bool {
        self.blocks[block.0 as usize].is_withdrawn
    }

    pub(super) fn blank(&self) -> impl Iterator<Item = BlockId> {
        self.blank.iter().copied()
    }

    pub(super) fn cached(&self) -> impl Iterator<Item = BlockId> {
        self.cached.iter()
    }

    pub(super) fn hashes(&self) -> impl Iterator<Item = (BlockHash, BlockId)> {
        self.by_hash.iter().map(|(&hash, &block)| (hash, block))
    }
}
