//! Block table: maps one sequence's positions to KV blocks of one group's pool.

use std::sync::Arc;

use super::BlockId;

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
///
/// A clone shares the blocks, so each step can hold its sequences' tables while the scheduler
/// continues with them. Only a change of a shared table copies its blocks: once in `block_size`
/// decoded tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTable {
    block_size: usize,
    num_released: usize,
    /// `num_released + blocks.len()`, here so that a step need not follow the pointer.
    num_logical: usize,
    blocks: Arc<Vec<BlockId>>,
}

impl BlockTable {
    /// Creates a table whose first `num_released` blocks were freed and are followed by `blocks`,
    /// of `block_size` positions each.
    pub fn new(block_size: usize, num_released: usize, blocks: Vec<BlockId>) -> Self {
        Self {
            block_size,
            num_released,
            num_logical: num_released + blocks.len(),
            blocks: Arc::new(blocks),
        }
    }

    /// Number of positions in a block.
    pub fn block_size(&self) -> usize {
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
        self.num_logical * self.block_size
    }

    /// Returns the block of a position and the offset within it; `None` behind the window and past
    /// the end.
    pub fn slot(&self, position: usize) -> Option<(BlockId, usize)> {
        let block = self.block(position / self.block_size)?;
        Some((block, position % self.block_size))
    }

    /// Returns the pool block of a logical block; `None` behind the window and past the end.
    pub fn block(&self, logical: usize) -> Option<BlockId> {
        let idx = logical.checked_sub(self.num_released)?;
        self.blocks.get(idx).copied()
    }

    /// Number of blocks that positions up to `end` (exclusive) need in addition to those held.
    pub fn num_missing(&self, end: usize) -> usize {
        // Fast path without the division: a decode usually still has space in its last block.
        if end <= self.end_position() {
            return 0;
        }
        end.div_ceil(self.block_size) - self.num_logical
    }

    /// Appends blocks.
    pub fn extend(&mut self, blocks: impl ExactSizeIterator<Item = BlockId>) {
        if blocks.len() > 0 {
            self.num_logical += blocks.len();
            self.own(blocks.len()).extend(blocks);
        }
    }

    /// Removes and returns the blocks whose positions are all before `position`, which must not lie
    /// past the end.
    pub fn release_before(&mut self, position: usize) -> impl Iterator<Item = BlockId> {
        let num_behind = (position / self.block_size).saturating_sub(self.num_released);
        self.num_released += num_behind;
        self.own(0).drain(..num_behind)
    }

    /// Removes and returns the blocks whose positions are all at or behind `end`, last one first.
    pub fn release_behind(&mut self, end: usize) -> impl Iterator<Item = BlockId> {
        let kept = end.div_ceil(self.block_size);
        let num_kept = kept
            .saturating_sub(self.num_released)
            .min(self.blocks.len());
        self.num_logical = self.num_released + num_kept;
        self.own(0).drain(num_kept..).rev()
    }

    /// Removes and returns all blocks, last one first, and resets the table.
    pub fn clear(&mut self) -> impl Iterator<Item = BlockId> {
        self.num_released = 0;
        self.num_logical = 0;
        let blocks = std::mem::take(&mut self.blocks);
        (0..blocks.len()).rev().map(move |idx| blocks[idx])
    }

    /// Returns the blocks for a change. If others share them, this is a copy with space for
    /// `num_more`.
    fn own(&mut self, num_more: usize) -> &mut Vec<BlockId> {
        if Arc::get_mut(&mut self.blocks).is_none() {
            let mut copy = Vec::with_capacity(self.blocks.len() + num_more);
            copy.extend_from_slice(&self.blocks);
            self.blocks = Arc::new(copy);
        }
        Arc::get_mut(&mut self.blocks).expect("nobody shares a copy that was just made")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(blocks: impl IntoIterator<Item = u32>) -> Vec<BlockId> {
        blocks.into_iter().map(BlockId).collect()
    }

    #[test]
    fn a_clone_keeps_what_it_shares_and_is_copied_only_by_a_change() {
        let mut table = BlockTable::new(4, 0, ids(0..5));
        let snapshot = table.clone();
        assert!(Arc::ptr_eq(&table.blocks, &snapshot.blocks));
        table.extend(ids([5]).into_iter());
        assert!(!Arc::ptr_eq(&table.blocks, &snapshot.blocks));
        let own = Arc::as_ptr(&table.blocks);
        assert_eq!(ids([0, 1]), table.release_before(9).collect::<Vec<_>>());
        assert_eq!(ids([5]), table.release_behind(20).collect::<Vec<_>>());
        assert_eq!(Arc::as_ptr(&table.blocks), own);
        assert_eq!(table, BlockTable::new(4, 2, ids(2..5)));
        assert_eq!((table.first_position(), table.end_position()), (8, 20));

        let second = table.clone();
        assert_eq!(ids([4, 3, 2]), table.clear().collect::<Vec<_>>());
        assert_eq!(table, BlockTable::new(4, 0, Vec::new()));
        assert_eq!(second.blocks(), ids(2..5));
        assert_eq!(snapshot.blocks(), ids(0..5));
    }
}
