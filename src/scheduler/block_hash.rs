//! Hashes (256 bits) of everything that a block's keys and values depend on.
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

use crate::core::{CacheSalt, ImageSpan, TokenId};

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
