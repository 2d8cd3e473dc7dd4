//! Hashes (256 bits) of everything that a block's keys and values depend on, and the pending blocks:
//! those that a running sequence will fill, so that no other sequence computes them meanwhile.
//!
//! ```text
//!   salt ──> root ──> block 0 ──> block 1 ──> …     each: hash(parent, 32 tokens, their images)
//! ```
//!
//! Equal hashes mean equal contents, so the chain must include all that the model sees up to the
//! end of the block. An image's tokens attend to one another in both directions, so the keys of its
//! first token depend on its last. Therefore every image of a run that overlaps a block is hashed,
//! even one that begins behind the block.
//!
//! The model is not hashed: each scheduler has its own pools and serves one model.

use std::collections::HashMap;

use crate::core::{CacheSalt, ImageSpan, SeqId, TokenId};

/// Hash that identifies a full block's contents and everything before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BlockHash([u8; 32]);

impl BlockHash {
    /// Returns the parent hash of a sequence's first block.
    pub(super) fn root(salt: Option<CacheSalt>) -> Self {
        match salt {
            None => Self([0; 32]),
            Some(CacheSalt(salt)) => {
                let mut hasher = blake3::Hasher::new_derive_key("medgemma prefix cache salt");
                hasher.update(&salt);
                Self(*hasher.finalize().as_bytes())
            }
        }
    }

    /// Returns the hash of the next block, at positions `start..start + tokens.len()`. `images` are
    /// the images of the runs that overlap it. Every part but the last has a fixed length, so two
    /// different inputs never give the same bytes.
    pub(super) fn child(self, start: usize, tokens: &[TokenId], images: &[ImageSpan]) -> Self {
        let mut bytes = Vec::with_capacity(32 + 4 * tokens.len() + 48 * images.len());
        bytes.extend_from_slice(&self.0);
        for token in tokens {
            bytes.extend_from_slice(&token.0.to_le_bytes());
        }
        for image in images {
            let offset = image.start as i64 - start as i64;
            bytes.extend_from_slice(&image.pixels.hash.0);
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&(image.len as u64).to_le_bytes());
        }
        Self(*blake3::hash(&bytes).as_bytes())
    }
}

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
