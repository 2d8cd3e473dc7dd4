//! Block table: maps one sequence's positions to blocks of one group's pool.

use crate::core::BlockId;

/// Maps the logical blocks of a sequence to blocks of the pool. Blocks at the front may have been
/// freed:
///
/// ```text
///   logical block    0    1    2    3    4
///                   [ ]  [ ]  [7]  [3]  [9]     num_released = 2, blocks = [7, 3, 9]
///   positions        0…   32…  64…  96…  128…   (block_size = 32)
/// ```
///
/// A global group's table never releases anything.
#[derive(Debug)]
pub struct BlockTable {
    block_size: usize,
    num_released: usize,
    blocks: Vec<BlockId>,
}

impl BlockTable {
    pub(super) fn new(block_size: usize) -> Self {
        Self {
            block_size,
            num_released: 0,
            blocks: Vec::new(),
        }
    }

    pub(super) fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks held, in the order of their positions; the first one begins at position
    /// [`first_position`](Self::first_position).
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Number of logical blocks at the front that were freed.
    pub fn num_released(&self) -> usize {
        self.num_released
    }

    /// First position that has a slot, if any has.
    pub fn first_position(&self) -> usize {
        self.num_released * self.block_size
    }

    /// One past the last position that has a slot.
    pub fn end_position(&self) -> usize {
        self.num_logical() * self.block_size
    }

    /// Returns the block of a position and the offset within it; `None` behind the window and past
    /// the end.
    pub fn slot(&self, position: usize) -> Option<(BlockId, usize)> {
        let idx = (position / self.block_size).checked_sub(self.num_released)?;
        let block = *self.blocks.get(idx)?;
        Some((block, position % self.block_size))
    }

    /// Number of blocks that positions up to `end` (exclusive) need in addition to those held.
    pub(super) fn num_missing(&self, end: usize) -> usize {
        // Fast path without the division: a decode usually still has space in its last block.
        if end <= self.end_position() {
            return 0;
        }
        end.div_ceil(self.block_size) - self.num_logical()
    }

    /// Returns the pool block of a logical block; `None` behind the window and past the end.
    pub(super) fn block(&self, logical: usize) -> Option<BlockId> {
        let idx = logical.checked_sub(self.num_released)?;
        self.blocks.get(idx).copied()
    }

    /// Starts an empty table with blocks that other sequences have filled.
    pub(super) fn begin(&mut self, num_released: usize, blocks: &[BlockId]) {
        assert!(self.blocks.is_empty(), "a table begins once");
        self.num_released = num_released;
        self.blocks.extend_from_slice(blocks);
    }

    pub(super) fn extend(&mut self, blocks: impl Iterator<Item = BlockId>) {
        self.blocks.extend(blocks);
    }

    /// Removes and returns the blocks whose positions are all before `position`, which must not lie
    /// past the end.
    pub(super) fn release_before(&mut self, position: usize) -> impl Iterator<Item = BlockId> {
        let num_behind = (position / self.block_size).saturating_sub(self.num_released);
        self.num_released += num_behind;
        self.blocks.drain(..num_behind)
    }

    /// Removes and returns the blocks whose positions are all at or behind `end`, last one first.
    pub(super) fn release_behind(&mut self, end: usize) -> impl Iterator<Item = BlockId> {
        let num_kept = end.div_ceil(self.block_size);
        let num_kept = num_kept.saturating_sub(self.num_released);
        self.blocks.drain(num_kept.min(self.blocks.len())..).rev()
    }

    /// Removes and returns all blocks, last one first, and resets the table.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = BlockId> {
        self.num_released = 0;
        self.blocks.drain(..).rev()
    }

    fn num_logical(&self) -> usize {
        self.num_released + self.blocks.len()
    }
}
