//! Blocks that a running sequence will fill, so that nobody else computes them meanwhile.

use std::collections::HashMap;

use crate::core::SeqId;

use super::block_hash::BlockHash;

/// Which running sequence will fill a block of its prompt. Each hash is promised by one at most;
/// a promise ends when the block is full or its sequence stops running.
#[derive(Debug, Default)]
pub(super) struct PendingBlocks {
    by_hash: HashMap<BlockHash, SeqId>,
}

impl PendingBlocks {
    /// Who will fill this block.
    pub(super) fn producer(&self, hash: &BlockHash) -> Option<SeqId> {
        self.by_hash.get(hash).copied()
    }

    /// Promises what nobody else has promised.
    pub(super) fn make(&mut self, id: SeqId, hashes: &[BlockHash]) {
        for &hash in hashes {
            self.by_hash.entry(hash).or_insert(id);
        }
    }

    /// Ends those of these promises that `id` has made.
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

    pub(super) fn iter(&self) -> impl Iterator<Item = (BlockHash, SeqId)> {
        self.by_hash.iter().map(|(&hash, &id)| (hash, id))
    }
}
