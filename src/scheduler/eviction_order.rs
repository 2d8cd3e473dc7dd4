//! The order in which cached blocks are reused.

use crate::core::BlockId;

/// A doubly linked list of blocks with constant-time append and removal from anywhere. The links
/// are in an array with one entry per block of the pool.
#[derive(Debug)]
pub(super) struct EvictionOrder {
    links: Vec<Link>,
    first: Option<BlockId>,
    last: Option<BlockId>,
    len: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    before: Option<BlockId>,
    after: Option<BlockId>,
}

impl EvictionOrder {
    pub(super) fn new(num_blocks: usize) -> Self {
        Self {
            links: vec![Link::default(); num_blocks],
            first: None,
            last: None,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The block that is reused first.
    pub(super) fn first(&self) -> Option<BlockId> {
        self.first
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = BlockId> {
        std::iter::successors(self.first, |block| self.links[block.0 as usize].after)
    }

    /// Appends `block`, which must not be in the list.
    pub(super) fn push_last(&mut self, block: BlockId) {
        self.links[block.0 as usize] = Link {
            before: self.last,
            after: None,
        };
        match self.last {
            Some(last) => self.links[last.0 as usize].after = Some(block),
            None => self.first = Some(block),
        }
        self.last = Some(block);
        self.len += 1;
    }

    /// Removes `block`, which must be in the list.
    pub(super) fn remove(&mut self, block: BlockId) {
        let Link { before, after } = std::mem::take(&mut self.links[block.0 as usize]);
        match before {
            Some(before) => self.links[before.0 as usize].after = after,
            None => self.first = after,
        }
        match after {
            Some(after) => self.links[after.0 as usize].before = before,
            None => self.last = before,
        }
        self.len -= 1;
    }
}
