//! One group's blocks that nobody holds.

use std::collections::VecDeque;

use crate::core::BlockId;

/// Free blocks in the order in which they will be handed out again: the one that has been free for
/// longest first. A cache of prefixes belongs here: a free block keeps its contents until its turn
/// comes, so it can carry its hash until then, and a hit takes it out of the line.
#[derive(Debug)]
pub(super) struct BlockPool {
    num_blocks: usize,
    free: VecDeque<BlockId>,
}

impl BlockPool {
    pub(super) fn new(num_blocks: usize) -> Self {
        let last = u32::try_from(num_blocks).expect("a pool has fewer than 2^32 blocks");
        Self {
            num_blocks,
            free: (0..last).map(BlockId).collect(),
        }
    }

    pub(super) fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    pub(super) fn num_free(&self) -> usize {
        self.free.len()
    }

    pub(super) fn free(&self) -> impl Iterator<Item = BlockId> {
        self.free.iter().copied()
    }

    /// # Panics
    /// When fewer than `count` are free; ask first.
    pub(super) fn take(&mut self, count: usize) -> impl Iterator<Item = BlockId> {
        self.free.drain(..count)
    }

    pub(super) fn give_back(&mut self, blocks: impl Iterator<Item = BlockId>) {
        self.free.extend(blocks);
    }
}
