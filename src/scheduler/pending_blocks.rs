//! Pending blocks: a running sequence will fill them, so no other sequence computes them meanwhile.

use std::collections::HashMap;

use crate::core::SeqId;

use super::block_hash::BlockHash;

/// Maps the hash of a pending block to the running sequence that will fill it. Each hash has at
/// most one producer. An entry ends when the block is full or its sequence stops running.
#[derive(Debug, Default)]
pub(super) struct PendingBlocks {
    by_hash: HashMap<BlockHash, SeqId>,
}

impl PendingBlocks {
    /// Returns the sequence that will fill this block.
    pub(super) fn producer(&self, hash: &BlockHash) -> Option<SeqId> {
        self.by_hash.get(hash).copied()
    }

    /// Marks the blocks that have no producer yet as pending on `id`.
    pub(super) fn make(&mut self, id: SeqId, hashes: &[BlockHash]) {
        for &hash in hashes {
            self.by_hash.entry(hash).or_insert(id);
        }
    }

    /// Removes those of these pending blocks whose producer is `id`.
    pub(super) fn end(&mut self, id: SeqId, hashes: &[BlockHash]) {
        if self.by_hash.is_empty() {
            return;
        }
        for hash in hashes {
            if self.producer(hash) == Some(id) {
                self.by_hash.remove(hash);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (BlockHash, SeqId)> {
        self.by_hash.iter().map(|(&hash, &id)| (hash, id))
    }
}
